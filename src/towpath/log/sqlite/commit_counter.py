"""The counter of commits outside of the database: `towpath.commits`, two numbers of 8 bytes.

Every transaction raises the counter in the database. The file follows after the COMMIT, before
readers get the publications. So a write-ahead log that was cut, damaged, removed or replaced after
a kill is noticed: the database's counter is below the first number. The second number is what the
database held without its write-ahead log, so an older database under a newer write-ahead log is
noticed too. Only an opening syncs the file, because the boot id shows that the machine stopped.
"""

import contextlib
import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from towpath.log.sqlite.file_schema import open_read_only

_FORMAT = struct.Struct(">QQ")


class Counted(NamedTuple):
    """How many commits a log has."""

    last: int
    """The counter of the last commit."""
    in_file: int
    """The counter of a commit that is in the database without its write-ahead log."""


class CommitCounter:
    """The file of the counter, open for writing; used from one thread at a time."""

    def __init__(self, database: Path, counted: Counted) -> None:
        """Open or create the file, and write the counter durably.

        Raises:
            OSError: the file cannot be written.
        """
        self._database = database
        self._in_file = counted.in_file
        self._written_at = self._when_written()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(counter_of(database), flags, 0o600)
        try:
            os.pwrite(self._descriptor, _FORMAT.pack(*counted), 0)
            os.ftruncate(self._descriptor, _FORMAT.size)
            os.fsync(self._descriptor)
        except BaseException:
            self.close()
            raise

    def committed(self, db: sqlite3.Connection, last: int) -> None:
        """Write the counter of a transaction that was committed.

        Args:
            db: the connection that committed it.
            last: the counter.
        """
        # The transaction is durable, whatever happens here. A counter that stays behind may hide a
        # loss later, but is never the reason for a new epoch.
        with contextlib.suppress(OSError, sqlite3.Error):
            if self._when_written() != self._written_at:  # Only a checkpoint writes there.
                _, frames, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self._in_file = last if frames == moved else self._in_file
                self._written_at = self._when_written()
            os.pwrite(self._descriptor, _FORMAT.pack(last, self._in_file), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _when_written(self) -> int:
        # Another descriptor of the database would end SQLite's locks on it when it is closed.
        return os.stat(self._database).st_mtime_ns


def counter_of(database: Path) -> Path:
    """Return the path of the file that holds the counter of a database."""
    return database.with_suffix(".commits")


def read_counter(database: Path) -> Counted | None:
    """Return the counter of a database; None if its file is missing or has another size.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        return Counted(*_FORMAT.unpack(counter_of(database).read_bytes()))
    except (FileNotFoundError, struct.error):
        return None


def commits_in_file(database: Path) -> int | None:
    """Return the counter that a database holds without its write-ahead log.

    Returns:
        None if it cannot be read: a crash may have ended a checkpoint, and left the database so
        that it makes sense only together with the write-ahead log.
    """
    with (
        contextlib.suppress(sqlite3.Error),
        closing(open_read_only(database, immutable=True)) as db,
    ):
        return int(db.execute("SELECT commits FROM opening").fetchone()[0])
    return None
