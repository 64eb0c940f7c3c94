"""A damaged log is set aside as a whole, and a new one begins with what is certain of it.

Nothing is deleted and nothing mended in place. The new log is filled beside the old one, closed,
and takes its place by renaming; whatever interrupts that, the next opening finds either the old
log, and begins again, or the new one, and finishes.

What is carried over: what the projection can vouch for, remembered requests, and the control
channel. The logs of all other channels are not: their readers learn it by the new epoch.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from towpath.channels import CONTROL
from towpath.errors import LogCorrupted
from towpath.log.broker import Append, Item, Projection, Write
from towpath.log.sqlite.file_schema import SCHEMA_VERSION, SEALED_SINCE
from towpath.log.sqlite.heads import Head, save
from towpath.log.sqlite.health import ERRORS
from towpath.log.sqlite.integrity import checksums
from towpath.log.sqlite.integrity.checksums import Sealed
from towpath.log.sqlite.integrity.wal_check import lost_frames
from towpath.log.sqlite.log_file import LogFile
from towpath.log.sqlite.replay import decode_items

_CONTROL = (CONTROL.tenant, CONTROL.name)
PARTS = ("", "-wal", "-shm")
"""The files of one database."""

Row = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """What became of a damaged log."""

    path: Path
    """Where it is now."""
    reason: str
    carried: Mapping[str, int]
    """How much of what was carried over, and `left_out`."""
    control: bool
    """Whether the control channel was carried over whole."""


def damage_of(path: Path, *, same_life: bool) -> str | None:
    """Return what is wrong with a log that was not closed well; None for a sound one.

    Args:
        path: the database.
        same_life: whether the machine has run ever since it was written.

    Raises:
        sqlite3.Error: it cannot be looked at, which may be damage too.
    """
    finish(path)
    if not path.exists():
        return None
    if same_life and lost_frames(*(path.with_name(path.name + part) for part in PARTS[1:])):
        return "committed frames of the write-ahead log cannot be read"
    with closing(open_read_only(path)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 or version > SCHEMA_VERSION:
            return None  # There is nothing yet, or nothing that we know.
        if _clean(db):
            return None
        if (found := find_corruption(db)) is None:
            checksums.check(db)
        return found


def closed_well(path: Path) -> bool:
    """Whether there is a log of this version that was closed well, which `damage_of` trusts."""
    if not path.exists():
        return False
    with closing(open_read_only(path)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        return version == SCHEMA_VERSION and _clean(db)


def find_corruption(db: sqlite3.Connection) -> str | None:
    """Return what is wrong with a log beyond its rows: pages, indexes, and rows that are not there.

    Raises:
        sqlite3.Error: it cannot be looked at, which may be damage too.
    """
    found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if found != "ok":
        return found.splitlines()[-1]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    return _gap(db) if version >= SEALED_SINCE else None


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a database, for any thread, without changing anything of it."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _clean(db: sqlite3.Connection) -> bool:
    row = db.execute("SELECT value FROM meta WHERE name='clean'").fetchone()
    return row is not None and row[0] == "1"


def set_aside(
    path: Path,
    new_log: Callable[[Path], LogFile],
    projection: Projection,
    *,
    reason: str,
    lost_control: Callable[[], Item] | None,
    at: float,
) -> Quarantined:
    """Fill a new log with what is certain of a damaged one, and put it in its place.

    Args:
        path: the damaged database.
        new_log: creates an empty one at a path.
        projection: carries its own tables over.
        reason: what is wrong with it.
        lost_control: makes what the control channel says where it is not whole.
        at: now, in Unix seconds.

    Raises:
        sqlite3.Error, OSError: the new one cannot be written; the old one is where it was.
    """
    fresh = _fresh(path)
    for part in PARTS:
        fresh.with_name(fresh.name + part).unlink(missing_ok=True)
    log = new_log(fresh)
    try:
        with _old(path) as old:
            carried, control = _carry(old, log, projection, at)
            # What the write-ahead log said last may be missing without a trace.
            control = control and "write-ahead" not in reason
        if not control and lost_control is not None:
            log.commit([Write((Append(CONTROL, (lost_control(),)),))])
    except BaseException:
        log.close(clean=False)
        raise
    log.close()
    aside = _free_name(path)
    path.rename(aside)
    finish(path)
    return Quarantined(path=aside, reason=reason, carried=carried, control=control)


def finish(path: Path) -> None:
    """Finish the exchange of a damaged log for a new one, where that was interrupted."""
    fresh = _fresh(path)
    if path.exists() or not fresh.exists():
        return
    asides = sorted(path.parent.glob(f"{path.name}.quarantined-*[0-9]"), key=_number)
    for part in PARTS[1:]:
        left = path.with_name(path.name + part)
        if left.exists() and asides:
            left.rename(asides[-1].with_name(asides[-1].name + part))
    fresh.rename(path)


def table_of(old: sqlite3.Connection, new: sqlite3.Connection, name: str) -> Sealed | None:
    """Return a sealed table of a damaged database; None where it is none that the new one knows."""
    mine = next((one for one in checksums.sealed_tables(old) if one.name == name), None)
    ours = next((one for one in checksums.sealed_tables(new) if one.name == name), None)
    if mine is None or ours is None or not set(mine.columns) <= set(ours.columns):
        return None
    return mine if mine.key == ours.key else None


def readable(db: sqlite3.Connection, new: sqlite3.Connection, name: str) -> tuple[list[Row], int]:
    """Return the rows of a table that are intact, and how many at least are not.

    A page that cannot be read ends a walk; so it is walked from both ends.
    """
    table = table_of(db, new, name)
    if table is None:
        return [], 1
    found: dict[tuple[object, ...], Row] = {}
    damaged: set[tuple[object, ...]] = set()
    cut = 0
    for order in ("", " DESC"):
        by = ", ".join(f"{column}{order}" for column in table.key or ("rowid",))
        try:
            for row in db.execute(f"SELECT {_all(table)} FROM main.{name} ORDER BY {by}"):
                values = dict(zip(table.columns, row[1:], strict=True))
                key = tuple(values[column] for column in table.key)
                if row[0] is not None and checksums.intact(name, *row):
                    found[key] = values
                else:
                    damaged.add(key)
        except ERRORS:
            cut = 1
        else:
            break
    return list(found.values()), len(damaged) + cut


def put(db: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    """Insert a row that was read from a table of the same name."""
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


def _all(table: Sealed) -> str:
    return f"crc, {', '.join(table.columns)}"


def _carry(
    old: sqlite3.Connection | None, log: LogFile, projection: Projection, at: float
) -> tuple[Mapping[str, int], bool]:
    if old is None:
        return {}, False
    with log.filling() as new:
        carried = dict(projection.carry_over(old, new, at))
        requests, _ = readable(old, new, "requests")
        for row in requests:
            put(new, "requests", row)
        try:
            before, items = _control(old, new)
        except ERRORS:
            return carried, False
        if before:
            # Its offsets go on from where they were, so it shows that something was dropped.
            save(new, CONTROL, Head(top=before), at)
    if items:
        log.commit([Write((Append(CONTROL, tuple(items)),))])
    return carried, True


def _control(old: sqlite3.Connection, new: sqlite3.Connection) -> tuple[int, list[Item]]:
    """Return what the control channel holds, and the offset after which that begins.

    Raises:
        LogCorrupted, sqlite3.Error: not all of it can be read.
    """
    channels, damaged = readable(old, new, "channels")
    named = [one for one in channels if (one["tenant"], one["name"]) == _CONTROL]
    log = table_of(old, new, "log")
    if damaged or log is None:
        raise LogCorrupted("channels")
    if not named:
        return 0, []
    rows = old.execute(
        "SELECT crc, channel, last, first, at, bytes, items FROM log WHERE channel=? ORDER BY last",
        (named[0]["id"],),
    ).fetchall()
    if any(row[0] is None or not checksums.intact("log", *row) for row in rows):
        raise LogCorrupted("the control channel")
    if sum(row[2] - row[3] + 1 for row in rows) != named[0]["publications"]:
        raise LogCorrupted("the control channel")
    items = [Item(data, tags) for row in rows for data, tags in decode_items(row[6])]
    top = named[0]["top"]
    assert isinstance(top, int), "its row is intact"
    return top - len(items), items


def _gap(db: sqlite3.Connection) -> str | None:
    """Return where something is missing that no checksum can miss."""
    short = db.execute(
        "SELECT 1 FROM channels LEFT JOIN (SELECT channel, MAX(last) AS newest,"
        " MIN(first) AS oldest, SUM(last - first + 1) AS held FROM log GROUP BY channel)"
        " ON channel = id"
        " WHERE publications != COALESCE(held, 0)"
        " OR (publications > 0 AND (top != newest OR held != newest - oldest + 1)) LIMIT 1"
    ).fetchone()
    return "publications are missing" if short else None


@contextlib.contextmanager
def _old(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a damaged database; None where it is none any more."""
    with closing(open_read_only(path)) as db:
        try:
            readable_at_all = bool(db.execute("SELECT name FROM sqlite_master").fetchall())
        except ERRORS:
            readable_at_all = False
        yield db if readable_at_all else None


def _fresh(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _free_name(path: Path) -> Path:
    number = 1
    while any(path.parent.glob(f"{path.name}.quarantined-{number}*")):
        number += 1
    return path.with_name(f"{path.name}.quarantined-{number}")


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
