"""The queued runs of threads as a table of the projection: first in, first out."""

import sqlite3
from typing import NamedTuple

from towpath.errors import LimitExceeded, NotFound
from towpath.log.sqlite.rows import Table
from towpath.runs.model import MAX_QUEUED, Queued, RunKey, RunQueued, RunWithdrawn, ThreadKey
from towpath.runs.questions import QueuedRuns, ThreadsWithQueue
from towpath.runs.tables.sqlite import runs

SCHEMA = """
CREATE TABLE queued (
    place INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    thread TEXT NOT NULL,
    run TEXT NOT NULL,
    agent TEXT NOT NULL,
    request BLOB NOT NULL,
    withdrawn INTEGER NOT NULL
);
CREATE UNIQUE INDEX queued_thread ON queued (tenant, user, thread, place)
"""
_THREAD = "tenant=? AND user=? AND thread=?"


class QueuedColumns(NamedTuple):
    """One row of `queued`."""

    place: int
    """The order of all queued runs."""
    tenant: str
    user: str
    thread: str
    run: str
    agent: str
    request: bytes
    """See `towpath.runs.requests.QueuedRequest`."""
    withdrawn: int

    @property
    def queued(self) -> Queued:
        """The run as the projection answers it."""
        key = RunKey(
            tenant=self.tenant, user=self.user, thread=self.thread, run=self.run, agent=self.agent
        )
        return Queued(key=key, request=self.request, withdrawn=bool(self.withdrawn))


QUEUED = Table("queued", QueuedColumns, key=("place",))


def put(db: sqlite3.Connection, fact: RunQueued) -> None:
    """Queue a run.

    Raises:
        Conflict: a run with this id exists.
        LimitExceeded: too many runs wait for this thread.
    """
    key = fact.key
    runs.refuse_known(db, key)
    thread = key.thread_key
    count = db.execute(f"SELECT COUNT(*) FROM queued WHERE {_THREAD}", thread).fetchone()[0]
    if count >= MAX_QUEUED:
        raise LimitExceeded("too many runs wait for this thread")
    last = db.execute("SELECT MAX(place) FROM queued").fetchone()[0] or 0
    row = QueuedColumns(last + 1, *thread, key.run, key.agent, fact.request, 0)
    QUEUED.insert(db, row)
    runs.put_pending(db, key, fact.at)


def withdraw(db: sqlite3.Connection, fact: RunWithdrawn) -> None:
    """Mark a queued run as cancelled; it ends when its turn comes.

    Raises:
        NotFound: the run is not queued.
        RowDamaged: its row is damaged.
    """
    key = fact.key
    row = next(QUEUED.rows(db, f"WHERE {_THREAD} AND run=?", (*key.thread_key, key.run)), None)
    if row is None:
        raise NotFound("the run does not wait any more")
    QUEUED.update(db, row._replace(withdrawn=1))


def head(db: sqlite3.Connection, thread: ThreadKey) -> Queued | None:
    """Return the next queued run of a thread.

    Raises:
        RowDamaged: its row is damaged.
    """
    row = next(QUEUED.rows(db, f"WHERE {_THREAD} ORDER BY place LIMIT 1", thread.columns), None)
    return None if row is None else row.queued


def is_needed(db: sqlite3.Connection, thread: ThreadKey) -> bool:
    """Whether a run waits for a thread, not counting damaged rows.

    A damaged row keeps the thread from beginning a run, so a cancelled run beside it never ends,
    and does not count either.
    """
    intact = list(QUEUED.intact_rows(db, f"WHERE {_THREAD}", thread.columns))
    count = db.execute(f"SELECT COUNT(*) FROM queued WHERE {_THREAD}", thread.columns).fetchone()[0]
    return any(count == len(intact) or not row.withdrawn for row in intact)


def waiting(db: sqlite3.Connection, question: QueuedRuns) -> list[Queued]:
    """Answer a question; see there."""
    thread = (question.tenant, question.user, question.thread)
    return [row.queued for row in QUEUED.rows(db, f"WHERE {_THREAD} ORDER BY place", thread)]


def leave(db: sqlite3.Connection, key: RunKey) -> None:
    """Remove a run that begins from the queue."""
    db.execute(f"DELETE FROM queued WHERE {_THREAD} AND run=?", (*key.thread_key, key.run))


def clear(db: sqlite3.Connection, thread: ThreadKey) -> None:
    """Delete the rows of a thread, also damaged ones."""
    db.execute(f"DELETE FROM queued WHERE {_THREAD}", thread.columns)


def threads(db: sqlite3.Connection, _: ThreadsWithQueue) -> list[tuple[str, str, str]]:
    """Answer a question; see there."""
    rows = QUEUED.intact_rows(db, "ORDER BY place")
    return list(dict.fromkeys((row.tenant, row.user, row.thread) for row in rows))
