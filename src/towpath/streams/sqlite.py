"""The embedded log: one SQLite file, one writer thread, one commit for whatever gathered.

Writes queue up, bounded, while the last commit runs; the writer takes all of them, puts the
publications of a channel into one row, commits once, and hands the batch back to the event loop,
where it is delivered in order and the futures are resolved. So the disk is waited for once per
batch, and the loop waits for it never. Rows are written once and dropped whole by retention.

A thread beside it answers reads; in WAL mode it sees every commit and blocks none.

The epoch (DESIGN section 6) is new when the log is created, and when it was not closed, is opened
in another life of the machine, and was written with `synchronous` below FULL: then the machine
may have forgotten what it said it had stored. After a mere kill -9 it stays.
"""

import asyncio
import contextlib
import fcntl
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from towpath import hooks
from towpath.channels import Channel
from towpath.errors import CommandError, ConfigurationError, Conflict, StorageError
from towpath.hooks import Hooks
from towpath.streams.broker import (
    Append,
    Deliver,
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
    retention_of,
)

T = TypeVar("T")

SCHEMA_VERSION = 1
"""What `PRAGMA user_version` of a file says that this code can write."""
QUEUE_BOUND = 4096
"""How many writes wait for the disk before producers wait too: about one second's worth."""
SWEEP_SECONDS = 60.0
"""How often publications that are too old are looked for."""
KEY_SECONDS = 24 * 3600.0
"""How long a request id is remembered."""

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
    items BLOB NOT NULL,
    PRIMARY KEY (channel, last)
) WITHOUT ROWID;
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

_encode_items = msgspec.msgpack.Encoder().encode
_decode_items = msgspec.msgpack.Decoder(list[tuple[bytes, dict[str, str]]]).decode


@dataclass(slots=True)
class _Head:
    """What the writer knows of a channel without asking."""

    id: int
    top: int
    hold: int | None
    publications: int
    bytes: int


@dataclass(slots=True)
class _Pending:
    """A submitted write and who waits for it."""

    write: Write
    future: "asyncio.Future[Written]"
    since: float


Outcome = Written | CommandError | StorageError


class SqliteBroker:
    """See `towpath.streams.broker` for what it promises."""

    def __init__(
        self,
        path: Path,
        deliver: Deliver,
        projection: Projection,
        *,
        watchers: Hooks | None = None,
        retention: Callable[[Channel], Retention] = retention_of,
        synchronous: str = "NORMAL",
        boot_id: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Name the file; nothing is touched before `start`.

        Args:
            path: the database file; beside it lives a lock file.
            deliver: hears of durable publications.
            projection: derives tables from facts.
            watchers: hear of commits.
            retention: how much of which channel is kept.
            synchronous: `NORMAL` survives a kill of the process, `FULL` a power cut too.
            boot_id: which life of the machine this is; None asks the kernel.
            clock: wall time in seconds, for retention.
        """
        self._path = path
        self._deliver = deliver
        self._projection = projection
        self._hooks = watchers or Hooks()
        self._retention = retention
        self._synchronous = synchronous
        self._boot_id = boot_id if boot_id is not None else _kernel_boot_id()
        self._clock = clock
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._waiting = 0
        self._has_room = asyncio.Event()
        self._heads: dict[Channel, _Head] = {}
        self._log_epoch = ""
        self._swept = 0.0
        self._stopped = False

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = _lock(self._path)
        try:
            self._db = await asyncio.to_thread(self._open)
            self._reader = _connect(self._path, self._synchronous)
        except sqlite3.Error as error:
            self._lock.close()
            raise ConfigurationError(f"cannot open {self._path}: {error}") from None
        except ConfigurationError:
            self._lock.close()
            raise
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="towpath-reader")
        self._writer = threading.Thread(target=self._run, name="towpath-writer", daemon=True)
        self._writer.start()

    async def stop(self) -> None:
        self._stopped = True
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        self._reader.close()
        with contextlib.suppress(sqlite3.Error):
            _set_meta(self._db, "clean", "1")
        self._db.close()
        self._lock.close()

    async def room(self) -> None:
        while self._waiting >= QUEUE_BOUND:
            await self._has_room.wait()

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        future: asyncio.Future[Written] = self._loop.create_future()
        if self._stopped:
            future.set_exception(StorageError("the log is closed"))
            return future
        self._waiting += 1
        if self._waiting >= QUEUE_BOUND:
            self._has_room.clear()
        self._queue.put(_Pending(write, future, time.monotonic()))
        return future

    async def read(
        self, channel: Channel, after: int, *, epoch: str | None = None, limit: int | None = None
    ) -> Replay:
        here = channel_epoch(self._log_epoch, channel)

        def question(db: sqlite3.Connection) -> Replay:
            return _read(db, channel, here, after, epoch, limit)

        return await self.query(question)

    async def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._stopped:
            raise StorageError("the log is closed")
        try:
            return await self._loop.run_in_executor(self._readers, _within, self._reader, question)
        except sqlite3.Error as error:
            raise StorageError(f"the log cannot be read: {error}") from error

    # What follows runs in the writer thread, but for `_open` before and `_hand_back` on the loop.

    def _open(self) -> sqlite3.Connection:
        db = _connect(self._path, self._synchronous)
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            db.close()
            raise ConfigurationError(
                f"{self._path} was written by a newer version of Towpath (schema {version}, this "
                f"one knows {SCHEMA_VERSION}): start that version, or another data directory"
            )
        db.execute("BEGIN IMMEDIATE")
        if version == 0:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            _set_meta(db, "epoch", uuid.uuid4().hex)
        self._projection.create(db, version)
        self._renew_epoch(db)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
        self._log_epoch = _meta(db, "epoch")
        return db

    def _renew_epoch(self, db: sqlite3.Connection) -> None:
        crashed = _meta(db, "clean") == "0"
        same_life = self._boot_id != "" and _meta(db, "boot") == self._boot_id
        if crashed and not same_life and _meta(db, "synchronous") != "FULL":
            _set_meta(db, "epoch", uuid.uuid4().hex)
        _set_meta(db, "clean", "0")
        _set_meta(db, "boot", self._boot_id)
        _set_meta(db, "synchronous", self._synchronous)

    def _run(self) -> None:
        going = True
        while going:
            batch: list[_Pending] = []
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=SWEEP_SECONDS)
                while item is not None:
                    batch.append(item)
                    item = self._queue.get_nowait()
                going = False
            if batch:
                outcomes = self._commit(batch)
                self._loop.call_soon_threadsafe(self._hand_back, batch, outcomes)
            self._sweep()

    def _commit(self, batch: list[_Pending]) -> list[Outcome]:
        """Write a batch in one transaction; a storage failure fails all of it and keeps nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            rows: dict[Channel, tuple[int, list[Item]]] = {}
            outcomes = [self._write(pending.write, rows) for pending in batch]
            for channel, (first, items) in rows.items():
                self._insert(channel, first, items)
            self._db.execute("COMMIT")
        except Exception as error:  # The outermost edge of the writer: it must outlive any batch.
            self._undo("write", error)
            return [StorageError(f"the log cannot be written: {error}") for _ in batch]
        return outcomes

    def _undo(self, what: str, error: Exception) -> None:
        """Take back a failed transaction, and forget what was concluded inside it."""
        self._heads.clear()
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")
        fault = hooks.Fault(where=f"log {what}", error=error)
        self._loop.call_soon_threadsafe(self._hooks.tell, fault)

    def _write(self, write: Write, rows: dict[Channel, tuple[int, list[Item]]]) -> Outcome:
        if not follows(write.appends, self._spans(write.appends)):
            return StorageError("an earlier write is missing")
        if not write.facts and write.key is None and not write.forget:
            return Written(spans=self._place(write.appends, rows))
        try:
            earlier = self._earlier(write.key) if write.key else None
        except Conflict as conflict:
            return conflict
        if earlier is not None:
            return earlier
        spans = self._spans(write.appends)
        self._db.execute("SAVEPOINT write")
        try:
            for fact in write.facts:
                self._projection.apply(self._db, fact, spans)
        except CommandError as error:
            self._db.execute("ROLLBACK TO write")
            self._db.execute("RELEASE write")
            return error
        self._db.execute("RELEASE write")
        result = write.result(spans) if write.result else b""
        if write.key is not None:
            self._remember(write.key, result)
        for channel in write.forget:
            self._forget(channel)
            rows.pop(channel, None)
        self._place(write.appends, rows)
        return Written(spans=spans, result=result)

    def _spans(self, appends: Sequence[Append]) -> tuple[Span, ...]:
        """Say where appends will stand, without moving anything."""
        tops: dict[Channel, int] = {}
        spans = []
        for append in appends:
            channel = append.channel
            top = tops.get(channel, self._head(channel).top)
            tops[channel] = top + len(append.items)
            epoch = channel_epoch(self._log_epoch, channel)
            spans.append(Span(channel, epoch, top + 1, tops[channel]))
        return tuple(spans)

    def _place(
        self, appends: Sequence[Append], rows: dict[Channel, tuple[int, list[Item]]]
    ) -> tuple[Span, ...]:
        """Give appends their offsets and put them into the rows of this batch."""
        spans = self._spans(appends)
        for append, span in zip(appends, spans, strict=True):
            head = self._head(append.channel)
            head.top = span.last
            if append.hold:
                head.hold = span.first
            if append.release:
                head.hold = None
            rows.setdefault(append.channel, (span.first, []))[1].extend(append.items)
        return spans

    def _head(self, channel: Channel) -> _Head:
        head = self._heads.get(channel)
        if head is not None:
            return head
        if len(self._heads) > 100_000:
            self._heads.clear()
        self._db.execute(
            "INSERT OR IGNORE INTO channels VALUES (NULL, ?, ?, 0, NULL, 0, 0, ?)",
            (channel.tenant, channel.name, self._clock()),
        )
        row = self._db.execute(
            "SELECT id, top, hold, publications, bytes FROM channels WHERE tenant=? AND name=?",
            (channel.tenant, channel.name),
        ).fetchone()
        head = self._heads[channel] = _Head(*row)
        return head

    def _insert(self, channel: Channel, first: int, items: list[Item]) -> None:
        head, now = self._head(channel), self._clock()
        blob = _encode_items(items)
        self._db.execute(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)",
            (head.id, head.top, first, now, len(blob), blob),
        )
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
            "UPDATE channels SET hold=NULL, publications=0, bytes=0 WHERE id=?", (head.id,)
        )

    def _earlier(self, key: Key) -> Written | None:
        row = self._db.execute(
            "SELECT digest, result FROM requests"
            " WHERE tenant=? AND user=? AND method=? AND request_id=?",
            (*key.scope, key.request_id),
        ).fetchone()
        if row is None:
            return None
        if row[0] != key.digest:
            raise Conflict("request_id was used for something else")
        return Written(result=row[1], repeated=True)

    def _remember(self, key: Key, result: bytes) -> None:
        self._db.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key.scope, key.request_id, key.digest, result, self._clock()),
        )

    def _sweep(self) -> None:
        """Drop what is too old, at most once in a while."""
        if time.monotonic() - self._swept < SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        now = self._clock()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM requests WHERE at < ?", (now - KEY_SECONDS,))
            for row in self._db.execute(
                "SELECT id, tenant, name, updated FROM channels WHERE hold IS NULL"
                " AND publications > 0 AND id IN (SELECT channel FROM log WHERE at < ?)",
                (now - _shortest(self._retention),),
            ).fetchall():
                self._expire(row[0], Channel(row[1], row[2]), row[3], now)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo("retention", error)

    def _expire(self, channel_id: int, channel: Channel, updated: float, now: float) -> None:
        keep = self._retention(channel)
        if keep.since_last and updated >= now - keep.seconds:
            return
        limit = now if keep.since_last else now - keep.seconds
        self._db.execute("DELETE FROM log WHERE channel=? AND at<?", (channel_id, limit))
        left = self._db.execute(
            "SELECT COALESCE(SUM(last - first + 1), 0), COALESCE(SUM(bytes), 0)"
            " FROM log WHERE channel=?",
            (channel_id,),
        ).fetchone()
        self._db.execute(
            "UPDATE channels SET publications=?, bytes=? WHERE id=?", (*left, channel_id)
        )
        self._heads.pop(channel, None)

    def _hand_back(self, batch: list[_Pending], outcomes: list[Outcome]) -> None:
        """Deliver a committed batch in order, then resolve its futures. Runs on the loop."""
        count = 0
        self._waiting -= len(batch)
        self._has_room.set()
        for pending, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Written):
                for append, span in zip(pending.write.appends, outcome.spans, strict=False):
                    count += len(append.items)
                    self._deliver(append.channel, _published(append, span))
            if pending.future.cancelled():
                continue
            if isinstance(outcome, Written):
                pending.future.set_result(outcome)
            else:
                pending.future.set_exception(outcome)
        waited = time.monotonic() - batch[0].since
        self._hooks.tell(hooks.Appended(publications=count, seconds=waited))


def _published(append: Append, span: Span) -> list[Publication]:
    return [
        Publication(offset, item.data, item.tags)
        for offset, item in enumerate(append.items, span.first)
    ]


def _within(db: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
    """Ask in one read transaction, so that all parts of the answer are of one moment."""
    db.execute("BEGIN")
    try:
        return question(db)
    finally:
        db.execute("COMMIT")


def _read(
    db: sqlite3.Connection,
    channel: Channel,
    here: str,
    after: int,
    epoch: str | None,
    limit: int | None,
) -> Replay:
    head = db.execute(
        "SELECT id, top FROM channels WHERE tenant=? AND name=?", (channel.tenant, channel.name)
    ).fetchone()
    channel_id, top = head or (None, 0)
    row = db.execute(
        "SELECT first FROM log WHERE channel=? ORDER BY last LIMIT 1", (channel_id,)
    ).fetchone()
    oldest = row[0] if row else top + 1
    if (epoch is not None and epoch != here) or after > top or after < oldest - 1:
        return Replay(here, top, [], gone=True)
    found: list[Publication] = []
    for row in db.execute(
        "SELECT first, items FROM log WHERE channel=? AND last>? ORDER BY last",
        (channel_id, after),
    ):
        if limit is not None and len(found) >= limit:
            break
        items = _decode_items(row[1])
        found.extend(
            Publication(offset, data, tags)
            for offset, (data, tags) in enumerate(items, row[0])
            if offset > after
        )
    return Replay(here, top, found if limit is None else found[:limit])


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    return db


def _lock(path: Path) -> IO[str]:
    """Keep other processes off the data directory while this one has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise ConfigurationError(
            f"the data directory {path.parent} cannot be written: {error.strerror}"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise ConfigurationError(
            f"the data directory {path.parent} is in use by another process: stop that one, or "
            "choose another directory"
        ) from None
    return handle


def _meta(db: sqlite3.Connection, name: str) -> str:
    row = db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
    return str(row[0]) if row else ""


def _set_meta(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _shortest(retention: Callable[[Channel], Retention]) -> float:
    """Return the shortest age at which any row may be too old."""
    kinds = (Channel("", "tenant"), Channel("", "thread::"))
    return min(retention(kind).seconds for kind in kinds)


def _kernel_boot_id() -> str:
    """Return which life of the machine this is; empty where nobody can say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
