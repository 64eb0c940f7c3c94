"""The SQLite file of a log: its transactions, its retention, its epoch.

A `LogFile` is used from one thread at a time. A batch of writes becomes one transaction. The
publications of a batch in one channel share one row; rows are written once and dropped whole. A
refused write changes nothing; a storage failure rolls back the whole batch.

The epoch is new when the log is created, and when the file may lack something that readers have
seen (`towpath.log.sqlite.companion`). After a kill -9 alone it stays.

One process at a time has the log open; a lock file excludes others. The lock can fail: its file may
be deleted, or the file system may not support locks. So each opening sets a higher number in the
file, and every transaction checks that its number is still the latest. A process with an older
number can write nothing. The same statement raises the counter of commits.
"""

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from towpath.channels import CONTROL, Channel
from towpath.errors import LogFenced
from towpath.log.broker import Append, Item, Read, Retention, Span, Write, Written
from towpath.log.sqlite import retention
from towpath.log.sqlite.batch import Batch, Outcome
from towpath.log.sqlite.continuity import Continuity
from towpath.log.sqlite.file_schema import (
    BUSY_MS,
    WAL_BYTES,
    abandon,
    bring_up_to_date,
    connect,
    set_note,
    wal_of,
)
from towpath.log.sqlite.heads import ChannelDamaged, Heads, salts, save
from towpath.log.sqlite.projection import SqliteProjection
from towpath.log.sqlite.replay import read

PATIENCE_MS = 100
"""How long probes, retention and closing wait for a lock, in milliseconds."""
RESTART_MS = 20
"""How long a write may wait for readers when the write-ahead log begins anew, in milliseconds."""
MAX_WAL_BYTES = 32 * 1024 * 1024
"""The size of the write-ahead log, in bytes, from which it is made to begin anew."""
SHRINK_PAGES = 64
"""How many free pages one slice returns to the file system."""
MIN_FREE_PAGES = 4_096
"""How many free pages a file may always keep."""
MAX_FREE = 0.5
"""The part of a file that may be free pages."""
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
        projection: SqliteProjection,
        *,
        retention: Callable[[Channel], Retention | None],
        synchronous: str,
        now: Callable[[], float],
        continuity: Continuity | None = None,
        lost_control: Callable[[], Item] | None = None,
    ) -> None:
        """Open or create the file.

        Args:
            path: the file.
            projection: applies the facts.
            retention: returns the retention of a channel.
            synchronous: SQLite's setting of this name.
            now: wall time in Unix seconds.
            continuity: the companion of the file; None for a file that is filled now and opened
                for readers later, when it gets its epoch.
            lost_control: makes the publication for a control channel that may lack some.

        Raises:
            ConfigurationError: a newer version of Towpath wrote the file.
            OSError: the companion cannot be written.
            sqlite3.Error, LogCorrupted, RowDamaged: the file cannot be opened.
        """
        self.path = path
        self._lost_control = lost_control
        self._continuity = continuity
        self.epoch = ""
        """The log's epoch, from which the epoch of every channel is made."""
        self.renewed: str | None = None
        """Why this opening gave the log a new epoch; None if it did not, or the log is new."""
        self._number = self._commits = 0
        self._projection = projection
        self._keep = retention
        self._now = now
        self._heads = Heads()
        self._bounded = 0.0
        """When `bound_wal` last tried, in seconds of a monotonic clock."""
        self._db = connect(path, synchronous)
        try:
            existed = self._prepare(path)
            if continuity is not None:
                opened = continuity.begin(self._db, existed=existed, synchronous=synchronous)
                self.epoch, self.renewed = opened.epoch, opened.reason
                self._number, self._commits = opened.number, opened.commits
                if opened.lost:
                    self._write_lost_control()
            self.salts = salts(self._db)
            """The salts of the channels whose epoch has one."""
            self._db.execute("COMMIT")
            if continuity is not None:
                continuity.opened(self._db)
        except BaseException:
            abandon(self._db, path)
            if continuity is not None:
                continuity.close()
            raise

    def close(self, *, clean: bool = True) -> None:
        """Close the file; if `clean`, note in the file and in its companion that it was closed."""
        with contextlib.suppress(sqlite3.Error, LogFenced, OSError):
            self._db.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
            if clean:
                self._close_cleanly()
        self._db.close()
        if self._continuity is not None:
            self._continuity.close()

    def _close_cleanly(self) -> None:
        """Note that the log is closed; closing the connection then removes the write-ahead log."""
        self._begin()
        set_note(self._db, "clean", "1")
        self._commit()
        self.make_room()
        if self._continuity is not None:
            self._continuity.closed(self._commits)

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """Write a batch in one transaction; return the outcome of each write.

        Raises:
            sqlite3.Error: nothing of the batch was written; call `undo`.
            LogFenced: another process has opened the log since; call `undo`.
        """
        self._begin()
        batch = self._batch()
        outcomes = [batch.write(write) for write in writes]
        batch.store()
        self._commit()
        self._heads.evict(MAX_HEADS)
        return outcomes

    def _batch(self) -> Batch:
        return Batch(
            self._db,
            self._heads,
            self._projection,
            epoch=self.epoch,
            retention=self._keep,
            now=self._now(),
        )

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
        with self._waiting(PATIENCE_MS):
            self._begin()
        set_note(self._db, "probed", str(self._now()))
        self._commit()

    def make_room(self) -> None:
        """Checkpoint the write-ahead log, so that it can be reset; a failure is ignored."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def bound_wal(self) -> None:
        """Let the write-ahead log begin anew if it has grown; at most once in `PAUSE_SECONDS`.

        SQLite does so by itself only at a moment without any reader. A reader that keeps an old
        state open prevents it; then the next call tries again.
        """
        with contextlib.suppress(OSError, sqlite3.Error):
            if wal_of(self.path).stat().st_size < MAX_WAL_BYTES:
                return
            if time.monotonic() < self._bounded + PAUSE_SECONDS:
                return
            self._bounded = time.monotonic()
            with self._waiting(RESTART_MS):
                self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

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
        due = retention.is_due(self._db, now)
        if not due and not self._has_much_free():
            return None
        if not self._wal_has_room():
            return PAUSE_SECONDS
        if not due:
            self._shrink()
            return PAUSE_SECONDS
        with self._waiting(PATIENCE_MS):
            self._begin()
        until = time.monotonic() + SLICE_SECONDS
        while more := retention.drop_requests(self._db, now) or self._drop_step(now):
            if time.monotonic() >= until:
                break
        self._commit()
        self._heads.evict(MAX_HEADS)
        return 0.0 if more else None

    def reset(self, channel: Channel) -> tuple[Append, Span] | None:
        """Drop a channel's publications and give it another epoch, if it is damaged.

        Returns:
            What was published in the channel in the same transaction, which may be empty; None if
            the channel is intact, because only reading it failed.

        Raises:
            sqlite3.Error: nothing was changed; call `undo`.
            LogFenced: another process has opened the log since; call `undo`.
        """
        self._begin()
        try:
            self._check(channel)
        except ChannelDamaged:
            head = self._heads.reset(self._db, channel, self._now())
        else:
            self.undo()
            return None
        lost = self._lost_control if channel == CONTROL else None
        append = Append(channel, () if lost is None else (lost(),))
        span = self._publish(append)
        self._commit()
        assert head.salt is not None, "a reset salts the epoch"
        self.salts[channel] = head.salt
        return append, span

    def lose_control(self) -> None:
        """Publish in a log that is being filled that its control channel may lack publications."""
        self._begin()
        self._write_lost_control()
        self._commit()

    def _write_lost_control(self) -> None:
        if self._lost_control is not None:
            self._publish(Append(CONTROL, (self._lost_control(),)))

    def _publish(self, append: Append) -> Span:
        """Publish in the current transaction."""
        batch = self._batch()
        written = batch.write(Write((append,)))
        assert isinstance(written, Written), "nothing can refuse it"
        batch.store()
        return written.spans[0]

    def _check(self, channel: Channel) -> None:
        """Read all that is kept of a channel.

        Raises:
            ChannelDamaged: it is not what was written.
        """
        read(self._db, Read(channel, None), self.epoch)

    def _drop_step(self, now: float) -> bool:
        """Drop one step's rows of the channel that is due the longest; False if none is due."""
        row = retention.next_due(self._db, now)
        if row is None:
            return False
        channel = Channel(row.tenant, row.name)
        head, keep = self._heads.get(self._db, channel), self._keep(channel)
        if head.publications == 0 and head.fence is None:
            self._heads.delete(self._db, channel)  # It was forgotten.
            self.salts.pop(channel, None)
            return True
        head.due = None
        if keep is not None and head.fence is None:
            head.due = retention.drop_old(self._db, head, keep, now=now)
        save(self._db, channel, head)
        return True

    def _has_much_free(self) -> bool:
        """Whether a large part of the file is free pages that can be returned."""
        free, pages, mode = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("freelist_count", "page_count", "auto_vacuum")
        )
        return bool(mode and free > max(MIN_FREE_PAGES, pages * MAX_FREE))

    def _shrink(self) -> None:
        """Return some free pages to the file system."""
        with self._waiting(PATIENCE_MS):
            # Each page is a step of the statement, and `execute` takes only the first one.
            self._db.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")

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
    def _waiting(self, milliseconds: int) -> Iterator[None]:
        """Wait for locks no longer than this, as long as the context is open."""
        self._db.execute(f"PRAGMA busy_timeout = {milliseconds}")
        try:
            yield
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _prepare(self, path: Path) -> bool:
        """Begin the opening transaction, and migrate the tables; return whether there were any."""
        existed = bring_up_to_date(self._db, path, self._projection) != 0
        if not existed:
            set_note(self._db, "epoch", uuid.uuid4().hex)
        return existed

    def _begin(self) -> None:
        """Begin a transaction, and raise the counter of commits.

        A transaction that fails leaves its value of the counter unused.

        Raises:
            LogFenced: another process has opened the log since.
        """
        self._db.execute("BEGIN IMMEDIATE")
        self._commits += 1
        counted = self._db.execute(
            "UPDATE opening SET commits=? WHERE number=?", (self._commits, self._number)
        )
        if counted.rowcount == 0:
            raise LogFenced("another process has opened the log since")

    def _commit(self) -> None:
        """Commit a transaction, and note its counter outside of the file."""
        self._db.execute("COMMIT")
        if self._continuity is not None:
            self._continuity.committed(self._db, self._commits)
