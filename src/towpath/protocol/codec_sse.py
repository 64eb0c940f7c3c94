"""The event-stream encoding: AG-UI events as `data:`, positions as `id:`.

An event that completes a position carries it as `<epoch>:<offset>`; a client that comes back with
it as `Last-Event-ID` continues there. Events of a snapshot and all but the last event of a folded
tail carry none, so a client that is cut off inside them starts over where the last id stood.

Source: WIRE section 10; the WHATWG HTML standard, server-sent events.
"""

DATA = b"data: "
"""What stands before an event's data."""
END = b"\n\n"
"""What ends an event."""
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: it keeps the connection alive, and the client ignores it."""


def encode_event(data: bytes, *, position: tuple[str, int] | None = None) -> bytes:
    """Return one event; `data` is compact JSON, so no newline can stand inside it."""
    if position is None:
        return b"data: %b\n\n" % data
    epoch, offset = position
    return b"id: %b:%d\ndata: %b\n\n" % (epoch.encode(), offset, data)


def read_position(text: str) -> tuple[str, int] | None:
    """Return the position in a `Last-Event-ID`; None where it is not one of ours."""
    epoch, _, offset = text.partition(":")
    if not epoch.isalnum() or not offset.isdecimal() or not offset.isascii() or len(offset) > 18:
        return None
    return epoch, int(offset)
