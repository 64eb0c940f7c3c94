"""One event stream over a real hub and log: its events, its ends, and its clean-up."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.runs.stage import ALICE, QUICK, Stage, saying, waiting
from towpath import codes, telemetry
from towpath.agents.agent import AgentFunction, AgentInput
from towpath.auth.policy import may_read
from towpath.channels import thread_channel
from towpath.connections.event_stream import EventStream, StreamRequest, sse_encoding
from towpath.connections.parts import Parts
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import RecoverFrom, Recovery
from towpath.errors import StorageError, TooManyRequests, UnknownChannel
from towpath.identity import Principal
from towpath.log.broker import Position
from towpath.protocol import codec_sse as codec
from towpath.settings import Settings
from towpath.telemetry import Telemetry, TelemetryEvent
from towpath.testing.memory_broker import MemoryBroker

SMALL = {"early_message_bytes": 256, "run_message_bytes": 256, "message_bytes": 256}
"""Settings that allow for a small outbox."""
WORDS = [f"{number} " for number in range(40)]
FROM_START = RecoverFrom(True, Position("", 0))
THREAD = thread_channel("acme", "alice", "t1")


class Clock:
    """Stands in for ConnectionAuth, and for the wall clock, which begins at 0."""

    def __init__(self) -> None:
        self.left: float | None = None
        """When the grace of a credential ends."""
        self.step = 0.0
        """By how much the wall clock was set."""
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def expires_at(self, principal: Principal) -> float | None:
        return self.left

    def now(self) -> float:
        return self._loop.time() - self._began + self.step


class StreamHarness:
    """A hub, a log that delivers to it, agents on a stage, and the parts of event streams."""

    def __init__(self, **settings: Any) -> None:
        self.allowed: Callable[..., bool] = may_read
        made = Settings(**settings)
        self.hub = Hub(may_read, max_connections=3, ring_bytes=made.ring_bytes)
        self.broker = MemoryBroker(self.hub.deliver)
        self.hub.bind(self.broker)
        self.stage = Stage(self.broker, QUICK)
        self.events: list[TelemetryEvent] = []
        self.clock = Clock()
        self.parts = cast(
            Parts,
            SimpleNamespace(
                settings=made,
                hub=self.hub,
                store=self.stage.store,
                recovery=Recovery(self.broker, self.stage.store, snapshot_max_bytes=1 << 20),
                connection_auth=self.clock,
                may_read=lambda *args: self.allowed(*args),
                telemetry=Telemetry([self.events.append]),
                now=self.clock.now,
            ),
        )
        self.encoding = sse_encoding(self.broker)
        self.names = iter(map(str, range(1000)))

    def stream(self) -> EventStream:
        """Return a stream that is registered in the hub."""
        stream = EventStream(self.parts, self.encoding, ALICE, next(self.names))
        stream.enter()
        return stream

    async def reading(self, last_id: str = "", *, run: str | None = None) -> EventStream:
        """Return a stream that reads the thread, from the last event id or from the start."""
        stream, last = self.stream(), codec.read_position(last_id)
        recover_from = FROM_START if last is None else RecoverFrom(True, Position(*last))
        await stream.begin(StreamRequest(channel=THREAD, recover_from=recover_from, run=run))
        return stream

    @property
    def empty(self) -> bool:
        """Whether the hub has no subscriber and no waiting bytes."""
        return (len(self.hub), self.hub.subscriptions, self.hub.waiting_bytes) == (0, 0, 0)


@asynccontextmanager
async def stream_harness(**settings: Any) -> AsyncIterator[StreamHarness]:
    """Open a harness whose run service is running."""
    made = StreamHarness(**settings)
    await made.broker.start()
    async with made.stage.service:
        yield made
    await made.broker.stop()


def stepping(*items: object, on: list[asyncio.Event]) -> AgentFunction:
    """Return an agent that yields these, and waits for the next of `on` after each of them."""
    waits = itertools.chain(on, itertools.repeat(None))

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        """Yield the items one after the other."""
        for item, event in zip(items, list(itertools.islice(waits, len(items))), strict=True):
            yield item
            if event is not None:
                await event.wait()

    return agent


async def read_all(stream: EventStream) -> list[bytes]:
    """Return all chunks of a stream up to its end."""
    return [piece async for piece in stream.chunks()]


def events_in(pieces: list[bytes]) -> list[tuple[str, dict[str, Any]]]:
    """Return the events with their ids; the id is empty if there is none."""
    found = []
    for event in b"".join(pieces).split(codec.END)[:-1]:
        head, mark, data = event.partition(codec.DATA)
        if mark:
            found.append((head.strip().decode().removeprefix("id: "), json.loads(data)))
    return found


def types_in(pieces: list[bytes]) -> list[str]:
    return [event["type"] for _, event in events_in(pieces)]


async def test_r73_nothing_is_told_behind_the_end_of_the_run() -> None:
    """The next run in the same piece as the end of this one is not sent."""
    async with stream_harness() as harness:
        go_on = asyncio.Event()
        harness.stage.cast(waiting("one ", until=go_on), "first")
        harness.stage.cast(saying("two"), "second")
        first = await harness.stage.start(agent="first")
        stream, join = await harness.reading(run=first), await harness.reading()
        go_on.set()
        await harness.stage.done(first)
        await harness.stage.done(await harness.stage.start(agent="second"))
        for reader in (stream, join):
            events = events_in(await read_all(reader))
            assert {event.get("runId", first) for _, event in events} == {first}
            assert events[-1][1]["type"] == "RUN_FINISHED"
            assert events[-1][0]
        assert harness.empty


async def test_r81_a_run_that_was_asked_for_is_told_and_no_later_one() -> None:
    """From one position: a request for a run gets that run; a resume gets all there is."""
    async with stream_harness() as harness:
        harness.stage.cast(saying("x"))
        runs = []
        for _ in range(2):
            runs.append(await harness.stage.start())
            await harness.stage.done(runs[-1])
        position = f"{harness.broker.epoch(THREAD)}:0"
        for run, expected in ((runs[0], runs[:1]), (runs[1], runs[1:]), (None, runs)):
            events = events_in(await read_all(await harness.reading(position, run=run)))
            begun = [one["runId"] for _, one in events if one["type"] == "RUN_STARTED"]
            assert begun == expected
            assert events[-1][1]["type"] == "RUN_FINISHED"


async def test_r61_a_brisk_run_needs_no_signs_of_life() -> None:
    """One comment per silent interval, and none between events."""
    async with stream_harness() as harness:
        pieces = []
        steps = [asyncio.Event() for _ in range(5)]
        await harness.stage.cast(stepping(*"abcdef", on=steps)).start()
        async for piece in (await harness.reading()).chunks():
            pieces.append(piece)
            if steps:  # While one piece is written, the next one comes; then nothing for a while.
                steps.pop(0).set()
                while not harness.hub.waiting_bytes:  # noqa: ASYNC110 - nobody is told of a level
                    await asyncio.sleep(0)
        assert types_in(pieces)[-1] == "RUN_FINISHED"
        assert len(pieces) > 3
        assert codec.KEEP_ALIVE not in pieces
    async with stream_harness(ping_interval=0.05, pong_timeout=0.01) as harness:
        go_on = asyncio.Event()
        await harness.stage.cast(waiting("a", until=go_on)).start()
        pieces = []
        async for piece in (await harness.reading()).chunks():
            pieces.append(piece)
            if pieces.count(codec.KEEP_ALIVE) == 3:
                go_on.set()
        assert types_in(pieces)[-1] == "RUN_FINISHED"
        assert all(piece == codec.KEEP_ALIVE for piece in pieces if b": keep" in piece)


async def test_r84_a_revocation_is_the_last_thing_a_stream_hears() -> None:
    """Revoked before its first chunk, or with chunks waiting: nothing more is sent."""
    async with stream_harness() as harness:
        go_on = asyncio.Event()
        run = await harness.stage.cast(stepping("some", "secret", on=[go_on])).start()
        early, late = await harness.reading(), await harness.reading()
        chunks = late.chunks()
        await anext(chunks)
        go_on.set()
        await harness.stage.done(run)
        assert harness.hub.waiting_bytes > 0
        assert harness.hub.end(lambda who: who.user == "alice", codes.NOT_ALLOWED) == 2
        assert await read_all(early) == []
        assert [piece async for piece in chunks] == []
        assert harness.empty
        closed = [one for one in harness.events if isinstance(one, telemetry.ConnectionClosed)]
        assert [one.code for one in closed] == [3507, 3507]


async def test_r84_past_its_grace_a_stream_ends() -> None:
    """If the credential is not renewed by then, the stream ends and the run goes on."""
    async with stream_harness() as harness:
        harness.clock.left = 0.05
        run = await harness.stage.cast(waiting("a")).start()
        stream = await harness.reading()
        assert types_in(await read_all(stream))[-1] == "TEXT_MESSAGE_CONTENT"
        assert stream.ended is codes.EXPIRED
        record = await harness.stage.store.find_run("acme", "alice", run)
        assert record is not None
        assert record.ended_at is None


async def test_r84_a_stream_ends_by_the_date() -> None:
    """The wall clock is set past the end of the grace: the next event is not shown any more."""
    async with stream_harness() as harness:
        harness.clock.left = 3600.0
        released = asyncio.Event()
        run = await harness.stage.cast(waiting("a", until=released)).start()
        stream = await harness.reading()
        chunks = stream.chunks()
        assert types_in([await anext(chunks)])[-1] == "TEXT_MESSAGE_CONTENT"
        reading = asyncio.create_task(anext(chunks, b""))
        await asyncio.sleep(0)
        harness.clock.step = 3601.0
        released.set()
        assert await reading == b""
        assert stream.ended is codes.EXPIRED
        await harness.stage.done(run)


async def test_r84_a_stream_goes_on_while_the_date_is_not_reached() -> None:
    """The wall clock was set back before the timer was due: the stream waits for the date."""
    async with stream_harness() as harness:
        harness.clock.left = 60.0
        stream = harness.stream()
        harness.clock.step = -3600.0
        stream._watch_expiry()
        before = stream.ended
        harness.clock.step = 60.0
        stream._watch_expiry()
        assert (before, stream.ended) == (None, codes.EXPIRED)
        stream.leave()


async def test_r59_what_waits_is_still_told_when_the_server_drains() -> None:
    """The run's terminal event reaches a reader that has not read up to it yet."""
    async with stream_harness() as harness:
        await harness.stage.cast(waiting("a")).start()
        stream = await harness.reading()
        await harness.stage.service.drain()
        stream.end(codes.MOVE_ELSEWHERE)
        last = events_in(await read_all(stream))[-1][1]
        assert (last["type"], last["code"]) == ("RUN_ERROR", "run.drained")


@pytest.mark.parametrize("ring_bytes", [1, 1 << 20])
async def test_r97_who_falls_behind_gets_all_of_it_in_fewer_events(ring_bytes: int) -> None:
    """On the same stream, merged in memory or read from the log; ids rise to the top."""
    async with stream_harness(outbox_bytes=512, ring_bytes=ring_bytes, **SMALL) as harness:
        go_on = asyncio.Event()
        run = await harness.stage.cast(stepping("and so ", *WORDS, on=[go_on])).start()
        stream = await harness.reading(f"{harness.broker.epoch(THREAD)}:0")
        chunks = stream.chunks()
        pieces = [await anext(chunks)]
        go_on.set()
        await harness.stage.done(run)
        pieces += [piece async for piece in chunks]
        events = events_in(pieces)
        assert "".join(event.get("delta", "") for _, event in events) == "and so " + "".join(WORDS)
        assert events[-1][1]["type"] == "RUN_FINISHED"
        assert len(events) < len(WORDS)
        positions = [int(key.partition(":")[2]) for key, _ in events if key]
        assert positions == sorted(set(positions))
        assert positions[-1] == len(await harness.stage.log())
        from_the_log = any(isinstance(one, telemetry.CaughtUp) for one in harness.events)
        assert from_the_log is (ring_bytes == 1)
        assert harness.empty


async def test_r97_where_the_log_cannot_answer_the_stream_ends_and_the_last_id_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader too far behind is ended with 3008, and resumes with exactly the rest."""

    async def fails(*args: Any) -> Any:
        raise StorageError("the disk is gone")

    async with stream_harness(outbox_bytes=512, ring_bytes=1, **SMALL) as harness:
        go_on = asyncio.Event()
        run = await harness.stage.cast(stepping("and so ", *WORDS, on=[go_on])).start()
        stream = await harness.reading(f"{harness.broker.epoch(THREAD)}:0")
        chunks = stream.chunks()
        pieces = [await anext(chunks)]
        go_on.set()
        await harness.stage.done(run)
        with monkeypatch.context() as broken:
            broken.setattr(harness.parts.recovery, "tail", fails)
            pieces += [piece async for piece in chunks]
        assert stream.ended is codes.SLOW
        assert "RUN_FINISHED" not in types_in(pieces)
        seen = events_in(pieces)
        again = events_in(await read_all(await harness.reading(seen[-1][0])))
        text = "".join(event.get("delta", "") for _, event in seen + again)
        assert text == "and so " + "".join(WORDS)
        assert harness.empty


async def test_r97_a_client_that_takes_nothing_is_ended_after_a_while() -> None:
    """A chunk held longer than `slow_timeout` calls `hurry` once, and nothing more is sent."""
    async with stream_harness(slow_timeout=0.02) as harness:
        await harness.stage.cast(waiting("a")).start()
        stream, hurried = await harness.reading(), asyncio.Event()
        stream.hurry = hurried.set
        chunks = stream.chunks()
        await anext(chunks)
        await hurried.wait()
        assert stream.ended is codes.SLOW
        assert [piece async for piece in chunks] == []
        assert harness.empty
    async with stream_harness(slow_timeout=0.05, ping_interval=0.2, pong_timeout=0.1) as harness:
        await harness.stage.cast(waiting("a")).start()
        stream = await harness.reading()
        chunks = stream.chunks()
        while await anext(chunks) != codec.KEEP_ALIVE:
            pass
        assert stream.ended is None


async def test_r39_a_stream_asks_the_policy_before_it_reads() -> None:
    """A refusal is answered like a missing thread, and nothing stays registered."""
    async with stream_harness() as harness:
        await harness.stage.done(await harness.stage.cast(saying("mine")).start())
        harness.allowed = lambda *args: False
        stream = harness.stream()
        with pytest.raises(UnknownChannel):
            await stream.begin(StreamRequest(channel=THREAD, recover_from=FROM_START))
        assert harness.hub.subscriptions == 0
        stream.leave()
        assert harness.empty


async def test_r37_streams_count_as_connections() -> None:
    """Past the bound a stream is refused; an end frees one place, and a second end none."""
    async with stream_harness() as harness:
        streams = [harness.stream() for _ in range(3)]
        with pytest.raises(TooManyRequests):
            harness.stream()
        streams[0].leave()
        streams[0].leave()
        harness.stream()
        with pytest.raises(TooManyRequests):
            harness.stream()


async def test_r04_r09_each_stream_is_opened_and_closed_once_under_one_id() -> None:
    """Telemetry gets the opening and the end of each stream, with its code."""
    async with stream_harness() as harness:
        await harness.stage.done(await harness.stage.cast(saying("a")).start())
        await read_all(await harness.reading())
        stream = await harness.reading()
        stream.end(codes.FORCED)
        await read_all(stream)
        both = (telemetry.ConnectionOpened, telemetry.ConnectionClosed)
        told_of = [(type(one), one.connection) for one in harness.events if isinstance(one, both)]
        assert told_of == [(kind, key) for key in "01" for kind in both]
        closed = [one.code for one in harness.events if isinstance(one, telemetry.ConnectionClosed)]
        assert closed == [1005, 3503]


async def test_r73_a_run_that_begins_while_one_joins_is_followed() -> None:
    """`has_active_run` is read first: a run that begins meanwhile is in the reply or live."""
    async with stream_harness() as harness:
        await harness.stage.done(await harness.stage.cast(saying("a")).start())
        harness.stage.cast(saying("b"), "next")
        has_active_run = harness.stage.store.has_active_run
        second: list[str] = []

        async def slowly(tenant: str, user: str, thread: str) -> bool:
            active = await has_active_run(tenant, user, thread)
            second.append(await harness.stage.start(agent="next"))
            return active

        harness.parts.store.has_active_run = slowly  # type: ignore[method-assign]
        events = events_in(await read_all(await harness.reading()))
        assert events[-1][1]["runId"] == second[0]
        assert events[-1][1]["type"] == "RUN_FINISHED"
