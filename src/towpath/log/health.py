"""What state the log's file is in, as far as its errors tell, and what may be written then.

A log is in one condition at a time. It leaves `ok` by an error and comes back by a probe, a real
write that goes through; nobody has to restart anything. Two are for good. A file that gave out
something that was not written can be trusted with nothing any more, until whoever opens it next
has looked at all of it. And a log that another process has opened since is that one's to write.

    ok ──error──▶ full, locked, unwritable ──probe──▶ ok
     ├────────────── any of them ──damage──▶ damaged
     └────────────── any of them ──opened elsewhere──▶ taken
"""

import sqlite3
from enum import Enum

from towpath.errors import LogCorrupted, LogFenced, StorageError
from towpath.log.broker import Write


class LogHealth(Enum):
    """What state the log is in."""

    OK = "ok"
    FULL = "full"
    """The disk has no room; endings are written into the room that was kept for them."""
    LOCKED = "locked"
    """Another process holds the file's write lock."""
    UNWRITABLE = "unwritable"
    """The file cannot be written: read-only, or the disk fails."""
    DAMAGED = "damaged"
    """Something was read that was never written."""
    FENCED = "taken"
    """Another process has opened the log since."""


FINAL = frozenset({LogHealth.DAMAGED, LogHealth.FENCED})
"""What a log does not come back from; whoever opens it next does."""


REFUSALS = {
    LogHealth.FULL: "the disk that holds the log is full: only endings of runs are written",
    LogHealth.LOCKED: "the log is locked by another process",
    LogHealth.UNWRITABLE: "the log cannot be written: its file is read-only, or its disk fails",
    LogHealth.DAMAGED: "the log is damaged, and is used no more until it has been checked",
    LogHealth.FENCED: "another process has opened the log since, and writes it now",
}
"""What whoever wants to write is told."""

ERRORS = (sqlite3.Error, LogCorrupted, LogFenced, UnicodeDecodeError)
"""What reading and writing the file raises; the last where not even an error can be read."""

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

_KINDS = {LogHealth.DAMAGED: LogCorrupted, LogHealth.FENCED: LogFenced}
_OUR_CHECKS = ("user-defined function raised", "Could not decode")
"""How errors begin that tell of a broken checksum, or of bytes that should be text and are not."""


def health_of(error: Exception) -> LogHealth | None:
    """Return the condition an error tells of; None where it tells of a mistake in our own code.

    A disk without room shows as `SQLITE_FULL` or, where the room is a limit on the size of files,
    as an I/O error: then only the disk itself can tell, so that is not decided here.
    """
    if isinstance(error, LogFenced):
        return LogHealth.FENCED
    if isinstance(error, LogCorrupted | UnicodeDecodeError):
        return LogHealth.DAMAGED
    if isinstance(error, sqlite3.OperationalError) and str(error).startswith(_OUR_CHECKS):
        return LogHealth.DAMAGED
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary in _DAMAGE:
        return LogHealth.DAMAGED
    if primary == sqlite3.SQLITE_FULL:
        return LogHealth.FULL
    if primary in _LOCKS:
        return LogHealth.LOCKED
    return LogHealth.UNWRITABLE if primary in _WRITES else None


def allows(condition: LogHealth, write: Write) -> bool:
    """Whether a write may be tried in this condition: in a full log only what ends something."""
    if condition is LogHealth.FULL:
        return any(append.unfence for append in write.appends)
    return condition is LogHealth.OK


def refusal(condition: LogHealth) -> StorageError:
    """Return what a write is refused with in this condition."""
    kind = _KINDS.get(condition, StorageError)
    return kind(REFUSALS.get(condition, "the log cannot be written now"))
