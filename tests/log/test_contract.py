"""The broker's contract: one suite, every engine."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from tests.log.brokers import (
    AMPLE,
    ENGINES,
    NOTICES,
    OTHER,
    TALK,
    Engine,
    items,
    keyed_write,
    notes_of,
    text_write,
)
from towpath.channels import Channel
from towpath.errors import Conflict, OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import (
    Append,
    IdempotencyKey,
    Item,
    Position,
    Publication,
    Retention,
    Write,
    Written,
    write,
)
from towpath.log.sqlite import broker as sqlite_broker


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """One of the engines over a place of its own."""
    return Engine(request.param, tmp_path / "log" / "log.sqlite3")


def offsets(publications: list[Publication]) -> list[int]:
    return [publication.offset for publication in publications]


async def test_offsets_count_from_one_in_the_order_of_submission(engine: Engine) -> None:
    """Offsets are 1, 2, 3 … without a gap, in submit order, whoever waits for what."""
    async with engine.running() as broker:
        futures = [broker.submit(text_write(f"{n}a", f"{n}b")) for n in range(50)]
        spans = [(await future).spans[0] for future in reversed(futures)]
        replay = await broker.read(TALK, 0)
    assert offsets(replay.publications) == list(range(1, 101))
    assert [span.first for span in reversed(spans)] == list(range(1, 101, 2))
    assert [p.data for p in replay.publications][:4] == [b"0a", b"0b", b"1a", b"1b"]


async def test_one_write_numbers_each_of_its_channels(engine: Engine) -> None:
    """A write to several channels, one of them twice, counts in each by itself."""
    async with engine.running() as broker:
        await write(broker, text_write("before"))
        written = await write(
            broker,
            Write(
                (
                    Append(TALK, items("a", "b")),
                    Append(NOTICES, items("n")),
                    Append(TALK, items("c")),
                )
            ),
        )
        replay = await broker.read(TALK, 0)
    assert [(span.first, span.last) for span in written.spans] == [(2, 3), (1, 1), (4, 4)]
    assert written.spans[0].before == Position(replay.epoch, 1)
    assert [p.data for p in replay.publications] == [b"before", b"a", b"b", b"c"]
    assert [p.tags for p in replay.publications][1] == {"text": "a"}


async def test_delivery_comes_in_order_and_before_the_future(engine: Engine) -> None:
    """Who is told that a write is done finds it delivered, and nothing later before it."""
    async with engine.running() as broker:
        futures = [broker.submit(text_write(str(n))) for n in range(20)]
        for n, future in enumerate(futures):
            await future
            assert len(engine.deliveries.delivered) > n
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"%d" % n for n in range(20)]
    assert offsets(engine.deliveries.of(TALK)) == list(range(1, 21))


async def test_p4_what_is_delivered_can_be_read(engine: Engine) -> None:
    """Nothing is heard before it is in the log: a read at delivery holds it."""
    async with engine.running() as broker:
        written = await write(broker, text_write("x"))
        delivered = engine.deliveries.of(TALK)
        replay = await broker.read(TALK, 0)
    assert replay.publications == delivered
    assert replay.top == written.spans[0].last


async def test_a_refused_fact_leaves_no_trace(engine: Engine) -> None:
    """A write is all or nothing: its earlier facts, publications and key are gone with it."""
    async with engine.running() as broker:
        await write(broker, text_write("a"))
        refused = Write((Append(TALK, items("b")), Append(NOTICES, items("n"))), ("one", "no"))
        after = text_write("c")
        first, second = broker.submit(refused), broker.submit(after)
        with pytest.raises(Conflict, match="the note is refused"):
            await first
        assert (await second).spans[0].first == 2
        with pytest.raises(Conflict):
            await write(broker, keyed_write("r1", "d", note="no"))
        again = await write(broker, keyed_write("r1", "d"))
        assert not again.repeated
        assert await notes_of(broker) == ["yes"]
        assert (await broker.read(NOTICES, 0)).top == 0
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"a", b"c", b"d"]
    assert engine.deliveries.of(NOTICES) == []


async def test_r81_the_same_request_does_nothing_twice(engine: Engine) -> None:
    """A repeated key gives the old result, also in one batch, and adds nothing."""
    async with engine.running() as broker:
        await write(broker, text_write("before"))
        first, twin = broker.submit(keyed_write("r1", "a")), broker.submit(keyed_write("r1", "a"))
        assert (await first).result == b"2"
        assert (await twin).result == b"2"
        assert (await twin).repeated
        assert (await twin).spans == ()
        with pytest.raises(Conflict):
            await write(broker, keyed_write("r1", "a", digest="other"))
        assert (await write(broker, keyed_write("r2", "b"))).result == b"3"
        assert await notes_of(broker) == ["yes", "yes"]
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"before", b"a", b"b"]


async def test_r81_a_request_is_remembered_for_a_day(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 24 h the same request gets the old result; after it, it is another one."""
    monkeypatch.setattr(sqlite_broker, "SWEEP_SECONDS", 0.01)
    now = [1_000.0]
    async with engine.running(clock=lambda: now[0]) as broker:
        assert not (await write(broker, keyed_write("r1", "a"))).repeated
        now[0] += 24 * 3600
        await asyncio.sleep(0.05)  # The sweep of the SQLite log looks at real time.
        assert (await write(broker, keyed_write("r1", "a"))).repeated
        now[0] += 1
        await asyncio.sleep(0.05)
        key = keyed_write("r1", "a").key
        assert key is not None
        assert await broker.stored_result(key) is None
        assert not (await write(broker, keyed_write("r1", "b", digest="other"))).repeated
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"a", b"b"]


async def test_a_repeated_request_is_answered_though_its_place_is_taken(engine: Engine) -> None:
    """A key is looked at before `after`: a repetition is no new write that could be late."""
    async with engine.running() as broker:
        keyed = keyed_write("r1", "a")
        placed = Write(
            (Append(TALK, items("a"), after=0),), keyed.facts, key=keyed.key, result=keyed.result
        )
        assert (await write(broker, placed)).result == b"1"
        assert (await write(broker, placed)).repeated


async def test_a_write_follows_on_what_it_says(engine: Engine) -> None:
    """With `after` a write is refused unless the top is that offset, and keeps nothing."""
    async with engine.running() as broker:
        assert (await write(broker, text_write("a", after=0))).spans[0].first == 1
        for wrong in (0, 2):
            with pytest.raises(StorageError):
                await write(broker, text_write("x", after=wrong))
        late = Write((Append(TALK, items("x"), after=9),), ("note",))
        with pytest.raises(StorageError):
            await write(broker, late)
        chained = [broker.submit(text_write(str(n), after=n)) for n in range(1, 5)]
        await asyncio.gather(*chained)
        assert await notes_of(broker) == []
        assert (await broker.read(TALK, 0)).top == 5
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"a", b"1", b"2", b"3", b"4"]


async def test_a_refused_link_breaks_the_whole_chain(engine: Engine) -> None:
    """Where an earlier write of a producer failed, none of its later ones can stand."""
    async with engine.running() as broker:
        broken = Write((Append(TALK, items("x"), after=0),), ("no",))
        chain = [broker.submit(broken), *(broker.submit(text_write("y", after=n)) for n in (1, 2))]
        outcomes = await asyncio.gather(*chain, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Conflict, OffsetConflict, OffsetConflict]
        assert (await broker.read(TALK, 0)).publications == []


async def test_r92_only_who_holds_a_channel_writes_within(engine: Engine) -> None:
    """With `fencing_offset` a write is refused once that fence is gone, whatever the top is."""

    def fencing_offset(fence: int, **more: Any) -> Write:
        return Write((Append(TALK, items("w"), fencing_offset=fence, **more),))

    async with engine.running() as broker:
        with pytest.raises(OffsetConflict):
            await write(broker, fencing_offset(1))
        await write(broker, Write((Append(TALK, items("a"), fence=True),)))
        assert (await write(broker, fencing_offset(1, after=1))).spans[0].first == 2
        for wrong in (0, 2):
            with pytest.raises(OffsetConflict):
                await write(broker, fencing_offset(wrong))
        ended, late = (
            broker.submit(fencing_offset(1, unfence=True)),
            broker.submit(fencing_offset(1, after=3)),
        )
        await ended
        with pytest.raises(OffsetConflict):
            await late
        await write(broker, Write((Append(TALK, items("b"), fence=True),)))
        with pytest.raises(OffsetConflict):
            await write(broker, fencing_offset(1, after=4))
        assert (await write(broker, fencing_offset(4, after=4))).spans[0].first == 5
        await write(broker, Write(truncate=(TALK,)))
        with pytest.raises(OffsetConflict):
            await write(broker, fencing_offset(4))
        assert (await broker.read(TALK, 0)).top == 5


async def test_r82_an_empty_channel_has_a_position(engine: Engine) -> None:
    """A reader of nothing gets an epoch and offset 0, and recovers from there."""
    async with engine.running() as broker:
        empty = await broker.read(TALK, 0)
        assert (empty.top, empty.publications, empty.gone) == (0, [], False)
        assert empty.epoch
        assert empty.epoch != (await broker.read(OTHER, 0)).epoch
        await write(broker, text_write("a"))
        replay = await broker.read(TALK, empty.top, epoch=empty.epoch)
    assert [p.data for p in replay.publications] == [b"a"]


async def test_r79_a_position_counts_in_its_own_channel_and_past(engine: Engine) -> None:
    """Another channel's epoch, a made-up one, the empty one and a future offset are all gone."""
    async with engine.running() as broker:
        await write(broker, text_write("a", "b"))
        await write(broker, text_write("z", channel=OTHER))
        epoch = (await broker.read(TALK, 0)).epoch
        foreign = (await broker.read(OTHER, 0)).epoch
        for offset, said_epoch in ((1, foreign), (0, foreign), (1, "made up"), (1, ""), (3, epoch)):
            replay = await broker.read(TALK, offset, epoch=said_epoch)
            assert (replay.gone, replay.publications) == (True, [])
            assert (replay.epoch, replay.top) == (epoch, 2)
        assert not (await broker.read(TALK, 2, epoch=epoch)).gone


async def test_r82_the_epoch_is_known_before_anything_is_read(engine: Engine) -> None:
    """`epoch` is what reads and writes say, for an empty channel too, and another for each."""
    async with engine.running() as broker:
        empty, other = broker.epoch(TALK), broker.epoch(OTHER)
        assert empty == (await broker.read(TALK, 0)).epoch
        assert empty != other
        written = await write(broker, text_write("a"))
        assert written.spans[0].epoch == empty == broker.epoch(TALK)
        assert other == (await broker.read(OTHER, 0)).epoch
        await write(broker, Write(truncate=(TALK,)))
        assert broker.epoch(TALK) == empty
    if engine.kind == "sqlite":
        async with engine.running() as broker:
            assert broker.epoch(TALK) == empty == (await broker.read(TALK, 0)).epoch


async def test_a_limit_gives_the_oldest(engine: Engine) -> None:
    """A limited read gives the first ones after the position, and still names the top."""
    async with engine.running() as broker:
        await write(broker, text_write(*"abcd"))
        await write(broker, text_write(*"ef"))
        for limit, expected in ((0, b""), (1, b"b"), (4, b"bcde"), (9, b"bcdef")):
            replay = await broker.read(TALK, 1, limit=limit)
            assert b"".join(p.data for p in replay.publications) == expected
            assert replay.top == 6


async def test_all_that_is_kept_is_never_gone(engine: Engine) -> None:
    """Without an offset a read gives what is kept and says where it begins, also after a trim."""
    keep = Retention(publications=5, bytes=1 << 30, seconds=1e9, since_last=True)
    async with engine.running(retention=lambda _: keep) as broker:
        empty = await broker.read(TALK, None)
        assert (empty.gone, empty.begins, empty.top, empty.publications) == (False, 1, 0, [])
        for n in range(12):
            await write(broker, text_write(str(n)))
        kept = await broker.read(TALK, None)
        assert (kept.gone, kept.begins, kept.top) == (False, 8, 12)
        assert offsets(kept.publications) == [8, 9, 10, 11, 12]
        assert (await broker.read(TALK, None, epoch=kept.epoch)).publications == kept.publications
        assert (await broker.read(TALK, None, epoch="made up")).gone
        gone = await broker.read(TALK, 0)
        assert (gone.gone, gone.begins) == (True, 8)
        await write(broker, Write(truncate=(TALK,)))
        nothing = await broker.read(TALK, None)
        assert (nothing.gone, nothing.begins, nothing.publications) == (False, 13, [])


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [
        (None, None, [9, 8, 7, 6, 5, 4]),
        (None, 2, [9, 8]),
        (None, 0, []),
        (8, None, [7, 6, 5, 4]),
        (8, 3, [7, 6, 5]),
        (10, 1, [9]),
        (4, 5, []),
        (2, 5, []),
        (0, 5, []),
    ],
)
async def test_a_read_downwards_gives_the_newest_first(
    engine: Engine, after: int | None, limit: int | None, expected: list[int]
) -> None:
    """Downwards a read ends where what is kept begins; rows may hold several publications."""
    keep = Retention(publications=6, bytes=1 << 30, seconds=1e9, since_last=True)
    async with engine.running(retention=lambda _: keep) as broker:
        for texts in ("a", "bc", "def", "ghi"):
            await write(broker, text_write(*texts))
        replay = await broker.read(TALK, after, limit=limit, reverse=True)
        assert (offsets(replay.publications), replay.gone) == (expected, False)
        assert [p.data for p in replay.publications] == [b"abcdefghi"[n - 1 : n] for n in expected]
        assert (await broker.read(TALK, 11, reverse=True)).gone
        assert (await broker.read(TALK, 5, epoch="made up", reverse=True)).gone


def broken_writes() -> list[Write]:
    """Return writes that cannot be applied, each in a way of its own; the last five only to a file.

    The log in memory takes those: it encodes neither tags nor names.
    """

    def boom(_: Any) -> bytes:
        raise ZeroDivisionError

    half = "\ud800"
    key = IdempotencyKey(("acme", "alice", "m"), "broken", "d")
    return [
        Write((Append(TALK, items("x")),), ("odd",)),
        Write((Append(TALK, items("x")),), ("deep",)),
        Write((Append(TALK, items("x")),), ("twice",)),
        Write((Append(TALK, items("x")),), ("one", half)),
        Write((Append(TALK, items("x")),), ("yes",), key=key, result=boom),
        Write((Append(TALK, (Item(b"x", {"text": half}),)),)),
        Write((Append(TALK, (Item(b"x", cast(Any, {"n": object()})),)),), ("yes",)),
        Write((Append(Channel("acme", f"thread:{half}"), items("x")),), ("yes",)),
        Write((Append(TALK, items("x")),), truncate=(Channel("acme", half),)),
        Write(
            (Append(TALK, items("x")),), ("yes",), key=IdempotencyKey(("acme", half, "m"), "k", "d")
        ),
    ]


@pytest.mark.parametrize(
    ("kind", "number"),
    [*(("memory", n) for n in range(5)), *(("sqlite", n) for n in range(10))],
)
async def test_r124_a_write_that_cannot_be_applied_fails_alone(
    kind: str, number: int, tmp_path: Path
) -> None:
    """Whatever it raises, those beside it in the batch are written, and nothing of it."""
    engine = Engine(kind, tmp_path / "log")
    async with engine.running() as broker:
        await write(broker, text_write("first"))
        batch = [
            text_write("a"),
            broken_writes()[number],
            keyed_write("r1", "b", note="yes"),
            text_write("c"),
        ]
        outcomes = await asyncio.gather(*map(broker.submit, batch), return_exceptions=True)
        assert [type(one) for one in outcomes] == [Written, WriteFailed, Written, Written]
        assert isinstance(outcomes[1], WriteFailed)
        assert outcomes[1].__cause__ is not None
        assert [p.data for p in (await broker.read(TALK, 0)).publications] == [
            *(b"first", b"a", b"b", b"c")
        ]
        assert await notes_of(broker) == ["yes"]
        await write(broker, text_write("d"))
    if engine.kind == "sqlite":
        async with engine.running() as broker:
            assert (await broker.read(TALK, None)).top == 5
    assert len(engine.deliveries.of(TALK)) == 5


async def test_retention_keeps_so_many(engine: Engine) -> None:
    """Over the bound the oldest go, a position before them is gone, the top stays."""
    keep = Retention(publications=5, bytes=1 << 30, seconds=1e9, since_last=True)
    async with engine.running(retention=lambda _: keep) as broker:
        for n in range(12):
            await write(broker, text_write(str(n)))
        kept = await broker.read(TALK, 7)
        assert offsets(kept.publications) == [8, 9, 10, 11, 12]
        for position in (0, 6):
            assert (await broker.read(TALK, position)).gone
        assert (await broker.read(TALK, 12)).top == 12


async def test_retention_keeps_so_many_bytes(engine: Engine) -> None:
    """The byte bound drops the oldest too."""
    keep = Retention(publications=1000, bytes=4_000, seconds=1e9, since_last=True)
    async with engine.running(retention=lambda _: keep) as broker:
        for _ in range(10):
            await write(broker, text_write("x" * 900))
        assert (await broker.read(TALK, 0)).gone
        assert len((await broker.read(TALK, 8)).publications) == 2
        assert (await broker.read(TALK, 5)).gone


async def test_retention_never_reaches_into_a_hold_until_it_is_released(engine: Engine) -> None:
    """What is unfinished is kept whatever its size; its end frees it."""
    keep = Retention(publications=3, bytes=1 << 30, seconds=1e9, since_last=True)
    async with engine.running(retention=lambda _: keep) as broker:
        for n in range(4):
            await write(broker, text_write(f"old {n}"))
        await write(broker, Write((Append(TALK, items("begun"), fence=True),)))
        for n in range(10):
            await write(broker, text_write(str(n)))
        held = await broker.read(TALK, 4)
        assert offsets(held.publications) == list(range(5, 16))
        await write(broker, Write((Append(TALK, items("ended"), unfence=True),)))
        await write(broker, text_write("next"))
        assert (await broker.read(TALK, 4)).gone
        assert len((await broker.read(TALK, 14)).publications) == 3


async def test_retention_by_age(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notices go when they themselves are old; what is newer stays."""
    monkeypatch.setattr(sqlite_broker, "SWEEP_SECONDS", 0.02)
    now = [1_000.0]
    keep = Retention(publications=1000, bytes=1 << 30, seconds=60, since_last=False)
    async with engine.running(retention=lambda _: keep, clock=lambda: now[0]) as broker:
        await write(broker, text_write("old", channel=NOTICES))
        now[0] += 50
        await write(broker, text_write("mid", channel=NOTICES))
        now[0] += 20
        await write(broker, text_write("new", channel=NOTICES))
        while not (await broker.read(NOTICES, 0)).gone:  # noqa: ASYNC110 - the sweep tells nobody
            await asyncio.sleep(0.01)
        kept = await broker.read(NOTICES, 1)
        assert [p.data for p in kept.publications] == [b"mid", b"new"]


async def test_forgetting_drops_all_and_counts_on(engine: Engine) -> None:
    """A forgotten channel holds nothing, frees its hold, and never numbers anew."""
    keep = Retention(publications=2, bytes=1 << 30, seconds=1e9, since_last=True)
    async with engine.running(retention=lambda _: keep) as broker:
        epoch = (await broker.read(TALK, 0)).epoch
        await write(broker, Write((Append(TALK, items("a", "b"), fence=True),)))
        await write(broker, text_write("kept", channel=OTHER))
        await write(broker, Write(truncate=(TALK,)))
        assert (await broker.read(TALK, 0, epoch=epoch)).gone
        assert (await broker.read(TALK, 2, epoch=epoch)).publications == []
        for text in "cdef":
            await write(broker, text_write(text))
        assert offsets((await broker.read(TALK, 4)).publications) == [5, 6]
        assert (await broker.read(TALK, 3)).gone
        assert len((await broker.read(OTHER, 0)).publications) == 1


@pytest.mark.parametrize("step", [0.0, -3600.0])
async def test_r76_offsets_rise_whatever_the_clock_does(engine: Engine, step: float) -> None:
    """On a clock that stands still or runs backwards offsets rise one by one."""
    now = [1e6]

    def clock() -> float:
        now[0] += step
        return now[0]

    async with engine.running(clock=clock) as broker:
        for n in range(30):
            assert (await write(broker, text_write(str(n)))).spans[0].last == n + 1
        assert offsets((await broker.read(TALK, 0)).publications) == list(range(1, 31))


async def test_p7_a_thousand_producers_wait_for_room(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many produce at once, no more than the bound wait for the disk, and all get there."""
    monkeypatch.setattr(sqlite_broker, "QUEUE_BOUND", 64)
    async with engine.running() as broker:
        most = 0

        async def produce(n: int) -> None:
            nonlocal most
            for text in ("a", "b", "c"):
                await broker.room()
                future = broker.submit(text_write(f"{n}{text}"))
                most = max(most, getattr(broker, "_waiting", 0))
                await future

        await asyncio.gather(*(produce(n) for n in range(1000)))
        replay = await broker.read(TALK, 0)
    assert most <= 64
    assert offsets(replay.publications) == list(range(1, 3001))
    assert replay.publications == engine.deliveries.of(TALK)
    for n in range(1000):
        mine = [p.data for p in replay.publications if p.data[:-1] == b"%d" % n]
        assert mine == [b"%da" % n, b"%db" % n, b"%dc" % n]


async def test_ample_retention_is_what_these_tests_assume(engine: Engine) -> None:
    """The suite's default keeps everything, so a loss it sees is a loss."""
    assert AMPLE.publications > 3000
    async with engine.running() as broker:
        await write(broker, text_write("x" * 10_000))
        assert not (await broker.read(TALK, 0)).gone
