"""Drops expired publications and request ids, in steps short enough not to delay writes.

Each channel whose publications can expire has a time at which retention checks it next (`due`).
`due` is never later than the time at which a row may be dropped. If a check finds nothing to drop
yet, `due` is postponed. So a channel in constant use is checked once per period, and a sweep with
nothing due reads the index once.

Rows are dropped whole, oldest first, and never those of unfinished work (`fence`). A channel that
was forgotten is due too, and loses its row.
"""

import sqlite3
from collections.abc import Callable

from towpath.channels import Channel
from towpath.log.broker import KEY_SECONDS, Retention
from towpath.log.sqlite.file_schema import CHANNELS, ChannelRow
from towpath.log.sqlite.heads import ChannelDamaged, Head

FORGOTTEN_SECONDS = 24 * 3600.0
"""How long a channel that was forgotten keeps its row, in seconds: readers come back meanwhile."""
STEP_ROWS = 128
"""How many rows one step drops at most; each takes well below a millisecond."""
STEP_BYTES = 1024 * 1024
"""How many bytes of publications one step drops at most, unless a single row holds more."""

Row = tuple[int, int, float, int]
"""A row of the log: last offset, first offset, time in Unix seconds, size in bytes."""


def due(head: Head, keep: Retention | None, now: float, *, added: int) -> float | None:
    """Return when retention checks a channel next, after publications were added at `now`.

    Args:
        head: the channel's head, which counts those publications.
        keep: its retention; None if nothing is ever dropped.
        now: Unix seconds.
        added: how many publications were added.
    """
    if keep is None or head.fence is not None or head.publications == 0:
        return None
    if over(head, keep):
        return now
    if head.due is not None:
        return head.due
    fresh = head.publications == added
    return now + keep.seconds if keep.since_last or fresh else now


def over(head: Head, keep: Retention) -> bool:
    """Whether a channel is over its bound of publications or bytes."""
    return head.publications > keep.publications or head.bytes > keep.bytes


def drop_surplus(db: sqlite3.Connection, head: Head, keep: Retention) -> None:
    """Drop the oldest rows of a channel that is over its bounds, at most one step's rows."""
    if head.id is not None and over(head, keep):
        _drop(db, head, head.id, lambda row: _is_surplus(row, head, keep))


def drop_old(db: sqlite3.Connection, head: Head, keep: Retention, *, now: float) -> float | None:
    """Drop the oldest rows of a channel that have expired or are over its bounds, in one step.

    Args:
        db: the connection, in a transaction.
        head: the channel's head; its counts are updated.
        keep: its retention.
        now: Unix seconds.

    Returns:
        When to check next: `now` if one step was not enough, None if no rows are left.
    """
    assert head.id is not None, "a channel that is due has a row"

    def since(row: Row) -> float:
        return head.updated if keep.since_last else row[2]

    def may_go(row: Row) -> bool:
        return since(row) + keep.seconds <= now or _is_surplus(row, head, keep)

    dropped, stays = _drop(db, head, head.id, may_go)
    if stays is not None:
        # The first row that has not expired keeps all rows after it: a clock that was set back
        # must not leave a gap.
        return since(stays) + keep.seconds
    return now if dropped and head.publications else None


def drop_requests(db: sqlite3.Connection, now: float) -> bool:
    """Drop request ids older than `KEY_SECONDS`, one step's rows; return whether any were."""
    dropped = db.execute(
        "DELETE FROM requests WHERE (tenant, user, method, request_id) IN (SELECT tenant, user,"
        " method, request_id FROM requests WHERE at < ? ORDER BY at LIMIT ?)",
        (now - KEY_SECONDS, STEP_ROWS),
    )
    return dropped.rowcount > 0


def is_due(db: sqlite3.Connection, now: float) -> bool:
    """Whether there may be anything to drop; reads two index entries."""
    row = db.execute(
        "SELECT EXISTS (SELECT 1 FROM channels WHERE due <= ?)"
        " OR EXISTS (SELECT 1 FROM requests WHERE at < ?)",
        (now, now - KEY_SECONDS),
    ).fetchone()
    return bool(row[0])


def next_due(db: sqlite3.Connection, now: float) -> ChannelRow | None:
    """Return the row of the channel that is due the longest.

    Raises:
        ChannelDamaged: the row is not what was written.
    """
    query = f"{CHANNELS.select} WHERE due <= ? ORDER BY due LIMIT 1"
    raw = db.execute(query, (now,)).fetchone()
    if raw is None:
        return None
    row = CHANNELS.row(*raw[1:])
    if not CHANNELS.intact(raw):
        raise ChannelDamaged(Channel(row.tenant, row.name))
    return row


def _oldest(db: sqlite3.Connection, channel: int) -> list[Row]:
    """Return the oldest rows of a channel, as many as one step may drop, and at least one."""
    rows: list[Row] = []
    size = 0
    for row in db.execute(
        "SELECT last, first, at, bytes FROM log WHERE channel=? ORDER BY last LIMIT ?",
        (channel, STEP_ROWS),
    ):
        size += row[3]
        if rows and size > STEP_BYTES:
            break
        rows.append(row)
    return rows


def _drop(
    db: sqlite3.Connection, head: Head, channel: int, may_go: Callable[[Row], bool]
) -> tuple[bool, Row | None]:
    """Drop the oldest rows up to the first that stays; return whether any were, and that row."""
    last, stays = None, None
    for row in _oldest(db, channel):
        if not may_go(row):
            stays = row
            break
        last, first, _, size = row
        head.publications -= last - first + 1
        head.bytes -= size
    if last is not None:
        db.execute("DELETE FROM log WHERE channel=? AND last<=?", (channel, last))
    return last is not None, stays


def _is_surplus(row: Row, head: Head, keep: Retention) -> bool:
    """Whether a row is dropped because its channel is over a bound; the last row always stays."""
    return over(head, keep) and row[0] < (head.fence or head.top)
