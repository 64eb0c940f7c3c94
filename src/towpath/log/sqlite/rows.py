"""Rows that carry a checksum of their values: what is read is what was written, or it is an error.

The column `crc` of a table holds the CRC-32 of all other columns of a row, the key among them. So a
row whose bytes changed is found when it is read, and so is a row that stands under another key.
`Table` writes and checks every row of one table. A checksum cannot show that a row is missing:
whoever reads rows that belong together counts them.
"""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from towpath.errors import RowDamaged

Row = TypeVar("Row", bound=tuple[Any, ...])
"""A `NamedTuple` whose fields are the columns of a table."""

_encode = msgspec.msgpack.Encoder().encode


def checksum(values: Sequence[object]) -> int:
    """Return the checksum of a row's values.

    None at the end does not count, so a column that a later version adds, as NULL, changes nothing.
    """
    end = len(values)
    while end and values[end - 1] is None:
        end -= 1
    return zlib.crc32(_encode(values[:end]))


class Table(Generic[Row]):
    """One table whose rows carry a checksum."""

    def __init__(
        self,
        name: str,
        row: type[Row],
        *,
        key: Sequence[str],
        constant: Sequence[str] = (),
        unchecked: bool = False,
    ) -> None:
        """Describe a table.

        Args:
            name: of the table.
            row: a `NamedTuple` class whose fields are the columns but `crc`, in the order in which
                versions of the schema added them.
            key: the columns of its key.
            constant: other columns that no update changes, so that the indexes on them stay.
            unchecked: whether a row without a checksum counts as intact; the versions before
                checksums left such rows.
        """
        self.name = name
        self.row = row
        self._unchecked = unchecked
        self.columns: tuple[str, ...] = row._fields  # type: ignore[attr-defined]
        self.key = tuple(key)
        self.by_key = " AND ".join(f"{column}=?" for column in self.key)
        """The condition that selects one row by its key."""
        listed = ", ".join(self.columns)
        marks = ", ".join("?" * len(self.columns))
        self.select = f"SELECT crc, {listed} FROM {name}"
        """The beginning of a query whose rows `read` takes."""
        self._into = f"INTO {name} (crc, {listed}) VALUES (?, {marks})"
        self._key_at = [self.columns.index(column) for column in self.key]
        fixed = {*self.key, *constant}
        self._rest_at = [at for at, column in enumerate(self.columns) if column not in fixed]
        rest = (self.columns[at] for at in self._rest_at)
        changed = ", ".join(f"{column}=?" for column in ("crc", *rest))
        self._update = f"UPDATE {name} SET {changed} WHERE {self.by_key}"
        self._delete = f"DELETE FROM {name} WHERE {self.by_key}"

    def intact(self, raw: tuple[Any, ...]) -> bool:
        """Whether a row of `select` is what was written."""
        return raw[0] == checksum(raw[1:]) or (raw[0] is None and self._unchecked)

    def read(self, raw: tuple[Any, ...]) -> Row:
        """Return a row of `select`.

        Raises:
            RowDamaged: it is not what was written.
        """
        if not self.intact(raw):
            raise RowDamaged(self.name)
        return self.row(*raw[1:])

    def rows(
        self, db: sqlite3.Connection, condition: str, parameters: Sequence[object] = ()
    ) -> Iterator[Row]:
        """Yield the rows that fulfil a condition.

        Args:
            db: the database.
            condition: what follows the table's name in the query, such as `WHERE id=?`.
            parameters: the values of its question marks.

        Raises:
            RowDamaged: a row is not what was written.
        """
        return map(self.read, db.execute(f"{self.select} {condition}", parameters))

    def intact_rows(
        self, db: sqlite3.Connection, condition: str, parameters: Sequence[object] = ()
    ) -> Iterator[Row]:
        """Yield the rows that fulfil a condition, but for those that are damaged."""
        for raw in db.execute(f"{self.select} {condition}", parameters):
            if self.intact(raw):
                yield self.row(*raw[1:])

    def get(self, db: sqlite3.Connection, *key: object) -> Row | None:
        """Return the row of this key; None if there is none.

        Raises:
            RowDamaged: it is not what was written.
        """
        raw = db.execute(f"{self.select} WHERE {self.by_key}", key).fetchone()
        return None if raw is None else self.read(raw)

    def insert(self, db: sqlite3.Connection, row: Row) -> int:
        """Insert a row; return its rowid, if the table has one.

        Raises:
            sqlite3.IntegrityError: there is a row of its key.
        """
        return db.execute(f"INSERT {self._into}", (checksum(row), *row)).lastrowid or 0

    def replace(self, db: sqlite3.Connection, row: Row) -> None:
        """Insert a row in place of the row of its key, if there is one."""
        db.execute(f"INSERT OR REPLACE {self._into}", (checksum(row), *row))

    def update(self, db: sqlite3.Connection, row: Row) -> None:
        """Write a row that was read from this table, and changed in columns that may change."""
        values = [row[at] for at in (*self._rest_at, *self._key_at)]
        db.execute(self._update, (checksum(row), *values))

    def delete(self, db: sqlite3.Connection, *key: object) -> bool:
        """Delete the row of this key, also a damaged one; return whether there was one."""
        return db.execute(self._delete, key).rowcount > 0
