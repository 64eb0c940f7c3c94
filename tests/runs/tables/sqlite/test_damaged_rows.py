"""A damaged row costs what it belongs to, and nothing else."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.runs.stage import ALICE, eventually, saying, staged
from towpath import telemetry
from towpath.channels import thread_channel
from towpath.errors import Conflict, NotFound, RowDamaged
from towpath.log.broker import (
    Question,
    Span,
    Write,
)
from towpath.log.sqlite.rows import Table
from towpath.runs import questions
from towpath.runs.interrupts import InterruptsExpired, InterruptStatus
from towpath.runs.model import (
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
from towpath.runs.tables.sqlite.interrupts import INTERRUPTS
from towpath.runs.tables.sqlite.projection import ANSWERS, ThreadProjection
from towpath.runs.tables.sqlite.queue import QUEUED
from towpath.runs.tables.sqlite.runs import RUNS
from towpath.runs.tables.sqlite.threads import MESSAGES, THREADS

TABLES: tuple[Table[Any], ...] = (THREADS, MESSAGES, RUNS, QUEUED, INTERRUPTS)
OWNER = ("acme", "alice")


class Tables:
    """The tables of one person's threads, without a log around them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.projection = ThreadProjection()
        self.projection.create(db, 0)
        self.tops: dict[str, int] = {}

    def apply(self, fact: object, thread: str = "") -> None:
        """Apply a fact, with one publication in a thread."""
        self.tops[thread] = top = self.tops.get(thread, 0) + 1
        span = Span(thread_channel(*OWNER, thread), "epoch", top, top)
        self.projection.apply(self.db, fact, (span,))

    def ask(self, question: Question[Any]) -> Any:
        return self.projection.answer(self.db, question)

    def begin(self, thread: str, run: str) -> None:
        stored = THREADS.get(self.db, *OWNER, thread)
        offset = stored.offset if stored else 0
        fact = RunOpened(
            key=key(thread, run),
            title="title",
            thread_offset=offset,
            at=1.0,
        )
        self.apply(fact, thread)

    def end(self, thread: str, run: str, *, interrupts: tuple[str, ...] = ()) -> None:
        outcome = {"type": "interrupt", "interrupts": [{"id": one} for one in interrupts]}
        fact = RunClosed(
            key=key(thread, run),
            status=Status.INTERRUPTED if interrupts else Status.FINISHED,
            code=None,
            started={"type": "RUN_STARTED", "runId": run},
            ended={"type": "RUN_FINISHED", "outcome": outcome},
            messages=[{"id": f"{run}-{n}", "role": "user", "content": "?"} for n in range(3)],
            state={"n": 1},
            at=2.0,
            expires=5.0,
        )
        self.apply(fact, thread)

    def damage(self, table: Table[Any], where: str, column: str, value: object) -> None:
        """Change a value of rows, and leave their checksums."""
        changed = self.db.execute(f"UPDATE {table.name} SET {column}=? WHERE {where}", (value,))
        assert changed.rowcount > 0


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Empty tables."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        yield Tables(db)


def key(thread: str, run: str) -> RunKey:
    return RunKey(tenant="acme", user="alice", thread=thread, run=run, agent="agent")


def thread_key(thread: str) -> ThreadKey:
    return ThreadKey(tenant="acme", user="alice", id=thread)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_columns_of_a_row_are_those_of_its_table(tables: Tables, table: Table[Any]) -> None:
    """Their order is that of the schema, so the checksums of older rows stay valid."""
    columns = [row[1] for row in tables.db.execute(f"PRAGMA table_info({table.name})")]
    columns.remove("crc")
    assert list(table.columns) == columns


def test_every_question_has_an_answer() -> None:
    """Each kind of question that the store asks is answered, by one function."""
    kinds = {
        kind
        for kind in vars(questions).values()
        if isinstance(kind, type) and issubclass(kind, Question)
    } - {Question}
    assert set(ANSWERS) == kinds


def test_a_damaged_thread_is_left_out_of_the_list_only(tables: Tables) -> None:
    """The list is as long as requested; the thread itself is neither found nor changed."""
    for number in range(4):
        fact = ThreadCreated(key=thread_key(f"t{number}"), title="", at=float(number))
        tables.apply(fact)
    tables.damage(THREADS, "id='t2'", "title", "forged")
    listed = tables.ask(questions.ThreadsOfUser(*OWNER, 2, None))
    assert [one.id for one in listed] == ["t3", "t1"]
    for question in (questions.ThreadById, questions.ThreadExists, questions.InterruptsOfLastRun):
        with pytest.raises(RowDamaged):
            tables.ask(question(*OWNER, "t2"))
    with pytest.raises(RowDamaged):
        tables.apply(ThreadRenamed(key=thread_key("t2"), title="mine", at=9.0))
    with pytest.raises(RowDamaged):
        tables.begin("t2", "r1")
    assert tables.ask(questions.ThreadById(*OWNER, "t1")).row.id == "t1"


@pytest.mark.parametrize("damage", ["changed", "missing", "moved"])
def test_a_damaged_message_is_never_shown(tables: Tables, damage: str) -> None:
    """Nor is a conversation with a gap; the next run stores all of it again."""
    tables.begin("t1", "r1")
    tables.end("t1", "r1")
    if damage == "missing":
        tables.db.execute("DELETE FROM messages WHERE place=1")
    else:
        column, value = ("body", b'"forged"') if damage == "changed" else ("place", 7)
        tables.damage(MESSAGES, "place=1", column, value)
    with pytest.raises(RowDamaged) as raised:
        tables.ask(questions.ThreadById(*OWNER, "t1"))
    assert raised.value.table == "messages"
    tables.begin("t1", "r2")
    tables.end("t1", "r2")
    stored = tables.ask(questions.ThreadById(*OWNER, "t1"))
    assert [one["id"] for one in stored.messages] == ["r2-0", "r2-1", "r2-2"]


def test_p5_a_run_ends_though_its_row_is_damaged(tables: Tables) -> None:
    """When the run ends, all values of its row are known, except for the start time."""
    tables.begin("t1", "r1")
    tables.damage(RUNS, "id='r1'", "agent", "forged")
    with pytest.raises(RowDamaged):
        tables.ask(questions.RunById(*OWNER, "r1"))
    assert tables.ask(questions.UnfinishedRuns()) == []
    tables.end("t1", "r1")
    ended = tables.ask(questions.RunById(*OWNER, "r1"))
    assert (ended.key, ended.status, ended.ended_at) == (key("t1", "r1"), Status.FINISHED, 2.0)
    assert len(tables.ask(questions.ThreadById(*OWNER, "t1")).messages) == 3


def test_p5_a_run_ends_though_its_thread_is_damaged(tables: Tables) -> None:
    """The thread stays as it is, damaged; it can still be deleted."""
    tables.begin("t1", "r1")
    tables.damage(THREADS, "id='t1'", "title", "forged")
    tables.end("t1", "r1", interrupts=("q1",))
    assert tables.ask(questions.RunById(*OWNER, "r1")).status is Status.INTERRUPTED
    with pytest.raises(RowDamaged):
        tables.ask(questions.ThreadById(*OWNER, "t1"))
    tables.apply(ThreadDeleted(key=thread_key("t1")))
    assert tables.ask(questions.ThreadById(*OWNER, "t1")) is None


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_thread_with_damaged_rows_can_be_deleted(tables: Tables, table: Table[Any]) -> None:
    """Whichever row is damaged, nothing of the thread is left; other threads keep theirs."""
    for thread in ("t1", "t2"):
        tables.begin(thread, f"{thread}-one")
        tables.end(thread, f"{thread}-one", interrupts=("q1", "q2"))
    tables.apply(RunQueued(key=key("t1", "waits"), request=b"", at=1.0))
    tables.apply(RunQueued(key=key("t2", "waits too"), request=b"", at=1.0))
    column = {"threads": "title", "messages": "body", "runs": "agent", "queued": "agent"}
    where = "id='t1'" if table is THREADS else "thread='t1'"
    tables.damage(table, where, column.get(table.name, "asked"), b"forged")
    if table is not QUEUED:
        with pytest.raises(Conflict):
            tables.apply(ThreadDeleted(key=thread_key("t1")))
        tables.damage(QUEUED, "thread='t1'", "agent", "forged")
    tables.apply(ThreadDeleted(key=thread_key("t1")))
    for one in TABLES:
        name = "id" if one is THREADS else "thread"
        left = {row[0] for row in tables.db.execute(f"SELECT {name} FROM {one.name}")}
        assert left == {"t2"}, one.name
    with pytest.raises(NotFound):
        tables.apply(ThreadDeleted(key=thread_key("t1")))


def test_a_damaged_run_is_left_out_of_lists_only(tables: Tables) -> None:
    """Lists of runs leave it out; its id cannot be used again."""
    for run in ("r1", "r2"):
        tables.begin("t1", run)
        tables.end("t1", run)
    tables.damage(RUNS, "id='r1'", "code", "forged")
    runs = tables.ask(questions.RunsOfThread(*OWNER, "t1", 9))
    assert [one.key.run for one in runs] == ["r2"]
    with pytest.raises(RowDamaged):
        tables.apply(RunQueued(key=key("t1", "r1"), request=b"", at=1.0))


def test_a_damaged_interrupt_does_not_keep_others_from_expiring(tables: Tables) -> None:
    """The intact interrupts expire, once, and the damaged one is no longer due."""
    tables.begin("t1", "r1")
    tables.end("t1", "r1", interrupts=("q1", "q2"))
    tables.damage(INTERRUPTS, "id='q1'", "asked", b"forged")
    with pytest.raises(RowDamaged):
        tables.ask(questions.InterruptsOfRun(*OWNER, "r1"))
    assert tables.ask(questions.ExpiredInterrupts(5.0)) == [key("t1", "r1")]
    assert tables.ask(questions.NextExpiry()) == 5.0
    tables.apply(InterruptsExpired(key=key("t1", "r1"), at=5.0))
    assert tables.ask(questions.ExpiredInterrupts(5.0)) == []
    assert tables.ask(questions.NextExpiry()) is None
    row = INTERRUPTS.get(tables.db, *OWNER, "r1", "q2")
    assert row is not None
    assert row.answer == InterruptStatus.EXPIRED.value
    tables.begin("t1", "r2")


def test_a_damaged_queued_run_is_not_begun(tables: Tables) -> None:
    """Its thread begins no run; the other threads with queued runs are found."""
    for thread in ("t1", "t2"):
        tables.apply(RunQueued(key=key(thread, f"{thread}-waits"), request=b"", at=1.0))
    tables.damage(QUEUED, "thread='t1'", "request", b"forged")
    with pytest.raises(RowDamaged):
        tables.ask(questions.QueuedRuns(*OWNER, "t1"))
    with pytest.raises(RowDamaged):
        tables.apply(RunWithdrawn(key=key("t1", "t1-waits")))
    with pytest.raises(RowDamaged):
        tables.begin("t1", "r1")
    assert tables.ask(questions.ThreadsWithQueue()) == [(*OWNER, "t2")]


def test_a_thread_with_a_damaged_queued_run_can_be_deleted(tables: Tables) -> None:
    """The runs beside the damaged one are cancelled first; they could never end."""
    tables.begin("t1", "r1")
    tables.end("t1", "r1")
    for run in ("damaged", "intact"):
        tables.apply(RunQueued(key=key("t1", run), request=b"", at=1.0))
    tables.damage(QUEUED, "run='damaged'", "request", b"forged")
    with pytest.raises(Conflict):
        tables.apply(ThreadDeleted(key=thread_key("t1")))
    tables.apply(RunWithdrawn(key=key("t1", "intact")))
    tables.apply(ThreadDeleted(key=thread_key("t1")))
    assert tables.ask(questions.ThreadsWithQueue()) == []


def test_a_cancelled_run_ends_before_its_thread_is_deleted(tables: Tables) -> None:
    """Nothing is damaged, so the cancelled run gets its ending when its turn comes."""
    tables.begin("t1", "r1")
    tables.end("t1", "r1")
    tables.apply(RunQueued(key=key("t1", "waits"), request=b"", at=1.0))
    tables.apply(RunWithdrawn(key=key("t1", "waits")))
    with pytest.raises(Conflict):
        tables.apply(ThreadDeleted(key=thread_key("t1")))


def test_a_queued_run_may_precede_its_thread(tables: Tables) -> None:
    """A thread may be deleted before a run is queued, so its row is no sign of damage."""
    tables.apply(RunQueued(key=key("t1", "waits"), request=b"", at=1.0))
    waiting = RUNS.get(tables.db, *OWNER, "waits")
    assert not tables.projection.is_orphan(tables.db, RUNS, waiting)
    tables.begin("t2", "r1")
    tables.db.execute("DELETE FROM threads WHERE id='t2'")
    begun = RUNS.get(tables.db, *OWNER, "r1")
    assert tables.projection.is_orphan(tables.db, RUNS, begun)


async def test_a_damaged_queued_run_harms_no_other_thread(tmp_path: Path) -> None:
    """The service reports it, and begins the runs of other threads."""
    async with staged("sqlite", tmp_path, enter=False) as stage:
        broker: Any = stage.broker._broker
        path = tmp_path / "log.sqlite3"
        for thread in ("t1", "t2"):
            fact = RunQueued(key=key(thread, f"{thread}-waits"), request=b"", at=1.0)
            await broker.submit(Write(facts=(fact,)))
        stage.cast(saying("hello"))
        async with stage.service:
            with closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE queued SET agent='forged' WHERE thread='t1'")
                db.commit()
            stage.service._queue.wake(*OWNER, "t1")
            await stage.done("t2-waits")

            async def reported() -> bool:
                faults = [one for one in stage.happened if isinstance(one, telemetry.InternalError)]
                return any(isinstance(one.error, RowDamaged) for one in faults)

            await eventually(reported)
            run = await stage.start("t3", who=ALICE)
            await stage.done(run)
