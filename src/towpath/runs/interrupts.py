"""Interrupts: the questions to a person with which a run ends, and the status of each.

How to think about it
=====================

A run that needs a person ends, with the outcome `interrupt` and a list of interrupts. While the
interrupts wait, there is no task and no deadline. Each interrupt is a row in the store.
It is `OPEN` until the first of four transitions: a person approves it, a person refuses it, it
expires, or it is superseded because the thread continues without it. The table holds these
transitions from `OPEN` only. So a decision is final, and a later one gets the status as its answer.

Once every interrupt of a run is decided, and none expired, a new run continues it. `parentRunId` of
the new run names the old one, and `resume` carries each answer once. The last decision and the
beginning of the new run are one write. An expired interrupt is not a refusal: no run continues.

No I/O, no time.

Source: WIRE section 7 (`run.approve`); AG-UI 1.0, interrupts and resume.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from towpath import codes
from towpath.errors import BadRequest, CommandError, Conflict
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
    """The interrupt is no longer open; nothing was done. `status` is the caller's answer."""

    code = codes.GONE

    def __init__(self, status: str) -> None:
        super().__init__(f"the interrupt is not open: {status}")
        self.status = status


class AnswersMoved(Conflict):
    """Another interrupt of the run was decided meanwhile; read the interrupts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """One interrupt as it is stored."""

    key: RunKey
    """The key of the run that ended with this interrupt."""
    interrupt: Event
    """AG-UI's Interrupt."""
    status: InterruptStatus
    payload: Any
    """The payload of the decision."""
    expires: float
    """Unix seconds: the earliest expiry of the run's interrupts, as all are answered together."""
    decided: float | None

    @property
    def id(self) -> str:
        """Unique in its run."""
        return str(self.interrupt["id"])

    @property
    def is_open(self) -> bool:
        """Whether its stored status is open."""
        return self.status is InterruptStatus.OPEN

    def now(self, at: float) -> InterruptStatus:
        """Return its status at a time: expired from `expires` on, even if not yet stored so."""
        return InterruptStatus.EXPIRED if self.is_open and at >= self.expires else self.status


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptDecided:
    """Fact: a person decided; raises NotOpen if the interrupt is not open."""

    key: RunKey
    id: str
    status: InterruptStatus
    payload: Any
    others: frozenset[str]
    """The run's other open interrupts when the fact was made; AnswersMoved if they have changed."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptsExpired:
    """Fact: the open interrupts of a run expired; raises NotOpen if none is open."""

    key: RunKey
    at: float


def shown_digest(arguments: str) -> str:
    """Return the SHA-256 of arguments as a decision carries it: 64 lowercase hex digits."""
    return hashlib.sha256(arguments.encode()).hexdigest()


def check_shown(
    interrupt: Interrupt, messages: Iterable[Message], *, digest: str | None, arguments: str | None
) -> None:
    """Validate that the arguments shown to the person are those of the interrupt's tool call.

    Args:
        interrupt: the interrupt to decide.
        messages: the messages of the thread.
        digest: the SHA-256 of the arguments that the person saw (WIRE section 7), if given.
        arguments: the text of these arguments, if given. Both must match if both are given.

    Raises:
        BadRequest: the interrupt is about a tool call, and neither was given.
        Conflict: what was given is of other arguments.
    """
    call = interrupt.interrupt.get("toolCallId")
    if digest is None and arguments is None:
        if call is None:
            return
        raise BadRequest(
            "the interrupt is about a tool call: give its arguments, or the digest of them"
        )
    calls = (one for message in messages for one in message.get("toolCalls") or ())
    actual = next((one["function"]["arguments"] for one in calls if one["id"] == call), None)
    if (
        actual is None
        or arguments not in (None, actual)
        or digest not in (None, shown_digest(actual))
    ):
        raise Conflict("the arguments that were shown are not the arguments of the interrupt")


def resume_entries(interrupts: Iterable[Interrupt]) -> list[Event]:
    """Return AG-UI's `resume`: one answer for each interrupt of a run; all must be decided."""
    return [
        {"interruptId": one.id, "status": "resolved", "payload": _answer_payload(one)}
        for one in interrupts
    ]


def _answer_payload(interrupt: Interrupt) -> Any:
    """Return the payload for the agent: the person's payload, which never reverses the decision.

    The payload of an approval is passed unchanged if it is not an object: an agent that asks for a
    text or a number expects exactly that.
    """
    payload, approved = interrupt.payload, interrupt.status is InterruptStatus.APPROVED
    if payload is None or isinstance(payload, dict):
        return {**(payload or {}), "approved": approved}
    return payload if approved else {"payload": payload, "approved": False}


def is_refusal(answer: Event) -> bool:
    """Whether an entry of AG-UI's `resume` is a refusal."""
    payload = answer.get("payload")
    return answer.get("status") == "cancelled" or (
        isinstance(payload, dict) and payload.get("approved") is False
    )
