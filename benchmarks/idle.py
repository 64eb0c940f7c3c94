"""The cost of an idle connection, and the rate at which connections are accepted."""

import asyncio
import time
from dataclasses import dataclass

import uvloop

from benchmarks import servers
from benchmarks.figures import Measure, Sample
from benchmarks.load import Client, ignore, open_client, undisturbed
from benchmarks.machine import Usage, resident_kib
from towpath.testing.server import ServerProcess

OPENING = 64
"""How many connections are being opened at the same time."""
SETTLED_KIB = 64
"""Memory has settled when it moves less than this …"""
SETTLED_READINGS = 4
"""… over so many readings, a quarter of a second apart."""
SETTLE_SECONDS = 10.0

RSS_EMPTY = Measure("server RSS without connections", "KiB")
RSS_FULL = Measure("server RSS with all connections", "KiB")
PER_CONNECTION = Measure("RSS per connection", "KiB")
CONNECTS = Measure("connects", "/s")
CLOSED = Measure("connections that did not stay", "connections", zero=True)


@dataclass(frozen=True, slots=True)
class Idle:
    """Connections that have logged in, read their server-side channels, and do nothing."""

    name = "idle"
    users: int
    connections: int
    """Of each user."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        total = self.users * self.connections
        return (
            f"{total} connections, {self.users} users with {self.connections} each, "
            "a token for each connection"
        )

    def sample(self) -> Sample:
        """Measure once."""
        with servers.gateway() as (running, process):
            return uvloop.run(self._load(running, process))

    async def _load(self, running: servers.Running, process: ServerProcess) -> Sample:
        ended = asyncio.Event()

        def receive(message: bytes, now: int) -> None:
            if b'"type":"RUN_FINISHED"' in message:
                ended.set()

        keeper = await open_client(running.port, process.token("keeper"), receive)
        await keeper.create("keeper")
        await keeper.read("keeper")
        await _warm_up(running, process)

        async def resident() -> int:
            ended.clear()
            await keeper.start("collect", "keeper", f"at {time.monotonic_ns()}")
            async with asyncio.timeout(SETTLE_SECONDS):
                await ended.wait()
            return await _settled(running.pid)

        empty = await resident()
        tokens = [
            process.token(f"user{user}")
            for user in range(self.users)
            for _ in range(self.connections)
        ]
        with undisturbed():
            before = Usage.now(running.pid)
            clients = await _open_all(running.port, tokens)
            after = Usage.now(running.pid)
        full = await resident()
        return {
            RSS_EMPTY: empty,
            RSS_FULL: full,
            PER_CONNECTION: (full - empty) / len(tokens),
            CONNECTS: len(tokens) / (after.at - before.at),
            CLOSED: sum(client.close_code is not None for client in clients),
            **after.since(before),
        }


async def _open_all(port: int, tokens: list[str]) -> list[Client]:
    """Open a connection for each token, `OPENING` at a time."""
    waiting = iter(tokens)
    clients: list[Client] = []

    async def open_some() -> None:
        for token in waiting:
            clients.append(await open_client(port, token, ignore))

    async with asyncio.TaskGroup() as group:
        for _ in range(OPENING):
            group.create_task(open_some())
    return clients


async def _warm_up(running: servers.Running, process: ServerProcess) -> None:
    """Open and drop a few connections, so that what the first one loads is not counted."""
    tokens = [process.token("warm") for _ in range(20)]
    for client in await _open_all(running.port, tokens):
        client.link.drop()


async def _settled(pid: int) -> int:
    """Return the resident set once it no longer moves."""
    deadline = time.monotonic() + SETTLE_SECONDS
    readings = [resident_kib(pid)]
    while time.monotonic() < deadline:
        await asyncio.sleep(0.25)
        readings = [*readings, resident_kib(pid)][-SETTLED_READINGS:]
        if len(readings) == SETTLED_READINGS and max(readings) - min(readings) < SETTLED_KIB:
            break
    return readings[-1]


FULL = Idle(users=100, connections=20)
QUICK = Idle(users=10, connections=10)
