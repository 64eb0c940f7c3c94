"""One event stream over a real hub and log: what it tells, when it stops, and what it leaves."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.stage import ALICE, QUICK, Stage, saying, waiting
from towpath import codes, telemetry
from towpath.agents.agent import AgentFunction, AgentInput
from towpath.auth.policy import may_read
from towpath.channels import thread_channel
from towpath.connections.commands import Parts
from towpath.connections.event_stream import EventStream, RunFilter, StreamRequest, sse_encoding
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import RecoverFrom, Recovery
from towpath.errors import StorageError, TooManyRequests, UnknownChannel
from towpath.identity import Principal
from towpath.log.broker import Position
from towpath.protocol import codec_sse as codec
from towpath.runs.tables.projection import ThreadProjection
from towpath.settings import Settings
from towpath.telemetry import Telemetry, TelemetryEvent
from towpath.testing.memory_broker import MemoryBroker

SMALL = {"early_message_bytes": 256, "run_message_bytes": 256, "message_bytes": 256}
"""Settings that allow for a small outbox."""
WORDS = [f"{number} " for number in range(40)]
FROM_START = RecoverFrom(True, Position("", 0))
THREAD = thread_channel("acme", "alice", "t1")


class Clock:
    """Stands in for the authentication: when a credential's grace ends, in seconds from now."""

    def __init__(self) -> None:
        self.left: float | None = None

    def expires_at(self, principal: Principal) -> float | None:
        return self.left


class Post:
    """A post for streams: a hub, a log that delivers to it, and agents on a stage."""

    def __init__(self, **settings: Any) -> None:
        self.allowed: Callable[..., bool] = may_read
        made = Settings(**settings)
        self.hub = Hub(may_read, max_connections=3, backlog_bytes=made.backlog_bytes)
        self.broker = MemoryBroker(self.hub.deliver, ThreadProjection())
        self.stage = Stage(self.broker, QUICK)
        self.happened: list[TelemetryEvent] = []
        self.clock = Clock()
        self.parts = cast(
            Parts,
            SimpleNamespace(
                settings=made,
                hub=self.hub,
                store=self.stage.store,
                recovery=Recovery(self.broker, self.stage.store, snapshot_max_bytes=1 << 20),
                auth=self.clock,
                may_read=lambda *asked: self.allowed(*asked),
                telemetry=Telemetry([self.happened.append]),
                wall_clock=lambda: 0.0,
            ),
        )
        self.dialect = sse_encoding(self.broker)
        self.names = iter(map(str, range(1000)))

    def stream(self) -> EventStream:
        """Return a stream that has its place in the hub."""
        stream = EventStream(self.parts, self.dialect, ALICE, next(self.names))
        stream.enter()
        return stream

    async def reading(self, last_id: str = "", *, run: str | None = None) -> EventStream:
        """Return a stream that reads the thread, from the last id or from the start."""
        stream, last = self.stream(), codec.read_position(last_id)
        asked = FROM_START if last is None else RecoverFrom(True, Position(*last))
        await stream.begin(StreamRequest(channel=THREAD, asked=asked, run=run))
        return stream

    @property
    def empty(self) -> bool:
        """Whether nobody is here and nothing waits."""
        return (len(self.hub), self.hub.subscriptions, self.hub.waiting_bytes) == (0, 0, 0)


@asynccontextmanager
async def post(**settings: Any) -> AsyncIterator[Post]:
    """Open a post whose service is running."""
    made = Post(**settings)
    await made.broker.start()
    async with made.stage.service:
        yield made
    await made.broker.stop()


def stepping(*items: object, on: list[asyncio.Event]) -> AgentFunction:
    """Return an agent that yields these, and waits for the next of `on` after each of them."""
    waits = itertools.chain(on, itertools.repeat(None))

    async def agent(asked: AgentInput) -> AsyncGenerator[object, None]:
        """Say one thing after the other."""
        for item, event in zip(items, list(itertools.islice(waits, len(items))), strict=True):
            yield item
            if event is not None:
                await event.wait()

    return agent


async def told(stream: EventStream) -> list[bytes]:
    """Return all that a stream tells until it is over."""
    return [piece async for piece in stream.chunks()]


def events_in(pieces: list[bytes]) -> list[tuple[str, dict[str, Any]]]:
    """Return events with their ids, an empty one where there is none."""
    found = []
    for event in b"".join(pieces).split(codec.END)[:-1]:
        head, mark, data = event.partition(codec.DATA)
        if mark:
            found.append((head.strip().decode().removeprefix("id: "), json.loads(data)))
    return found


def types_in(pieces: list[bytes]) -> list[str]:
    return [event["type"] for _, event in events_in(pieces)]


async def test_r73_nothing_is_told_behind_the_end_of_the_run() -> None:
    """Where the next run stands in one piece with the end of this one, it is not told."""
    async with post() as here:
        go_on = asyncio.Event()
        here.stage.cast(waiting("one ", until=go_on), "first")
        here.stage.cast(saying("two"), "second")
        first = await here.stage.start(agent="first")
        stream, join = await here.reading(run=first), await here.reading()
        go_on.set()
        await here.stage.done(first)
        await here.stage.done(await here.stage.start(agent="second"))
        for reader in (stream, join):
            events = events_in(await told(reader))
            assert {event.get("runId", first) for _, event in events} == {first}
            assert events[-1][1]["type"] == "RUN_FINISHED"
            assert events[-1][0]
        assert here.empty


async def test_r81_a_run_that_was_asked_for_is_told_and_no_later_one() -> None:
    """From one position: who asked for a run gets that one; who resumes gets all there is."""
    async with post() as here:
        here.stage.cast(saying("x"))
        runs = []
        for _ in range(2):
            runs.append(await here.stage.start())
            await here.stage.done(runs[-1])
        position = f"{here.broker.epoch(THREAD)}:0"
        for run, expected in ((runs[0], runs[:1]), (runs[1], runs[1:]), (None, runs)):
            events = events_in(await told(await here.reading(position, run=run)))
            begun = [one["runId"] for _, one in events if one["type"] == "RUN_STARTED"]
            assert begun == expected
            assert events[-1][1]["type"] == "RUN_FINISHED"


async def test_r61_a_brisk_run_needs_no_signs_of_life() -> None:
    """Comments come only where nothing else does: one per silent interval, none in between."""
    async with post() as here:
        pieces = []
        steps = [asyncio.Event() for _ in range(5)]
        await here.stage.cast(stepping(*"abcdef", on=steps)).start()
        async for piece in (await here.reading()).chunks():
            pieces.append(piece)
            if steps:  # While one piece is written, the next one comes; then nothing for a while.
                steps.pop(0).set()
                while not here.hub.waiting_bytes:  # noqa: ASYNC110 - nobody is told of a level
                    await asyncio.sleep(0)
        assert types_in(pieces)[-1] == "RUN_FINISHED"
        assert len(pieces) > 3
        assert codec.KEEP_ALIVE not in pieces
    async with post(ping_interval=0.05, pong_timeout=0.01) as here:
        go_on = asyncio.Event()
        await here.stage.cast(waiting("a", until=go_on)).start()
        pieces = []
        async for piece in (await here.reading()).chunks():
            pieces.append(piece)
            if pieces.count(codec.KEEP_ALIVE) == 3:
                go_on.set()
        assert types_in(pieces)[-1] == "RUN_FINISHED"
        assert all(piece == codec.KEEP_ALIVE for piece in pieces if b": keep" in piece)


async def test_r84_a_revocation_is_the_last_thing_a_stream_hears() -> None:
    """Revoked before its first piece, or with some waiting: not one byte more is told."""
    async with post() as here:
        go_on = asyncio.Event()
        run = await here.stage.cast(stepping("some", "secret", on=[go_on])).start()
        early, late = await here.reading(), await here.reading()
        chunks = late.chunks()
        await anext(chunks)
        go_on.set()
        await here.stage.done(run)
        assert here.hub.waiting_bytes > 0
        assert here.hub.end(lambda who: who.user == "alice", codes.NOT_ALLOWED) == 2
        assert await told(early) == []
        assert [piece async for piece in chunks] == []
        assert here.empty
        closed = [one for one in here.happened if isinstance(one, telemetry.ConnectionClosed)]
        assert [one.code for one in closed] == [3507, 3507]


async def test_r84_past_its_grace_a_stream_ends() -> None:
    """When nobody has renewed the credential by then, the stream is over; the run is not."""
    async with post() as here:
        here.clock.left = 0.05
        run = await here.stage.cast(waiting("a")).start()
        stream = await here.reading()
        assert types_in(await told(stream))[-1] == "TEXT_MESSAGE_CONTENT"
        assert stream.ended is codes.EXPIRED
        record = await here.stage.store.find_run("acme", "alice", run)
        assert record is not None
        assert record.ended_at is None


async def test_r59_what_waits_is_still_told_when_the_server_drains() -> None:
    """The run's one ending reaches a reader that has not come to it yet."""
    async with post() as here:
        await here.stage.cast(waiting("a")).start()
        stream = await here.reading()
        await here.stage.service.drain()
        stream.end(codes.MOVE_ELSEWHERE)
        last = events_in(await told(stream))[-1][1]
        assert (last["type"], last["code"]) == ("RUN_ERROR", "run.drained")


@pytest.mark.parametrize("backlog_bytes", [1, 1 << 20])
async def test_r97_who_falls_behind_gets_all_of_it_in_fewer_events(backlog_bytes: int) -> None:
    """On the same stream, merged from memory or answered from the log; ids rise to the top."""
    async with post(outbox_bytes=512, backlog_bytes=backlog_bytes, **SMALL) as here:
        go_on = asyncio.Event()
        run = await here.stage.cast(stepping("and so ", *WORDS, on=[go_on])).start()
        stream = await here.reading(f"{here.broker.epoch(THREAD)}:0")
        chunks = stream.chunks()
        pieces = [await anext(chunks)]
        go_on.set()
        await here.stage.done(run)
        pieces += [piece async for piece in chunks]
        events = events_in(pieces)
        assert "".join(event.get("delta", "") for _, event in events) == "and so " + "".join(WORDS)
        assert events[-1][1]["type"] == "RUN_FINISHED"
        assert len(events) < len(WORDS)
        positions = [int(key.partition(":")[2]) for key, _ in events if key]
        assert positions == sorted(set(positions))
        assert positions[-1] == len(await here.stage.log())
        from_the_log = any(isinstance(one, telemetry.CaughtUp) for one in here.happened)
        assert from_the_log is (backlog_bytes == 1)
        assert here.empty


async def test_r97_where_the_log_cannot_answer_the_stream_ends_and_the_last_id_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader that fell behind too far is ended with 3008, and comes back for exactly the rest."""

    async def fails(*asked: Any) -> Any:
        raise StorageError("the disk is gone")

    async with post(outbox_bytes=512, backlog_bytes=1, **SMALL) as here:
        go_on = asyncio.Event()
        run = await here.stage.cast(stepping("and so ", *WORDS, on=[go_on])).start()
        stream = await here.reading(f"{here.broker.epoch(THREAD)}:0")
        chunks = stream.chunks()
        pieces = [await anext(chunks)]
        go_on.set()
        await here.stage.done(run)
        with monkeypatch.context() as broken:
            broken.setattr(here.parts.recovery, "tail", fails)
            pieces += [piece async for piece in chunks]
        assert stream.ended is codes.SLOW
        assert "RUN_FINISHED" not in types_in(pieces)
        seen = events_in(pieces)
        again = events_in(await told(await here.reading(seen[-1][0])))
        text = "".join(event.get("delta", "") for _, event in seen + again)
        assert text == "and so " + "".join(WORDS)
        assert here.empty


async def test_r97_a_client_that_takes_nothing_is_ended_after_a_while() -> None:
    """Whoever holds a piece for longer than `slow_timeout` is hurried, once, and told no more."""
    async with post(slow_timeout=0.02) as here:
        await here.stage.cast(waiting("a")).start()
        stream, hurried = await here.reading(), asyncio.Event()
        stream.hurry = hurried.set
        chunks = stream.chunks()
        await anext(chunks)
        await hurried.wait()
        assert stream.ended is codes.SLOW
        assert [piece async for piece in chunks] == []
        assert here.empty
    async with post(slow_timeout=0.05, ping_interval=0.2, pong_timeout=0.1) as here:
        await here.stage.cast(waiting("a")).start()
        stream = await here.reading()
        chunks = stream.chunks()
        while await anext(chunks) != codec.KEEP_ALIVE:
            pass
        assert stream.ended is None


async def test_r39_a_stream_asks_the_policy_before_it_reads() -> None:
    """What the policy refuses is answered like a thread that is not there, and nothing is kept."""
    async with post() as here:
        await here.stage.done(await here.stage.cast(saying("mine")).start())
        here.allowed = lambda *asked: False
        stream = here.stream()
        with pytest.raises(UnknownChannel):
            await stream.begin(StreamRequest(channel=THREAD, asked=FROM_START))
        assert here.hub.subscriptions == 0
        stream.leave()
        assert here.empty


async def test_r37_streams_count_as_connections() -> None:
    """Past the bound there is no place; who leaves frees one, and leaving twice frees one."""
    async with post() as here:
        streams = [here.stream() for _ in range(3)]
        with pytest.raises(TooManyRequests):
            here.stream()
        streams[0].leave()
        streams[0].leave()
        here.stream()
        with pytest.raises(TooManyRequests):
            here.stream()


async def test_r04_r09_each_stream_is_opened_and_closed_once_under_one_id() -> None:
    """Whoever watches hears of each stream's beginning and end, with its code."""
    async with post() as here:
        await here.stage.done(await here.stage.cast(saying("a")).start())
        await told(await here.reading())
        stream = await here.reading()
        stream.end(codes.FORCED)
        await told(stream)
        both = (telemetry.ConnectionOpened, telemetry.ConnectionClosed)
        told_of = [(type(one), one.connection) for one in here.happened if isinstance(one, both)]
        assert told_of == [(kind, key) for key in "01" for kind in both]
        closed = [one.code for one in here.happened if isinstance(one, telemetry.ConnectionClosed)]
        assert closed == [1005, 3503]


async def test_r73_a_run_that_begins_while_one_joins_is_followed() -> None:
    """Whether it had begun is asked first: one that begins meanwhile is in the answer or live."""
    async with post() as here:
        await here.stage.done(await here.stage.cast(saying("a")).start())
        here.stage.cast(saying("b"), "next")
        asked = here.stage.store.has_active_run
        second: list[str] = []

        async def slowly(tenant: str, user: str, thread: str) -> bool:
            active = await asked(tenant, user, thread)
            second.append(await here.stage.start(agent="next"))
            return active

        here.parts.store.has_active_run = slowly  # type: ignore[method-assign]
        events = events_in(await told(await here.reading()))
        assert events[-1][1]["runId"] == second[0]
        assert events[-1][1]["type"] == "RUN_FINISHED"


SPOKEN = ("hello", "RUN_FINISHED", 'say "RUN_STARTED"', "a\n\ndata: b")
"""What people and agents may say, some of it like bounds and separators."""


def encoded(events: list[dict[str, Any]]) -> list[bytes]:
    """Return events as they stand in a stream, with positions."""
    return [
        codec.encode_event(msgspec.json.encode(event), position=("e", offset))
        for offset, event in enumerate(events, 1)
    ]


def run_of(name: str, said: list[str], *, failed: bool) -> list[dict[str, Any]]:
    end = {"type": "RUN_ERROR"} if failed else {"type": "RUN_FINISHED", "runId": name}
    texts = [{"type": "TEXT_MESSAGE_CONTENT", "delta": text} for text in said]
    return [{"type": "RUN_STARTED", "runId": name}, *texts, end]


runs = st.lists(st.tuples(st.lists(st.sampled_from(SPOKEN), max_size=3), st.booleans()), max_size=5)


@given(runs, st.integers(0, 4), st.data())
def test_r91_a_window_shows_one_run_whole(
    made: list[tuple[list[str], bool]], wanted: int, data: st.DataObject
) -> None:
    """However events are joined into pieces, what is shown is the run that is named, or nothing."""
    thread = [
        encoded(run_of(f"r{number}", said, failed=failed))
        for number, (said, failed) in enumerate(made)
    ]
    events = [event for run in thread for event in run]
    window, shown = RunFilter(f"r{wanted}"), b""
    while events:
        count = data.draw(st.integers(1, len(events)))
        shown += window.take(b"".join(events[:count]))
        del events[:count]
    assert shown == (b"".join(thread[wanted]) if wanted < len(thread) else b"")
    assert window.over == (wanted < len(thread))


@given(runs, st.integers(0, 4))
def test_a_window_of_no_run_shows_all_up_to_an_end(
    made: list[tuple[list[str], bool]], skipped: int
) -> None:
    """A reader that joined in the middle sees the rest of that run, and nothing of the next."""
    rest = encoded(run_of("r", ["a", "b", "c"], failed=False))[1 + min(skipped, 3) :]
    more = [
        event for said, failed in made for event in encoded(run_of("later", said, failed=failed))
    ]
    window = RunFilter(None)
    assert window.take(b"".join([*rest, *more])) == b"".join(rest)
    assert window.over
    assert window.take(b"".join(more)) == b""


def test_what_is_no_event_passes_an_open_window() -> None:
    """A comment is shown while the window is open, alone or beside a bound."""
    window = RunFilter("r")
    started, ended = encoded(run_of("r", [], failed=True))
    assert window.take(codec.KEEP_ALIVE) == b""
    assert window.take(codec.KEEP_ALIVE + started) == started
    assert window.take(codec.KEEP_ALIVE) == codec.KEEP_ALIVE
    assert window.take(codec.KEEP_ALIVE + ended + codec.KEEP_ALIVE) == codec.KEEP_ALIVE + ended
