"""How SQLite answers each question of the projection: by which index, and with how much work."""

import ast
import asyncio
import re
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from unittest import mock

import pytest

import towpath
from towpath.channels import thread_channel
from towpath.log.broker import Append, Item, Write, Written, retention_of
from towpath.log.sqlite import file_schema, log_file
from towpath.log.sqlite.integrity import checksums
from towpath.log.sqlite.log_file import LogFile
from towpath.runs.interrupts import InterruptDecided, InterruptsExpired, InterruptStatus
from towpath.runs.model import (
    LeasesInherited,
    LeasesRenewed,
    Queued,
    RunClosed,
    RunKey,
    RunOpened,
    RunQueued,
    RunWithdrawn,
    Status,
)
from towpath.runs.store import ThreadStore
from towpath.runs.tables.sqlite.projection import (
    ThreadCreated,
    ThreadDeleted,
    ThreadKey,
    ThreadProjection,
    ThreadRenamed,
)

T = TypeVar("T")
Site = tuple[str, int]
"""A file and a line."""

ROOT = Path(towpath.__file__).parent
ELSEWHERE = ("log", "testing", "runs/tables/sqlite/salvage.py")
"""The log's own tables, and what takes damaged ones over, row by row and once."""
SCHEMA = "projection.ThreadProjection.create"
"""Not a question: it makes the tables."""

THREAD = "SEARCH threads USING PRIMARY KEY (tenant=? AND user=? AND id=?)"
RUN = "SEARCH runs USING PRIMARY KEY (tenant=? AND user=? AND id=?)"
ACTIVE = "SEARCH runs USING INDEX runs_active (tenant=? AND user=? AND thread=?)"
RUNS = "SEARCH runs USING INDEX runs_thread (tenant=? AND user=? AND thread=?)"
LEASE = "SEARCH leases USING PRIMARY KEY (tenant=? AND user=? AND run=?)"
WAITING = "SEARCH queued USING INDEX queued_thread (tenant=? AND user=? AND thread=?)"
MESSAGES = "SEARCH messages USING PRIMARY KEY (tenant=? AND user=? AND thread=?)"
ASKED = "SEARCH interrupts USING PRIMARY KEY (tenant=? AND user=? AND run=?)"

PLANS: dict[str, list[tuple[str, ...]]] = {
    "interrupts._set": [
        ("SEARCH interrupts USING PRIMARY KEY (tenant=? AND user=? AND run=? AND id=?)",)
    ],
    "interrupts.of_last_run": [(THREAD,)],
    "interrupts.expired": [("SEARCH interrupts USING INDEX interrupts_open (expires<?)",)],
    # The first entry of the index is the answer.
    "interrupts.next_expiry": [("SEARCH interrupts USING INDEX interrupts_open",)],
    # The questions of one run.
    "interrupts.of_run": [(ASKED, "USE TEMP B-TREE FOR ORDER BY")],
    # All leases change.
    "leases.inherit": [("SCAN leases USING INDEX leases_expires",)],
    "leases.release": [(LEASE,), (LEASE,)],
    "leases.renew": [(LEASE,)],
    "projection._close_run": [(RUN,), (THREAD,)],
    "projection._delete_parts": [(MESSAGES,), (ASKED, RUNS), (RUN, RUNS)],
    "projection._delete_thread": [(THREAD,)],
    "projection._open_run": [(THREAD,), (THREAD,)],
    "projection._rename_thread": [(THREAD,)],
    "projection._store_conversation": [
        ("SEARCH threads USING PRIMARY KEY (tenant=? AND user=? AND id=?)",)
    ],
    "projection._store_messages": [
        (MESSAGES,),
        ("SEARCH messages USING PRIMARY KEY (tenant=? AND user=? AND thread=? AND place=?)",),
    ],
    "projection.has_active_run": [(ACTIVE,)],
    "queue.leave": [(WAITING,)],
    "queue.put": [("SEARCH queued USING INDEX queued_thread (tenant=? AND user=? AND thread=?)",)],
    "queue.refuse_known": [(RUN,)],
    # Asked once, when the log is opened; whatever waits is to be begun.
    "queue.threads": [("SCAN queued USING INDEX queued_thread",)],
    "queue.waiting": [(WAITING,)],
    "queue.withdraw": [(WAITING,)],
    "store.ThreadStore.abandoned": [("SEARCH leases USING INDEX leases_expires (expires<?)", RUN)],
    "store.ThreadStore.exists": [(THREAD,)],
    "store.ThreadStore.find_run": [(RUN,)],
    "store.ThreadStore.held": [("SCAN leases", RUN)],
    "store.ThreadStore.runs": [
        ("SEARCH runs USING INDEX runs_thread (tenant=? AND user=? AND thread=?)",)
    ],
    "store.ThreadStore.threads": [
        (
            "SEARCH threads USING INDEX threads_updated (tenant=? AND user=? AND updated<?)",
            ACTIVE,
        )
    ],
    "store.ThreadStore.unfinished": [("SCAN runs USING INDEX runs_active",)],
    "store._stored": [(THREAD, ACTIVE), (MESSAGES,)],
}
"""By room and function, the plan of each statement: what is searched, and by what."""

STAYS_SMALL = {"leases", "queued"}
"""Tables of what goes on or waits now: they do not grow with the years."""
STAYS_SMALL_IN = "runs USING INDEX runs_active"
"""The index of the runs that go on now."""
SORTS_A_FEW = "interrupts.of_run"
"""What one run asked."""


class RecordingConnection(sqlite3.Connection):
    """A connection that notes the plan of each question, and where in the code it is asked."""

    plans: ClassVar[dict[Site, dict[str, set[tuple[str, ...]]]]]
    """By place and statement: one plan, unless it depends on the connection."""
    functions: ClassVar[dict[Site, str]]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self._note(sql, parameters)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self._note(sql, parameters[0])
        return super().executemany(sql, parameters)

    def _note(self, sql: str, parameters: Any) -> None:
        frame = sys._getframe(2)
        place = Path(frame.f_code.co_filename)
        if not _looked_at(place):
            return
        function = f"{place.stem}.{re.sub(r'[.]<.*', '', frame.f_code.co_qualname)}"
        if function == SCHEMA:
            return
        at = (place.relative_to(ROOT).as_posix(), frame.f_lineno)
        rows = super().execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
        plans = self.plans.setdefault(at, {}).setdefault(sql, set())
        plans.add(tuple(_steps(row[3] for row in rows)))
        self.functions[at] = function


def _looked_at(place: Path) -> bool:
    return place.is_relative_to(ROOT) and not any(
        place.is_relative_to(ROOT / other) for other in ELSEWHERE
    )


def _steps(lines: Iterator[str]) -> Iterator[str]:
    """Yield what is searched or sorted, but for the checks of rows, which search nothing."""
    for line in lines:
        if re.fullmatch(r"SCAN CONSTANT ROW|(CORRELATED )?(SCALAR|LIST) SUBQUERY \d+", line):
            continue
        if line == "CREATE BLOOM FILTER":  # Newer versions of SQLite, for a list of ids.
            continue
        yield line.replace("main.", "").replace("COVERING ", "")


class World:
    """The log and the tables of one person, with two connections as the gateway has them."""

    def __init__(self, path: Path) -> None:
        self.log = LogFile(
            path,
            ThreadProjection(),
            retention=retention_of,
            synchronous="OFF",
            boot_id="",
            now=lambda: 1_000.0,
        )
        self.writer = self.log._db
        self.reader = file_schema.connect(path, "OFF")
        checksums.hide(self.reader)
        self.store = ThreadStore(self)
        self.at = 1_000.0
        self.offsets: dict[str, int] = {}
        self.work: dict[str, int] = {}
        """By question, how many steps SQLite took."""
        self._taken = 0

    def close(self) -> None:
        self.reader.close()
        self.log.close()

    async def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        return question(self.reader)

    def count(self) -> None:
        """Count steps from now on."""

        def step() -> int:
            self._taken += 1
            return 0

        for db in (self.writer, self.reader):
            db.set_progress_handler(step, 1)

    @contextmanager
    def noting(self, question: str) -> Iterator[None]:
        before = self._taken
        yield
        self.work[question] = self._taken - before

    def emit(self, fact: object, *appends: Append) -> Written:
        with self.noting(f"{type(fact).__name__}: {getattr(fact, 'key', '')}"):
            (written,) = self.log.commit([Write(appends, (fact,))])
        assert isinstance(written, Written), written
        return written

    def begin(self, thread: str, run: str, queued: Queued | None = None) -> None:
        fact = RunOpened(
            key=key(thread, run),
            title="",
            thread_offset=self.offsets.get(thread, 0),
            at=self.at,
            holder="me",
            lease=self.at + 10,
            queued=queued,
        )
        self.emit(fact, append_to(thread))

    def end(
        self,
        thread: str,
        run: str,
        *,
        messages: int = 2,
        interrupts: Sequence[str] = (),
        expires: float,
    ) -> None:
        outcome = {"type": "interrupt", "interrupts": [{"id": one} for one in interrupts]}
        fact = RunClosed(
            key=key(thread, run),
            status=Status.INTERRUPTED if interrupts else Status.FINISHED,
            code=None,
            started={"type": "RUN_STARTED", "runId": run},
            ended={"type": "RUN_FINISHED", "outcome": outcome},
            messages=[
                {"id": f"{run}-{place}", "role": "user", "content": "?"}
                for place in range(messages)
            ],
            state=None,
            at=self.at,
            holder="me",
            expires=expires,
        )
        self.offsets[thread] = self.emit(fact, append_to(thread)).spans[0].last

    def live_long(self, threads: int) -> None:
        """Have the person use other threads: each has a run that asked, and one that waits."""
        for at in range(threads):
            thread = f"old{at}"
            self.at = 500.0 + at / 10_000
            self.begin(thread, f"{thread}-first")
            self.end(thread, f"{thread}-first", expires=9e9)
            self.begin(thread, f"{thread}-asked")
            self.end(thread, f"{thread}-asked", interrupts=("q1", "q2"), expires=9e9)
            self.emit(RunQueued(key=key(thread, f"{thread}-waits"), request=b"", at=self.at))
        self.at = 1_000.0

    async def do_everything(self) -> None:
        """Have each fact applied, and each question asked, at least once."""
        self.emit(ThreadCreated(key=whose("mine"), title="", at=self.at))
        self.emit(ThreadRenamed(key=whose("mine"), title="mine", at=self.at))
        self.begin("mine", "one")
        self.emit(LeasesRenewed(holder="me", keys=(key("mine", "one"),), expires=self.at + 5))
        self.emit(LeasesInherited(holder="me", expires=self.at + 5))
        self.emit(RunQueued(key=key("mine", "two"), request=b"?", at=self.at))
        self.emit(RunWithdrawn(key=key("mine", "two")))
        await self.ask_everything()
        self.end("mine", "one", interrupts=("q1", "q2"), expires=9e9)
        decided = InterruptDecided(
            key=key("mine", "one"),
            id="q1",
            status=InterruptStatus.APPROVED,
            payload=None,
            others=frozenset({"q2"}),
            at=self.at,
        )
        self.emit(decided)
        (waits,) = await self.store.queued("acme", "alice", "mine")
        self.begin("mine", "two", waits)
        self.end("mine", "two", messages=1, expires=9e9)
        self.begin("late", "three")
        self.end("late", "three", interrupts=("q1", "q2"), expires=self.at)
        with self.noting("expired"):
            assert await self.store.expired(self.at) == [key("late", "three")]
        self.emit(InterruptsExpired(key=key("late", "three"), at=self.at))
        self.emit(ThreadDeleted(key=whose("mine")))

    async def ask_everything(self) -> None:
        """Ask while a run of this thread goes on and one waits."""
        store, mine = self.store, ("acme", "alice", "mine")
        anything: Any = mock.ANY
        questions: list[tuple[str, Callable[[], Awaitable[Any]], Any]] = [
            ("threads", lambda: store.threads("acme", "alice", limit=50), anything),
            ("get", lambda: store.get(*mine), anything),
            ("exists", lambda: store.exists(*mine), True),
            ("has_active_run", lambda: store.has_active_run(*mine), True),
            ("find_run", lambda: store.find_run("acme", "alice", "one"), anything),
            ("unfinished", store.unfinished, anything),
            ("abandoned", lambda: store.abandoned(self.at + 5), anything),
            ("held", lambda: store.held("me"), {key("mine", "one")}),
            ("queued", lambda: store.queued(*mine), anything),
            ("waiting_threads", store.waiting_threads, anything),
            ("interrupts", lambda: store.interrupts("acme", "alice", "one"), []),
            ("last_interrupts", lambda: store.last_interrupts(*mine), []),
            ("next_expiry", store.next_expiry, anything),
            ("runs", lambda: store.runs(*mine, limit=50), anything),
        ]
        for question, answer, expected in questions:
            with self.noting(question):
                found = await answer()
            assert found == expected, question
            assert found or expected == [], question


def key(thread: str, run: str) -> RunKey:
    return RunKey(tenant="acme", user="alice", thread=thread, run=run, agent="agent")


def whose(thread: str) -> ThreadKey:
    return ThreadKey(tenant="acme", user="alice", id=thread)


def append_to(thread: str) -> Append:
    return Append(thread_channel("acme", "alice", thread), (Item(b"{}", {}),))


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[RecordingConnection]:
    """What was asked, and how it is answered, when everything was done once."""

    class Noting(RecordingConnection):
        plans: ClassVar = {}
        functions: ClassVar = {}

    def connect(path: Path, synchronous: str) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, factory=Noting)

    monkeypatch.setattr(log_file, "connect", connect)
    monkeypatch.setattr(file_schema, "connect", connect)
    with closing(World(tmp_path / "log")) as world:
        world.live_long(3)
        asyncio.run(world.do_everything())
    return Noting


def test_r125_each_question_goes_the_way_it_is_meant_to(
    recording: type[RecordingConnection],
) -> None:
    """On the connection that writes and on the one that reads, whose tables are views."""
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for at in sorted(recording.plans):
        for sql, plans in recording.plans[at].items():
            assert len(plans) == 1, f"the plan depends on the connection: {sql}"
            found[recording.functions[at]] += filter(None, plans)
    assert {function: plans for function, plans in found.items() if plans} == PLANS


def test_r125_no_question_looks_at_all_of_a_table_that_grows() -> None:
    """Nor at all that a person has in it, nor does one sort what it finds there."""
    for function, plans in PLANS.items():
        for step in (step for plan in plans for step in plan):
            what, table = step.split()[:2]
            if what == "SCAN":
                assert table in STAYS_SMALL or step.endswith(STAYS_SMALL_IN), function
            elif what == "SEARCH":
                assert not step.endswith("(tenant=? AND user=?)"), function
            else:
                assert function == SORTS_A_FEW, step


def test_r125_no_question_is_left_out(recording: type[RecordingConnection]) -> None:
    """Every place in the code that asks the database something was reached."""
    seen = recording.plans.keys()
    missed = [
        f"{file}:{call.lineno}"
        for file, call in calls()
        if not any((file, line) in seen for line in range(call.lineno, call.end_lineno + 1))
    ]
    assert missed == []


def calls() -> Iterator[tuple[str, Any]]:
    """Yield the file and the syntax of each call that executes SQL."""
    for place in ROOT.rglob("*.py"):
        if not _looked_at(place):
            continue
        for node in ast.walk(_without_schema(ast.parse(place.read_text()))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"execute", "executemany", "executescript", "cursor"}
            ):
                yield place.relative_to(ROOT).as_posix(), node


def _without_schema(module: ast.Module) -> ast.Module:
    """Leave out the method that makes the tables."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.name == SCHEMA.split(".")[1]:
            node.body = [one for one in node.body if getattr(one, "name", "") != "create"]
    return module


async def test_r125_the_work_of_a_question_does_not_grow(tmp_path: Path) -> None:
    """A person's other threads, runs, questions and queues add no step to any of them."""
    work = []
    for threads in (60, 600):
        with closing(World(tmp_path / str(threads))) as world:
            world.live_long(threads)
            world.work.clear()
            world.count()
            await world.do_everything()
            assert world.work.pop("waiting_threads") > threads
            work.append(world.work)
    assert work[0] == work[1]
    assert min(work[0].values()) > 0
