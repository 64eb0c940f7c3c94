"""Brokers to test: both engines, a projection that counts, and a record of what was delivered."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from towpath.channels import Channel, thread_channel, user_channel
from towpath.errors import Conflict
from towpath.log.broker import (
    Append,
    Broker,
    IdempotencyKey,
    Item,
    Projection,
    Publication,
    Retention,
    Span,
    Write,
)
from towpath.log.sqlite.broker import SqliteBroker
from towpath.testing.memory_broker import MemoryBroker

ENGINES = ("memory", "sqlite")
TALK = thread_channel("acme", "alice", "t1")
OTHER = thread_channel("acme", "alice", "t2")
NOTICES = user_channel("acme", "alice")
AMPLE = Retention(publications=100_000, bytes=1 << 30, seconds=1e9, since_last=True)


class Notes:
    """A projection: every fact is a note. Some notes are refused, or cannot be taken.

    The note "no" is refused; "odd", "deep" and "twice" raise what a mistake in a projection raises.
    """

    def create(self, db: sqlite3.Connection, version: int) -> None:
        if version == 0:
            db.execute("CREATE TABLE notes (text TEXT)")
            db.execute("CREATE TABLE once (n INTEGER PRIMARY KEY)")

    def carry_over(
        self, old: sqlite3.Connection, new: sqlite3.Connection, at: float
    ) -> dict[str, int]:
        return {}

    def apply(self, db: sqlite3.Connection, fact: object, spans: Sequence[Span]) -> None:
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
        """Return what one channel's readers heard."""
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
        projection: Projection | None = None,
    ) -> AsyncIterator[Broker]:
        """Run a broker; for SQLite each one continues where the last one stopped."""
        notes = projection or Notes()
        broker: Broker
        if self.kind == "memory":
            broker = MemoryBroker(self.deliveries, notes, retention=retention, now=clock)
        else:
            broker = SqliteBroker(self.path, self.deliveries, notes, retention=retention, now=clock)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.stop()


def items(*texts: str) -> tuple[Item, ...]:
    """Return items that say these texts."""
    return tuple(Item(text.encode(), {"text": text}) for text in texts)


def text_write(*texts: str, channel: Channel = TALK, after: int | None = None) -> Write:
    """Return a write of these texts to one channel."""
    return Write((Append(channel, items(*texts), after=after),))


def keyed_write(request_id: str, text: str, *, digest: str = "same", note: str = "yes") -> Write:
    """Return a keyed write whose result is where it stands."""
    return Write(
        (Append(TALK, items(text)),),
        (note,),
        key=IdempotencyKey(("acme", "alice", "run.start"), request_id, digest),
        result=lambda spans: str(spans[0].first).encode(),
    )


async def notes_of(broker: Broker) -> list[str]:
    """Return the notes the projection holds."""
    return await broker.query(
        lambda db: [row[0] for row in db.execute("SELECT text FROM notes ORDER BY rowid")]
    )
