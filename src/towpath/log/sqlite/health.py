"""The health of the log's file, derived from its errors, and the writes allowed in each state.

A log is in one state at a time. An error takes it out of `ok`; a probe, which is a real write that
succeeds, brings it back without a restart. Two states are final. `damaged`: a page of the file
cannot be read, so the file is not used again; the next opening carries over what can be read.
`taken`: another process has opened the log since, and only that process writes it.

    ok ──error──▶ full, locked, unwritable ──probe──▶ ok
     ├────────────── any of them ──damage──▶ damaged
     └────────────── any of them ──opened elsewhere──▶ taken
"""

import sqlite3
from enum import Enum

from towpath.errors import LogCorrupted, LogFenced, StorageError
from towpath.log.broker import Write


class LogHealth(Enum):
    """The state of the log."""

    OK = "ok"
    FULL = "full"
    """The disk is full; only endings are written, into the disk reserve."""
    LOCKED = "locked"
    """Another process holds the file's write lock."""
    UNWRITABLE = "unwritable"
    """The file cannot be written: it is read-only, or the disk fails."""
    DAMAGED = "damaged"
    """The file cannot be read as a whole: a page, the schema, or a note on the file is damaged."""
    FENCED = "taken"
    """Another process has opened the log since."""


FINAL = frozenset({LogHealth.DAMAGED, LogHealth.FENCED})
"""The states that last until the log is opened again."""


REFUSALS = {
    LogHealth.FULL: "the disk that holds the log is full: only endings of runs are written",
    LogHealth.LOCKED: "the log is locked by another process",
    LogHealth.UNWRITABLE: "the log cannot be written: its file is read-only, or its disk fails",
    LogHealth.DAMAGED: "the log is damaged, and is not used again before a restart",
    LogHealth.FENCED: "another process has opened the log since, and writes it now",
}
"""The message of the error that refuses a write."""

ERRORS = (sqlite3.Error, LogCorrupted, LogFenced, UnicodeDecodeError)
"""The errors of reading and writing the file; the last if an error message is not valid text."""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_LOCKS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_WRITES = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_AUTH,
    }
)

_SCHEMA = ("no such table", "no such column", "no such index", "malformed database schema")
"""How messages about a damaged schema begin: the statements themselves are right."""

_KINDS = {LogHealth.DAMAGED: LogCorrupted, LogHealth.FENCED: LogFenced}


def health_of(error: Exception) -> LogHealth | None:
    """Return the state that an error shows; None if it shows a mistake in our own code.

    A full disk raises `SQLITE_FULL`; a reached file size limit raises an I/O error. That case is
    not recognized here, because it needs a check of the disk (`disk_reserve.health_on_disk`).
    """
    if isinstance(error, LogFenced):
        return LogHealth.FENCED
    if isinstance(error, LogCorrupted | UnicodeDecodeError):
        return LogHealth.DAMAGED
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_ERROR and str(error).startswith(_SCHEMA):
        return LogHealth.DAMAGED
    if primary in _DAMAGE:
        return LogHealth.DAMAGED
    if primary == sqlite3.SQLITE_FULL:
        return LogHealth.FULL
    if primary in _LOCKS:
        return LogHealth.LOCKED
    return LogHealth.UNWRITABLE if primary in _WRITES else None


def allows(condition: LogHealth, write: Write) -> bool:
    """Whether a write may be tried in this state: in a full log only one that removes a fence."""
    if condition is LogHealth.FULL:
        return any(append.unfence for append in write.appends)
    return condition is LogHealth.OK


def refusal(condition: LogHealth) -> StorageError:
    """Return the error that refuses a write in this state."""
    kind = _KINDS.get(condition, StorageError)
    return kind(REFUSALS.get(condition, "the log cannot be written now"))
