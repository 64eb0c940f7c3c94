"""What waits for a thread, as a table: first in, first out, and as it was when it was looked at."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runs.stage import ALICE, Stage, saying, staged
from tests.runs.stage import waiting as patient
from towpath.channels import thread_channel
from towpath.errors import CommandError, Conflict, LimitExceeded, NotFound
from towpath.log.broker import Append, Item, Span, Write, Written, write
from towpath.runs.interrupts import InterruptStatus
from towpath.runs.model import (
    MAX_QUEUED,
    Queued,
    RunKey,
    RunOpened,
    RunQueued,
    RunWithdrawn,
    ThreadBusy,
    ThreadDeleted,
    ThreadKey,
    TurnMoved,
)
from towpath.runs.questions import QueuedRuns
from towpath.runs.requests import Decision
from towpath.runs.tables.sqlite import queue
from towpath.runs.tables.sqlite.projection import ThreadProjection

ENGINES = ("memory", "sqlite")
THREAD = ThreadKey(tenant="acme", user="alice", id="t1")
VERSION_1 = Path(__file__).with_name("version_1.sql")


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """One of the engines."""
    return str(request.param)


def key(run: str, thread: str = "t1", user: str = "alice") -> RunKey:
    return RunKey(tenant="acme", user=user, thread=thread, run=run, agent="agent")


async def emit(stage: Stage, fact: object) -> Written:
    return await write(stage.broker, Write(facts=(fact,)))


async def put(stage: Stage, *runs: str, thread: str = "t1", user: str = "alice") -> None:
    for run in runs:
        fact = RunQueued(key=key(run, thread, user), request=b"asked", at=1.0)
        await emit(stage, fact)


async def open_run(stage: Stage, run: str, as_seen: Queued | None, *, offset: int = 0) -> Written:
    """Write a run's beginning as whoever begins it does."""
    fact = RunOpened(
        key=key(run),
        title="",
        thread_offset=offset,
        at=2.0,
        queued=as_seen,
    )
    append = Append(thread_channel("acme", "alice", "t1"), (Item(b"{}", {}),), fence=True)
    return await write(stage.broker, Write((append,), (fact,)))


async def waiting(stage: Stage, thread: str = "t1", user: str = "alice") -> list[str]:
    return [one.key.run for one in await stage.store.queued("acme", user, thread)]


async def test_r91_runs_wait_in_their_order(kind: str, tmp_path: Path) -> None:
    """Each thread of each person has a line of its own, in the order of arrival."""
    async with staged(kind, tmp_path, enter=False) as stage:
        await put(stage, "c", "a")
        await put(stage, "x", thread="t2")
        await put(stage, "a", user="bob")
        await put(stage, "b")
        assert await waiting(stage) == ["c", "a", "b"]
        assert await waiting(stage, "t2") == ["x"]
        assert await waiting(stage, user="bob") == ["a"]
        assert await waiting(stage, "t2", "bob") == []
        threads = await stage.store.waiting_threads()
        assert sorted(threads) == [
            ("acme", "alice", "t1"),
            ("acme", "alice", "t2"),
            ("acme", "bob", "t1"),
        ]
        first = (await stage.store.queued("acme", "alice", "t1"))[0]
        assert first == Queued(key=key("c"), request=b"asked", withdrawn=False)


async def test_a_run_that_waits_is_pending_and_not_active(kind: str, tmp_path: Path) -> None:
    """It is found by its id and listed, is no run to be lost, and makes no thread by itself."""
    async with staged(kind, tmp_path, enter=False) as stage:
        await put(stage, "a")
        record = await stage.store.find_run("acme", "alice", "a")
        assert record is not None
        assert (record.status.value, record.started_at, record.ended_at) == ("pending", 1.0, None)
        rows = await stage.store.runs("acme", "alice", "t1", limit=9)
        assert [(row.run_id, row.status) for row in rows] == [("a", "pending")]
        assert await stage.store.unfinished() == []
        assert not await stage.store.has_active_run("acme", "alice", "t1")
        assert await stage.store.find_run("acme", "bob", "a") is None
        assert not await stage.store.exists("acme", "alice", "t1")


async def test_r91_only_the_first_in_line_begins(kind: str, tmp_path: Path) -> None:
    """A run begins once, at its turn, on a free thread; anybody else finds the thread busy."""
    async with staged(kind, tmp_path, enter=False) as stage:
        await put(stage, "a", "b")
        first, second = await stage.store.queued("acme", "alice", "t1")
        with pytest.raises(ThreadBusy):
            await open_run(stage, "new", None)
        with pytest.raises(TurnMoved):
            await open_run(stage, "b", second)
        await open_run(stage, "a", first)
        assert await waiting(stage) == ["b"]
        record = await stage.store.find_run("acme", "alice", "a")
        assert record is not None
        assert (record.status.value, record.started_at) == ("running", 2.0)
        for again in (first, second):
            with pytest.raises(ThreadBusy):
                await open_run(stage, again.key.run, again)
        assert len(await stage.log()) == 1


async def test_r88_a_run_cancelled_meanwhile_does_not_begin(kind: str, tmp_path: Path) -> None:
    """Whoever saw it before it was cancelled has to look again, and a stranger's is not found."""
    async with staged(kind, tmp_path, enter=False) as stage:
        await put(stage, "a")
        (seen,) = await stage.store.queued("acme", "alice", "t1")
        with pytest.raises(NotFound):
            await emit(stage, RunWithdrawn(key=key("a", user="bob")))
        await emit(stage, RunWithdrawn(key=key("a")))
        with pytest.raises(TurnMoved):
            await open_run(stage, "a", seen)
        (now,) = await stage.store.queued("acme", "alice", "t1")
        assert now.withdrawn
        await open_run(stage, "a", now)
        with pytest.raises(NotFound):
            await emit(stage, RunWithdrawn(key=key("a")))


async def test_an_id_is_used_once(kind: str, tmp_path: Path) -> None:
    """Neither a waiting nor a new run takes the id of another one of that person."""
    async with staged(kind, tmp_path, enter=False) as stage:
        await put(stage, "a")
        with pytest.raises(Conflict):
            await put(stage, "a", thread="t2")
        with pytest.raises(Conflict) as taken:
            await open_run(stage, "a", None)
        assert not isinstance(taken.value, ThreadBusy)
        assert await waiting(stage) == ["a"]
        assert await waiting(stage, "t2") == []


async def test_r91_a_line_has_a_bound(kind: str, tmp_path: Path) -> None:
    """One thread's line is full at its bound; other threads are not concerned."""
    async with staged(kind, tmp_path, enter=False) as stage:
        await put(stage, *(f"r{n}" for n in range(MAX_QUEUED)))
        with pytest.raises(LimitExceeded):
            await put(stage, "more")
        assert await stage.store.find_run("acme", "alice", "more") is None
        await put(stage, "more", thread="t2")


async def test_a_thread_goes_when_nothing_waits(kind: str, tmp_path: Path) -> None:
    """It stays while a run waits for it, and whoever looked at the line before begins nothing."""
    async with staged(kind, tmp_path) as stage:
        await stage.done(await stage.cast(saying("a")).start())
        await put(stage, "waits")
        delete = ThreadDeleted(key=ThreadKey(tenant="acme", user="alice", id="t1"))
        with pytest.raises(Conflict):
            await emit(stage, delete)
        assert await stage.store.exists("acme", "alice", "t1")
        assert await waiting(stage) == ["waits"]


class Model:
    """A line as a list."""

    def __init__(self) -> None:
        self.line: list[tuple[str, bool]] = []
        self.known: set[str] = set()
        self.active = False


moves = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "withdraw", "open", "begin", "end"]), st.integers(0, 30)
    ),
    max_size=60,
)


@given(moves)
@settings(max_examples=100)
def test_the_line_is_a_line(made: list[tuple[str, int]]) -> None:
    """After any facts in any order, those refused included, the table is what a list would be."""
    db, model = sqlite3.connect(":memory:", isolation_level=None), Model()
    ThreadProjection().create(db, 0)
    for what, number in made:
        run = f"r{number}"
        expected = allowed(model, what, run)
        assert applied(db, what, run) == expected
        found = queue.waiting(db, QueuedRuns("acme", "alice", "t1"))
        assert [(one.key.run, one.withdrawn) for one in found] == model.line


def allowed(model: Model, what: str, run: str) -> bool:
    """Do it to the model; return whether it may be done."""
    names = [name for name, _ in model.line]
    if what == "end":
        model.active = False
        return True
    if what == "withdraw":
        model.line = [(name, gone or name == run) for name, gone in model.line]
        return run in names
    if what == "begin":
        if model.active or not model.line:
            return False
        model.line.pop(0)
        model.active = True
        return True
    fine = run not in model.known
    if what == "put":
        fine = fine and len(names) < MAX_QUEUED
        model.line += [(run, False)] * fine
    else:
        fine = fine and not model.active and not names
        model.active |= fine
    model.known |= {run} if fine else set()
    return fine


def applied(db: sqlite3.Connection, what: str, run: str) -> bool:
    """Do it to the table; return whether it was taken."""
    if what == "end":
        db.execute("UPDATE runs SET ended=1, status='finished' WHERE status='running'")
        return True
    head = queue.head(db, THREAD) if what == "begin" else None
    if what == "begin" and head is None:
        return False
    where = head.key if head else key(run)
    offset = db.execute("SELECT offset FROM threads").fetchone()
    facts: dict[str, Any] = {
        "put": RunQueued(key=where, request=b"", at=1.0),
        "withdraw": RunWithdrawn(key=where),
    }
    opened = RunOpened(
        key=where,
        title="",
        thread_offset=offset[0] if offset else 0,
        at=1.0,
        queued=head,
    )
    span = Span(thread_channel("acme", "alice", "t1"), "e", 1, 1)
    db.execute("BEGIN")
    try:
        ThreadProjection().apply(db, facts.get(what, opened), [span])
    except CommandError:
        db.execute("ROLLBACK")
        return False
    db.execute("COMMIT")
    return True


async def test_a_log_of_version_1_learns_to_wait(tmp_path: Path) -> None:
    """An older file keeps all it holds, and runs may wait in it."""
    db = sqlite3.connect(tmp_path / "log.sqlite3", isolation_level=None)
    db.executescript(VERSION_1.read_text())
    leave_running(db)
    db.close()
    go = asyncio.Event()
    async with staged("sqlite", tmp_path, enter=False) as stage:
        stage.cast(patient("new answer", until=go), double_texting="queue")
        assert [record.key.run for record in await stage.store.unfinished()] == ["id6"]
        async with stage.service:
            await stage.done("id6")
            await stage.check()
            rows = await stage.store.runs("acme", "alice", "t1", limit=9)
            assert {row.run_id: row.status for row in rows} == {
                "id2": "finished",
                "id5": "interrupted",
                "id6": "lost",
            }
            runs = [await stage.start(message=name, request_id=name) for name in ("one", "two")]
            assert await waiting(stage) == runs[1:]
            go.set()
            await stage.done(runs[1])
            await stage.check()
            stored = await stage.store.get("acme", "alice", "t1")
        broker: Any = stage.broker._broker
        version = broker._reader.execute("PRAGMA user_version").fetchone()
    assert version == (8,)
    assert stored is not None
    assert [one["content"] for one in stored.messages] == [
        *("an old question", "an old answer", "hello", "and then?"),
        *("one", "new answerend", "two", "new answerend"),
    ]


def leave_running(db: sqlite3.Connection) -> None:
    """Begin one more run in a file of version 1, as if its process had died then."""
    run_input = {"messages": [{"id": "id7", "role": "user", "content": "and then?"}]}
    started = {"type": "RUN_STARTED", "threadId": "t1", "runId": "id6", "input": run_input}
    tags = {"thread": "t1", "run": "id6", "agent": "agent", "seq": "1"}
    row = msgspec.msgpack.encode([[msgspec.json.encode(started), tags]])
    db.execute("INSERT INTO log VALUES (1, 8, 8, 4000000000.0, ?, ?)", (len(row), row))
    db.execute(
        "UPDATE channels SET top=8, hold=8, publications=8, bytes=bytes+? WHERE id=1", (len(row),)
    )
    run = ("acme", "alice", "id6", "t1", "agent", "running", None, 1001.0, None)
    db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", run)


async def test_runs_that_wait_leave_a_question_open(kind: str, tmp_path: Path) -> None:
    """They are not what ran last, and an answer before their turn is refused and undone."""
    question = {"id": "q1", "reason": "confirmation"}
    asking = {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": [question]}}
    async with staged(kind, tmp_path) as stage:
        run = await stage.cast(saying(asking), double_texting="queue").start()
        await stage.done(run)
        await put(stage, "later")
        decision = Decision(request_id="d1", run_id=run, interrupt_id="q1", decision="approve")
        with pytest.raises(Conflict):
            await stage.service.approve(ALICE, decision)
        (interrupt,) = await stage.store.last_interrupts("acme", "alice", "t1")
        assert (interrupt.key.run, interrupt.id, interrupt.status) == (
            run,
            "q1",
            InterruptStatus.OPEN,
        )
