"""The questions that a run ends with: whether they can be answered, and until when."""

from collections.abc import Iterable
from datetime import UTC, datetime

from towpath.channels import is_id
from towpath.events.types import Event, IllegalEvent, Message


def check_asked(outcome: Event, messages: Iterable[Message]) -> None:
    """Refuse questions that nobody could answer: they would only wait until they expire.

    Args:
        outcome: AG-UI's interrupt outcome.
        messages: the conversation so far; what a question is about must stand in it.

    Raises:
        IllegalEvent: an id is none that a decision can name, or is there twice, or a question is
            about a tool call that nobody was shown.
    """
    asked: list[Event] = outcome["interrupts"]
    ids = [one["id"] for one in asked]
    if not all(map(is_id, ids)) or len(set(ids)) < len(ids):
        raise IllegalEvent("RUN_FINISHED", "ids of interrupts must be different, and ids")
    shown = {call["id"] for message in messages for call in message.get("toolCalls") or ()}
    if not {one["toolCallId"] for one in asked if "toolCallId" in one} <= shown:
        raise IllegalEvent("RUN_FINISHED", "an interrupt is about a tool call that was not made")


def expiry(outcome: Event, default: float) -> float:
    """Return when the questions of an outcome expire: the first moment any of them names.

    Args:
        outcome: AG-UI's interrupt outcome.
        default: Unix seconds for those that name none.
    """
    named = [_moment(one.get("expiresAt")) for one in outcome["interrupts"]]
    return min((moment for moment in named if moment is not None), default=default)


def _moment(text: object) -> float | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
