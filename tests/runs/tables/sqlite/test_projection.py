"""The projection: what is stored is what the log amounts to, and belongs to one person."""

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.legal import threads
from tests.runs.stage import ALICE, BOB, Stage, saying, staged, waiting
from towpath.agents.agent import AgentInput
from towpath.channels import thread_channel
from towpath.errors import Conflict, NotFound, StorageError
from towpath.log.broker import Append, Item, Write, Written, write
from towpath.runs.interrupts import (
    AnswersMoved,
    InterruptDecided,
    InterruptsExpired,
    InterruptStatus,
    NotOpen,
)
from towpath.runs.model import (
    RunKey,
    RunOpened,
    ThreadCreated,
    ThreadDeleted,
    ThreadKey,
    ThreadMoved,
    ThreadRenamed,
)
from towpath.runs.tables.sqlite import runs

ENGINES = ("memory", "sqlite")
KEY = ThreadKey(tenant="acme", user="alice", id="t1")
VERSION_1 = Path(__file__).with_name("version_1.sql")
"""A data file as version 1 of the schema left it: a finished run, and one that had asked."""
VERSION_6 = Path(__file__).with_name("version_6.sql")
"""One of version 6: a thread with two runs, one that was asked, one where a run goes on."""
VERSION_7 = Path(__file__).with_name("version_7.sql")
"""The same rows as version 7 had them: the last version with leases."""


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """One of the engines."""
    return str(request.param)


@dataclass
class Act:
    """What one run of a generated thread does."""

    events: list[dict[str, Any]]
    ending: str


acts = st.builds(
    Act,
    events=threads(runs=1, length=20).map(lambda events: events[1:-1]),
    ending=st.sampled_from(["return", "raise", "cancel", "garbage"]),
)


@given(st.lists(acts, min_size=1, max_size=3))
@settings(max_examples=25)
def test_the_tables_are_the_fold_of_the_log(played: list[Act]) -> None:
    """After any runs, rebuilt from all publications, messages, state and last run are the same."""
    import asyncio

    asyncio.run(play(played))


async def play(played: list[Act]) -> None:
    async with staged("memory", Path()) as stage:
        for number, act in enumerate(played):
            agent = performing(act, number, stage)
            run = await stage.cast(agent, f"a{number}").start(agent=f"a{number}")
            if act.ending == "cancel":
                await stage.service.cancel(ALICE, run)
            await stage.done(run)
            await stage.check()


def performing(act: Act, number: int, stage: Stage) -> Any:
    """Return an agent that says what was drawn, under ids that are new in this thread."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        for event in act.events:
            yield renamed(event, f"run{number}-")
        if act.ending == "raise":
            raise RuntimeError
        if act.ending == "garbage":
            yield 42

    return agent


def renamed(value: Any, prefix: str) -> Any:
    """Prefix every id of an event."""
    ids = ("messageId", "toolCallId", "parentMessageId", "subagentRunId", "id")
    if isinstance(value, list):
        return [renamed(one, prefix) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: prefix + part if name in ids else renamed(part, prefix)
        for name, part in value.items()
    }


async def emit(stage: Stage, fact: object, *, truncate: bool = False) -> Written:
    channels = (thread_channel("acme", "alice", "t1"),) if truncate else ()
    return await write(stage.broker, Write(facts=(fact,), truncate=channels))


async def test_a_thread_is_made_named_listed_and_deleted(kind: str, tmp_path: Path) -> None:
    """Each fact shows in the list of its owner, the latest first."""
    async with staged(kind, tmp_path) as stage:
        for number, name in enumerate(("t1", "t2", "t3")):
            key = ThreadKey(tenant="acme", user="alice", id=name)
            await emit(stage, ThreadCreated(key=key, title=name.upper(), at=float(number)))
        with pytest.raises(Conflict):
            await emit(stage, ThreadCreated(key=KEY, title="again", at=9.0))
        await emit(stage, ThreadRenamed(key=KEY, title="renamed", at=10.0))
        rows = await stage.store.threads("acme", "alice", limit=10)
        assert [(row.id, row.title) for row in rows] == [
            ("t1", "renamed"),
            ("t3", "T3"),
            ("t2", "T2"),
        ]
        assert [row.id for row in await stage.store.threads("acme", "alice", limit=1)] == ["t1"]
        older = await stage.store.threads("acme", "alice", limit=9, before=2.0)
        assert [row.id for row in older] == ["t2"]
        await emit(stage, ThreadDeleted(key=KEY))
        assert not await stage.store.exists("acme", "alice", "t1")
        for fact in (ThreadDeleted(key=KEY), ThreadRenamed(key=KEY, title="x", at=1.0)):
            with pytest.raises(NotFound):
                await emit(stage, fact)


async def test_a_title_is_the_first_question_unless_given(kind: str, tmp_path: Path) -> None:
    """A thread a run makes is named by its question; a name that was given stays."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(saying("a"))
        await stage.done(await stage.start(message="  what\n is   it? " + "x" * 90))
        await emit(
            stage,
            ThreadCreated(
                key=ThreadKey(tenant="acme", user="alice", id="t2"), title="mine", at=1.0
            ),
        )
        await emit(
            stage,
            ThreadCreated(key=ThreadKey(tenant="acme", user="alice", id="t3"), title="", at=1.0),
        )
        for thread in ("t2", "t3"):
            await stage.done(await stage.start(thread, message="question"))
        titles = {row.id: row.title for row in await stage.store.threads("acme", "alice", limit=9)}
        assert titles == {
            "t1": ("what is it? " + "x" * 90)[:60],
            "t2": "mine",
            "t3": "question",
        }


async def test_p1_r39_r79_nobody_else_sees_a_thread(kind: str, tmp_path: Path) -> None:
    """The same id in another person's or tenant's mouth is another thread, or none."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(saying("secret"))
        run = await stage.start()
        await stage.done(run)
        for tenant, user in (("acme", "bob"), ("other", "alice"), ("acme", ""), ("", "alice")):
            assert await stage.store.get(tenant, user, "t1") is None
            assert not await stage.store.exists(tenant, user, "t1")
            assert await stage.store.threads(tenant, user, limit=9) == []
            assert await stage.store.runs(tenant, user, "t1", limit=9) == []
            assert await stage.store.find_run(tenant, user, run) is None
            assert (await stage.store.conversation(tenant, user, "t1")).messages == []
        theirs = ThreadKey(tenant="acme", user="bob", id="t1")
        for fact in (ThreadDeleted(key=theirs), ThreadRenamed(key=theirs, title="x", at=1.0)):
            with pytest.raises(NotFound):
                await emit(stage, fact)
        await stage.done(await stage.start(who=BOB), who=BOB)
        await stage.check(who=BOB)
        await stage.check()
        assert len(await stage.store.runs("acme", "alice", "t1", limit=9)) == 1


async def test_a_thread_with_an_active_run_stays(kind: str, tmp_path: Path) -> None:
    """While a run goes on its thread is not deleted; the list names the run."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(waiting("a"))
        run = await stage.start()
        (row,) = await stage.store.threads("acme", "alice", limit=9)
        assert row.active_run == run
        with pytest.raises(Conflict):
            await emit(stage, ThreadDeleted(key=KEY), truncate=True)
        assert await stage.log()
        await stage.service.cancel(ALICE, run)
        (row,) = await stage.store.threads("acme", "alice", limit=9)
        assert row.active_run is None
        await emit(stage, ThreadDeleted(key=KEY), truncate=True)


async def test_runs_are_shown_with_how_they_ended(kind: str, tmp_path: Path) -> None:
    """`run.get` and `run.list` agree with the log: status, code and times."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(saying("a")).cast(saying(raises=ValueError()), "breaks").cast(waiting(), "waits")
        runs = [await stage.start()]
        await stage.done(runs[0])
        runs.append(await stage.start(agent="breaks"))
        await stage.done(runs[1])
        runs.append(await stage.start(agent="waits"))
        shown = {row.run_id: row for row in await stage.store.runs("acme", "alice", "t1", limit=9)}
        assert [(shown[run].status, shown[run].code, shown[run].agent) for run in runs] == [
            ("finished", None, "agent"),
            ("failed", "run.failed", "breaks"),
            ("running", None, "waits"),
        ]
        assert [shown[run].ended_at for run in runs] == [1000.0, 1000.0, None]


@pytest.mark.parametrize("made", [False, True])
async def test_a_deleted_thread_begins_clean(kind: str, tmp_path: Path, made: bool) -> None:
    """The log of a deleted thread is gone, and a new one of the same id knows nothing of it."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(saying("old secret", {"type": "STATE_SNAPSHOT", "snapshot": {"s": 1}}))
        await stage.done(await stage.start())
        await emit(stage, ThreadDeleted(key=KEY), truncate=True)
        channel = thread_channel("acme", "alice", "t1")
        assert (await stage.broker.read(channel, 0)).gone
        assert await stage.store.runs("acme", "alice", "t1", limit=9) == []
        if made:
            await emit(stage, ThreadCreated(key=KEY, title="new", at=1.0))
        stage.cast(waiting("new"), "waits")
        run = await stage.start(agent="waits")
        before = (await stage.store.conversation("acme", "alice", "t1")).offset
        replay = await stage.broker.read(channel, before)
        assert not replay.gone
        assert b"RUN_STARTED" in replay.publications[0].data
        await stage.service.cancel(ALICE, run)
        stored = await stage.store.get("acme", "alice", "t1")
        assert stored is not None
        assert [message["content"] for message in stored.messages] == ["hello", "new"]
        assert stored.state is None


async def test_what_an_earlier_run_said_is_stored_once(kind: str, tmp_path: Path) -> None:
    """Messages keep their place; one that changes is replaced, one that is dropped goes."""
    async with staged(kind, tmp_path) as stage:
        kept = [{"id": "u1", "role": "user", "content": "edited"}]
        stage.cast(saying("answer"))
        stage.cast(saying({"type": "MESSAGES_SNAPSHOT", "messages": kept}), "cuts")
        for agent in ("agent", "agent", "cuts", "agent"):
            await stage.done(await stage.start(agent=agent))
            await stage.check()
        stored = await stage.store.get("acme", "alice", "t1")
        assert stored is not None
        assert [message["content"] for message in stored.messages] == ["edited", "hello", "answer"]


async def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """What it holds is all there, its old question is nobody's, and new ones can be asked."""
    with closing(sqlite3.connect(tmp_path / "log.sqlite3")) as db:
        db.executescript(VERSION_1.read_text())
        before = db.execute("SELECT * FROM messages").fetchall()
    async with staged("sqlite", tmp_path) as stage:
        stored = await stage.store.get("acme", "alice", "t1")
        assert stored is not None
        assert [message["content"] for message in stored.messages] == [
            "an old question",
            "an old answer",
            "hello",
        ]
        assert len(await stage.log()) == 7
        old = await stage.store.find_run("acme", "alice", "id5")
        assert old is not None
        assert old.status.value == "interrupted"
        assert await stage.store.interrupts("acme", "alice", "id5") == []
        assert await stage.store.last_interrupts("acme", "alice", "t1") == []
        run = await stage.cast(asking).start(request_id="new")
        await stage.done(run)
        (question,) = await stage.store.interrupts("acme", "alice", run)
        assert (question.id, question.status.value) == ("q1", "open")
        await stage.check()
    with closing(sqlite3.connect(tmp_path / "log.sqlite3")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (8,)
        columns = "tenant, user, thread, place, id, body"
        kept = db.execute(f"SELECT {columns} FROM messages WHERE place < 3").fetchall()
        tables = "SELECT type, name, sql FROM sqlite_master WHERE name LIKE 'interrupts%'"
        assert kept == before
        migrated = db.execute(tables).fetchall()
    (tmp_path / "fresh").mkdir()
    async with staged("sqlite", tmp_path / "fresh"):
        with closing(sqlite3.connect(tmp_path / "fresh/log.sqlite3")) as db:
            assert db.execute(tables).fetchall() == migrated
            assert migrated


@pytest.mark.parametrize("version", [VERSION_6.read_text(), VERSION_7.read_text()], ids="67")
async def test_r125_an_older_file_gets_the_tables_of_a_new_one(
    tmp_path: Path, version: str
) -> None:
    """All rows are there, the list names the active run, tables and indexes are a new file's."""
    with closing(sqlite3.connect(tmp_path / "log.sqlite3")) as db:
        db.executescript(version)
        assert "leases" in tables_of(db)
        before = rows_of(db)
    async with staged("sqlite", tmp_path, enter=False) as stage:
        listed = await stage.store.threads("acme", "alice", limit=9)
        assert [(row.id, row.active_run) for row in listed] == [
            ("active", "r4"),
            ("asked", None),
            ("finished", None),
        ]
        runs = await stage.store.runs("acme", "alice", "finished", limit=9)
        assert [row.run_id for row in runs] == ["r2", "r1"]
        assert [one.key.run for one in await stage.store.unfinished()] == ["r4"]
    with closing(sqlite3.connect(tmp_path / "log.sqlite3")) as db:
        assert rows_of(db) == before
        migrated, tables = indexes_of(db), tables_of(db)
    async with staged("sqlite", tmp_path, enter=False) as stage:
        assert len(await stage.store.threads("acme", "alice", limit=9)) == 3
    (tmp_path / "fresh").mkdir()
    async with staged("sqlite", tmp_path / "fresh"):
        with closing(sqlite3.connect(tmp_path / "fresh/log.sqlite3")) as db:
            assert indexes_of(db) == migrated
            assert tables_of(db) == tables
    assert "leases" not in tables
    assert "runs_active" in migrated
    assert not {"runs_unfinished", "interrupts_thread"} & migrated.keys()


async def test_a_file_with_two_active_runs_in_a_thread_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    """What only a quarantine of an earlier version could leave opens; the earlier run is lost."""
    with closing(sqlite3.connect(tmp_path / "log.sqlite3")) as db:
        db.executescript(VERSION_6.read_text())
        db.execute(
            "INSERT INTO runs (tenant, user, id, thread, agent, status, started)"
            " SELECT tenant, user, 'earlier', thread, agent, status, started - 1 FROM runs"
            " WHERE id='r4'"
        )
        db.commit()
    async with staged("sqlite", tmp_path, enter=False) as stage:
        assert [one.key.run for one in await stage.store.unfinished()] == ["r4"]
        earlier = await stage.store.find_run("acme", "alice", "earlier")
        assert earlier is not None
        assert (earlier.status.value, earlier.code) == ("lost", "run.lost")


def rows_of(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of the projection's tables."""
    tables = ("threads", "messages", "runs", "interrupts", "queued")
    return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def tables_of(db: sqlite3.Connection) -> set[str]:
    """Return the names of the tables."""
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}


def indexes_of(db: sqlite3.Connection) -> dict[str, str]:
    """Return the definition of each index."""
    return dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type='index' AND sql != ''"))


async def test_p5_a_second_active_run_is_impossible(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were nobody to look whether a run is active, the table would refuse another one."""
    async with staged(kind, tmp_path) as stage:
        run = await stage.cast(waiting("a")).start()
        monkeypatch.setattr(runs, "active", lambda db, thread: None)
        key = RunKey(tenant="acme", user="alice", thread="t1", run="r2", agent="agent")
        opened = RunOpened(key=key, title="", thread_offset=0, at=1_000.0)
        append = Append(thread_channel("acme", "alice", "t1"), (Item(b"{}", {}),))
        with pytest.raises((sqlite3.IntegrityError, StorageError)):
            await write(stage.broker, Write((append,), (opened,)))
        assert [one.key.run for one in await stage.store.unfinished()] == [run]
        await stage.service.cancel(ALICE, run)


async def asking(request: AgentInput) -> AsyncGenerator[object, None]:
    """Ask one thing, and end."""
    question = {"id": "q1", "reason": "confirmation"}
    yield {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": [question]}}


def decided(run: str, thread: str = "t1", **changed: Any) -> InterruptDecided:
    """Return a decision on a run's one question, as nobody checked it before."""
    key = RunKey(tenant="acme", user="alice", thread=thread, run=run, agent="agent")
    fields = {
        "id": "q1",
        "status": InterruptStatus.APPROVED,
        "payload": None,
        "at": 1_000.0,
        **changed,
    }
    return InterruptDecided(key=key, **{"others": frozenset(), **fields})


async def test_p5_r96_only_an_open_question_can_be_decided(kind: str, tmp_path: Path) -> None:
    """The write itself is refused where the question is decided, over, left behind or none."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(asking)
        runs = {}
        for thread in ("decided", "expired", "gone"):
            runs[thread] = await stage.start(thread)
            await stage.done(runs[thread])
        await emit(stage, decided(runs["decided"], "decided", payload={"a": [1]}))
        late = {"decided": "already", "expired": "expired", "gone": "gone"}
        await stage.done(await stage.start("gone"))
        for thread, status in late.items():
            at = 1_000.0 + 24 * 3600.0 if thread == "expired" else 1_000.0
            with pytest.raises(NotOpen) as refusal:
                await emit(
                    stage, decided(runs[thread], thread, at=at, status=InterruptStatus.REFUSED)
                )
            assert refusal.value.status == status
        with pytest.raises(NotFound):
            await emit(stage, decided("nothing"))
        with pytest.raises(NotFound):
            await emit(stage, decided(runs["expired"], "expired", id="q2"))
        with pytest.raises(AnswersMoved):
            await emit(stage, decided(runs["expired"], "expired", others=frozenset({"q2"})))
        (one,) = await stage.store.interrupts("acme", "alice", runs["decided"])
        assert (one.status, one.payload, one.decided) == (
            InterruptStatus.APPROVED,
            {"a": [1]},
            1_000.0,
        )


async def test_p5_a_refused_decision_leaves_no_trace(kind: str, tmp_path: Path) -> None:
    """Where the run that would continue cannot be opened, the decision that came with it is not."""
    async with staged(kind, tmp_path) as stage:
        run = await stage.cast(asking).start()
        await stage.done(run)
        key = RunKey(tenant="acme", user="alice", thread="t1", run="r2", agent="agent")
        opened = RunOpened(key=key, title="", thread_offset=99, at=1_000.0)
        channel = thread_channel("acme", "alice", "t1")
        append = Append(channel, (Item(b"{}", {}),))
        with pytest.raises(ThreadMoved):
            await write(stage.broker, Write((append,), (decided(run), opened)))
        (one,) = await stage.store.interrupts("acme", "alice", run)
        assert one.status is InterruptStatus.OPEN
        assert await stage.store.find_run("acme", "alice", "r2") is None
        await stage.check()


async def test_r95_questions_that_are_over_are_found_by_their_time(
    kind: str, tmp_path: Path
) -> None:
    """The next expiry is the earliest of what is open, and a run is due from that moment on."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(asking)
        assert await stage.store.next_expiry() is None
        runs = []
        for number in range(3):
            stage.now = 1_000.0 + number
            runs.append(await stage.start(f"t{number}"))
            await stage.done(runs[-1])
        day = 24 * 3600.0
        assert await stage.store.next_expiry() == 1_000.0 + day
        assert await stage.store.expired(999.9 + day) == []
        assert [key.run for key in await stage.store.expired(1_000.0 + day)] == runs[:1]
        assert {key.run for key in await stage.store.expired(1_002.0 + day)} == set(runs)
        await emit(stage, decided(runs[0], "t0"))
        assert await stage.store.next_expiry() == 1_001.0 + day
        (due,) = [key for key in await stage.store.expired(1_001.0 + day) if key.run == runs[1]]
        await emit(stage, InterruptsExpired(key=due, at=1_001.0 + day))
        with pytest.raises(NotOpen):
            await emit(stage, InterruptsExpired(key=due, at=1_001.0 + day))
        assert await stage.store.next_expiry() == 1_002.0 + day


async def test_p1_a_question_belongs_to_one_person(kind: str, tmp_path: Path) -> None:
    """Questions of one name in another person's thread are theirs, and stay as they are."""
    async with staged(kind, tmp_path) as stage:
        stage.cast(asking)
        for who in (ALICE, BOB):
            await stage.start(who=who, run_id="same")
            await stage.done("same", who=who)
        await emit(stage, decided("same"))
        (alices,) = await stage.store.interrupts("acme", "alice", "same")
        (bobs,) = await stage.store.interrupts("acme", "bob", "same")
        assert (alices.status, bobs.status) == (InterruptStatus.APPROVED, InterruptStatus.OPEN)
        assert await stage.store.interrupts("other", "alice", "same") == []
        assert await stage.store.last_interrupts("other", "alice", "t1") == []
        await stage.done(await stage.start(), who=ALICE)
        (bobs,) = await stage.store.interrupts("acme", "bob", "same")
        assert bobs.status is InterruptStatus.OPEN
