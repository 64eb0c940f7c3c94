"""The runs of threads as a table of the projection.

A thread has at most one active run: one that has begun and has no terminal event yet.
"""

import sqlite3
from itertools import islice
from typing import NamedTuple

from towpath.errors import Conflict, RowDamaged
from towpath.log.sqlite.rows import Table
from towpath.runs.model import (
    AlreadyEnded,
    RunClosed,
    RunKey,
    RunOpened,
    RunRecord,
    Status,
    ThreadKey,
)
from towpath.runs.questions import RunById, RunsOfThread, UnfinishedRuns

SCHEMA = """
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
_BEGUN = "ended IS NULL AND status!='pending'"
"""Word for word the condition of the index `runs_active`."""
_OF_THREAD = "WHERE tenant=? AND user=? AND thread=?"


class RunColumns(NamedTuple):
    """One row of `runs`."""

    tenant: str
    user: str
    id: str
    thread: str
    agent: str
    status: str
    code: str | None
    started: float
    ended: float | None

    @property
    def record(self) -> RunRecord:
        """The run as the projection answers it."""
        return RunRecord(
            key=RunKey(
                tenant=self.tenant,
                user=self.user,
                thread=self.thread,
                run=self.id,
                agent=self.agent,
            ),
            status=Status(self.status),
            code=self.code,
            started_at=self.started,
            ended_at=self.ended,
        )


RUNS = Table("runs", RunColumns, key=("tenant", "user", "id"), constant=("thread", "agent"))


def refuse_known(db: sqlite3.Connection, key: RunKey) -> None:
    """Validate that the id of a new run is new.

    Raises:
        Conflict: this person has used the id already.
    """
    if RUNS.get(db, *key.run_id_key) is not None:
        raise Conflict("a run of this id is there already")


def put_pending(db: sqlite3.Connection, key: RunKey, at: float) -> None:
    """Insert a run that waits for its thread."""
    RUNS.insert(db, _new(key, Status.PENDING, at))


def begin(db: sqlite3.Connection, fact: RunOpened) -> None:
    """Write that a run has begun, which may have waited before."""
    waited = RUNS.get(db, *fact.key.run_id_key)
    if waited is None:
        RUNS.insert(db, _new(fact.key, Status.RUNNING, fact.at))
    else:
        RUNS.update(db, waited._replace(status=Status.RUNNING.value, started=fact.at))


def end(db: sqlite3.Connection, fact: RunClosed) -> None:
    """Write that a run has ended.

    The ending of a run must not fail. All values of a damaged row are known again, except for the
    time of the start; the time of the end takes its place.

    Raises:
        AlreadyEnded: the run has ended, or does not exist.
    """
    try:
        row = RUNS.get(db, *fact.key.run_id_key)
    except RowDamaged:
        row = _new(fact.key, fact.status, fact.at)
    if row is None or row.ended is not None:
        raise AlreadyEnded("the run has ended already")
    RUNS.replace(db, row._replace(status=fact.status.value, code=fact.code, ended=fact.at))


def active(db: sqlite3.Connection, thread: ThreadKey) -> str | None:
    """Return the id of the run that is active in a thread.

    Raises:
        RowDamaged: its row is damaged.
    """
    found = next(RUNS.rows(db, f"{_OF_THREAD} AND {_BEGUN}", thread.columns), None)
    return None if found is None else found.id


def intact_active(db: sqlite3.Connection, thread: ThreadKey) -> str | None:
    """Return the id of the run that is active in a thread, unless its row is damaged."""
    found = next(RUNS.intact_rows(db, f"{_OF_THREAD} AND {_BEGUN}", thread.columns), None)
    return None if found is None else found.id


def find(db: sqlite3.Connection, question: RunById) -> RunRecord | None:
    """Answer a question; see there."""
    row = RUNS.get(db, question.tenant, question.user, question.run)
    return None if row is None else row.record


def of_thread(db: sqlite3.Connection, question: RunsOfThread) -> list[RunRecord]:
    """Answer a question; see there."""
    thread = (question.tenant, question.user, question.thread)
    rows = RUNS.intact_rows(db, f"{_OF_THREAD} ORDER BY started DESC", thread)
    return [row.record for row in islice(rows, question.limit)]


def unfinished(db: sqlite3.Connection, _: UnfinishedRuns) -> list[RunRecord]:
    """Answer a question; see there."""
    return [row.record for row in RUNS.intact_rows(db, f"WHERE {_BEGUN}")]


def _new(key: RunKey, status: Status, at: float) -> RunColumns:
    return RunColumns(*key.run_id_key, key.thread, key.agent, status.value, None, at, None)
