"""Where a run can be, and what can happen to it: the table of its states."""

from enum import Enum


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


TRANSITIONS: dict[tuple[Status, Transition], Status] = {
    (Status.PENDING, Transition.BEGIN): Status.RUNNING,
    (Status.RUNNING, Transition.EVENT): Status.RUNNING,
    (Status.RUNNING, Transition.FINISH): Status.FINISHED,
    (Status.RUNNING, Transition.INTERRUPT): Status.INTERRUPTED,
    (Status.RUNNING, Transition.CANCEL): Status.CANCELLED,
    (Status.RUNNING, Transition.FAIL): Status.FAILED,
    (Status.RUNNING, Transition.LOSE): Status.LOST,
}
"""Every legal move; the diagram in the documentation is drawn from it."""

OVER = frozenset(status for status in Status if (status, Transition.EVENT) not in TRANSITIONS) - {
    Status.PENDING
}
"""The ways in which a run can have ended."""
