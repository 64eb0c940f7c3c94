"""What years of use cost: starts, writes and retention of a large log, a person with many runs.

The starts are those of `towpath serve`. All else is in this process, over the real embedded log and
its tables, without a server.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from benchmarks.commits import commits
from benchmarks.figures import Measure, Sample
from benchmarks.large_log import (
    FEWEST_EVENTS,
    FILLED,
    LargeLog,
    channels,
    filled,
    left,
    opened,
    submit_all,
    wal_size,
)
from benchmarks.machine import on_server_core
from benchmarks.starts import starts
from towpath.agents.agent import AgentInput, AgentRegistry
from towpath.channels import Channel, thread_channel
from towpath.events.types import Message
from towpath.identity import Principal
from towpath.log.broker import Append, Item, Write
from towpath.log.sqlite.broker import SqliteBroker
from towpath.runs.model import RunClosed, RunKey, RunOpened, Status
from towpath.runs.requests import RunRequest
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore
from towpath.telemetry import Telemetry

HOUR = 3600.0
IN_USE_SECONDS = 10.0
"""How long writes are timed on an empty log, and where nothing may be dropped."""
CHECK_SECONDS = 60.0
"""How long writes are timed beside the background check, if it takes longer."""
DROP_SECONDS = 900.0
"""How long everything else may take to be dropped."""
LOOK_SECONDS = 0.25
"""Seconds between two looks at how much is left."""
PACE = 0.005
"""Seconds between two writes that are timed."""

THREADS = 100
"""Threads that share the runs of one person."""
FEW_RUNS = 100
LISTED = 50
"""Threads in one answer of `thread.list`."""
LISTS = 5
"""Lists that another person waits behind."""
REPEATS = 21
"""How often each question is asked; its time is the median."""

LEFT = Measure("over: publications that were not dropped", "publications", zero=True)
LOST = Measure("in use: publications that were dropped", "publications", zero=True)
BYTES = Measure("bytes of the log", "per event")
FILL_WAL = Measure("filling: write-ahead log at its largest", "MB")

Timed = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scale:
    """A large log, then a person with many runs."""

    name = "scale"
    threads: int
    """Of the log, with one finished run each."""
    events: int
    """Of each run, each in a row of its own."""
    wal: int
    """Bytes of the write-ahead log that a kill leaves."""
    runs: int
    """Of the person."""
    starts: int = 3
    """How often each start is made; 0 makes none."""
    keep: Path | None = None
    """Where filled logs are kept for other runs; None fills one for each run."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"a log of {self.threads * self.events:,} events in {self.threads:,} threads: started, "
            "written to while it is checked, while every thread is in use, and while none is; and "
            f"a person with {self.runs:,} runs in {THREADS} threads beside one with {FEW_RUNS}"
        )

    def sample(self) -> Sample:
        """Measure once."""
        with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
            keep = self.keep or Path(folder)
            large = filled(keep, threads=self.threads, events=self.events)
            empty = filled(keep, threads=0, events=FEWEST_EVENTS)
            sample: Sample = {
                BYTES: large.bytes / large.events,
                FILL_WAL: large.wal / 1e6,
            }
            if self.starts:
                sample |= starts(large, empty, times=self.starts, wal=self.wal)
            with on_server_core():
                sample |= commits()
                sample |= uvloop.run(_writes(large, empty, Path(folder, "copies")))
                sample |= uvloop.run(_person(self.runs))
        return sample


async def _writes(large: LargeLog, empty: LargeLog, folder: Path) -> Sample:
    """Time writes beside the background check, beside retention, and beside neither."""
    neither = await _time_writes(empty.copy(folder / "empty"), at=FILLED, seconds=IN_USE_SECONDS)
    path = large.copy(folder / "large")
    check = await _time_check(path)
    async with opened(path, at=FILLED + 24 * HOUR) as broker:
        await submit_all(broker, map(_text_write, channels(large.threads)))
    kept = large.events + large.threads
    in_use = await _time_writes(path, at=FILLED + 25 * HOUR, seconds=IN_USE_SECONDS)
    still = left(path)
    over = await _time_writes(path, at=FILLED + 72 * HOUR, seconds=DROP_SECONDS, dropped=True)
    return {
        **neither.sample("empty log"),
        **check.sample("background check"),
        **in_use.sample("in use"),
        **over.sample("over"),
        Measure("over: until all of it is dropped", "s"): over.seconds,
        LOST: kept - still,
        LEFT: left(path),
    }


@dataclass(frozen=True, slots=True)
class _Writes:
    """What became of writes while something else went on."""

    longest: float
    """Seconds that one of them waited."""
    wal: int
    """Bytes of the write-ahead log at its largest."""
    seconds: float
    """How long all of it took."""

    def sample(self, title: str) -> Sample:
        return {
            Measure(f"{title}: longest wait of a write", "ms"): self.longest * 1e3,
            Measure(f"{title}: write-ahead log at its largest", "MB"): self.wal / 1e6,
        }


async def _time_check(path: Path) -> _Writes:
    """Write until the background check has read everything, or for `CHECK_SECONDS`."""
    async with opened(path, at=FILLED) as broker:
        checked = asyncio.ensure_future(broker.checked())
        writes = await _write_until(broker, path, CHECK_SECONDS, checked.done)
    await checked  # The log is stopped, so the check has ended.
    return writes


async def _time_writes(path: Path, *, at: float, seconds: float, dropped: bool = False) -> _Writes:
    """Write for some time; with `dropped`, at most until nothing is left in the threads."""
    async with opened(path, at=at) as broker:
        return await _write_until(broker, path, seconds, lambda: dropped and left(path) == 0)


async def _write_until(
    broker: SqliteBroker, path: Path, seconds: float, is_done: Callable[[], bool]
) -> _Writes:
    """Write in a thread of another tenant, for some time or until something is done."""
    longest, wal = 0.0, 0
    began = looked = time.perf_counter()
    while True:
        sent = time.perf_counter()
        await broker.submit(_text_write(thread_channel("other", "alice", "now")))
        now = time.perf_counter()
        longest, wal = max(longest, now - sent), max(wal, wal_size(path))
        if now - looked >= LOOK_SECONDS:
            looked = now
            if now - began >= seconds or is_done():
                return _Writes(longest, wal, now - began)
        await asyncio.sleep(PACE)


def _text_write(channel: Channel) -> Write:
    tags = {"thread": "now", "run": "0" * 32, "agent": "tools", "seq": "1"}
    event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "0" * 32, "delta": "token "}
    return Write((Append(channel, (Item(msgspec.json.encode(event), tags),)),))


async def _person(many: int) -> Sample:
    """Time what a person with few runs asks, then the same person with many."""
    times: dict[str, list[float]] = {}
    done = 0
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
        async with opened(Path(folder, "towpath.db")) as broker:
            for runs in (FEW_RUNS, many):
                await _add_runs(broker, done, runs)
                done = runs
                for question, seconds in (await _ask(broker, f"with-{runs}")).items():
                    times.setdefault(question, []).append(seconds)
    sample: Sample = {}
    for question, (few, lots) in times.items():
        sample[Measure(f"{question}, {FEW_RUNS} runs", "ms")] = few * 1e3
        sample[Measure(f"{question}, {many:,} runs", "ms")] = lots * 1e3
        sample[Measure(f"{question}: ratio", f"÷ {FEW_RUNS} runs")] = lots / few
    return sample


async def _ask(broker: SqliteBroker, name: str) -> dict[str, float]:
    """Return how many seconds each question takes; what it starts gets threads of this name."""
    store = ThreadStore(broker)

    async def listed() -> object:
        return await store.threads("acme", "alice", limit=LISTED)

    async def behind() -> object:
        return await store.get("acme", "bob", "none")

    return {
        "thread.list": await _median(listed),
        f"another person's thread.get behind {LISTS} lists": await _median(behind, after=listed),
        "run.start": await _starts(broker, store, name),
    }


async def _median(question: Timed, *, after: Timed | None = None) -> float:
    """Return the median time of a question, asked alone or right after some of another kind."""
    times = []
    for _ in range(REPEATS):
        before = [asyncio.ensure_future(after()) for _ in range(LISTS)] if after else []
        await asyncio.sleep(0)  # They are on their way.
        began = time.perf_counter()
        await question()
        times.append(time.perf_counter() - began)
        await asyncio.gather(*before)
    return statistics.median(times)


async def _starts(broker: SqliteBroker, store: ThreadStore, name: str) -> float:
    """Return the median time until a run has begun, each in a new thread."""
    registry = AgentRegistry()
    registry.register("brief", _brief, deadline=60.0)
    alice, times = Principal(tenant="acme", user="alice"), []
    async with RunService(broker, store, registry, telemetry=Telemetry(), now=time.time) as service:
        for at in range(REPEATS):
            thread = f"{name}-{at}"
            request = RunRequest(request_id=thread, agent="brief", thread_id=thread, message="?")
            began = time.perf_counter()
            await service.start(alice, request)
            times.append(time.perf_counter() - began)
            while service.active:  # noqa: ASYNC110 - the next one is timed alone
                await asyncio.sleep(0.001)
    return statistics.median(times)


async def _brief(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "done"


async def _add_runs(broker: SqliteBroker, first: int, end: int) -> None:
    """Add finished runs, one after the other in each thread, by the facts a gateway writes."""
    for begin in range(first, end, THREADS):
        await asyncio.gather(
            *(broker.submit(_run(at)) for at in range(begin, min(begin + THREADS, end)))
        )


def _run(at: int) -> Write:
    """Return a run as a whole, two events long; its conversation does not grow."""
    thread, now = f"t{at % THREADS}", time.time()
    key = RunKey(tenant="acme", user="alice", thread=thread, run=f"r{at}", agent="brief")
    started = {"type": "RUN_STARTED", "threadId": thread, "runId": key.run}
    ended = {"type": "RUN_FINISHED", "threadId": thread, "runId": key.run}
    said: list[Message] = [
        {"id": "u", "role": "user", "content": "?"},
        {"id": "a", "role": "assistant", "content": "done"},
    ]
    opened = RunOpened(
        key=key,
        title="?",
        thread_offset=2 * (at // THREADS),
        at=now,
    )
    closed = RunClosed(
        key=key,
        status=Status.FINISHED,
        code=None,
        started=started,
        ended=ended,
        messages=said,
        state=None,
        at=now,
        expires=now,
    )
    tags = {"thread": thread, "run": key.run, "agent": key.agent}
    items = [Item(msgspec.json.encode(event), tags) for event in (started, ended)]
    channel = thread_channel(key.tenant, key.user, thread)
    return Write((Append(channel, tuple(items)),), (opened, closed))


FULL = Scale(threads=20_000, events=100, wal=300_000_000, runs=20_000)
QUICK = Scale(threads=1_000, events=20, wal=20_000_000, runs=1_000, starts=1)
