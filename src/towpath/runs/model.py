"""The model of runs: their keys, the table of their states, and the facts that the log stores.

A fact is written in one transaction with its events. The docstring of a fact names the error that
refuses the write, and its condition.

No I/O, no time.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from towpath.channels import Channel, thread_channel
from towpath.errors import Conflict, TowpathError
from towpath.events.types import Event, Message

MAX_QUEUED: Final = 16
"""How many runs may wait for one thread."""


class Status(Enum):
    """The status of a run; the values are what `run.get` shows."""

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


class RunIsOver(TowpathError):
    """An item or a transition came after the terminal event; it is refused."""


class ThreadBusy(Conflict):
    """Another run is active on the thread."""


class ThreadMoved(Conflict):
    """The thread has changed since its history was read; read it again."""


class TurnMoved(Conflict):
    """The queue of the thread has changed since it was read; read it again."""


class AlreadyEnded(Conflict):
    """The run to be ended has its terminal event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKey:
    """The key of a run: its tenant, user and thread, its id, and its agent."""

    tenant: str
    user: str
    thread: str
    run: str
    agent: str

    @property
    def run_id_key(self) -> tuple[str, str, str]:
        """The unique key of the run: tenant, user, run."""
        return (self.tenant, self.user, self.run)

    @property
    def thread_key(self) -> tuple[str, str, str]:
        """The unique key of the run's thread: tenant, user, thread."""
        return (self.tenant, self.user, self.thread)

    @property
    def channel(self) -> Channel:
        """The channel of the run's thread."""
        return thread_channel(self.tenant, self.user, self.thread)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it is stored. Times are Unix seconds."""

    key: RunKey
    status: Status
    code: str | None
    started_at: float
    ended_at: float | None


class LogRange(NamedTuple):
    """The range of a run's events in the log of its thread."""

    first: int | None
    """The offset of its first event; None if the log has no event of the run."""
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
class ThreadKey:
    """The key of a thread: tenant, user, id."""

    tenant: str
    user: str
    id: str

    @property
    def columns(self) -> tuple[str, str, str]:
        """The primary key as the tables have it."""
        return (self.tenant, self.user, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadCreated:
    """Fact: a thread was created; raises Conflict if a thread with this id exists."""

    key: ThreadKey
    title: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRenamed:
    """Fact: a thread got another title; raises NotFound if the thread does not exist."""

    key: ThreadKey
    title: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadDeleted:
    """Fact: a thread and its content were deleted; raises Conflict if a run is active or queued."""

    key: ThreadKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOpened:
    """Fact: a run's first event is in the log; raises ThreadBusy if it is not the run's turn."""

    key: RunKey
    title: str
    """The title of the thread, if the run creates it."""
    thread_offset: int
    """The thread's offset when its history was read; raises ThreadMoved if it has changed."""
    at: float
    queued: Queued | None = None
    """The run as it was queued, if it was; raises TurnMoved if it is no longer the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQueued:
    """Fact: a run waits until its thread is free; raises LimitExceeded if too many runs wait."""

    key: RunKey
    request: bytes
    """See `towpath.runs.requests.QueuedRequest`."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWithdrawn:
    """Fact: a queued run was cancelled before it began; raises NotFound if it is not queued."""

    key: RunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RunClosed:
    """Fact: a run's terminal event is in the log; raises AlreadyEnded if the run has one."""

    key: RunKey
    status: Status
    code: str | None
    started: Event
    ended: Event
    messages: list[Message] | None
    """The whole conversation after the run; None leaves conversation and state unchanged."""
    state: Any
    at: float
    expires: float
    """When its interrupts expire, if it ended with interrupts."""
