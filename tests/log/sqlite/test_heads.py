"""What the writer knows of channels: never less than what it has promised."""

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.log.brokers import AMPLE, NOTICES, OTHER, TALK, Deliveries, Notes, items, text_write
from towpath.channels import Channel
from towpath.log.broker import Append, IdempotencyKey, Read, Replay, Write, Written
from towpath.log.sqlite import file_schema, log_file, replay
from towpath.log.sqlite.batch import Outcome
from towpath.log.sqlite.heads import Head, Heads
from towpath.log.sqlite.log_file import LogFile
from towpath.testing.memory_broker import MemoryBroker

CHANNELS = (TALK, OTHER, NOTICES, Channel("acme", "thread:bob:t1"))


@contextmanager
def opened_file(path: Path, **changed: Any) -> Iterator[LogFile]:
    """Open a log for writing, without the thread that writes to it."""
    given = {"retention": lambda _: AMPLE, "now": lambda: 1_000.0, **changed}
    log = LogFile(path, Notes(), synchronous="NORMAL", **given)
    try:
        yield log
    finally:
        log.close()


def read_all(path: Path, log: LogFile, channel: Channel, *, after: int | None = None) -> Replay:
    """Return all that a log keeps of a channel, or what it keeps after an offset."""
    with closing(file_schema.connect(path, "NORMAL")) as db:
        return replay.read(db, Read(channel, after), log.epoch)


def rows_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def counts_of(log: LogFile) -> list[tuple[int, int, int]]:
    """Return what the heads count as kept: of each channel, publications and bytes."""
    return log._db.execute("SELECT id, publications, bytes FROM channels ORDER BY id").fetchall()


def counted(log: LogFile) -> list[tuple[int, int, int]]:
    """Return what the log keeps, counted row by row."""
    return log._db.execute(
        "SELECT id, COALESCE(SUM(last - first + 1), 0), COALESCE(SUM(log.bytes), 0)"
        " FROM channels LEFT JOIN log ON channel = id GROUP BY id ORDER BY id"
    ).fetchall()


offsets = st.one_of(st.none(), st.none(), st.none(), st.integers(0, 4))
appends = st.builds(
    lambda channel, count, after, fencing_offset, fence, unfence: Append(
        channel,
        items(*(f"m{n}" for n in range(count))),
        after=after,
        fencing_offset=fencing_offset,
        fence=fence,
        unfence=unfence,
    ),
    st.sampled_from(CHANNELS),
    st.integers(0, 3),
    offsets,
    st.one_of(st.none(), st.none(), st.none(), st.integers(1, 4)),
    st.booleans(),
    st.booleans(),
)
writes = st.builds(
    lambda appends, facts, key, truncate: Write(
        tuple(appends),
        tuple(facts),
        key=key and IdempotencyKey(("acme", "alice", "method"), *key),
        result=repr(facts).encode(),
        truncate=tuple(truncate),
    ),
    st.lists(appends, max_size=3),
    st.lists(st.sampled_from(["one", "one", "one", "one", "no", "odd"]), max_size=2),
    st.none() | st.tuples(st.sampled_from("ab"), st.sampled_from("xy")),
    st.lists(st.sampled_from(CHANNELS), max_size=1),
)


def outcome_of(outcome: Outcome | BaseException) -> object:
    """Return the part of an outcome that is equal in both logs; each log has its own epochs."""
    if isinstance(outcome, Written):
        spans = [(one.channel, one.first, one.last) for one in outcome.spans]
        return spans, outcome.result, outcome.repeated
    return type(outcome)


@given(st.lists(st.lists(writes, max_size=5), max_size=5))
@settings(max_examples=150, deadline=None)
def test_p4_any_batch_with_one_head_equals_the_log_in_memory(batches: list[list[Write]]) -> None:
    """With any number of cached heads, a batch gives the same result as one write at a time."""

    async def in_memory() -> tuple[list[object], list[Replay]]:
        broker = MemoryBroker(Deliveries(), projection=Notes(), retention=lambda _: AMPLE)
        await broker.start()
        futures = [broker.submit(write) for batch in batches for write in batch]
        done = await asyncio.gather(*futures, return_exceptions=True)
        kept = [await broker.read(channel, None) for channel in CHANNELS]
        await broker.stop()
        return [outcome_of(one) for one in done], kept

    expected, kept = asyncio.run(in_memory())
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_file, "MAX_HEADS", 1)
        path = Path(folder, "log")
        with opened_file(path) as log:
            outcomes = [one for batch in batches for one in log.commit(batch)]
            assert counts_of(log) == counted(log)
        with opened_file(path) as log:
            found = [read_all(path, log, channel) for channel in CHANNELS]
    assert [outcome_of(one) for one in outcomes] == expected
    for mine, theirs in zip(found, kept, strict=True):
        assert (mine.top, mine.begins) == (theirs.top, theirs.begins)
        assert mine.publications == theirs.publications


def test_heads_that_are_not_saved_outlive_any_number_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch with more channels than cached heads stores each write in its own channel."""
    monkeypatch.setattr(log_file, "MAX_HEADS", 3)
    with opened_file(tmp_path / "log") as log:
        names = [Channel("acme", f"thread:alice:t{n}") for n in range(20)]
        for _ in range(2):
            batch = [text_write("x", channel=name) for name in (*names, *names)]
            outcomes = log.commit(batch)
            assert all(isinstance(one, Written) for one in outcomes)
            assert len(log._heads) == 3
        for name in names:
            assert [one.offset for one in read_all(log.path, log, name).publications] == [
                1,
                2,
                3,
                4,
            ]


def test_the_least_recently_used_head_goes_first(tmp_path: Path) -> None:
    """The head of a channel in use stays in the cache while others are evicted."""
    heads = Heads()
    with opened_file(tmp_path / "log") as log:
        db = log._db
        mine = heads.get(db, TALK)
        mine.top = 7
        for n in range(5):
            heads.get(db, Channel("acme", f"thread:alice:t{n}"))
            assert heads.get(db, TALK) is mine
            heads.evict(2)
        heads.get(db, OTHER)
        heads.get(db, NOTICES)
        heads.evict(2)
        assert heads.get(db, TALK) == Head(top=0)


@pytest.mark.parametrize("forgotten", [TALK, OTHER])
def test_looking_at_a_channel_or_forgetting_it_makes_no_row(
    tmp_path: Path, forgotten: Channel
) -> None:
    """Only a publication creates a row: a refused write, a read or a deletion does not."""
    with opened_file(tmp_path / "log") as log:
        log.commit([Write(truncate=(forgotten,)), text_write("late", after=9)])
        log.commit([Write((Append(TALK, ()),)), Write((Append(TALK, items("x")),), ("no",))])
        assert rows_of(log.path, "channels") == 0
        assert rows_of(log.path, "log") == 0
        log.commit([text_write("a"), Write(truncate=(forgotten,))])
        assert rows_of(log.path, "channels") == 1


def test_a_truncated_channel_counts_from_nothing(tmp_path: Path) -> None:
    """Dropped publications do not count: the bounds of retention apply to what is kept."""
    with opened_file(tmp_path / "log") as log:
        log.commit([text_write("a", "b")])
        log.commit([Write(truncate=(TALK,))])
        assert counts_of(log) == counted(log) == [(1, 0, 0)]
        log.commit([text_write("c")])
        assert counts_of(log) == counted(log)


def test_a_channel_that_was_forgotten_in_its_first_batch_counts_on(tmp_path: Path) -> None:
    """Offsets of a write that was truncated in the same batch are not used again."""
    with opened_file(tmp_path / "log") as log:
        log.commit([text_write("a", "b"), Write(truncate=(TALK,))])
    with opened_file(tmp_path / "log") as log:
        assert read_all(log.path, log, TALK).begins == 4
        (written,) = log.commit([text_write("c")])
        assert isinstance(written, Written)
        assert written.spans[0].first == 4
