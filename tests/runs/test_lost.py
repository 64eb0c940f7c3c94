"""Runs that another process left unfinished: each gets its one ending, and nothing waits for it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.runs.stage import ALICE, QUICK, Stage, eventually, saying, staged, waiting
from towpath import telemetry
from towpath.channels import thread_channel
from towpath.errors import NotFound, StorageError, Unavailable
from towpath.log.broker import Append, Item, Write, Written, write
from towpath.runs import executor, lost
from towpath.runs.active import ActiveRuns
from towpath.runs.lost import AT_ONCE, LostRuns
from towpath.runs.model import RunClosed, RunKey, RunOpened, RunQueued
from towpath.runs.publications import items_of, notice
from towpath.runs.requests import QueuedRequest, RunRequest
from towpath.runs.run import Run
from towpath.runs.tables.sqlite import projection

pytestmark = pytest.mark.parametrize("kind", ["memory", "sqlite"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for the log."""
    return tmp_path


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for lost runs every few milliseconds."""
    monkeypatch.setattr(lost, "LOST_SECONDS", 0.01)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never look for lost runs."""

    async def watch(_: LostRuns) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(LostRuns, "watch", watch)


async def leave_behind(stage: Stage, *threads: str) -> list[str]:
    """Write what another process wrote of a run in each thread; return the runs."""
    for thread in threads:
        key = RunKey(tenant="acme", user="alice", thread=thread, run=f"r-{thread}", agent="agent")
        run = Run(key, history=[], new_id=lambda: "id")
        events = run.begin({"messages": [{"id": "u1", "role": "user", "content": "hello"}]})
        fact = RunOpened(key=key, title="", thread_offset=0, at=stage.now)
        first = Append(key.channel, items_of([*events, *run.feed("so ")]), fence=True)
        await write(stage.broker, Write((first, notice(run, "towpath.run.started")), (fact,)))
    return [f"r-{thread}" for thread in threads]


def another(stage: Stage, ended: list[str]) -> LostRuns:
    """Return what a process would use that knows nothing of the runs in progress here."""
    return LostRuns(stage.service._deps, ActiveRuns(), lambda key: ended.append(key.run))


def faults(stage: Stage) -> list[str]:
    found = (one for one in stage.happened if isinstance(one, telemetry.InternalError))
    return [f"{one.where}: {type(one.error).__name__}" for one in found]


def endings(stage: Stage) -> list[tuple[str, str]]:
    """Return what observers were told: run and status."""
    found = (one for one in stage.happened if isinstance(one, telemetry.RunEnded))
    return [(one.run, one.status) for one in found]


async def test_p5_r92_each_run_left_behind_gets_its_one_ending(kind: str, directory: Path) -> None:
    """It is `run.lost`, with all that the run has said, and everybody is told once."""
    threads = [f"t{n}" for n in range(2 * AT_ONCE + 1)]
    async with staged(kind, directory, enter=False) as stage:
        runs = await leave_behind(stage, *threads)
        async with stage.service:
            for run in runs:
                await stage.done(run)
        for thread in threads:
            assert [one["type"] for one in await stage.events(thread)] == [
                "RUN_STARTED",
                "TEXT_MESSAGE_START",
                "TEXT_MESSAGE_CONTENT",
                "RUN_ERROR",
            ]
            assert (await stage.events(thread))[-1]["code"] == "run.lost"
            await stage.check(thread)
        assert sorted(endings(stage)) == sorted((run, "lost") for run in runs)
        assert [name for name, _ in await stage.notices()].count("towpath.run.ended") == len(runs)


async def test_p5_endings_of_lost_runs_are_submitted_together(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So they share commits; no more are read back and submitted at once than `AT_ONCE`."""
    if kind == "memory":
        return  # It answers each write at once.
    reading = submitted = 0
    most = {"reading": 0, "submitted": 0}
    read_back = executor.read_back

    async def counted(*given: Any) -> Any:
        nonlocal reading
        reading += 1
        most["reading"] = max(most["reading"], reading)
        try:
            return await read_back(*given)
        finally:
            reading -= 1

    monkeypatch.setattr(lost, "read_back", counted)
    async with staged(kind, directory, enter=False) as stage:
        runs = await leave_behind(stage, *(f"t{n}" for n in range(2 * AT_ONCE)))
        submit = stage.broker.submit

        def submitting(what: Write) -> "asyncio.Future[Written]":
            nonlocal submitted
            submitted += 1
            most["submitted"] = max(most["submitted"], submitted)
            future = submit(what)
            future.add_done_callback(over)
            return future

        def over(_: "asyncio.Future[Written]") -> None:
            nonlocal submitted
            submitted -= 1

        monkeypatch.setattr(stage.broker, "submit", submitting)
        async with stage.service:
            for run in runs:
                await stage.done(run)
    assert most == {"reading": AT_ONCE, "submitted": AT_ONCE}


@pytest.mark.usefixtures("often")
async def test_p5_a_run_in_progress_is_not_lost(kind: str, directory: Path) -> None:
    """However often lost runs are looked for, a run with an executor here has its own ending."""
    go = asyncio.Event()
    async with staged(kind, directory) as stage:
        run = await stage.cast(waiting("so", until=go)).start()
        await stage.logged(3)
        for _ in range(5):
            await stage.service._lost.end()
        go.set()
        await stage.done(run)
        await stage.check()
        assert endings(stage) == [(run, "finished")]


async def test_p5_a_run_that_is_being_opened_is_not_lost(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first event is in the log, and its executor is not there yet: it is left alone."""
    async with staged(kind, directory) as stage:
        submit, stored, go = stage.broker.submit, asyncio.Event(), asyncio.Event()

        def late(what: Write) -> "asyncio.Future[Written]":
            async def answer() -> Written:
                written = await submit(what)
                stored.set()
                await go.wait()
                return written

            return asyncio.ensure_future(answer())

        monkeypatch.setattr(stage.broker, "submit", late)
        starting = asyncio.create_task(stage.cast(saying("so")).start())
        await stored.wait()
        monkeypatch.setattr(stage.broker, "submit", submit)
        assert len(await stage.store.unfinished()) == 1
        await stage.service._lost.end()
        assert [one["type"] for one in await stage.events()] == ["RUN_STARTED"]
        go.set()
        run = await starting
        await stage.done(run)
        await stage.check()
        assert endings(stage) == [(run, "finished")]


async def test_p5_r92_a_run_that_ended_meanwhile_is_left_alone(kind: str, directory: Path) -> None:
    """Whoever saw it unfinished writes nothing, be a newer run active in its thread or not."""
    ended: list[str] = []
    async with staged(kind, directory) as stage:
        go = asyncio.Event()
        run = await stage.cast(waiting("so", until=go)).start()
        seen = await stage.store.unfinished()
        go.set()
        await stage.done(run)
        log = await stage.log()
        assert await another(stage, ended)._end_together(seen) == [True]
        assert await stage.log() == log
        newer = await stage.cast(waiting("new"), "newer").start(agent="newer")
        await stage.logged(len(log) + 3)
        log = await stage.log()
        assert await another(stage, ended)._end_together(seen) == [True]
        assert await stage.log() == log
        assert [one.key.run for one in await stage.store.unfinished()] == [newer]
        await stage.service.cancel(ALICE, newer)
        await stage.done(newer)
        await stage.check()
        assert ended == []
        assert endings(stage) == [(run, "finished"), (newer, "cancelled")]


async def test_p5_r92_two_that_end_a_lost_run_write_one_ending(kind: str, directory: Path) -> None:
    """Two tasks read the run back at once: one of them writes its ending."""
    ended: list[str] = []
    async with staged(kind, directory, enter=False) as stage:
        (run,) = await leave_behind(stage, "t1")
        await asyncio.gather(another(stage, ended).end(), another(stage, ended).end())
        await stage.check()
        assert ended == [run]
        assert endings(stage) == [(run, "lost")]


async def test_p5_r92_a_run_that_another_ended_says_no_more(kind: str, directory: Path) -> None:
    """What its agent says late is refused, its own ending too; a stop comes too late."""
    left, go, ended = asyncio.Event(), asyncio.Event(), list[str]()
    async with staged(kind, directory) as stage:
        stage.cast(waiting("so", then=left.set, until=go))
        runs = {thread: await stage.start(thread) for thread in ("talks", "stopped")}
        for thread in runs:
            await stage.logged(3, thread)
        await another(stage, ended).end()
        assert sorted(ended) == sorted(runs.values())
        logs = {thread: await stage.log(thread) for thread in runs}
        assert await stage.service.cancel(ALICE, runs["stopped"]) == "too_late"
        go.set()
        await asyncio.wait_for(left.wait(), 5)
        for thread, run in runs.items():
            await stage.done(run)
            assert await stage.log(thread) == logs[thread], "nothing is said after the ending"
            assert (await stage.events(thread))[-1]["code"] == "run.lost"
            record = await stage.store.find_run("acme", "alice", run)
            assert record is not None
            assert (record.status.value, record.code) == ("lost", "run.lost")
            await stage.check(thread)
        assert sorted(endings(stage)) == sorted((run, "lost") for run in runs.values())


async def test_r92_late_words_meet_no_newer_run(kind: str, directory: Path) -> None:
    """A dead producer's words are refused though the offsets fit, in a newer run too."""
    async with staged(kind, directory) as stage:
        run = await stage.cast(waiting("so")).start()
        await stage.logged(3)
        (old,) = stage.service._active
        await another(stage, []).end()
        stage.cast(saying("new"), "newer")
        await stage.done(await stage.start(agent="newer"))
        newest = await stage.cast(waiting("newest"), "newest").start(agent="newest")

        async def says_something() -> bool:
            return (await stage.events())[-1].get("delta") == "newest"

        await eventually(says_something)
        log = await stage.log()
        channel = thread_channel("acme", "alice", "t1")
        late = Append(channel, (Item(b"{}", {}),), after=len(log), fencing_offset=old._fence)
        with pytest.raises(StorageError):
            await write(stage.broker, Write((late,)))
        assert await stage.log() == log
        assert await stage.service.cancel(ALICE, newest) == "accepted"
        assert await stage.service.cancel(ALICE, run) == "too_late"
        await stage.done(run)
        await stage.check()


async def test_r93_what_waits_is_not_lost(kind: str, directory: Path) -> None:
    """Runs that wait for a person or for their turn are not found, however old they are."""
    question = {"id": "q1", "reason": "confirmation"}
    ending = {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": [question]}}
    ended: list[str] = []
    async with staged(kind, directory) as stage:
        stage.cast(saying(ending), "asks")
        await stage.done(await stage.start(agent="asks"))
        stage.cast(waiting("so"), "slow", double_texting="queue")
        active = await stage.start("t2", agent="slow")
        queued = await stage.start("t2", agent="slow")
        await another(stage, ended).end()
        assert ended == [active]
        record = await stage.store.find_run("acme", "alice", queued)
        assert record is not None
        assert record.status.value == "pending"
        (interrupt,) = await stage.store.last_interrupts("acme", "alice", "t1")
        assert interrupt.status.value == "open"


@pytest.mark.usefixtures("often")
async def test_p5_r53_a_start_does_not_wait_for_a_log_that_refuses(
    kind: str, directory: Path
) -> None:
    """The service opens all the same, says so, and ends what was left as soon as it can."""
    async with staged(kind, directory, enter=False) as stage:
        (run,) = await leave_behind(stage, "t1")
        before = await stage.log()
        stage.broker.broken = True
        async with stage.service:
            await eventually(stage.broker.refused_thrice)
            assert set(faults(stage)) == {"lost runs: StorageError"}
            assert await stage.log() == before
            stage.broker.broken = False
            await stage.done(run)
            assert (await stage.events())[-1]["code"] == "run.lost"
            await stage.check()
            await stage.done(await stage.cast(saying("hello")).start())


async def test_r92_nothing_waits_for_the_endings_of_other_threads(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While lost runs are still read back, the service is open and runs go on elsewhere."""
    go, read_back = asyncio.Event(), executor.read_back

    async def slow(*given: Any) -> Any:
        await go.wait()
        return await read_back(*given)

    monkeypatch.setattr(lost, "read_back", slow)
    async with staged(kind, directory, enter=False) as stage:
        runs = await leave_behind(stage, "t1", "t2")
        async with stage.service:
            await stage.done(await stage.cast(saying("hello")).start("elsewhere"))
            assert {one.key.run for one in await stage.store.unfinished()} == set(runs)
            go.set()
            for run in runs:
                await stage.done(run)


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("policy", ["reject", "queue", "interrupt"])
async def test_p5_r92_a_start_waits_for_the_lost_run_of_its_thread(
    kind: str, directory: Path, policy: str
) -> None:
    """The lost run is ended first, whatever the agent's policy; those of other threads wait."""
    async with staged(kind, directory, enter=False) as stage:
        lost_here, lost_there = await leave_behind(stage, "t1", "t2")
        async with stage.service:
            run = await stage.cast(saying("new"), double_texting=policy).start("t1")
            await stage.done(run)
        starts = [one["runId"] for one in await stage.events() if one["type"] == "RUN_STARTED"]
        assert starts == [lost_here, run]
        assert endings(stage) == [(lost_here, "lost"), (run, "finished")]
        await stage.check()
        assert [one.key.run for one in await stage.store.unfinished()] == [lost_there]


@pytest.mark.usefixtures("never")
async def test_a_start_waits_no_longer_than_a_client(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the lost run of the thread cannot be ended in time, the start may be tried again."""

    async def endless(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(lost, "read_back", endless)
    limits = replace(QUICK, ending_seconds=0.02)
    async with staged(kind, directory, limits=limits, enter=False) as stage:
        await leave_behind(stage, "t1")
        async with stage.service:
            with pytest.raises(Unavailable):
                await stage.cast(saying("new")).start("t1")


async def test_r91_the_next_in_the_queue_begins_after_a_lost_run(
    kind: str, directory: Path
) -> None:
    """A run that waits for a run that is lost has its turn."""
    request = RunRequest(request_id="q", agent="agent", thread_id="t1", message="hello")
    request = request.with_ids(lambda: "waits")
    queued = QueuedRequest(request=request, messages=request.messages, roles=[])
    async with staged(kind, directory, enter=False) as stage:
        stage.cast(saying("so"), double_texting="queue")
        (run,) = await leave_behind(stage, "t1")
        fact = RunQueued(
            key=request.run_key(ALICE), request=msgspec.json.encode(queued), at=stage.now
        )
        await write(stage.broker, Write(facts=(fact,)))
        async with stage.service:
            await stage.done("waits")
        assert endings(stage) == [(run, "lost"), ("waits", "finished")]


@pytest.mark.usefixtures("often")
async def test_p5_a_run_that_cannot_be_ended_stops_no_other(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported once for each reason, not at each attempt; the others get their endings."""
    attempts, real = 0, projection._close_run

    def close(db: Any, fact: RunClosed, span: Any) -> None:
        nonlocal attempts
        if fact.key.thread == "t0":
            attempts += 1
            raise NotFound("its row is damaged")
        real(db, fact, span)

    async def tried_often() -> bool:
        return attempts > 6

    monkeypatch.setattr(projection, "_close_run", close)
    async with staged(kind, directory, enter=False) as stage:
        stuck, *others = await leave_behind(stage, "t0", "t1", "t2")
        async with stage.service:
            await eventually(tried_often)
            for run in others:
                await stage.done(run)
        assert [one.key.run for one in await stage.store.unfinished()] == [stuck]
        assert faults(stage) == ["lost runs: NotFound"]
