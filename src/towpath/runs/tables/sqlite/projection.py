"""The projection: threads, messages and runs as tables, written in the log's own transactions.

The facts of a write are applied in the same transaction, so the tables always agree with the log.
They hold every thread up to its last terminal event. The later events of an active run are in the
log only, where retention does not drop them while the run is active. So a reader takes the thread
from here and folds the log after `threads.offset` on top.

The projection decides whether a run may be opened on a thread now, because any other place has a
race.

Every row has a checksum (`towpath.log.sqlite.rows`). A fact that needs a damaged row is refused,
except that a run always ends, and that a thread can always be deleted.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from towpath.errors import Conflict, NotFound
from towpath.log.broker import Question, Span
from towpath.log.sqlite.rows import Table
from towpath.runs import questions
from towpath.runs.interrupts import InterruptDecided, InterruptsExpired
from towpath.runs.model import (
    RunClosed,
    RunOpened,
    RunQueued,
    RunWithdrawn,
    Status,
    ThreadBusy,
    ThreadCreated,
    ThreadDeleted,
    ThreadKey,
    ThreadRenamed,
    TurnMoved,
)
from towpath.runs.tables.sqlite import carry_over, interrupts, queue, runs, threads

R = TypeVar("R")

_CHECKSUMS = """
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
_LEASES = """
CREATE TABLE leases (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    run TEXT NOT NULL,
    holder TEXT NOT NULL,
    expires REAL NOT NULL,
    crc INTEGER,
    PRIMARY KEY (tenant, user, run)
) WITHOUT ROWID
"""
_NO_LEASES = "DROP TABLE leases"
_RUNS_OF_THREAD = "SELECT id FROM runs WHERE tenant=?1 AND user=?2 AND thread=?3"

SCHEMAS = (
    (1, threads.SCHEMA + runs.SCHEMA),
    (2, interrupts.SCHEMA),
    (3, queue.SCHEMA),
    (4, _CHECKSUMS),
    (5, _LEASES),
    (7, _INDEXED),
    (8, _NO_LEASES),
)
"""For each schema version, the statements that migrate an older file to it."""

ANSWERS: Final[Mapping[type[Question[Any]], Callable[[sqlite3.Connection, Any], Any]]] = {
    questions.ThreadsOfUser: threads.of_user,
    questions.ThreadById: threads.stored,
    questions.ThreadExists: threads.exists,
    questions.HasActiveRun: threads.has_active_run,
    questions.RunById: runs.find,
    questions.RunsOfThread: runs.of_thread,
    questions.UnfinishedRuns: runs.unfinished,
    questions.QueuedRuns: queue.waiting,
    questions.ThreadsWithQueue: queue.threads,
    questions.InterruptsOfRun: interrupts.of_run,
    questions.InterruptsOfLastRun: interrupts.of_last_run,
    questions.ExpiredInterrupts: interrupts.expired,
    questions.NextExpiry: interrupts.next_expiry,
}
"""For each kind of question, the function that answers it."""


class ThreadProjection:
    """Derives the tables from facts; see `towpath.log.sqlite.projection.SqliteProjection`."""

    tables = (threads.THREADS, threads.MESSAGES, runs.RUNS, interrupts.INTERRUPTS, queue.QUEUED)

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
            case RunQueued():
                queue.put(db, fact)
            case RunWithdrawn():
                queue.withdraw(db, fact)
            case InterruptDecided():
                interrupts.decide(db, fact)
            case InterruptsExpired():
                interrupts.expire(db, fact)
            case ThreadCreated():
                threads.create(db, fact)
            case ThreadRenamed():
                threads.rename(db, fact)
            case ThreadDeleted():
                _delete_thread(db, fact)
            case _:
                raise TypeError(f"no such fact: {type(fact).__name__}")

    def answer(self, db: sqlite3.Connection, question: Question[R]) -> R:
        answer = ANSWERS.get(type(question))
        if answer is None:
            raise TypeError(f"no such question: {type(question).__name__}")
        found: R = answer(db, question)
        return found

    def is_orphan(self, db: sqlite3.Connection, table: Table[Any], row: Any) -> bool:
        # A run may wait for a thread that does not exist yet.
        waits = table is runs.RUNS and row.status == Status.PENDING.value
        if waits or table not in (threads.MESSAGES, runs.RUNS):
            return False
        if table is runs.RUNS and row.status == Status.PENDING.value:
            return False  # Its thread may have been deleted before it was queued.
        key = (row.tenant, row.user, row.thread)
        found = db.execute("SELECT 1 FROM threads WHERE tenant=? AND user=? AND id=?", key)
        return found.fetchone() is None

    def carry_over(self, old: sqlite3.Connection, new: sqlite3.Connection) -> Mapping[str, int]:
        return carry_over.carry_over(old, new)


def _open_run(db: sqlite3.Connection, fact: RunOpened, span: Span) -> None:
    key = fact.key
    thread = ThreadKey(tenant=key.tenant, user=key.user, id=key.thread)
    if fact.queued is None:
        runs.refuse_known(db, key)
    if runs.active(db, thread) is not None:
        raise ThreadBusy("a run is active on this thread")
    waiting = queue.head(db, thread)
    if fact.queued is None and waiting is not None:
        raise ThreadBusy("runs wait for this thread")
    if fact.queued != waiting:
        raise TurnMoved
    queue.leave(db, key)
    interrupts.supersede(db, thread, fact.at)
    threads.begin_run(db, fact, span)
    runs.begin(db, fact)


def _close_run(db: sqlite3.Connection, fact: RunClosed, span: Span) -> None:
    runs.end(db, fact)
    threads.end_run(db, fact, span)
    if fact.status is Status.INTERRUPTED:
        interrupts.put(db, fact)


def _delete_thread(db: sqlite3.Connection, fact: ThreadDeleted) -> None:
    """Delete a thread and its content, also if rows are damaged."""
    if runs.intact_active(db, fact.key) is not None:
        raise Conflict("a run is active on this thread: cancel it first")
    if queue.is_needed(db, fact.key):
        raise Conflict("runs wait for this thread: cancel them first")
    if not threads.THREADS.delete(db, *fact.key.columns):
        raise NotFound("no such thread")
    threads.delete_messages(db, fact.key)
    queue.clear(db, fact.key)
    # The runs last: they identify the interrupts.
    for table, column in (("interrupts", "run"), ("runs", "id")):
        # With a condition on the thread alone, some SQLite versions scan all runs of the person.
        db.execute(
            f"DELETE FROM {table} WHERE tenant=?1 AND user=?2 AND {column} IN ({_RUNS_OF_THREAD})",
            fact.key.columns,
        )
