"""Scenarios for explored schedules: readers come and go while a thread is written and trimmed.

Each is a coroutine function without arguments for `detangle.explore`. Readers do what an SDK does:
they keep the last offset they were given and come back with it. What they show in the end is what
the thread amounts to, wherever their connections broke, whatever the log dropped meanwhile.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import detangle
import msgspec

from tests.kit.connection_world import ConnectionWorld, Visit
from tests.kit.late_provider import token
from towpath.agents.agent import AgentInput, AgentRegistry
from towpath.channels import Channel, thread_channel
from towpath.delivery.ring import Rings
from towpath.events.fold import Fold
from towpath.identity import Principal
from towpath.log.broker import THREAD_RETENTION, Position, Publication, retention_of
from towpath.runs.requests import RunRequest
from towpath.runs.service import RunService
from towpath.settings import Settings

ALICE = Principal(tenant="acme", user="alice")
THREAD = thread_channel("acme", "alice", "t")
START = Position("", 0)
KEPT = (3, 1000)
"""How many publications are kept: so few that whoever is away at the end of a run comes back past
retention, or all."""
SMALL = Settings(
    connect_timeout=1.0,
    early_message_bytes=1024,
    message_bytes=1024,
    run_message_bytes=1024,
    outbox_bytes=6 * 1024,
    ring_bytes=700,
)
"""With these a few publications make a reader fall behind, and some more exceed the ring."""
PACES = (0.0, 0.3, 1.0)
"""How long a device takes for a message, in virtual seconds."""
STRANGE = (None, START, START, Position("strange", 3), Position("", 5), Position("", 10**6))
"""What a reader may first say of where it is; the last two of them in the thread's own epoch."""


class ReadingWorld(ConnectionWorld):
    """A node with a thread on it that is written while it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.broker.stale = True
        self.broker.observe = self._observe
        keep = replace(THREAD_RETENTION, publications=detangle.choice(KEPT))
        self.broker._retention = lambda channel: (
            keep if channel.is_thread else retention_of(channel)
        )
        self.parts = replace(self.parts, settings=SMALL)
        self.hub._rings = Rings(ring_bytes=SMALL.ring_bytes, total_bytes=2 * SMALL.ring_bytes)
        self.whole = Fold()
        """What the thread amounts to."""
        self.top = 0
        self.done = False
        """Whether nothing more is said."""
        registry = AgentRegistry()
        registry.register("agent", self._agent, deadline=100.0)
        self._bridge = RunService(
            self.broker, self.parts.store, registry, telemetry=self.telemetry, now=self.wall_clock
        )

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Have the agent answer twice, while the body runs."""
        async with self.open(), self._bridge, asyncio.TaskGroup() as group:
            await self._ask("r1")
            group.create_task(self._go_on())
            yield

    def _observe(self, channel: Channel, publications: Sequence[Publication]) -> None:
        if channel == THREAD:
            for one in publications:
                self.whole.feed(msgspec.json.decode(one.data))
                self.top = one.offset

    async def _go_on(self) -> None:
        await self._quiet()
        await asyncio.sleep(detangle.choice((0.0, 0.3, 1.0)))
        await self._ask("r2")
        await self._quiet()
        self.done = True

    async def _ask(self, request: str) -> None:
        started = RunRequest(request_id=request, agent="agent", thread_id="t", message="go on")
        await self._bridge.start(ALICE, started)

    async def _quiet(self) -> None:
        while self._bridge.active:  # noqa: ASYNC110 - the time is virtual
            await asyncio.sleep(0.1)

    async def _agent(self, agent_input: AgentInput) -> AsyncGenerator[object, None]:
        """Say two things at once, and count in the state."""
        one, two = (f"{agent_input.context.run}-{name}" for name in ("one", "two"))
        yield {"type": "STATE_SNAPSHOT", "snapshot": {"n": 0}}
        for key in (one, two):
            yield {"type": "TEXT_MESSAGE_START", "messageId": key, "role": "assistant"}
        for n in range(1, 12):
            for key in (one, two):
                yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": key, "delta": f"{n} "}
            if n == 3:
                patch = [{"op": "replace", "path": "/n", "value": n}]
                yield {"type": "STATE_DELTA", "delta": patch}
            await asyncio.sleep(detangle.choice((0.0, 0.1, 0.3)))
        yield {"type": "TEXT_MESSAGE_END", "messageId": two}
        yield {"type": "TEXT_MESSAGE_END", "messageId": one}


class Reader:
    """One device: it reads, disconnects, and comes back with the last offset it was given."""

    def __init__(self, world: ReadingWorld) -> None:
        self._world = world
        first: Position | None = detangle.choice(STRANGE)
        if first is not None and first.epoch == "" and first.offset:
            first = Position(world.broker.epoch(THREAD), 10**6)
        self._position = first
        self._known = first in (None, START)
        """Whether what it shows belongs to its position."""
        self._shown = Fold()
        self._requested: dict[int, Position | None] = {}
        self._deaf = True
        """Whether it has asked to read and not been answered: pushes are none of its business."""

    async def read(self) -> None:
        """Read until nothing more is said."""
        lives = detangle.choice((1, 2, 3))
        async with asyncio.timeout(120):
            while not await self._visit(last=lives <= 1):
                lives -= 1

    async def _visit(self, *, last: bool) -> bool:
        """Read over one connection; return whether it has seen everything."""
        visit = self._world.visit(token("alice"))
        visit.socket._pace = lambda: detangle.choice(PACES)
        self._requested.clear()
        visit.socket.say(visit.connect(), self._subscribe(visit))
        left, taken = detangle.choice((2, 4, 8, 16)), 0
        while visit.socket.close_code is None and (last or left > 0):
            await asyncio.sleep(0.1)
            left -= 1
            frames = visit.socket.frames
            for frame in frames[taken:]:
                self._take(frame, visit)
            taken = len(frames)
            if self._complete():
                break
            if not self._deaf and detangle.flip(0.2):
                leave = visit.command("unsubscribe", channel=THREAD.visible)
                visit.socket.say(leave, self._subscribe(visit))
        visit.socket.leave()
        self._deaf = True
        return self._complete()

    def _complete(self) -> bool:
        world, here = self._world, self._position
        return world.done and self._known and here is not None and here.offset == world.top

    def _subscribe(self, visit: Visit) -> dict[str, Any]:
        where = self._position
        fields: dict[str, Any] = {}
        if where is not None:
            fields = {"recover": True, "epoch": where.epoch, "offset": where.offset}
        command = visit.command("subscribe", channel=THREAD.visible, **fields)
        self._requested[command["id"]] = where
        self._deaf = True
        return command

    def _take(self, frame: dict[str, Any], visit: Visit) -> None:
        push = frame.get("push", {})
        if "subscribe" in frame and frame["id"] == max(self._requested):
            self._take_answer(frame["subscribe"], self._requested[frame["id"]])
        elif push.get("channel") != THREAD.visible or self._deaf:
            return
        elif "unsubscribe" in push:
            visit.socket.say(self._subscribe(visit))
        else:
            self._take_push(push["pub"])

    def _take_answer(self, answer: dict[str, Any], requested: Position | None) -> None:
        self._deaf = False
        if requested in (None, START) or not answer["recovered"]:
            self._shown = Fold()
        else:
            assert self._known, "what is strange is not recovered"
        for one in answer.get("publications", ()):
            self._shown.feed(one["data"])
        self._position = Position(answer["epoch"], answer["offset"])
        self._known = True

    def _take_push(self, one: dict[str, Any]) -> None:
        assert self._position is not None, "it was answered before"
        self._shown.feed(one["data"])
        if "offset" in one:
            assert one["offset"] > self._position.offset, "no offset comes twice"
            self._position = self._position._replace(offset=one["offset"])

    def check(self) -> None:
        """Check that it shows what the thread amounts to."""
        whole, shown = self._world.whole, self._shown
        assert (shown.messages, shown.state) == (whole.messages, whole.state), "the same text"
        assert shown.ended == whole.ended, "the same ending"


async def readers() -> None:
    """Two devices come, break off and come back while a thread is written: both show all of it."""
    world = ReadingWorld()
    async with world.writing():
        devices = [Reader(world), Reader(world)]
        async with asyncio.TaskGroup() as group:
            for device in devices:
                group.create_task(device.read())
    for device in devices:
        device.check()
