"""Room on the disk that is kept free by being taken: given back when the disk fills.

The reserve is a file beside the log whose blocks are really allocated. When the disk is full it is
cut to nothing, and what must be written although it is full (the endings of runs) has its room.
Once the reserve can be taken anew, with a margin, the disk is not full any more.
"""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from towpath.log.file_schema import wal_of
from towpath.log.health import LogHealth, health_of

MARGIN = 256 * 1024
"""What must be free beyond the reserve before a full disk counts as not full, in bytes."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskReserve:
    """The reserve of one log; used from one thread at a time."""

    def __init__(self, path: Path, size: int) -> None:
        """Name the file; nothing is touched yet.

        Args:
            path: where it is.
            size: how much is kept, in bytes; 0 keeps nothing, and only asks for the margin.
        """
        self._path = path
        self._size = size

    def take(self) -> bool:
        """Take the room, if it is there with a margin; what was taken already counts.

        Returns:
            Whether it could be taken. Where it could not, nothing is.

        Raises:
            OSError: the file cannot be made for another reason than room.
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
        """Give the room back to the disk; return whether there was any."""
        with contextlib.suppress(OSError):
            had = self._path.stat().st_size > 0
            os.truncate(self._path, 0)
            return had
        return False


def out_of_room(path: Path) -> bool:
    """Whether a file cannot grow, because the disk, a quota or a limit on its size is reached."""
    try:
        end = path.stat().st_size
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            os.posix_fallocate(probe.fileno(), end, MARGIN)
    except OSError as error:
        return error.errno in _NO_ROOM
    return False


def health_on_disk(error: Exception, path: Path) -> LogHealth | None:
    """Return the health that an error tells of; a disk without room may show as another failure."""
    health = health_of(error)
    if health is LogHealth.UNWRITABLE and out_of_room(wal_of(path)):
        return LogHealth.FULL
    return health
