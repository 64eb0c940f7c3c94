"""The model of runs: their keys, the table of their states, and the facts that the log stores.

A fact is written in one transaction with the events it stands for. Its docstring says what it
demands of the tables of runs, and which conflict is raised where they are otherwise.

No I/O, no time.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from towpath.errors import Conflict
from towpath.events.types import Event, Message


class Status(Enum):
    """Where a run is; the values are what `run.get` shows."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"


class Transition(Enum):
    """What can happen to a run."""

    BEGIN = "begin"
    EVENT = "event"
    FINISH = "finish"
    INTERRUPT = "interrupt"
    CANCEL = "cancel"
    FAIL = "fail"
    LOSE = "lose"


TRANSITIONS: Final[dict[tuple[Status, Transition], Status]] = {
    (Status.PENDING, Transition.BEGIN): Status.RUNNING,
    (Status.RUNNING, Transition.EVENT): Status.RUNNING,
    (Status.RUNNING, Transition.FINISH): Status.FINISHED,
    (Status.RUNNING, Transition.INTERRUPT): Status.INTERRUPTED,
    (Status.RUNNING, Transition.CANCEL): Status.CANCELLED,
    (Status.RUNNING, Transition.FAIL): Status.FAILED,
    (Status.RUNNING, Transition.LOSE): Status.LOST,
}
"""Every legal transition; the diagram in the documentation is drawn from it."""

OVER: Final = frozenset(
    status for status in Status if (status, Transition.EVENT) not in TRANSITIONS
) - {Status.PENDING}
"""The states in which a run has ended."""


class ThreadBusy(Conflict):
    """Another run is active on the thread."""


class ThreadMoved(Conflict):
    """The thread has changed since its history was read; read it again."""


class TurnMoved(Conflict):
    """The queue of the thread has changed since it was read; read it again."""


class LeaseHeld(Conflict):
    """The run that is to be ended is held by another holder, or by nobody any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKey:
    """Whose run, which one, by which agent, in which thread."""

    tenant: str
    user: str
    thread: str
    run: str
    agent: str

    @property
    def run_id_key(self) -> tuple[str, str, str]:
        """What identifies the run: tenant, user, run."""
        return (self.tenant, self.user, self.run)

    @property
    def thread_key(self) -> tuple[str, str, str]:
        """What identifies its thread: tenant, user, thread."""
        return (self.tenant, self.user, self.thread)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What is stored of a run. Times are Unix seconds."""

    key: RunKey
    status: Status
    code: str | None
    started_at: float
    ended_at: float | None


class LogRange(NamedTuple):
    """Where a run is in the log of its thread."""

    first: int | None
    """The offset of its first event; None where the log has none of it."""
    last: int
    """The offset of its last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A run that waits for its thread."""

    key: RunKey
    request: bytes
    """See `towpath.runs.requests.QueuedRequest`."""
    withdrawn: bool
    """Whether it was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOpened:
    """Fact: a run's first event is in the log; ThreadBusy where it is not its turn."""

    key: RunKey
    started: Event
    title: str
    """Of the thread, if the run creates it."""
    thread_offset: int
    """The offset of the thread at which its history was read; ThreadMoved where it is another."""
    at: float
    holder: str
    """Who holds the run from now on."""
    lease: float
    """When the lease expires, in Unix seconds, unless it is renewed."""
    queued: Queued | None = None
    """The run as it waited, if it did; TurnMoved where it is not the next one any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQueued:
    """Fact: a run was accepted that begins when its thread is free; LimitExceeded past a bound."""

    key: RunKey
    request: bytes
    """See `towpath.runs.requests.QueuedRequest`."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWithdrawn:
    """Fact: a queued run was cancelled before it began; NotFound where it is not queued."""

    key: RunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesRenewed:
    """Fact: a holder renews its leases of these runs, those that it still holds."""

    holder: str
    keys: tuple[RunKey, ...]
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesInherited:
    """Fact: a holder takes over every lease, since the log is open for it alone."""

    holder: str
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunClosed:
    """Fact: a run's terminal event is in the log; LeaseHeld where another holder has the run."""

    key: RunKey
    status: Status
    code: str | None
    started: Event
    ended: Event
    messages: list[Message] | None
    """The whole conversation after the run; None leaves conversation and state as they were."""
    state: Any
    at: float
    holder: str
    """Who ends it."""
    expires: float
    """When its interrupts expire, if it ended with interrupts."""
