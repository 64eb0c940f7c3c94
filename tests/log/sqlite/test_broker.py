"""What only the embedded log promises: one commit for many, epochs, faults, and kill -9."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.log.brokers import (
    AMPLE,
    TALK,
    Deliveries,
    Engine,
    Notes,
    Waits,
    items,
    keyed_write,
    text_write,
)
from tests.log.sqlite.test_disk_reserve import largest_file
from towpath.channels import Channel
from towpath.errors import ConfigurationError, Conflict, StorageError, WriteFailed
from towpath.log.broker import (
    KEY_SECONDS,
    Append,
    Item,
    Retention,
    Span,
    Write,
    Written,
    write,
)
from towpath.log.sqlite import broker as sqlite_broker
from towpath.log.sqlite import file_schema, log_file
from towpath.log.sqlite import writer as sqlite_writer
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.health import REFUSALS, LogHealth
from towpath.log.sqlite.rows import checksum
from towpath.telemetry import Appended, InternalError, LogChanged, Telemetry, TelemetryEvent


def can_be_immutable() -> bool:
    """Whether files here can be made unwritable for root too."""
    with tempfile.NamedTemporaryFile() as file:
        made = subprocess.run(["chattr", "+i", file.name], capture_output=True, check=False)
        subprocess.run(["chattr", "-i", file.name], capture_output=True, check=False)
    return made.returncode == 0


async def test_p7_the_queue_to_the_writer_is_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody holds the lock on the file, producers of large events wait for room."""
    monkeypatch.setattr(sqlite_broker, "QUEUE_BYTES", 100_000)
    path, large = tmp_path / "log", "x" * 30_000
    async with opened(path) as broker:
        intruder = sqlite3.connect(path, isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        futures: list[asyncio.Future[Any]] = []
        room = asyncio.ensure_future(broker.room())
        await asyncio.sleep(0)
        while room.done() and len(futures) < 100:
            futures.append(broker.submit(text_write(large)))
            room = asyncio.ensure_future(broker.room())
            await asyncio.sleep(0)
        assert len(futures) == 4, "the last one may go past the bound"
        intruder.execute("ROLLBACK")
        intruder.close()
        await room
        await asyncio.gather(*futures)
        await broker.room()
        assert (await broker.read(TALK, 0)).top == 4


READ_ONLY_WAYS = ["query_only", *(["immutable"] if can_be_immutable() else [])]


@asynccontextmanager
async def opened(
    path: Path,
    *,
    boot_id: str = "life",
    synchronous: str = "NORMAL",
    deliveries: Deliveries | None = None,
    telemetry: Telemetry | None = None,
    reserve_bytes: int = 0,
) -> AsyncIterator[SqliteBroker]:
    broker = SqliteBroker(
        path,
        deliveries or Deliveries(),
        Notes(),
        telemetry=telemetry,
        retention=lambda _: AMPLE,
        boot_id=boot_id,
        synchronous=synchronous,
        reserve_bytes=reserve_bytes,
    )
    await broker.start()
    broker.attach(TALK)
    try:
        yield broker
    finally:
        await broker.stop()


@contextmanager
def writer_held(broker: SqliteBroker) -> Iterator[None]:
    """Keep the writer inside a batch, so that later writes form the next batch."""
    go = threading.Event()

    held = keyed_write("held", "held")
    broker.submit(Write(held.appends, (Waits(go),), key=held.key))
    try:
        yield
    finally:
        go.set()


async def test_writes_that_gathered_share_a_commit_and_a_row(tmp_path: Path) -> None:
    """Many writes that wait for the disk become one commit and one row per channel."""
    happened: list[TelemetryEvent] = []
    async with opened(tmp_path / "log", telemetry=Telemetry([happened.append])) as broker:
        with writer_held(broker):
            await asyncio.sleep(0.05)
            futures = [broker.submit(text_write(str(n))) for n in range(500)]
        await asyncio.gather(*futures)
        with closing(sqlite3.connect(tmp_path / "log")) as db:
            rows = db.execute("SELECT first, last FROM log").fetchall()
    commits = [one for one in happened if isinstance(one, Appended)]
    assert len(commits) == 2
    assert sum(one.publications for one in commits) == 501
    assert rows == [(1, 1), (2, 501)]


async def test_room_yields_while_more_wait_than_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes beyond the bound (endings do not wait for room) do not block the loop."""
    monkeypatch.setattr(sqlite_broker, "QUEUE_BOUND", 4)

    def stuck(*_: object) -> None:
        raise AssertionError("the loop spins")

    signal.signal(signal.SIGALRM, stuck)
    async with opened(tmp_path / "log") as broker:
        with writer_held(broker):
            await asyncio.sleep(0.05)
            futures = [broker.submit(text_write(str(n))) for n in range(9)]
        signal.alarm(5)
        await asyncio.gather(*(broker.room() for _ in range(3)))
        await asyncio.gather(*futures)
        signal.alarm(0)


async def test_an_unclean_stop_in_one_batch_with_forget_counts_on(tmp_path: Path) -> None:
    """Offsets that were appended and truncated in one commit are not used again after a restart."""
    async with opened(tmp_path / "log") as broker:
        with writer_held(broker):
            await asyncio.sleep(0.05)
            broker.submit(text_write("a", "b"))
            broker.submit(Write(truncate=(TALK,)))
    async with opened(tmp_path / "log") as broker:
        assert (await write(broker, text_write("c"))).spans[0].first == 5


async def test_whole_rows_are_dropped(tmp_path: Path) -> None:
    """Retention drops rows, never parts of one, so it may keep more than asked, never less."""
    keep = Retention(publications=4, bytes=1 << 30, seconds=1e9, since_last=True)
    engine = Engine("sqlite", tmp_path / "log")
    async with engine.running(retention=lambda _: keep) as broker:
        await write(broker, text_write("a", "b", "c"))
        await write(broker, text_write("d", "e"))
        assert (await broker.read(TALK, 3)).publications[0].offset == 4
        assert (await broker.read(TALK, 2)).gone
        await write(broker, text_write("f", "g"))
        assert len((await broker.read(TALK, 3)).publications) == 4


async def test_the_log_of_a_thread_goes_a_while_after_its_last_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `since_last` a channel is kept or dropped whole; a fenced one stays; keys expire."""
    monkeypatch.setattr(sqlite_writer, "SWEEP_SECONDS", 0.02)
    now = [1e6]
    keep = Retention(publications=1000, bytes=1 << 30, seconds=60, since_last=True)
    engine = Engine("sqlite", tmp_path / "log")
    held = Channel("acme", "thread:alice:held")

    async def swept() -> None:
        await asyncio.sleep(0.1)

    async with engine.running(retention=lambda _: keep, clock=lambda: now[0]) as broker:
        await write(broker, keyed_write("r1", "a"))
        await write(broker, Write((Append(held, items("h"), fence=True),)))
        now[0] += 50
        await write(broker, text_write("b"))
        now[0] += 50
        await swept()
        assert len((await broker.read(TALK, 0)).publications) == 2
        now[0] += 20
        await swept()
        assert (await broker.read(TALK, 0)).gone
        assert len((await broker.read(held, 0)).publications) == 1
        assert (await write(broker, text_write("c"))).spans[0].first == 3
        assert (await write(broker, keyed_write("r1", "a"))).repeated
        now[0] += KEY_SECONDS + 1
        await swept()
        assert not (await write(broker, keyed_write("r1", "a"))).repeated


def copy_as_killed(path: Path, crashed: Path) -> None:
    """Copy the files of an open log, as a kill of the process would leave them."""
    crashed.parent.mkdir()
    for suffix in ("", "-wal", ".companion", ".commits"):
        part = path.with_name(path.name + suffix)
        crashed.with_name(part.name).write_bytes(part.read_bytes())


async def epoch_of(broker: SqliteBroker) -> str:
    return (await broker.read(TALK, 0)).epoch


@pytest.mark.parametrize(
    ("stop", "boot_id", "synchronous", "kept"),
    [
        ("kill", "life", "NORMAL", True),
        ("kill", "next life", "NORMAL", False),
        ("kill", "", "NORMAL", False),
        ("kill", "next life", "FULL", True),
        ("clean", "next life", "NORMAL", True),
        ("clean", "life", "NORMAL", True),
    ],
)
async def test_r78_the_epoch_changes_when_something_may_be_lost(
    tmp_path: Path, stop: str, boot_id: str, synchronous: str, kept: bool
) -> None:
    """After an unclean stop and a reboot, below FULL, old positions are invalid."""
    path, crashed = tmp_path / "a" / "log", tmp_path / "b" / "log"
    async with opened(path, synchronous=synchronous) as broker:
        await write(broker, text_write("a"))
        before = await epoch_of(broker)
        copy_as_killed(path, crashed)
    again = crashed if stop == "kill" else path
    async with opened(again, boot_id=boot_id, synchronous="NORMAL") as broker:
        assert (await epoch_of(broker) == before) == kept
        replay = await broker.read(TALK, 0, epoch=before)
        assert replay.gone != kept
        assert replay.top == 1


async def test_r78_a_machine_without_an_id_counts_as_another_one(tmp_path: Path) -> None:
    """Without a boot id every unclean stop counts as a reboot, and costs the epoch."""
    path, crashed = tmp_path / "a" / "log", tmp_path / "b" / "log"
    async with opened(path, boot_id="") as broker:
        before = await epoch_of(broker)
        copy_as_killed(path, crashed)
    async with opened(crashed, boot_id="") as broker:
        assert await epoch_of(broker) != before


async def test_r81_a_result_that_an_earlier_version_stored_is_found(tmp_path: Path) -> None:
    """It has no spans: the result is returned as it is, without spans."""
    keyed, path = keyed_write("r1", "a"), tmp_path / "log"
    assert keyed.key is not None
    async with opened(path) as broker:
        await write(broker, keyed)
    with closing(sqlite3.connect(path)) as db:
        columns = "tenant, user, method, request_id, digest, result, at"
        row = db.execute(f"SELECT {columns} FROM requests").fetchone()
        db.execute("UPDATE requests SET spans=NULL, crc=?", (checksum(row),))
        db.commit()
    async with opened(path) as broker:
        assert await broker.stored_result(keyed.key) == Written((), b"a", repeated=True)
        assert await write(broker, keyed) == Written((), b"a", repeated=True)
        assert (await broker.read(TALK, None)).top == 1


async def test_r78_a_new_file_is_a_new_epoch(tmp_path: Path) -> None:
    """A log that was removed and created again shares no position with the old log."""
    async with opened(tmp_path / "a") as broker:
        before = await epoch_of(broker)
    async with opened(tmp_path / "b") as broker:
        assert await epoch_of(broker) != before


async def test_r81_a_request_is_remembered_over_a_restart(tmp_path: Path) -> None:
    """A repeated request after a restart gets the stored result and writes nothing."""
    async with opened(tmp_path / "log") as broker:
        await write(broker, keyed_write("r1", "a"))
    async with opened(tmp_path / "log") as broker:
        again = await write(broker, keyed_write("r1", "a"))
        assert (again.result, again.repeated) == (b"a", True)
        assert [(one.first, one.last) for one in again.spans] == [(1, 1)]
        with pytest.raises(Conflict):
            await write(broker, keyed_write("r1", "a", digest="other"))
        assert (await broker.read(TALK, 0)).top == 1


async def test_a_newer_file_is_not_opened(tmp_path: Path) -> None:
    """A file of a newer schema is refused with both versions named, and left as it was."""
    path = tmp_path / "log"
    async with opened(path) as broker:
        await write(broker, text_write("a"))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(ConfigurationError, match=rf"schema 9.*knows {file_schema.SCHEMA_VERSION}"):
        async with opened(path):
            pass
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (9,)
        db.execute(f"PRAGMA user_version = {file_schema.SCHEMA_VERSION}")
    async with opened(path) as broker:
        assert (await broker.read(TALK, 0)).top == 1


async def test_a_directory_belongs_to_one_broker(tmp_path: Path) -> None:
    """A second broker on the same directory is refused until the first one has stopped."""
    async with opened(tmp_path / "log"):
        with pytest.raises(ConfigurationError, match="in use"):
            async with opened(tmp_path / "log"):
                pass
    async with opened(tmp_path / "log"):
        pass


async def test_an_impossible_directory_is_named(tmp_path: Path) -> None:
    """A directory that cannot be created or written is a configuration error of one sentence."""
    (tmp_path / "file").write_text("not a directory")
    for path in (tmp_path / "file" / "log", Path("/proc/nothing/log")):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            async with opened(path):
                pass


async def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    """A file that is not a database is a configuration error, and the lock is released."""
    path = tmp_path / "log"
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(ConfigurationError, match="cannot open"):
        async with opened(path):
            pass
    path.unlink()
    async with opened(path):
        pass


def moves(happened: list[TelemetryEvent]) -> list[str]:
    """Return the conditions that a log had, in order."""
    return [one.after for one in happened if isinstance(one, LogChanged)]


async def healed(broker: SqliteBroker) -> None:
    """Wait until a probe of the log succeeds."""
    async with asyncio.timeout(5):
        while broker.condition is not LogHealth.OK:  # noqa: ASYNC110 - another thread finds out.
            await asyncio.sleep(0.01)


ENDING = Write((Append(TALK, items("end"), unfence=True),))


async def test_r53_a_full_disk_fails_its_writers_and_heals_without_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is full, writes are refused and reads served; then the log continues."""
    monkeypatch.setattr(sqlite_writer, "PROBE_SECONDS", 0.05)
    deliveries, happened = Deliveries(), list[TelemetryEvent]()
    path = tmp_path / "log"
    async with opened(
        path, deliveries=deliveries, telemetry=Telemetry([happened.append])
    ) as broker:
        await write(broker, text_write("a"))
        db = broker._log._db
        db.execute("PRAGMA max_page_count = 1")
        big = "x" * 100_000
        futures = [broker.submit(text_write(big)) for _ in range(5)]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert {str(outcome) for outcome in outcomes} == {REFUSALS[LogHealth.FULL]}
        assert len(deliveries.delivered) == 1
        assert (await broker.read(TALK, 0)).top == 1
        db.execute("PRAGMA max_page_count = 1000000")
        await healed(broker)
        assert (await write(broker, text_write(big))).spans[0].first == 2
        replay = await broker.read(TALK, 0)
    assert [p.offset for p in replay.publications] == [1, 2]
    assert [p.offset for p in deliveries.of(TALK)] == [1, 2]
    assert (moves(happened)[0], moves(happened)[-1]) == ("full", "ok")
    assert not [one for one in happened if isinstance(one, InternalError)]


async def test_r53_a_full_disk_takes_endings_into_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endings are written, in order, in the batch that finds the disk full and after it."""
    monkeypatch.setattr(sqlite_writer, "PROBE_SECONDS", 0.05)
    happened = list[TelemetryEvent]()
    path, size = tmp_path / "log", 2 * 1024 * 1024
    async with opened(path, telemetry=Telemetry([happened.append]), reserve_bytes=size) as broker:
        assert path.with_suffix(".reserve").stat().st_blocks * 512 >= size
        await write(broker, text_write("a"))
        with largest_file(path.with_name("log-wal").stat().st_size):
            with writer_held(broker):
                await asyncio.sleep(0.05)
                first, ending = broker.submit(text_write("x" * 100_000)), broker.submit(ENDING)
            with pytest.raises(StorageError, match="full"):
                await first
            assert (await ending).spans[0].first == 2
            assert path.with_suffix(".reserve").stat().st_size == 0
            with pytest.raises(StorageError, match="full"):
                await write(broker, text_write("b"))
            assert (await write(broker, ENDING)).spans[0].first == 3
            assert [p.data for p in (await broker.read(TALK, 0)).publications][1:] == [b"end"] * 2
            await asyncio.sleep(0.2)
            assert broker.condition is LogHealth.FULL
        await healed(broker)
        assert path.with_suffix(".reserve").stat().st_blocks * 512 >= size
        assert (await write(broker, text_write("c"))).spans[0].first == 4
    assert moves(happened) == ["full", "ok"]


async def test_r53_a_log_opens_on_a_full_disk(tmp_path: Path) -> None:
    """Without room for the reserve the log opens as full; without any room, it uses the reserve."""
    path, size = tmp_path / "log", 2 * 1024 * 1024
    with largest_file(size - 1):
        async with opened(path, reserve_bytes=size) as broker:
            assert broker.condition is LogHealth.FULL
            assert (await write(broker, ENDING)).spans[0].first == 1
    async with opened(path, reserve_bytes=size) as broker:
        assert broker.condition is LogHealth.OK


async def test_a_locked_log_refuses_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock of another process is reported, refuses writes, and ends without a restart."""
    monkeypatch.setattr(sqlite_writer, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(log_file, "BUSY_MS", 300)
    path, happened = tmp_path / "log", list[TelemetryEvent]()
    async with opened(path, telemetry=Telemetry([happened.append])) as broker:
        await write(broker, text_write("a"))
        intruder = sqlite3.connect(path, isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        waiting = broker.submit(keyed_write("r1", "b"))
        longest = await longest_stall_until(waiting)
        assert longest < 0.2, "the loop waited for the lock"
        with pytest.raises(StorageError, match="locked"):
            await waiting
        began = asyncio.get_running_loop().time()
        for write_ in (keyed_write("r1", "b"), ENDING):
            with pytest.raises(StorageError, match="locked"):
                await write(broker, write_)
        assert asyncio.get_running_loop().time() - began < 0.25, "refused without waiting"
        assert (await broker.read(TALK, 0)).top == 1
        intruder.execute("ROLLBACK")
        intruder.close()
        await healed(broker)
        assert (await write(broker, keyed_write("r1", "b"))).spans[0].first == 2
    assert moves(happened) == ["locked", "ok"]


async def longest_stall_until(future: "asyncio.Future[Any]") -> float:
    """Return the longest time for which the loop was blocked until a future was done."""
    clock = asyncio.get_running_loop().time
    longest, before = 0.0, clock()
    while not future.done():
        await asyncio.sleep(0.005)
        longest, before = max(longest, clock() - before), clock()
    return longest


async def test_a_log_stops_while_it_is_locked(tmp_path: Path) -> None:
    """Closing waits for the lock of another process for a short time only."""
    path = tmp_path / "log"
    async with opened(path) as broker:
        await write(broker, text_write("a"))
        intruder = sqlite3.connect(path, isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 1
    intruder.close()


@pytest.mark.parametrize("way", READ_ONLY_WAYS)
async def test_a_read_only_log_refuses_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A file that cannot be written is still read, and is written as soon as it can be."""
    monkeypatch.setattr(sqlite_writer, "PROBE_SECONDS", 0.05)
    path, happened = tmp_path / "log", list[TelemetryEvent]()
    async with opened(path, telemetry=Telemetry([happened.append])) as broker:
        await write(broker, text_write("a"))
        with read_only(broker, path, way):
            for write_ in (text_write("b"), ENDING):
                with pytest.raises(StorageError, match="cannot be written"):
                    await write(broker, write_)
            await asyncio.sleep(0.2)
            assert broker.condition is LogHealth.UNWRITABLE
            assert (await broker.read(TALK, 0)).top == 1
        await healed(broker)
        assert (await write(broker, text_write("b"))).spans[0].first == 2
    assert moves(happened) == ["unwritable", "ok"]


@contextmanager
def read_only(broker: SqliteBroker, path: Path, way: str) -> Iterator[None]:
    """Make the log's connection, or its files, read-only."""
    files = [str(path), f"{path}-wal"]
    if way == "query_only":
        broker._log._db.execute("PRAGMA query_only = 1")
    else:
        subprocess.run(["chattr", "+i", *files], check=True)
    try:
        yield
    finally:
        if way == "query_only":
            broker._log._db.execute("PRAGMA query_only = 0")
        else:
            subprocess.run(["chattr", "-i", *files], check=True)


async def test_r92_who_opened_the_log_before_writes_nothing_more(tmp_path: Path) -> None:
    """If the lock file is removed and another process opens the log, the first one is fenced."""
    path = tmp_path / "log"
    happened: list[TelemetryEvent] = []
    async with opened(path, telemetry=Telemetry([happened.append])) as first:
        await write(first, Write((Append(TALK, items("a"), fence=True),)))
        epoch = first.epoch(TALK)
        path.with_suffix(".lock").unlink()
        async with opened(path) as second:
            assert (await write(second, text_write("b"))).spans[0].first == 2
            late = Write((Append(TALK, items("late"), after=1, fencing_offset=1),))
            for refused in (late, text_write("late"), keyed_write("r1", "late")):
                with pytest.raises(StorageError, match="another process"):
                    await write(first, refused)
            first._writer._sweep()
            assert (await write(second, text_write("c"))).spans[0].first == 3
            assert second.epoch(TALK) == epoch
            replay = await first.read(TALK, 0)
            assert [p.data for p in replay.publications] == [b"a", b"b", b"c"]
            assert first.condition is LogHealth.FENCED
    assert moves(happened) == ["taken"]


async def test_who_was_fenced_off_does_not_say_that_the_log_was_closed(tmp_path: Path) -> None:
    """A fenced process that stops leaves the mark of the process that has the log open."""
    path = tmp_path / "log"

    def mark(db: sqlite3.Connection) -> str:
        return str(db.execute("SELECT value FROM meta WHERE name='clean'").fetchone()[0])

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(opened(path))
        path.with_suffix(".lock").unlink()
        async with opened(path) as second:
            await stack.aclose()
            assert second.condition is LogHealth.OK
            with closing(sqlite3.connect(path)) as db:
                assert mark(db) == "0"
    with closing(sqlite3.connect(path)) as db:
        assert mark(db) == "1"


async def test_r124_a_write_that_cannot_be_applied_is_told_once(tmp_path: Path) -> None:
    """An internal error in one write is reported with its cause; a refusal is not an error."""
    happened: list[TelemetryEvent] = []
    async with opened(tmp_path / "log", telemetry=Telemetry([happened.append])) as broker:
        with writer_held(broker):
            futures = [
                broker.submit(Write((Append(TALK, items("x")),), (note,))) for note in ("odd", "no")
            ]
            futures.append(broker.submit(text_write("a")))
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(one) for one in outcomes] == [WriteFailed, Conflict, Written]
    faults = [one for one in happened if isinstance(one, InternalError)]
    assert [(one.where, type(one.error)) for one in faults] == [("log write", TypeError)]


async def test_a_stopped_log_refuses(tmp_path: Path) -> None:
    """A write submitted before the stop is written; afterwards every call is refused."""
    async with opened(tmp_path / "log") as broker:
        last = broker.submit(text_write("a"))
    assert (await last).spans[0].last == 1
    with pytest.raises(StorageError):
        await broker.submit(text_write("b"))
    with pytest.raises(StorageError):
        await broker.read(TALK, 0)


async def test_tags_and_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    """Payloads are opaque: every byte and every tag is returned unchanged."""
    odd = Item(bytes(range(256)), {"thread": "ünïcode ✓", "": ""})
    async with opened(tmp_path / "log") as broker:
        await write(broker, Write((Append(TALK, (odd,)),)))
        assert await epoch_of(broker) == Span(TALK, await epoch_of(broker), 1, 1).before.epoch
    async with opened(tmp_path / "log") as broker:
        publication = (await broker.read(TALK, 0)).publications[0]
    assert (publication.data, dict(publication.tags)) == odd


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.log.brokers import Deliveries, Notes, text_write
from towpath.log.sqlite.broker import SqliteBroker

async def main():
    broker = SqliteBroker(Path(sys.argv[1]), Deliveries(), Notes(), boot_id="life")
    await broker.start()
    async def produce(n):
        while True:
            written = await broker.submit(text_write(str(n)))
            sys.stdout.write(f"{written.spans[0].last} {n}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(produce(n) for n in range(5)))
asyncio.run(main())
"""


def test_p4_r42_r78_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """After kill -9 at any moment the log opens in its epoch, with all acknowledged writes."""
    path = tmp_path / "log"
    promised: dict[int, bytes] = {}
    chance = random.Random()
    epoch: str | None = None
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(chance.randint(1, 400)):
            note(promised, child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        for line in child.stdout.read().splitlines(keepends=True):
            note(promised, line)
        child.wait()
        child.stdout.close()
        epoch = asyncio.run(holds(path, promised, epoch))


def note(promised: dict[int, bytes], line: bytes) -> None:
    if line.endswith(b"\n"):
        offset, text = line.split()
        assert int(offset) not in promised
        promised[int(offset)] = text


async def holds(path: Path, promised: dict[int, bytes], epoch: str | None) -> str:
    """Open the files that the killed process left, and compare."""
    async with opened(path) as broker:
        replay = await broker.read(TALK, 0, epoch=epoch)
    assert not replay.gone
    assert [p.offset for p in replay.publications] == list(range(1, replay.top + 1))
    found = {p.offset: p.data for p in replay.publications}
    assert promised.items() <= found.items()
    return replay.epoch
