"""Damage anywhere in a log's files: never wrong data, and what is certain is carried over."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runs.stage import ALICE, BOB, Stage, saying, staged, waiting
from towpath.channels import CONTROL, Channel, thread_channel
from towpath.errors import ConfigurationError, LogCorrupted
from towpath.log.broker import Append, IdempotencyKey, Item, Publication, Write, write
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.health import LogHealth
from towpath.log.sqlite.integrity import checksums
from towpath.log.sqlite.integrity.background_check import Examination
from towpath.runs.store import StoredThread, ThreadStore
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.telemetry import LogQuarantined, Telemetry, TelemetryEvent

THREADS = [(ALICE, f"t{number}") for number in range(8)] + [(BOB, "t1"), (ALICE, "going on")]
TAKEN_BACK = [b"one", b"two"]
PARTS = ("", "-wal", "-shm")
LONG = "as long as a page is " * 300


@dataclass(repr=False)
class Known:
    """Everything one can ask a log, and what it says."""

    threads: dict[tuple[str, str], StoredThread | None] = field(default_factory=dict)
    runs: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    logs: dict[Channel, list[Publication] | None] = field(default_factory=dict)
    listed: list[Any] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)
    stored_result: bytes | None = None
    epoch: str = ""


KEY = IdempotencyKey.of(ALICE, "thread.create", "r1", "asked")


async def fill(stage: Stage) -> None:
    """Have people talk: short and long answers, a run that asks, one that goes on."""
    stage.cast(saying("hello ", "there"), "short").cast(saying(LONG, LONG), "long")
    stage.cast(waiting("a", "b"), "waits")
    for number, (who, thread) in enumerate(THREADS[:-1]):
        for _ in range(3):
            agent = "long" if number % 4 == 3 else "short"
            await stage.done(await stage.start(thread, who=who, agent=agent), who=who)
    for item in TAKEN_BACK:
        await write(stage.broker, Write((Append(CONTROL, (Item(item, {}),)),)))
    await write(stage.broker, Write(key=KEY, result=lambda _: b"answered"))
    await stage.start("going on", agent="waits")
    await stage.logged(4, "going on")


async def all_of(broker: SqliteBroker) -> Known:
    """Ask everything."""
    store, known = ThreadStore(broker), Known()
    for who, thread in THREADS:
        directory, channel = (who.user, thread), thread_channel(who.tenant, who.user, thread)
        known.threads[directory] = await store.get(who.tenant, who.user, thread)
        known.runs[directory] = await store.runs(who.tenant, who.user, thread, limit=100)
        replay = await broker.read(channel, 0)
        known.logs[channel] = None if replay.gone else replay.publications
    for who in (ALICE, BOB):
        known.listed += await store.threads(who.tenant, who.user, limit=100)
    known.control = [one.data for one in (await broker.read(CONTROL, 0)).publications]
    known.stored_result = await broker.stored_result(KEY)
    known.epoch = broker.epoch(CONTROL)
    return known


@dataclass(frozen=True, repr=False)
class Left:
    """What a killed server left behind, and what had been in it."""

    files: Path
    known: Known


def leave(files: Path, *, checkpointed: bool) -> Left:
    """Fill a log and copy its files while it is open, as a kill would leave them."""

    async def live() -> Known:
        async with staged("sqlite", files.parent / f"live-{files.name}") as stage:
            await fill(stage)
            broker = stage.broker._broker
            assert isinstance(broker, SqliteBroker)
            known = await all_of(broker)
            if checkpointed:
                broker._log._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            for part in (*(f"{broker._path.name}{part}" for part in PARTS),):
                if (broker._path.parent / part).exists():
                    source = broker._path.parent / part
                    shutil.copy(source, files / part.replace(broker._path.name, "log"))
            shutil.copy(broker._path.with_suffix(".lock"), files / "log.lock")
            return known

    files.mkdir()
    return Left(files, asyncio.run(live()))


@pytest.fixture(scope="module", params=["in the file", "in the write-ahead log", "stopped"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A killed server's log, or one that was opened and closed well since."""
    directory = tmp_path_factory.mktemp("left") / "files"
    left = leave(directory, checkpointed=request.param == "in the file")
    if request.param == "stopped":
        asyncio.run(look(directory))
    return left


@asynccontextmanager
async def opened(directory: Path, happened: list[TelemetryEvent]) -> AsyncIterator[SqliteBroker]:
    broker = SqliteBroker(
        directory / "log",
        lambda *_: None,
        ThreadProjection(),
        telemetry=Telemetry([happened.append]),
        lost_control=lambda: Item(b"all", {}),
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def look(directory: Path) -> tuple[Known | None, LogQuarantined | None]:
    """Open what was left and ask everything; None where it refuses.

    Where the log turns out to be damaged while it is open, it is opened once more.
    """
    happened: list[TelemetryEvent] = []
    known = None
    with suppress(ConfigurationError):
        async with opened(directory, happened) as broker:
            with suppress(LogCorrupted):
                known = await all_of(broker)
            await broker.examined()
            damaged = broker.condition is LogHealth.DAMAGED
        if damaged:
            return await look(directory)
    found = [one for one in happened if isinstance(one, LogQuarantined)]
    return known, (found[0] if found else None)


def hold_against(known: Known, before: Known, quarantined: LogQuarantined | None) -> None:
    """Compare what a log says after damage with what was in it."""
    if quarantined is None:
        assert known == before
        return
    assert known.epoch != before.epoch
    assert Path(quarantined.path).exists()
    carried = [directory for directory, thread in known.threads.items() if thread is not None]
    assert quarantined.carried.get("threads", 0) == len(carried)
    # What the write-ahead log said last may be lost: then a thread may be as it was before.
    earlier = "write-ahead" in quarantined.reason
    for directory in carried:
        now, then = known.threads[directory], before.threads[directory]
        assert now is not None
        assert then is not None
        assert now.messages == then.messages[: len(now.messages)]
        assert now.row.active_run is None
        if not earlier:
            assert (len(now.messages), now.state) == (len(then.messages), then.state)
            assert (now.last_run, now.offset) == (then.last_run, then.offset)
            assert now.row.title == then.row.title
        expected = {run.run_id: run for run in before.runs[directory]}
        for run in known.runs[directory]:
            lost = earlier or expected[run.run_id].ended_at is None
            mine = (expected[run.run_id].status, expected[run.run_id].code)
            may_be = {mine, ("lost", "run.lost")} if lost else {mine}
            assert (run.status, run.code) in may_be
            assert run.ended_at is not None
    for channel, publications in known.logs.items():
        assert not publications, f"{channel} has a log under a new epoch"
    assert known.control == (TAKEN_BACK if quarantined.control else [*_some(known.control), b"all"])
    assert known.stored_result in (before.stored_result, None)


def _some(control: list[bytes]) -> list[bytes]:
    return [one for one in control if one in TAKEN_BACK]


def copied(left: Left, directory: Path) -> Path:
    shutil.copytree(left.files, directory)
    return directory


def test_an_undamaged_log_is_left_alone(left: Left, tmp_path: Path) -> None:
    """After a mere kill all is there, in the same epoch, and nothing is set aside."""
    known, quarantined = asyncio.run(look(copied(left, tmp_path / "a")))
    assert quarantined is None
    assert known is not None
    hold_against(known, left.known, None)


@given(at=st.integers(0, 1 << 40), bits=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_p3_p4_a_flipped_byte_anywhere_is_never_data(left: Left, at: int, bits: int) -> None:
    """Whatever byte is another one, each answer is what was written, or there is none."""
    with tempfile.TemporaryDirectory() as folder:
        directory = copied(left, Path(folder, "copy"))
        files = sorted(directory.glob("log*"))
        sizes = [file.stat().st_size for file in files]
        at %= sum(sizes)
        for file, size in zip(files, sizes, strict=True):
            if at < size:
                flip(file, at, bits)
                break
            at -= size
        known, quarantined = asyncio.run(look(directory))
        if known is not None:
            hold_against(known, left.known, quarantined)


def flip(path: Path, at: int, bits: int = 0xFF) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bits]))


def pages_of(path: Path, name: str) -> list[int]:
    """Return the pages of a table or index; the root first."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name=?", (name,)).fetchone()[0]
    pages, todo = [], [int(root)]
    data = path.read_bytes()
    while todo:
        page = todo.pop(0)
        pages.append(page)
        start = (page - 1) * 4096
        if data[start] in (2, 5):
            cells = int.from_bytes(data[start + 3 : start + 5], "big")
            todo.append(int.from_bytes(data[start + 8 : start + 12], "big"))
            for cell in range(cells):
                at = start + 12 + 2 * cell
                pointer = start + int.from_bytes(data[at : at + 2], "big")
                todo.append(int.from_bytes(data[pointer : pointer + 4], "big"))
    return pages


def wreck(path: Path, page: int) -> None:
    """Overwrite the head of a page."""
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + (100 if page == 1 else 0))
        file.write(b"\xa5" * 64)


def wreck_leaf(table: str) -> Callable[[Path], None]:
    return lambda path: wreck(path, pages_of(path, table)[-1])


def wreck_interior(table: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        pages = pages_of(path, table)
        assert len(pages) > 1, "the table is larger than a page"
        wreck(path, pages[0])

    return damage


def change_inside(text: bytes) -> Callable[[Path], None]:
    """Change a byte inside a message, which no structure of the file shows.

    The text may stand elsewhere too, in the log or where a message was before; the byte that
    counts is the one that changes what the table of messages holds.
    """

    def damage(path: Path) -> None:
        data, before = path.read_bytes(), bodies(path)
        at = data.find(text)
        while at >= 0:
            flip(path, at + 2, 0x01)
            if bodies(path) != before:
                return
            flip(path, at + 2, 0x01)
            at = data.find(text, at + 1)
        raise AssertionError("the text is in no message")

    return damage


def bodies(path: Path) -> list[bytes]:
    """Return what the table of messages holds, unchecked."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT body FROM messages ORDER BY 1")]


def wreck_header(path: Path) -> None:
    path.write_bytes(b"garbage!" * 16 + path.read_bytes()[128:])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "leaf of the log": wreck_leaf("log"),
    "leaf of the messages": wreck_leaf("messages"),
    "leaf of the threads": wreck_leaf("threads"),
    "interior page of the messages": wreck_interior("messages"),
    "interior page of the log": wreck_interior("log"),
    "leaf of an index": wreck_leaf("log_place"),
    "schema": lambda path: wreck(path, 1),
    "header": wreck_header,
    "inside a message": change_inside(b"as long as a page is"),
    "inside a word": change_inside(b"hello there"),
}


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A killed server's log that is all in the file."""
    return leave(tmp_path_factory.mktemp("left") / "files", checkpointed=True)


@pytest.mark.parametrize("where", DAMAGES)
def test_r53_a_damaged_log_is_set_aside(checkpointed: Left, tmp_path: Path, where: str) -> None:
    """It stands aside as it was; a new epoch begins with the threads that are certain."""
    directory = copied(checkpointed, tmp_path / "a")
    DAMAGES[where](directory / "log")
    damaged = (directory / "log").read_bytes()
    known, quarantined = asyncio.run(look(directory))
    assert quarantined is not None
    assert known is not None
    hold_against(known, checkpointed.known, quarantined)
    assert Path(quarantined.path).read_bytes() == damaged
    assert Path(quarantined.path).name == "log.quarantined-1"
    carried = quarantined.carried.get("threads", 0)
    if where in ("header", "schema"):
        assert not quarantined.control
    elif "threads" not in where and "messages" not in where and "inside" not in where:
        assert carried == len(THREADS)
    else:
        assert carried + 1 > 0
        assert quarantined.carried["left_out"] > 0
    again, second = asyncio.run(look(directory))
    assert second is None
    assert again == known


def test_what_wal_lost_is_noticed(tmp_path: Path) -> None:
    """A wrong byte in any frame of the write-ahead log, or in its head, loses nothing silently."""
    left = leave(tmp_path / "files", checkpointed=False)
    size = (left.files / "log-wal").stat().st_size
    assert size > 20 * 4120
    for number, at in enumerate((2, 20, 28, 32 + 9, size // 2, size - 10)):
        directory = copied(left, tmp_path / f"copy{number}")
        flip(directory / "log-wal", at)
        known, quarantined = asyncio.run(look(directory))
        assert quarantined is not None, at
        assert not quarantined.control, "nobody can tell what was said last"
        assert known is not None
        assert known.control[-1:] == [b"all"]
        hold_against(known, left.known, quarantined)


def test_a_log_that_was_never_ours_is_left_alone(checkpointed: Left, tmp_path: Path) -> None:
    """Without the mark of an earlier opening, a broken file is somebody else's: it is refused."""
    directory = copied(checkpointed, tmp_path / "a")
    (directory / "log.lock").write_text("")
    wreck_header(directory / "log")
    before = (directory / "log").read_bytes()
    assert asyncio.run(look(directory)) == (None, None)
    assert (directory / "log").read_bytes() == before
    assert list(directory.glob("*quarantined*")) == []


def test_publications_that_are_missing_are_noticed(checkpointed: Left, tmp_path: Path) -> None:
    """A row that is gone leaves no broken checksum, but a count and an order that do not fit."""
    for number, where in enumerate(("last=3", "last=(SELECT MAX(last) FROM log)", "first=1")):
        directory = copied(checkpointed, tmp_path / f"copy{number}")
        with closing(sqlite3.connect(directory / "log")) as db:
            gone = f"SELECT rowid FROM log WHERE {where} LIMIT 1"
            assert db.execute(f"DELETE FROM log WHERE rowid=({gone})").rowcount == 1
            db.commit()
        known, quarantined = asyncio.run(look(directory))
        assert quarantined is not None
        assert known is not None
        hold_against(known, checkpointed.known, quarantined)


async def test_messages_that_are_missing_are_noticed(checkpointed: Left, tmp_path: Path) -> None:
    """A thread with a hole in its conversation is not shown, and not carried over."""
    directory, happened = copied(checkpointed, tmp_path / "a"), list[TelemetryEvent]()
    with closing(sqlite3.connect(directory / "log")) as db:
        db.execute("DELETE FROM messages WHERE user='alice' AND thread='t1' AND place=5")
        db.commit()
    async with opened(directory, happened) as broker:
        with pytest.raises(LogCorrupted):
            await ThreadStore(broker).get("acme", "alice", "t1")


def test_a_name_in_the_schema_is_data_too(checkpointed: Left, tmp_path: Path) -> None:
    """A column that is called otherwise is damage, also where all rows are right."""
    directory = copied(checkpointed, tmp_path / "a")
    at = (directory / "log").read_bytes().index(b"offset INTEGER")
    flip(directory / "log", at, 0x02)
    known, quarantined = asyncio.run(look(directory))
    assert quarantined is not None
    assert known is not None
    hold_against(known, checkpointed.known, quarantined)


@pytest.mark.parametrize("noted", ["epoch", "opening", "synchronous"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_note_on_the_log_that_changed_is_damage(
    checkpointed: Left, tmp_path: Path, noted: str, stopped: bool
) -> None:
    """Neither under another name nor with another value is it taken for one that was written."""
    whole = copied(checkpointed, tmp_path / "whole")
    if stopped:
        asyncio.run(look(whole))
    start = (whole / "log").read_bytes().index(noted.encode())
    for at in (start, start + len(noted) - 1, start + len(noted)):
        directory = copied(Left(whole, checkpointed.known), tmp_path / str(at))
        flip(directory / "log", at, 0x01)
        known, quarantined = asyncio.run(look(directory))
        assert quarantined is not None
        assert known is not None
        hold_against(known, checkpointed.known, quarantined)


def test_a_log_damaged_after_a_clean_stop_is_set_aside(checkpointed: Left, tmp_path: Path) -> None:
    """A file that was closed well and cannot even be opened any more is damaged like any other."""
    directory = copied(checkpointed, tmp_path / "a")
    asyncio.run(look(directory))
    for page in pages_of(directory / "log", "meta"):
        wreck(directory / "log", page)
    known, quarantined = asyncio.run(look(directory))
    assert quarantined is not None
    assert known is not None
    assert quarantined.carried["threads"] == len(THREADS)


@pytest.mark.parametrize("table", ["threads", "messages", "runs", "log"])
def test_rows_that_went_missing_after_a_clean_stop_are_missed(
    checkpointed: Left, tmp_path: Path, table: str
) -> None:
    """No row is wrong, and one is not there: the log is damaged soon after it was opened."""
    directory = copied(checkpointed, tmp_path / "a")
    asyncio.run(look(directory))
    page = pages_of(directory / "log", table)[-1]
    with (directory / "log").open("r+b") as file:
        file.seek((page - 1) * 4096 + 3)
        cells = int.from_bytes(file.read(2), "big")
        file.seek((page - 1) * 4096 + 3)
        file.write((cells - 1).to_bytes(2, "big"))
    known, quarantined = asyncio.run(look(directory))
    assert quarantined is not None
    assert known is not None
    hold_against(known, checkpointed.known, quarantined)


async def test_an_examination_that_is_stopped_finds_nothing(
    checkpointed: Left, tmp_path: Path
) -> None:
    """A server that stops while it looks at its log waits for no end of that, and says nothing."""
    directory = copied(checkpointed, tmp_path / "a")
    await look(directory)
    reasons: list[str] = []
    for _ in range(50):
        Examination(directory / "log", reasons.append).stop()
    assert reasons == []


def test_no_quarantine_overwrites_another(checkpointed: Left, tmp_path: Path) -> None:
    """Each one gets a number of its own."""
    directory = copied(checkpointed, tmp_path / "a")
    (directory / "log.quarantined-1").write_text("an earlier one")
    DAMAGES["inside a word"](directory / "log")
    _, quarantined = asyncio.run(look(directory))
    assert quarantined is not None
    assert Path(quarantined.path).name == "log.quarantined-2"
    assert (directory / "log.quarantined-1").read_text() == "an earlier one"


@pytest.mark.parametrize("done", ["filled", "set aside", "half moved"])
def test_an_interrupted_quarantine_is_finished(
    checkpointed: Left, tmp_path: Path, done: str
) -> None:
    """A kill at any step of the exchange loses neither the old log nor what was carried over."""
    directory = copied(checkpointed, tmp_path / "a")
    DAMAGES["inside a word"](directory / "log")
    whole = copied(Left(directory, checkpointed.known), tmp_path / "b")
    known, _ = asyncio.run(look(whole))
    if done == "filled":
        shutil.copy(whole / "log", directory / "log.new")
        (directory / "log.new").write_bytes((whole / "log").read_bytes()[:8192])
    else:
        (directory / "log").rename(directory / "log.quarantined-1")
        shutil.copy(whole / "log", directory / "log.new")
        (directory / "log-wal").write_bytes(b"stale" * 1000 if done == "half moved" else b"")
    again, _ = asyncio.run(look(directory))
    assert again is not None
    assert known is not None
    assert [t and t.messages for t in again.threads.values()] == [
        t and t.messages for t in known.threads.values()
    ]
    assert (directory / "log.quarantined-1").exists()
    assert not (directory / "log.new").exists()


@pytest.mark.parametrize("kept", [(), (b"three",), (b"three", b"four")])
async def test_r84_what_the_control_channel_lost_shows_after_a_quarantine(
    checkpointed: Left, tmp_path: Path, kept: tuple[bytes, ...]
) -> None:
    """Revocations carried over keep their offsets: a channel that was trimmed looks trimmed."""
    directory = copied(checkpointed, tmp_path / "a")
    items = tuple(Item(data, {}) for data in kept)
    async with opened(directory, []) as broker:
        await write(broker, Write((Append(CONTROL, items),), truncate=(CONTROL,)))
        before = await broker.read(CONTROL, None)
    DAMAGES["inside a word"](directory / "log")
    _, quarantined = await look(directory)
    assert quarantined is not None
    assert quarantined.control
    async with opened(directory, []) as broker:
        after = await broker.read(CONTROL, None)
        assert (after.begins, after.top) == (before.begins, before.top) == (3, 2 + len(kept))
        assert after.publications == before.publications
        written = await write(broker, Write((Append(CONTROL, (Item(b"next", {}),)),)))
        assert written.spans[0].first == before.top + 1


async def test_p3_damage_while_it_runs_is_never_handed_out(
    checkpointed: Left, tmp_path: Path
) -> None:
    """A value that changed on the disk is refused, and with it everything from then on."""
    directory, happened = copied(checkpointed, tmp_path / "a"), list[TelemetryEvent]()
    async with opened(directory, happened) as broker:
        store = ThreadStore(broker)
        DAMAGES["inside a message"](directory / "log")
        refused = 0
        for who, thread in THREADS:
            try:
                found = await store.get(who.tenant, who.user, thread)
                replay = await broker.read(thread_channel(who.tenant, who.user, thread), 0)
            except LogCorrupted:
                refused += 1
            else:
                assert found == checkpointed.known.threads[who.user, thread]
                channel = thread_channel(who.tenant, who.user, thread)
                assert replay.publications == checkpointed.known.logs[channel]
        assert refused > 0
        with pytest.raises(LogCorrupted):
            await write(broker, Write((Append(CONTROL, (Item(b"three", {}),)),)))
        with pytest.raises(LogCorrupted):
            await broker.read(CONTROL, 0)
    known, quarantined = await look(directory)
    assert quarantined is not None
    assert known is not None
    hold_against(known, checkpointed.known, quarantined)


def test_a_run_that_began_does_not_wait_any_more() -> None:
    """Pages of several moments may hold a run twice: it began, so it is lost, and not begun again.

    Two of them in one thread are not two active runs: the new log would refuse those.
    """
    with closing(tables()) as old, closing(tables()) as new:
        old.execute("DROP INDEX runs_active")
        old.execute(
            "INSERT INTO threads (tenant, user, id, title, created, updated, offset)"
            " VALUES ('acme', 'alice', 't1', '', 0.0, 0.0, 0)"
        )
        for run, status in (("one", "running"), ("two", "running"), ("three", "pending")):
            values = ("acme", "alice", "t1", run, "agent")
            put = "INSERT INTO runs (tenant, user, thread, id, agent, status, started)"
            old.execute(f"{put} VALUES (?, ?, ?, ?, ?, ?, 0.0)", (*values, status))
            put = "INSERT INTO queued (tenant, user, thread, run, agent, request, withdrawn)"
            old.execute(f"{put} VALUES (?, ?, ?, ?, ?, x'', 0)", values)
        assert ThreadProjection().carry_over(old, new, 9.0)["lost_runs"] == 2
        assert new.execute("SELECT run FROM queued").fetchall() == [("three",)]
        assert dict(new.execute("SELECT id, status FROM runs")) == {
            "one": "lost",
            "two": "lost",
            "three": "pending",
        }


def tables() -> sqlite3.Connection:
    """Return a database with empty tables that seals its rows."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("CREATE TABLE channels (tenant, name, top, publications, bytes, updated)")
    ThreadProjection().create(db, 0)
    checksums.guard(db)
    return db


async def test_a_broken_row_is_not_sealed_by_an_update(checkpointed: Left, tmp_path: Path) -> None:
    """Who changes a thread whose row is damaged is refused; the damage does not become right."""
    from towpath.runs.tables.sqlite.projection import ThreadKey, ThreadRenamed

    directory, happened = copied(checkpointed, tmp_path / "a"), list[TelemetryEvent]()
    async with opened(directory, happened) as broker:
        with closing(sqlite3.connect(directory / "log")) as db:
            db.execute("UPDATE threads SET title='forged' WHERE id='t1' AND user='alice'")
            db.commit()
        key = ThreadKey(tenant="acme", user="alice", id="t1")
        with pytest.raises(LogCorrupted):
            await write(broker, Write(facts=(ThreadRenamed(key=key, title="new", at=1.0),)))
    known, quarantined = await look(directory)
    assert quarantined is not None
    assert known is not None
    assert known.threads["alice", "t1"] is None
    assert quarantined.carried["threads"] == len(THREADS) - 1
