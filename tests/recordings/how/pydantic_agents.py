"""Record pydantic-ai: `python tests/recordings/how/pydantic_agents.py`.

Made with pydantic-ai-slim 2.68.0 and ag-ui-protocol 1.0.0. The model is a script; agent, tools and
events are the framework's.
"""

import asyncio
import json
from collections.abc import AsyncIterator

from ag_ui.core import RunAgentInput, UserMessage
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingCalls,
    DeltaThinkingPart,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)
from pydantic_ai.ui.ag_ui import AGUIAdapter
from writing import record

THOUGHT = (
    "Two things are asked: the depth at the bridge, and the way. Both have a tool. Ask at once."
)
ANSWER = """## From the basin to bridge 47

The water under the bridge is **1.2 m** deep today; 運河の水は浅い, so keep to the middle. 🚣‍♀️

| lock | rise | paddles |
| --- | ---: | --- |
| Lower | 2.1 m | two |
| Middle | 1.8 m | two |
| Upper | 2.4 m | four |

```python
def passable(depth: float, draught: float) -> bool:
    return depth - draught > 0.2
```

1. Leave the basin by the eastern arm.
2. At the Middle Lock wait for the keeper — *Schleusenwärter* — who is there until six.
3. Above it the path changes sides; the rope has to go over the bridge, and you with it.

> Under bridge 47 the wind comes from the side. Do not stop there.

If the gauge shows less than a metre, turn round in the winding hole before the bridge: there is \
no other place for three miles. 👩‍🚒"""

agent = Agent(instructions="You know the canal.")


@agent.tool_plain
async def depth(bridge: int) -> str:
    """Say how deep the water is under a bridge."""
    await asyncio.sleep(0.02)
    return f"{bridge}: 1.2 m"


@agent.tool_plain
async def way(start: str, end: str) -> list[str]:
    """Say by which locks one comes from one place to another."""
    await asyncio.sleep(0.01)
    return [start, "Lower", "Middle", "Upper", end]


async def script(
    messages: list[ModelMessage], _: AgentInfo
) -> AsyncIterator[str | DeltaToolCalls | DeltaThinkingCalls]:
    """Think, call both tools at once, and then answer."""
    last = messages[-1]
    if not isinstance(last, ModelRequest) or not any(
        isinstance(part, ToolReturnPart) for part in last.parts
    ):
        for at in range(0, len(THOUGHT), 7):
            await asyncio.sleep(0.004)
            yield {0: DeltaThinkingPart(content=THOUGHT[at : at + 7])}
        calls = (("depth", {"bridge": 47}), ("way", {"start": "basin", "end": "bridge 47"}))
        for index, (name, arguments) in enumerate(calls, 1):
            text = json.dumps(arguments)
            yield {index: DeltaToolCall(name=name, json_args="", tool_call_id=f"call-{index}")}
            for at in range(0, len(text), 6):
                await asyncio.sleep(0.004)
                yield {index: DeltaToolCall(json_args=text[at : at + 6])}
        return
    for at in range(0, len(ANSWER), 6):
        await asyncio.sleep(0.004)
        yield ANSWER[at : at + 6]


async def main() -> None:
    """Make the recording."""
    said = "How deep is it under bridge 47, and how do I get there?"
    asked = RunAgentInput(
        thread_id="canal",
        run_id="passage",
        state={},
        messages=[UserMessage(id="question", role="user", content=said)],
        tools=[],
        context=[],
        forwarded_props={},
    )
    with agent.override(model=FunctionModel(stream_function=script)):
        adapter = AGUIAdapter(agent, asked)
        await record(adapter.encode_stream(adapter.run_stream()), "pydantic-ai-tools")


if __name__ == "__main__":
    asyncio.run(main())
