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
from towpath.log.broker import Append, Item, Question, Write, Written, retention_of
from towpath.log.sqlite import file_schema, log_file
from towpath.log.sqlite import rows as log_rows
from towpath.log.sqlite.log_file import LogFile
from towpath.runs.interrupts import InterruptDecided, InterruptsExpired, InterruptStatus
from towpath.runs.model import (
    Queued,
    RunClosed,
    RunKey,
    RunOpened,
    RunQueued,
    RunWithdrawn,
    Status,
    ThreadCreated,
    ThreadDeleted,
    ThreadKey,
    ThreadRenamed,
)
from towpath.runs.store import ThreadStore
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.runs.tables.sqlite.runs import RUNS as RUNS_TABLE

T = TypeVar("T")
Site = tuple[str, int]
"""A file and a line."""

ROOT = Path(towpath.__file__).parent
ELSEWHERE = ("log", "testing", "runs/tables/sqlite/carry_over.py")
"""The log's own tables, and what takes damaged ones over, row by row and once."""
SCHEMA = "projection.ThreadProjection.create"
"""Not a question: it makes the tables."""

THREAD = "SEARCH threads USING PRIMARY KEY (tenant=? AND user=? AND id=?)"
RUN = "SEARCH runs USING PRIMARY KEY (tenant=? AND user=? AND id=?)"
ACTIVE = "SEARCH runs USING INDEX runs_active (tenant=? AND user=? AND thread=?)"
RUNS = "SEARCH runs USING INDEX runs_thread (tenant=? AND user=? AND thread=?)"
WAITING = "SEARCH queued USING INDEX queued_thread (tenant=? AND user=? AND thread=?)"
MESSAGES = "SEARCH messages USING PRIMARY KEY (tenant=? AND user=? AND thread=?)"
ASKED = "SEARCH interrupts USING PRIMARY KEY (tenant=? AND user=? AND run=?)"
SORTED = "USE TEMP B-TREE FOR ORDER BY"

PLANS: dict[str, list[tuple[str, ...]]] = {
    "interrupts._last_run": [(THREAD,)],
    "interrupts._set": [
        ("SEARCH interrupts USING PRIMARY KEY (tenant=? AND user=? AND run=? AND id=?)",)
    ],
    # The interrupts of one run.
    "interrupts.decide": [(ASKED, SORTED)],
    "interrupts.expire": [(ASKED, SORTED)],
    "interrupts.expired": [("SEARCH interrupts USING INDEX interrupts_open (expires<?)",)],
    # The first entry of the index is the answer.
    "interrupts.next_expiry": [("SCAN interrupts USING INDEX interrupts_open",)],
    "interrupts.of_run": [(ASKED, SORTED)],
    "interrupts.supersede": [(ASKED, SORTED)],
    # Asked by the background check, for one row.
    "projection.ThreadProjection.is_orphan": [(THREAD,)],
    "projection._delete_thread": [(THREAD,), (ASKED, RUNS), (RUN, RUNS)],
    "queue.clear": [(WAITING,)],
    "queue.head": [(WAITING,)],
    "queue.is_needed": [(WAITING,), (WAITING,)],
    "queue.leave": [(WAITING,)],
    # The last place of all queued runs, from the end of the table.
    "queue.put": [(WAITING,), ("SEARCH queued",)],
    # Asked once, when the log is opened; whatever waits is to be begun.
    "queue.threads": [("SCAN queued",)],
    "queue.waiting": [(WAITING,)],
    "queue.withdraw": [(WAITING,), ("SEARCH queued USING INTEGER PRIMARY KEY (rowid=?)",)],
    "runs.active": [(ACTIVE,)],
    "runs.begin": [(RUN,), (RUN,)],
    "runs.end": [(RUN,)],
    "runs.find": [(RUN,)],
    "runs.intact_active": [(ACTIVE,)],
    "runs.of_thread": [(RUNS,)],
    "runs.refuse_known": [(RUN,)],
    "runs.unfinished": [("SCAN runs USING INDEX runs_active",)],
    "threads._store_messages": [
        (MESSAGES,),
        ("SEARCH messages USING PRIMARY KEY (tenant=? AND user=? AND thread=? AND place>?)",),
    ],
    "threads.begin_run": [(THREAD,), (THREAD,)],
    "threads.delete_messages": [(MESSAGES,)],
    "threads.end_run": [(THREAD,), (THREAD,)],
    "threads.exists": [(THREAD,)],
    "threads.of_user": [
        ("SEARCH threads USING INDEX threads_updated (tenant=? AND user=? AND updated<?)",)
    ],
    "threads.rename": [(THREAD,), (THREAD,)],
    "threads.stored": [(THREAD,), (MESSAGES,)],
}
"""By room and function, the plan of each statement: what is searched, and by what."""

EXECUTES = {"execute", "executemany", "executescript", "cursor"}
TABLES = {"THREADS", "MESSAGES", "RUNS", "QUEUED", "INTERRUPTS"}
ASKS = {"rows", "intact_rows", "get", "insert", "replace", "update", "delete"}
"""The methods of `rows.Table` that execute SQL."""
STAYS_SMALL = {"queued"}
"""Tables of what waits now: they do not grow with the years."""
STAYS_SMALL_IN = "runs USING INDEX runs_active"
"""The index of the runs that go on now."""
FIRST_ENTRY = "interrupts.next_expiry"
"""It reads an index up to the first intact row."""


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
        # A table's rows are read and written by `rows.Table`: who calls it asks the question.
        while frame.f_code.co_filename == log_rows.__file__ and frame.f_back is not None:
            frame = frame.f_back
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
            now=lambda: 1_000.0,
        )
        self.writer = self.log._db
        self.reader = file_schema.connect(path, "OFF")
        self.store = ThreadStore(self)
        self.at = 1_000.0
        self.offsets: dict[str, int] = {}
        self.work: dict[str, int] = {}
        """By question, how many steps SQLite took."""
        self._taken = 0

    def close(self) -> None:
        self.reader.close()
        self.log.close()

    async def ask(self, question: Question[T]) -> T:
        return ThreadProjection().answer(self.reader, question)

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
        three = RUNS_TABLE.get(self.reader, "acme", "alice", "three")
        assert not ThreadProjection().is_orphan(self.reader, RUNS_TABLE, three)
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
        steps = [(plan[0], step) for plan in plans for step in plan]
        for first, step in steps:
            what, table = step.split()[:2]
            if what == "SCAN":
                small = table in STAYS_SMALL or step.endswith(STAYS_SMALL_IN)
                assert small or function == FIRST_ENTRY, function
            elif what == "SEARCH":
                assert not step.endswith("(tenant=? AND user=?)"), function
            else:
                assert (first, step) == (ASKED, SORTED), function  # A few, of one run.


def test_r125_no_question_is_left_out(recording: type[RecordingConnection]) -> None:
    """Every place in the code that asks the database something was reached."""
    seen = recording.plans.keys()
    asking = set(recording.functions.values())
    missed = [
        f"{file}:{call.lineno}"
        for file, function, call in calls()
        if not any((file, line) in seen for line in range(call.lineno, call.end_lineno + 1))
        # Rows may be read after the call, when they are iterated.
        and not (call.func.attr == "intact_rows" and f"{Path(file).stem}.{function}" in asking)
    ]
    assert missed == []


def calls() -> Iterator[tuple[str, str, Any]]:
    """Yield the file, the function and the syntax of each call that executes SQL."""
    for place in ROOT.rglob("*.py"):
        if not _looked_at(place):
            continue
        for function in _without_schema(ast.parse(place.read_text())).body:
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and (node.func.attr in EXECUTES or _asks_a_table(node.func))
                ):
                    name = getattr(function, "name", "")
                    yield place.relative_to(ROOT).as_posix(), name, node


def _asks_a_table(called: ast.Attribute) -> bool:
    """Whether a method of a `rows.Table` is called, which is a constant of its room."""
    table = called.value
    name = table.attr if isinstance(table, ast.Attribute) else getattr(table, "id", "")
    return name in TABLES and called.attr in ASKS


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
