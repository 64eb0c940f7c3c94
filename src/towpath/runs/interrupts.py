"""Interrupts: what a run asks a person when it ends, and the status of each.

How to think about it
=====================

A run that needs a person ends, with the outcome `interrupt` and a list of interrupts. It holds
nothing while it waits: no task, no lease, no deadline. Each interrupt is a row in the store, `OPEN`
until one of four things happens to it, whichever is first: a person approves, a person refuses, it
expires, or the thread goes on without it. The table holds these transitions from `OPEN` only. So a
decision is final, and a later one gets the status as its answer.

Once every interrupt of a run is decided, and none expired, a new run continues it: `parentRunId`
names it and `resume` carries the answers, all of them, each once. The last decision and the
beginning of that run are one write. An interrupt that expired is not a refusal: nobody said no, and
no run continues.

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
    """The status of an interrupt; the values are what `run.get` shows."""

    OPEN = "open"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    GONE = "gone"


class Transition(Enum):
    """What can happen to an interrupt."""

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
"""Every legal transition; the diagram in the documentation is drawn from it."""

DECISIONS: Final = {"approve": Transition.APPROVE, "refuse": Transition.REFUSE}
"""What a person may decide."""
LATE: Final = {
    InterruptStatus.APPROVED: "already",
    InterruptStatus.REFUSED: "already",
    InterruptStatus.EXPIRED: "expired",
    InterruptStatus.GONE: "gone",
}
"""The answer to a decision that comes later."""


class NotOpen(CommandError):
    """The interrupt is not open any more; nothing was done. `status` is the caller's answer."""

    code = codes.GONE

    def __init__(self, status: str) -> None:
        super().__init__(f"the interrupt is not open: {status}")
        self.status = status


class AnswersMoved(Conflict):
    """Another interrupt of the run was decided meanwhile; read them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """One interrupt as it is stored."""

    key: RunKey
    """Of the run that ended with it."""
    interrupt: Event
    """AG-UI's Interrupt."""
    status: InterruptStatus
    payload: Any
    """What came with the decision."""
    expires: float
    """Unix seconds; of the run's first interrupt that expires, since they are answered together."""
    decided: float | None

    @property
    def id(self) -> str:
        """Unique in its run."""
        return str(self.interrupt["id"])

    @property
    def is_open(self) -> bool:
        """Whether nothing has happened to it, as far as the store says."""
        return self.status is InterruptStatus.OPEN

    def now(self, at: float) -> InterruptStatus:
        """Return its status at a time: expired from `expires` on, whether that is stored or not."""
        return InterruptStatus.EXPIRED if self.is_open and at >= self.expires else self.status


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptDecided:
    """Fact: a person decided; NotOpen where the interrupt is not open."""

    key: RunKey
    id: str
    status: InterruptStatus
    payload: Any
    others: frozenset[str]
    """The run's other open interrupts when the fact was made; AnswersMoved where they differ."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptsExpired:
    """Fact: the open interrupts of a run expired; NotOpen where none was open."""

    key: RunKey
    at: float


def check_shown(interrupt: Interrupt, shown: str | None, messages: Iterable[Message]) -> None:
    """Refuse a decision on other arguments than those of the interrupt's tool call.

    Args:
        interrupt: what is decided.
        shown: the digest of the arguments the person saw, as WIRE section 6 makes digests.
        messages: of the thread.

    Raises:
        BadRequest: the interrupt is about a tool call, and no digest was given.
        Conflict: the digest is of other arguments.
    """
    call = interrupt.interrupt.get("toolCallId")
    if call is None and shown is None:
        return
    if shown is None:
        raise BadRequest("the interrupt is about a tool call: give the digest of its arguments")
    calls = (one for message in messages for one in message.get("toolCalls") or ())
    arguments = next((one["function"]["arguments"] for one in calls if one["id"] == call), None)
    if arguments is None or digest_of(arguments) != shown:
        raise Conflict("the arguments that were shown are not those the run asked about")


def resume_entries(interrupts: Iterable[Interrupt]) -> list[Event]:
    """Return AG-UI's `resume`: one answer for each interrupt of a run, all of them decided."""
    return [
        {"interruptId": one.id, "status": "resolved", "payload": _answer_payload(one)}
        for one in interrupts
    ]


def _answer_payload(interrupt: Interrupt) -> Any:
    """Return what the agent gets: the person's payload, which never reverses the decision.

    The payload of an approval that is no object is passed alone: an agent that asks for a text or
    a number expects just that.
    """
    payload, approved = interrupt.payload, interrupt.status is InterruptStatus.APPROVED
    if payload is None or isinstance(payload, dict):
        return {**(payload or {}), "approved": approved}
    return payload if approved else {"payload": payload, "approved": False}


def is_refusal(answer: Event) -> bool:
    """Whether an entry of AG-UI's `resume` says no."""
    payload = answer.get("payload")
    return answer.get("status") == "cancelled" or (
        isinstance(payload, dict) and payload.get("approved") is False
    )
