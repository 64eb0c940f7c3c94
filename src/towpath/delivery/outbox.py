"""The frames that wait to be sent to one connection: bounded, in order, in few messages.

Frames are put in as encoded bytes and taken out joined: the frames that arrived during the last
write are sent in one message. Nothing here waits; `wake` is called when the outbox is no longer
empty.
"""

from collections import deque
from collections.abc import Callable

from towpath.protocol.codec_json import SEPARATOR

BEHIND_BYTES = 64 * 1024
"""From this level on, the reader takes less than is published, for now."""
MESSAGE_BYTES = 64 * 1024
"""The limit of a message of several frames; a single larger frame is sent whole."""


class Outbox:
    """The bytes one connection still has to be sent."""

    def __init__(
        self, wake: Callable[[], None], *, max_bytes: int, separator: bytes = SEPARATOR
    ) -> None:
        """Make an empty outbox.

        Args:
            wake: called when the first frame is put in; must not block.
            max_bytes: more than this waiting means the reader is too slow.
            separator: the bytes between two frames of one message.
        """
        self._wake = wake
        self._max_bytes = max_bytes
        self._separator = separator
        self._behind_bytes = min(BEHIND_BYTES, max_bytes // 4)
        self._frames: deque[bytes] = deque()
        self._closed = False
        self.level = 0
        """How many bytes wait."""

    @property
    def behind(self) -> bool:
        """Whether the reader takes less than is published, for now."""
        return self.level >= self._behind_bytes

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, so that the outbox accepts no more frames."""
        return self._closed

    def wake(self) -> None:
        """Wake the task that empties the outbox, even if it is empty."""
        if not self._closed:
            self._wake()

    def put(self, frame: bytes, *, answer: bool = False) -> bool:
        """Add a frame; return False, and add nothing, if there is no room or the outbox is closed.

        An answer may exceed the bound if little waits before it: another request would get an
        answer of the same size.
        """
        full = self.level + len(frame) > self._max_bytes
        if self._closed or (full and not (answer and self.level <= self._behind_bytes)):
            return False
        was_empty = not self._frames
        self._frames.append(frame)
        self.level += len(frame)
        if was_empty:
            self._wake()
        return True

    def take(self) -> bytes:
        """Remove and return the frames of the next message; empty without frames."""
        frames = self._frames
        if not frames:
            return b""
        taken = [frames.popleft()]
        size = len(taken[0])
        while frames and size + len(frames[0]) < MESSAGE_BYTES:
            taken.append(frames.popleft())
            size += len(taken[-1]) + 1
        self.level -= sum(map(len, taken))
        return self._separator.join(taken) if len(taken) > 1 else taken[0]

    def close(self) -> None:
        """Accept no more frames; those in the outbox may still be taken."""
        self._closed = True

    def clear(self) -> None:
        """Drop all frames and accept no more."""
        self._closed = True
        self._frames.clear()
        self.level = 0
