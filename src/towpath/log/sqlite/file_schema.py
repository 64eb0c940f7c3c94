"""The file of a log: its tables, their rows, the versions of its schema, the notes on the file."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from towpath.errors import ConfigurationError, RowDamaged
from towpath.log.sqlite.projection import SqliteProjection
from towpath.log.sqlite.rows import Table

DATABASE_NAME = "towpath.db"
"""The name of the database in a data directory."""
SCHEMA_VERSION = 8
"""The schema version that this code writes, as `PRAGMA user_version` of the file."""
SAME_ROWS_SINCE = 7
"""The first version whose rows no later version changed, so their checksums stay valid."""
BUSY_MS = 3_000
"""How long a write waits for another connection's lock, in milliseconds: clients wait for 5 s."""
WAL_BYTES = 8 * 1024 * 1024
"""The size of the write-ahead log, in bytes, from which a sweep waits for a checkpoint."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE channels (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    top INTEGER NOT NULL,
    hold INTEGER,
    publications INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    updated REAL NOT NULL,
    UNIQUE (tenant, name)
);
CREATE TABLE log (
    channel INTEGER NOT NULL REFERENCES channels (id),
    last INTEGER NOT NULL,
    first INTEGER NOT NULL,
    at REAL NOT NULL,
    bytes INTEGER NOT NULL,
    items BLOB NOT NULL
);
CREATE UNIQUE INDEX log_place ON log (channel, last);
CREATE INDEX log_at ON log (at);
CREATE TABLE requests (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    result BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (tenant, user, method, request_id)
) WITHOUT ROWID;
CREATE INDEX requests_at ON requests (at);
"""
_CHECKSUMS = """
ALTER TABLE channels ADD COLUMN crc INTEGER;
ALTER TABLE log ADD COLUMN crc INTEGER;
ALTER TABLE requests ADD COLUMN crc INTEGER
"""
_META_CHECKSUMS = "ALTER TABLE meta ADD COLUMN crc INTEGER"
_DUE = """
ALTER TABLE channels ADD COLUMN due REAL;
UPDATE channels SET due = 0 WHERE publications > 0 AND hold IS NULL;
CREATE INDEX channels_due ON channels (due) WHERE due IS NOT NULL;
DROP INDEX log_at
"""
"""`due`: when retention checks a channel next; existing channels are due at once."""
_CONFINED = """
ALTER TABLE channels ADD COLUMN salt INTEGER;
ALTER TABLE channels ADD COLUMN base INTEGER;
CREATE INDEX channels_salted ON channels (salt) WHERE salt IS NOT NULL;
DELETE FROM meta WHERE name = 'schema';
ALTER TABLE requests ADD COLUMN spans BLOB;
CREATE TABLE opening (number INTEGER NOT NULL, nonce TEXT NOT NULL, commits INTEGER NOT NULL);
INSERT INTO opening SELECT
    COALESCE((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'opening'), 0), '', 0;
DELETE FROM meta WHERE name = 'opening'
"""
"""`salt`: part of a channel's epoch, since damage cost the channel its publications. `base`: the
offset above which a channel began. `spans`: the
spans of a keyed write, encoded by `replay.encode_spans`; NULL if an older version wrote it.
`opening`: one row, the last opening of the file, and the counter of its commits."""
_SCHEMAS = ((1, _SCHEMA), (4, _CHECKSUMS), (6, _META_CHECKSUMS), (7, _DUE), (8, _CONFINED))
"""For each schema version, the statements that migrate an older file to it."""


Blob = bytes
"""The type `bytes`, for a row with a column of that name."""


class Note(NamedTuple):
    """A note on the file."""

    name: str
    value: str


class ChannelRow(NamedTuple):
    """The end of one channel."""

    id: int | None
    tenant: str
    name: str
    top: int
    """The offset of its last publication."""
    hold: int | None
    """The offset from which it is fenced."""
    publications: int
    """How many publications are kept."""
    bytes: int
    updated: float
    """When it was published to last, in Unix seconds."""
    due: float | None
    """When retention checks it next, in Unix seconds; None if nothing can expire."""
    salt: int | None
    """Part of its epoch; None counts as 0."""
    base: int | None
    """The offset above which it began; None counts as 0."""


class LogRow(NamedTuple):
    """The publications of one batch in one channel."""

    channel: int
    last: int
    first: int
    at: float
    bytes: int
    items: Blob


class RequestRow(NamedTuple):
    """The result of a request."""

    tenant: str
    user: str
    method: str
    request_id: str
    digest: str
    result: bytes
    at: float
    spans: bytes | None


META = Table("meta", Note, key=("name",))
CHANNELS = Table("channels", ChannelRow, key=("id",), constant=("tenant", "name", "salt", "base"))
LOG = Table("log", LogRow, key=("channel", "last"), unchecked=True)
REQUESTS = Table("requests", RequestRow, key=("tenant", "user", "method", "request_id"))
TABLES: tuple[Table[Any], ...] = (META, CHANNELS, LOG, REQUESTS)
"""The tables of the log itself; the projection has others."""


def bring_up_to_date(db: sqlite3.Connection, path: Path, projection: SqliteProjection) -> int:
    """Migrate the tables to the current schema, in a transaction that the caller commits.

    Returns:
        The version that the file had; 0 for a new file.

    Raises:
        ConfigurationError: a newer version of Towpath wrote the file.
        sqlite3.Error, RowDamaged: the file cannot be used.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer version of Towpath (schema {version}, this one knows"
            f" {SCHEMA_VERSION}): start that version, or another data directory"
        )
    db.execute("BEGIN IMMEDIATE")
    if version >= SAME_ROWS_SINCE:
        _check_notes(db)
    for since, schema in _SCHEMAS:
        for statement in schema.split(";") if version < since else ():
            db.execute(statement)
    projection.create(db, version)
    if 0 < version < SAME_ROWS_SINCE:
        tables: list[Table[Any]] = [META, CHANNELS, REQUESTS, *projection.tables]
        for table in tables:
            _write_checksums(db, table)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return version


def _check_notes(db: sqlite3.Connection) -> None:
    """Check all notes on the file: one whose name is damaged would look like a missing one.

    Raises:
        RowDamaged: a note is not what was written.
    """
    if "epoch" not in {one.name for one in META.rows(db, "")}:
        raise RowDamaged(META.name)


def _write_checksums(db: sqlite3.Connection, table: Table[Any]) -> None:
    """Write the checksums of all rows of a table that older versions wrote, or changed."""
    for raw in db.execute(table.select).fetchall():
        table.update(db, table.row(*raw[1:]))


def note(db: sqlite3.Connection, name: str) -> str:
    """Return a note on the file; empty if the file has no such note.

    Raises:
        RowDamaged: the note is not what was written.
    """
    found = META.get(db, name)
    return found.value if found else ""


def set_note(db: sqlite3.Connection, name: str, value: str) -> None:
    """Write a note on the file."""
    META.replace(db, Note(name, value))


def parts_of(path: Path) -> list[Path]:
    """Return the files of a database: the database itself, its write-ahead log and the index."""
    return [path.with_name(path.name + part) for part in ("", "-wal", "-shm")]


def free_name(path: Path, word: str) -> Path:
    """Return a name for a database that is set aside: no file has it, with a number at its end."""
    number = 1
    while any(path.parent.glob(f"{path.name}.{word}-{number}*")):
        number += 1
    return path.with_name(f"{path.name}.{word}-{number}")


def wal_of(path: Path) -> Path:
    """Return the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def open_read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Open a database, for any thread, without changing it; its write-ahead log stays as it is.

    Args:
        path: the database.
        immutable: whether nobody writes it, and its write-ahead log is not read.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    db.text_factory = _text
    return db


def abandon(db: sqlite3.Connection, path: Path) -> None:
    """Close a connection and leave the write-ahead log where it is.

    The last connection that closes removes the write-ahead log, unless it can only read. So another
    connection, which can only read, stays open a little longer.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(sqlite3.Error):  # Then the file is not a database, or is missing.
            reading = stack.enter_context(contextlib.closing(open_read_only(path)))
            reading.execute("SELECT 1 FROM sqlite_master").fetchone()
        db.close()


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open a connection in WAL mode; the caller begins and ends its transactions."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # Damaged text must reach the checksum of its row, so it is not an error of the connection.
    db.text_factory = _text
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # Takes effect in a new file only.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES // 2}")
    return db


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
