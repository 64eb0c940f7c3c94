"""Copies what can be read of a damaged log's tables into a new file.

A thread is copied only if its row and all its messages are intact and none is missing. Its runs,
their interrupts and its queued runs are copied with it, each if its row is intact. A run that was
in progress stays unfinished: it gets its ending from the gateway, like after every stop.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping

from towpath.errors import RowDamaged
from towpath.log.sqlite.heads import raise_floor
from towpath.log.sqlite.health import ERRORS
from towpath.log.sqlite.integrity.carry_over import readable
from towpath.runs.model import Status
from towpath.runs.tables.sqlite.interrupts import INTERRUPTS
from towpath.runs.tables.sqlite.queue import QUEUED
from towpath.runs.tables.sqlite.runs import RUNS
from towpath.runs.tables.sqlite.threads import MESSAGES, THREADS, MessageColumns, ThreadColumns


def carry_over(old: sqlite3.Connection, new: sqlite3.Connection) -> Mapping[str, int]:
    """Copy the intact rows; see `towpath.log.sqlite.projection.SqliteProjection`."""
    count: Counter[str] = Counter(threads=0, messages=0, runs=0, interrupts=0, queued=0, left_out=0)
    copied = set()
    for thread in readable(old, THREADS):
        messages = None if thread is None else _messages(old, thread)
        if thread is None or messages is None:
            count["left_out"] += 1
            continue
        copied.add((thread.tenant, thread.user, thread.id))
        THREADS.insert(new, thread)
        for message in messages:
            MESSAGES.insert(new, message)
        # The log after the thread's offset continues the thread, also if its channel is left out.
        raise_floor(new, thread.offset)
        count["threads"] += 1
        count["messages"] += len(messages)
    waiting = set()
    for queued in readable(old, QUEUED):
        if queued is None:
            count["left_out"] += 1
        elif (queued.tenant, queued.user, queued.thread) in copied:
            QUEUED.insert(new, queued)
            waiting.add((queued.tenant, queued.user, queued.run))
            count["queued"] += 1
    known = set()
    for run in readable(old, RUNS):
        if run is None:
            count["left_out"] += 1
        elif (run.tenant, run.user, run.thread) in copied:
            key = (run.tenant, run.user, run.id)
            if run.status == Status.PENDING.value and key not in waiting:
                count["left_out"] += 1  # What it was to do is lost, so it can never begin.
                continue
            RUNS.insert(new, run)
            known.add(key)
            count["runs"] += 1
    for interrupt in readable(old, INTERRUPTS):
        if interrupt is None:
            count["left_out"] += 1
        elif (interrupt.tenant, interrupt.user, interrupt.run) in known:
            INTERRUPTS.insert(new, interrupt)
            count["interrupts"] += 1
    # A queued run without its row could never begin either.
    for tenant, user, run_id in waiting - known:
        new.execute(
            "DELETE FROM queued WHERE tenant=? AND user=? AND run=?", (tenant, user, run_id)
        )
    return count


def _messages(old: sqlite3.Connection, thread: ThreadColumns) -> list[MessageColumns] | None:
    """Return a thread's messages; None if one of them is damaged or missing."""
    where = "WHERE tenant=? AND user=? AND thread=? ORDER BY place"
    try:
        found = list(MESSAGES.rows(old, where, (thread.tenant, thread.user, thread.id)))
    except (*ERRORS, RowDamaged):
        return None
    in_place = [one.place for one in found] == list(range(len(found)))
    return found if in_place and thread.messages in (None, len(found)) else None
