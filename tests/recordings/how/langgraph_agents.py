"""Record LangGraph: `python tests/recordings/how/langgraph_agents.py`.

Made with ag-ui-langgraph 0.0.47, langgraph 1.2.24, langchain 1.5.2 and langchain-core 1.8.3. The
model is a script; graph, tools, state and events are the framework's.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ag_ui.core import RunAgentInput, UserMessage
from ag_ui.encoder import EventEncoder
from ag_ui_langgraph import LangGraphAgent
from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt
from writing import record

ANSWER = """The lower lock is open until six. The wind is from the west, about force three, so \
keep to the eastern bank while you wait, and close the paddles behind you before you open the next \
ones. Above the lock the towpath is gravel for two miles; then there is a bridge, number 47, where \
the water is shallow on the inside of the bend. 🚣

1. Moor at the bollards below the gate.
2. Ask at the cottage for the key.
3. Leave it *exactly* where you found it.

With a fair wind you are at the top by four — Grüße vom Kanal, 運河より."""


class Scripted(BaseChatModel):
    """Calls the tools it has, one after the other, and then says what it was given to say."""

    calls: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **more: Any) -> "Scripted":
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **more: Any) -> ChatResult:
        whole = None
        for chunk in self._chunks(messages):
            whole = chunk if whole is None else whole + chunk
        message = AIMessage(content=whole.content, tool_calls=whole.tool_calls, id=whole.id)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **more: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for message in self._chunks(messages):
            await asyncio.sleep(0.004)
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                await run_manager.on_llm_new_token(str(message.content), chunk=chunk)
            yield chunk

    def _chunks(self, messages: list[BaseMessage]) -> Iterator[AIMessageChunk]:
        done = sum(isinstance(message, ToolMessage) for message in messages)
        name = f"answer-{done}"
        if done < len(self.calls):
            call = self.calls[done]
            for index, piece in enumerate(["", call["arguments"][:6], call["arguments"][6:]]):
                first = {"name": call["name"], "id": f"call-{done}"} if index == 0 else {}
                part = {"name": None, "id": None, "index": 0, "args": piece, **first}
                yield AIMessageChunk(content="", id=name, tool_call_chunks=[part])
            return
        for at in range(0, len(ANSWER), 9):
            yield AIMessageChunk(content=ANSWER[at : at + 9], id=name)


@tool
def lock_hours(lock: str) -> str:
    """Say when a lock is open."""
    return f'{{"lock": "{lock}", "open": "08:00", "close": "18:00"}}'


@tool
def weather(place: str) -> str:
    """Say what the weather is like."""
    return f"{place}: west 3, fair"


@tool
def book(lock: str) -> str:
    """Book a passage, if the keeper agrees."""
    return f"booked at {lock}: {interrupt({'question': 'Book the passage?', 'lock': lock})}"


HOURS = {"name": "lock_hours", "arguments": '{"lock": "Lower Lock"}'}
WEATHER = {"name": "weather", "arguments": '{"place": "the summit"}'}
BOOK = {"name": "book", "arguments": '{"lock": "Lower Lock"}'}


async def told(graph: Any, said: str, **how: Any) -> AsyncIterator[str]:
    """Yield what the framework's own adapter sends for one run."""
    agent = LangGraphAgent(name="keeper", graph=graph, **how)
    asked = RunAgentInput(
        thread_id="canal",
        run_id="passage",
        state={},
        messages=[UserMessage(id="question", role="user", content=said)],
        tools=[],
        context=[],
        forwarded_props={},
    )
    encoder = EventEncoder()
    async for event in agent.run(asked):
        yield encoder.encode(event)


async def main() -> None:
    """Make the recordings."""
    model = Scripted(calls=[HOURS, WEATHER])
    graph = create_agent(model, [lock_hours, weather], checkpointer=InMemorySaver())
    said = "When is the lower lock open, and how is the wind?"
    await record(told(graph, said, emit_raw_events=False), "langgraph-tools")
    graph = create_agent(Scripted(calls=[BOOK]), [book], checkpointer=InMemorySaver())
    await record(told(graph, "Book a passage.", emit_interrupt_outcome=True), "langgraph-interrupt")


if __name__ == "__main__":
    asyncio.run(main())
