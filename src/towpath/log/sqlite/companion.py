"""The companion file: what a database was when it was last used, kept outside of the database.

A database cannot show that it is an older copy of itself. So the file `towpath.companion` beside it
names the last opening, and the counter of commits at the last opening or close. If the database
lacks something that readers have seen, the log gets a new epoch (`reason_for_new_epoch`), and no
position of the old epoch is valid.

An opening has three steps, and a crash between two of them keeps the epoch:

1. The companion names the pending opening, and the reason for a new epoch if there is one.
2. One transaction of the database sets the opening, and the new epoch if there is a reason.
3. The companion names this opening as the current one. Only then is the first write committed.

The reason for a new epoch stays in the companion until step 2 is done, because the evidence may be
gone by then: whoever opens a database creates its write-ahead log.

This module decides; `towpath.log.sqlite.continuity` carries the decisions out.
"""

import contextlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from towpath.log.sqlite.commit_counter import Counted


class OpeningId(NamedTuple):
    """Identifies one opening of one database."""

    number: int
    """Rises with each opening; 0 for a database that was never opened."""
    nonce: str
    """Random, so that two copies of a database that were both opened differ."""


UNOPENED = OpeningId(0, "")
"""The opening of a database that was created or filled, but not opened yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """The content of a companion file."""

    epoch: str = ""
    """The log's epoch since the current opening."""
    opening: OpeningId = UNOPENED
    """The current opening, or the last one."""
    pending: OpeningId | None = None
    """An opening that began, and may or may not be in the database."""
    commits: int = 0
    """The counter of commits when the log was opened or closed last."""
    clean: bool = False
    """Whether the log was closed after its current opening."""
    renew: str | None = None
    """Why the log gets a new epoch in the pending or the next opening; None if it keeps its own."""
    damaged: str | None = None
    """What is wrong with the database, if that was found while it was used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseState:
    """What a database says about itself."""

    epoch: str
    opening: OpeningId
    commits: int
    boot_id: str
    """The boot id of the machine in the last opening; empty if it is unknown."""
    synchronous: str
    """The setting `synchronous` of the last opening."""


DATABASE_MISSING = "the database is missing, and an empty log begins"
COMPANION_MISSING = "the companion file is missing beside an existing database"
OTHER_DATABASE = "the database is not the one that was used last: another copy was put in its place"
OLDER_FILE = "the database is an older copy: its write-ahead log begins at a later commit"
OTHER_EPOCH = "the database and its companion file name different epochs"
COUNTER_MISSING = "the log was not closed, and the file that counts its commits is missing"
WAL_MISSING = "the log was not closed, and its write-ahead log is missing"
MACHINE_STOPPED = (
    "the log was not closed before the machine stopped, and `synchronous` was below FULL"
)

RESTORED = "the log was restored from a backup"
ROLLED_BACK = "`towpath new-epoch` was run"
NOTHING_LOST = frozenset({COMPANION_MISSING, WAL_MISSING, MACHINE_STOPPED, RESTORED, ROLLED_BACK})
"""Reasons that do not show that commits are lost, or that an operator gives. Where only the
write-ahead log is missing, the database holds the last commit: a shell may have copied it."""


def reason_for_new_epoch(
    companion: Companion | None,
    database: DatabaseState | None,
    *,
    counted: Counted | None,
    in_file: int | None,
    wal_present: bool,
    boot_id: str,
) -> str | None:
    """Return why the log may lack something that readers have seen; None if it lacks nothing.

    A database that was never opened gets its epoch when it is opened first, without a reason.

    Args:
        companion: the content of the companion file; None if it is missing or malformed.
        database: what the database says; None if there is none.
        counted: the counter outside of the database; None if it is missing.
        in_file: the counter in the database without its write-ahead log; None if it is not known.
        wal_present: whether a write-ahead log was there before the database was opened.
        boot_id: the machine's boot id; empty if it is unknown.
    """
    if database is None:
        return DATABASE_MISSING if companion is not None and companion.opening.number else None
    if database.opening.number == 0:
        # It was just created or filled, unless the opening in its write-ahead log is lost.
        if companion is None or companion.damaged is not None or companion.opening == UNOPENED:
            return None
        return _older_copy(database, companion)
    if companion is None:
        return COMPANION_MISSING
    is_older_file = counted is not None and in_file is not None and in_file < counted.in_file
    if database.opening == companion.pending:
        # No write followed, and the opening set the new epoch if there was a reason.
        return OLDER_FILE if is_older_file else None
    if companion.renew is not None:
        return companion.renew
    if database.opening.number < companion.opening.number:
        return _older_copy(database, companion)
    if database.opening != companion.opening:
        return OTHER_DATABASE
    if database.epoch != companion.epoch:
        return OTHER_EPOCH
    if database.commits < companion.commits:
        return _commits_lost(database.commits, companion.commits)
    if counted is not None and database.commits < counted.last:
        return _commits_lost(database.commits, counted.last)
    if is_older_file:
        return OLDER_FILE
    if companion.clean:
        return None
    if counted is None:
        return COUNTER_MISSING
    if not wal_present:
        # The counter may be in the database, and the pages around it not: a crash may have ended
        # the copying of the write-ahead log into the database anywhere.
        return WAL_MISSING
    same_life = boot_id != "" and database.boot_id == boot_id
    return None if same_life or database.synchronous == "FULL" else MACHINE_STOPPED


def begun(
    companion: Companion | None,
    database: DatabaseState | None,
    pending: OpeningId,
    reason: str | None,
) -> Companion:
    """Return the companion of step 1: an opening is pending.

    Args:
        companion: the content of the companion file.
        database: what the database says.
        pending: the opening that begins; its number is above all numbers before.
        reason: why the log gets a new epoch.
    """
    base = companion or Companion()
    if database is not None and database.opening == base.pending:
        base = replace(opened(base, database), clean=True)  # The crash came before a first write.
    return replace(base, pending=pending, renew=reason)


def opened(companion: Companion, database: DatabaseState) -> Companion:
    """Return the companion of step 3: the opening that the database names is the current one.

    A database that was damaged is replaced by now.
    """
    return Companion(
        epoch=database.epoch,
        opening=database.opening,
        commits=database.commits,
    )


def closed(companion: Companion, commits: int) -> Companion:
    """Return the companion of a log that is closed.

    Args:
        companion: the content of the companion file.
        commits: the counter of the last commit, which is in the database.
    """
    return replace(companion, commits=commits, clean=True)


def asked_for(companion: Companion | None, reason: str) -> Companion:
    """Return the companion of a log whose next opening gives it a new epoch.

    Args:
        companion: the content of the companion file.
        reason: why.
    """
    return replace(companion or Companion(), pending=None, renew=reason)


def next_number(companion: Companion | None, database: DatabaseState | None) -> int:
    """Return a number for an opening, above those of all openings that are known."""
    base = companion or Companion()
    known = (database.opening if database else UNOPENED, base.opening, base.pending or UNOPENED)
    numbers: list[int] = [opening.number for opening in known]
    return max(numbers) + 1


def companion_of(database: Path) -> Path:
    """Return the path of the companion file of a database."""
    return database.with_suffix(".companion")


def read(path: Path) -> Companion | None:
    """Return the content of a companion file; None if the file is missing or malformed.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Companion)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write(path: Path, companion: Companion) -> None:
    """Replace a companion file, durably and as a whole.

    Raises:
        OSError: the file could not be replaced; the old one is as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(msgspec.json.encode(companion))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: the disk failed.
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _older_copy(database: DatabaseState, companion: Companion) -> str:
    return (
        f"the database is an older copy: it was opened {database.opening.number} times, and the"
        f" log {companion.opening.number} times"
    )


def _commits_lost(there: int, made: int) -> str:
    return f"commits are lost: the database holds commit {there}, and the last one was {made}"
