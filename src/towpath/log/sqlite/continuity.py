"""Whether a log continues the one that its readers know: the companion file in use.

The table `opening` of the database has no checksum. A wrong number or nonce, or a counter of
commits that is too low, costs the epoch. A counter that is too high costs nothing.
"""

import sqlite3
import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from towpath.errors import LogCorrupted
from towpath.log.sqlite import companion
from towpath.log.sqlite.commit_counter import (
    CommitCounter,
    Counted,
    commits_in_file,
    read_counter,
)
from towpath.log.sqlite.companion import Companion, DatabaseState, OpeningId
from towpath.log.sqlite.file_schema import note, set_note, wal_of

_WAL_HEADER = 32
"""The bytes of a write-ahead log that holds nothing; opening a database creates such a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An opening of a database, in its transaction."""

    epoch: str
    number: int
    commits: int
    """The counter of the last commit."""
    reason: str | None
    """Why the epoch is new, if readers of the old one exist."""

    @property
    def lost(self) -> bool:
        """Whether the log has lost something without an operator's doing."""
        return self.reason is not None and self.reason not in companion.NOTHING_LOST


class Continuity:
    """The companion and the counter of one database, while one process uses the database."""

    def __init__(self, path: Path, *, boot_id: str) -> None:
        """Read what lies beside the database; nothing may have opened the database before.

        Args:
            path: the database.
            boot_id: the machine's boot id; empty if it is unknown.

        Raises:
            OSError: the files cannot be read.
        """
        self._database = path
        self._path = companion.companion_of(path)
        self._boot_id = boot_id
        self._companion = companion.read(self._path)
        self._counted = read_counter(path)
        self._in_file = commits_in_file(path)
        self._wal_present = _has_frames(wal_of(path))
        self._counter: CommitCounter | None = None
        self._writing = threading.Lock()

    @property
    def damaged(self) -> str | None:
        """What is wrong with the database, if the last process that used it found damage."""
        return self._companion.damaged if self._companion is not None else None

    def mark_damaged(self, reason: str) -> None:
        """Note that the database is damaged, for the next opening; may be called by any thread.

        The first reason stays.

        Raises:
            OSError: the companion could not be written.
        """
        with self._writing:
            known = self._companion or Companion()
            if known.damaged is None:
                self._write(replace(known, damaged=reason))

    def begin(self, db: sqlite3.Connection, *, existed: bool, synchronous: str) -> Opened:
        """Write the pending opening into the companion, and the opening into the database.

        Args:
            db: the database, in a transaction; the caller commits it and calls `opened`.
            existed: whether the database had tables before.
            synchronous: the setting of this opening.

        Raises:
            OSError: the companion could not be written.
            LogCorrupted, sqlite3.Error: the database cannot be used.
        """
        found = state_of(db) if existed else None
        reason = companion.reason_for_new_epoch(
            self._companion,
            found,
            counted=self._counted,
            in_file=self._in_file,
            wal_present=self._wal_present,
            boot_id=self._boot_id,
        )
        known = found if found is not None and found.opening.number else None
        epoch = uuid.uuid4().hex if known is None or reason is not None else known.epoch
        opening = OpeningId(companion.next_number(self._companion, found), uuid.uuid4().hex)
        with self._writing:
            self._write(companion.begun(self._companion, found, opening, reason))
        db.execute("UPDATE opening SET number=?, nonce=?", opening)
        for name, value in {
            "epoch": epoch,
            "clean": "0",
            "boot": self._boot_id,
            "synchronous": synchronous,
        }.items():
            set_note(db, name, value)
        commits = found.commits if found is not None else 0
        return Opened(epoch=epoch, number=opening.number, commits=commits, reason=reason)

    def opened(self, db: sqlite3.Connection) -> None:
        """Write into the companion that the opening of the database is the current one.

        Raises:
            OSError: a file could not be written; then nothing may be written to the database.
        """
        found = state_of(db)
        self.close()
        # A database that was set aside meanwhile may have had more commits than this one.
        counted = Counted(found.commits, min(self._in_file or 0, found.commits))
        self._counter = CommitCounter(self._database, counted)
        with self._writing:
            self._write(companion.opened(self._companion or Companion(), found))

    def committed(self, db: sqlite3.Connection, commits: int) -> None:
        """Note the counter of a transaction that `db` committed."""
        if self._counter is not None:
            self._counter.committed(db, commits)

    def closed(self, commits: int) -> None:
        """Write the mark of a clean close into the companion.

        Args:
            commits: the counter of the last commit.

        Raises:
            OSError: the companion could not be written.
        """
        with self._writing:
            self._write(companion.closed(self._companion or Companion(), commits))

    def close(self) -> None:
        """Close the file of the counter."""
        if self._counter is not None:
            self._counter.close()
            self._counter = None

    def _write(self, value: Companion) -> None:
        companion.write(self._path, value)
        self._companion = value


def state_of(db: sqlite3.Connection) -> DatabaseState:
    """Return what a database of the current schema says about itself.

    Raises:
        LogCorrupted, sqlite3.Error: the database does not say it.
    """
    row = db.execute("SELECT number, nonce, commits FROM opening").fetchone()
    if row is None:
        raise LogCorrupted("the opening")
    return DatabaseState(
        epoch=note(db, "epoch"),
        opening=OpeningId(int(row[0]), str(row[1])),
        commits=int(row[2]),
        boot_id=note(db, "boot"),
        synchronous=note(db, "synchronous"),
    )


def _has_frames(wal: Path) -> bool:
    try:
        return wal.stat().st_size > _WAL_HEADER
    except FileNotFoundError:
        return False
