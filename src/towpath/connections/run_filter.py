"""Selects the part of an event stream that a reader is shown.

The runs of a thread follow one another in the stream. A stream ends at the end of a run, and a
stream for a named run shows nothing before that run. Only events that may begin or end a run are
decoded.

Source: WIRE section 10.
"""

from typing import Any

import msgspec

from towpath.events.types import TERMINAL
from towpath.protocol import codec_sse as codec


class RunFilter:
    """Passes only the events of one run, from its start to its end."""

    def __init__(self, run: str | None) -> None:
        """Wait for the start of this run; None shows everything until the end of a run."""
        self.over = False
        """Whether the end of the run was shown; no event is shown after it."""
        self.run = run
        self._open = run is None

    def take(self, piece: bytes) -> bytes:
        """Return those of some encoded events that are shown."""
        if self.over or not _may_bound(piece):
            return piece if self._open and not self.over else b""
        events = piece.split(codec.END)
        return b"".join(event + codec.END for event in events if event and self._shows(event))

    def _shows(self, event: bytes) -> bool:
        if self.over:
            return False
        if not self._open:
            self._open = _started(event) == self.run
        self.over = self._open and is_end(event)
        return self._open


_BOUNDS = tuple(kind.encode() for kind in ("RUN_STARTED", *sorted(TERMINAL)))


def _may_bound(piece: bytes) -> bool:
    """Whether a run may begin or end with one of these events."""
    return any(kind in piece for kind in _BOUNDS)


def _decode(event: bytes) -> dict[str, Any]:
    data = event.partition(codec.DATA)[2]  # A comment has none.
    decoded: dict[str, Any] = msgspec.json.decode(data or b"{}")
    return decoded


def _started(event: bytes) -> str | None:
    """Return the id of the run that begins with this event; None if no run does."""
    read = _decode(event) if _may_bound(event) else {}
    return read["runId"] if read.get("type") == "RUN_STARTED" else None


def is_end(event: bytes) -> bool:
    """Whether a run ends with this encoded event."""
    return _may_bound(event) and _decode(event).get("type") in TERMINAL
