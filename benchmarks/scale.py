"""What years of use cost: retention of a large log, and the lists of a person with many runs.

Both in this process, over the real embedded log and its tables, without a server.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from benchmarks.figures import Measure, Sample
from benchmarks.machine import on_server_core
from towpath.agents.agent import AgentInput, AgentRegistry
from towpath.channels import thread_channel
from towpath.events.types import Message
from towpath.identity import Principal
from towpath.log.broker import Append, Item, Write
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.file_schema import wal_of
from towpath.runs.model import RunClosed, RunKey, RunOpened, Status
from towpath.runs.requests import RunRequest
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.telemetry import Telemetry

HOUR = 3600.0
FILLED = 1e9
"""When everything in the log was published, in Unix seconds."""
LOG_THREADS = 1_000
"""Threads that share the rows of the log."""
IN_USE_SECONDS = 10.0
"""How long writes are timed where nothing may be dropped; the sweep comes with the first one."""
DROP_SECONDS = 900.0
"""How long everything else may take to be dropped."""
EXAMINED_SECONDS = 50.0
"""How long the look at a log that was just opened may take: after 60 s it is swept anyway."""
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

Timed = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scale:
    """A log of many rows, then a person with many runs."""

    name = "scale"
    rows: int
    """Of the log, of one publication each."""
    runs: int
    """Of the person."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"a log of {self.rows:,} rows in {LOG_THREADS:,} threads, all past retention: first "
            "every thread is in use, then none; and a person with "
            f"{self.runs:,} runs in {THREADS} threads beside one with {FEW_RUNS}"
        )

    def sample(self) -> Sample:
        """Measure once."""
        with on_server_core():
            return {**uvloop.run(_retention(self.rows)), **uvloop.run(_person(self.runs))}


async def _retention(rows: int) -> Sample:
    """Time writes while retention looks at a large log, and while it drops all of it."""
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
        path = Path(folder, "towpath.db")
        async with _log(path, at=FILLED) as broker:
            await _fill(broker, rows)
        async with _log(path, at=FILLED + 24 * HOUR) as broker:
            await _publish_in_each(broker)
        kept = rows + LOG_THREADS
        in_use = await _time_writes(path, at=FILLED + 25 * HOUR, seconds=IN_USE_SECONDS)
        over = await _time_writes(path, at=FILLED + 72 * HOUR, seconds=DROP_SECONDS, until=0)
    return {
        **in_use.sample("in use"),
        **over.sample("over"),
        Measure("over: until all of it is dropped", "s"): over.seconds,
        LOST: kept - in_use.left,
        LEFT: over.left,
    }


@dataclass(frozen=True, slots=True)
class _Writes:
    """What became of writes while retention went on."""

    longest: float
    """Seconds that one of them waited."""
    wal: int
    """Bytes of the write-ahead log at its largest."""
    seconds: float
    """How long all of it took."""
    left: int
    """Publications in the log's threads after it."""

    def sample(self, title: str) -> Sample:
        return {
            Measure(f"{title}: longest wait of a write", "ms"): self.longest * 1e3,
            Measure(f"{title}: write-ahead log at its largest", "MB"): self.wal / 1e6,
        }


async def _time_writes(
    path: Path, *, at: float, seconds: float, until: int | None = None
) -> _Writes:
    """Write in a thread of another tenant, for some time or until so few publications are left."""
    longest, wal = 0.0, 0
    async with _log(path, at=at) as broker:
        async with asyncio.timeout(EXAMINED_SECONDS):
            await broker.examined()
        began = time.perf_counter()
        while True:
            sent = time.perf_counter()
            await broker.submit(_text_write("other", "now"))
            longest = max(longest, time.perf_counter() - sent)
            wal = max(wal, _size(wal_of(path)))
            left, elapsed = await _left(broker), time.perf_counter() - began
            if elapsed >= seconds or (until is not None and left <= until):
                return _Writes(longest, wal, elapsed, left)
            await asyncio.sleep(PACE)


def _size(path: Path) -> int:
    return path.stat().st_size


async def _left(broker: SqliteBroker) -> int:
    count = "SELECT TOTAL(publications) FROM main.channels WHERE tenant='acme'"
    return await broker.query(lambda db: int(db.execute(count).fetchone()[0]))


async def _fill(broker: SqliteBroker, rows: int) -> None:
    """Publish one item in each thread, again and again: so each item has a row of its own."""
    for _ in range(rows // LOG_THREADS):
        await _publish_in_each(broker)
    count = "SELECT COUNT(*) FROM main.log"
    made = await broker.query(lambda db: int(db.execute(count).fetchone()[0]))
    assert made == rows, f"{made} rows instead of {rows}"


async def _publish_in_each(broker: SqliteBroker) -> None:
    await asyncio.gather(
        *(broker.submit(_text_write("acme", f"t{at}")) for at in range(LOG_THREADS))
    )


def _text_write(tenant: str, thread: str) -> Write:
    tags = {"thread": thread, "run": "0" * 32, "agent": "tools", "seq": "1"}
    event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "0" * 32, "delta": "token "}
    item = Item(msgspec.json.encode(event), tags)
    return Write((Append(thread_channel(tenant, "alice", thread), (item,)),))


async def _person(many: int) -> Sample:
    """Time what a person with few runs asks, then the same person with many."""
    times: dict[str, list[float]] = {}
    done = 0
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
        async with _log(Path(folder, "towpath.db")) as broker:
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
        holder="bench",
        lease=now + HOUR,
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
        holder="bench",
        expires=now,
    )
    tags = {"thread": thread, "run": key.run, "agent": key.agent}
    items = [Item(msgspec.json.encode(event), tags) for event in (started, ended)]
    channel = thread_channel(key.tenant, key.user, thread)
    return Write((Append(channel, tuple(items)),), (opened, closed))


@asynccontextmanager
async def _log(path: Path, *, at: float | None = None) -> AsyncIterator[SqliteBroker]:
    """Open the log at a time, in Unix seconds; None is now."""
    clock = time.time if at is None else lambda: at
    broker = SqliteBroker(path, lambda *_: None, ThreadProjection(), now=clock)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


FULL = Scale(rows=2_000_000, runs=20_000)
QUICK = Scale(rows=20_000, runs=1_000)
