"""The interrupts of runs as a table of the projection, written in the transactions of runs.

Whether an interrupt is still open is checked here, inside the transaction of the decision, because
any other place has a race.
"""

import sqlite3

import msgspec

from towpath.errors import NotFound
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
from towpath.runs.model import RunClosed, RunKey

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
_INTERRUPT = (
    "SELECT tenant, user, thread, run, agent, asked, answer, payload, expires, decided"
    " FROM interrupts"
)


def put(db: sqlite3.Connection, fact: RunClosed) -> None:
    """Store the interrupts with which a run ended."""
    key = fact.key
    for place, interrupt in enumerate(fact.ended["outcome"]["interrupts"]):
        db.execute(
            "INSERT OR IGNORE INTO interrupts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, NULL,"
            " NULL)",
            (
                *key.run_id_key,
                place,
                interrupt["id"],
                key.thread,
                key.agent,
                msgspec.json.encode(interrupt),
                InterruptStatus.OPEN.value,
                fact.expires,
            ),
        )


def decide(db: sqlite3.Connection, fact: InterruptDecided) -> None:
    """Decide an interrupt.

    Raises:
        NotFound: the run has no such interrupt.
        NotOpen: it was decided, expired or superseded.
        AnswersMoved: the run's other open interrupts are not those that the fact names.
    """
    key = fact.key
    interrupts = of_run(db, *key.run_id_key)
    interrupt = next((one for one in interrupts if one.id == fact.id), None)
    if interrupt is None:
        raise NotFound("no such interrupt")
    if (status := interrupt.now(fact.at)) is not InterruptStatus.OPEN:
        raise NotOpen(LATE[status])
    others = {one.id for one in interrupts if one.is_open} - {fact.id}
    if others != fact.others:
        raise AnswersMoved
    _set(db, interrupt, fact.status, fact.at, fact.payload)


def expire(db: sqlite3.Connection, fact: InterruptsExpired) -> None:
    """Expire the open interrupts of a run.

    Raises:
        NotOpen: none is open.
    """
    key = fact.key
    interrupts = of_run(db, *key.run_id_key)
    open_ones = [one for one in interrupts if one.is_open]
    if not open_ones:
        raise NotOpen("already")
    for one in open_ones:
        _set(db, one, TRANSITIONS[one.status, Transition.EXPIRE], fact.at)


def supersede(db: sqlite3.Connection, key: RunKey, at: float) -> None:
    """Supersede the open interrupts of a thread that continues without them."""
    # Each run that begins does this, so only the run that ended last has open interrupts.
    for one in of_last_run(db, *key.thread_key):
        if not one.is_open:
            continue
        over = one.now(at) is InterruptStatus.EXPIRED
        transition = Transition.EXPIRE if over else Transition.SUPERSEDE
        _set(db, one, TRANSITIONS[one.status, transition], at)


def of_run(db: sqlite3.Connection, tenant: str, user: str, run: str) -> list[Interrupt]:
    """Return the interrupts of a run, in its order."""
    rows = db.execute(
        f"{_INTERRUPT} WHERE tenant=? AND user=? AND run=? ORDER BY place", (tenant, user, run)
    )
    return [_interrupt(row) for row in rows]


def of_last_run(db: sqlite3.Connection, tenant: str, user: str, thread: str) -> list[Interrupt]:
    """Return the interrupts of the run that ended last in a thread, in its order."""
    latest = "SELECT last_started FROM threads WHERE tenant=? AND user=? AND id=?"
    row = db.execute(latest, (tenant, user, thread)).fetchone()
    if row is None or row[0] is None:
        return []
    return of_run(db, tenant, user, msgspec.json.decode(row[0])["runId"])


def expired(db: sqlite3.Connection, at: float) -> list[RunKey]:
    """Return the runs whose open interrupts have expired by a time."""
    rows = db.execute(
        "SELECT tenant, user, thread, run, agent FROM interrupts"
        " WHERE answer='open' AND expires <= ? ORDER BY expires",
        (at,),
    )
    # GROUP BY or DISTINCT would let SQLite walk the whole table in the order of its key.
    return list(dict.fromkeys(_key(*row) for row in rows))


def next_expiry(db: sqlite3.Connection) -> float | None:
    """Return when the next open interrupt expires, in Unix seconds."""
    row = db.execute("SELECT MIN(expires) FROM interrupts WHERE answer='open'").fetchone()
    return float(row[0]) if row[0] is not None else None


def _set(
    db: sqlite3.Connection,
    one: Interrupt,
    status: InterruptStatus,
    at: float,
    payload: object = None,
) -> None:
    db.execute(
        "UPDATE interrupts SET answer=?, payload=?, decided=?"
        " WHERE tenant=? AND user=? AND run=? AND id=?",
        (
            status.value,
            None if payload is None else msgspec.json.encode(payload),
            at,
            *one.key.run_id_key,
            one.id,
        ),
    )


def _interrupt(row: tuple[object, ...]) -> Interrupt:
    tenant, user, thread, run, agent, interrupt, status, payload, expires, decided = row
    assert isinstance(interrupt, bytes), "the column holds JSON"
    assert isinstance(expires, float), "the column holds seconds"
    return Interrupt(
        key=_key(tenant, user, thread, run, agent),
        interrupt=msgspec.json.decode(interrupt),
        status=InterruptStatus(status),
        payload=msgspec.json.decode(payload) if isinstance(payload, bytes) else None,
        expires=expires,
        decided=decided if isinstance(decided, float) else None,
    )


def _key(tenant: object, user: object, thread: object, run: object, agent: object) -> RunKey:
    return RunKey(
        tenant=str(tenant), user=str(user), thread=str(thread), run=str(run), agent=str(agent)
    )
