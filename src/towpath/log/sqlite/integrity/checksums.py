"""Checksums of rows: a value that is not the one that was written is never handed out.

A table with a column `crc` is sealed: the column holds the CRC-32 of the row's other values. Who
writes need not know: triggers of the writing connection seal what is inserted and updated, and
refuse to update a row that is broken, which would seal the damage. Who reads need not know either:
on a reading connection each sealed table is hidden behind a view of its name that checks every row
it gives. The views and triggers are the connection's own; the file holds none.

What a checksum cannot tell is that a row is missing; whoever reads several counts them.
"""

import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from towpath.errors import LogCorrupted

CHECKED = "checked_"
"""How the views are called on a connection that writes."""
_SINCE = frozenset({"log"})
"""Tables that may hold rows from before they were sealed, whose `crc` is NULL."""

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed table."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    """All but the seal."""

    @property
    def check(self) -> str:
        """The call that checks a row."""
        return f"row_check('{self.name}', crc, {', '.join(self.columns)})"

    def of(self, row: str) -> str:
        """Return the columns of a trigger's row, `OLD` or `NEW`."""
        return ", ".join(f"{row}.{column}" for column in self.columns)


def seal(*values: object) -> int:
    """Return the checksum of a row's values; empty columns at its end, added since, count not."""
    end = len(values)
    while end and values[end - 1] is None:
        end -= 1
    return zlib.crc32(_encode(values[:end]))


def intact(table: str, crc: object, *values: object) -> bool:
    """Whether a row is what was written."""
    return crc == seal(*values) or (crc is None and table in _SINCE)


def sealed_tables(db: sqlite3.Connection) -> Iterator[Sealed]:
    """Yield the sealed tables of a database."""
    names = db.execute("SELECT name FROM main.sqlite_master WHERE type='table'").fetchall()
    for (name,) in names:
        columns = db.execute(f"PRAGMA main.table_info({name})").fetchall()
        if any(column[1] == "crc" for column in columns):
            keys = sorted((column[5], column[1]) for column in columns if column[5])
            yield Sealed(
                name,
                tuple(column for _, column in keys),
                tuple(column[1] for column in columns if column[1] != "crc"),
            )


def hide(db: sqlite3.Connection) -> None:
    """Let a connection that reads see what is intact only; anything else is an error."""
    _know(db)
    _views(db, "")
    _views(db, CHECKED)


def guard(db: sqlite3.Connection) -> None:
    """Let a connection that writes seal what it writes, and see `checked_` tables."""
    _know(db)
    _views(db, CHECKED)
    for table in sealed_tables(db):
        if not table.key:
            continue  # The log: its rows are never updated, and sealed by whoever inserts them.
        here = " AND ".join(f"{column}=NEW.{column}" for column in table.key)
        of = ", ".join(table.columns)
        name, put = table.name, f"SET crc=row_seal({table.of('NEW')}) WHERE {here}"
        for number, what in enumerate(("INSERT", f"UPDATE OF {of}")):
            db.execute(
                f"CREATE TEMP TRIGGER IF NOT EXISTS seal_{name}_{number} AFTER {what} ON"
                f" main.{name} BEGIN UPDATE {name} {put}; END"
            )
        db.execute(
            f"CREATE TEMP TRIGGER IF NOT EXISTS check_{name} BEFORE UPDATE OF {of} ON"
            f" main.{name} BEGIN SELECT row_check('{name}', OLD.crc, {table.of('OLD')}); END"
        )


def renew(db: sqlite3.Connection) -> None:
    """Seal every row anew, but for the log's: after the tables got other columns."""
    _know(db)
    for table in sealed_tables(db):
        if table.name not in _SINCE:
            db.execute(f"UPDATE {table.name} SET crc=row_seal({', '.join(table.columns)})")


def check(db: sqlite3.Connection, only: str | None = None) -> None:
    """Look at every row, or at those of one table.

    Raises:
        sqlite3.Error: one of them is not what was written.
    """
    _know(db)
    for table in sealed_tables(db):
        if only in (None, table.name):
            db.execute(f"SELECT COUNT({table.check}) FROM main.{table.name}").fetchone()


def schema_of(db: sqlite3.Connection) -> dict[str, int]:
    """Return the checksum of what defines each table and index: its names are data too."""
    rows = db.execute("SELECT name, sql FROM main.sqlite_master WHERE sql IS NOT NULL")
    return {name: seal(sql) for name, sql in rows}


def _know(db: sqlite3.Connection) -> None:
    db.create_function("row_seal", -1, seal, deterministic=True)
    db.create_function("row_check", -1, _check, deterministic=True)


def _check(table: str, crc: object, *values: object) -> int:
    """Return 1 for a row that is intact; what is raised here, SQLite reports as an error."""
    if not intact(table, crc, *values):
        raise LogCorrupted(f"a row of {table}")
    return 1


def _views(db: sqlite3.Connection, prefix: str) -> None:
    # As a subquery the check comes after all other conditions. Before them it could see a value
    # that a condition asks for in place of the row's own: SQLite takes the two for one.
    for table in sealed_tables(db):
        db.execute(
            f"CREATE TEMP VIEW IF NOT EXISTS {prefix}{table.name} AS SELECT"
            f" {', '.join(table.columns)} FROM main.{table.name} WHERE (SELECT {table.check})"
        )
