"""Damage anywhere in a log's files: no wrong data, the loss is reported, the rest stays."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.runs.stage import ALICE, BOB, Stage, saying, staged, waiting
from towpath.channels import CONTROL, Channel, thread_channel
from towpath.errors import ConfigurationError, LogCorrupted, NotFound, RowDamaged, StorageError
from towpath.log.broker import Append, IdempotencyKey, Item, Publication, Write, write
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.companion import NOTHING_LOST
from towpath.log.sqlite.health import LogHealth
from towpath.runs.model import ThreadDeleted, ThreadKey, ThreadRenamed
from towpath.runs.questions import StoredThread
from towpath.runs.store import ThreadStore
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.telemetry import (
    Appended,
    ChannelReset,
    LogChanged,
    LogEpochRenewed,
    LogQuarantined,
    Telemetry,
    TelemetryEvent,
)
from towpath.telemetry import RowDamaged as RowFound

THREADS = [(ALICE, f"t{number}") for number in range(8)] + [(BOB, "t1"), (ALICE, "going on")]
TAKEN_BACK = [b"one", b"two"]
PARTS = ("", "-wal", "-shm")
LONG = "as long as a page is " * 300


DAMAGED = "damaged"
"""The answer to a question about something that is damaged."""


@dataclass(repr=False)
class Known:
    """The answers of a log to all questions of these tests."""

    threads: dict[tuple[str, str], StoredThread | str | None] = field(default_factory=dict)
    runs: dict[tuple[str, str], Any] = field(default_factory=dict)
    logs: dict[Channel, list[Publication] | str | None] = field(default_factory=dict)
    listed: list[Any] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)
    stored_result: object = None
    epochs: dict[Channel, str] = field(default_factory=dict)


KEY = IdempotencyKey.of(ALICE, "thread.create", "r1", "asked")
LAST = IdempotencyKey.of(ALICE, "thread.create", "r2", "asked")
"""Written last, so that a log whose content is in the file has a write-ahead log too."""


async def fill(stage: Stage) -> None:
    """Fill threads with short and long answers, and leave one run active."""
    stage.cast(saying("hello ", "there"), "short").cast(saying(LONG, LONG), "long")
    stage.cast(waiting("a", "b"), "waits")
    for number, (who, thread) in enumerate(THREADS[:-1]):
        for _ in range(3):
            agent = "long" if number % 4 == 3 else "short"
            await stage.done(await stage.start(thread, who=who, agent=agent), who=who)
    for item in TAKEN_BACK:
        await write(stage.broker, Write((Append(CONTROL, (Item(item, {}),)),)))
    await write(stage.broker, Write(key=KEY, result=b"answered"))
    await stage.start("going on", agent="waits")
    await stage.logged(4, "going on")


async def all_of(broker: SqliteBroker) -> Known:
    """Ask all questions.

    Raises:
        LogCorrupted: the log is not used any more.
    """
    store, known = ThreadStore(broker), Known()
    for who, thread in THREADS:
        at, channel = (who.user, thread), thread_channel(who.tenant, who.user, thread)
        known.threads[at] = await answer_of(store.get(who.tenant, who.user, thread))
        known.runs[at] = await answer_of(store.runs(who.tenant, who.user, thread, limit=100))
        replay = await answer_of(broker.read(channel, 0))
        known.logs[channel] = replay if replay == DAMAGED else kept(replay)
        known.epochs[channel] = broker.epoch(channel)
    for who in (ALICE, BOB):
        known.listed += await store.threads(who.tenant, who.user, limit=100)
    known.control = [one.data for one in (await broker.read(CONTROL, None)).publications]
    known.epochs[CONTROL] = broker.epoch(CONTROL)
    stored = await answer_of(broker.stored_result(KEY))
    known.stored_result = stored if stored in (DAMAGED, None) else stored.result
    return known


async def answer_of(question: Any) -> Any:
    """Return the answer to a question; `DAMAGED` if what it is about cannot be read."""
    try:
        return await question
    except LogCorrupted:
        raise
    except (RowDamaged, StorageError):
        return DAMAGED


def kept(replay: Any) -> list[Publication] | None:
    return None if replay.gone else replay.publications


@dataclass(frozen=True, repr=False)
class Left:
    """The files that a killed server left, and what was stored in them."""

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
                await write(broker, Write(key=LAST, result=b"last"))
            for part in (*(f"{broker._path.name}{part}" for part in PARTS),):
                if (broker._path.parent / part).exists():
                    source = broker._path.parent / part
                    shutil.copy(source, files / part.replace(broker._path.name, "log"))
            for suffix in (".lock", ".companion", ".commits"):
                shutil.copy(broker._path.with_suffix(suffix), files / f"log{suffix}")
            return known

    files.mkdir()
    return Left(files, asyncio.run(live()))


@pytest.fixture(scope="module", params=["in the file", "in the write-ahead log", "stopped"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """The log of a killed server, or one that was opened and closed cleanly since."""
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


@dataclass
class Look:
    """What opening a damaged log and asking all questions shows."""

    known: Known | None
    """None if the log was refused."""
    happened: list[TelemetryEvent]

    @property
    def quarantined(self) -> LogQuarantined | None:
        """How the log was carried over, if it was."""
        return next((one for one in self.happened if isinstance(one, LogQuarantined)), None)

    @property
    def cut(self) -> bool:
        """Whether the operator was told that the latest commits are lost, with a new epoch."""
        renewed = [one for one in self.happened if isinstance(one, LogEpochRenewed)]
        return any(one.reason not in NOTHING_LOST for one in renewed)

    @property
    def reported(self) -> bool:
        """Whether damage was reported."""
        kinds = (LogQuarantined, LogEpochRenewed, ChannelReset, RowFound, LogChanged)
        return any(isinstance(one, kinds) for one in self.happened)


async def look(directory: Path) -> Look:
    """Open the files, ask all questions, and wait until all rows were checked.

    A log that turns out to be damaged while it is open is opened once more.
    """
    happened: list[TelemetryEvent] = []
    known = None
    with suppress(ConfigurationError):
        async with opened(directory, happened) as broker:
            with suppress(LogCorrupted):
                known = await all_of(broker)
            await broker.checked()
            damaged = broker.condition is LogHealth.DAMAGED
        if damaged:
            again = await look(directory)
            return Look(again.known, [*happened, *again.happened])
    return Look(known, happened)


def compare(found: Look, before: Known) -> None:
    """Check that each answer is what was written, or is missing and reported."""
    known = found.known
    assert known is not None
    if not found.reported:
        assert known == before
        return
    carried = found.quarantined
    for at, now in known.threads.items():
        earlier = found.cut and was_once(now, before.threads[at])
        assert (
            now in (before.threads[at], DAMAGED, None)
            or same_but_for_active(now, before.threads[at])
            or earlier
        )
        expected = {run.run_id: run for run in before.runs[at]}
        for run in known.runs[at] if known.runs[at] != DAMAGED else []:
            assert run == expected[run.run_id] or (
                found.cut and run == unfinished(expected[run.run_id])
            )
    for channel, publications in known.logs.items():
        expected_log = before.logs[channel]
        assert isinstance(expected_log, list)
        if found.cut and isinstance(publications, list):
            expected_log = expected_log[: len(publications)]
        assert publications in (expected_log, DAMAGED, None, [])
        if publications != before.logs[channel] or carried is not None or found.cut:
            assert known.epochs[channel] != before.epochs[channel] or publications == DAMAGED
    listed = [structs.replace(one, active_run=None) for one in before.listed]
    for one in known.listed:
        assert structs.replace(one, active_run=None) in listed
        assert one in before.listed or one.active_run is None or found.cut
    assert known.control == TAKEN_BACK or known.control[-1:] == [b"all"]
    assert known.stored_result in (before.stored_result, DAMAGED, None)
    if carried is not None:
        threads = [one for one in known.threads.values() if one is not None]
        assert carried.carried["threads"] == len(threads)
        assert carried.control == (known.control == TAKEN_BACK)
        assert Path(carried.path).exists()


def same_but_for_active(now: Any, before: Any) -> bool:
    """Whether a thread lost nothing but the row of its active run."""
    if not isinstance(now, StoredThread) or not isinstance(before, StoredThread):
        return False
    row = structs.replace(before.row, active_run=None)
    return now == structs.replace(before, row=row)


def was_once(now: Any, later: Any) -> bool:
    """Whether a thread is as it was at an earlier terminal event."""
    if not isinstance(now, StoredThread) or not isinstance(later, StoredThread):
        return False
    rows = [structs.replace(one.row, active_run=None) for one in (now, later)]
    begins = later.messages[: len(now.messages)]
    return rows[0] == rows[1] and now.messages == begins and now.offset <= later.offset


def unfinished(run: Any) -> Any:
    """Return a run as it was before its ending."""
    return structs.replace(run, status="running", code=None, ended_at=None)


def copied(left: Left, directory: Path) -> Path:
    shutil.copytree(left.files, directory)
    return directory


def test_an_undamaged_log_is_left_alone(left: Left, tmp_path: Path) -> None:
    """After a kill without damage nothing is missing or reported, and the epoch stays."""
    found = asyncio.run(look(copied(left, tmp_path / "a")))
    assert not found.reported
    assert found.known == left.known


@given(at=st.integers(0, 1 << 40), bits=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_p3_p4_a_flipped_byte_anywhere_is_never_data(left: Left, at: int, bits: int) -> None:
    """Whichever byte is changed, each answer is what was written, or there is no answer."""
    with tempfile.TemporaryDirectory() as folder:
        directory = copied(left, Path(folder, "copy"))
        flip_any(sorted(directory.glob("log*")), at, bits)
        found = asyncio.run(look(directory))
        if found.known is not None:
            compare(found, left.known)


def flip_any(files: Sequence[Path], at: int, bits: int) -> None:
    """Change one byte of the files, which count as one after the other."""
    sizes = [file.stat().st_size for file in files]
    at %= sum(sizes)
    for file, size in zip(files, sizes, strict=True):
        if at < size:
            flip(file, at, bits)
            return
        at -= size


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
}


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A killed server's log that is all in the file."""
    return leave(tmp_path_factory.mktemp("left") / "files", checkpointed=True)


@pytest.mark.parametrize("where", DAMAGES)
def test_r53_what_a_damaged_file_still_holds_is_carried_over(
    checkpointed: Left, tmp_path: Path, where: str
) -> None:
    """The file is set aside; what can be read of it is carried over, with a new epoch."""
    directory = copied(checkpointed, tmp_path / "a")
    DAMAGES[where](directory / "log")
    found = asyncio.run(look(directory))
    compare(found, checkpointed.known)
    assert found.quarantined is not None
    assert Path(found.quarantined.path).name == "log.quarantined-1"
    carried = found.quarantined.carried
    if where in ("header", "schema"):
        assert not found.quarantined.control
    elif "threads" in where or "messages" in where:
        assert carried["left_out"] > 0
        assert carried["channels"] >= len(THREADS)
    else:
        assert carried["threads"] == len(THREADS)
    again = asyncio.run(look(directory))
    assert again.known == found.known
    assert not again.reported


def test_channels_whose_pages_are_intact_keep_their_publications(
    checkpointed: Left, tmp_path: Path
) -> None:
    """One unreadable page of the log costs the channels that have rows on it, and no other."""
    directory = copied(checkpointed, tmp_path / "a")
    DAMAGES["leaf of the log"](directory / "log")
    found = asyncio.run(look(directory))
    assert found.quarantined is not None
    assert found.known is not None
    emptied = found.quarantined.carried["channels_emptied"]
    kept = [one for one, log in found.known.logs.items() if log == checkpointed.known.logs[one]]
    assert 0 < emptied < len(THREADS)
    assert len(kept) >= len(THREADS) - emptied


@pytest.mark.parametrize("table", ["log", "messages", "runs", "threads", "requests"])
def test_r53_a_flip_inside_a_row_costs_its_channel_only(
    checkpointed: Left, tmp_path: Path, table: str
) -> None:
    """The log is not set aside; everything but what the row belongs to is as it was."""
    directory = copied(checkpointed, tmp_path / "a")
    with closing(sqlite3.connect(directory / "log")) as db:
        changed = db.execute(CHANGES[table])
        assert changed.rowcount == 1
        db.commit()
    found = asyncio.run(look(directory))
    assert found.reported
    assert found.quarantined is None
    compare(found, checkpointed.known)
    known, before = found.known, checkpointed.known
    assert known is not None
    same = [at for at, thread in known.threads.items() if thread == before.threads[at]]
    logs = [one for one, log in known.logs.items() if log == before.logs[one]]
    assert len(same) >= len(THREADS) - 1
    assert len(logs) >= len(THREADS) - 1


OF_T1 = "tenant='acme' AND user='alice' AND"
CHANGES = {
    "log": "UPDATE log SET items=CAST(REPLACE(items, 'hello', 'jello') AS BLOB) WHERE rowid IN"
    " (SELECT rowid FROM log WHERE INSTR(items, 'hello') LIMIT 1)",
    "messages": f"UPDATE messages SET body='{{}}' WHERE {OF_T1} thread='t1' AND place=1",
    "runs": f"UPDATE runs SET code='forged' WHERE {OF_T1} id=(SELECT MIN(id) FROM runs WHERE"
    f" {OF_T1} thread='t1')",
    "threads": f"UPDATE threads SET title='forged' WHERE {OF_T1} id='t1'",
    "requests": "UPDATE requests SET digest='forged' WHERE request_id='r1' AND method LIKE 'th%'",
}
"""A change of one row that leaves its checksum as it was."""


@pytest.mark.parametrize("column", ["top=top+7", "publications=1", "hold=3", "salt=5"])
def test_a_damaged_end_of_a_channel_is_never_believed(
    checkpointed: Left, tmp_path: Path, column: str
) -> None:
    """The channel begins anew above all offsets that readers may know."""
    directory = copied(checkpointed, tmp_path / "a")
    channel = thread_channel("acme", "alice", "t1")
    with closing(sqlite3.connect(directory / "log")) as db:
        where = (channel.tenant, channel.name)
        db.execute(f"UPDATE channels SET {column} WHERE tenant=? AND name=?", where)
        db.commit()
    found = asyncio.run(look(directory))
    assert found.reported
    compare(found, checkpointed.known)

    async def next_offset() -> int:
        async with opened(directory, []) as broker:
            written = await write(broker, Write((Append(channel, (Item(b"x", {}),)),)))
            return written.spans[0].first

    before = checkpointed.known.logs[channel]
    assert isinstance(before, list)
    assert asyncio.run(next_offset()) > before[-1].offset


def test_a_log_that_was_never_ours_is_left_alone(checkpointed: Left, tmp_path: Path) -> None:
    """Without the mark of an earlier opening, a damaged file is refused and left as it is."""
    directory = copied(checkpointed, tmp_path / "a")
    (directory / "log.lock").write_text("")
    wreck_header(directory / "log")
    before = (directory / "log").read_bytes()
    assert asyncio.run(look(directory)).known is None
    assert (directory / "log").read_bytes() == before
    assert list(directory.glob("*quarantined*")) == []


def test_publications_that_are_missing_are_noticed(checkpointed: Left, tmp_path: Path) -> None:
    """A missing row breaks no checksum, but the count or the order of the offsets."""
    for number, where in enumerate(("last=3", "last=(SELECT MAX(last) FROM log)", "first=1")):
        directory = copied(checkpointed, tmp_path / f"copy{number}")
        with closing(sqlite3.connect(directory / "log")) as db:
            gone = f"SELECT rowid FROM log WHERE {where} LIMIT 1"
            assert db.execute(f"DELETE FROM log WHERE rowid=({gone})").rowcount == 1
            db.commit()
        found = asyncio.run(look(directory))
        assert [type(one) for one in found.happened].count(ChannelReset) == 1
        compare(found, checkpointed.known)


async def test_messages_that_are_missing_are_noticed(checkpointed: Left, tmp_path: Path) -> None:
    """A thread with a missing message is not shown."""
    directory = copied(checkpointed, tmp_path / "a")
    with closing(sqlite3.connect(directory / "log")) as db:
        db.execute("DELETE FROM messages WHERE user='alice' AND thread='t1' AND place=5")
        db.commit()
    async with opened(directory, []) as broker:
        with pytest.raises(RowDamaged):
            await ThreadStore(broker).get("acme", "alice", "t1")


def test_a_name_in_the_schema_is_data_too(checkpointed: Left, tmp_path: Path) -> None:
    """A column with another name is damage, also if all rows are intact."""
    directory = copied(checkpointed, tmp_path / "a")
    at = (directory / "log").read_bytes().index(b"offset INTEGER")
    flip(directory / "log", at, 0x02)
    found = asyncio.run(look(directory))
    assert found.quarantined is not None
    compare(found, checkpointed.known)


@pytest.mark.parametrize("noted", ["epoch", "opening", "synchronous"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_note_on_the_log_that_changed_is_damage(
    checkpointed: Left, tmp_path: Path, noted: str, stopped: bool
) -> None:
    """A note whose name or value changed is not used."""
    whole = copied(checkpointed, tmp_path / "whole")
    if stopped:
        asyncio.run(look(whole))
    start = (whole / "log").read_bytes().index(noted.encode())
    for at in (start, start + len(noted) - 1, start + len(noted)):
        directory = copied(Left(whole, checkpointed.known), tmp_path / str(at))
        flip(directory / "log", at, 0x01)
        found = asyncio.run(look(directory))
        assert found.quarantined is not None
        compare(found, checkpointed.known)


def test_a_log_damaged_after_a_clean_stop_is_set_aside(checkpointed: Left, tmp_path: Path) -> None:
    """A file that was closed cleanly and cannot be opened is set aside too."""
    directory = copied(checkpointed, tmp_path / "a")
    asyncio.run(look(directory))
    for page in pages_of(directory / "log", "meta"):
        wreck(directory / "log", page)
    found = asyncio.run(look(directory))
    compare(found, checkpointed.known)
    assert found.quarantined is not None
    assert found.quarantined.carried["threads"] == len(THREADS)


@pytest.mark.parametrize("table", ["threads", "messages", "log"])
def test_rows_that_went_missing_after_a_clean_stop_are_missed(
    checkpointed: Left, tmp_path: Path, table: str
) -> None:
    """A row is missing, and all others are intact: the background check reports it."""
    directory = copied(checkpointed, tmp_path / "a")
    asyncio.run(look(directory))
    page = pages_of(directory / "log", table)[-1]
    with (directory / "log").open("r+b") as file:
        file.seek((page - 1) * 4096 + 3)
        cells = int.from_bytes(file.read(2), "big")
        file.seek((page - 1) * 4096 + 3)
        file.write((cells - 1).to_bytes(2, "big"))
    found = asyncio.run(look(directory))
    assert found.reported
    compare(found, checkpointed.known)


async def test_a_check_that_is_stopped_finds_nothing(checkpointed: Left, tmp_path: Path) -> None:
    """Stopping during the background check reports no damage."""
    directory, happened = copied(checkpointed, tmp_path / "a"), list[TelemetryEvent]()
    for _ in range(20):
        async with opened(directory, happened):
            pass
    assert [one for one in happened if not isinstance(one, Appended)] == []


def test_no_quarantine_overwrites_another(checkpointed: Left, tmp_path: Path) -> None:
    """Each quarantined file gets a number of its own."""
    directory = copied(checkpointed, tmp_path / "a")
    (directory / "log.quarantined-1").write_text("an earlier one")
    DAMAGES["leaf of the messages"](directory / "log")
    found = asyncio.run(look(directory))
    assert found.quarantined is not None
    assert Path(found.quarantined.path).name == "log.quarantined-2"
    assert (directory / "log.quarantined-1").read_text() == "an earlier one"


@pytest.mark.parametrize("done", ["filled", "set aside", "half moved"])
def test_an_interrupted_quarantine_is_finished(
    checkpointed: Left, tmp_path: Path, done: str
) -> None:
    """A kill at any step of the exchange loses neither the old file nor the new one."""
    directory = copied(checkpointed, tmp_path / "a")
    DAMAGES["leaf of the messages"](directory / "log")
    whole = copied(Left(directory, checkpointed.known), tmp_path / "b")
    known = asyncio.run(look(whole)).known
    if done == "filled":
        shutil.copy(whole / "log", directory / "log.new")
        (directory / "log.new").write_bytes((whole / "log").read_bytes()[:8192])
    else:
        (directory / "log").rename(directory / "log.quarantined-1")
        shutil.copy(whole / "log", directory / "log.new")
        (directory / "log-wal").write_bytes(b"stale" * 1000 if done == "half moved" else b"")
    again = asyncio.run(look(directory)).known
    assert again is not None
    assert known is not None
    assert again.threads == known.threads
    assert (directory / "log.quarantined-1").exists()
    assert not (directory / "log.new").exists()


@pytest.mark.parametrize("kept", [(), (b"three",), (b"three", b"four")])
async def test_r84_what_the_control_channel_lost_shows_after_a_quarantine(
    checkpointed: Left, tmp_path: Path, kept: tuple[bytes, ...]
) -> None:
    """Revocations that are carried over keep their offsets, so a trimmed channel shows it."""
    directory = copied(checkpointed, tmp_path / "a")
    items = tuple(Item(data, {}) for data in kept)
    async with opened(directory, []) as broker:
        await write(broker, Write((Append(CONTROL, items),), truncate=(CONTROL,)))
        before = await broker.read(CONTROL, None)
    DAMAGES["leaf of the messages"](directory / "log")
    found = await look(directory)
    assert found.quarantined is not None
    assert found.quarantined.control
    async with opened(directory, []) as broker:
        after = await broker.read(CONTROL, None)
        assert (after.begins, after.top) == (before.begins, before.top) == (4, 3 + len(kept))
        assert after.publications == before.publications
        written = await write(broker, Write((Append(CONTROL, (Item(b"next", {}),)),)))
        assert written.spans[0].first == before.top + 1


async def test_p3_damage_while_it_runs_is_never_handed_out(
    checkpointed: Left, tmp_path: Path
) -> None:
    """A message that changed on the disk is an error of its thread; other threads continue."""
    directory, happened = copied(checkpointed, tmp_path / "a"), list[TelemetryEvent]()
    async with opened(directory, happened) as broker:
        change_inside(b"as long as a page is")(directory / "log")
        known = await all_of(broker)
        assert [one for one in known.threads.values() if one == DAMAGED] == [DAMAGED]
        compare(Look(known, happened), checkpointed.known)
        written = await write(broker, Write((Append(CONTROL, (Item(b"three", {}),)),)))
        assert written.spans[0].first == len(TAKEN_BACK) + 1
    assert [one.table for one in happened if isinstance(one, RowFound)] != []


async def test_a_damaged_thread_can_be_deleted(checkpointed: Left, tmp_path: Path) -> None:
    """A thread with a damaged message is deleted, and is not found any more."""
    directory = copied(checkpointed, tmp_path / "a")
    key = ThreadKey(tenant="acme", user="alice", id="t1")
    with closing(sqlite3.connect(directory / "log")) as db:
        db.execute(f"UPDATE messages SET body='{{}}' WHERE {OF_T1} thread='t1'")
        db.commit()
    async with opened(directory, []) as broker:
        await write(broker, Write(facts=(ThreadDeleted(key=key),)))
        assert await ThreadStore(broker).get("acme", "alice", "t1") is None


async def test_a_damaged_row_is_not_sealed_by_an_update(checkpointed: Left, tmp_path: Path) -> None:
    """A change of a thread whose row is damaged is refused, so its checksum stays wrong."""
    directory = copied(checkpointed, tmp_path / "a")
    key = ThreadKey(tenant="acme", user="alice", id="t1")
    async with opened(directory, []) as broker:
        with closing(sqlite3.connect(directory / "log")) as db:
            db.execute(CHANGES["threads"])
            db.commit()
        with pytest.raises(NotFound):
            await write(broker, Write(facts=(ThreadRenamed(key=key, title="new", at=1.0),)))
        with pytest.raises(RowDamaged):
            await ThreadStore(broker).get("acme", "alice", "t1")
