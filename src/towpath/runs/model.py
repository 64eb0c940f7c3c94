"""What becomes of runs: facts for the log, and the conflicts for which it refuses them.

A fact is written in one act with the events it stands for. What it demands of the tables of runs,
and what is raised where they are otherwise, is in its docstring.
"""

from dataclasses import dataclass
from typing import Any

from towpath.errors import Conflict
from towpath.events.types import Event, Message
from towpath.runs.run_states import Status


class ThreadBusy(Conflict):
    """Another run is active on the thread."""


class ThreadMoved(Conflict):
    """The thread has gone on since its history was read; reading it again helps."""


class TurnMoved(Conflict):
    """What waits for the thread is not what it was when it was looked at; looking again helps."""


class LeaseHeld(Conflict):
    """A run is to be ended that somebody else holds, or that nobody holds any more."""


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
        """What tells the run from all others: tenant, user, run."""
        return (self.tenant, self.user, self.run)

    @property
    def thread_key(self) -> tuple[str, str, str]:
        """What tells its thread from all others: tenant, user, thread."""
        return (self.tenant, self.user, self.thread)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A run that waits."""

    key: RunKey
    request: bytes
    withdrawn: bool
    """Whether it was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOpened:
    """Fact: a run's first event is in the log; ThreadBusy where it is not its turn."""

    key: RunKey
    started: Event
    title: str
    """For the thread, if the run makes it."""
    thread_offset: int
    """The offset of the thread at which its history was read; another one is a conflict."""
    at: float
    holder: str
    """Who holds it from now on."""
    lease: float
    """Until when, in Unix seconds, unless it is renewed."""
    queued: Queued | None = None
    """The run as it waited, if it did; TurnMoved where that is not the next one any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQueued:
    """Fact: a run was accepted that begins when its thread is free; LimitExceeded past a bound."""

    key: RunKey
    request: bytes
    """What was asked, by whom, as whoever begins it reads it."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWithdrawn:
    """Fact: a queued run was cancelled before it began; NotFound where it is not queued."""

    key: RunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesRenewed:
    """Fact: a holder goes on holding those of these runs that it still holds."""

    holder: str
    keys: tuple[RunKey, ...]
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesInherited:
    """Fact: a holder has everything that was held, since the log is open for it alone."""

    holder: str
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunClosed:
    """Fact: a run's terminal event is in the log; LeaseHeld where somebody else holds the run."""

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
    """When the questions it ended with expire, if it ended with some."""
