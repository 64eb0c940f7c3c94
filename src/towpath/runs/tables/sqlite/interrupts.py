"""The interrupts of runs as a table of the projection, written in the transactions of runs.

Whether an interrupt is still open is checked here, inside the transaction of the decision, because
any other place has a race.
"""

import sqlite3
from typing import NamedTuple

import msgspec

from towpath.errors import NotFound
from towpath.log.sqlite.rows import Table
from towpath.runs.interrupts import (
    LATE,
    TRANSITIONS,
    AnswersMoved,
    Interrupt,
    InterruptDecided,
    InterruptsExpired,
    InterruptStatus,
    NotOpen,
    Transition,
)
from towpath.runs.model import RunClosed, RunKey, ThreadKey
from towpath.runs.questions import (
    ExpiredInterrupts,
    InterruptsOfLastRun,
    InterruptsOfRun,
    NextExpiry,
)
from towpath.runs.tables.sqlite.threads import THREADS

SCHEMA = """
CREATE TABLE interrupts (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    run TEXT NOT NULL,
    place INTEGER NOT NULL,
    id TEXT NOT NULL,
    thread TEXT NOT NULL,
    agent TEXT NOT NULL,
    asked BLOB NOT NULL,
    answer TEXT NOT NULL,
    payload BLOB,
    expires REAL NOT NULL,
    decided REAL,
    PRIMARY KEY (tenant, user, run, id)
) WITHOUT ROWID;
CREATE INDEX interrupts_thread ON interrupts (tenant, user, thread);
CREATE INDEX interrupts_open ON interrupts (expires) WHERE answer = 'open'
"""
_OF_RUN = "WHERE tenant=? AND user=? AND run=? ORDER BY place"


class InterruptColumns(NamedTuple):
    """One row of `interrupts`."""

    tenant: str
    user: str
    run: str
    place: int
    """Its place among the interrupts of the run."""
    id: str
    thread: str
    agent: str
    asked: bytes
    """AG-UI's Interrupt as JSON."""
    answer: str
    """The status."""
    payload: bytes | None
    """JSON."""
    expires: float
    decided: float | None

    @property
    def key(self) -> RunKey:
        """The key of the run."""
        return RunKey(
            tenant=self.tenant, user=self.user, thread=self.thread, run=self.run, agent=self.agent
        )

    @property
    def interrupt(self) -> Interrupt:
        """The interrupt as the projection answers it."""
        return Interrupt(
            key=self.key,
            interrupt=msgspec.json.decode(self.asked),
            status=InterruptStatus(self.answer),
            payload=None if self.payload is None else msgspec.json.decode(self.payload),
            expires=self.expires,
            decided=self.decided,
        )


INTERRUPTS = Table("interrupts", InterruptColumns, key=("tenant", "user", "run", "id"))


def put(db: sqlite3.Connection, fact: RunClosed) -> None:
    """Store the interrupts with which a run ended; of two with one id, the first one."""
    key, known = fact.key, set()
    for place, interrupt in enumerate(fact.ended["outcome"]["interrupts"]):
        if interrupt["id"] in known:
            continue
        known.add(interrupt["id"])
        row = InterruptColumns(
            *key.run_id_key,
            place,
            interrupt["id"],
            key.thread,
            key.agent,
            msgspec.json.encode(interrupt),
            InterruptStatus.OPEN.value,
            None,
            fact.expires,
            None,
        )
        INTERRUPTS.replace(db, row)


def decide(db: sqlite3.Connection, fact: InterruptDecided) -> None:
    """Decide an interrupt.

    Raises:
        NotFound: the run has no such interrupt.
        NotOpen: it was decided, expired or superseded.
        AnswersMoved: the run's other open interrupts are not those that the fact names.
    """
    rows = list(INTERRUPTS.rows(db, _OF_RUN, fact.key.run_id_key))
    row = next((one for one in rows if one.id == fact.id), None)
    if row is None:
        raise NotFound("no such interrupt")
    if (status := row.interrupt.now(fact.at)) is not InterruptStatus.OPEN:
        raise NotOpen(LATE[status])
    others = {one.id for one in rows if _is_open(one)} - {fact.id}
    if others != fact.others:
        raise AnswersMoved
    _set(db, row, fact.status, fact.at, fact.payload)


def expire(db: sqlite3.Connection, fact: InterruptsExpired) -> None:
    """Expire the open interrupts of a run; damaged rows are left as they are.

    Raises:
        NotOpen: none is open.
    """
    rows = INTERRUPTS.intact_rows(db, _OF_RUN, fact.key.run_id_key)
    open_ones = [one for one in rows if _is_open(one)]
    if not open_ones:
        raise NotOpen("already")
    for one in open_ones:
        _set(db, one, TRANSITIONS[InterruptStatus.OPEN, Transition.EXPIRE], fact.at)


def supersede(db: sqlite3.Connection, thread: ThreadKey, at: float) -> None:
    """Supersede the open interrupts of a thread that continues without them.

    Damaged rows are left as they are, so that the thread can continue.

    Raises:
        RowDamaged: the row of the thread is damaged.
    """
    # Each run that begins does this, so only the run that ended last has open interrupts.
    run = _last_run(db, thread)
    if run is None:
        return
    rows = INTERRUPTS.intact_rows(db, _OF_RUN, (thread.tenant, thread.user, run))
    for one in [row for row in rows if _is_open(row)]:
        over = one.interrupt.now(at) is InterruptStatus.EXPIRED
        transition = Transition.EXPIRE if over else Transition.SUPERSEDE
        _set(db, one, TRANSITIONS[InterruptStatus.OPEN, transition], at)


def of_run(db: sqlite3.Connection, question: InterruptsOfRun) -> list[Interrupt]:
    """Answer a question; see there."""
    run = (question.tenant, question.user, question.run)
    return [row.interrupt for row in INTERRUPTS.rows(db, _OF_RUN, run)]


def of_last_run(db: sqlite3.Connection, question: InterruptsOfLastRun) -> list[Interrupt]:
    """Answer a question; see there."""
    tenant, user = question.tenant, question.user
    run = _last_run(db, ThreadKey(tenant=tenant, user=user, id=question.thread))
    return [] if run is None else of_run(db, InterruptsOfRun(tenant, user, run))


def expired(db: sqlite3.Connection, question: ExpiredInterrupts) -> list[RunKey]:
    """Answer a question; see there."""
    rows = INTERRUPTS.intact_rows(
        db, "WHERE answer='open' AND expires <= ? ORDER BY expires", (question.at,)
    )
    # GROUP BY or DISTINCT would let SQLite walk the whole table in the order of its key.
    return list(dict.fromkeys(row.key for row in rows))


def next_expiry(db: sqlite3.Connection, _: NextExpiry) -> float | None:
    """Answer a question; see there."""
    rows = INTERRUPTS.intact_rows(db, "WHERE answer='open' ORDER BY expires")
    return next((row.expires for row in rows), None)


def _last_run(db: sqlite3.Connection, thread: ThreadKey) -> str | None:
    """Return the id of the run that ended last in a thread."""
    row = THREADS.get(db, *thread.columns)
    if row is None or row.last_started is None:
        return None
    return str(msgspec.json.decode(row.last_started)["runId"])


def _is_open(row: InterruptColumns) -> bool:
    return row.answer == InterruptStatus.OPEN.value


def _set(
    db: sqlite3.Connection,
    row: InterruptColumns,
    status: InterruptStatus,
    at: float,
    payload: object = None,
) -> None:
    encoded = None if payload is None else msgspec.json.encode(payload)
    INTERRUPTS.update(db, row._replace(answer=status.value, payload=encoded, decided=at))
