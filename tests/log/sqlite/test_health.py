"""What errors tell of the log's file, and what may be written then."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.log.brokers import TALK, items, text_write
from towpath.errors import LogCorrupted, StorageError
from towpath.log.broker import Append, Write
from towpath.log.sqlite.health import REFUSALS, LogHealth, allows, health_of, refusal


def error_of(db: sqlite3.Connection, statement: str) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as caught:
        db.execute(statement).fetchall()
    return caught.value


def test_real_errors_tell_their_condition(tmp_path: Path) -> None:
    """Full, locked, read-only and damaged files differ, also from errors in our own code."""
    path = tmp_path / "db"
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as db:
        db.execute("CREATE TABLE t (x)")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert health_of(error_of(db, "BEGIN IMMEDIATE")) is LogHealth.LOCKED
        db.execute("PRAGMA query_only = 1")
        assert health_of(error_of(db, "BEGIN IMMEDIATE")) is LogHealth.UNWRITABLE
        db.execute("PRAGMA query_only = 0")
        db.execute("PRAGMA max_page_count = 1")
        full = error_of(db, "INSERT INTO t VALUES (zeroblob(100000))")
        assert health_of(full) is LogHealth.FULL
        assert health_of(error_of(db, "SELECT y FROM t")) is LogHealth.DAMAGED
        assert health_of(error_of(db, "SELECT nothing of t")) is None
    path.write_bytes(b"garbage" * 1000)
    with closing(sqlite3.connect(path)) as db:
        assert health_of(error_of(db, "SELECT * FROM t")) is LogHealth.DAMAGED
    assert health_of(LogCorrupted("a row")) is LogHealth.DAMAGED
    assert health_of(TypeError("a mistake")) is None


def test_a_full_log_takes_endings_and_nothing_else() -> None:
    """While the disk is full, only a write that removes a fence is allowed."""
    ending = Write((Append(TALK, items("end"), unfence=True),))
    beginning = Write((Append(TALK, items("begin"), fence=True),))
    admitted = {
        condition: [allows(condition, write) for write in (text_write("a"), beginning, ending)]
        for condition in LogHealth
    }
    assert admitted == {
        LogHealth.OK: [True, True, True],
        LogHealth.FULL: [False, False, True],
        LogHealth.LOCKED: [False] * 3,
        LogHealth.UNWRITABLE: [False] * 3,
        LogHealth.DAMAGED: [False] * 3,
        LogHealth.FENCED: [False] * 3,
    }


def test_every_condition_says_what_it_is() -> None:
    """A refusal names its condition in a sentence; only damage is final."""
    for condition, sentence in REFUSALS.items():
        error = refusal(condition)
        assert str(error) == sentence
        assert isinstance(error, LogCorrupted) == (condition is LogHealth.DAMAGED)
    assert REFUSALS.keys() == set(LogHealth) - {LogHealth.OK}
    assert type(refusal(LogHealth.OK)) is StorageError
