"""The event-stream encoding: AG-UI events as `data:`, positions as `id:`.

An event that completes a position carries it as `<epoch>:<offset>`; a client that reconnects with
it as `Last-Event-ID` continues there. Events of a snapshot, and all but the last event of a folded
tail, carry no position. So a client that is disconnected inside them resumes from the last id.

Source: WIRE section 10; the WHATWG HTML standard, server-sent events.
"""

DATA = b"data: "
"""The prefix of an event's data."""
END = b"\n\n"
"""The end of an event."""
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: it keeps the connection alive, and the client ignores it."""


def encode_event(data: bytes, *, position: tuple[str, int] | None = None) -> bytes:
    """Return one event; `data` is compact JSON, so it contains no newline."""
    if position is None:
        return b"data: %b\n\n" % data
    epoch, offset = position
    return b"id: %b:%d\ndata: %b\n\n" % (epoch.encode(), offset, data)


def read_position(text: str) -> tuple[str, int] | None:
    """Return the position in a `Last-Event-ID`; None if it has not the form of ours."""
    epoch, _, offset = text.partition(":")
    if not epoch.isalnum() or not offset.isdecimal() or not offset.isascii() or len(offset) > 18:
        return None
    return epoch, int(offset)
