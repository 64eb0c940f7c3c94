"""A log that went back in time, with real processes that are killed and real files."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.log.brokers import TALK, Deliveries, Notes, text_write
from tests.log.sqlite.lives import POINTS
from towpath.errors import ConfigurationError
from towpath.log.broker import write
from towpath.log.sqlite import companion
from towpath.log.sqlite.backup import ask_for_new_epoch, back_up, check
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.continuity import Continuity
from towpath.log.sqlite.file_schema import SCHEMA_VERSION, set_note
from towpath.telemetry import LogEpochRenewed, LogQuarantined, Telemetry, TelemetryEvent

PARTS = ("", "-wal", "-shm")
BESIDE = (".companion", ".commits")


@dataclass
class Seen:
    """What readers of a log received."""

    epochs: list[str] = field(default_factory=list)
    """The epochs, in the order in which they were new."""
    texts: dict[tuple[str, int], str] = field(default_factory=dict)

    def take(self, output: str) -> None:
        for line in output.splitlines():
            epoch, offset, text = line.split()
            if epoch not in self.epochs:
                self.epochs.append(epoch)
            assert self.texts.setdefault((epoch, int(offset)), text) == text


def live(path: Path, *lives: str, size: int = 16, copy_after: int = -1) -> Seen:
    """Run the lives of a log, and return what was acknowledged."""
    seen = Seen()
    done = subprocess.run(
        [sys.executable, "-m", "tests.log.sqlite.lives", str(path), *lives],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SIZE": str(size), "COPY_AFTER": str(copy_after)},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    seen.take(done.stdout)
    return seen


def part(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[SqliteBroker, list[str]]]:
    """Open a log, and yield it with the reasons for another epoch that it reported."""
    happened: list[TelemetryEvent] = []
    telemetry = Telemetry([happened.append])
    broker = SqliteBroker(path, Deliveries(), Notes(), boot_id="life", telemetry=telemetry)
    await broker.start()
    reasons: list[str] = []
    try:
        await write(broker, text_write("opened"))  # What was emitted before has arrived.
        told = (LogEpochRenewed, LogQuarantined)
        reasons += [one.reason for one in happened if isinstance(one, told)]
        yield broker, reasons
    finally:
        await broker.stop()


async def assert_kept(path: Path, seen: Seen) -> None:
    """The log has all that readers received, in the one epoch they know, and reports nothing."""
    async with opened(path) as (broker, reasons):
        assert reasons == []
        replay = await broker.read(TALK, 0, epoch=seen.epochs[-1])
        assert not replay.gone
        found = {p.offset: p.data.decode() for p in replay.publications}
        assert len(seen.epochs) == 1
        assert {offset: text for (_, offset), text in seen.texts.items()}.items() <= found.items()


async def assert_renewed(path: Path, seen: Seen, reason: str) -> None:
    """A reader's position is gone, the reason is reported once, and the new epoch stays."""
    async with opened(path) as (broker, reasons):
        assert len(reasons) == 1
        assert reason in reasons[0]
        assert (await broker.read(TALK, 0, epoch=seen.epochs[-1])).gone
        epoch = broker.epoch(TALK)
    async with opened(path) as (broker, reasons):
        assert (reasons, broker.epoch(TALK)) == ([], epoch)


async def test_twenty_kills_keep_the_epoch(tmp_path: Path) -> None:
    """After kill -9, twenty times, nothing is lost and positions stay valid."""
    chance = random.Random(13)
    path = tmp_path / "log"
    seen = live(path, *(str(chance.randint(0, 60)) for _ in range(20)))
    assert len(seen.texts) > 100
    await assert_kept(path, seen)


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_a_step_of_opening_or_closing_keeps_the_epoch(
    tmp_path: Path, point: str
) -> None:
    """A process that dies between two steps, twice, has lost nothing, whatever came before."""
    path = tmp_path / "log"
    seen = live(path, "3", f"2@{point}", f"2@{point}", "3@end", f"2@{point}", f"2@{point}", "1")
    assert len(seen.texts) >= 7
    await assert_kept(path, seen)


async def test_a_kill_after_checkpoints_keeps_the_epoch(tmp_path: Path) -> None:
    """A write-ahead log that was copied into the database, and reset, is no loss."""
    path = tmp_path / "log"
    seen = live(path, "150", "150", size=80_000)
    await assert_kept(path, seen)


def remove(*suffixes: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for suffix in suffixes:
            part(path, suffix).unlink()

    return change


def put_back(*suffixes: str) -> Callable[[Path], None]:
    """Put files of the older copy in place, and remove the other files of the database."""

    def change(path: Path) -> None:
        for suffix in PARTS:
            part(path, suffix).unlink()
            if suffix in suffixes:
                shutil.copy(part(path.parent / "older" / path.name, suffix), part(path, suffix))

    return change


def cut_wal(path: Path) -> None:
    """Cut the last commits off, as a file system does that lost its last blocks.

    If the machine runs on, the index of the write-ahead log shows it: the log is set aside.
    """
    wal = part(path, "-wal")
    os.truncate(wal, wal.stat().st_size - 3 * 4120)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (remove("-wal"), "an older copy"),
        (cut_wal, "commits are lost"),
        (put_back(*PARTS), "commits are lost"),
        (put_back(""), "an older copy"),
        (remove(".companion"), companion.COMPANION_MISSING),
        (remove(".commits"), companion.COUNTER_MISSING),
        (remove(*PARTS), companion.DATABASE_MISSING),
    ],
    ids=["no wal", "cut wal", "older three", "older db", "no companion", "no counter", "no db"],
)
async def test_r123_after_a_kill_a_log_that_went_back_is_noticed(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    """Whatever is missing after a kill: old positions are gone, and one line says why."""
    path = tmp_path / "log"
    seen = live(path, "3@end", "10", copy_after=5)
    change(path)
    await assert_renewed(path, seen, reason)


@pytest.mark.parametrize("change", [put_back(*PARTS), put_back("")], ids=["three", "db"])
async def test_r123_an_older_copy_of_an_earlier_opening_is_noticed(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """A copy from before a restart, put back after a clean close, continues no epoch."""
    path = tmp_path / "log"
    seen = live(path, "10", "0", "2@end", copy_after=5)
    for suffix in PARTS[1:]:
        part(path, suffix).touch()
    change(path)
    await assert_renewed(path, seen, "")


async def test_an_older_database_under_a_newer_write_ahead_log_is_noticed(tmp_path: Path) -> None:
    """The write-ahead log begins at a commit that the older database does not have."""
    path = tmp_path / "log"
    seen = live(path, "3@end", "160", size=80_000, copy_after=5)
    shutil.copy(path.parent / "older" / path.name, path)
    async with opened(path) as (broker, reasons):
        assert reasons == [companion.OLDER_FILE]
        assert broker.epoch(TALK) != seen.epochs[-1]


async def test_a_second_copy_that_was_opened_is_another_log(tmp_path: Path) -> None:
    """Two copies of one directory go different ways: neither continues the other."""
    one, two = tmp_path / "one" / "log", tmp_path / "two" / "log"
    seen = live(one, "3@end")
    shutil.copytree(one.parent, two.parent)
    live(two, "4@end")
    seen_later = live(one, "2@end")
    assert seen_later.epochs == seen.epochs
    shutil.copy(two, one)
    await assert_renewed(one, seen, companion.OTHER_DATABASE)


async def test_a_directory_of_the_version_before_gets_one_new_epoch(tmp_path: Path) -> None:
    """A log without a companion file may be anything, so its first opening renews the epoch."""
    path = tmp_path / "log"
    seen = live(path, "3@end")
    for suffix in BESIDE:
        path.with_suffix(suffix).unlink()
    with closing(sqlite3.connect(path)) as db:
        set_note(db, "opening", str(db.execute("SELECT number FROM opening").fetchone()[0]))
        db.commit()
        db.executescript(
            "DROP TABLE opening; DROP INDEX channels_salted; ALTER TABLE channels DROP COLUMN salt;"
            "ALTER TABLE channels DROP COLUMN base;"
            "ALTER TABLE requests DROP COLUMN spans;"
            f"PRAGMA user_version = {SCHEMA_VERSION - 1}"
        )
    await assert_renewed(path, seen, companion.COMPANION_MISSING)


async def test_a_new_directory_reports_nothing(tmp_path: Path) -> None:
    """A log that begins has no reader, so there is no reason to report."""
    async with opened(tmp_path / "log") as (_, reasons):
        assert reasons == []


async def test_a_new_epoch_can_be_asked_for(tmp_path: Path) -> None:
    """After a rollback of the whole directory, which nothing shows, the operator asks for it."""
    path = tmp_path / "log"
    seen = live(path, "3")
    ask_for_new_epoch(path)
    await assert_renewed(path, seen, "`towpath new-epoch` was run")


async def test_a_backup_or_a_check_of_a_killed_log_keeps_its_epoch(tmp_path: Path) -> None:
    """Whoever only reads the files leaves the write-ahead log, which the next opening needs."""
    path = tmp_path / "log"
    seen = live(path, "3@end", "5")
    assert check(path, Notes()).damage is None
    back_up(path, tmp_path / "copy", Notes(), force=False)
    await assert_kept(path, seen)


async def test_an_opening_that_fails_keeps_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opening that cannot write the companion leaves everything to the next one."""
    path = tmp_path / "log"
    seen = live(path, "3@end", "5")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(companion, "write", refuse)
        with pytest.raises(ConfigurationError, match="No space left"):
            async with opened(path):
                pass
    await assert_kept(path, seen)


async def test_damage_is_marked_until_the_database_is_replaced(tmp_path: Path) -> None:
    """What one process found about the database, the next one knows before it opens it."""
    path = tmp_path / "log"
    live(path, "3@end")
    before = Continuity(path, boot_id="life")
    before.mark_damaged("page 7")
    before.mark_damaged("page 8")
    assert Continuity(path, boot_id="life").damaged == "page 7"
    async with opened(path):
        assert Continuity(path, boot_id="life").damaged is None
    assert path.with_name("log.quarantined-1").exists()
