"""Interrupts: what a run asked a person before it ended, and what became of each question.

How to think about it
=====================

A run that needs a person ends, with the outcome `interrupt` and a list of questions. It holds
nothing while it waits: no task, no lease, no deadline. Each question is a row in the store, `OPEN`
until one of four things happens to it, whichever is first: a person approves, a person refuses, it
expires, or the thread goes on without it. The table holds these moves from `OPEN` only; so a
decision is a fact that nobody takes back, and who comes second is told what happened.

Once every question of a run is decided, and none expired, a new run continues it: `parentRunId`
names it and `resume` carries the answers, all of them, each once. The last decision and the
beginning of that run are one write. A question that expired is not a refusal: nobody said no, and
nothing goes on.

No I/O, no time.

Source: WIRE section 7 (`run.approve`); AG-UI 1.0, interrupts and resume.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from towpath import codes
from towpath.errors import BadRequest, CommandError, Conflict
from towpath.events.digest import digest as digest_of
from towpath.events.types import Event, Message
from towpath.runs.model import RunKey


class InterruptStatus(Enum):
    """Where a question stands; the values are what `run.get` shows."""

    OPEN = "open"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    GONE = "gone"


class Transition(Enum):
    """What can happen to a question."""

    APPROVE = "approve"
    REFUSE = "refuse"
    EXPIRE = "expire"
    SUPERSEDE = "thread goes on"


TRANSITIONS: Final[dict[tuple[InterruptStatus, Transition], InterruptStatus]] = {
    (InterruptStatus.OPEN, Transition.APPROVE): InterruptStatus.APPROVED,
    (InterruptStatus.OPEN, Transition.REFUSE): InterruptStatus.REFUSED,
    (InterruptStatus.OPEN, Transition.EXPIRE): InterruptStatus.EXPIRED,
    (InterruptStatus.OPEN, Transition.SUPERSEDE): InterruptStatus.GONE,
}
"""Every legal move; the diagram in the documentation is drawn from it."""

DECISIONS: Final = {"approve": Transition.APPROVE, "refuse": Transition.REFUSE}
"""What a person may say."""
LATE: Final = {
    InterruptStatus.APPROVED: "already",
    InterruptStatus.REFUSED: "already",
    InterruptStatus.EXPIRED: "expired",
    InterruptStatus.GONE: "gone",
}
"""What whoever comes later is told."""


class NotOpen(CommandError):
    """The question is not open any more; nothing was done. `status` is the answer to the caller."""

    code = codes.GONE

    def __init__(self, status: str) -> None:
        super().__init__(f"the interrupt is not open: {status}")
        self.status = status


class AnswersMoved(Conflict):
    """Another question of the run was answered meanwhile; looking again helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """One interrupt as it is stored."""

    key: RunKey
    """Of the run that asked."""
    interrupt: Event
    """AG-UI's Interrupt."""
    answer: InterruptStatus
    payload: Any
    """What came with the decision."""
    expires: float
    """Unix seconds; of the run's first question that expires, since they are answered together."""
    decided: float | None

    @property
    def id(self) -> str:
        """Unique in its run."""
        return str(self.interrupt["id"])

    def now(self, at: float) -> InterruptStatus:
        """Return where it stands at a time: what expired counts as that, noted or not."""
        return (
            InterruptStatus.EXPIRED
            if self.answer is InterruptStatus.OPEN and at >= self.expires
            else self.answer
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptDecided:
    """Fact: a person answered; refused where the question is not open."""

    key: RunKey
    id: str
    answer: InterruptStatus
    payload: Any
    others: frozenset[str]
    """The run's other open questions, as whoever made this saw them; AnswersMoved otherwise."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptsExpired:
    """Fact: the open questions of a run expired; refused where none was open."""

    key: RunKey
    at: float


def check_shown(question: Interrupt, shown: str | None, messages: Iterable[Message]) -> None:
    """Refuse a decision on other arguments than those the run asked about.

    Args:
        question: what is decided.
        shown: the digest of the arguments the person saw, as WIRE section 6 makes digests.
        messages: of the thread.

    Raises:
        BadRequest: the question is about a tool call, and no digest was given.
        Conflict: the digest is of other arguments.
    """
    call = question.interrupt.get("toolCallId")
    if call is None and shown is None:
        return
    if shown is None:
        raise BadRequest("the interrupt is about a tool call: give the digest of its arguments")
    calls = (one for message in messages for one in message.get("toolCalls") or ())
    arguments = next((one["function"]["arguments"] for one in calls if one["id"] == call), None)
    if arguments is None or digest_of(arguments) != shown:
        raise Conflict("the arguments that were shown are not those the run asked about")


def resume_entries(questions: Iterable[Interrupt]) -> list[Event]:
    """Return AG-UI's `resume`: one answer for each question of a run, all of them decided."""
    return [
        {
            "interruptId": one.id,
            "status": "resolved",
            "payload": _told(one.payload, approved=one.answer is InterruptStatus.APPROVED),
        }
        for one in questions
    ]


def _told(payload: Any, *, approved: bool) -> Any:
    """Return what the agent is told: the person's own words, which never turn the decision round.

    An approval with words that are no object is those words alone, since that is what an agent
    asked for that wants a text or a number.
    """
    if payload is None or isinstance(payload, dict):
        return {**(payload or {}), "approved": approved}
    return payload if approved else {"payload": payload, "approved": False}


def is_refusal(answer: Event) -> bool:
    """Whether an entry of AG-UI's `resume` says no."""
    payload = answer.get("payload")
    return answer.get("status") == "cancelled" or (
        isinstance(payload, dict) and payload.get("approved") is False
    )
