"""A damaged index: a row is found, and cannot be deleted."""

from pathlib import Path
from typing import Any

import pytest

from tests.runs.stage import saying, staged
from tests.runs.tables.sqlite.test_damage import flip, pages_of
from towpath.channels import thread_channel
from towpath.errors import LogCorrupted
from towpath.log.broker import Write, write
from towpath.log.sqlite.health import LogHealth
from towpath.runs.model import ThreadDeleted, ThreadKey

THREAD = ("acme", "alice", "t1")
DELETE = Write(
    facts=(ThreadDeleted(key=ThreadKey(tenant="acme", user="alice", id="t1")),),
    truncate=(thread_channel(*THREAD),),
)


def flip_index(path: Path, index: str, entry: bytes) -> None:
    """Change the last of these bytes of an index."""
    for page in pages_of(path, index):
        start = (page - 1) * 4096
        if (at := path.read_bytes()[start : start + 4096].find(entry)) >= 0:
            flip(path, start + at + len(entry) - 1, 0x10)
            return
    raise AssertionError("the index does not have these bytes")


async def test_r53_a_damaged_index_ends_in_a_carried_over_log(tmp_path: Path) -> None:
    """The deletion is refused and the log is damaged; the next opening deletes the thread."""
    path = tmp_path / "log.sqlite3"
    async with staged("sqlite", tmp_path) as stage:
        stage.cast(saying("hello"))
        await stage.done(await stage.start("t1"))
    flip_index(path, "runs_thread", b"acmealicet1\x03\xe8")
    async with staged("sqlite", tmp_path, enter=False) as stage:
        broker: Any = stage.broker._broker
        for _ in range(2):
            with pytest.raises(LogCorrupted):
                await write(stage.broker, DELETE)
        assert broker.condition is LogHealth.DAMAGED
    for _ in range(2):
        async with staged("sqlite", tmp_path) as stage:
            stored = await stage.store.get(*THREAD)
            assert stored is not None
            assert [one["content"] for one in stored.messages] == ["hello", "hello"]
    async with staged("sqlite", tmp_path) as stage:
        await write(stage.broker, DELETE)
        assert await stage.store.get(*THREAD) is None
    assert quarantined(tmp_path) == 1


def quarantined(directory: Path) -> int:
    """Return how many damaged files were set aside."""
    return len(list(directory.glob("*.quarantined-*[0-9]")))
