"""The store: reads threads, messages and runs from the projection.

A query for a client names the person, and returns only that person's rows. The other queries are
for the gateway itself.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from towpath.errors import LogCorrupted
from towpath.events.fold import Fold
from towpath.events.types import Message
from towpath.runs.interrupts import Interrupt
from towpath.runs.model import Queued, RunKey, RunRecord, Status
from towpath.runs.tables.sqlite import interrupts, queue
from towpath.runs.tables.sqlite.projection import ThreadKey, has_active_run

T = TypeVar("T")


class Tables(Protocol):
    """Reads the tables of the projection."""

    async def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function in one read transaction; StorageError if the log cannot be read now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The stored part of a thread: everything up to its last terminal event."""

    messages: list[Message] = field(default_factory=list)
    state: Any = None
    offset: int = 0


class ThreadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A thread as a list shows it. Times are Unix seconds."""

    id: str
    title: str
    created_at: float
    updated_at: float
    active_run: str | None
    """The run that goes on now."""


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run as `run.get` shows it. Times are Unix seconds."""

    run_id: str
    thread_id: str
    agent: str
    status: str
    code: str | None
    started_at: float
    ended_at: float | None


class StoredThread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread up to its last terminal event."""

    row: ThreadRow
    offset: int
    """The offset of that event; the log continues after it."""
    state: Any
    last_run: tuple[dict[str, Any], dict[str, Any]] | None
    messages: list[Message]

    def fold(self) -> Fold:
        """Return the fold that the log after `offset` continues."""
        return Fold(self.messages, state=self.state, last_run=self.last_run)


_THREAD = (
    "SELECT id, title, created, updated, (SELECT runs.id FROM runs WHERE runs.tenant="
    "threads.tenant AND runs.user=threads.user AND runs.thread=threads.id AND ended IS NULL"
    " AND status!='pending')"
    ", offset, state, last_started, last_ended, messages FROM threads WHERE tenant=? AND user=?"
)
_BEGUN = "ended IS NULL AND status!='pending'"
"""Word for word the condition of the index `runs_active`."""
_RUN = "SELECT runs.tenant, runs.user, id, thread, agent, status, code, started, ended FROM"
_LEASED = (
    # CROSS JOIN keeps this order: a few leases, then the run of each.
    f"{_RUN} leases CROSS JOIN runs ON runs.tenant=leases.tenant AND runs.user=leases.user"
    f" AND runs.id=leases.run WHERE {_BEGUN}"
)


class ThreadStore:
    """Reads the projection."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def threads(
        self, tenant: str, user: str, *, limit: int, before: float | None = None
    ) -> list[ThreadRow]:
        """Return a person's threads that were updated before a time, the latest first."""

        def read(db: sqlite3.Connection) -> list[ThreadRow]:
            rows = db.execute(
                f"{_THREAD} AND updated < ? ORDER BY updated DESC LIMIT ?",
                (tenant, user, before if before is not None else 1e18, limit),
            )
            return [_thread_row(row) for row in rows]

        return await self._tables.query(read)

    async def get(self, tenant: str, user: str, thread: str) -> StoredThread | None:
        """Return a thread with all its messages, oldest first; None if it does not exist."""
        return await self._tables.query(lambda db: _stored(db, (tenant, user, thread)))

    async def exists(self, tenant: str, user: str, thread: str) -> bool:
        """Whether this person has such a thread."""

        def read(db: sqlite3.Connection) -> bool:
            row = db.execute(
                "SELECT 1 FROM threads WHERE tenant=? AND user=? AND id=?", (tenant, user, thread)
            )
            return row.fetchone() is not None

        return await self._tables.query(read)

    async def has_active_run(self, tenant: str, user: str, thread: str) -> bool:
        """Whether a run is active in this thread."""
        key = ThreadKey(tenant=tenant, user=user, id=thread)
        return await self._tables.query(lambda db: has_active_run(db, key))

    async def conversation(self, tenant: str, user: str, thread: str) -> Conversation:
        """Return the conversation of a thread; an empty one if the thread does not exist."""
        stored = await self.get(tenant, user, thread)
        if stored is None:
            return Conversation()
        return Conversation(messages=stored.messages, state=stored.state, offset=stored.offset)

    async def find_run(self, tenant: str, user: str, run: str) -> RunRecord | None:
        """Return the record of a run; None if it does not exist."""

        def read(db: sqlite3.Connection) -> RunRecord | None:
            row = db.execute(
                f"{_RUN} runs WHERE tenant=? AND user=? AND id=?", (tenant, user, run)
            ).fetchone()
            return _record(row) if row else None

        return await self._tables.query(read)

    async def unfinished(self) -> list[RunRecord]:
        """Return every run that has begun and has no terminal event."""
        return await self._tables.query(
            lambda db: [_record(row) for row in db.execute(f"{_RUN} runs WHERE {_BEGUN}")]
        )

    async def abandoned(self, at: float) -> list[RunRecord]:
        """Return the unfinished runs whose lease has expired by a time."""
        over = f"{_LEASED} AND leases.expires <= ?"
        return await self._tables.query(
            lambda db: [_record(row) for row in db.execute(over, (at,))]
        )

    async def held(self, holder: str) -> set[RunKey]:
        """Return the runs whose leases a holder has."""
        held = f"{_LEASED} AND leases.holder = ?"
        return await self._tables.query(
            lambda db: {_record(row).key for row in db.execute(held, (holder,))}
        )

    async def queued(self, tenant: str, user: str, thread: str) -> list[Queued]:
        """Return the runs that wait for a thread, first in, first out."""
        return await self._tables.query(lambda db: queue.waiting(db, tenant, user, thread))

    async def waiting_threads(self) -> list[tuple[str, str, str]]:
        """Return the threads with queued runs: tenant, user, thread."""
        return await self._tables.query(queue.threads)

    async def interrupts(self, tenant: str, user: str, run: str) -> list[Interrupt]:
        """Return the interrupts of a run, in its order."""
        return await self._tables.query(lambda db: interrupts.of_run(db, tenant, user, run))

    async def last_interrupts(self, tenant: str, user: str, thread: str) -> list[Interrupt]:
        """Return the interrupts of the run that ended last in a thread."""
        return await self._tables.query(lambda db: interrupts.of_last_run(db, tenant, user, thread))

    async def expired(self, at: float) -> list[RunKey]:
        """Return the runs whose open interrupts have expired by a time."""
        return await self._tables.query(lambda db: interrupts.expired(db, at))

    async def next_expiry(self) -> float | None:
        """Return when the next open interrupt expires, in Unix seconds."""
        return await self._tables.query(interrupts.next_expiry)

    async def runs(self, tenant: str, user: str, thread: str, *, limit: int) -> list[RunRow]:
        """Return the runs of a thread, the latest first."""

        def read(db: sqlite3.Connection) -> list[RunRow]:
            rows = db.execute(
                f"{_RUN} runs WHERE tenant=? AND user=? AND thread=? ORDER BY started DESC LIMIT ?",
                (tenant, user, thread, limit),
            )
            return [run_row(_record(row)) for row in rows]

        return await self._tables.query(read)


def run_row(record: RunRecord) -> RunRow:
    """Return a run as the wire shows it."""
    return RunRow(
        run_id=record.key.run,
        thread_id=record.key.thread,
        agent=record.key.agent,
        status=record.status.value,
        code=record.code,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def _record(row: tuple[Any, ...]) -> RunRecord:
    tenant, user, run, thread, agent, status, code, started, ended = row
    return RunRecord(
        key=RunKey(tenant=tenant, user=user, thread=thread, run=run, agent=agent),
        status=Status(status),
        code=code,
        started_at=started,
        ended_at=ended,
    )


def _thread_row(row: tuple[Any, ...]) -> ThreadRow:
    return ThreadRow(
        id=row[0], title=row[1], created_at=row[2], updated_at=row[3], active_run=row[4]
    )


def _stored(db: sqlite3.Connection, columns: tuple[str, str, str]) -> StoredThread | None:
    row = db.execute(f"{_THREAD} AND id=?", columns).fetchone()
    if row is None:
        return None
    offset, state, started, ended, count = row[5:]
    bodies = db.execute(
        "SELECT body FROM messages WHERE tenant=? AND user=? AND thread=? ORDER BY place", columns
    ).fetchall()
    if count is not None and count != len(bodies):
        raise LogCorrupted("messages are missing")
    return StoredThread(
        row=_thread_row(row),
        offset=offset,
        state=None if state is None else msgspec.json.decode(state),
        last_run=(msgspec.json.decode(started), msgspec.json.decode(ended)) if ended else None,
        messages=[msgspec.json.decode(body) for (body,) in bodies],
    )
