"""What people ask of the bridge, and how the runs that come of it are opened."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from towpath.agents.run import Queued, RunKey
from towpath.context import Principal
from towpath.events.kinds import Event
from towpath.streams.broker import Key, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """What a person asks of an agent."""

    request_id: str
    agent: str
    thread_id: str | None = None
    message: str | None = None
    input: dict[str, Any] | None = None
    """Instead of `message`: AG-UI `messages`, `state`, `context`, `tools`, `forwardedProps`."""
    run_id: str | None = None
    """What the run is to be called; None lets the gateway choose. One of this person's that is
    there already is refused with Conflict."""

    @property
    def answers(self) -> list[Event]:
        """The answers to what an earlier run asked: AG-UI's `resume`."""
        given = (self.input or {}).get("resume")
        return given if isinstance(given, list) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Decide:
    """What a person says to something a run asked."""

    request_id: str
    run_id: str
    interrupt_id: str
    decision: str
    """`approve` or `refuse`."""
    payload: Any = None
    """What the agent is told beside it."""
    digest: str | None = None
    """Of the arguments the person was shown; needed where the question is about a tool call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a run is opened beside what was asked: by whom, after what, and what is remembered."""

    key: Key | None
    result: Callable[[RunKey, Span], bytes]
    parent: str | None = None
    facts: tuple[object, ...] = ()
    """Told in the same write, before the run's own."""
    queued: Queued | None = None
    """The run as it waited, if it did."""


def request_key(who: Principal, method: str, request_id: str, asked: object) -> Key:
    """Return what makes a repeated request the same: who, what, which id, and its parameters."""
    digest = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
    return Key((who.tenant, who.user, method), request_id, digest)


def start_result(key: RunKey, span: Span) -> bytes:
    """Return the result of `run.start`."""
    return msgspec.json.encode(_where(key, span))


def approve_result(key: RunKey, span: Span) -> bytes:
    """Return the result of the decision that a run continues with."""
    return msgspec.json.encode({"status": "accepted", **_where(key, span)})


def cancel_result(status: str) -> bytes:
    """Return the result of `run.cancel`."""
    return msgspec.json.encode({"status": status})


def _where(key: RunKey, span: Span) -> dict[str, Any]:
    position = {"epoch": span.before.epoch, "offset": span.before.offset}
    return {"thread_id": key.thread, "run_id": key.run, "position": position}
