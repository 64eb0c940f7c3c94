"""Whether many fast readers notice one that is slow, and whether the slow one ends with the text.

The same load goes to two servers, one after the other: many people read paced runs of their own,
and one reader follows a thread in which much is said. On the first server that reader takes what
comes, on the second a thousand bytes a second, until the fast readers are done; then it takes what
is left at once. So whatever differs comes from its slowness.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

import uvloop

from benchmarks import servers
from benchmarks.arrivals import Arrivals
from benchmarks.figures import Measure, Sample, percentile
from benchmarks.follower import FRAME_EVENTS, Follower
from benchmarks.load import Client, LoadError, ignore, open_client, undisturbed
from benchmarks.machine import Usage, resident_kib
from benchmarks.stamps import Tally, ask, until_over
from benchmarks.workload import Speech
from towpath import codes
from towpath.testing.server import ServerProcess

SHARES = (50, 99)
"""Which percentiles are told."""
SLOW_RATE = 1_000.0
"""Bytes a second the slow reader takes."""
COME_BACK_SECONDS = 0.5
"""How long it waits before it comes back, when it was sent away."""
PATIENCE_SECONDS = 600.0
"""How long it waits for an answer that comes a little at a time."""
READING_SECONDS = 2.0
"""How often the server's memory is looked at."""
SPREAD_SECONDS = 2.0
"""Runs begin spread over this time, so their deltas do not come in step."""
GRACE_SECONDS = 60.0
"""How long after the last word is due a run may take to end, and the reader to have it all."""

DELIVERED = Measure("delivered to fast readers", "publications/s")
LOST = Measure("lost events", "events", zero=True)
DUPLICATED = Measure("duplicated events", "events", zero=True)
REORDERED = Measure("reordered events", "events", zero=True)
FAILED = Measure("runs that did not finish well", "runs", zero=True)
CLOSED = Measure("fast connections that did not stay", "connections", zero=True)
RSS = Measure("server RSS, highest", "KiB")
WAITING = Measure("waiting in outboxes and rings, highest", "KiB")
WRONG = Measure("the one reader: texts that differ", "texts", zero=True)
GAPS = Measure("the one reader: events lost, duplicated or reordered", "events", zero=True)
REFUSED = Measure("the one reader: positions not honoured", "positions", zero=True)
ENDED = Measure("the one reader: subscriptions ended", "subscriptions", zero=True)
MERGED = Measure("the one reader: publications that held several events", "publications")
ANSWERS = Measure("the one reader: subscriptions answered", "answers")
CAUGHT_UP = Measure("the one reader: catch-ups from the log", "catch-ups")
SENT_AWAY = {
    code: Measure(f"the one reader: sent away with {code}", "times")
    for code in (codes.SLOW.number, codes.NO_PONG.number)
}
"""Nobody else is: fast readers that are closed are counted as such."""


@dataclass(slots=True)
class Reader:
    """Follows the thread in which much is said, at a pace of its own."""

    port: int
    token: str
    follower: Follower
    rate: float | None
    """Bytes a second; None takes what comes."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it has its first answer."""
    _client: Client | None = None

    async def read(self) -> None:
        """Follow to the end, coming back with the position whenever it is sent away."""
        over = self.follower.over
        while not over.is_set():
            client = self._client = await open_client(
                self.port, self.token, self.follower.receive, thin=True
            )
            client.link.take_at(self.rate)
            with contextlib.suppress(LoadError):
                await client.ask(self.follower.subscription, seconds=PATIENCE_SECONDS)
                self.begun.set()
                await _first(client.gone, over)
            if not over.is_set():
                await asyncio.sleep(COME_BACK_SECONDS)

    def hurry(self) -> None:
        """Take what comes from now on."""
        self.rate = None
        if self._client is not None:
            self._client.link.take_at(None)


@dataclass(slots=True)
class Memory:
    """The highest readings of a server's memory."""

    rss: int = 0
    waiting: float = 0.0

    async def watch(self, running: servers.Running) -> None:
        """Look again and again."""
        while True:
            numbers = await asyncio.to_thread(servers.numbers, running.port)
            waiting = numbers["towpath_outbox_bytes"] + numbers["towpath_ring_bytes"]
            self.waiting = max(self.waiting, waiting)
            self.rss = max(self.rss, resident_kib(running.pid))
            await asyncio.sleep(READING_SECONDS)


@dataclass(frozen=True, slots=True)
class Slow:
    """Users with several connections each, and one reader of much."""

    name = "slow"
    users: int
    connections: int
    """Of each user."""
    events: int
    """Of each run."""
    rate: float
    """Of each run, per second."""
    talk: Speech
    """What is said in the one reader's thread, for longer than the runs take."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"{self.users} users with {self.connections} connections each read their user's run "
            f"of {self.events} deltas at {self.rate:g}/s, beside one reader of {self.talk.words} "
            f"words of {self.talk.size} bytes at {self.talk.rate:g}/s, who takes what comes, then "
            f"{SLOW_RATE:,.0f} bytes a second"
        )

    def sample(self) -> Sample:
        """Measure once."""
        made = {}
        for title, rate in (("without", None), ("with", SLOW_RATE)):
            with servers.gateway() as (running, process):
                made[title] = uvloop.run(self._load(running, process, rate))
        sample: Sample = {}
        for title, phase in made.items():
            for measure, value in phase.items():
                sample[Measure(f"{title}: {measure.name}", measure.unit, measure.zero)] = value
        for share in SHARES:
            measure = _latency(share)
            ratio = made["with"][measure] / made["without"][measure]
            sample[Measure(f"ratio: {measure.name}", "with ÷ without")] = ratio
        return sample

    async def _load(
        self, running: servers.Running, process: ServerProcess, rate: float | None
    ) -> Sample:
        tallies = [
            [Tally(Arrivals(self.events)) for _ in range(self.connections)]
            for _ in range(self.users)
        ]
        everyone = [tally for mine in tallies for tally in mine]
        async with asyncio.TaskGroup() as group:
            opening = [
                group.create_task(self._open(running, process.token(f"user{at}"), f"t{at}", mine))
                for at, mine in enumerate(tallies)
            ]
        clients = [task.result() for task in opening]
        follower = Follower("talk", Arrivals(self.talk.words + FRAME_EVENTS))
        reader = Reader(running.port, process.token("reader"), follower, rate)
        talker = await open_client(running.port, process.token("reader"), ignore)
        await talker.create("talk")
        memory = Memory()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(reader.read())
            watching = group.create_task(memory.watch(running))
            await reader.begun.wait()
            with undisturbed():
                before = Usage.now(running.pid)
                await talker.start("speech", "talk", self.talk.message)
                await self._run([mine[0] for mine in clients], everyone)
                usage = Usage.now(running.pid).since(before)
            watching.cancel()
            reader.hurry()
            await _until(follower.over, GRACE_SECONDS)
            reading.cancel()
        closed = sum(client.close_code is not None for mine in clients for client in mine)
        seconds = max(tally.last for tally in everyone) / 1e9 - before.at
        return {
            DELIVERED: sum(len(tally.since_made) for tally in everyone) / seconds,
            **_fast(everyone),
            CLOSED: closed,
            **usage,
            RSS: memory.rss,
            WAITING: memory.waiting / 1024,
            **self._one(follower),
            **_seen_by_the_server(servers.numbers(running.port)),
        }

    async def _open(
        self, running: servers.Running, token: str, thread: str, tallies: list[Tally]
    ) -> list[Client]:
        """Open a user's connections, all of which read the user's thread."""
        clients = [await open_client(running.port, token, tally.take) for tally in tallies]
        await clients[0].create(thread)
        for client in clients:
            await client.read(thread)
        return clients

    async def _run(self, starters: list[Client], tallies: list[Tally]) -> None:
        """Begin all runs, not in step, and wait until everybody has seen the end of theirs."""
        delays = random.Random(1)

        async def begin(at: int, client: Client, delay: float) -> None:
            await asyncio.sleep(delay)
            await client.start("stamped", f"t{at}", ask(self.events, self.rate))

        async with asyncio.TaskGroup() as group:
            for at, client in enumerate(starters):
                group.create_task(begin(at, client, delays.uniform(0, SPREAD_SECONDS)))
        await until_over(tallies, self.events / self.rate + GRACE_SECONDS)

    def _one(self, follower: Follower) -> Sample:
        came = follower.arrivals
        return {
            WRONG: int(follower.text != self.talk.text),
            GAPS: came.lost + came.duplicated + came.reordered,
            REFUSED: follower.refused,
            ENDED: follower.ended,
            MERGED: follower.merged,
            ANSWERS: follower.answers,
        }


def _fast(tallies: list[Tally]) -> Sample:
    since_made = [value for tally in tallies for value in tally.since_made]
    if not since_made:
        raise LoadError("nothing came")
    return {
        **{_latency(share): percentile(since_made, share) / 1e6 for share in SHARES},
        LOST: sum(tally.arrivals.lost for tally in tallies),
        DUPLICATED: sum(tally.arrivals.duplicated for tally in tallies),
        REORDERED: sum(tally.arrivals.reordered for tally in tallies),
        FAILED: sum(not tally.finished for tally in tallies),
    }


def _latency(share: int) -> Measure:
    return Measure(f"event since made, p{share}", "ms")


def _seen_by_the_server(numbers: dict[str, float]) -> Sample:
    closed = 'towpath_connections_closed_total{code="%d"}'
    return {
        CAUGHT_UP: numbers["towpath_readers_caught_up_total"],
        **{sent_away: numbers.get(closed % code, 0.0) for code, sent_away in SENT_AWAY.items()},
    }


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _until(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


FULL = Slow(
    users=50,
    connections=20,
    events=320,
    rate=8,
    talk=Speech(words=15_000, size=100, rate=300),
)
QUICK = Slow(
    users=5,
    connections=4,
    events=40,
    rate=8,
    talk=Speech(words=10_000, size=100, rate=1_000),
)
