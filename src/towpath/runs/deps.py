"""What every run of one service works with: its bounds, the log, the store, the clock."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from towpath.log.broker import Broker
from towpath.runs.store import ThreadStore
from towpath.telemetry import Telemetry

RENEWALS: Final = 3
"""How often a lease is renewed in its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """The bounds of runs. Times in seconds, sizes in bytes."""

    deadline_seconds: float = 600.0
    """Until a run is ended with `run.deadline`, where its agent has no deadline of its own."""

    cleanup_seconds: float = 5.0
    """How long a stopped agent may clean up before nobody waits for it any more."""
    in_flight: int = 64
    """How many writes of one run may be in progress."""
    message_bytes: int = 256 * 1024
    """The message or input of one run."""
    run_bytes: int = 64 * 1024 * 1024
    """All events of one run together."""
    ending_seconds: float = 4.0
    """How long a stop waits until the run's ending is in the log: clients wait for 5 s."""
    drain_seconds: float = 8.0
    """How long the endings of a drain may take; runs without one then are ended as lost."""
    interrupt_seconds: float = 24 * 3600.0
    """When an interrupt expires, where the agent does not say."""
    lease_seconds: float = 15.0
    """When a run is ended as lost, at the latest, after its process stopped answering."""
    retry_seconds: float = 1.0
    """Between attempts to write an ending that the log refused."""
    keep_raw: bool = False
    """Whether RAW events and `rawEvent` fields are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDeps:
    """What every run of one service works with."""

    broker: Broker
    store: ThreadStore
    telemetry: Telemetry
    limits: RunLimits
    now: Callable[[], float]
    """Unix seconds."""
    new_id: Callable[[], str]
    holder: str
    """The name under which leases are held."""
    agent_tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    """The tasks of agents. An agent that ignores its cancellation stays here until it returns."""

    def lease_end(self) -> float:
        """Return when a lease expires that is granted or renewed now.

        That is one renewal earlier than `lease_seconds`, since the last renewal may be that old.
        """
        return self.now() + self.limits.lease_seconds * (1 - 1 / RENEWALS)
