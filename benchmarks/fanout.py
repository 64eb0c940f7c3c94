"""How many publications a second reach their readers, when agents speak as fast as they can."""

import asyncio
import json
from dataclasses import dataclass, field

import uvloop

from benchmarks import servers
from benchmarks.figures import Measure, Sample
from benchmarks.load import Client, open_client, undisturbed
from benchmarks.machine import Usage
from towpath.testing.server import ServerProcess

FRAME_EVENTS = 4
"""Events of a counting run beside its deltas: run and message begin and end."""
TIMEOUT = 600.0
"""Seconds, as many as a run may take, until a reader without an end counts as cut off."""
TAIL_BYTES = 4096
"""The end of a run stands in the last bytes of a message, if it is there."""

DELIVERED = Measure("delivered, all readers together", "publications/s")
PUBLISHED = Measure("published, all threads together", "publications/s")
BYTES = Measure("received", "MB/s")
GATHERED = Measure("gathered in one message", "publications")
SHORT = Measure("readers that did not get everything", "readers", zero=True)
CLOSED = Measure("connections that did not stay", "connections", zero=True)
WRONG = Measure("threads whose text was not what was said", "threads", zero=True)


@dataclass(slots=True)
class Reader:
    """Counts the publications of one thread on one connection."""

    keeps: bool
    """Whether it keeps what came, to be read afterwards."""
    publications: int = 0
    messages: int = 0
    size: int = 0
    last: int = 0
    """When the last message came, in nanoseconds."""
    ended: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)
    kept: list[bytes] = field(default_factory=list)

    def receive(self, message: bytes, now: int) -> None:
        """Take one message."""
        self.publications += message.count(b'{"push":{"channel":"thread:')
        self.messages += 1
        self.size += len(message)
        self.last = now
        if self.keeps:
            self.kept.append(message)
        if message.find(b'"type":"RUN_', max(0, len(message) - TAIL_BYTES)) >= 0:
            tail = message[-TAIL_BYTES:]
            if b'"type":"RUN_FINISHED"' in tail or b'"type":"RUN_ERROR"' in tail:
                self.ended = True
                self.done.set()

    def text(self) -> str:
        """Return what the agent said, as it came."""
        lines = [line for message in self.kept for line in message.split(b"\n")]
        deltas = (
            json.loads(line)["push"]["pub"]["data"].get("delta", "")
            for line in lines
            if line.startswith(b'{"push":{"channel":"thread:') and b'"pub"' in line
        )
        return "".join(deltas)


@dataclass(frozen=True, slots=True)
class Fanout:
    """Users with several connections, all of them reading the user's one thread."""

    name = "fanout"
    users: int
    connections: int
    """Of each user."""
    count: int
    """How many deltas each run has."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"{self.users} users with {self.connections} connections each read their "
            f"user's thread, in each an unpaced `count {self.count}`"
        )

    def sample(self) -> Sample:
        """Measure once."""
        with servers.gateway() as (running, process):
            return uvloop.run(self._load(running, process))

    async def _load(self, running: servers.Running, process: ServerProcess) -> Sample:
        threads = [
            [Reader(keeps=at == 0) for at in range(self.connections)] for _ in range(self.users)
        ]
        clients: list[Client] = []
        for user, readers in enumerate(threads):
            token = process.token(f"user{user}")
            mine = [await open_client(running.port, token, reader.receive) for reader in readers]
            await mine[0].create(f"t{user}")
            for client in mine:
                await client.read(f"t{user}")
            clients += mine
        starters = clients[:: self.connections]
        everyone = [reader for readers in threads for reader in readers]
        with undisturbed():
            before = Usage.now(running.pid)
            async with asyncio.TaskGroup() as group:
                for user, client in enumerate(starters):
                    group.create_task(client.start("tools", f"t{user}", f"count {self.count}"))
            await _until_done(clients, everyone)
            usage = Usage.now(running.pid).since(before)
        seconds = max(reader.last for reader in everyone) / 1e9 - before.at
        closed = sum(client.close_code is not None for client in clients)
        return self._outcome(threads, seconds) | {CLOSED: closed} | usage

    def _outcome(self, threads: list[list[Reader]], seconds: float) -> Sample:
        everyone = [reader for readers in threads for reader in readers]
        delivered = sum(reader.publications for reader in everyone)
        expected = self.count + FRAME_EVENTS
        said = " ".join(map(str, range(1, self.count + 1)))
        return {
            DELIVERED: delivered / seconds,
            PUBLISHED: sum(readers[0].publications for readers in threads) / seconds,
            BYTES: sum(reader.size for reader in everyone) / seconds / 1e6,
            GATHERED: delivered / max(1, sum(reader.messages for reader in everyone)),
            SHORT: sum(not reader.ended or reader.publications != expected for reader in everyone),
            WRONG: sum(readers[0].text() != said for readers in threads),
        }


async def _until_done(clients: list[Client], readers: list[Reader]) -> None:
    """Wait until every reader has seen the end of its run, or its connection is over."""

    async def one(client: Client, reader: Reader) -> None:
        gone = asyncio.create_task(client.gone.wait())
        done = asyncio.create_task(reader.done.wait())
        await asyncio.wait((gone, done), timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        for task in (gone, done):
            task.cancel()

    await asyncio.gather(*map(one, clients, readers))


FULL = Fanout(users=10, connections=20, count=20_000)
QUICK = Fanout(users=3, connections=5, count=500)
