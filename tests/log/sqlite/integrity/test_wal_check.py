"""Whether a write-ahead log lost something that had been committed."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from towpath.log.sqlite.integrity.wal_check import lost_frames

HEAD, FRAME = 32, 24 + 4096


@pytest.fixture
def left(tmp_path: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index of a process that was killed."""
    live = tmp_path / "live"
    with closing(sqlite3.connect(live, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
        for number in range(20):
            db.execute("INSERT INTO t VALUES (?)", (f"{number}" * 500,))
        for part in ("-wal", "-shm"):
            shutil.copy(f"{live}{part}", tmp_path / f"left{part}")
    return tmp_path / "left-wal", tmp_path / "left-shm"


def test_what_a_kill_leaves_is_whole(left: tuple[Path, Path]) -> None:
    """All frames are there; without the files, or with an empty one, nothing was lost."""
    wal, index = left
    assert not lost_frames(wal, index)
    index.unlink()
    assert not lost_frames(wal, index)
    wal.write_bytes(b"")
    assert not lost_frames(wal, index)
    wal.unlink()
    assert not lost_frames(wal, index)


def test_a_frame_that_was_being_written_is_no_loss(left: tuple[Path, Path]) -> None:
    """A last frame that is half there, and that the index knows nothing of, was never committed."""
    wal, index = left
    whole = wal.read_bytes()
    half = whole[HEAD : HEAD + 24] + b"half"
    wal.write_bytes(whole + half)
    assert not lost_frames(wal, index)
    wal.write_bytes(whole + half.ljust(FRAME, b"?"))
    assert not lost_frames(wal, index)


@pytest.mark.parametrize("where", ["head", "first frame", "middle", "last frame"])
def test_a_wrong_byte_is_a_loss(left: tuple[Path, Path], where: str) -> None:
    """Wherever it is, what was committed behind it cannot be read any more."""
    wal, index = left
    data = bytearray(wal.read_bytes())
    at = {"head": 17, "first frame": HEAD + 30, "middle": len(data) // 2, "last frame": -5}[where]
    data[at] ^= 1
    wal.write_bytes(data)
    assert lost_frames(wal, index)
    index.unlink()
    assert lost_frames(wal, index) == (where != "last frame"), "only the index knows of the last"
