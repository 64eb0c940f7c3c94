"""Checksums of rows: kept by triggers, checked by views."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from towpath.log.sqlite.health import LogHealth, health_of
from towpath.log.sqlite.integrity import checksums

MAKE = "CREATE TABLE notes (id TEXT PRIMARY KEY, size REAL, body BLOB, crc INTEGER) WITHOUT ROWID"


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that seals what it writes."""
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        db.execute(MAKE)
        checksums.guard(db)
        db.execute("INSERT INTO notes VALUES ('a', 1, x'00ff', NULL), ('b', 2.5, NULL, NULL)")
        yield db


@pytest.fixture
def reader(tmp_path: Path, writer: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A connection that sees what is intact only."""
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        checksums.hide(db)
        yield db


def test_what_is_written_is_sealed_and_read(
    writer: sqlite3.Connection, reader: sqlite3.Connection
) -> None:
    """Inserted, replaced and updated rows come back as they are, also by a condition on a value."""
    writer.execute("UPDATE notes SET size=7 WHERE id='a'")
    writer.execute("INSERT OR REPLACE INTO notes (id, size) VALUES ('b', 3)")
    assert reader.execute("SELECT * FROM notes").fetchall() == [
        ("a", 7.0, b"\0\xff"),
        ("b", 3, None),
    ]
    assert reader.execute("SELECT id FROM notes WHERE size=7 AND body IS NOT NULL").fetchall()
    writer.execute("DELETE FROM notes WHERE id='a'")
    assert reader.execute("SELECT COUNT(*) FROM notes").fetchone() == (1,)
    checksums.check(writer)


def test_a_changed_value_is_an_error_and_never_sealed(
    tmp_path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection
) -> None:
    """Whoever reads the row, updates it or looks at all rows learns that it is damaged."""
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as stranger:
        stranger.execute("UPDATE notes SET body=x'00fe' WHERE id='a'")
    ways = (
        (reader, "SELECT id FROM notes WHERE id='a'"),
        (writer, "SELECT id FROM checked_notes WHERE id='a'"),
        (writer, "UPDATE notes SET size=1 WHERE id='a'"),
    )
    for db, statement in ways:
        with pytest.raises(sqlite3.Error) as caught:
            db.execute(statement).fetchall()
        assert health_of(caught.value) is LogHealth.DAMAGED
    with pytest.raises(sqlite3.Error):
        checksums.check(reader)
    assert reader.execute("SELECT id FROM notes WHERE id='b'").fetchall() == [("b",)]


def test_a_new_column_leaves_seals_as_they_are(writer: sqlite3.Connection, tmp_path: Path) -> None:
    """An empty column more is not another row; one that is filled is."""
    writer.execute("ALTER TABLE notes ADD COLUMN more TEXT")
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as reader:
        checksums.hide(reader)
        assert len(reader.execute("SELECT * FROM notes").fetchall()) == 2
        writer.execute("UPDATE notes SET more='x' WHERE id='b'")
        with pytest.raises(sqlite3.Error):
            reader.execute("SELECT * FROM notes").fetchall()
    checksums.renew(writer)
    checksums.check(writer)


def test_rows_without_a_seal_are_old_in_the_log_only() -> None:
    """Where a table was sealed as a whole, a missing seal is damage."""
    assert checksums.intact("log", None, 1, b"x")
    assert not checksums.intact("threads", None, 1, b"x")
    assert checksums.intact("threads", checksums.seal(1, b"x"), 1, b"x")
    assert not checksums.intact("threads", checksums.seal(1, b"x"), 1, b"y")
