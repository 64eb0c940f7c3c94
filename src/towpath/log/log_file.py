"""One SQLite file that is a log: its schema, its transactions, its retention, its epoch.

Whoever owns a `LogFile` uses it from one thread at a time. A batch of writes becomes one
transaction: publications of a channel that came together stand in one row, rows are written once
and dropped whole. A write that is refused leaves no trace in the batch; a storage failure takes
the whole batch back.

The epoch (DESIGN section 6) is new when the log is created, and when it was not closed, is opened
in another life of the machine, and was written with `synchronous` below FULL: then the machine
may have forgotten what it said it had stored. After a mere kill -9 it stays.

The log is open in one place at a time, and a lock file keeps others off. Locks can be lost: by
somebody who tidies up, by a file system that has none. So each opening has a number, one more than
the last, and every transaction looks whether it is still the latest. Who was there before writes
nothing more.
"""

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from towpath.channels import Channel
from towpath.errors import (
    CommandError,
    ConfigurationError,
    LogCorrupted,
    LogFenced,
    OffsetConflict,
    StorageError,
    WriteFailed,
)
from towpath.log import retention
from towpath.log.broker import (
    Append,
    IdempotencyKey,
    Item,
    Projection,
    Retention,
    Span,
    Write,
    Written,
    channel_epoch,
    follows,
)
from towpath.log.heads import Head, Heads, save
from towpath.log.health import health_of
from towpath.log.integrity import checksums
from towpath.log.replay import stored_result

SCHEMA_VERSION = 7
"""What `PRAGMA user_version` of a file says that this code can write."""
SEALED_SINCE = 4
"""The version from which on rows carry checksums."""
BUSY_MS = 3_000
"""How long a write waits for somebody else's lock, in milliseconds: clients wait for 5 s."""
PATIENCE_MS = 100
"""How long it is waited for by what can wait: probes, retention, and closing."""
MAX_HEADS = 100_000
"""How many channels' heads are known between two batches; the least recently used are dropped."""
SLICE_SECONDS = 0.003
"""How long one slice of a sweep goes on. Its last step, its commit and a checkpoint come on top, so
that a write waits 20 ms at most."""
PAUSE_SECONDS = 0.25
"""How long a sweep waits for the write-ahead log to start anew."""
WAL_BYTES = 8 * 1024 * 1024
"""How large the write-ahead log may be while a sweep goes on."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE channels (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    top INTEGER NOT NULL,
    hold INTEGER,
    publications INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    updated REAL NOT NULL,
    UNIQUE (tenant, name)
);
CREATE TABLE log (
    channel INTEGER NOT NULL REFERENCES channels (id),
    last INTEGER NOT NULL,
    first INTEGER NOT NULL,
    at REAL NOT NULL,
    bytes INTEGER NOT NULL,
    items BLOB NOT NULL
);
CREATE UNIQUE INDEX log_place ON log (channel, last);
CREATE INDEX log_at ON log (at);
CREATE TABLE requests (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    result BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (tenant, user, method, request_id)
) WITHOUT ROWID;
CREATE INDEX requests_at ON requests (at);
"""
_SEALED = """
ALTER TABLE channels ADD COLUMN crc INTEGER;
ALTER TABLE log ADD COLUMN crc INTEGER;
ALTER TABLE requests ADD COLUMN crc INTEGER
"""
_SEALED_META = "ALTER TABLE meta ADD COLUMN crc INTEGER"
_DUE = """
ALTER TABLE channels ADD COLUMN due REAL;
UPDATE channels SET due = 0 WHERE publications > 0 AND hold IS NULL;
CREATE INDEX channels_due ON channels (due) WHERE due IS NOT NULL;
DROP INDEX log_at
"""
"""When retention looks at a channel; at those that were there before, as soon as it can."""
_SCHEMAS = ((1, _SCHEMA), (SEALED_SINCE, _SEALED), (6, _SEALED_META), (7, _DUE))
"""The version of the file since which there are which tables and columns."""

_encode_items = msgspec.msgpack.Encoder().encode


def _encode_item(item: Item) -> msgspec.Raw:
    return msgspec.Raw(_encode_items(item))


Outcome = Written | CommandError | StorageError
"""What became of one write of a batch."""

Items = list[msgspec.Raw]
"""Encoded publications."""


@dataclass(slots=True)
class _Row:
    """What a batch does to one channel: its row in the making."""

    first: int
    """The offset of the first publication."""
    items: Items = field(default_factory=list)
    truncate: bool = False
    """Whether all that the file holds of the channel is dropped first."""


Rows = dict[Channel, _Row]
"""The rows of a batch in the making."""


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
        clock: Callable[[], float],
    ) -> None:
        """Open or create the file.

        Raises:
            ConfigurationError: a newer version wrote it.
            sqlite3.Error: it cannot be opened.
        """
        self.path = path
        self._projection = projection
        self._keep = retention
        self._clock = clock
        self._heads = Heads()
        self._db = connect(path, synchronous)
        try:
            self._prepare(path)
            self.epoch = self._renew_epoch(synchronous, boot_id)
            """The log's epoch, from which every channel's is made."""
            self._opening = self._count_opening()
            self._db.execute("COMMIT")
        except BaseException:
            self._db.close()
            raise

    def close(self, *, clean: bool = True) -> None:
        """Close the file, noting that it was closed well where it was."""
        with contextlib.suppress(sqlite3.Error, LogFenced):
            self._db.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
            if clean:
                self._begin()
                self._set_meta("clean", "1")
                self._db.execute("COMMIT")
        self._db.close()

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """Write a batch in one transaction and say what became of each.

        Raises:
            sqlite3.Error: nothing of the batch was written; call `undo`.
            LogFenced: the log was opened elsewhere since; call `undo`.
        """
        self._begin()
        rows: Rows = {}
        outcomes = [self._write(write, rows) for write in writes]
        now = self._clock()
        for channel, row in rows.items():
            self._store(channel, row, now)
        self._db.execute("COMMIT")
        self._heads.evict(MAX_HEADS)
        return outcomes

    def undo(self) -> None:
        """Take back a failed transaction, and forget what was concluded inside it."""
        self._heads.clear()
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")

    def probe(self) -> None:
        """Write something of no consequence, to see whether the file takes it.

        Raises:
            sqlite3.Error: it does not; call `undo`.
        """
        with self._impatient():
            self._begin()
        self._set_meta("probed", str(self._clock()))
        self._db.execute("COMMIT")

    def make_room(self) -> None:
        """Let the write-ahead log begin anew, where what it holds can go into the file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @contextlib.contextmanager
    def filling(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for one transaction that fills a new log."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self.undo()
            raise
        self._heads.clear()
        self._db.execute("COMMIT")

    def sweep(self) -> float | None:
        """Drop what is too old, for one slice of time.

        Returns:
            In how many seconds to go on; None where there is nothing more to drop.

        Raises:
            sqlite3.Error: nothing was dropped; call `undo`.
            LogFenced: the log was opened elsewhere since; call `undo`.
        """
        now = self._clock()
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
        """Drop a step's worth of the channel that is due the longest; False where none is."""
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

        It starts anew by itself, unless somebody still reads what an old part of it says. Its size
        is looked at first, since a checkpoint waits for the disk.
        """
        with contextlib.suppress(OSError):
            if wal_of(self.path).stat().st_size < WAL_BYTES:
                return True
        _, frames, moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(frames == moved)

    @contextlib.contextmanager
    def _impatient(self) -> Iterator[None]:
        """Wait for nobody's lock longer than for a moment."""
        self._db.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
        try:
            yield
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _prepare(self, path: Path) -> None:
        """Begin the opening transaction and bring the tables to the present schema."""
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"{path} was written by a newer version of Towpath (schema {version}, this "
                f"one knows {SCHEMA_VERSION}): start that version, or another data directory"
            )
        self._db.execute("BEGIN IMMEDIATE")
        if version == SCHEMA_VERSION:
            self._check_meta()
        for since, schema in _SCHEMAS:
            for statement in schema.split(";") if version < since else ():
                self._db.execute(statement)
        self._projection.create(self._db, version)
        if version < SCHEMA_VERSION:
            checksums.renew(self._db)
        checksums.guard(self._db)
        if version == 0:
            self._set_meta("epoch", uuid.uuid4().hex)
        if version < SCHEMA_VERSION:
            self._set_meta("schema", msgspec.json.encode(checksums.schema_of(self._db)).decode())
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_meta(self) -> None:
        """Check the notes on the file, and what defines its tables; what others added is theirs.

        A row that went by another name now would be taken for one that was never there, so all of
        them are looked at.

        Raises:
            sqlite3.Error, LogCorrupted: it is not what was written.
        """
        checksums.check(self._db, "meta")
        try:
            written = msgspec.json.decode(self._meta("schema"), type=dict[str, int])
        except msgspec.DecodeError:
            raise LogCorrupted("the schema") from None
        if not written.items() <= checksums.schema_of(self._db).items():
            raise LogCorrupted("the schema")

    def _renew_epoch(self, synchronous: str, boot_id: str) -> str:
        crashed = self._meta("clean") == "0"
        same_life = boot_id != "" and self._meta("boot") == boot_id
        if crashed and not same_life and self._meta("synchronous") != "FULL":
            self._set_meta("epoch", uuid.uuid4().hex)
        self._set_meta("clean", "0")
        self._set_meta("boot", boot_id)
        self._set_meta("synchronous", synchronous)
        return self._meta("epoch")

    def _count_opening(self) -> str:
        """Return the number of this opening; whoever opened the log before has a lower one."""
        opening = str(int(self._meta("opening") or 0) + 1)
        self._set_meta("opening", opening)
        return opening

    def _begin(self) -> None:
        """Begin a transaction.

        Raises:
            LogFenced: the log was opened elsewhere since.
        """
        self._db.execute("BEGIN IMMEDIATE")
        if self._meta("opening") != self._opening:
            raise LogFenced("another process has opened the log since")

    def _meta(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    def _write(self, write: Write, rows: Rows) -> Outcome:
        """Apply one write of a batch; what it raises is its own outcome.

        Nothing outside the savepoint is changed before all that may raise is over.

        Raises:
            sqlite3.Error, LogCorrupted: it concerns the whole batch.
        """
        try:
            items = [list(map(_encode_item, append.items)) for append in write.appends]
            spans = self._spans(write.appends)
            for channel in write.truncate:
                self._head(channel)
            if write.key is None and not write.facts and write.result is None:
                self._check_follows(write.appends, spans)
                written = Written(spans=spans)
            else:
                written = self._write_facts(write, spans)
        except (CommandError, StorageError) as refusal:
            return refusal
        except Exception as error:  # Whatever one write raises, the others go on.
            if self._concerns_all(error):
                raise
            failed = WriteFailed("the log cannot take this write")
            failed.__cause__ = error
            return failed
        if not written.repeated:
            self._place(write, spans, items, rows)
        return written

    def _concerns_all(self, error: Exception) -> bool:
        """Whether an error ended the transaction, or tells that the file is in trouble."""
        return not self._db.in_transaction or health_of(error) is not None

    def _write_facts(self, write: Write, spans: tuple[Span, ...]) -> Written:
        """Apply a write that has more than publications, or nothing of it."""
        self._db.execute("SAVEPOINT write")
        try:
            written = self._apply(write, spans)
        except Exception:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO write")
                self._db.execute("RELEASE write")
            raise
        self._db.execute("RELEASE write")
        return written

    def _apply(self, write: Write, spans: tuple[Span, ...]) -> Written:
        """Apply the key and the facts of a write.

        Raises:
            CommandError: its key or one of its facts is refused.
            StorageError: it does not follow on what it says it follows.
        """
        if (
            write.key is not None
            and (
                earlier := stored_result(self._db, write.key, table=f"{checksums.CHECKED}requests")
            )
            is not None
        ):
            return Written(result=earlier, repeated=True)
        self._check_follows(write.appends, spans)
        for fact in write.facts:
            self._projection.apply(self._db, fact, spans)
        result = write.result(spans) if write.result else b""
        if write.key is not None:
            self._remember(write.key, result)
        return Written(spans=spans, result=result)

    def _check_follows(self, appends: Sequence[Append], spans: Sequence[Span]) -> None:
        if not follows(appends, spans, self._fence):
            raise OffsetConflict("an earlier write is missing, or another producer was here")

    def _spans(self, appends: Sequence[Append]) -> tuple[Span, ...]:
        """Say where appends will stand, without moving anything."""
        tops: dict[Channel, int] = {}
        spans = []
        for append in appends:
            channel = append.channel
            top = tops.get(channel, self._head(channel).top)
            tops[channel] = top + len(append.items)
            epoch = channel_epoch(self.epoch, channel)
            spans.append(Span(channel, epoch, top + 1, tops[channel]))
        return tuple(spans)

    def _place(
        self, write: Write, spans: Sequence[Span], items: Sequence[Items], rows: Rows
    ) -> None:
        """Put a write into the rows of this batch, at the offsets it was promised."""
        for channel in write.truncate:
            head = self._head(channel)
            head.publications = head.bytes = 0
            head.fence = head.due = None
            rows[channel] = _Row(head.top + 1, truncate=True)
        for append, span, encoded in zip(write.appends, spans, items, strict=True):
            head = self._head(append.channel)
            head.top = span.last
            if append.fence:
                head.fence = span.first
            if append.unfence:
                head.fence = None
            rows.setdefault(append.channel, _Row(span.first)).items.extend(encoded)

    def _fence(self, channel: Channel) -> int | None:
        return self._head(channel).fence

    def _head(self, channel: Channel) -> Head:
        return self._heads.get(self._db, channel)

    def _store(self, channel: Channel, row: _Row, now: float) -> None:
        """Write what a batch did to one channel. A channel that nothing was ever in gets no row."""
        head, keep = self._head(channel), self._keep(channel)
        if head.id is None and head.top == 0:
            return
        if head.id is None:
            save(self._db, channel, head, now)
        if row.truncate:
            self._db.execute("DELETE FROM log WHERE channel=?", (head.id,))
        if row.items:
            self._insert(head, row, now)
        if keep is not None:
            retention.drop_surplus(self._db, head, keep)
        head.due = retention.due(head, keep, now, added=len(row.items))
        save(self._db, channel, head, now)

    def _insert(self, head: Head, row: _Row, now: float) -> None:
        blob = _encode_items(row.items)
        values = (head.id, head.top, row.first, now, len(blob), blob)
        self._db.execute(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, checksums.seal(*values))
        )
        head.publications += len(row.items)
        head.bytes += len(blob)

    def _remember(self, key: IdempotencyKey, result: bytes) -> None:
        self._db.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (*key.scope, key.request_id, key.digest, result, self._clock()),
        )


def wal_of(path: Path) -> Path:
    """Return the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Return a connection that leaves transactions to us."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES // 2}")
    return db
