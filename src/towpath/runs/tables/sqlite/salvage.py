"""Copies the intact rows of a damaged log's tables into a new one.

A thread is copied only if its row and all its messages are intact and none is missing. Its runs,
their interrupts and its queued runs are copied with it. A run that was in progress has lost its
events, so it cannot get an ending: its status is `lost`, without an event. Clients notice by the
new epoch.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping

from towpath.channels import thread_channel
from towpath.log.sqlite.health import ERRORS
from towpath.log.sqlite.integrity import checksums
from towpath.log.sqlite.integrity.quarantine import Row, put, readable, table_of
from towpath.runs.model import Status

Key = tuple[object, object, object]
"""Tenant, user, thread."""


def carry_over(old: sqlite3.Connection, new: sqlite3.Connection, at: float) -> Mapping[str, int]:
    """Copy the intact rows; see `towpath.log.broker.Projection`."""
    count: Counter[str] = Counter(threads=0, runs=0, lost_runs=0, interrupts=0, left_out=0)
    threads, count["left_out"] = readable(old, new, "threads")
    taken: set[Key] = set()
    for thread in threads:
        messages = _messages(old, new, thread)
        if messages is None:
            count["left_out"] += 1
            continue
        taken.add((thread["tenant"], thread["user"], thread["id"]))
        put(new, "threads", thread)
        for message in messages:
            put(new, "messages", message)
        _continue_channel(new, thread, at)
        count["threads"] += 1
    queued = _of(taken, readable(old, new, "queued")[0])
    waiting = {(row["tenant"], row["user"], row["run"]): row for row in queued}
    for run in _of(taken, readable(old, new, "runs")[0]):
        place = waiting.get((run["tenant"], run["user"], run["id"]))
        if run["status"] == Status.PENDING.value and place is not None:
            put(new, "queued", place)
        elif run["ended"] is None:
            run.update(status=Status.LOST.value, code="run.lost", ended=at)
            count["lost_runs"] += 1
        put(new, "runs", run)
        count["runs"] += 1
    known = set(new.execute("SELECT tenant, user, id FROM runs"))
    for interrupt in _of(taken, readable(old, new, "interrupts")[0]):
        if (interrupt["tenant"], interrupt["user"], interrupt["run"]) in known:
            put(new, "interrupts", interrupt)
            count["interrupts"] += 1
    return count


def _of(threads: set[Key], rows: Iterable[Row]) -> Iterable[Row]:
    return (row for row in rows if (row["tenant"], row["user"], row["thread"]) in threads)


def _messages(old: sqlite3.Connection, new: sqlite3.Connection, thread: Row) -> list[Row] | None:
    """Return a thread's messages; None if one of them is damaged or missing."""
    table = table_of(old, new, "messages")
    if table is None:
        return None
    columns = (thread["tenant"], thread["user"], thread["id"])
    try:
        rows = old.execute(
            f"SELECT crc, {', '.join(table.columns)} FROM main.messages"
            " WHERE tenant=? AND user=? AND thread=? ORDER BY place",
            columns,
        ).fetchall()
    except ERRORS:
        return None
    found = [dict(zip(table.columns, row[1:], strict=True)) for row in rows]
    whole = all(row[0] is not None and checksums.intact("messages", *row) for row in rows)
    in_place = [row["place"] for row in found] == list(range(len(found)))
    counted = thread["messages"] in (None, len(found))
    return found if whole and in_place and counted else None


def _continue_channel(new: sqlite3.Connection, thread: Row, at: float) -> None:
    """Continue the thread's offsets after those that its readers may have received."""
    channel = thread_channel(str(thread["tenant"]), str(thread["user"]), str(thread["id"]))
    new.execute(
        "INSERT INTO channels (tenant, name, top, publications, bytes, updated)"
        " VALUES (?, ?, ?, 0, 0, ?)",
        (channel.tenant, channel.name, thread["offset"], at),
    )
