"""One history of a server that was killed: publications received, replies, and the final state.

A test collects the history while servers start and die, and checks it once, at the end, against
the final log. The log is the reference. A reader, a reply or a table that contradicts the log is a
violation, and so is a log that breaks its own rules. No I/O, no time.

The rules are WIRE sections 5, 6 and 7; the promises are P1 to P5 and P8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.kit.page import Event


class Kind(Enum):
    """The kinds of violations."""

    ORDER = "order"
    """Offsets or numbers do not rise, or an event is not legal at its position."""
    GAP = "gap"
    """A publication is missing in the middle of a reading."""
    DUPLICATE = "duplicate"
    """A reader received a publication twice."""
    LOSS = "loss"
    """Data that a client received, or that was acknowledged, is missing in the end."""
    FOREIGN = "foreign"
    """A reader received data of another user or thread."""
    ENDING = "ending"
    """A run has not exactly one terminal event, or its status contradicts that event."""
    EPOCH = "epoch"
    """The epoch changed, although no data was lost."""
    POSITION = "position"
    """A valid position of this log was not recovered from."""
    TEXT = "text"
    """A text at a reader, or in the store, differs from the log."""
    DIGEST = "digest"
    """A digest does not match its text."""
    TWICE = "twice"
    """One request took effect more than once."""
    ANSWER = "answer"
    """A reply to a request is false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One violation."""

    kind: Kind
    where: str
    """The channel, run or reading."""
    sentence: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.where}: {self.sentence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The answer to a subscribe, without its publications."""

    recovered: bool
    epoch: str
    offset: int
    """The channel's top at that moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One publication."""

    event: Event
    offset: int = 0
    """0 if it has no offset."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that one reader received from one channel, in order, over all its connections."""

    reader: str
    owner: str
    """The user who reads."""
    channel: str
    """As clients name it."""
    received: Sequence[Joined | Given]
    whole: bool = True
    """Whether it was subscribed to the end, and so must be complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The final log of one channel, from its first publication on."""

    owner: str
    channel: str
    epoch: str
    publications: Sequence[Given]
    messages: Sequence[Mapping[str, Any]] | None = None
    """The messages of `thread.get`, for a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The final result of `run.get`."""

    owner: str
    run: str
    status: str
    code: str | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    """The statuses of its interrupts, by their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """A `run.start`, repeated with one request id until it was answered or given up."""

    owner: str
    channel: str
    message: str
    """The message; each is sent in one request only."""
    run: str | None = None
    """The run in the reply; None without a reply, or for an error."""
    refused: bool = False
    """Whether the reply was a permanent error: then no run may have begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A `run.cancel` that was answered."""

    owner: str
    run: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A `run.approve` that was answered."""

    owner: str
    run: str
    interrupt: str
    decision: str
    """`approve` or `refuse`."""
    status: str
    continuation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A whole history."""

    logs: Sequence[Log] = ()
    readings: Sequence[Reading] = ()
    runs: Sequence[RunState] = ()
    starts: Sequence[StartRequest] = ()
    stopped: Sequence[Stopped] = ()
    decided: Sequence[Decided] = ()
