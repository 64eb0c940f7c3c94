"""Who holds a run, how long, and how one that nobody holds gets its one ending."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs.stage import ALICE, QUICK, Stage, eventually, saying, staged, waiting
from towpath import telemetry
from towpath.channels import thread_channel
from towpath.errors import StorageError
from towpath.log.broker import Append, Item, Write, write
from towpath.runs.leases import ActiveRuns, Leases
from towpath.runs.model import RunKey, RunOpened
from towpath.runs.publications import items_of
from towpath.runs.run import Run

pytestmark = pytest.mark.parametrize("kind", ["memory", "sqlite"])

KEY = RunKey(tenant="acme", user="alice", thread="t1", run="r1", agent="agent")
BRISK = replace(QUICK, lease_seconds=0.03)
"""A beat is 10 ms; what the clock of the stage says is another matter."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for the log."""
    return tmp_path


def another(stage: Stage, ended: list[str]) -> Leases:
    """Return what another node would look after leases with."""
    deps = replace(stage.service._deps, holder="another")
    return Leases(deps, ActiveRuns(), lambda key: ended.append(key.run))


def fall_silent(stage: Stage) -> None:
    """Let the service renew no lease any more, as if its process hung."""
    assert stage.service._renewing is not None
    stage.service._renewing.cancel()


async def held(stage: Stage) -> list[tuple[str, float]]:
    """Return all leases: run and expiry."""
    rows = await stage.broker.query(
        lambda db: db.execute("SELECT run, expires FROM leases ORDER BY run").fetchall()
    )
    return [(str(run), float(expires)) for run, expires in rows]


async def test_a_run_is_held_as_long_as_it_goes_on(kind: str, directory: Path) -> None:
    """Its lease is a beat shorter than the promise, moves with each beat, and ends with it."""
    go = asyncio.Event()
    async with staged(kind, directory, limits=BRISK) as stage:
        run = await stage.cast(waiting("so", until=go)).start()
        ((who, expires),) = await held(stage)
        assert (who, round(expires, 6)) == (run, stage.now + 0.02)
        stage.now += 500.0

        async def renewed() -> bool:
            return [round(expires, 6) for _, expires in await held(stage)] == [stage.now + 0.02]

        await eventually(renewed)
        assert await stage.store.abandoned(stage.now) == []
        assert [one.key.run for one in await stage.store.abandoned(stage.now + 0.03)] == [run]
        go.set()
        await stage.done(run)
        await stage.check()
        assert await held(stage) == []
        (ended,) = [one for one in stage.happened if isinstance(one, telemetry.RunEnded)]
        assert ended.status == "finished"


async def test_p5_r92_a_silent_holder_loses_its_run(kind: str, directory: Path) -> None:
    """Once the lease is over somebody else ends the run, once; what is said late is refused."""
    left, go, ended = asyncio.Event(), asyncio.Event(), list[str]()
    async with staged(kind, directory, limits=BRISK) as stage:
        fall_silent(stage)
        run = await stage.cast(waiting("so", then=left.set, until=go)).start()
        await stage.logged(3)
        await another(stage, ended).renew()
        assert ended == [], "the lease holds"
        stage.now += 1.0
        await asyncio.gather(another(stage, ended).renew(), another(stage, ended).renew())
        assert ended == [run]
        log = await stage.log()
        assert (await stage.events())[-1]["code"] == "run.lost"
        go.set()
        await asyncio.wait_for(left.wait(), 5)
        await stage.done(run)
        assert await stage.log() == log, "nothing is said after the ending"
        record = await stage.store.find_run("acme", "alice", run)
        assert record is not None
        assert (record.status.value, record.code) == ("lost", "run.lost")
        ends = [one.status for one in stage.happened if isinstance(one, telemetry.RunEnded)]
        assert ends == ["lost"], "it is told once, as it is"
        await stage.check()


async def test_r92_late_words_meet_no_newer_run(kind: str, directory: Path) -> None:
    """A dead producer's words are refused though the offsets fit, in a newer run too."""
    async with staged(kind, directory, limits=BRISK) as stage:
        fall_silent(stage)
        run = await stage.cast(waiting("so")).start()
        await stage.logged(3)
        (executor,) = stage.service._active
        stage.now += 1.0
        await another(stage, []).renew()
        stage.cast(saying("new"), "newer")
        await stage.done(await stage.start(agent="newer"))
        fork = stage.cast(waiting("newest"), "newest")
        newest = await fork.start(agent="newest")
        await stage.logged(len(await stage.log()))
        channel = thread_channel("acme", "alice", "t1")

        async def says_something() -> bool:
            return (await stage.events())[-1].get("delta") == "newest"

        await eventually(says_something)
        log = await stage.log()
        late = Append(channel, (Item(b"{}", {}),), after=len(log), fencing_offset=executor._fence)
        with pytest.raises(StorageError):
            await write(stage.broker, Write((late,)))
        assert await stage.log() == log
        assert await stage.service.cancel(ALICE, newest) == "accepted"
        await stage.service._leases.renew()
        await stage.done(run)
        await stage.check()


async def test_a_holder_that_comes_back_lets_its_agent_go(kind: str, directory: Path) -> None:
    """An agent that says nothing is stopped at the next beat of a holder that lost the run."""
    left = asyncio.Event()
    async with staged(kind, directory, limits=BRISK) as stage:
        fall_silent(stage)
        run = await stage.cast(waiting("so", then=left.set)).start()
        await stage.logged(3)
        stage.now += 1.0
        await another(stage, []).renew()
        assert not left.is_set()
        await stage.service._leases.renew()
        await asyncio.wait_for(left.wait(), 5)
        await stage.done(run)
        assert await stage.service.cancel(ALICE, run) == "too_late"
        await stage.check()


async def test_p5_a_stop_that_comes_too_late_says_so(kind: str, directory: Path) -> None:
    """Where somebody else has ended the run, a stop here is too late, and the log is right."""
    async with staged(kind, directory, limits=BRISK) as stage:
        fall_silent(stage)
        run = await stage.cast(waiting("so")).start()
        await stage.logged(3)
        stage.now += 1.0
        await another(stage, []).renew()
        assert await stage.service.cancel(ALICE, run) == "too_late"
        await stage.done(run)
        assert (await stage.events())[-1]["code"] == "run.lost"
        await stage.check()


async def test_r93_what_waits_is_held_by_nobody(kind: str, directory: Path) -> None:
    """Runs that wait for a person or for their turn have no lease, so no sweep finds them."""
    question = {"id": "q1", "reason": "confirmation"}
    ending = {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": [question]}}
    ended: list[str] = []
    async with staged(kind, directory, limits=BRISK) as stage:
        stage.cast(saying(ending), "asks")
        await stage.done(await stage.start(agent="asks"))
        stage.cast(waiting("so"), "slow", double_texting="queue")
        active = await stage.start("t2", agent="slow")
        queued = await stage.start("t2", agent="slow")
        assert [run for run, _ in await held(stage)] == [active]
        fall_silent(stage)
        stage.now += 1e6
        await another(stage, ended).renew()
        assert ended == [active]
        record = await stage.store.find_run("acme", "alice", queued)
        assert record is not None
        assert record.status.value in ("pending", "running")
        (interrupt,) = await stage.store.last_interrupts("acme", "alice", "t1")
        assert interrupt.status.value == "open"


async def test_p5_r53_a_start_does_not_wait_for_a_log_that_refuses(
    kind: str, directory: Path
) -> None:
    """The service opens all the same, says so, and ends what was left as soon as it can."""
    async with staged(kind, directory, limits=BRISK, enter=False) as stage:
        await write(stage.broker, opened(stage))
        stage.broker.broken = True
        async with stage.service:
            assert [
                one.where for one in stage.happened if isinstance(one, telemetry.InternalError)
            ] == ["leases"]
            assert [event["type"] for event in await stage.events()] == ["RUN_STARTED"]
            stage.now += 1.0
            stage.broker.broken = False
            await stage.done("r1")
            assert (await stage.events())[-1]["code"] == "run.lost"
            await stage.check()
            await stage.done(await stage.cast(saying("hello")).start())


def opened(stage: Stage) -> Write:
    """Return the write by which another process began a run."""
    run = Run(KEY, history=[], new_id=lambda: "id")
    made = run.begin({"messages": []})
    fact = RunOpened(
        key=KEY,
        title="",
        thread_offset=0,
        at=stage.now,
        holder="dead",
        lease=stage.now + 0.5,
    )
    channel = thread_channel("acme", "alice", "t1")
    return Write((Append(channel, items_of(made), fence=True),), (fact,))
