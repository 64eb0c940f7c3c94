"""The projection: threads, messages and runs as tables, written in the log's own transactions.

The facts of a write are applied in the same transaction, so the tables always agree with the log.
They hold every thread up to its last terminal event. The later events of an active run are in the
log only, where retention does not drop them while the run is active. So a reader takes the thread
from here and folds the log after `threads.offset` on top.

The projection decides whether a run may be opened on a thread now, because any other place has a
race.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from towpath.errors import Conflict, NotFound
from towpath.events.types import Message
from towpath.log.broker import Span
from towpath.runs.interrupts import InterruptDecided, InterruptsExpired
from towpath.runs.model import (
    LeasesInherited,
    LeasesRenewed,
    RunClosed,
    RunOpened,
    RunQueued,
    RunWithdrawn,
    Status,
    ThreadBusy,
    ThreadMoved,
    TurnMoved,
)
from towpath.runs.tables.sqlite import interrupts, leases, queue, salvage

_SCHEMA = """
CREATE TABLE threads (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    id TEXT NOT NULL,
    title TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    offset INTEGER NOT NULL,
    state BLOB,
    last_started BLOB,
    last_ended BLOB,
    PRIMARY KEY (tenant, user, id)
) WITHOUT ROWID;
CREATE INDEX threads_updated ON threads (tenant, user, updated);
CREATE TABLE messages (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    thread TEXT NOT NULL,
    place INTEGER NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, user, thread, place)
) WITHOUT ROWID;
CREATE TABLE runs (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    id TEXT NOT NULL,
    thread TEXT NOT NULL,
    agent TEXT NOT NULL,
    status TEXT NOT NULL,
    code TEXT,
    started REAL NOT NULL,
    ended REAL,
    PRIMARY KEY (tenant, user, id)
) WITHOUT ROWID;
CREATE INDEX runs_thread ON runs (tenant, user, thread, started);
CREATE INDEX runs_unfinished ON runs (status) WHERE ended IS NULL;
"""
_SEALED = """
ALTER TABLE threads ADD COLUMN messages INTEGER;
ALTER TABLE threads ADD COLUMN crc INTEGER;
ALTER TABLE messages ADD COLUMN crc INTEGER;
ALTER TABLE runs ADD COLUMN crc INTEGER;
ALTER TABLE interrupts ADD COLUMN crc INTEGER;
ALTER TABLE queued ADD COLUMN crc INTEGER
"""
"""The count of a thread's messages, which shows that one is missing, and checksums of rows."""
_INDEXED = """
UPDATE runs SET status='lost', code='run.lost', ended=started WHERE ended IS NULL
    AND status!='pending' AND EXISTS (SELECT 1 FROM runs AS later WHERE later.tenant=runs.tenant
    AND later.user=runs.user AND later.thread=runs.thread AND later.ended IS NULL
    AND later.status!='pending' AND (later.started, later.id) > (runs.started, runs.id));
DELETE FROM leases WHERE EXISTS (SELECT 1 FROM runs WHERE runs.tenant=leases.tenant
    AND runs.user=leases.user AND runs.id=leases.run AND ended IS NOT NULL);
DROP INDEX runs_unfinished;
DROP INDEX interrupts_thread;
CREATE UNIQUE INDEX runs_active ON runs (tenant, user, thread)
    WHERE ended IS NULL AND status!='pending'
"""
"""An index of the active runs only: it stays small, however many runs a person has.

A query uses the index if the query has both conditions word for word. The index is unique because a
thread has at most one active run. Without UNIQUE, SQLite would use the first two columns of the
primary key instead, and read all runs of the person.

A quarantine of an earlier version could leave two active runs: the earlier one is ended as `lost`.
"""
_RUNS_OF_THREAD = "SELECT id FROM runs WHERE tenant=?1 AND user=?2 AND thread=?3"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadKey:
    """The key of a thread: tenant, user, id."""

    tenant: str
    user: str
    id: str

    @property
    def columns(self) -> tuple[str, str, str]:
        """The primary key as the tables have it."""
        return (self.tenant, self.user, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadCreated:
    """Fact: a thread was created; raises Conflict if a thread with this id exists."""

    key: ThreadKey
    title: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRenamed:
    """Fact: a thread got another title; raises NotFound if the thread does not exist."""

    key: ThreadKey
    title: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadDeleted:
    """Fact: a thread and its content were deleted; raises Conflict if a run is active or queued."""

    key: ThreadKey


SCHEMAS = (
    (1, _SCHEMA),
    (2, interrupts.SCHEMA),
    (3, queue.SCHEMA),
    (4, _SEALED),
    (5, leases.SCHEMA),
    (7, _INDEXED),
)
"""For each schema version, the statements that migrate an older file to it."""


class ThreadProjection:
    """Derives the tables from facts; see `towpath.log.broker.Projection`."""

    def create(self, db: sqlite3.Connection, version: int) -> None:
        for since, schema in SCHEMAS:
            for statement in schema.split(";") if version < since else ():
                db.execute(statement)

    def apply(self, db: sqlite3.Connection, fact: object, spans: Sequence[Span]) -> None:
        match fact:
            case RunOpened():
                _open_run(db, fact, spans[0])
            case RunClosed():
                _close_run(db, fact, spans[0])
            case LeasesRenewed():
                leases.renew(db, fact)
            case LeasesInherited():
                leases.inherit(db, fact)
            case RunQueued():
                queue.put(db, fact)
            case RunWithdrawn():
                queue.withdraw(db, fact)
            case InterruptDecided():
                interrupts.decide(db, fact)
            case InterruptsExpired():
                interrupts.expire(db, fact)
            case ThreadCreated():
                _create_thread(db, fact)
            case ThreadRenamed():
                _rename_thread(db, fact)
            case ThreadDeleted():
                _delete_thread(db, fact)
            case _:
                raise TypeError(f"no such fact: {type(fact).__name__}")

    def carry_over(
        self, old: sqlite3.Connection, new: sqlite3.Connection, at: float
    ) -> Mapping[str, int]:
        return salvage.carry_over(old, new, at)


def _open_run(db: sqlite3.Connection, fact: RunOpened, span: Span) -> None:
    key = fact.key
    thread = ThreadKey(tenant=key.tenant, user=key.user, id=key.thread)
    if fact.queued is None:
        queue.refuse_known(db, key)
    if has_active_run(db, thread):
        raise ThreadBusy("a run is active on this thread")
    waiting = queue.head(db, *thread.columns)
    if fact.queued is None and waiting is not None:
        raise ThreadBusy("runs wait for this thread")
    if fact.queued != waiting:
        raise TurnMoved
    queue.leave(db, key)
    interrupts.supersede(db, key, fact.at)
    row = db.execute(
        "SELECT offset FROM threads WHERE tenant=? AND user=? AND id=?", thread.columns
    ).fetchone()
    if (row[0] if row else 0) != fact.thread_offset:
        raise ThreadMoved
    if row is None:
        _create_thread(db, ThreadCreated(key=thread, title=fact.title, at=fact.at))
    db.execute(
        "UPDATE threads SET updated=?, title=CASE title WHEN '' THEN ? ELSE title END,"
        # The channel of a deleted thread keeps its offsets; a new thread of that id continues them.
        " offset=CASE offset WHEN 0 THEN ? ELSE offset END WHERE tenant=? AND user=? AND id=?",
        (fact.at, fact.title, span.first - 1, *thread.columns),
    )
    db.execute(
        # Not REPLACE: that would delete another run that is active on the thread.
        "INSERT INTO runs (tenant, user, id, thread, agent, status, started)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, user, id) DO UPDATE SET"
        " status=excluded.status, started=excluded.started",
        (*key.run_id_key, key.thread, key.agent, Status.RUNNING.value, fact.at),
    )
    leases.grant(db, key, fact.holder, fact.lease)


def _close_run(db: sqlite3.Connection, fact: RunClosed, span: Span) -> None:
    key = fact.key
    leases.release(db, key, fact.holder, fact.at)
    db.execute(
        "UPDATE runs SET status=?, code=?, ended=? WHERE tenant=? AND user=? AND id=?",
        (fact.status.value, fact.code, fact.at, *key.run_id_key),
    )
    thread = ThreadKey(tenant=key.tenant, user=key.user, id=key.thread)
    db.execute(
        "UPDATE threads SET updated=?, offset=?, last_started=?, last_ended=?"
        " WHERE tenant=? AND user=? AND id=?",
        (
            fact.at,
            span.last,
            msgspec.json.encode({k: v for k, v in fact.started.items() if k != "input"}),
            msgspec.json.encode(fact.ended),
            *thread.columns,
        ),
    )
    if fact.messages is not None:
        _store_conversation(db, thread, fact.messages, fact.state)
    if fact.status is Status.INTERRUPTED:
        interrupts.put(db, fact)


def _store_conversation(
    db: sqlite3.Connection, thread: ThreadKey, messages: list[Message], state: object
) -> None:
    db.execute(
        "UPDATE threads SET state=?, messages=? WHERE tenant=? AND user=? AND id=?",
        (None if state is None else msgspec.json.encode(state), len(messages), *thread.columns),
    )
    _store_messages(db, thread, messages)


def _store_messages(db: sqlite3.Connection, thread: ThreadKey, messages: list[Message]) -> None:
    """Replace the stored conversation by this one; write only rows that differ."""
    stored = dict(
        db.execute(
            "SELECT place, body FROM messages WHERE tenant=? AND user=? AND thread=?",
            thread.columns,
        ).fetchall()
    )
    for place, message in enumerate(messages):
        body = msgspec.json.encode(message)
        if stored.pop(place, None) != body:
            db.execute(
                "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (*thread.columns, place, message["id"], body),
            )
    for place in stored:
        db.execute(
            "DELETE FROM messages WHERE tenant=? AND user=? AND thread=? AND place=?",
            (*thread.columns, place),
        )


def _create_thread(db: sqlite3.Connection, fact: ThreadCreated) -> None:
    try:
        db.execute(
            "INSERT INTO threads (tenant, user, id, title, created, updated, offset)"
            " VALUES (?, ?, ?, ?, ?, ?, 0)",
            (*fact.key.columns, fact.title, fact.at, fact.at),
        )
    except sqlite3.IntegrityError:
        raise Conflict("there is a thread of that id") from None


def _rename_thread(db: sqlite3.Connection, fact: ThreadRenamed) -> None:
    changed = db.execute(
        "UPDATE threads SET title=?, updated=? WHERE tenant=? AND user=? AND id=?",
        (fact.title, fact.at, *fact.key.columns),
    )
    if changed.rowcount == 0:
        raise NotFound("no such thread")


def _delete_thread(db: sqlite3.Connection, fact: ThreadDeleted) -> None:
    if has_active_run(db, fact.key):
        raise Conflict("a run is active on this thread: cancel it first")
    if queue.head(db, *fact.key.columns) is not None:
        raise Conflict("runs wait for this thread: cancel them first")
    gone = db.execute("DELETE FROM threads WHERE tenant=? AND user=? AND id=?", fact.key.columns)
    if gone.rowcount == 0:
        raise NotFound("no such thread")
    _delete_parts(db, fact.key)


def _delete_parts(db: sqlite3.Connection, thread: ThreadKey) -> None:
    """Delete the content of a thread; runs last, because they identify the interrupts."""
    for table, part in (
        ("messages", "thread=?3"),
        ("interrupts", f"run IN ({_RUNS_OF_THREAD})"),
        # With the condition on the thread alone, some SQLite versions scan all runs of the person.
        ("runs", f"id IN ({_RUNS_OF_THREAD})"),
    ):
        db.execute(f"DELETE FROM {table} WHERE tenant=?1 AND user=?2 AND {part}", thread.columns)


def has_active_run(db: sqlite3.Connection, thread: ThreadKey) -> bool:
    """Whether a run of this thread has no terminal event yet."""
    row = db.execute(
        "SELECT 1 FROM runs WHERE tenant=? AND user=? AND thread=? AND ended IS NULL"
        " AND status!='pending' LIMIT 1",
        thread.columns,
    ).fetchone()
    return row is not None
