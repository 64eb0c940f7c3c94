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
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from towpath.channels import Channel
from towpath.errors import (
    CommandError,
    ConfigurationError,
    Conflict,
    Damaged,
    Misplaced,
    StorageError,
    TakenOver,
)
from towpath.streams import seals
from towpath.streams.broker import (
    KEY_SECONDS,
    Append,
    Item,
    Key,
    Projection,
    Publication,
    Replay,
    Retention,
    Span,
    Write,
    Written,
    channel_epoch,
    follows,
)

SCHEMA_VERSION = 7
"""What `PRAGMA user_version` of a file says that this code can write."""
SEALED_SINCE = 4
"""The version from which on rows carry checksums."""
BUSY_MS = 3_000
"""How long a write waits for somebody else's lock, in milliseconds: clients wait for 5 s."""
PATIENCE_MS = 100
"""How long it is waited for by what can wait: probes, retention, and closing."""
MAX_HEADS = 100_000
"""How many channels are remembered before all are looked up anew."""

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
_SCHEMAS = ((1, _SCHEMA), (SEALED_SINCE, _SEALED), (6, _SEALED_META))
"""The version of the file since which there are which tables and columns."""

_encode_items = msgspec.msgpack.Encoder().encode
_MISSING = "publications are missing"
decode_items = msgspec.msgpack.Decoder(list[tuple[bytes, dict[str, str]]]).decode


Outcome = Written | CommandError | StorageError
"""What became of one write of a batch."""

Rows = dict[Channel, tuple[int, list[Item]]]
"""The rows of a batch in the making: by channel, the first offset and the items."""


@dataclass(slots=True)
class _Head:
    """What the writer knows of a channel without asking."""

    id: int
    top: int
    hold: int | None
    publications: int
    bytes: int


class LogFile:
    """The log, open for writing."""

    def __init__(
        self,
        path: Path,
        projection: Projection,
        *,
        retention: Callable[[Channel], Retention],
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
        self._retention = retention
        self._clock = clock
        self._heads: dict[Channel, _Head] = {}
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
        with contextlib.suppress(sqlite3.Error, TakenOver):
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
            TakenOver: the log was opened elsewhere since; call `undo`.
        """
        self._begin()
        rows: Rows = {}
        outcomes = [self._write(write, rows) for write in writes]
        for channel, (first, items) in rows.items():
            self._insert(channel, first, items)
        self._db.execute("COMMIT")
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

    def sweep(self) -> None:
        """Drop what is too old.

        Raises:
            sqlite3.Error: nothing was dropped; call `undo`.
            TakenOver: the log was opened elsewhere since; call `undo`.
        """
        now = self._clock()
        with self._impatient():
            self._begin()
        self._db.execute("DELETE FROM requests WHERE at < ?", (now - KEY_SECONDS,))
        for channel_id, tenant, name, updated in self._db.execute(
            "SELECT id, tenant, name, updated FROM channels WHERE hold IS NULL"
            " AND publications > 0 AND id IN (SELECT channel FROM log WHERE at < ?)",
            (now - _shortest(self._retention),),
        ).fetchall():
            self._expire(channel_id, Channel(tenant, name), updated, now)
        self._db.execute("COMMIT")

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
            seals.renew(self._db)
        seals.guard(self._db)
        if version == 0:
            self._set_meta("epoch", uuid.uuid4().hex)
        if version < SCHEMA_VERSION:
            self._set_meta("schema", msgspec.json.encode(seals.schema_of(self._db)).decode())
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_meta(self) -> None:
        """Check the notes on the file, and what defines its tables; what others added is theirs.

        A row that went by another name now would be taken for one that was never there, so all of
        them are looked at.

        Raises:
            sqlite3.Error, Damaged: it is not what was written.
        """
        seals.check(self._db, "meta")
        try:
            written = msgspec.json.decode(self._meta("schema"), type=dict[str, int])
        except msgspec.DecodeError:
            raise Damaged("the schema") from None
        if not written.items() <= seals.schema_of(self._db).items():
            raise Damaged("the schema")

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
            TakenOver: the log was opened elsewhere since.
        """
        self._db.execute("BEGIN IMMEDIATE")
        if self._meta("opening") != self._opening:
            raise TakenOver("another process has opened the log since")

    def _meta(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    def _write(self, write: Write, rows: Rows) -> Outcome:
        spans = self._spans(write.appends)
        if write.key is None and not write.facts and not write.forget:
            if not follows(write.appends, spans, self._hold):
                return Misplaced("an earlier write is missing, or another producer was here")
            self._place(write.appends, spans, rows)
            return Written(spans=spans)
        self._db.execute("SAVEPOINT write")
        try:
            return self._write_whole(write, spans, rows)
        except (CommandError, StorageError) as refusal:
            self._db.execute("ROLLBACK TO write")
            return refusal
        finally:
            self._db.execute("RELEASE write")

    def _write_whole(self, write: Write, spans: tuple[Span, ...], rows: Rows) -> Written:
        """Write one that has more than publications.

        Raises:
            CommandError: its key or one of its facts is refused.
            StorageError: it does not follow on what it says it follows.
        """
        if (
            write.key is not None
            and (earlier := remembered(self._db, write.key, table=f"{seals.CHECKED}requests"))
            is not None
        ):
            return Written(result=earlier, repeated=True)
        if not follows(write.appends, spans, self._hold):
            raise Misplaced("an earlier write is missing, or another producer was here")
        for fact in write.facts:
            self._projection.apply(self._db, fact, spans)
        result = write.result(spans) if write.result else b""
        if write.key is not None:
            self._remember(write.key, result)
        for channel in write.forget:
            self._forget(channel)
            rows.pop(channel, None)
        self._place(write.appends, spans, rows)
        return Written(spans=spans, result=result)

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

    def _place(self, appends: Sequence[Append], spans: Sequence[Span], rows: Rows) -> None:
        """Put appends into the rows of this batch, at the offsets they were promised."""
        for append, span in zip(appends, spans, strict=True):
            head = self._head(append.channel)
            head.top = span.last
            if append.hold:
                head.hold = span.first
            if append.release:
                head.hold = None
            rows.setdefault(append.channel, (span.first, []))[1].extend(append.items)

    def _hold(self, channel: Channel) -> int | None:
        return self._head(channel).hold

    def _head(self, channel: Channel) -> _Head:
        head = self._heads.get(channel)
        if head is not None:
            return head
        if len(self._heads) > MAX_HEADS:
            self._heads.clear()
        self._db.execute(
            "INSERT OR IGNORE INTO channels VALUES (NULL, ?, ?, 0, NULL, 0, 0, ?, NULL)",
            (channel.tenant, channel.name, self._clock()),
        )
        row = self._db.execute(
            f"SELECT id, top, hold, publications, bytes FROM {seals.CHECKED}channels"
            " WHERE tenant=? AND name=?",
            (channel.tenant, channel.name),
        ).fetchone()
        head = self._heads[channel] = _Head(*row)
        return head

    def _insert(self, channel: Channel, first: int, items: list[Item]) -> None:
        head, now = self._head(channel), self._clock()
        blob = _encode_items(items)
        row = (head.id, head.top, first, now, len(blob), blob)
        self._db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, seals.seal(*row)))
        head.publications += len(items)
        head.bytes += len(blob)
        self._trim(head, self._retention(channel))
        self._db.execute(
            "UPDATE channels SET top=?, hold=?, publications=?, bytes=?, updated=? WHERE id=?",
            (head.top, head.hold, head.publications, head.bytes, now, head.id),
        )

    def _trim(self, head: _Head, keep: Retention) -> None:
        """Drop the oldest rows until the bounds hold, never reaching into what is held."""
        while head.publications > keep.publications or head.bytes > keep.bytes:
            row = self._db.execute(
                "SELECT last, first, bytes FROM log WHERE channel=? ORDER BY last LIMIT 1",
                (head.id,),
            ).fetchone()
            if row is None or row[0] >= (head.hold or head.top):
                return
            self._db.execute("DELETE FROM log WHERE channel=? AND last=?", (head.id, row[0]))
            head.publications -= row[0] - row[1] + 1
            head.bytes -= row[2]

    def _forget(self, channel: Channel) -> None:
        head = self._head(channel)
        self._db.execute("DELETE FROM log WHERE channel=?", (head.id,))
        head.publications = head.bytes = 0
        head.hold = None
        self._db.execute(
            "UPDATE channels SET top=?, hold=NULL, publications=0, bytes=0 WHERE id=?",
            (head.top, head.id),
        )

    def _remember(self, key: Key, result: bytes) -> None:
        self._db.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (*key.scope, key.request_id, key.digest, result, self._clock()),
        )

    def _expire(self, channel_id: int, channel: Channel, updated: float, now: float) -> None:
        keep = self._retention(channel)
        if keep.since_last and updated >= now - keep.seconds:
            return
        limit = now if keep.since_last else now - keep.seconds
        # Up to the first that is young enough: clocks are set back, and no gap may come of it.
        self._db.execute(
            "DELETE FROM log WHERE channel=?1 AND last < COALESCE("
            "(SELECT MIN(last) FROM log WHERE channel=?1 AND at>=?2), 1 << 62)",
            (channel_id, limit),
        )
        left = self._db.execute(
            "SELECT COALESCE(SUM(last - first + 1), 0), COALESCE(SUM(bytes), 0)"
            " FROM log WHERE channel=?",
            (channel_id,),
        ).fetchone()
        self._db.execute(
            "UPDATE channels SET publications=?, bytes=? WHERE id=?", (*left, channel_id)
        )
        self._heads.pop(channel, None)


def read(
    db: sqlite3.Connection,
    channel: Channel,
    here: str,
    after: int,
    epoch: str | None,
    limit: int | None,
) -> Replay:
    """Answer `Broker.read` from the file; `here` is the channel's epoch.

    Raises:
        Damaged: something is missing.
    """
    head = db.execute(
        "SELECT id, top, publications FROM channels WHERE tenant=? AND name=?",
        (channel.tenant, channel.name),
    ).fetchone()
    channel_id, top, kept = head or (None, 0, 0)
    oldest = top - kept + 1
    if (epoch is not None and epoch != here) or after > top or after < oldest - 1:
        return Replay(here, top, [], gone=True)
    found: list[Publication] = []
    expected = after + 1
    for first, last, items in db.execute(
        "SELECT first, last, items FROM log WHERE channel=? AND last>? ORDER BY last",
        (channel_id, after),
    ):
        if limit is not None and len(found) >= limit:
            break
        if first > expected:
            raise Damaged(_MISSING)
        expected = last + 1
        found.extend(
            Publication(offset, data, tags)
            for offset, (data, tags) in enumerate(decode_items(items), first)
            if offset > after
        )
    else:
        if expected <= top:
            raise Damaged(_MISSING)
    return Replay(here, top, found if limit is None else found[:limit])


def remembered(db: sqlite3.Connection, key: Key, *, table: str = "requests") -> bytes | None:
    """Answer `Broker.remembered` from the file."""
    row = db.execute(
        f"SELECT digest, result FROM {table} WHERE tenant=? AND user=? AND method=?"
        " AND request_id=?",
        (*key.scope, key.request_id),
    ).fetchone()
    if row is None:
        return None
    if row[0] != key.digest:
        raise Conflict("request_id was used for something else")
    return bytes(row[1])


def wal_of(path: Path) -> Path:
    """Return the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Return a connection that leaves transactions to us."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    return db


def _shortest(retention: Callable[[Channel], Retention]) -> float:
    """Return the shortest age at which any row may be too old."""
    kinds = (Channel("", "tenant"), Channel("", "thread::"))
    return min(retention(kind).seconds for kind in kinds)
