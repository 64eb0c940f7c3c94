"""Whether anything is lost, doubled or disordered when lines are cut, and how long returns take.

Everybody follows a run of their own while their line is cut at random moments: no close frame, and
what was on its way is gone. They come back with the position of the last publication they saw,
every other time after a while.
"""

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field

import uvloop

from benchmarks import servers
from benchmarks.arrivals import Arrivals
from benchmarks.figures import Measure, Sample, percentile
from benchmarks.follower import FRAME_EVENTS, Follower
from benchmarks.load import LoadError, open_client, undisturbed
from benchmarks.machine import Usage
from benchmarks.workload import Speech
from towpath.testing.server import ServerProcess

SHARES = (50, 99)
"""Which percentiles are told."""
SPREAD_SECONDS = 2.0
"""Runs begin spread over this time."""
GRACE_SECONDS = 60.0
"""How long after the last word is due a run may take to end."""
AWAY_SECONDS = 2.0
"""How long somebody stays away, at the most."""
SEED = 1

EVENTS = Measure("events said, all runs together", "events")
CUTS = Measure("lines cut", "lines")
LOST = Measure("lost events", "events", zero=True)
DUPLICATED = Measure("duplicated events", "events", zero=True)
REORDERED = Measure("reordered events", "events", zero=True)
WRONG = Measure("texts that differ from what was said", "texts", zero=True)
MISMATCHES = Measure("texts that differ from their digest", "texts", zero=True)
REFUSED = Measure("positions not answered with what followed", "positions", zero=True)
ENDED = Measure("subscriptions the server ended", "subscriptions", zero=True)
MERGED = Measure("publications that held several events", "publications")


@dataclass(slots=True)
class Person:
    """Somebody whose line is cut now and then."""

    token: str
    follower: Follower
    cuts: list[tuple[float, float]]
    """When, in seconds after their run began, and for how long."""
    began: float = 0.0
    """How long after the others."""
    made: int = 0
    """How many cuts there were."""
    returns: list[int] = field(default_factory=list)
    """How long each return took, from the TCP connect to the tail, in nanoseconds."""

    async def follow(self, port: int, workload: Speech) -> None:
        """Begin a run, and follow it across the cuts."""
        follower, loop = self.follower, asyncio.get_running_loop()
        client = await open_client(port, self.token, follower.receive)
        await client.create(follower.thread)
        await client.ask(follower.subscription)
        await asyncio.sleep(self.began)
        began = loop.time()
        await client.start("speech", follower.thread, workload.message)
        for due, away in self.cuts:
            await asyncio.sleep(max(0.0, began + due - loop.time()))
            client.link.drop()
            self.made += 1
            await asyncio.sleep(away)
            begins = time.monotonic_ns()
            client = await open_client(port, self.token, follower.receive, follower.subscription)
            self.returns.append(follower.answered - begins)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(began + workload.words / workload.rate + GRACE_SECONDS):
                await follower.over.wait()


@dataclass(frozen=True, slots=True)
class Cuts:
    """Concurrent runs, each followed by another person whose line is cut."""

    name = "cuts"
    people: int
    words: int
    """Of each run."""
    rate: float
    """Of each run, per second."""
    cuts: int
    """Of each person's line."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"{self.people} people follow a run of {self.words} words at {self.rate:g}/s each, "
            f"the line of each cut {self.cuts} times at random moments"
        )

    def sample(self) -> Sample:
        """Measure once."""
        with servers.gateway() as (running, process):
            return uvloop.run(self._load(running, process))

    async def _load(self, running: servers.Running, process: ServerProcess) -> Sample:
        workload = Speech(words=self.words, rate=self.rate)
        people = self._people(process)
        with undisturbed():
            before = Usage.now(running.pid)
            async with asyncio.TaskGroup() as group:
                for person in people:
                    group.create_task(person.follow(running.port, workload))
            usage = Usage.now(running.pid).since(before)
        return self._outcome(people, workload.text) | usage

    def _people(self, process: ServerProcess) -> list[Person]:
        chance = random.Random(SEED)
        people = []
        for at in range(self.people):
            dues = sorted(chance.uniform(0, self.words / self.rate) for _ in range(self.cuts))
            aways = (chance.uniform(0, AWAY_SECONDS) * (nth % 2) for nth in range(self.cuts))
            person = Person(
                process.token(f"user{at}"),
                Follower(f"t{at}", Arrivals(self.words + FRAME_EVENTS)),
                list(zip(dues, aways, strict=True)),
                began=chance.uniform(0, SPREAD_SECONDS),
            )
            people.append(person)
        return people

    def _outcome(self, people: list[Person], text: str) -> Sample:
        followers = [person.follower for person in people]
        returns = [took for person in people for took in person.returns]
        if not returns:
            raise LoadError("no line was cut")
        sample: Sample = {
            EVENTS: sum(follower.arrivals.total for follower in followers),
            CUTS: sum(person.made for person in people),
            LOST: sum(follower.arrivals.lost for follower in followers),
            DUPLICATED: sum(follower.arrivals.duplicated for follower in followers),
            REORDERED: sum(follower.arrivals.reordered for follower in followers),
            WRONG: sum(follower.text != text for follower in followers),
            MISMATCHES: sum(follower.mismatches for follower in followers),
            REFUSED: sum(follower.refused for follower in followers),
            ENDED: sum(follower.ended for follower in followers),
            MERGED: sum(follower.merged for follower in followers),
        }
        for share in SHARES:
            measure = Measure(f"TCP connect to the recovered tail, p{share}", "ms")
            sample[measure] = percentile(returns, share) / 1e6
        return sample


FULL = Cuts(people=100, words=1_000, rate=25, cuts=10)
QUICK = Cuts(people=10, words=100, rate=25, cuts=4)
