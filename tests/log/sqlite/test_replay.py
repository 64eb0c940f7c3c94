"""Bounded reads and questions that are asked together, on a damaged log."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from tests.log.brokers import AMPLE, OTHER, TALK, AllNotes, Deliveries, Notes, text_write
from towpath.errors import StorageError
from towpath.log.broker import Read, write
from towpath.log.sqlite.broker import SqliteBroker


@asynccontextmanager
async def damaged_log(path: Path) -> AsyncIterator[SqliteBroker]:
    """Run a log whose third row is damaged: it holds the offset 3 of TALK."""
    broker = SqliteBroker(path, Deliveries(), Notes(), retention=lambda _: AMPLE)
    await broker.start()
    try:
        for n in range(3):
            await write(broker, text_write(str(n)))
        await broker.checked()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("UPDATE log SET items = x'00' WHERE last = 3").rowcount == 1
            db.commit()
        await write(broker, text_write("other", channel=OTHER))
        yield broker
    finally:
        await broker.stop()


async def test_p7_a_bounded_read_reads_no_row_that_it_does_not_need(tmp_path: Path) -> None:
    """A read that its bound ends before a row neither reads nor decodes that row."""
    async with damaged_log(tmp_path / "log") as broker:
        epoch = broker.epoch(TALK)
        by_count = await broker.read(TALK, 0, limit=2)
        by_bytes = await broker.read(TALK, 0, max_bytes=1)
        assert [one.data for one in by_count.publications] == [b"0", b"1"]
        assert [one.data for one in by_bytes.publications] == [b"0"]
        assert by_count.more
        assert by_bytes.more
        assert broker.epoch(TALK) == epoch


async def test_damage_is_the_answer_to_its_question_alone(tmp_path: Path) -> None:
    """A damaged channel fails its own question and is reset; who asks again gets its new epoch."""
    async with damaged_log(tmp_path / "log") as broker:
        epoch = broker.epoch(TALK)
        damaged, other, notes = await broker.ask_together(
            [Read(TALK, 0), Read(OTHER, 0), AllNotes()]
        )
        assert isinstance(damaged, StorageError)
        assert [one.data for one in other.publications] == [b"other"]
        assert notes == []
        async with asyncio.timeout(10):
            await broker.checked()  # It waits for resets as well.
        (again,) = await broker.ask_together([Read(TALK, 0, epoch)])
        assert again.gone
        assert again.epoch == broker.epoch(TALK) != epoch


async def test_publications_that_are_missing_at_the_top_are_damage(tmp_path: Path) -> None:
    """A read without a bound that finds fewer rows than the top says resets the channel."""
    async with damaged_log(tmp_path / "log") as broker:
        epoch = broker.epoch(TALK)
        with closing(sqlite3.connect(tmp_path / "log")) as db:
            assert db.execute("DELETE FROM log WHERE last = 3").rowcount == 1
            db.commit()
        replay = await broker.read(TALK, 0, max_bytes=99)
        assert replay.epoch == broker.epoch(TALK) != epoch
