"""What a subscriber gets first: cases (a) to (d) of WIRE section 5, and any position at all."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.client import screen
from tests.runs.stage import ALICE, BOB, Stage, eventually, saying, staged, waiting
from towpath.channels import tenant_channel, thread_channel, user_channel
from towpath.delivery.recovery import Recovered, RecoverFrom, Recovery
from towpath.errors import UnknownChannel
from towpath.log.broker import Append, Item, Position, Publication, Write, write
from towpath.runs.model import ThreadCreated, ThreadDeleted, ThreadKey

TALK = thread_channel("acme", "alice", "t1")
ENGINES = ("memory", "sqlite")
START = Position("", 0)


def events(publications: list[Publication]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(one.data) for one in publications]


def offsets(publications: list[Publication]) -> list[int | None]:
    """Return the offsets; None for a publication that completes no position."""
    return [one.offset or None for one in publications]


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """One of the engines."""
    return str(request.param)


class Reading:
    """A stage with a thread on it: one run over, one that goes on."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.recovery = Recovery(stage.broker, stage.store, snapshot_max_bytes=1 << 20)

    async def ask(
        self, position: Position | None, channel: Any = TALK, user: str = "alice"
    ) -> Recovered:
        recover_from = RecoverFrom(position is not None, position or START)
        return await self.recovery.answer(channel, user, recover_from)


@asynccontextmanager
async def reading(kind: str, place: Path) -> AsyncIterator[Reading]:
    async with staged(kind, place) as stage:
        state = {"type": "STATE_SNAPSHOT", "snapshot": {"n": 1}}
        stage.cast(saying("one ", "two ", state)).cast(waiting("th", "ree ", "four"), "waits")
        await stage.done(await stage.start())
        await stage.start(agent="waits")
        await stage.logged(12)
        yield Reading(stage)


async def test_r80_a_valid_position_gets_the_tail(kind: str, tmp_path: Path) -> None:
    """(a) From any position of its past a reader gets the rest, joined, and ends at the top.

    What has an offset completes that position: who comes back from there has missed nothing.
    """
    async with reading(kind, tmp_path) as there:
        log = await there.stage.log()
        whole = [msgspec.json.decode(one.data) for one in log]
        epoch = (await there.ask(None)).epoch
        for at in range(len(log) + 1):
            answer = await there.ask(Position(epoch, at))
            assert (answer.recovered, answer.top, answer.epoch) == (True, len(log), epoch)
            assert screen([*whole[:at], *events(answer.publications)]) == screen(whole)
            named = offsets(answer.publications)
            assert named[-1:] == ([len(log)] if at < len(log) else [])
            assert_places(whole, at, answer.publications)
            seqs = [
                (int(one.tags.get("from", one.tags["seq"])), int(one.tags["seq"]))
                for one in answer.publications
            ]
            covered = [n for first, last in seqs for n in range(first, last + 1)]
            assert covered == [int(one.tags["seq"]) for one in log[at:]]


def assert_places(whole: list[dict[str, Any]], at: int, received: list[Publication]) -> None:
    """What was told up to an offset shows what the log shows up to it; the offsets rise."""
    named = [offset for offset in offsets(received) if offset is not None]
    assert named == sorted(set(named))
    for index, offset in enumerate(offsets(received)):
        if offset is not None:
            seen = [*whole[:at], *events(received[: index + 1])]
            assert screen(seen) == screen(whole[:offset])


async def test_r73_deltas_that_passed_each_other_have_no_place(kind: str, tmp_path: Path) -> None:
    """Where texts come in turns and are joined, only the last of them completes a position."""
    one, two = ({"messageId": key} for key in ("one", "two"))
    content = {"type": "TEXT_MESSAGE_CONTENT"}
    deltas = [{**content, "delta": f"{n} ", **key} for n in range(4) for key in (one, two)]
    starts = [{"type": "TEXT_MESSAGE_START", "role": "assistant", **key} for key in (one, two)]
    ends = [{"type": "TEXT_MESSAGE_END", **key} for key in (one, two)]
    async with staged(kind, tmp_path) as stage:
        whole = await stage.played(saying(*starts, *deltas, *ends))
        there = Reading(stage)
        epoch = (await there.ask(None)).epoch
        for at in range(len(whole)):
            answer = await there.ask(Position(epoch, at))
            assert_places(whole, at, answer.publications)
        received = (await there.ask(Position(epoch, 3))).publications
        assert offsets(received) == [None, 11, 12, 13, 14]


async def test_a_long_answer_is_the_same_in_slices(tmp_path: Path) -> None:
    """However often others have their turn, what is told is what is told in one go."""
    async with reading("memory", tmp_path) as there:
        epoch = (await there.ask(None)).epoch
        recover_from = [None, START, *(Position(epoch, at) for at in range(12))]
        whole = [await there.ask(position) for position in recover_from]
        there.recovery._cpu_clock = itertools.count().__next__
        assert [await there.ask(position) for position in recover_from] == whole


@pytest.mark.parametrize("after", [0, 1])
async def test_r98_a_long_answer_leaves_others_their_turns(tmp_path: Path, after: int) -> None:
    """Folding for one reader lets everybody else go on, whenever its slice of time is over."""
    async with staged("memory", tmp_path) as stage:
        stage.cast(waiting(*(f"{number} " for number in range(200))))
        await stage.start()
        await stage.logged(200)
        there = Reading(stage)
        epoch = (await there.ask(None)).epoch
        there.recovery._cpu_clock = itertools.count().__next__
        turns = 0
        position = Position(epoch, after) if after else START
        answering = asyncio.create_task(there.ask(position))
        while not answering.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await answering).recovered
        assert turns >= 100


async def test_p7_a_valid_position_costs_no_read_of_the_conversation(
    kind: str, tmp_path: Path
) -> None:
    """The log alone has the tail; the messages of the thread are read for a snapshot only."""
    async with reading(kind, tmp_path) as there:
        top = (await there.ask(None)).top
        epoch = there.stage.broker.epoch(TALK)
        reads, get = list[str](), there.stage.store.get

        async def noted(*key: str) -> Any:
            reads.append(key[-1])
            return await get(*key)

        there.stage.store.get = noted  # type: ignore[method-assign, assignment]
        for at in (top, top - 3):
            assert (await there.ask(Position(epoch, at))).recovered
        assert reads == []
        assert not (await there.ask(Position(epoch, top + 1))).recovered
        assert reads == ["t1"]


async def test_r97_a_tail_beyond_its_bound_becomes_a_snapshot(kind: str, tmp_path: Path) -> None:
    """A valid position from which too much follows is answered like one that does not match."""
    async with reading(kind, tmp_path) as there:
        whole = [msgspec.json.decode(one.data) for one in await there.stage.log()]
        epoch = (await there.ask(None)).epoch
        there.recovery._tail_max_bytes = 100
        answer = await there.ask(Position(epoch, 1))
        assert (answer.recovered, answer.top) == (False, len(whole))
        assert screen(events(answer.publications)) == screen(whole)
        near = await there.ask(Position(epoch, len(whole) - 1))
        assert (near.recovered, offsets(near.publications)) == (True, [len(whole)])


async def test_r97_readers_behind_the_same_gap_share_one_read(tmp_path: Path) -> None:
    """Two tails of a channel from the same offset are one question to the log."""
    async with reading("memory", tmp_path) as there:
        reads, read = [], there.stage.broker.read

        async def counted(*arguments: Any, **named: Any) -> Any:
            reads.append(arguments)
            return await read(*arguments, **named)

        there.stage.broker.read = counted  # type: ignore[attr-defined]
        one, two, other = await asyncio.gather(
            *(there.recovery.tail(TALK, after) for after in (3, 3, 4))
        )
        assert one is two
        assert other is not one
        assert len(reads) == 2
        assert await there.recovery.tail(TALK, 3) is not one, "a later reader reads anew"


async def test_r97_a_tail_beyond_its_bound_goes_on_where_it_ended(
    kind: str, tmp_path: Path
) -> None:
    """The parts of a tail, one after the other, show what the whole tail shows."""
    async with reading(kind, tmp_path) as there:
        whole = [msgspec.json.decode(one.data) for one in await there.stage.log()]
        there.recovery._tail_max_bytes = 300
        at, seen, parts = 0, list[dict[str, Any]](), 0
        while at < len(whole):
            part = await there.recovery.tail(TALK, at)
            assert part is not None
            assert part.more == (part.top < len(whole))
            at, parts = part.top, parts + 1
            seen += events(part.publications)
        assert parts > 2
        assert screen(seen) == screen(whole)


@pytest.mark.parametrize("position", [None, START])
async def test_r74_a_newcomer_gets_the_snapshot(
    kind: str, tmp_path: Path, position: Position | None
) -> None:
    """(b) and (c) From the start, or from nowhere, a reader is brought to now without offsets."""
    async with reading(kind, tmp_path) as there:
        whole = [msgspec.json.decode(one.data) for one in await there.stage.log()]
        answer = await there.ask(position)
        assert answer.recovered == (position is not None)
        assert answer.top == len(whole)
        assert screen(events(answer.publications)) == screen(whole)
        assert set(offsets(answer.publications)) == {None}
        assert events(answer.publications)[0]["type"] == "RUN_STARTED"


async def test_r79_r80_a_position_that_does_not_match_gets_the_snapshot(
    kind: str, tmp_path: Path
) -> None:
    """(d) Foreign, old, future, malformed: not recovered, and the whole thread anew."""
    async with reading(kind, tmp_path) as there:
        whole = [msgspec.json.decode(one.data) for one in await there.stage.log()]
        here = (await there.ask(None)).epoch
        foreign = (await there.ask(None, user_channel("acme", "alice"))).epoch
        for position in (
            Position(foreign, 3),
            Position("made up", 3),
            Position("made up", 0),
            Position(here, len(whole) + 1),
            Position("", 3),
        ):
            answer = await there.ask(position)
            assert (answer.recovered, answer.top, answer.epoch) == (False, len(whole), here)
            assert screen(events(answer.publications)) == screen(whole)


async def test_r80_past_retention_is_not_recovered(kind: str, tmp_path: Path) -> None:
    """Where the log is gone the projection still tells the whole thread, and says so."""
    async with reading(kind, tmp_path) as there:
        stage = there.stage
        (run,) = [
            row
            for row in await stage.store.runs("acme", "alice", "t1", limit=9)
            if row.ended_at is None
        ]
        await stage.service.cancel(ALICE, run.run_id)
        whole = await stage.events()
        epoch = (await there.ask(None)).epoch
        await write(stage.broker, Write(truncate=(TALK,)))
        answer = await there.ask(Position(epoch, 3))
        assert not answer.recovered
        assert screen(events(answer.publications)) == screen(whole)
        # The position at the top is gone too, and the answer is the same snapshot.
        at_top = await there.ask(Position(epoch, len(whole)))
        assert (at_top.recovered, at_top.publications) == (False, answer.publications)
        again = await there.ask(Position(at_top.epoch, at_top.top))
        assert (again.recovered, again.publications) == (True, [])


async def test_r74_a_thread_made_anew_shows_its_active_run(kind: str, tmp_path: Path) -> None:
    """After a delete a new thread of the same id is told from its own beginning, while it runs."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(saying("old")).cast(waiting("new"), "waits")
        await stage.done(await stage.start())
        gone = ThreadDeleted(key=ThreadKey(tenant="acme", user="alice", id="t1"))
        await write(stage.broker, Write(facts=(gone,), truncate=(TALK,)))
        await stage.start(agent="waits")
        await eventually(lambda: new_is_logged(stage))
        answer = await Reading(stage).ask(START)
        assert "old" not in screen(events(answer.publications))
        assert "new" in screen(events(answer.publications))
        assert events(answer.publications)[-1]["type"] == "TEXT_MESSAGE_CONTENT"


async def new_is_logged(stage: Stage) -> bool:
    replay = await stage.broker.read(TALK, 6)
    return any(b"new" in one.data for one in replay.publications)


async def test_an_empty_thread_has_a_position(kind: str, tmp_path: Path) -> None:
    """A thread nothing was said on answers with nothing, from offset 0."""
    async with staged(kind, tmp_path) as stage:
        made = ThreadCreated(key=ThreadKey(tenant="acme", user="alice", id="t1"), title="", at=1.0)
        await write(stage.broker, Write(facts=(made,)))
        answer = await Reading(stage).ask(START)
        assert (answer.top, answer.publications, answer.recovered) == (0, [], True)
        assert answer.epoch


async def test_r39_a_strangers_thread_is_no_thread(kind: str, tmp_path: Path) -> None:
    """A thread of somebody else answers exactly like one that does not exist."""
    async with reading(kind, tmp_path) as there:
        epoch = (await there.ask(None)).epoch
        theirs = thread_channel("acme", "bob", "t1")
        for channel, user in (
            (theirs, "bob"),
            (TALK, "bob"),
            (thread_channel("acme", "alice", "x"), "alice"),
        ):
            for position in (None, START, Position(epoch, 3)):
                with pytest.raises(UnknownChannel):
                    await there.ask(position, channel, user)
            with pytest.raises(UnknownChannel):
                await there.recovery.check(channel, user)
        await there.recovery.check(TALK, "alice")


async def test_notices_are_never_folded(kind: str, tmp_path: Path) -> None:
    """On `user` and `tenant` each publication comes with its offset, or none and a no."""
    async with staged(kind, tmp_path) as stage:
        there = Reading(stage)
        for channel in (user_channel("acme", "alice"), tenant_channel("acme")):
            delta = b'{"type":"TEXT_MESSAGE_CONTENT","messageId":"m","delta":"x"}'
            items = tuple(Item(delta, {}) for _ in range(3))
            await write(stage.broker, Write((Append(channel, items),)))
            fresh = await there.ask(None, channel)
            assert (fresh.recovered, fresh.top, fresh.publications) == (False, 3, [])
            since = await there.ask(Position(fresh.epoch, 1), channel)
            assert (since.recovered, offsets(since.publications)) == (True, [2, 3])
            start = await there.ask(START, channel)
            assert (start.recovered, offsets(start.publications)) == (True, [1, 2, 3])
            for position in (Position("old", 1), Position(fresh.epoch, 4), Position("", 2)):
                lost = await there.ask(position, channel)
                assert (lost.recovered, lost.top, lost.publications) == (False, 3, [])


epochs = st.sampled_from(["", "here", "foreign", "bob", "x", "0" * 16]) | st.text(max_size=20)
positions = st.none() | st.builds(Position, epochs, st.integers(0, 20) | st.integers(0, 2**53))


@given(st.lists(positions, max_size=30))
@settings(max_examples=20)
def test_p1_r39_r79_r80_any_position_yields_only_the_readers_own(
    recover_from: list[Position | None],
) -> None:
    """Whatever position is said, a reader sees its own thread whole, and recovered is the truth."""
    asyncio.run(fuzz(recover_from))


async def fuzz(recover_from: list[Position | None]) -> None:
    async with reading("memory", Path()) as there:
        stage = there.stage
        stage.cast(saying("bobs secret"), "bobs")
        await stage.done(await stage.start(who=BOB, agent="bobs"), who=BOB)
        here = (await there.ask(None)).epoch
        real = {
            "here": here,
            "foreign": (await there.ask(None, user_channel("acme", "alice"))).epoch,
            "bob": (await there.ask(None, thread_channel("acme", "bob", "t1"), "bob")).epoch,
        }
        whole = [msgspec.json.decode(one.data) for one in await stage.log()]
        for one in recover_from:
            position = one and Position(real.get(one.epoch, one.epoch), one.offset)
            answer = await there.ask(position)
            known = (
                position is not None and position.epoch == here and position.offset <= len(whole)
            )
            assert answer.recovered == (known or position == START)
            assert (answer.epoch, answer.top) == (here, len(whole))
            seen = whole[: position.offset] if known and position is not None else []
            assert screen([*seen, *events(answer.publications)]) == screen(whole)
            assert b"bobs secret" not in b"".join(bytes(p.data) for p in answer.publications)
