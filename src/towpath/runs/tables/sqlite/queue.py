"""The queued runs of threads as a table of the projection: first in, first out."""

import sqlite3

from towpath.errors import Conflict, LimitExceeded, NotFound
from towpath.runs.model import Queued, RunKey, RunQueued, RunWithdrawn, Status

MAX_QUEUED = 16
"""How many runs may wait for one thread."""

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


def put(db: sqlite3.Connection, fact: RunQueued) -> None:
    """Queue a run.

    Raises:
        Conflict: a run with this id exists.
        LimitExceeded: too many runs wait for this thread.
    """
    key = fact.key
    refuse_known(db, key)
    thread = key.thread_key
    waiting = db.execute(f"SELECT COUNT(*) FROM queued WHERE {_THREAD}", thread).fetchone()[0]
    if waiting >= MAX_QUEUED:
        raise LimitExceeded("too many runs wait for this thread")
    db.execute(
        "INSERT INTO queued (tenant, user, thread, run, agent, request, withdrawn)"
        " VALUES (?, ?, ?, ?, ?, ?, 0)",
        (*thread, key.run, key.agent, fact.request),
    )
    db.execute(
        "INSERT INTO runs (tenant, user, id, thread, agent, status, started)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*key.run_id_key, key.thread, key.agent, Status.PENDING.value, fact.at),
    )


def refuse_known(db: sqlite3.Connection, key: RunKey) -> None:
    """Validate that the id of a new run is new.

    Raises:
        Conflict: this person has used the id already.
    """
    same = "SELECT 1 FROM runs WHERE tenant=? AND user=? AND id=?"
    if db.execute(same, key.run_id_key).fetchone() is not None:
        raise Conflict("a run of this id is there already")


def withdraw(db: sqlite3.Connection, fact: RunWithdrawn) -> None:
    """Mark a queued run as cancelled; it ends when its turn comes.

    Raises:
        NotFound: the run is not queued.
    """
    key = fact.key
    changed = db.execute(
        f"UPDATE queued SET withdrawn=1 WHERE {_THREAD} AND run=?",
        (*key.thread_key, key.run),
    )
    if changed.rowcount == 0:
        raise NotFound("the run does not wait any more")


def head(db: sqlite3.Connection, tenant: str, user: str, thread: str) -> Queued | None:
    """Return the next queued run of a thread."""
    return next(iter(waiting(db, tenant, user, thread, limit=1)), None)


def waiting(
    db: sqlite3.Connection, tenant: str, user: str, thread: str, *, limit: int = MAX_QUEUED
) -> list[Queued]:
    """Return the queued runs of a thread, in order."""
    rows = db.execute(
        f"SELECT run, agent, request, withdrawn FROM queued WHERE {_THREAD} ORDER BY place LIMIT ?",
        (tenant, user, thread, limit),
    )
    return [
        Queued(
            key=RunKey(tenant=tenant, user=user, thread=thread, run=run, agent=agent),
            request=request,
            withdrawn=bool(withdrawn),
        )
        for run, agent, request, withdrawn in rows
    ]


def leave(db: sqlite3.Connection, key: RunKey) -> None:
    """Remove a run that begins from the queue."""
    db.execute(
        f"DELETE FROM queued WHERE {_THREAD} AND run=?",
        (*key.thread_key, key.run),
    )


def threads(db: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return the threads with queued runs: tenant, user, thread."""
    rows = db.execute("SELECT DISTINCT tenant, user, thread FROM queued").fetchall()
    return [(str(tenant), str(user), str(thread)) for tenant, user, thread in rows]
