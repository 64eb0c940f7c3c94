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


class Move(Enum):
    """What can happen to a run."""

    BEGIN = "begin"
    EVENT = "event"
    FINISH = "finish"
    INTERRUPT = "interrupt"
    CANCEL = "cancel"
    FAIL = "fail"
    LOSE = "lose"


TABLE: dict[tuple[Status, Move], Status] = {
    (Status.PENDING, Move.BEGIN): Status.RUNNING,
    (Status.RUNNING, Move.EVENT): Status.RUNNING,
    (Status.RUNNING, Move.FINISH): Status.FINISHED,
    (Status.RUNNING, Move.INTERRUPT): Status.INTERRUPTED,
    (Status.RUNNING, Move.CANCEL): Status.CANCELLED,
    (Status.RUNNING, Move.FAIL): Status.FAILED,
    (Status.RUNNING, Move.LOSE): Status.LOST,
}
"""Every legal move; the diagram in the documentation is drawn from it."""

OVER = frozenset(status for status in Status if (status, Move.EVENT) not in TABLE) - {
    Status.PENDING
}
"""The ways in which a run can have ended."""
