"""The file of a log: its tables, its versions, and the notes on it (`meta`)."""

import sqlite3
from pathlib import Path

import msgspec

from towpath.errors import ConfigurationError, LogCorrupted
from towpath.log.broker import Projection
from towpath.log.sqlite.integrity import checksums

SCHEMA_VERSION = 7
"""The schema version that this code writes, as `PRAGMA user_version` of the file."""
SEALED_SINCE = 4
"""The first version whose rows carry checksums."""
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
_SEALED = """
ALTER TABLE channels ADD COLUMN crc INTEGER;
ALTER TABLE log ADD COLUMN crc INTEGER;
ALTER TABLE requests ADD COLUMN crc INTEGER
"""
_SEALED_META = "ALTER TABLE meta ADD COLUMN crc INTEGER"
_DUE = """
ALTER TABLE channels ADD COLUMN due REAL;
UPDATE channels SET due = 0 WHERE publications > 0 AND hold IS NULL;
CREATE INDEX channels_due ON channels (due) WHERE due IS NOT NULL;
DROP INDEX log_at
"""
"""`due`: when retention checks a channel next; existing channels are due at once."""
_SCHEMAS = ((1, _SCHEMA), (SEALED_SINCE, _SEALED), (6, _SEALED_META), (7, _DUE))
"""For each schema version, the statements that migrate an older file to it."""


def bring_up_to_date(db: sqlite3.Connection, path: Path, projection: Projection) -> int:
    """Migrate the tables to the current schema, in a transaction that the caller commits.

    Returns:
        The version that the file had; 0 for a new file.

    Raises:
        ConfigurationError: a newer version of Towpath wrote the file.
        sqlite3.Error, LogCorrupted: the file cannot be used.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path} was written by a newer version of Towpath (schema {version}, this one knows"
            f" {SCHEMA_VERSION}): start that version, or another data directory"
        )
    db.execute("BEGIN IMMEDIATE")
    if version == SCHEMA_VERSION:
        _check_notes(db)
    for since, schema in _SCHEMAS:
        for statement in schema.split(";") if version < since else ():
            db.execute(statement)
    projection.create(db, version)
    if version < SCHEMA_VERSION:
        checksums.renew(db)
    checksums.guard(db)
    if version < SCHEMA_VERSION:
        set_note(db, "schema", msgspec.json.encode(checksums.schema_of(db)).decode())
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return version


def note(db: sqlite3.Connection, name: str) -> str:
    """Return a note on the file; empty if the file has no such note."""
    row = db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
    return str(row[0]) if row else ""


def set_note(db: sqlite3.Connection, name: str, value: str) -> None:
    """Write a note on the file."""
    db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))


def _check_notes(db: sqlite3.Connection) -> None:
    """Check the notes on the file, and the definitions of its tables.

    All notes are checked: a note whose name is damaged would look like one that was never written.
    Tables and indexes that Towpath did not create are not checked.

    Raises:
        sqlite3.Error, LogCorrupted: a note or a definition differs from what was written.
    """
    checksums.check(db, "meta")
    try:
        written = msgspec.json.decode(note(db, "schema"), type=dict[str, int])
    except msgspec.DecodeError:
        raise LogCorrupted("the schema") from None
    if not written.items() <= checksums.schema_of(db).items():
        raise LogCorrupted("the schema")


def wal_of(path: Path) -> Path:
    """Return the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open a connection in WAL mode; the caller begins and ends its transactions."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES // 2}")
    return db
