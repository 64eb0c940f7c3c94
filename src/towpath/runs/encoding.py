"""The encoding of events as JSON: made once, and the check that an event can be JSON at all."""

import msgspec

from towpath.events.types import Event, IllegalEvent
from towpath.json_bounds import MAX_EVENT_DEPTH, nests_deeper

_ENCODER = msgspec.json.Encoder()


def check_depth(event: Event) -> None:
    """Refuse an event that nests too deep."""
    if nests_deeper(event, MAX_EVENT_DEPTH):
        raise IllegalEvent(as_unicode(event["type"]), f"nests deeper than {MAX_EVENT_DEPTH} levels")


def encoded(event: Event) -> bytes:
    """Return the encoding of an event, or refuse it because it has none."""
    try:
        return _ENCODER.encode(event)
    except (TypeError, ValueError, RecursionError) as error:
        raise IllegalEvent(as_unicode(event["type"]), f"is not JSON: {error}") from None


def as_unicode(text: str) -> str:
    """Return the text with surrogate pairs joined and half ones replaced, so it can be written."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class SurrogateHalves:
    """Joins surrogate pairs that deltas were cut in; a half at the end of one waits for the next.

    By itself a half is no text: it has no encoding.
    """

    def __init__(self) -> None:
        self._halves: dict[str, str] = {}
        """By item, the first half that waits."""

    def join(self, item: str, delta: str) -> tuple[str, str]:
        """Return a delta with its pairs joined, and the half at its end, if any."""
        if self._halves:
            delta = self._halves.get(item, "") + delta
        if delta.isascii():
            return delta, ""
        half = delta[-1] if 0xD800 <= ord(delta[-1]) <= 0xDBFF else ""
        return as_unicode(delta.removesuffix(half)), half

    def keep(self, item: str, half: str) -> None:
        """Keep the half at the end of an item's delta; none waits where it is empty."""
        if half:
            self._halves[item] = half
        elif self._halves:
            self._halves.pop(item, None)
