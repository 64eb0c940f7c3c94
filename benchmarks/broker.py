"""What it costs to have every publication on disk before anybody sees it.

The embedded log against the log in memory, both in this process, driven alike.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from benchmarks.figures import Measure, Sample
from benchmarks.machine import on_server_core
from towpath.channels import Channel, thread_channel
from towpath.log.broker import Append, Broker, Deliver, Item, Write, Written
from towpath.log.sqlite.broker import SqliteBroker
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.testing.memory_broker import MemoryBroker

LOST = Measure("publications not delivered", "publications", zero=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One way of producing."""

    title: str
    producers: int
    one_by_one: bool = False
    """Whether a producer waits for each publication before the next."""


CASES = (
    Case("1 producer", 1),
    Case("100 producers", 100),
    Case("1 producer, one by one", 1, one_by_one=True),
)


@dataclass(frozen=True, slots=True)
class BrokerCost:
    """Single publications, submitted as fast as the log has room for them."""

    name = "broker"
    total: int
    """Publications of each case."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"{self.total} single publications of about 100 bytes, submitted as fast as "
            "`room()` allows, `synchronous` NORMAL"
        )

    def sample(self) -> Sample:
        """Measure once."""
        sample: Sample = {LOST: 0}
        with on_server_core():
            for case in CASES:
                rates = {}
                for kind in ("SQLite", "memory"):
                    delivered, elapsed, cpu = uvloop.run(self._produce(kind, case))
                    rates[kind] = delivered / elapsed
                    sample[LOST] += self.total - delivered
                    sample[Measure(f"{case.title}: {kind}", "appends/s")] = rates[kind]
                    cost = cpu / self.total * 1e6
                    sample[Measure(f"{case.title}: {kind}, CPU", "µs/publication")] = cost
                ratio = Measure(f"{case.title}: ratio", "SQLite ÷ memory")
                sample[ratio] = rates["SQLite"] / rates["memory"]
        return sample

    async def _produce(self, kind: str, case: Case) -> tuple[int, float, float]:
        """Return how many were delivered, in how many seconds, with how much CPU time."""
        delivered = 0

        def deliver(channel: Channel, publications: object) -> None:
            nonlocal delivered
            delivered += len(publications)  # type: ignore[arg-type]

        async with _broker(kind, deliver) as broker:
            began, cpu = time.perf_counter(), time.process_time()
            async with asyncio.TaskGroup() as group:
                for at in range(case.producers):
                    share = self.total // case.producers
                    group.create_task(_submit(broker, f"t{at}", share, wait=case.one_by_one))
            return delivered, time.perf_counter() - began, time.process_time() - cpu


async def _submit(broker: Broker, thread: str, count: int, *, wait: bool) -> None:
    """Publish into a thread, and wait until all of it is durable and delivered."""
    channel = thread_channel("acme", "alice", thread)
    broker.attach(channel)
    tags = {"thread": thread, "run": "0" * 32, "agent": "tools", "seq": "1"}
    event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "0" * 32, "delta": "token "}
    item = Item(msgspec.json.encode(event), tags)
    future: asyncio.Future[Written] | None = None
    for _ in range(count):
        await broker.room()
        future = broker.submit(Write((Append(channel, (item,)),)))
        if wait:
            await future
    if future is not None:
        await future


@asynccontextmanager
async def _broker(kind: str, deliver: Deliver) -> AsyncIterator[Broker]:
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
        broker: Broker = (
            SqliteBroker(Path(folder, "towpath.db"), deliver, ThreadProjection())
            if kind == "SQLite"
            else MemoryBroker(deliver)
        )
        await broker.start()
        try:
            yield broker
        finally:
            await broker.stop()


FULL = BrokerCost(total=60_000)
QUICK = BrokerCost(total=5_000)
