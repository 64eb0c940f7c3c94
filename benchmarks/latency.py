"""How much later people see what an agent said, with many runs going on at once.

The same load goes to the gateway and to a plain Starlette loop, one after the other.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import uvloop

from benchmarks import servers
from benchmarks.arrivals import Arrivals
from benchmarks.figures import Measure, Sample, percentile
from benchmarks.load import LoadError, open_client, open_link, undisturbed
from benchmarks.machine import Usage
from benchmarks.peers.starlette_loop import PATH
from benchmarks.stamps import Tally, ask, until_over
from towpath.testing.server import ServerProcess

SHARES = (50, 99)
"""Which percentiles are told."""
SPREAD_SECONDS = 2.0
"""Runs begin spread over this time, so their deltas do not come in step."""
GRACE_SECONDS = 30.0
"""How long after the last delta is due a run may take to end."""

LOST = Measure("lost events", "events", zero=True)
DUPLICATED = Measure("duplicated events", "events", zero=True)
REORDERED = Measure("reordered events", "events", zero=True)
FAILED = Measure("runs that did not finish well", "runs", zero=True)


@dataclass(frozen=True, slots=True)
class Latency:
    """Concurrent runs, each of another user with one connection."""

    name = "latency"
    users: int
    events: int
    """Of each run."""
    rate: float
    """Of each run, per second."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"{self.users} concurrent runs of {self.events} deltas at {self.rate:g}/s each, "
            "one connection each"
        )

    def sample(self) -> Sample:
        """Measure once."""
        with servers.gateway() as (running, process):
            ours = uvloop.run(self._gateway(running, process))
        with servers.starlette_loop() as running:
            theirs = uvloop.run(self._starlette(running))
        return _named("gateway", ours) | _named("Starlette loop", theirs) | _ratios(ours, theirs)

    async def _gateway(self, running: servers.Running, process: ServerProcess) -> Sample:
        await self._warm_up(running, process)
        tallies = [Tally(Arrivals(self.events)) for _ in range(self.users)]
        clients = []
        for at, tally in enumerate(tallies):
            client = await open_client(running.port, process.token(f"user{at}"), tally.take)
            await client.create(f"t{at}")
            await client.read(f"t{at}")
            clients.append(client)

        async def start(at: int) -> None:
            await clients[at].start("stamped", f"t{at}", ask(self.events, self.rate))

        return await self._measure(running, tallies, start)

    async def _starlette(self, running: servers.Running) -> Sample:
        tallies = [Tally(Arrivals(self.events)) for _ in range(self.users)]
        links = [await open_link(running.port, PATH, tally.take, lambda: None) for tally in tallies]

        async def start(at: int) -> None:
            links[at].send(ask(self.events, self.rate).encode())

        return await self._measure(running, tallies, start)

    async def _warm_up(self, running: servers.Running, process: ServerProcess) -> None:
        """Have one short run, so that nothing is loaded or opened for the first time later."""
        tally = Tally(Arrivals(20))
        client = await open_client(running.port, process.token("warm"), tally.take)
        await client.create("warm")
        await client.read("warm")
        await client.start("stamped", "warm", ask(20, 100))
        await until_over([tally], GRACE_SECONDS)
        if not tally.finished:
            raise LoadError("the warm-up did not end well")
        client.link.drop()

    async def _measure(
        self,
        running: servers.Running,
        tallies: Sequence[Tally],
        start: Callable[[int], Awaitable[None]],
    ) -> Sample:
        """Begin all runs, wait for their ends, and say what came of them."""
        delays = random.Random(1)
        request = [0] * self.users

        async def begin(at: int, delay: float) -> None:
            await asyncio.sleep(delay)
            request[at] = time.monotonic_ns()
            await start(at)

        with undisturbed():
            before = Usage.now(running.pid)
            async with asyncio.TaskGroup() as group:
                for at in range(self.users):
                    group.create_task(begin(at, delays.uniform(0, SPREAD_SECONDS)))
            await until_over(tallies, self.events / self.rate + GRACE_SECONDS)
            usage = Usage.now(running.pid).since(before)
        return _outcome(tallies, request) | usage


def _outcome(tallies: Sequence[Tally], request: Sequence[int]) -> Sample:
    begins = [
        tally.started - at for tally, at in zip(tallies, request, strict=True) if tally.started
    ]
    sample: Sample = {}
    for what, nanoseconds in (
        ("run.start to RUN_STARTED", begins),
        ("event since made", [value for tally in tallies for value in tally.since_made]),
        ("event since due", [value for tally in tallies for value in tally.since_due]),
    ):
        if not nanoseconds:
            raise LoadError(f"{what}: nothing came")
        for share in SHARES:
            sample[Measure(f"{what}, p{share}", "ms")] = percentile(nanoseconds, share) / 1e6
    sample[LOST] = sum(tally.arrivals.lost for tally in tallies)
    sample[DUPLICATED] = sum(tally.arrivals.duplicated for tally in tallies)
    sample[REORDERED] = sum(tally.arrivals.reordered for tally in tallies)
    sample[FAILED] = sum(not tally.finished for tally in tallies)
    return sample


def _named(server: str, sample: Sample) -> Sample:
    return {
        Measure(f"{server}: {measure.name}", measure.unit, measure.zero): value
        for measure, value in sample.items()
    }


def _ratios(ours: Sample, theirs: Sample) -> Sample:
    return {
        Measure(f"ratio: {measure.name}", "gateway ÷ Starlette"): ours[measure] / theirs[measure]
        for measure in ours
        if measure.unit == "ms"
    }


FULL = Latency(users=100, events=500, rate=50)
QUICK = Latency(users=10, events=50, rate=50)
