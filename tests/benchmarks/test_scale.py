"""What retention did not drop, or dropped too early, is a failure of the benchmark."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import commits, scale
from benchmarks.figures import Figures, Measure
from benchmarks.large_log import filled, kill_with_wal, wal_size
from benchmarks.scale import LEFT, LOST, Scale
from benchmarks.starts import RENEWED, starts

SMALL = Scale(threads=20, events=10, wal=2_000_000, runs=200, starts=0)


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "IN_USE_SECONDS", 0.2)
    monkeypatch.setattr(scale, "REPEATS", 3)
    monkeypatch.setattr(commits, "REPETITIONS", 1)


def test_a_small_log_is_filled_kept_and_dropped() -> None:
    """Each part is measured, and nothing that must be 0 is anything else."""
    sample = SMALL.sample()
    assert Figures("scale", SMALL.setting, [sample]).failures() == []
    assert (sample[LEFT], sample[LOST]) == (0, 0)
    assert Measure("thread.list, 200 runs", "ms") in sample


def test_what_is_left_after_the_time_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where retention finds nothing too old in time, that is not taken for a fast sweep."""
    monkeypatch.setattr(scale, "DROP_SECONDS", 0.2)
    monkeypatch.setattr(scale, "HOUR", 1.0)
    sample = SMALL.sample()
    assert sample[LEFT] == SMALL.threads * (SMALL.events + 1)
    assert len(Figures("scale", SMALL.setting, [sample]).failures()) == 1


def test_a_log_that_was_filled_is_used_again(tmp_path: Path) -> None:
    """Each event of a live run has a row of its own, and a second run finds the same log."""
    log = filled(tmp_path, threads=20, events=10)
    written = {file: file.stat().st_mtime_ns for file in log.data.iterdir()}
    assert filled(tmp_path, threads=20, events=10) == log
    assert {file: file.stat().st_mtime_ns for file in log.data.iterdir()} == written
    with closing(sqlite3.connect(log.copy(tmp_path / "copy"))) as db:
        rows = "SELECT COUNT(*) FROM log JOIN channels ON id=channel WHERE name LIKE 'thread:%'"
        assert db.execute(rows).fetchone() == (200,)
        assert db.execute("SELECT COUNT(*), COUNT(ended) FROM runs").fetchone() == (20, 20)


@pytest.mark.servers
def test_a_start_after_a_kill_with_a_large_write_ahead_log_keeps_the_epoch(tmp_path: Path) -> None:
    """What the kill leaves is a log that continues, whatever it is started over."""
    log = filled(tmp_path, threads=20, events=10)
    sample = starts(log, log, times=1, wal=SMALL.wal)
    assert sample[RENEWED] == 0
    assert Measure("start after kill -9, 2 MB of write-ahead log: CPU", "s") in sample


@pytest.mark.servers
def test_a_start_that_renews_the_epoch_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log without its write-ahead log opens fast, and is not what was to be measured."""
    log = filled(tmp_path, threads=20, events=10)

    def kill_and_lose(database: Path, size: int) -> None:
        kill_with_wal(database, size)
        assert wal_size(database) >= size
        os.truncate(f"{database}-wal", 0)

    monkeypatch.setattr("benchmarks.starts.kill_with_wal", kill_and_lose)
    sample = starts(log, log, times=1, wal=SMALL.wal)
    assert sample[RENEWED] == 2
    assert len(Figures("scale", SMALL.setting, [sample]).failures()) == 1
