"""A stage for agents: a service over a real log and its projection, and what was said on it."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from towpath.agents.agent import AgentFunction, AgentInput, AgentRegistry
from towpath.channels import Channel, thread_channel, user_channel
from towpath.errors import StorageError
from towpath.events.fold import Fold
from towpath.events.types import TERMINAL
from towpath.identity import Principal
from towpath.log.broker import Broker, Publication, Write, Written
from towpath.log.sqlite.broker import SqliteBroker
from towpath.runs.deps import RunLimits
from towpath.runs.requests import RunRequest
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.telemetry import Telemetry, TelemetryEvent
from towpath.testing.memory_broker import MemoryBroker

ALICE = Principal(tenant="acme", user="alice")
BOB = Principal(tenant="acme", user="bob")
QUICK = RunLimits(cleanup_seconds=0.05, retry_seconds=0.02)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds; the test's own time bounds it."""
    while not await condition():  # noqa: ASYNC110 - what others did is seen in the log only
        await asyncio.sleep(0.005)


class Faulty:
    """A broker whose log refuses writes while `broken`; everything else is the broker's own."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.broken = False
        self.refuse_next = 0
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def refused_thrice(self) -> bool:
        """Whether so many writes were refused."""
        return self.refused >= 3

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        if not self.broken and not self.refuse_next:
            return self._broker.submit(write)
        self.refuse_next = max(0, self.refuse_next - 1)
        self.refused += 1
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        future.set_exception(StorageError("the disk is full"))
        return future


class Stage:
    """One service with its log; agents are registered as they are needed."""

    def __init__(self, broker: Broker, limits: RunLimits) -> None:
        self.broker = Faulty(broker)
        self.store = ThreadStore(broker)
        self.registry = AgentRegistry()
        self.happened: list[TelemetryEvent] = []
        self.limits = limits
        self.now = 1_000.0
        """What every clock says."""
        self.requests = itertools.count(1)
        self.service = self.new_service()

    def new_service(self) -> RunService:
        return RunService(
            self.broker,
            self.store,
            self.registry,
            telemetry=Telemetry([self.happened.append]),
            now=lambda: self.now,
            limits=self.limits,
        )

    def cast(
        self,
        agent: AgentFunction,
        name: str = "agent",
        *,
        deadline: float | None = 10.0,
        double_texting: str = "reject",
    ) -> Self:
        self.registry.register(name, agent, deadline=deadline, double_texting=double_texting)
        return self

    async def start(self, thread: str = "t1", *, who: Principal = ALICE, **request: Any) -> str:
        """Start a run and return its id."""
        request = {"request_id": f"q{next(self.requests)}", "agent": "agent", **request}
        if "input" not in request:
            request.setdefault("message", "hello")
        return (await self.service.start(who, RunRequest(thread_id=thread, **request))).run_id

    async def done(self, run: str, *, who: Principal = ALICE) -> None:
        """Wait until a run is over in the store, its task has gone, and whoever waited was told."""
        while True:
            record = await self.store.find_run(who.tenant, who.user, run)
            gone = self.service._active.get((who.tenant, who.user, run)) is None
            gone = gone and not self.service._queue._advancing
            if gone and record is not None and record.ended_at is not None:
                return
            await asyncio.sleep(0.005)

    async def logged(self, count: int, thread: str = "t1") -> None:
        """Wait until a thread's log holds so many publications."""

        async def enough() -> bool:
            return len(await self.log(thread)) >= count

        await eventually(enough)

    async def log(self, thread: str = "t1", *, who: Principal = ALICE) -> list[Publication]:
        channel = thread_channel(who.tenant, who.user, thread)
        return (await self.broker.read(channel, 0)).publications  # type: ignore[no-any-return]

    async def events(self, thread: str = "t1", *, who: Principal = ALICE) -> list[dict[str, Any]]:
        return [msgspec.json.decode(one.data) for one in await self.log(thread, who=who)]

    async def notices(self, who: Principal = ALICE) -> list[tuple[str, str]]:
        replay = await self.broker.read(user_channel(who.tenant, who.user), 0)
        events = [msgspec.json.decode(one.data) for one in replay.publications]
        return [(event["name"], event["value"].get("status", "")) for event in events]

    async def played(self, agent: AgentFunction, **request: Any) -> list[dict[str, Any]]:
        """Run an agent to its end and return the thread's events, checked for what always holds."""
        deadline = request.pop("deadline", 10.0)
        self.cast(agent, deadline=deadline)
        await self.done(await self.start(**request))
        await self.check()
        return await self.events()

    async def check(self, thread: str = "t1", *, who: Principal = ALICE) -> None:
        """Check what always holds when no run is active.

        Offsets have no gap, every run has one terminal event, which is its last, its events are
        numbered from 1, and what is stored is what the log amounts to.
        """
        log = await self.log(thread, who=who)
        assert [one.offset for one in log] == list(range(1, len(log) + 1))
        by_run: dict[str, list[tuple[int, int, str]]] = {}
        fold = Fold()
        for one in log:
            event = msgspec.json.decode(one.data)
            fold.feed(event)
            first, last = int(one.tags.get("from", one.tags["seq"])), int(one.tags["seq"])
            by_run.setdefault(one.tags["run"], []).append((first, last, event["type"]))
        for parts in by_run.values():
            kinds = [kind for _, _, kind in parts]
            assert [kind in TERMINAL for kind in kinds] == [False] * (len(kinds) - 1) + [True]
            assert [last for _, last, _ in parts] == list(range(1, len(parts) + 1))
        stored = await self.store.get(who.tenant, who.user, thread)
        assert stored is not None
        assert stored.messages == fold.messages
        assert stored.state == fold.state
        assert stored.offset == len(log)
        assert stored.fold().snapshot() == fold.snapshot()
        runs = await self.store.runs(who.tenant, who.user, thread, limit=100)
        assert {run.run_id for run in runs} == set(by_run)
        assert all(run.ended_at is not None for run in runs)


@asynccontextmanager
async def staged(
    kind: str, directory: Path, *, limits: RunLimits = QUICK, enter: bool = True
) -> AsyncIterator[Stage]:
    """Open a stage over one of the engines; with `enter` its service is running."""

    def unheard(channel: Channel, publications: Sequence[Publication]) -> None:
        """Nobody listens: runs go on all the same."""

    broker: Broker
    if kind == "memory":
        broker = MemoryBroker(unheard)
    else:
        broker = SqliteBroker(directory / "log.sqlite3", unheard, ThreadProjection())
    await broker.start()
    try:
        stage = Stage(broker, limits)
        if enter:
            async with stage.service:
                yield stage
        else:
            yield stage
    finally:
        await broker.stop()


def saying(*items: object, raises: BaseException | None = None) -> AgentFunction:
    """Return an agent that yields these, and then raises or returns."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        """Say what it was told to say."""
        for item in items:
            yield item
        if raises is not None:
            raise raises

    return agent


def waiting(
    *items: object, then: Callable[[], None] = lambda: None, until: asyncio.Event | None = None
) -> AgentFunction:
    """Return an agent that yields these and waits; `then` hears that it left."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        """Say it, and wait."""
        try:
            for item in items:
                yield item
            await (until or asyncio.Event()).wait()
            yield "end"
        finally:
            then()

    return agent
