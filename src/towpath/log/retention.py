"""Dropping what a log keeps no longer, in steps that hold nobody up.

Each channel with something to drop one day has a time when retention looks at it next (`due`).
That time is never later than the moment at which something may be dropped; where nothing may be
dropped yet it is put off. So a channel in constant use is looked at once per period, and a sweep
that finds nothing due asks the index one question.

Rows are dropped whole, from the oldest on, and never those of something unfinished (`fence`).
"""

import sqlite3
from collections.abc import Callable

from towpath.channels import Channel
from towpath.log.broker import KEY_SECONDS, Retention
from towpath.log.heads import Head
from towpath.log.integrity import checksums

STEP_ROWS = 128
"""How many rows one step drops at most: well below a millisecond's work each."""
STEP_BYTES = 1024 * 1024
"""How many bytes of publications one step drops, unless a single row holds more."""

Row = tuple[int, int, float, int]
"""Of the log: last and first offset, when, how many bytes."""


def due(head: Head, keep: Retention | None, now: float, *, added: int) -> float | None:
    """Return when retention looks at a channel next, after publications were added at `now`.

    Args:
        head: of the channel, those publications counted.
        keep: its retention; None where nothing is ever dropped.
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
    """Whether a channel holds more than it may, whatever its age."""
    return head.publications > keep.publications or head.bytes > keep.bytes


def drop_surplus(db: sqlite3.Connection, head: Head, keep: Retention) -> None:
    """Drop the oldest rows of a channel that are over its bounds, one step's worth at most."""
    if head.id is not None and over(head, keep):
        _drop(db, head, head.id, lambda row: _is_surplus(row, head, keep))


def drop_old(
    db: sqlite3.Connection, head: Head, keep: Retention, *, updated: float, now: float
) -> float | None:
    """Drop the oldest rows of a channel that are past their time or over its bounds, in one step.

    Args:
        db: the connection, in a transaction.
        head: of the channel; loses what is dropped.
        keep: its retention.
        updated: when it was published to last, in Unix seconds.
        now: Unix seconds.

    Returns:
        When to look again: `now` where one step was not enough, None where nothing is left.
    """
    assert head.id is not None, "a channel that is due has a row"

    def since(row: Row) -> float:
        return updated if keep.since_last else row[2]

    def may_go(row: Row) -> bool:
        return since(row) + keep.seconds <= now or _is_surplus(row, head, keep)

    dropped, stays = _drop(db, head, head.id, may_go)
    if stays is not None:
        # The first that is young enough keeps those after it: clocks are set back, and no gap may
        # come of it.
        return since(stays) + keep.seconds
    return now if dropped and head.publications else None


def drop_requests(db: sqlite3.Connection, now: float) -> bool:
    """Drop request ids that were remembered long enough; return whether there were some."""
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


def next_due(db: sqlite3.Connection, now: float) -> tuple[Channel, float] | None:
    """Return the channel that is due the longest, and when it was published to last."""
    row = db.execute(
        f"SELECT tenant, name, updated FROM {checksums.CHECKED}channels WHERE id ="
        " (SELECT id FROM channels WHERE due <= ? ORDER BY due LIMIT 1)",
        (now,),
    ).fetchone()
    return (Channel(row[0], row[1]), row[2]) if row else None


def _oldest(db: sqlite3.Connection, channel: int) -> list[Row]:
    """Return the oldest rows of a channel that one step may drop; the first in any case."""
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
    """Drop the oldest rows up to the first that stays; return whether some went, and that one."""
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
    """Whether a row goes because its channel is over a bound; the last one always stays."""
    return over(head, keep) and row[0] < (head.fence or head.top)
