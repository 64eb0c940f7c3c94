"""Record Agno: `python tests/recordings/how/agno_agents.py`.

Made with agno 3.1.10 and ag-ui-protocol 1.0.0. The model is a script; agent, tools and events are
the framework's.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from ag_ui.core import RunAgentInput, UserMessage
from ag_ui.encoder import EventEncoder
from agno.agent import Agent
from agno.models.base import Model
from agno.models.message import Message
from agno.models.response import ModelResponse
from agno.os.interfaces.agui.router import run_entity
from agno.run import RunContext
from writing import record

ANSWER = """It will rain from three o'clock, first a little, then a lot. ☔ The path above the \
aqueduct floods when the gauge is over 90 cm, and it says 84 now. Go before two, or go by the \
road: it is longer by a mile, and dry. Überlaufgefahr besteht nicht; 気をつけて."""


@dataclass
class Scripted(Model):
    """Calls a tool, and then says what it was given to say."""

    id: str = "scripted"

    async def ainvoke_stream(
        self, messages: list[Message], *_: Any, **more: Any
    ) -> AsyncIterator[ModelResponse]:
        """Yield a turn piece by piece."""
        if messages[-1].role == "tool":
            for at in range(0, len(ANSWER), 8):
                await asyncio.sleep(0.004)
                yield ModelResponse(role="assistant", content=ANSWER[at : at + 8])
            return
        for piece in ("I look ", "at the ", "gauge."):
            await asyncio.sleep(0.004)
            yield ModelResponse(role="assistant", content=piece)
        function = {"name": "gauge", "arguments": '{"place": "the aqueduct"}'}
        call = {"id": "call-1", "type": "function", "function": function}
        yield ModelResponse(role="assistant", tool_calls=[call])

    def invoke(self, *given: Any, **more: Any) -> ModelResponse:
        """Not used: the script is a stream."""
        raise NotImplementedError

    async def ainvoke(self, *given: Any, **more: Any) -> ModelResponse:
        """Not used: the script is a stream."""
        raise NotImplementedError

    invoke_stream = _parse_provider_response = _parse_provider_response_delta = invoke


def gauge(run_context: RunContext, place: str) -> str:
    """Say how high the water stands."""
    run_context.session_state = {**(run_context.session_state or {}), "gauge": {place: 84}}
    return f"{place}: 84 cm, rising"


async def told() -> AsyncIterator[str]:
    """Yield what the framework's own interface sends for one run."""
    asked = RunAgentInput(
        thread_id="canal",
        run_id="passage",
        state={"boat": "Heron", "gauge": {}},
        messages=[UserMessage(id="question", role="user", content="Will the path be dry?")],
        tools=[],
        context=[],
        forwarded_props={},
    )
    encoder = EventEncoder()
    agent = Agent(model=Scripted(), tools=[gauge], telemetry=False)
    async for event in run_entity(agent, asked):
        yield encoder.encode(event)


if __name__ == "__main__":
    asyncio.run(record(told(), "agno-tools"))
