"""Copies of a log: made while a server runs, put back while none runs.

A log that goes back to an older copy has a future that some clients already saw differently. So a
restored log gets a new epoch, and so does a directory that was rolled back as a whole, which
nothing in the directory can show.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from towpath.errors import ConfigurationError
from towpath.log.sqlite import companion, directory_lock
from towpath.log.sqlite.companion import (
    RESTORED,
    ROLLED_BACK,
    Companion,
    companion_of,
    sync_directory,
)
from towpath.log.sqlite.file_schema import SCHEMA_VERSION, free_name, parts_of
from towpath.log.sqlite.inspection import Findings, inspect, open_snapshot
from towpath.log.sqlite.projection import SqliteProjection

STEP_PAGES = 1024
"""How many pages one step of a backup copies; a signal can end a backup between two steps."""


def back_up(database: Path, target: Path, projection: SqliteProjection, *, force: bool) -> int:
    """Write a checked copy of a log into a file; a server may use the log meanwhile.

    The copy is one state of the log: all pages are read in one read transaction, so no write waits
    and no write makes the copy begin anew.

    Args:
        database: the database.
        target: where the copy goes, mode 0600; it appears when it is complete and durable.
        projection: has tables in the database.
        force: whether an existing file is replaced.

    Returns:
        The size of the copy in bytes.

    Raises:
        ConfigurationError: there is no log, the target exists or cannot be written, or the log is
            damaged.
    """
    if not database.exists():
        raise ConfigurationError(f"there is no log in {database.parent}")
    if target.exists():
        if any(_is_same(target, part) for part in parts_of(database)):
            raise ConfigurationError(f"{target} is the log itself")
        if not force:
            raise ConfigurationError(f"{target} exists: name another file, or use --force")
    with _explained(f"cannot back up {database} to {target}"), _unfinished(target) as copy:
        with closing(open_snapshot(database)) as source, closing(sqlite3.connect(copy)) as made:
            source.backup(made, pages=STEP_PAGES)
            made.execute("PRAGMA journal_mode = DELETE").fetchone()
        damage = inspect(copy, projection).damage
        if damage is not None:
            raise ConfigurationError(f"{database} is damaged ({damage}): no copy was written")
        size = _sync(copy)
        copy.replace(target)
        sync_directory(target.parent)
    return size


def restore(source: Path, database: Path, projection: SqliteProjection) -> Path | None:
    """Put a copy in the place of a log, with a new epoch.

    Args:
        source: the copy; it is only read.
        database: the database that it replaces; there may be none.
        projection: has tables in the database.

    Returns:
        Where the replaced database is now; None if there was none.

    Raises:
        ConfigurationError: a server uses the directory, the copy is damaged or no log, or a file
            cannot be written. The log is as it was.
    """
    _require_log(source, projection)
    fresh = database.with_name(f"{database.name}.restored")
    with closing(directory_lock.lock(database)), _explained(f"cannot restore {source}"):
        fresh.unlink(missing_ok=True)
        try:
            _copy_with_vacuum(source, fresh)
            return _exchange(database, fresh)
        finally:
            fresh.unlink(missing_ok=True)


def ask_for_new_epoch(database: Path) -> None:
    """Make the next opening give a log a new epoch.

    Raises:
        ConfigurationError: a server uses the directory, there is no log, or the companion file
            cannot be written.
    """
    if not database.exists():
        raise ConfigurationError(f"there is no log in {database.parent}")
    with (
        closing(directory_lock.lock(database)),
        _explained("cannot write the companion file"),
    ):
        _ask(database, ROLLED_BACK)


def check(database: Path, projection: SqliteProjection) -> Findings:
    """Check a log, which a server may use meanwhile.

    Raises:
        ConfigurationError: there is no log, or it cannot be opened.
    """
    if not database.exists():
        raise ConfigurationError(f"there is no log in {database.parent}")
    with _explained(f"cannot open {database}"):
        return inspect(database, projection)


def _require_log(source: Path, projection: SqliteProjection) -> None:
    """Check that a file is a sound log of a version that this code can open.

    Raises:
        ConfigurationError: it is not.
    """
    if not source.is_file():
        raise ConfigurationError(f"there is no file {source}")
    unusable = f"{source} is damaged, or no log of Towpath"
    with _explained(unusable), closing(open_snapshot(source)) as db:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        db.execute("SELECT 1 FROM meta, channels, log LIMIT 1").fetchone()
    if not 1 <= version <= SCHEMA_VERSION:
        raise ConfigurationError(
            f"{source} was written by another version of Towpath (schema {version}, this one knows"
            f" {SCHEMA_VERSION})"
        )
    with _explained(f"cannot read {source}"):
        damage = inspect(source, projection).damage
    if damage is not None:
        raise ConfigurationError(f"{source} is damaged: {damage}")


def _copy_with_vacuum(source: Path, fresh: Path) -> None:
    """Copy a log into a new file without free pages, which can give up pages later.

    Raises:
        sqlite3.Error, OSError: the copy cannot be read, or the new file cannot be written.
    """
    with closing(open_snapshot(source)) as db:
        db.execute("COMMIT")  # SQLite vacuums outside of transactions only.
        if not db.execute("PRAGMA auto_vacuum").fetchone()[0]:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("VACUUM INTO ?", (str(fresh),))
    fresh.chmod(0o600)
    _sync(fresh)


def _exchange(database: Path, fresh: Path) -> Path | None:
    """Put a new file in the place of a database; return where the database is now.

    A crash leaves the old database or the new one, and in either case a new epoch is due.

    Raises:
        OSError: a file cannot be written.
    """
    _ask(database, RESTORED)
    aside = _set_aside(database) if database.exists() else None
    fresh.replace(database)
    sync_directory(database.parent)
    # What the companion said of the old database, such as damage, does not concern the new one.
    companion.write(companion_of(database), Companion(renew=RESTORED))
    return aside


def _set_aside(database: Path) -> Path:
    """Give a database a second name, and leave no write-ahead log under its first name.

    Raises:
        OSError: a file cannot be renamed.
    """
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    aside = free_name(database, "replaced")
    os.link(database, aside)
    # A damaged database may have kept its write-ahead log, which would be read with the new one.
    for part, new in zip(parts_of(database)[1:], parts_of(aside)[1:], strict=True):
        with contextlib.suppress(FileNotFoundError):
            part.rename(new)
    return aside


def _ask(database: Path, reason: str) -> None:
    path = companion_of(database)
    companion.write(path, companion.asked_for(companion.read(path), reason))


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Yield a new empty file beside a target; it is removed if it was not renamed to the target."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        for part in parts_of(Path(name)):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn an error of SQLite or of the operating system into a sentence.

    Raises:
        ConfigurationError: it happened.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigurationError(f"{what}: {reason}") from None


def _sync(path: Path) -> int:
    """Make the content of a file durable; return its size in bytes."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return path.stat().st_size


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)
