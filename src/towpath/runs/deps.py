"""What every run of one service works with: its bounds, the log, the store, the clock."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from towpath.log.broker import Broker
from towpath.runs.encoding import EVENT_BYTES
from towpath.runs.model import RunKey
from towpath.runs.store import ThreadStore
from towpath.telemetry import Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """The bounds of runs. Times in seconds, sizes in bytes."""

    deadline_seconds: float = 600.0
    """The time until a run is ended with `run.deadline`, if its agent has no own deadline."""

    cleanup_seconds: float = 5.0
    """How long to wait for the clean-up of a stopped agent."""
    in_flight: int = 64
    """How many writes of one run may be in progress."""
    message_bytes: int = 256 * 1024
    """The size of the message or input of one run."""
    event_bytes: int = EVENT_BYTES
    """The size of one event of an agent."""
    run_bytes: int = 64 * 1024 * 1024
    """The size of all events of one run together."""
    ending_seconds: float = 4.0
    """How long a stop waits until the run's ending is in the log: clients wait for 5 s."""
    drain_seconds: float = 8.0
    """How long a drain waits for the endings of runs; a run without one is later ended as lost."""
    interrupt_seconds: float = 24 * 3600.0
    """The time until an interrupt expires, if the agent sets none."""
    retry_seconds: float = 1.0
    """The time between attempts to write an ending that the log refused."""
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
    agent_tasks: dict["asyncio.Task[None]", RunKey] = field(default_factory=dict)
    """The tasks of agents, and their runs. An agent that ignores its cancellation stays here until
    it returns."""
