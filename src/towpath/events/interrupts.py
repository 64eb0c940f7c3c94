"""When the questions that a run ends with expire."""

from datetime import UTC, datetime

from towpath.events.kinds import Event


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
