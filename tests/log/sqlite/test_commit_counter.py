"""The counter of commits outside of the database."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from towpath.log.sqlite import file_schema
from towpath.log.sqlite.commit_counter import (
    CommitCounter,
    Counted,
    commits_in_file,
    counter_of,
    read_counter,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towpath.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    """A database in WAL mode with the one row that counts, and room for large rows."""
    with closing(file_schema.connect(path, "NORMAL")) as db:
        db.execute("CREATE TABLE opening (commits INTEGER NOT NULL)")
        db.execute("CREATE TABLE large (data BLOB)")
        db.execute("INSERT INTO opening VALUES (0)")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        yield db


def commit(db: sqlite3.Connection, counter: CommitCounter, number: int, size: int = 1) -> None:
    db.execute("BEGIN")
    db.execute("INSERT INTO large VALUES (zeroblob(?))", (size,))
    db.execute("UPDATE opening SET commits=?", (number,))
    db.execute("COMMIT")
    counter.committed(db, number)


def test_the_counter_follows_the_commits(path: Path, db: sqlite3.Connection) -> None:
    """After each commit the file holds its counter, and only the owner can read the file."""
    with closing(CommitCounter(path, Counted(7, 3))) as counter:
        assert read_counter(path) == Counted(7, 3)
        commit(db, counter, 8)
        assert read_counter(path) == Counted(8, 3)
    assert counter_of(path).stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_is_noticed_once(path: Path, db: sqlite3.Connection) -> None:
    """After any checkpoint the file holds the counter of the database without its WAL."""
    asked: list[str] = []
    with closing(CommitCounter(path, Counted(0, 0))) as counter:
        commit(db, counter, 1)
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert commits_in_file(path) == 1
        db.set_trace_callback(asked.append)
        for number in range(2, 30):
            commit(db, counter, number)
        assert len([one for one in asked if "wal_checkpoint" in one]) == 1
        assert read_counter(path) == Counted(29, 2)
        assert commits_in_file(path) == 2


def test_a_checkpoint_of_a_commit_is_noticed(path: Path, db: sqlite3.Connection) -> None:
    """SQLite copies a write-ahead log of 1,000 pages into the database within a commit."""
    with closing(CommitCounter(path, Counted(0, 0))) as counter:
        commit(db, counter, 1, size=1000 * 4096)
        assert read_counter(path) == Counted(1, 1)
        assert commits_in_file(path) == 1


def test_a_reader_that_holds_a_checkpoint_back_is_respected(
    path: Path, db: sqlite3.Connection
) -> None:
    """A commit that no checkpoint has copied does not count as in the database."""
    with (
        closing(CommitCounter(path, Counted(0, 0))) as counter,
        closing(file_schema.open_read_only(path)) as reader,
    ):
        commit(db, counter, 1)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM opening").fetchone()
        commit(db, counter, 2, size=1000 * 4096)
        assert commits_in_file(path) in (0, 1)
        assert read_counter(path) == Counted(2, 0)


@pytest.mark.parametrize("content", [None, b"", b"seven", bytes(17)])
def test_a_file_of_another_size_says_nothing(path: Path, content: bytes | None) -> None:
    """A counter file that is cut or missing gives None."""
    if content is not None:
        counter_of(path).write_bytes(content)
    assert read_counter(path) is None


def test_a_database_that_says_nothing_has_no_counter(path: Path) -> None:
    """A missing database, another database, and a file that is not a database give None."""
    assert commits_in_file(path) is None
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (x)")
    assert commits_in_file(path) is None
    path.write_bytes(b"garbage" * 1000)
    assert commits_in_file(path) is None
