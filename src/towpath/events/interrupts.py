"""The interrupts with which a run ends: their validation and their expiry."""

from collections.abc import Iterable
from datetime import UTC, datetime

from towpath.channels import is_id
from towpath.events.types import Event, IllegalEvent, Message


def check_interrupts(outcome: Event, messages: Iterable[Message]) -> None:
    """Refuse interrupts that no client could answer: they would wait until they expire.

    Args:
        outcome: AG-UI's interrupt outcome.
        messages: the conversation so far, with the tool calls that interrupts name.

    Raises:
        IllegalEvent: an id is malformed or duplicate, or an interrupt names a tool call that the
            conversation does not have.
    """
    interrupts: list[Event] = outcome["interrupts"]
    ids = [one["id"] for one in interrupts]
    if not all(map(is_id, ids)) or len(set(ids)) < len(ids):
        raise IllegalEvent("RUN_FINISHED", "ids of interrupts must be different, and ids")
    shown = {call["id"] for message in messages for call in message.get("toolCalls") or ()}
    if not {one["toolCallId"] for one in interrupts if "toolCallId" in one} <= shown:
        raise IllegalEvent("RUN_FINISHED", "an interrupt is about a tool call that was not made")


def expiry(outcome: Event, default: float) -> float:
    """Return when the interrupts of an outcome expire, in Unix seconds: the earliest `expiresAt`.

    Args:
        outcome: AG-UI's interrupt outcome.
        default: Unix seconds, for an outcome without a valid `expiresAt`.
    """
    named = [_moment(one.get("expiresAt")) for one in outcome["interrupts"]]
    return min((moment for moment in named if moment is not None), default=default)


def _moment(text: object) -> float | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
