"""The questions to the projection about threads, runs, queues and interrupts, and their answers.

Each engine's projection answers all of them. A question about one thread or one run raises
RowDamaged if a row that it needs is damaged. A question about many leaves damaged rows out, so
that one damaged row hides only what it belongs to.

No I/O, no time.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from towpath.events.fold import Fold
from towpath.events.types import Message
from towpath.log.broker import Question
from towpath.runs.interrupts import Interrupt
from towpath.runs.model import Queued, RunKey, RunRecord


class ThreadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A thread as a list shows it. Times are Unix seconds."""

    id: str
    title: str
    created_at: float
    updated_at: float
    active_run: str | None
    """The run that goes on now."""


class StoredThread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread up to its last terminal event."""

    row: ThreadRow
    offset: int
    """The offset of that event; the log continues after it."""
    state: Any
    last_run: tuple[dict[str, Any], dict[str, Any]] | None
    messages: list[Message]

    def fold(self) -> Fold:
        """Return the fold that the log after `offset` continues."""
        return Fold(self.messages, state=self.state, last_run=self.last_run)


@dataclass(frozen=True, slots=True)
class ThreadsOfUser(Question[list[ThreadRow]]):
    """The threads of a person, the latest first."""

    tenant: str
    user: str
    limit: int
    before: float | None
    """Only threads that were updated before this time, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class ThreadById(Question[StoredThread | None]):
    """A thread with all its messages, oldest first; None if it does not exist."""

    tenant: str
    user: str
    thread: str


@dataclass(frozen=True, slots=True)
class ThreadExists(Question[bool]):
    """Whether a person has a thread."""

    tenant: str
    user: str
    thread: str


@dataclass(frozen=True, slots=True)
class HasActiveRun(Question[bool]):
    """Whether a run of a thread has begun and has no terminal event yet."""

    tenant: str
    user: str
    thread: str


@dataclass(frozen=True, slots=True)
class RunById(Question[RunRecord | None]):
    """A run; None if it does not exist."""

    tenant: str
    user: str
    run: str


@dataclass(frozen=True, slots=True)
class RunsOfThread(Question[list[RunRecord]]):
    """The runs of a thread, the latest first; damaged rows are left out."""

    tenant: str
    user: str
    thread: str
    limit: int


@dataclass(frozen=True, slots=True)
class UnfinishedRuns(Question[list[RunRecord]]):
    """Every run that has begun and has no terminal event."""


@dataclass(frozen=True, slots=True)
class QueuedRuns(Question[list[Queued]]):
    """The runs that wait for a thread, first in, first out."""

    tenant: str
    user: str
    thread: str


@dataclass(frozen=True, slots=True)
class ThreadsWithQueue(Question[list[tuple[str, str, str]]]):
    """The threads with queued runs: tenant, user, thread."""


@dataclass(frozen=True, slots=True)
class InterruptsOfRun(Question[list[Interrupt]]):
    """The interrupts of a run, in its order."""

    tenant: str
    user: str
    run: str


@dataclass(frozen=True, slots=True)
class InterruptsOfLastRun(Question[list[Interrupt]]):
    """The interrupts of the run that ended last in a thread, in its order."""

    tenant: str
    user: str
    thread: str


@dataclass(frozen=True, slots=True)
class ExpiredInterrupts(Question[list[RunKey]]):
    """The runs whose open interrupts have expired by a time."""

    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class NextExpiry(Question[float | None]):
    """When the next open interrupt expires, in Unix seconds; None if none is open."""
