"""The broker's contract: one suite, every engine."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.log.brokers import (
    AMPLE,
    ENGINES,
    NOTICES,
    OTHER,
    TALK,
    AllNotes,
    Engine,
    Unknown,
    items,
    keyed_write,
    notes_of,
    text_write,
)
from towpath.channels import Channel
from towpath.errors import Conflict, OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import (
    Append,
    Broker,
    IdempotencyKey,
    Item,
    Position,
    Publication,
    Read,
    Replay,
    Retention,
    Write,
    Written,
    write,
)
from towpath.log.sqlite import broker as sqlite_broker
from towpath.log.sqlite import writer as sqlite_writer


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """One of the engines over a place of its own."""
    return Engine(request.param, tmp_path / "log" / "log.sqlite3")


def offsets(publications: list[Publication]) -> list[int]:
    return [publication.offset for publication in publications]


async def test_offsets_count_from_one_without_a_gap(engine: Engine) -> None:
    """Offsets are 1, 2, 3 …; the publications of an append are adjacent, in its order."""
    async with engine.running() as broker:
        futures = [broker.submit(text_write(f"{n}a", f"{n}b")) for n in range(50)]
        spans = [(await future).spans[0] for future in reversed(futures)]
        replay = await broker.read(TALK, 0)
    assert offsets(replay.publications) == list(range(1, 101))
    data = [p.data for p in replay.publications]
    for n, span in enumerate(reversed(spans)):
        assert data[span.first - 1 : span.last] == [b"%da" % n, b"%db" % n]


async def test_writes_with_after_stand_in_their_order(engine: Engine) -> None:
    """A producer that names the offset before each write gets the order that it wants."""
    async with engine.running() as broker:
        futures = [broker.submit(text_write(str(n), after=n)) for n in range(20)]
        await asyncio.gather(*futures)
        replay = await broker.read(TALK, 0)
    assert [p.data for p in replay.publications] == [b"%d" % n for n in range(20)]


async def test_one_write_numbers_each_of_its_channels(engine: Engine) -> None:
    """A write to several channels, one of them twice, gets offsets of each channel."""
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
    """A write is delivered before its future is resolved, and nothing later is delivered first."""
    async with engine.running() as broker:
        futures = [broker.submit(text_write(str(n), after=n)) for n in range(20)]
        for n, future in enumerate(futures):
            await future
            assert len(engine.deliveries.delivered) > n
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"%d" % n for n in range(20)]
    assert offsets(engine.deliveries.of(TALK)) == list(range(1, 21))


async def test_only_attached_channels_are_delivered(engine: Engine) -> None:
    """A channel is delivered from `attach` to `detach`; both may be called twice."""
    async with engine.running(attached=()) as broker:
        await write(broker, text_write("before"))
        for _ in range(2):
            broker.attach(TALK)
        await write(broker, text_write("while"))
        await write(broker, text_write("elsewhere", channel=OTHER))
        for _ in range(2):
            broker.detach(TALK)
        await write(broker, text_write("after"))
        broker.attach(TALK)
        await write(broker, text_write("again"))
        assert (await broker.read(TALK, 0)).top == 4
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"while", b"again"]
    assert engine.deliveries.of(OTHER) == []


async def test_p3_a_reader_that_attaches_before_it_reads_misses_nothing(engine: Engine) -> None:
    """Publications that are written while a reader attaches are in its read or delivered."""
    async with engine.running(attached=()) as broker:
        futures = [broker.submit(text_write(str(n))) for n in range(50)]
        await futures[9]
        broker.attach(TALK)
        later = [broker.submit(text_write(str(n))) for n in range(50, 60)]
        replay = await broker.read(TALK, 0)
        await asyncio.gather(*futures, *later)
    delivered = offsets(engine.deliveries.of(TALK))
    assert {*offsets(replay.publications), *delivered} == set(range(1, 61))
    assert delivered == sorted(delivered)


async def test_p4_what_is_delivered_can_be_read(engine: Engine) -> None:
    """A publication is durable before it is delivered: a read at the delivery contains it."""
    async with engine.running() as broker:
        written = await write(broker, text_write("x"))
        delivered = engine.deliveries.of(TALK)
        replay = await broker.read(TALK, 0)
    assert replay.publications == delivered
    assert replay.top == written.spans[0].last


async def test_a_refused_fact_leaves_no_trace(engine: Engine) -> None:
    """A refused write leaves nothing: no fact, no publication, no key."""
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
    """A repeated key gives the stored result and spans, also in one batch, and adds nothing."""
    async with engine.running() as broker:
        await write(broker, text_write("before"))
        first, twin = broker.submit(keyed_write("r1", "a")), broker.submit(keyed_write("r1", "a"))
        assert (await first).result == (await twin).result == b"a"
        assert not (await first).repeated
        assert (await twin).repeated
        assert (await twin).spans == (await first).spans
        assert [(one.first, one.last) for one in (await twin).spans] == [(2, 2)]
        with pytest.raises(Conflict):
            await write(broker, keyed_write("r1", "a", digest="other"))
        assert (await write(broker, keyed_write("r2", "b"))).spans[0].first == 3
        assert await notes_of(broker) == ["yes", "yes"]
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"before", b"a", b"b"]


async def test_r81_what_is_stored_under_a_key_is_the_first_write(engine: Engine) -> None:
    """The result and the spans of each append are found under the key, also after a restart."""
    keyed = keyed_write("r1", "a")
    assert keyed.key is not None
    change = replace(keyed, appends=(*keyed.appends, Append(NOTICES, items("n", "m"))))

    async def check(broker: Broker) -> None:
        assert keyed.key is not None
        stored = await broker.stored_result(keyed.key)
        assert stored == Written(written.spans, b"a", repeated=True)
        assert await write(broker, change) == stored
        assert await broker.stored_result(replace(keyed.key, request_id="r2")) is None
        with pytest.raises(Conflict):
            await broker.stored_result(replace(keyed.key, digest="other"))

    async with engine.running() as broker:
        written = await write(broker, change)
        assert [(one.channel, one.first, one.last) for one in written.spans] == [
            (TALK, 1, 1),
            (NOTICES, 1, 2),
        ]
        assert [one.epoch for one in written.spans] == [broker.epoch(TALK), broker.epoch(NOTICES)]
        await check(broker)
    if engine.kind == "sqlite":
        async with engine.running() as broker:
            await check(broker)


async def test_a_write_without_a_key_returns_its_result(engine: Engine) -> None:
    """The result is data: it comes back whether or not it is stored."""
    async with engine.running() as broker:
        plain = await write(broker, Write((Append(TALK, items("a")),), result=b"one"))
        with_facts = await write(broker, Write(facts=("yes",), result=b"two"))
    assert (plain.result, plain.repeated) == (b"one", False)
    assert (with_facts.result, with_facts.spans) == (b"two", ())


async def test_an_answer_contains_every_write_that_is_done(engine: Engine) -> None:
    """A question is answered from the facts of all writes whose futures are resolved."""
    async with engine.running() as broker:
        for n in range(20):
            await write(broker, Write(facts=(str(n),)))
            assert await broker.ask(AllNotes()) == [str(one) for one in range(n + 1)]


async def test_a_question_that_nobody_answers_harms_nothing(engine: Engine) -> None:
    """An exception of the projection reaches the caller of the question, and the log continues."""
    async with engine.running() as broker:
        with pytest.raises(TypeError):
            await broker.ask(Unknown())
        await write(broker, Write(facts=("yes",)))
        assert await broker.ask(AllNotes()) == ["yes"]


@pytest.mark.parametrize("reverse", [False, True])
async def test_p7_a_read_stops_at_its_bounds_and_says_so(engine: Engine, reverse: bool) -> None:
    """A bounded read is the beginning of the whole one, also inside a row, and says `more`."""
    async with engine.running() as broker:
        await write(broker, text_write("1111", "2222", "3333"))
        await write(broker, text_write("4444", "5555"))
        whole = await broker.read(TALK, None, reverse=reverse)
        expected = {None: 5, 0: 1, 3: 1, 4: 1, 7: 1, 8: 2, 11: 2, 12: 3, 16: 4, 19: 4, 20: 5, 99: 5}
        for max_bytes, count in expected.items():
            part = await broker.read(TALK, None, max_bytes=max_bytes, reverse=reverse)
            assert part.publications == whole.publications[:count]
            assert (part.more, part.top) == (count < 5, 5)
        for limit, max_bytes, count in ((0, 99, 0), (2, 99, 2), (2, 4, 1), (5, None, 5), (9, 8, 2)):
            part = await broker.read(TALK, None, limit=limit, max_bytes=max_bytes, reverse=reverse)
            assert part.publications == whole.publications[:count]
            assert part.more == (count < 5)


async def test_bounded_reads_continue_to_the_top(engine: Engine) -> None:
    """A reader that continues after the last publication it got receives each one once."""
    async with engine.running() as broker:
        for n in range(7):
            await write(broker, text_write(*["x" * 10] * (n + 1)))
        after, received = 0, list[int]()
        while (part := await broker.read(TALK, after, max_bytes=35)).more:
            received += offsets(part.publications)
            after = received[-1]
        received += offsets(part.publications)
    assert received == list(range(1, 29))


async def test_a_position_that_is_gone_or_at_the_top_leaves_nothing_out(engine: Engine) -> None:
    """An empty answer says `more` only if a bound emptied it."""
    async with engine.running() as broker:
        await write(broker, text_write("a", "b"))
        for request in (
            Read(TALK, 2, max_bytes=1),
            Read(TALK, 9, max_bytes=1),
            Read(TALK, 0, epoch="other", max_bytes=1),
            Read(OTHER, 0, limit=0),
        ):
            replay = await broker.ask(request)
            assert (replay.publications, replay.more) == ([], False)


async def test_a_read_is_a_question(engine: Engine) -> None:
    """`read` is the short form of a `Read` of the gateway itself; a person may be named."""
    async with engine.running() as broker:
        epoch = (await write(broker, text_write("a", "b", "c"))).spans[0].epoch
        mine = Read(TALK, 1, epoch, 1, 9, person=("acme", "alice"))
        answer = await broker.ask(mine)
        assert answer == await broker.read(TALK, 1, epoch=epoch, limit=1, max_bytes=9)
    assert offsets(answer.publications) == [2]
    assert mine.person == ("acme", "alice")
    assert Read(TALK, 0).person is AllNotes().person is None


async def test_questions_that_are_asked_together_see_one_state(engine: Engine) -> None:
    """The answers are in the order of the questions, and no write lies between two of them."""
    both = Write((Append(TALK, items("x")),), ("yes",))
    async with engine.running() as broker:
        futures = [broker.submit(both) for _ in range(100)]
        while not futures[-1].done():
            first, notes, last = await broker.ask_together(
                [Read(TALK, 0), AllNotes(), Read(TALK, 0)]
            )
            assert isinstance(first, Replay)
            assert first == last
            assert len(notes) == first.top
        await asyncio.gather(*futures)
        assert [one.top for one in await broker.ask_together([Read(TALK, 0)])] == [100]
        assert await broker.ask_together([]) == []


async def test_a_question_that_fails_fails_alone(engine: Engine) -> None:
    """What one question raises is its own element; the others are answered."""
    async with engine.running() as broker:
        await write(broker, Write((Append(TALK, items("a")),), ("yes",)))
        wrong, notes, replay = await broker.ask_together([Unknown(), AllNotes(), Read(TALK, 0)])
    assert isinstance(wrong, TypeError)
    assert notes == ["yes"]
    assert offsets(replay.publications) == [1]


async def test_r81_a_request_is_remembered_for_a_day(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 24 h a repeated request gets the stored result; later it is a new request."""
    monkeypatch.setattr(sqlite_writer, "SWEEP_SECONDS", 0.01)
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
    """A key is checked before `after`: a repetition is not refused for its offset."""
    async with engine.running() as broker:
        keyed = keyed_write("r1", "a")
        placed = Write(
            (Append(TALK, items("a"), after=0),), keyed.facts, key=keyed.key, result=keyed.result
        )
        assert (await write(broker, placed)).spans[0].first == 1
        assert (await write(broker, placed)).repeated


async def test_a_write_follows_on_what_it_says(engine: Engine) -> None:
    """With `after` a write is refused unless the top is that offset, and leaves nothing."""
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
    """If a write of a producer fails, its later writes are refused."""
    async with engine.running() as broker:
        broken = Write((Append(TALK, items("x"), after=0),), ("no",))
        chain = [broker.submit(broken), *(broker.submit(text_write("y", after=n)) for n in (1, 2))]
        outcomes = await asyncio.gather(*chain, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Conflict, OffsetConflict, OffsetConflict]
        assert (await broker.read(TALK, 0)).publications == []


async def test_r92_only_who_holds_a_channel_writes_within(engine: Engine) -> None:
    """With `fencing_offset` a write is refused once that fence is removed, whatever the top is."""

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
        assert (await broker.read(TALK, 0)).top == 6


async def test_r82_an_empty_channel_has_a_position(engine: Engine) -> None:
    """A reader of an empty channel gets an epoch and offset 0, and recovers from there."""
    async with engine.running() as broker:
        empty = await broker.read(TALK, 0)
        assert (empty.top, empty.publications, empty.gone) == (0, [], False)
        assert empty.epoch
        assert empty.epoch != (await broker.read(OTHER, 0)).epoch
        await write(broker, text_write("a"))
        replay = await broker.read(TALK, empty.top, epoch=empty.epoch)
    assert [p.data for p in replay.publications] == [b"a"]


async def test_r79_a_position_counts_in_its_own_channel_and_past(engine: Engine) -> None:
    """The epoch of another channel, an invented or empty epoch and a future offset are `gone`."""
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
    """`epoch` equals the epoch of reads and writes, and differs between channels."""
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
    """A limited read returns the first publications after the position, and the top."""
    async with engine.running() as broker:
        await write(broker, text_write(*"abcd"))
        await write(broker, text_write(*"ef"))
        for limit, expected in ((0, b""), (1, b"b"), (4, b"bcde"), (9, b"bcdef")):
            replay = await broker.read(TALK, 1, limit=limit)
            assert b"".join(p.data for p in replay.publications) == expected
            assert replay.top == 6


async def test_all_that_is_kept_is_never_gone(engine: Engine) -> None:
    """A read without an offset returns what is kept and where it begins, also after a trim."""
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
        assert (nothing.gone, nothing.begins, nothing.publications) == (False, 14, [])


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
    """A read downwards ends at the oldest kept publication; rows may hold several."""
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
    """Return writes that cannot be applied, each in a way of its own; the last six only to a file.

    The log in memory takes those: it encodes neither results nor tags nor names.
    """

    half = "\ud800"
    key = IdempotencyKey(("acme", "alice", "m"), "broken", "d")
    return [
        Write((Append(TALK, items("x")),), ("odd",)),
        Write((Append(TALK, items("x")),), ("deep",)),
        Write((Append(TALK, items("x")),), ("twice",)),
        Write((Append(TALK, items("x")),), ("one", half)),
        Write((Append(TALK, items("x")),), ("yes",), key=key, result=cast(Any, object())),
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
    [*(("memory", n) for n in range(4)), *(("sqlite", n) for n in range(10))],
)
async def test_r124_a_write_that_cannot_be_applied_fails_alone(
    kind: str, number: int, tmp_path: Path
) -> None:
    """Whatever it raises, it leaves nothing, and the other writes of its batch are written."""
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
    """Over the bound the oldest are dropped, a position before them is `gone`, the top stays."""
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
    """A fenced channel is kept whatever its size; without the fence it is dropped."""
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
    """Notices are dropped by their own age; newer ones stay."""
    monkeypatch.setattr(sqlite_writer, "SWEEP_SECONDS", 0.02)
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
    """A truncated channel is empty and has no fence, and no earlier position is valid."""
    keep = Retention(publications=2, bytes=1 << 30, seconds=1e9, since_last=True)
    async with engine.running(retention=lambda _: keep) as broker:
        epoch = (await broker.read(TALK, 0)).epoch
        await write(broker, Write((Append(TALK, items("a", "b"), fence=True),)))
        await write(broker, text_write("kept", channel=OTHER))
        await write(broker, Write(truncate=(TALK,)))
        assert (await broker.read(TALK, 0, epoch=epoch)).gone
        assert (await broker.read(TALK, 2, epoch=epoch)).gone
        assert (await broker.read(TALK, 3, epoch=epoch)).publications == []
        for text in "cdef":
            await write(broker, text_write(text))
        assert offsets((await broker.read(TALK, 5)).publications) == [6, 7]
        assert (await broker.read(TALK, 4)).gone
        assert len((await broker.read(OTHER, 0)).publications) == 1


async def test_forgetting_is_told_before_what_comes_after_it(engine: Engine) -> None:
    """Readers are told that their positions are invalid before they get a newer publication."""
    told: list[tuple[Channel | None, list[bytes]]] = []

    def on_epoch(channel: Channel | None) -> None:
        told.append((channel, [p.data for p in engine.deliveries.of(TALK)]))

    async with engine.running(on_epoch=on_epoch) as broker:
        await write(broker, text_write("old"))
        assert told == []
        await write(broker, Write((Append(TALK, items("new")),), truncate=(TALK,)))
        assert told == [(TALK, [b"old"])]
        with pytest.raises(Conflict):
            await write(broker, Write(facts=("no",), truncate=(TALK,)))
        assert len(told) == 1
    assert [p.data for p in engine.deliveries.of(TALK)] == [b"old", b"new"]


@pytest.mark.parametrize("detaches", [True, False])
async def test_a_reader_that_detaches_when_it_is_told_gets_nothing_more(
    engine: Engine, detaches: bool
) -> None:
    """A channel that is detached in `on_epoch` is not delivered, not even from the same write."""

    def on_epoch(channel: Channel | None) -> None:
        if detaches:
            broker.detach(TALK)

    async with engine.running(on_epoch=on_epoch) as broker:
        await write(broker, Write((Append(TALK, items("new")),), truncate=(TALK,)))
        assert (await broker.read(TALK, None)).publications
    assert len(engine.deliveries.of(TALK)) == (0 if detaches else 1)


@pytest.mark.parametrize("step", [0.0, -3600.0])
async def test_r76_offsets_rise_whatever_the_clock_does(engine: Engine, step: float) -> None:
    """If the clock stands still or goes back, offsets still rise one by one."""
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
    """With many producers no more writes than the bound wait, and all are written."""
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
    """The retention of these tests keeps everything, so a missing publication is lost."""
    assert AMPLE.publications > 3000
    async with engine.running() as broker:
        await write(broker, text_write("x" * 10_000))
        assert not (await broker.read(TALK, 0)).gone
