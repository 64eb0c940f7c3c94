"""A reserve of disk space for writes that must succeed on a full disk.

The reserve is a file beside the log whose blocks are allocated. When the disk is full, the file is
truncated to 0 bytes, so that the endings of runs can still be written. Once the reserve can be
allocated again, with a margin, the disk counts as not full.
"""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from towpath.log.sqlite.file_schema import wal_of
from towpath.log.sqlite.health import LogHealth, health_of

MARGIN = 256 * 1024
"""The bytes that must be free beyond the reserve before a full disk counts as not full."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskReserve:
    """The reserve of one log; used from one thread at a time."""

    def __init__(self, path: Path, size: int) -> None:
        """Describe the reserve; `take` allocates it.

        Args:
            path: the file of the reserve.
            size: its size in bytes; with 0, `take` only checks that the margin is free.
        """
        self._path = path
        self._size = size

    def take(self) -> bool:
        """Allocate the reserve, if the disk has room for it and the margin.

        Blocks that the reserve has already count as room.

        Returns:
            Whether the reserve is allocated. If not, the file holds no blocks.

        Raises:
            OSError: the file cannot be written for another reason than lack of room.
        """
        try:
            with self._path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, self._size + MARGIN)
                os.ftruncate(file.fileno(), self._size)
        except OSError as error:
            self.give_back()
            if error.errno not in _NO_ROOM:
                raise
            return False
        if not self._size:
            self._path.unlink()
        return True

    def give_back(self) -> bool:
        """Free the blocks of the reserve; return whether it had any."""
        with contextlib.suppress(OSError):
            had = self._path.stat().st_size > 0
            os.truncate(self._path, 0)
            return had
        return False


def out_of_room(path: Path) -> bool:
    """Whether a file cannot grow: the disk is full, or a quota or file size limit is reached."""
    try:
        end = path.stat().st_size
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            os.posix_fallocate(probe.fileno(), end, MARGIN)
    except OSError as error:
        return error.errno in _NO_ROOM
    return False


def health_on_disk(error: Exception, path: Path) -> LogHealth | None:
    """Return the health that an error shows; checks the disk, as a full one may fail otherwise."""
    health = health_of(error)
    if health is LogHealth.UNWRITABLE and out_of_room(wal_of(path)):
        return LogHealth.FULL
    return health
