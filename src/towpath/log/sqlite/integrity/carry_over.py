"""Carries over what can be read of a damaged log into a new file, channel by channel.

The damaged file is set aside and never changed. The new file is filled beside it, closed, and
renamed to its place. If that is interrupted, the next opening finds either the damaged file, and
begins again, or the new one, and finishes. The new file has a new log epoch, so every reader starts
anew.

A channel is carried over with its publications if all of them are intact. Otherwise it is carried
over without: its offsets continue above those that readers know. The projection decides about its
own rows.
"""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from towpath.channels import CONTROL, Channel
from towpath.log.sqlite.file_schema import (
    CHANNELS,
    LOG,
    REQUESTS,
    ChannelRow,
    LogRow,
    free_name,
    open_read_only,
    parts_of,
)
from towpath.log.sqlite.heads import highest_publication, highest_top, raise_floor
from towpath.log.sqlite.health import ERRORS
from towpath.log.sqlite.log_file import LogFile
from towpath.log.sqlite.projection import SqliteProjection
from towpath.log.sqlite.rows import Table

Row = TypeVar("Row", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedOver:
    """What became of a damaged log."""

    path: Path
    """Where the damaged file is now."""
    counts: Mapping[str, int]
    """How many rows of which kind were carried over, and `left_out`."""
    control: bool
    """Whether the control channel was carried over whole."""


def carry_over(
    path: Path,
    new_log: Callable[[Path], LogFile],
    projection: SqliteProjection,
) -> CarriedOver:
    """Fill a new log with what can be read of a damaged one, and put it in its place.

    Args:
        path: the damaged database.
        new_log: creates an empty log at a path.
        projection: carries its own tables over.

    Raises:
        sqlite3.Error, OSError: the new file cannot be written; the damaged one is where it was.
    """
    fresh = _fresh(path)
    for part in parts_of(fresh):
        part.unlink(missing_ok=True)
    log = new_log(fresh)
    try:
        counts: Counter[str] = Counter(left_out=0)
        with closing(open_read_only(path)) as old, log.filling() as new:
            if control := _is_database(old):
                control = _carry_log(old, new, counts)
                counts.update(projection.carry_over(old, new))
                _carry_requests(old, new, counts)
        if not control:
            log.lose_control()
    except BaseException:
        log.close(clean=False)
        raise
    log.close()
    aside = free_name(path, "quarantined")
    path.rename(aside)
    finish(path)
    return CarriedOver(path=aside, counts=counts, control=control)


def finish(path: Path) -> None:
    """Finish the exchange of a damaged log for a new one, if it was interrupted."""
    fresh = _fresh(path)
    if path.exists() or not fresh.exists():
        return
    asides = sorted(path.parent.glob(f"{path.name}.quarantined-*[0-9]"), key=_number)
    if asides:
        for part, new in zip(parts_of(path)[1:], parts_of(asides[-1])[1:], strict=True):
            if part.exists():
                part.rename(new)
    fresh.rename(path)


def readable(db: sqlite3.Connection, table: Table[Row]) -> Iterator[Row | None]:
    """Yield each row of a damaged table that is intact, and None for each that is not.

    A page that cannot be read ends a walk, so the table is walked from both ends. A table of an
    older schema lacks columns, which are read as NULL.
    """
    try:
        names = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table.name})")}
    except ERRORS:
        names = set()
    columns = ", ".join(one if one in names else f"NULL AS {one}" for one in table.columns)
    seen: set[object] = set()
    for order in ("", " DESC"):
        by = ", ".join(f"{column}{order}" for column in table.key)
        try:
            for raw in db.execute(f"SELECT crc, {columns} FROM {table.name} ORDER BY {by}"):
                key = tuple(raw[1 + table.columns.index(column)] for column in table.key)
                if order and key in seen:
                    return
                seen.add(key)
                yield table.row(*raw[1:]) if table.intact(raw) else None
        except ERRORS:
            yield None
        else:
            return


def _is_database(db: sqlite3.Connection) -> bool:
    try:
        return bool(db.execute("SELECT name FROM sqlite_master").fetchall())
    except ERRORS:
        return False


def _carry_log(old: sqlite3.Connection, new: sqlite3.Connection, counts: Counter[str]) -> bool:
    """Carry the channels over; return whether the control channel is whole."""
    control, all_read, highest = False, True, 0
    for row in readable(old, CHANNELS):
        if row is None:
            counts["left_out"] += 1
            all_read = False
            continue
        whole = _carry_channel(old, new, row)
        counts["channels" if whole else "channels_emptied"] += 1
        control = control or (whole and Channel(row.tenant, row.name) == CONTROL)
        all_read = all_read and (whole or Channel(row.tenant, row.name) != CONTROL)
    with contextlib.suppress(*ERRORS):
        highest = highest_top(old)
    with contextlib.suppress(*ERRORS):
        # Publications whose channel cannot be read.
        highest = max(highest, highest_publication(old))
    raise_floor(new, max(highest, highest_top(new)))
    return control or all_read  # A control channel that has no row was never written to.


def _carry_channel(old: sqlite3.Connection, new: sqlite3.Connection, row: ChannelRow) -> bool:
    """Carry one channel over; return False if its publications had to be left out."""
    new.execute("SAVEPOINT channel")
    expected = row.top - row.publications + 1
    try:
        for one in _publications(old, row):
            if one is None or one.first != expected:
                break
            LOG.insert(new, one)
            expected = one.last + 1
    except ERRORS:
        expected = -1
    whole = expected == row.top + 1
    if not whole:
        new.execute("ROLLBACK TO channel")
        row = row._replace(top=row.top + 1, hold=None, publications=0, bytes=0, due=None)
    CHANNELS.insert(new, row)
    new.execute("RELEASE channel")
    return whole


def _publications(db: sqlite3.Connection, row: ChannelRow) -> Iterator[LogRow | None]:
    """Yield the rows of a channel, in order; None for one that is damaged."""
    for raw in db.execute(f"{LOG.select} WHERE channel=? ORDER BY last", (row.id,)):
        yield LOG.row(*raw[1:]) if LOG.intact(raw) else None


def _carry_requests(old: sqlite3.Connection, new: sqlite3.Connection, counts: Counter[str]) -> None:
    """Copy the stored results of requests that are intact."""
    for row in readable(old, REQUESTS):
        if row is not None:
            REQUESTS.replace(new, row)
        counts["left_out" if row is None else "requests"] += 1


def _fresh(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
