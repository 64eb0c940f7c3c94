"""Reads all rows of an open log once, beside its use, to find damage before a reader meets it.

A row that is read anyway is checked then. But a row that nobody reads, or one that a damaged index
hides, would stay unnoticed. So after each opening one thread walks through all tables by ranges of
keys. It checks each row, and that the row is found by its key and by each index. Each slice is a
transaction of its own, far below 50 ms, so that the write-ahead log can be reset between two
slices; most of the time the thread sleeps.
"""

import math
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from towpath.channels import Channel
from towpath.log.sqlite.file_schema import CHANNELS, LOG, TABLES, ChannelRow, LogRow, open_read_only
from towpath.log.sqlite.health import ERRORS, LogHealth, health_of
from towpath.log.sqlite.projection import SqliteProjection
from towpath.log.sqlite.rows import Table

SLICE_SECONDS: Final = 0.005
"""How long a slice begins new rows. One row more comes in addition."""
REST: Final = 9.0
"""How many times as long as a slice the thread sleeps after it."""
SLICE_ROWS: Final = 500
"""How many rows a slice reads at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is called, in the thread of the check, with what it finds."""

    row: Callable[[str, tuple[object, ...]], None]
    """A row of another table than the log's is damaged: its table and its key."""
    channel: Callable[[Channel], None]
    """What is stored of a channel may be damaged."""
    file: Callable[[str], None]
    """The file is damaged in more than a row; the reason."""


class _Unreachable(Exception):
    """A row is not found by its key: an index or a page above the row is damaged."""


def check_rows(db: sqlite3.Connection, projection: SqliteProjection, findings: Findings) -> None:
    """Check all rows of a log in the current transaction.

    Raises:
        sqlite3.Error: the log cannot be read, which may be damage too.
    """
    try:
        for table in (*TABLES, *projection.tables):
            walk = _Walk(db, table, projection, findings)
            while walk.slice(math.inf):
                pass
    except _Unreachable as error:
        findings.file(str(error))


class BackgroundCheck:
    """One walk through one log, in a thread of its own."""

    def __init__(
        self,
        path: Path,
        projection: SqliteProjection,
        findings: Findings,
        *,
        rest: float = REST,
    ) -> None:
        """Begin.

        Args:
            path: of the log, which is open.
            projection: has the tables beside those of the log.
            findings: is notified of damage.
            rest: how many times as long as a slice the thread sleeps after it.
        """
        self._projection = projection
        self._findings = findings
        self._rest = rest
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._walk, args=(path,), name="towpath-check", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until all rows were read."""
        self._thread.join()

    def stop(self) -> None:
        """Give up, and wait for the end of the slice."""
        self._stopped.set()
        self._thread.join()

    def _walk(self, path: Path) -> None:
        try:
            with closing(open_read_only(path)) as db:
                for table in (*TABLES, *self._projection.tables):
                    _Walk(db, table, self._projection, self._findings).run(self._pause)
        except _Unreachable as error:
            self._findings.file(str(error))
        except ERRORS as error:
            if health_of(error) is LogHealth.DAMAGED:
                self._findings.file(str(error))

    def _pause(self, worked: float) -> bool:
        """Sleep after a slice; return whether the check was stopped."""
        return self._stopped.wait(worked * self._rest)


@dataclass(frozen=True, slots=True)
class _Index:
    """An index of a table, and how one row is looked up with it."""

    name: str
    columns_at: tuple[int, ...]
    """Where its columns are in a row."""
    by_index: str
    """Finds the row of some columns and a key with the index."""
    is_in: str | None
    """Finds the row of a key if it belongs into a partial index."""

    @classmethod
    def of(cls, db: sqlite3.Connection, table: Table[Any], name: str) -> Self:
        """Describe an index of a table."""
        columns = [row[2] for row in db.execute(f"PRAGMA index_info({name})")]
        sql = db.execute("SELECT sql FROM sqlite_master WHERE name=?", (name,)).fetchone()[0] or ""
        _, _, partial = sql.partition(" WHERE ")
        also = f" AND ({partial})" if partial else ""
        equal = " AND ".join(f"{column} IS ?" for column in columns)
        return cls(
            name,
            tuple(table.columns.index(column) for column in columns),
            f"SELECT 1 FROM {table.name} INDEXED BY {name} WHERE {equal} AND {table.by_key}{also}",
            f"SELECT 1 FROM {table.name} WHERE {table.by_key}{also}" if partial else None,
        )

    def finds(self, db: sqlite3.Connection, row: tuple[Any, ...], key: tuple[object, ...]) -> bool:
        """Whether the index finds a row that belongs into it."""
        if self.is_in is not None and db.execute(self.is_in, key).fetchone() is None:
            return True
        values = (*(row[at] for at in self.columns_at), *key)
        return db.execute(self.by_index, values).fetchone() is not None


def _indexes_of(db: sqlite3.Connection, table: Table[Any]) -> list[str]:
    """Return the indexes of a table, but for the one that is the table itself."""
    rows = db.execute(f"PRAGMA index_list({table.name})").fetchall()
    return [name for _, name, _, origin, _ in rows if origin != "pk"]


class _Walk:
    """The walk through one table."""

    def __init__(
        self,
        db: sqlite3.Connection,
        table: Table[Any],
        projection: SqliteProjection,
        findings: Findings,
    ) -> None:
        self._db = db
        self._table = table
        self._projection = projection
        self._findings = findings
        self._last: tuple[object, ...] | None = None
        """The key of the last row that was read."""
        key = ", ".join(table.key)
        marks = ", ".join("?" * len(table.key))
        end = f"ORDER BY {key} LIMIT {SLICE_ROWS}"
        self._first = f"{table.select} {end}"
        self._next = f"{table.select} WHERE ({key}) > ({marks}) {end}"
        self._by_key = f"SELECT crc FROM {table.name} WHERE {table.by_key}"
        self._key_at = [1 + table.columns.index(column) for column in table.key]
        self._indexes = [_Index.of(db, table, name) for name in _indexes_of(db, table)]

    def run(self, pause: Callable[[float], bool]) -> None:
        """Read all rows, in slices; `pause` gets the seconds of each and may stop the walk."""
        more = True
        while more:
            began = time.monotonic()
            self._db.execute("BEGIN")
            try:
                more = self.slice(began + SLICE_SECONDS)
            finally:
                self._db.execute("COMMIT")
            if pause(time.monotonic() - began):
                return

    def slice(self, until: float) -> bool:
        """Read rows until a time of the monotonic clock; return whether there may be more."""
        query = self._first if self._last is None else self._next
        more = False
        for raw in self._db.execute(query, self._last or ()):
            key = tuple(raw[at] for at in self._key_at)
            self._check(raw, key)
            self._last = key
            more = True
            if time.monotonic() >= until:
                break
        return more

    def _check(self, raw: tuple[Any, ...], key: tuple[object, ...]) -> None:
        found = self._db.execute(self._by_key, key).fetchone()
        if found is None or found[0] != raw[0]:
            raise _Unreachable(f"a row of {self._table.name} is not found by its key")
        intact = self._table.intact(raw)
        for index in self._indexes if intact else ():
            if not index.finds(self._db, raw[1:], key):
                raise _Unreachable(f"a row of {self._table.name} is not found by {index.name}")
        if self._table is CHANNELS:
            self._check_channel(ChannelRow(*raw[1:]), intact)
        elif self._table is LOG:
            self._check_log(LogRow(*raw[1:]), intact)
        elif not intact:
            self._findings.row(self._table.name, key)
        elif self._projection.is_orphan(self._db, self._table, self._table.row(*raw[1:])):
            raise _Unreachable(f"a row of {self._table.name} belongs to a row that is missing")

    def _check_channel(self, row: ChannelRow, intact: bool) -> None:
        """Check that a channel's row is found by its name, and has the publications it counts."""
        named = self._db.execute(
            "SELECT id FROM channels WHERE tenant=? AND name=?", (row.tenant, row.name)
        ).fetchone()
        if named is None or named[0] != row.id:
            raise _Unreachable("a channel is not found by its name")
        first, last = self._db.execute(
            "SELECT (SELECT first FROM log WHERE channel=?1 ORDER BY last LIMIT 1),"
            " (SELECT MAX(last) FROM log WHERE channel=?1)",
            (row.id,),
        ).fetchone()
        counted = (row.top - row.publications + 1, row.top) if row.publications else (None, None)
        if not intact or (first, last) != counted:
            self._findings.channel(Channel(row.tenant, row.name))

    def _check_log(self, row: LogRow, intact: bool) -> None:
        """Check that the next row of the channel, if there is one, begins where this one ends."""
        following = self._db.execute(
            "SELECT first FROM log WHERE channel=? AND last>? ORDER BY last LIMIT 1",
            (row.channel, row.last),
        ).fetchone()
        if intact and (following is None or following[0] == row.last + 1):
            return
        owner = self._db.execute(
            "SELECT tenant, name FROM channels WHERE id=?", (row.channel,)
        ).fetchone()
        if owner is None:
            raise _Unreachable("publications belong to no channel")
        self._findings.channel(Channel(*owner))
