"""Encodes events as JSON, and refuses events that have no JSON encoding or are too large.

An event of an agent has a bound in bytes. A text that is too long for one delta is no error: it is
split into several deltas, because agents yield whole answers.
"""

from typing import Final, NamedTuple

import msgspec

from towpath.events.types import Event, IllegalEvent
from towpath.json_bounds import MAX_EVENT_DEPTH, nests_deeper

EVENT_BYTES: Final = 1024 * 1024
"""The size of one event, by default."""
CHARACTER_BYTES: Final = 6
"""The size of the longest encoding of a character in JSON: that of a control character."""

_ENCODER = msgspec.json.Encoder()


class RunEvent(NamedTuple):
    """An event to publish."""

    event: Event
    tags: dict[str, str]
    """The metadata it carries (WIRE section 6)."""
    data: bytes
    """Its encoding as JSON."""


class EventTooLarge(IllegalEvent):
    """An event of an agent is larger than its bound."""

    run_code = "run.too_large"

    def __init__(self, event_type: str, size: int, bound: int) -> None:
        super().__init__(event_type, f"has {size} bytes; an event may have {bound}")


def check_depth(event: Event) -> None:
    """Raise IllegalEvent if an event nests deeper than `MAX_EVENT_DEPTH` levels."""
    if nests_deeper(event, MAX_EVENT_DEPTH):
        raise IllegalEvent(as_unicode(event["type"]), f"nests deeper than {MAX_EVENT_DEPTH} levels")


class EventEncoder:
    """Encodes the events of one run."""

    def __init__(self, bound: int) -> None:
        """Encode events of at most `bound` bytes."""
        self._bound = bound

    def encode(self, event: Event) -> bytes:
        """Return the encoding of an event of the gateway, whatever its size.

        Raises:
            IllegalEvent: the event has no encoding.
        """
        try:
            return _ENCODER.encode(event)
        except (TypeError, ValueError, RecursionError) as error:
            raise IllegalEvent(as_unicode(event["type"]), f"is not JSON: {error}") from None

    def bounded(self, event: Event) -> bytes:
        """Return the encoding of an event of the agent.

        Raises:
            IllegalEvent: the event has no encoding.
            EventTooLarge: the encoding is too large.
        """
        data = self.encode(event)
        if len(data) > self._bound:
            raise EventTooLarge(as_unicode(event["type"]), len(data), self._bound)
        return data

    def deltas(self, event: Event) -> list[tuple[Event, bytes]]:
        """Return an event with a text `delta`, and its encoding; several if it is too large.

        The deltas of the several events are the delta of the event, split between characters. An
        event with an empty delta is left out.

        Raises:
            IllegalEvent: the event has no encoding.
            EventTooLarge: the event is too large, and more than half of the bound would be taken
                by what each of the several events repeats.
        """
        data = self.encode(event)
        if len(data) <= self._bound:
            return [(event, data)] if event["delta"] else []
        if len(self.encode({**event, "delta": ""})) > self._bound // 2:
            raise EventTooLarge(as_unicode(event["type"]), len(data), self._bound)
        text, size = event["delta"], self._bound // 2 // CHARACTER_BYTES
        deltas = (text[start : start + size] for start in range(0, len(text), size))
        pieces: list[Event] = [{**event, "delta": delta} for delta in deltas]
        return [(piece, self.encode(piece)) for piece in pieces]


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
