"""What one connection still has to be sent: bounded, in order, taken in as few pieces as may be.

Frames are put in as ready bytes and taken out joined: whatever gathered while the last write was
under way leaves in one message. Nothing here waits; whoever empties the outbox is woken by `wake`
when it stops being empty.
"""

from collections import deque
from collections.abc import Callable

from towpath.protocol.codec_json import SEPARATOR

BEHIND_BYTES = 64 * 1024
"""More than this waiting means that the reader takes less than comes, for now."""
MESSAGE_BYTES = 64 * 1024
"""A message is not filled beyond this; a single larger frame still leaves whole."""


class Outbox:
    """The bytes one connection still has to be sent."""

    def __init__(
        self, wake: Callable[[], None], *, max_bytes: int, separator: bytes = SEPARATOR
    ) -> None:
        """Make an empty outbox.

        Args:
            wake: called when the first frame is put in; must not block.
            max_bytes: more than this waiting means the reader is too slow.
            separator: what stands between frames of one message.
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
        """Whether the reader takes less than comes, for now."""
        return self.level >= self._behind_bytes

    def wake(self) -> None:
        """Wake whoever empties the outbox, though nothing may be in it."""
        if not self._closed:
            self._wake()

    def put(self, frame: bytes, *, answer: bool = False) -> bool:
        """Add a frame; return False, and add nothing, where there is no room or it is closed.

        An answer may be larger than the bound where next to nothing waits before it: it is as large
        as what it tells, and asking again would not help.
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
        """Remove and return the next message's worth of frames; empty where nothing waits."""
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
        """Take nothing more; what is inside may still be taken out."""
        self._closed = True

    def clear(self) -> None:
        """Throw away what waits and take nothing more."""
        self._closed = True
        self._frames.clear()
        self.level = 0
