"""Whether a write-ahead log lost something that had been committed.

SQLite reads it up to the first frame whose checksum is wrong and takes that for its end, because
after a power cut it may be. After a mere kill it is not: the system has all that was written, so a
frame is wrong only where it was being written, and that is the last one. In the same life of the
machine, frames behind a wrong one, or an index that knows of more frames than are right, mean that
what had been committed cannot be read any more.

Source: "WAL-mode File Format", https://www.sqlite.org/walformat.html.
"""

import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

_MAGIC = 0x377F0682
_HEADER = 32
_FRAME = 24
_MASK = 0xFFFFFFFF

Sums = tuple[int, int]


def lost_frames(wal: Path, index: Path) -> bool:
    """Whether frames that were committed cannot be read.

    Args:
        wal: the write-ahead log, as the killed process left it; it may be missing.
        index: its index in shared memory (`-shm`).

    Raises:
        OSError: they cannot be read.
    """
    data = wal.read_bytes() if wal.exists() else b""
    if len(data) < _HEADER:
        return False
    magic, _, page, _ = struct.unpack_from(">4I", data)
    big = bool(magic & 1)
    sums = _sums(data[:24], (0, 0), big=big)
    if magic & ~1 != _MAGIC or struct.unpack_from(">2I", data, 24) != sums:
        return True
    salt = data[16:24]
    frames = list(_frames(data, page))
    committed = right = 0
    for frame in frames:
        if frame[8:16] != salt:
            break
        sums = _sums(frame[_FRAME:], _sums(frame[:8], sums, big=big), big=big)
        if struct.unpack_from(">2I", frame, 16) != sums:
            break
        right += 1
        committed = right if frame[4:8] != bytes(4) else committed
    behind = any(frame[8:16] == salt for frame in frames[right + 1 :])
    return behind or _known(index, salt) > committed


def _frames(data: bytes, page: int) -> Iterator[bytes]:
    size = _FRAME + page
    for start in range(_HEADER, len(data) - size + 1, size):
        yield data[start : start + size]


def _known(index: Path, salt: bytes) -> int:
    """Return how many frames the index knows; 0 where it is of another log, or half written."""
    head = index.read_bytes()[:96] if index.exists() else b""
    if len(head) < 96 or head[:48] != head[48:] or head[32:40] != salt or not head[12]:
        return 0
    return int(struct.unpack_from("=I", head, 16)[0])


def _sums(data: bytes, sums: Sums, *, big: bool) -> Sums:
    words = array("I", data)
    if big != (sys.byteorder == "big"):
        words.byteswap()
    one, two = sums
    for at in range(0, len(words), 2):
        one = (one + words[at] + two) & _MASK
        two = (two + words[at + 1] + one) & _MASK
    return one, two
