"""A large log: filled through the broker as live runs fill it, and left as a kill leaves it.

`python -m benchmarks.large_log DATABASE BYTES` opens a log, writes until its write-ahead log has so
many bytes, prints a line and waits to be killed.
"""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from benchmarks.machine import ROOT
from towpath.channels import Channel, thread_channel
from towpath.log.broker import Append, Item, Write
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.file_schema import DATABASE_NAME, wal_of
from towpath.runs.encoding import RunEvent
from towpath.runs.model import RunKey, RunOpened
from towpath.runs.publications import items_of, notice
from towpath.runs.run import Run
from towpath.runs.tables.sqlite.projection import ThreadProjection

FILLED = 4e9
"""When everything was published, in Unix seconds: late, so that no server drops any of it."""
TENANT = "acme"
USERS = 400
AT_A_TIME = 500
"""Runs that go on together."""
FEWEST_EVENTS = 5
"""Of a run that says one word."""
PIECE = 1_000_000
"""Bytes of payload in each write that makes a write-ahead log grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeLog:
    """A log that was filled and stopped."""

    data: Path
    """Its data directory."""
    threads: int
    events: int
    """Of all threads together; each is a row of the log."""
    bytes: int
    """Of all its files."""
    wal: int
    """Bytes of the write-ahead log at its largest."""

    def copy(self, data: Path) -> Path:
        """Copy the log to another data directory; return its database."""
        shutil.copytree(self.data, data)
        return data / DATABASE_NAME


def filled(folder: Path, *, threads: int, events: int) -> LargeLog:
    """Fill a log, one finished run in each thread; one that lies in the folder is used again.

    Args:
        folder: for logs of any size.
        threads: how many.
        events: of each run, at least `FEWEST_EVENTS`.
    """
    data = folder / f"{threads}-threads-of-{events}"
    about = data.with_suffix(".json")
    if not about.exists():
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True, mode=0o700)
        wal = uvloop.run(_fill(data / DATABASE_NAME, threads, events))
        size = sum(file.stat().st_size for file in data.iterdir())
        about.write_bytes(msgspec.json.encode({"bytes": size, "wal": wal}))
    known = msgspec.json.decode(about.read_bytes())
    return LargeLog(data=data, threads=threads, events=threads * events, **known)


def kill_with_wal(database: Path, size: int) -> None:
    """Let a process write until the write-ahead log has so many bytes, and kill the process."""
    command = [sys.executable, "-m", "benchmarks.large_log", str(database), str(size)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline(), "the process that writes ended"
        finally:
            process.kill()
    assert wal_size(database) >= size, "a kill leaves the write-ahead log"


def channels(threads: int) -> Iterator[Channel]:
    """Yield the channel of each thread."""
    for at in range(threads):
        yield thread_channel(TENANT, _user(at), f"t{at}")


def left(database: Path) -> int:
    """Return how many publications are in all threads together."""
    threads = "SELECT TOTAL(publications) FROM channels WHERE tenant=? AND name LIKE 'thread:%'"
    with closing(sqlite3.connect(database)) as db:
        return int(db.execute(threads, (TENANT,)).fetchone()[0])


def wal_size(database: Path) -> int:
    """Return the bytes of a write-ahead log."""
    return wal_of(database).stat().st_size


@asynccontextmanager
async def opened(database: Path, *, at: float | None = None) -> AsyncIterator[SqliteBroker]:
    """Open a log at a time, in Unix seconds; None is now."""
    clock = time.time if at is None else lambda: at
    broker = SqliteBroker(database, lambda *_: None, ThreadProjection(), now=clock)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def submit_all(broker: SqliteBroker, writes: Iterable[Write]) -> None:
    """Submit writes as fast as the broker has room, and wait for all of them."""
    futures = []
    for one in writes:
        await broker.room()
        futures.append(broker.submit(one))
    await asyncio.gather(*futures)


async def _fill(database: Path, threads: int, events: int) -> int:
    """Let runs go on, many at a time; return the bytes of the largest write-ahead log."""
    wal = 0
    async with opened(database, at=FILLED) as broker:
        for first in range(0, threads, AT_A_TIME):
            runs = [_run(at) for at in range(first, min(first + AT_A_TIME, threads))]
            await submit_all(broker, map(_begin, runs))
            for word in range(events - FEWEST_EVENTS + 1):
                said = [(run, run.feed(f"word {word} ")) for run in runs]
                # The first word opens its message too, and each event has a row in a live run.
                for step in range(2 if word == 0 else 1):
                    await submit_all(broker, (_publish(run, [made[step]]) for run, made in said))
                wal = max(wal, wal_size(database))
            ends = [(run, run.finish()) for run in runs]
            await submit_all(broker, (_publish(run, made[:-1]) for run, made in ends))
            await submit_all(broker, (_end(run, made[-1:]) for run, made in ends))
            wal = max(wal, wal_size(database))
    made = left(database)
    assert made == threads * events, f"{made} events instead of {threads * events}"
    return wal


def _user(at: int) -> str:
    return "alice" if at % 10 == 0 else f"u{at % USERS}"


def _run(at: int) -> Run:
    key = RunKey(tenant=TENANT, user=_user(at), thread=f"t{at}", run=f"{at:032x}", agent="echo")
    return Run(key, history=[], new_id=lambda: f"{at:031x}a")


def _begin(run: Run) -> Write:
    question = {"id": f"{run.key.run}-q", "role": "user", "content": f"about {run.key.thread}?"}
    made = run.begin({"messages": [question]})
    opened = RunOpened(key=run.key, title=run.key.thread, thread_offset=0, at=FILLED)
    append = Append(run.key.channel, items_of(made), fence=True)
    return Write((append, notice(run, "towpath.run.started")), (opened,))


def _publish(run: Run, made: list[RunEvent]) -> Write:
    return Write((Append(run.key.channel, items_of(made)),))


def _end(run: Run, made: list[RunEvent]) -> Write:
    append = Append(run.key.channel, items_of(made), unfence=True)
    closed = run.closed(FILLED, expires=FILLED)
    return Write((append, notice(run, "towpath.run.ended")), (closed,))


async def _grow_wal(database: Path, size: int) -> None:
    """Write while a reader keeps an old state of the log, so that the write-ahead log grows."""
    item = Item(b"x" * 1000, {})
    pieces = tuple(item for _ in range(PIECE // len(item.data)))
    async with opened(database, at=FILLED) as broker:
        await broker.submit(Write((Append(thread_channel(TENANT, "grown", "t0"), (item,)),)))
        with closing(sqlite3.connect(database)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM channels").fetchall()
            number = 0
            while wal_size(database) < size:
                channel = thread_channel(TENANT, "grown", f"t{number % 50}")
                await broker.submit(Write((Append(channel, pieces),)))
                number += 1
            print("grown", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_grow_wal(Path(sys.argv[1]), int(sys.argv[2])))
