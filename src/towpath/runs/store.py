"""The store: reads threads, messages and runs from the projection.

A query for a client names the person, and returns only that person's rows. The other queries are
for the gateway itself.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from towpath.events.types import Message
from towpath.log.broker import Question
from towpath.runs.interrupts import Interrupt
from towpath.runs.model import Queued, RunKey, RunRecord
from towpath.runs.questions import (
    ExpiredInterrupts,
    HasActiveRun,
    InterruptsOfLastRun,
    InterruptsOfRun,
    NextExpiry,
    QueuedRuns,
    RunById,
    RunsOfThread,
    StoredThread,
    ThreadById,
    ThreadExists,
    ThreadRow,
    ThreadsOfUser,
    ThreadsWithQueue,
    UnfinishedRuns,
)

R = TypeVar("R")


class Tables(Protocol):
    """The part of a broker that answers questions."""

    async def ask(self, question: Question[R]) -> R:
        """Return the projection's answer; see `towpath.log.broker.Broker.ask`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The stored part of a thread: everything up to its last terminal event."""

    messages: list[Message] = field(default_factory=list)
    state: Any = None
    offset: int = 0


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run as `run.get` shows it. Times are Unix seconds."""

    run_id: str
    thread_id: str
    agent: str
    status: str
    code: str | None
    started_at: float
    ended_at: float | None


class ThreadStore:
    """Reads the projection.

    A method about one thread or one run raises RowDamaged if what is stored of it is damaged. Each
    method raises StorageError if the log cannot be read now.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def threads(
        self, tenant: str, user: str, *, limit: int, before: float | None = None
    ) -> list[ThreadRow]:
        """Return a person's threads that were updated before a time, the latest first."""
        return await self._tables.ask(ThreadsOfUser(tenant, user, limit, before))

    async def get(self, tenant: str, user: str, thread: str) -> StoredThread | None:
        """Return a thread with all its messages, oldest first; None if it does not exist."""
        return await self._tables.ask(ThreadById(tenant, user, thread))

    async def exists(self, tenant: str, user: str, thread: str) -> bool:
        """Whether this person has such a thread."""
        return await self._tables.ask(ThreadExists(tenant, user, thread))

    async def has_active_run(self, tenant: str, user: str, thread: str) -> bool:
        """Whether a run is active in this thread."""
        return await self._tables.ask(HasActiveRun(tenant, user, thread))

    async def conversation(self, tenant: str, user: str, thread: str) -> Conversation:
        """Return the conversation of a thread; an empty one if the thread does not exist."""
        stored = await self.get(tenant, user, thread)
        if stored is None:
            return Conversation()
        return Conversation(messages=stored.messages, state=stored.state, offset=stored.offset)

    async def find_run(self, tenant: str, user: str, run: str) -> RunRecord | None:
        """Return the record of a run; None if it does not exist."""
        return await self._tables.ask(RunById(tenant, user, run))

    async def unfinished(self) -> list[RunRecord]:
        """Return every run that has begun and has no terminal event."""
        return await self._tables.ask(UnfinishedRuns())

    async def queued(self, tenant: str, user: str, thread: str) -> list[Queued]:
        """Return the runs that wait for a thread, first in, first out."""
        return await self._tables.ask(QueuedRuns(tenant, user, thread))

    async def waiting_threads(self) -> list[tuple[str, str, str]]:
        """Return the threads with queued runs: tenant, user, thread."""
        return await self._tables.ask(ThreadsWithQueue())

    async def interrupts(self, tenant: str, user: str, run: str) -> list[Interrupt]:
        """Return the interrupts of a run, in its order."""
        return await self._tables.ask(InterruptsOfRun(tenant, user, run))

    async def last_interrupts(self, tenant: str, user: str, thread: str) -> list[Interrupt]:
        """Return the interrupts of the run that ended last in a thread."""
        return await self._tables.ask(InterruptsOfLastRun(tenant, user, thread))

    async def expired(self, at: float) -> list[RunKey]:
        """Return the runs whose open interrupts have expired by a time."""
        return await self._tables.ask(ExpiredInterrupts(at))

    async def next_expiry(self) -> float | None:
        """Return when the next open interrupt expires, in Unix seconds."""
        return await self._tables.ask(NextExpiry())

    async def runs(self, tenant: str, user: str, thread: str, *, limit: int) -> list[RunRow]:
        """Return the runs of a thread, the latest first."""
        records = await self._tables.ask(RunsOfThread(tenant, user, thread, limit))
        return [run_row(record) for record in records]


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
