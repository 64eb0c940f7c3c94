"""Checks a whole database: its pages, its rows, and that no publications are missing."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from towpath.log.sqlite import file_schema
from towpath.log.sqlite.file_schema import open_read_only
from towpath.log.sqlite.health import ERRORS, LogHealth, health_of
from towpath.log.sqlite.integrity import background_check
from towpath.log.sqlite.projection import SqliteProjection


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a database; None where nothing is."""

    pages: str | None
    """What SQLite's check of the whole file found."""
    rows: str | None
    """The first row or channel that is not what was written."""

    @property
    def damage(self) -> str | None:
        """What is wrong, in one clause; None for a sound database."""
        return self.pages or self.rows


def inspect(path: Path, projection: SqliteProjection) -> Findings:
    """Check a whole database, which a server may use meanwhile.

    The check sees one state of the database. It delays no write, but the write-ahead log cannot be
    reset before the check ends. The rows of an older schema are not checked.

    Raises:
        sqlite3.Error: the database cannot be read, for another reason than damage.
    """
    try:
        with closing(open_snapshot(path)) as db:
            pages = _damage(_check_pages, db)
            rows = _damage(lambda db: _check_rows(db, projection), db)
            return Findings(pages=pages, rows=rows)
    except sqlite3.DatabaseError as error:
        if health_of(error) is not LogHealth.DAMAGED:
            raise
        return Findings(pages=str(error), rows="not checked")


def _check_pages(db: sqlite3.Connection) -> str | None:
    found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
    return None if found == "ok" else found.splitlines()[-1]


def _check_rows(db: sqlite3.Connection, projection: SqliteProjection) -> str | None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != file_schema.SCHEMA_VERSION:
        return None
    found: list[str] = []
    findings = background_check.Findings(
        row=lambda table, key: found.append(f"a row of {table}: {'/'.join(map(str, key))}"),
        channel=lambda channel: found.append(f"the channel {channel.name} of {channel.tenant}"),
        file=found.append,
    )
    background_check.check_rows(db, projection, findings)
    return found[0] if found else None


def _damage(
    check: Callable[[sqlite3.Connection], str | None], db: sqlite3.Connection
) -> str | None:
    """Return what a check found, or the error that ended it.

    Raises:
        sqlite3.Error: the database cannot be read, for another reason than damage.
    """
    try:
        return check(db)
    except ERRORS as error:
        if health_of(error) not in (LogHealth.DAMAGED, None):
            raise
        return str(error)


def open_snapshot(path: Path) -> sqlite3.Connection:
    """Open a database to read one state of it.

    Raises:
        sqlite3.Error: the database cannot be opened.
    """
    db = open_read_only(path)
    try:
        db.execute("BEGIN")
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
    except BaseException:
        db.close()
        raise
    return db
