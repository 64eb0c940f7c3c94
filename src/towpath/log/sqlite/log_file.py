"""The SQLite file of a log: its transactions, its retention, its epoch.

A `LogFile` is used from one thread at a time. A batch of writes becomes one transaction. The
publications of a batch in one channel share one row; rows are written once and dropped whole. A
refused write changes nothing; a storage failure rolls back the whole batch.

The epoch (DESIGN section 6) is new when the log is created. It is also new when all of these hold:
the log was not closed, the boot id is another one or unknown, and `synchronous` was below FULL.
Then the machine may have lost writes that it reported as stored. After a kill -9 alone it stays.

One process at a time has the log open; a lock file excludes others. The lock can fail: its file may
be deleted, or the file system may not support locks. So each opening increments a number in the
file, and every transaction checks that its number is still the latest. A process with an older
number can write nothing.
"""

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from towpath.channels import Channel
from towpath.errors import LogFenced
from towpath.log.broker import Projection, Retention, Write
from towpath.log.sqlite import retention
from towpath.log.sqlite.batch import Batch, Outcome
from towpath.log.sqlite.file_schema import (
    BUSY_MS,
    WAL_BYTES,
    bring_up_to_date,
    connect,
    note,
    set_note,
    wal_of,
)
from towpath.log.sqlite.heads import Heads, save

PATIENCE_MS = 100
"""How long probes, retention and closing wait for a lock, in milliseconds."""
MAX_HEADS = 100_000
"""How many channel heads are cached between two batches; the least recently used are evicted."""
SLICE_SECONDS = 0.003
"""How long one slice of a sweep starts new steps. The last step, the commit and a checkpoint come
in addition, so that a write waits 20 ms at most."""
PAUSE_SECONDS = 0.25
"""How long a sweep waits for the write-ahead log to be reset."""


class LogFile:
    """The log, open for writing."""

    def __init__(
        self,
        path: Path,
        projection: Projection,
        *,
        retention: Callable[[Channel], Retention | None],
        synchronous: str,
        boot_id: str,
        now: Callable[[], float],
    ) -> None:
        """Open or create the file.

        Raises:
            ConfigurationError: a newer version of Towpath wrote the file.
            sqlite3.Error: the file cannot be opened.
        """
        self.path = path
        self._projection = projection
        self._keep = retention
        self._now = now
        self._heads = Heads()
        self._db = connect(path, synchronous)
        try:
            self._prepare(path)
            self.epoch = self._renew_epoch(synchronous, boot_id)
            """The log's epoch, from which the epoch of every channel is made."""
            self._opening = self._count_opening()
            self._db.execute("COMMIT")
        except BaseException:
            self._db.close()
            raise

    def close(self, *, clean: bool = True) -> None:
        """Close the file; if `clean`, note in the file that it was closed."""
        with contextlib.suppress(sqlite3.Error, LogFenced):
            self._db.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
            if clean:
                self._begin()
                set_note(self._db, "clean", "1")
                self._db.execute("COMMIT")
        self._db.close()

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """Write a batch in one transaction; return the outcome of each write.

        Raises:
            sqlite3.Error: nothing of the batch was written; call `undo`.
            LogFenced: another process has opened the log since; call `undo`.
        """
        self._begin()
        batch = Batch(
            self._db,
            self._heads,
            self._projection,
            epoch=self.epoch,
            retention=self._keep,
            now=self._now(),
        )
        outcomes = [batch.write(write) for write in writes]
        batch.store()
        self._db.execute("COMMIT")
        self._heads.evict(MAX_HEADS)
        return outcomes

    def undo(self) -> None:
        """Roll back a failed transaction, and drop the cached heads."""
        self._heads.clear()
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")

    def probe(self) -> None:
        """Write a note, to test whether the file can be written.

        Raises:
            sqlite3.Error: the file cannot be written; call `undo`.
            LogFenced: another process has opened the log since; call `undo`.
        """
        with self._impatient():
            self._begin()
        set_note(self._db, "probed", str(self._now()))
        self._db.execute("COMMIT")

    def make_room(self) -> None:
        """Checkpoint the write-ahead log, so that it can be reset; a failure is ignored."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @contextlib.contextmanager
    def filling(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection for one transaction that fills a new log."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self.undo()
            raise
        self._heads.clear()
        self._db.execute("COMMIT")

    def sweep(self) -> float | None:
        """Drop expired publications and request ids, for one slice of time.

        Returns:
            The seconds until the next slice; None if there is nothing more to drop.

        Raises:
            sqlite3.Error: nothing was dropped; call `undo`.
            LogFenced: another process has opened the log since; call `undo`.
        """
        now = self._now()
        if not retention.is_due(self._db, now):
            return None
        if not self._wal_has_room():
            return PAUSE_SECONDS
        with self._impatient():
            self._begin()
        until = time.monotonic() + SLICE_SECONDS
        while more := retention.drop_requests(self._db, now) or self._drop_step(now):
            if time.monotonic() >= until:
                break
        self._db.execute("COMMIT")
        self._heads.evict(MAX_HEADS)
        return 0.0 if more else None

    def _drop_step(self, now: float) -> bool:
        """Drop one step's rows of the channel that is due the longest; False if none is due."""
        found = retention.next_due(self._db, now)
        if found is None:
            return False
        channel, updated = found
        head, keep = self._heads.get(self._db, channel), self._keep(channel)
        head.due = None
        if keep is not None and head.fence is None:
            head.due = retention.drop_old(self._db, head, keep, updated=updated, now=now)
        save(self._db, channel, head, updated)
        return True

    def _wal_has_room(self) -> bool:
        """Whether the write-ahead log may grow by a slice.

        SQLite resets the write-ahead log by itself, unless a reader still uses an old part of it.
        The size is checked first, because a checkpoint waits for the disk.
        """
        with contextlib.suppress(OSError):
            if wal_of(self.path).stat().st_size < WAL_BYTES:
                return True
        _, frames, moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(frames == moved)

    @contextlib.contextmanager
    def _impatient(self) -> Iterator[None]:
        """Wait for locks no longer than `PATIENCE_MS`, as long as the context is open."""
        self._db.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
        try:
            yield
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _prepare(self, path: Path) -> None:
        """Begin the opening transaction, and migrate the tables to the current schema."""
        if bring_up_to_date(self._db, path, self._projection) == 0:
            set_note(self._db, "epoch", uuid.uuid4().hex)

    def _renew_epoch(self, synchronous: str, boot_id: str) -> str:
        crashed = note(self._db, "clean") == "0"
        same_life = boot_id != "" and note(self._db, "boot") == boot_id
        if crashed and not same_life and note(self._db, "synchronous") != "FULL":
            set_note(self._db, "epoch", uuid.uuid4().hex)
        set_note(self._db, "clean", "0")
        set_note(self._db, "boot", boot_id)
        set_note(self._db, "synchronous", synchronous)
        return note(self._db, "epoch")

    def _count_opening(self) -> str:
        """Return the number of this opening, one more than that of the last opening."""
        opening = str(int(note(self._db, "opening") or 0) + 1)
        set_note(self._db, "opening", opening)
        return opening

    def _begin(self) -> None:
        """Begin a transaction.

        Raises:
            LogFenced: another process has opened the log since.
        """
        self._db.execute("BEGIN IMMEDIATE")
        if note(self._db, "opening") != self._opening:
            raise LogFenced("another process has opened the log since")
