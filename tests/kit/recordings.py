"""Runs of agent frameworks, recorded event by event, and agents that tell them again.

A recording is a file with one JSON object a line: `event`, an AG-UI event as the framework sent it,
and `after`, how many seconds after the one before it came.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from towpath.agents.agent import AgentFunction, AgentInput
from towpath.events.types import Event, Message

LONGEST: Final = 0.02
"""The longest pause between two events that are told again, in seconds."""
_NAMES: Final = ("messageId", "toolCallId", "parentMessageId")
"""Fields of events and messages that name what belongs to one run."""
_GIVEN: Final = frozenset({"user", "system", "developer"})
"""Roles of messages that a run does not make."""


class Recorded(msgspec.Struct, frozen=True):
    """One event of a recording."""

    after: float
    event: Event


def read(path: Path) -> list[Recorded]:
    """Return a recording.

    Raises:
        OSError: there is none.
        msgspec.MsgspecError: it is none.
    """
    lines = path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Recorded) for line in lines]


def retold(recording: Sequence[Recorded]) -> AgentFunction:
    """Return an agent whose every run is the recorded one, with names of its own."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        for one in recording:
            await asyncio.sleep(min(one.after, LONGEST))
            yield told_in(request, one.event)

    return agent


def told_in(request: AgentInput, event: Event) -> Event:
    """Return a recorded event as the run that is asked now would have told it."""
    prefix = f"{request.context.run}-"
    event = {**event, **_named(event, prefix)}
    if event["type"].startswith("RUN_"):
        event = {name: value for name, value in event.items() if name not in ("threadId", "runId")}
    if event["type"] == "MESSAGES_SNAPSHOT":
        made = (one for one in event["messages"] if one["role"] not in _GIVEN)
        event["messages"] = [*request.messages, *(_message(one, prefix) for one in made)]
    return event


def _named(thing: dict[str, Any], prefix: str) -> dict[str, str]:
    return {name: prefix + thing[name] for name in _NAMES if thing.get(name)}


def _message(message: Message, prefix: str) -> Message:
    message = {**message, "id": prefix + message["id"], **_named(message, prefix)}
    if message.get("toolCalls"):
        calls = message["toolCalls"]
        message["toolCalls"] = [{**call, "id": prefix + call["id"]} for call in calls]
    return message
