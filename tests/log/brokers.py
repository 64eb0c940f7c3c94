"""Brokers to test: both engines, a projection that counts, and a record of what was delivered."""

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from towpath.channels import Channel, thread_channel, user_channel
from towpath.errors import Conflict
from towpath.log.broker import (
    Append,
    Broker,
    IdempotencyKey,
    Item,
    OnEpoch,
    Publication,
    Question,
    Retention,
    Span,
    Write,
)
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.projection import SqliteProjection
from towpath.log.sqlite.rows import Table
from towpath.testing.memory_broker import MemoryBroker

ENGINES = ("memory", "sqlite")
TALK = thread_channel("acme", "alice", "t1")
OTHER = thread_channel("acme", "alice", "t2")
NOTICES = user_channel("acme", "alice")
AMPLE = Retention(publications=100_000, bytes=1 << 30, seconds=1e9, since_last=True)


@dataclass(frozen=True)
class AllNotes(Question[list[str]]):
    """All notes, in the order in which they were taken."""


@dataclass(frozen=True)
class Unknown(Question[None]):
    """A question that no projection answers."""


@dataclass(frozen=True)
class Waits:
    """A note that keeps the writer inside a batch until the event is set."""

    go: threading.Event


class Notes:
    """A projection: every fact is a note. Some notes are refused, or cannot be taken.

    The note "no" is refused; "odd", "deep" and "twice" raise what a mistake in a projection raises.
    """

    tables: Sequence[Table[Any]] = ()

    def create(self, db: sqlite3.Connection, version: int) -> None:
        if version == 0:
            db.execute("CREATE TABLE notes (text TEXT)")
            db.execute("CREATE TABLE once (n INTEGER PRIMARY KEY)")

    def is_orphan(self, db: sqlite3.Connection, table: Table[Any], row: Any) -> bool:
        return False

    def carry_over(self, old: sqlite3.Connection, new: sqlite3.Connection) -> dict[str, int]:
        return {}

    def answer(self, db: sqlite3.Connection, question: Question[Any]) -> Any:
        if not isinstance(question, AllNotes):
            raise TypeError("no such question")
        return [row[0] for row in db.execute("SELECT text FROM notes ORDER BY rowid")]

    def apply(self, db: sqlite3.Connection, fact: object, spans: Sequence[Span]) -> None:
        if isinstance(fact, Waits):
            fact.go.wait(10)
        db.execute("INSERT INTO notes VALUES (?)", (str(fact),))
        if fact == "no":
            raise Conflict("the note is refused")
        if fact == "odd":
            raise TypeError("no such fact")
        if fact == "deep":
            raise RecursionError("nested too deep")
        if fact == "twice":
            db.execute("INSERT INTO once VALUES (1)")
            db.execute("INSERT INTO once VALUES (1)")


@dataclass
class Deliveries:
    """What a broker delivered, in order."""

    delivered: list[tuple[Channel, Publication]] = field(default_factory=list)

    def __call__(self, channel: Channel, publications: Sequence[Publication]) -> None:
        self.delivered.extend((channel, publication) for publication in publications)

    def of(self, channel: Channel) -> list[Publication]:
        """Return what was delivered in one channel."""
        return [publication for where, publication in self.delivered if where == channel]


@dataclass
class Engine:
    """Makes brokers of one kind over one place."""

    kind: str
    path: Path
    deliveries: Deliveries = field(default_factory=Deliveries)

    @asynccontextmanager
    async def running(
        self,
        *,
        retention: Callable[[Channel], Retention | None] = lambda _: AMPLE,
        clock: Callable[[], float] = lambda: 1_000.0,
        projection: SqliteProjection | None = None,
        attached: Sequence[Channel] = (TALK, OTHER, NOTICES),
        on_epoch: OnEpoch = lambda _: None,
    ) -> AsyncIterator[Broker]:
        """Run a broker that delivers these channels.

        For SQLite each one continues where the last one stopped.
        """
        notes = projection or Notes()
        broker: Broker
        if self.kind == "memory":
            broker = MemoryBroker(
                self.deliveries, on_epoch, projection=notes, retention=retention, now=clock
            )
        else:
            broker = SqliteBroker(
                self.path,
                self.deliveries,
                notes,
                on_epoch=on_epoch,
                retention=retention,
                now=clock,
            )
        await broker.start()
        for channel in attached:
            broker.attach(channel)
        try:
            yield broker
        finally:
            await broker.stop()


def items(*texts: str) -> tuple[Item, ...]:
    """Return items with these texts."""
    return tuple(Item(text.encode(), {"text": text}) for text in texts)


def text_write(*texts: str, channel: Channel = TALK, after: int | None = None) -> Write:
    """Return a write of these texts to one channel."""
    return Write((Append(channel, items(*texts), after=after),))


def keyed_write(request_id: str, text: str, *, digest: str = "same", note: str = "yes") -> Write:
    """Return a keyed write whose result is its text."""
    return Write(
        (Append(TALK, items(text)),),
        (note,),
        key=IdempotencyKey(("acme", "alice", "run.start"), request_id, digest),
        result=text.encode(),
    )


async def notes_of(broker: Broker) -> list[str]:
    """Return the notes the projection holds."""
    return await broker.ask(AllNotes())
