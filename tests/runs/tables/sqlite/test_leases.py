"""The table of leases: who may let go of a run, and who may not."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from towpath.runs.model import LeaseHeld, LeasesInherited, LeasesRenewed, RunKey
from towpath.runs.tables.sqlite import leases

KEY = RunKey(tenant="acme", user="alice", thread="t1", run="r1", agent="agent")


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    """The table beside the runs it was made from: one that goes on, one that waits, one over."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE runs (tenant, user, id, ended, status)")
        old = [
            ("acme", "bob", "going", None, "running"),
            ("acme", "bob", "waits", None, "pending"),
            ("acme", "bob", "over", 9.0, "finished"),
        ]
        connection.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", old)
        for statement in leases.SCHEMA.split(";"):
            connection.execute(statement)
        yield connection


def held(db: sqlite3.Connection) -> list[tuple[str, str, float]]:
    """Return the whole table: run, holder, expiry."""
    return db.execute("SELECT run, holder, expires FROM leases ORDER BY run").fetchall()


def test_what_was_going_on_before_there_were_leases_is_held_by_nobody(
    db: sqlite3.Connection,
) -> None:
    """It may be ended at once, by anybody."""
    assert held(db) == [("going", "", 0.0)]
    leases.release(
        db, RunKey(tenant="acme", user="bob", thread="t", run="going", agent="a"), "x", 1
    )
    assert held(db) == []


def test_only_its_holder_lets_go_of_a_run_that_is_held(db: sqlite3.Connection) -> None:
    """Others may when the lease is over, and nobody a second time."""
    leases.grant(db, KEY, "holder", 10.0)
    with pytest.raises(LeaseHeld):
        leases.release(db, KEY, "another", 9.9)
    leases.release(db, KEY, "another", 10.0)
    with pytest.raises(LeaseHeld):
        leases.release(db, KEY, "holder", 9.0)
    leases.grant(db, KEY, "holder", 10.0)
    leases.release(db, KEY, "holder", 99.0)
    with pytest.raises(LeaseHeld):
        leases.release(db, KEY, "holder", 9.0)


def test_a_holder_renews_what_it_holds_and_nothing_else(db: sqlite3.Connection) -> None:
    """A renewal of somebody else's run, or of one that is over, changes nothing."""
    leases.grant(db, KEY, "holder", 10.0)
    going = RunKey(tenant="acme", user="bob", thread="t", run="going", agent="a")
    gone = RunKey(tenant="acme", user="bob", thread="t", run="over", agent="a")
    leases.renew(db, LeasesRenewed(holder="another", keys=(KEY,), expires=99.0))
    leases.renew(db, LeasesRenewed(holder="holder", keys=(KEY, going, gone), expires=20.0))
    assert held(db) == [("going", "", 0.0), ("r1", "holder", 20.0)]


def test_an_heir_holds_everything(db: sqlite3.Connection) -> None:
    """Whoever opens the log alone holds what was held, until it says otherwise."""
    leases.grant(db, KEY, "holder", 10.0)
    leases.inherit(db, LeasesInherited(holder="heir", expires=30.0))
    assert held(db) == [("going", "heir", 30.0), ("r1", "heir", 30.0)]
    with pytest.raises(LeaseHeld):
        leases.release(db, KEY, "holder", 29.0)
