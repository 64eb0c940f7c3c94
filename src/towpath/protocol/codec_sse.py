"""The event-stream dialect: AG-UI events as `data:`, positions as `id:`.

An event that completes a position carries it as `<epoch>:<offset>`; a client that comes back with
it as `Last-Event-ID` continues there. Events of a prelude and all but the last event of a folded
tail carry none, so whoever is cut off inside of them starts over where the last id stood.

Source: WIRE section 10; the WHATWG HTML standard, server-sent events.
"""

DATA = b"data: "
"""What stands before an event's data."""
END = b"\n\n"
"""What ends an event."""
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: bytes on the line, and nothing for the client to do."""


def encode_event(data: bytes, *, position: tuple[str, int] | None = None) -> bytes:
    """Return one event; `data` is compact JSON, so no newline can stand inside it."""
    if position is None:
        return b"data: %b\n\n" % data
    epoch, offset = position
    return b"id: %b:%d\ndata: %b\n\n" % (epoch.encode(), offset, data)


def read_position(text: str) -> tuple[str, int] | None:
    """Return the position in a `Last-Event-ID`; None where it is none of ours."""
    epoch, _, offset = text.partition(":")
    if not epoch.isalnum() or not offset.isdecimal() or not offset.isascii() or len(offset) > 18:
        return None
    return epoch, int(offset)
