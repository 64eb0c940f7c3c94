"""Agents of several kinds: of text, of events, of both, as a function and as an object."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, assert_type

from ag_ui.core import BaseEvent, EventType, StateSnapshotEvent, StepStartedEvent

from towpath import AgentError, AgentInput, Gateway, UserExecutionContext
from towpath.events import golden_name

gateway = Gateway()


@gateway.agent("parrot")
async def parrot(request: AgentInput) -> AsyncGenerator[str, None]:
    """Yield text."""
    assert_type(request.message, str)
    yield request.message


@gateway.agent("stepper", deadline=30, double_texting="queue")
async def stepper(request: AgentInput) -> AsyncGenerator[BaseEvent, None]:
    """Yield events of AG-UI's own models."""
    yield StepStartedEvent(step_name="look")
    yield StateSnapshotEvent(type=EventType.STATE_SNAPSHOT, snapshot=request.state)


@gateway.agent("caller", double_texting="interrupt")
async def caller(request: AgentInput) -> AsyncGenerator[str | dict[str, object], None]:
    """Yield text, and mappings in wire form."""
    if not request.message:
        raise AgentError("Say something.", code="caller.silent")
    key = uuid.uuid4().hex
    yield {"type": "TOOL_CALL_START", "toolCallId": key, "toolCallName": "price"}
    yield {"type": "TOOL_CALL_END", "toolCallId": key}
    await asyncio.sleep(0)
    yield "Done."


class Counter:
    """An agent that keeps something between its runs."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, request: AgentInput) -> AsyncGenerator[str, None]:
        """Yield the number of the run."""
        self.runs += 1
        yield f"{request.context.user}: {self.runs}"


counter = gateway.agent("counter")(Counter())


@gateway.agent("resumed")
async def resumed(request: AgentInput) -> AsyncGenerator[object, None]:
    """Read everything that an agent gets."""
    assert_type(request.context, UserExecutionContext)
    assert_type(request.messages, list[dict[str, Any]])
    assert_type(request.tools, list[Mapping[str, Any]])
    assert_type(request.resume, list[Mapping[str, Any]])
    for answer in request.resume:
        yield str(answer["status"])


def values_have_their_types() -> None:
    """The decorator returns the function itself, with its own type."""
    plain: Callable[[AgentInput], AsyncGenerator[str, None]] = parrot
    assert_type(counter, Counter)
    assert_type(counter.runs, int)
    assert_type(golden_name({"type": "RUN_STARTED"}), str | None)
    assert_type(AgentError("No.").code, str)
    assert plain is parrot


async def whole(request: AgentInput) -> str:
    """Return the answer at once, as no agent may."""
    return request.message


async def two(request: AgentInput, more: str) -> AsyncGenerator[str, None]:
    """Take two arguments."""
    yield request.message + more


async def iterator(request: AgentInput) -> AsyncIterator[str]:
    """Hide that the function is a generator."""
    yield request.message


def mistakes(request: AgentInput) -> None:
    """A type checker finds each of these before the registration does."""
    gateway.agent("whole")(whole)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    gateway.agent("two")(two)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    gateway.agent("it")(iterator)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    gateway.agent(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gateway.agent("a", deadline="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gateway.agent("b", double_texting="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    request.message = ""  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    repr(request.txt)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
