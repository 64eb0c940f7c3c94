"""The leases of runs as a table of the projection, written in the transactions of runs.

A run has a row from its first event to its terminal event. A run that waits, for its turn or for a
person, has no row, so it never counts as abandoned.
"""

import sqlite3

from towpath.runs.model import LeaseHeld, LeasesInherited, LeasesRenewed, RunKey

SCHEMA = """
CREATE TABLE leases (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    run TEXT NOT NULL,
    holder TEXT NOT NULL,
    expires REAL NOT NULL,
    crc INTEGER,
    PRIMARY KEY (tenant, user, run)
) WITHOUT ROWID;
CREATE INDEX leases_expires ON leases (expires);
INSERT INTO leases (tenant, user, run, holder, expires) SELECT tenant, user, id, '', 0.0 FROM runs
    WHERE ended IS NULL AND status!='pending'
"""
"""Runs that were in progress before leases existed have no holder."""
_RUN = "tenant=? AND user=? AND run=?"


def grant(db: sqlite3.Connection, key: RunKey, holder: str, expires: float) -> None:
    """Grant the lease of a run to the process that begins it."""
    db.execute(
        "INSERT OR REPLACE INTO leases (tenant, user, run, holder, expires) VALUES (?, ?, ?, ?, ?)",
        (*key.run_id_key, holder, expires),
    )


def renew(db: sqlite3.Connection, fact: LeasesRenewed) -> None:
    """Renew the leases that the holder still holds."""
    db.executemany(
        f"UPDATE leases SET expires=? WHERE {_RUN} AND holder=?",
        [(fact.expires, *key.run_id_key, fact.holder) for key in fact.keys],
    )


def inherit(db: sqlite3.Connection, fact: LeasesInherited) -> None:
    """Give every lease to one holder."""
    db.execute("UPDATE leases SET holder=?, expires=?", (fact.holder, fact.expires))


def release(db: sqlite3.Connection, key: RunKey, holder: str, at: float) -> None:
    """Delete the lease of a run that ends.

    Raises:
        LeaseHeld: another holder has it.
    """
    run = key.run_id_key
    row = db.execute(f"SELECT holder, expires FROM leases WHERE {_RUN}", run).fetchone()
    if row is None or (row[0] != holder and row[1] > at):
        raise LeaseHeld("the lease of the run has ended, or another process holds it")
    db.execute(f"DELETE FROM leases WHERE {_RUN}", run)
