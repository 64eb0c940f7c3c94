"""Encodes events as JSON, and refuses events that have no JSON encoding."""

import msgspec

from towpath.events.types import Event, IllegalEvent
from towpath.json_bounds import MAX_EVENT_DEPTH, nests_deeper

_ENCODER = msgspec.json.Encoder()


def check_depth(event: Event) -> None:
    """Raise IllegalEvent if an event nests deeper than `MAX_EVENT_DEPTH` levels."""
    if nests_deeper(event, MAX_EVENT_DEPTH):
        raise IllegalEvent(as_unicode(event["type"]), f"nests deeper than {MAX_EVENT_DEPTH} levels")


def encoded(event: Event) -> bytes:
    """Return the encoding of an event; raise IllegalEvent if it has none."""
    try:
        return _ENCODER.encode(event)
    except (TypeError, ValueError, RecursionError) as error:
        raise IllegalEvent(as_unicode(event["type"]), f"is not JSON: {error}") from None


def as_unicode(text: str) -> str:
    """Return the text with surrogate pairs joined and lone surrogates replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class SurrogateHalves:
    """Joins surrogate pairs that are split between two deltas of an item.

    A high surrogate at the end of a delta is kept for the next delta, because it has no encoding
    alone.
    """

    def __init__(self) -> None:
        self._halves: dict[str, str] = {}
        """The high surrogate that is kept, by item."""

    def join(self, item: str, delta: str) -> tuple[str, str]:
        """Return a delta with its pairs joined, and the high surrogate at its end, if any."""
        if self._halves:
            delta = self._halves.get(item, "") + delta
        if delta.isascii():
            return delta, ""
        half = delta[-1] if 0xD800 <= ord(delta[-1]) <= 0xDBFF else ""
        return as_unicode(delta.removesuffix(half)), half

    def keep(self, item: str, half: str) -> None:
        """Keep the high surrogate at the end of an item's delta; an empty `half` removes it."""
        if half:
            self._halves[item] = half
        elif self._halves:
            self._halves.pop(item, None)
