"""Asked twice: a second run on a busy thread is refused, waits, or takes the first one's place."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runs.stage import ALICE, BOB, Stage, eventually, saying, staged, waiting
from towpath import codes
from towpath.agents.agent import AgentInput
from towpath.channels import thread_channel, user_channel
from towpath.errors import Conflict, LimitExceeded, NotFound, Unavailable
from towpath.events.types import TERMINAL
from towpath.log.broker import Write, Written, write
from towpath.runs.deps import RunLimits
from towpath.runs.model import MAX_QUEUED, RunKey, RunQueued, ThreadDeleted, ThreadKey
from towpath.runs.requests import Decided, Decision, RunRequest
from towpath.telemetry import InternalError, RunEnded

ENGINES = ("memory", "sqlite")
POLICIES = ("reject", "queue", "interrupt")
KEY = ThreadKey(tenant="acme", user="alice", id="t1")
ASKS = {"id": "q1", "reason": "confirmation"}


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """One of the engines."""
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a log may live."""
    return tmp_path


class Desk:
    """Agents, one for each policy, whose runs go on until they are let go by what was asked."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.begun: list[str] = []
        self.left: list[str] = []
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        for policy in POLICIES:
            stage.cast(self._agent, policy, double_texting=policy)

    async def ask(self, message: str, policy: str = "queue", **request: Any) -> str:
        """Start a run and return its id."""
        return await self.stage.start(agent=policy, message=message, **request)

    def abandon(self, *messages: str) -> None:
        """Let runs end."""
        for message in messages:
            self._gates[message].set()

    async def under_way(self, message: str) -> None:
        """Wait until the agent was asked this."""

        async def begun() -> bool:
            return message in self.begun

        await eventually(begun)

    async def _agent(self, request: AgentInput) -> AsyncGenerator[object, None]:
        """Repeat what it was asked, and wait to be let go."""
        self.begun.append(request.message)
        try:
            yield request.message
            await self._gates[request.message].wait()
            yield "."
        finally:
            self.left.append(request.message)


async def played(stage: Stage, thread: str = "t1") -> list[tuple[str, str]]:
    """Return a thread's runs in the order of their beginnings, and how each ended.

    Checks that no run begins before the one before it has ended.
    """
    runs: list[tuple[str, str]] = []
    active: str | None = None
    for one in await stage.log(thread):
        event = msgspec.json.decode(one.data)
        if event["type"] == "RUN_STARTED":
            assert active is None, "two runs are active"
            active = event["runId"]
        assert one.tags["run"] == active, "nothing is said outside of a run"
        if event["type"] in TERMINAL:
            runs.append((active, event["code"] if "code" in event else event["outcome"]["type"]))
            active = None
    assert active is None, "a run has no ending"
    return runs


async def accepted(stage: Stage) -> list[str]:
    """Return the runs of alice's in the order in which they were accepted, by what she was told."""
    replay = await stage.broker.read(user_channel("acme", "alice"), 0)
    notices = (msgspec.json.decode(one.data) for one in replay.publications)
    names = ("towpath.run.queued", "towpath.run.started")
    return list(dict.fromkeys(one["value"]["run_id"] for one in notices if one["name"] in names))


async def status(stage: Stage, run: str) -> str:
    record = await stage.store.find_run("acme", "alice", run)
    assert record is not None
    return record.status.value


async def line_up(stage: Stage, *runs: str, agent: str = "queue", thread: str = "t1") -> None:
    """Let runs wait of which no service knows yet: the moment between one run and the next."""

    async def nobody_looks() -> bool:
        return not stage.service._queue._advancing

    await eventually(nobody_looks)
    for run in runs:
        key = RunKey(tenant="acme", user="alice", thread=thread, run=run, agent=agent)
        message = {"id": f"m-{run}", "role": "user", "content": run}
        request = RunRequest(request_id=run, agent=agent, thread_id=thread, message=run, run_id=run)
        stored = {"asked": request, "messages": [message], "roles": []}
        fact = RunQueued(key=key, request=msgspec.json.encode(stored), at=1_000.0)
        await write(stage.broker, Write(facts=(fact,)))


# Reject


async def test_r91_reject_begins_nothing(kind: str, directory: Path) -> None:
    """A second start is answered 409: no run, no event, no notice, and the first goes on."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        first = await desk.ask("one", "reject")
        await stage.logged(3)
        before = await stage.log(), await stage.notices()
        with pytest.raises(Conflict) as refused:
            await desk.ask("two", "reject")
        assert refused.value.code is codes.CONFLICT
        assert (await stage.log(), await stage.notices()) == before
        desk.abandon("one")
        await stage.done(first)
        assert await played(stage) == [(first, "success")]
        assert desk.begun == ["one"]
        await stage.check()


async def test_r91_reject_counts_those_that_wait(kind: str, directory: Path) -> None:
    """An agent that rejects does not overtake runs that wait, active run or none."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        await desk.ask("one")
        two = await desk.ask("two")
        with pytest.raises(Conflict):
            await desk.ask("three", "reject")
        desk.abandon("one", "two")
        await stage.done(two)
        await line_up(stage, "four")
        with pytest.raises(Conflict):
            await desk.ask("five", "reject")
        desk.abandon("four", "six")
        six = await desk.ask("six")
        await stage.done(six)
        assert desk.begun == ["one", "two", "four", "six"]
        await stage.check()


# Interrupt


async def test_r91_interrupt_ends_the_old_run_first(kind: str, directory: Path) -> None:
    """The old run ends as cancelled before the new RUN_STARTED, and its agent is stopped."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        old = await desk.ask("old", "interrupt")
        await stage.logged(3)
        new = await desk.ask("new", "interrupt")
        desk.abandon("new")
        await stage.done(new)
        await stage.done(old)
        assert await played(stage) == [(old, "cancelled"), (new, "success")]
        assert desk.left == ["old", "new"]
        assert await status(stage, old) == "cancelled"
        await stage.check()


async def test_r91_it_is_the_new_runs_agent_that_decides(kind: str, directory: Path) -> None:
    """An agent that interrupts does so to any run; one that rejects is interrupted by others."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        old = await desk.ask("old", "reject")
        new = await desk.ask("new", "interrupt")
        waits = await desk.ask("waits", "queue")
        desk.abandon("new", "waits")
        await stage.done(waits)
        await stage.done(old)
        expected = [(old, "cancelled"), (new, "success"), (waits, "success")]
        assert await played(stage) == expected
        await stage.check()


async def test_r91_ten_at_once_leave_one(kind: str, directory: Path) -> None:
    """Of ten starts at once one run finishes; all others are cancelled, each with one ending."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        names = [f"{n}" for n in range(10)]
        runs = await asyncio.gather(*(desk.ask(name, "interrupt") for name in names))
        last = (await accepted(stage))[-1]
        desk.abandon(*names)
        for run in runs:
            await stage.done(run)
        endings = await played(stage)
        assert sorted(run for run, _ in endings) == sorted(runs)
        assert [how for _, how in endings] == ["cancelled"] * 9 + ["success"]
        assert endings[-1][0] == last
        await stage.check()


async def test_r91_interrupt_sees_past_an_agent_that_tidies_up(kind: str, directory: Path) -> None:
    """A run that has ended but whose agent has not left does not hide the active one."""
    async with staged(kind, directory, limits=RunLimits(cleanup_seconds=5.0)) as stage:
        desk = Desk(stage)
        go = asyncio.Event()

        async def slow(request: AgentInput) -> AsyncGenerator[object, None]:
            try:
                yield "a"
                await asyncio.Event().wait()
            finally:
                await go.wait()

        stage.cast(slow, "slow")
        first = await desk.ask("first", "slow")
        await stage.logged(3)
        second = await desk.ask("second", "interrupt")
        third = await desk.ask("third", "interrupt")
        desk.abandon("third")
        go.set()
        for run in (first, second, third):
            await stage.done(run)
        expected = [(first, "cancelled"), (second, "cancelled"), (third, "success")]
        assert await played(stage) == expected


async def test_r91_interrupt_cancels_what_waits_too(kind: str, directory: Path) -> None:
    """What was asked before and waits is cancelled in its order; then the new run begins."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        earlier = [await desk.ask(f"{n}") for n in range(MAX_QUEUED + 1)]
        new = await desk.ask("new", "interrupt")
        desk.abandon("new")
        await stage.done(new)
        await stage.done(earlier[0])
        expected = [*((run, "cancelled") for run in earlier), (new, "success")]
        assert await played(stage) == expected
        assert desk.begun == ["0", "new"]
        await stage.check()


async def test_r91_two_interrupt_what_only_waits(kind: str, directory: Path) -> None:
    """Where runs wait and none is active, two interrupting starts do not wait for each other."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        await stage.done(await stage.cast(saying("a")).start())
        await line_up(stage, "w1", "w2")
        desk.abandon("a", "b")
        async with asyncio.timeout(5):
            runs = await asyncio.gather(desk.ask("a", "interrupt"), desk.ask("b", "interrupt"))
        for run in runs:
            await stage.done(run)
        endings = dict(await played(stage))
        assert (endings["w1"], endings["w2"]) == ("cancelled", "cancelled")
        assert desk.begun[-1] in ("a", "b")
        await stage.check()


async def test_r91_a_start_that_is_refused_interrupts_nothing(kind: str, directory: Path) -> None:
    """A run id that is taken is refused before anything is cancelled for it."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        run = await desk.ask("one", "interrupt", run_id="mine")
        with pytest.raises(Conflict):
            await desk.ask("two", "interrupt", run_id="mine")
        assert await status(stage, run) == "running"
        desk.abandon("one")
        await stage.done(run)
        assert await played(stage) == [("mine", "success")]


async def test_r81_interrupting_twice_with_one_id_is_one_run(kind: str, directory: Path) -> None:
    """The same request again, at once or later, is the same run and interrupts nothing."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        await desk.ask("old", "interrupt")
        twins = await asyncio.gather(
            *(desk.ask("new", "interrupt", request_id="same") for _ in range(3))
        )
        assert len(set(twins)) == 1
        assert await desk.ask("new", "interrupt", request_id="same") == twins[0]
        assert await status(stage, twins[0]) == "running"
        desk.abandon("new")
        await stage.done(twins[0])
        assert [how for _, how in await played(stage)] == ["cancelled", "success"]
        assert desk.begun == ["old", "new"]


async def test_r91_other_threads_and_people_are_left_alone(kind: str, directory: Path) -> None:
    """Interrupting and queueing concern one thread of one person."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        theirs = await desk.ask("theirs", "interrupt", who=BOB)
        other = await desk.ask("other", "interrupt", thread="t2")
        await desk.ask("old", "interrupt")
        await desk.ask("new", "interrupt")
        await desk.ask("waits", "queue", who=BOB)
        record = await stage.store.find_run("acme", "bob", theirs)
        assert record is not None
        assert record.status.value == "running"
        assert await status(stage, other) == "running"
        assert await stage.store.queued("acme", "alice", "t1") == []


# Queue


async def test_r91_queue_waits_for_its_turn(kind: str, directory: Path) -> None:
    """Runs begin in the order in which they came, each after the one before it has ended."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        names = [f"{n}" for n in range(6)]
        runs = [await desk.ask(name) for name in names]
        for name in names:
            await desk.under_way(name)
            assert len(await stage.store.unfinished()) == 1
            desk.abandon(name)
        await stage.done(runs[-1])
        assert await played(stage) == [(run, "success") for run in runs]
        assert desk.begun == names
        await stage.check()


async def test_r91_a_queued_run_is_told_of(kind: str, directory: Path) -> None:
    """`run.get` shows it as pending, a notice tells other devices, nobody takes it for active."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        first = await desk.ask("one")
        second = await desk.ask("two")
        assert await status(stage, second) == "pending"
        (row,) = await stage.store.threads("acme", "alice", limit=9)
        assert row.active_run == first
        shown = await stage.store.runs("acme", "alice", "t1", limit=9)
        assert {one.run_id: one.status for one in shown} == {first: "running", second: "pending"}
        desk.abandon("one", "two")
        await stage.done(second)
        assert await status(stage, second) == "finished"
        notices = await stage.notices()
        assert notices[:2] == [
            ("towpath.run.started", "running"),
            ("towpath.run.queued", "pending"),
        ]
        assert sorted(notices[2:]) == [
            ("towpath.run.ended", "finished"),
            ("towpath.run.ended", "finished"),
            ("towpath.run.started", "running"),
        ]


async def test_r91_the_position_of_a_queued_run_misses_nothing(kind: str, directory: Path) -> None:
    """From its position on come the rest of the active run and then all of its own."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        first = await desk.ask("one")
        await stage.logged(3)
        request = RunRequest(request_id="r", agent="queue", thread_id="t1", message="two")
        result = await stage.service.start(ALICE, request)
        desk.abandon("one", "two")
        await stage.done(result.run_id)
        position = result.position
        channel = thread_channel("acme", "alice", "t1")
        tail = await stage.broker.read(channel, position.offset, epoch=position.epoch)
        assert not tail.gone
        runs = [one.tags["run"] for one in tail.publications]
        split = runs.index(result.run_id)
        assert runs[:split] == [first] * split
        assert split > 0
        kinds = [msgspec.json.decode(one.data)["type"] for one in tail.publications]
        assert kinds[split] == "RUN_STARTED"
        assert kinds[split - 1] == "RUN_FINISHED"


async def test_r91_the_answer_does_not_wait_for_the_turn(kind: str, directory: Path) -> None:
    """A queued run is accepted at once, also when the log refuses everything after it."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        await line_up(stage, "first")
        submit = stage.broker.submit

        def breaks_after(what: Write) -> "asyncio.Future[Written]":
            future = submit(what)
            stage.broker.broken |= any(isinstance(fact, RunQueued) for fact in what.facts)
            return future

        stage.broker.submit = breaks_after  # type: ignore[method-assign, assignment]
        async with asyncio.timeout(5):
            run = await desk.ask("two")
        assert await status(stage, run) == "pending"
        await eventually(stage.broker.refused_thrice)
        stage.broker.broken = False
        desk.abandon("first", "two")
        await stage.done(run)
        assert await played(stage) == [("first", "success"), (run, "success")]
        assert {one.where for one in stage.happened if isinstance(one, InternalError)} == {"queue"}


async def test_r91_the_queue_is_bounded(kind: str, directory: Path) -> None:
    """Sixteen runs may wait for a thread; the next is refused with 106, and leaves no trace."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        names = [f"{n}" for n in range(MAX_QUEUED + 1)]
        runs = [await desk.ask(name) for name in names]
        notices = await stage.notices()
        with pytest.raises(LimitExceeded) as refused:
            await desk.ask("too many", request_id="again")
        assert refused.value.code.number == 106
        assert await stage.notices() == notices
        desk.abandon(names[0])
        await desk.under_way(names[1])
        runs.append(await desk.ask("too many", request_id="again"))
        desk.abandon(*names, "too many")
        await stage.done(runs[-1])
        assert await played(stage) == [(run, "success") for run in runs]
        await stage.check()


async def test_r81_the_same_request_waits_once(kind: str, directory: Path) -> None:
    """Asked again (at once, while it waits, after its end) it is the same run, and runs once."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        await desk.ask("one")
        request = RunRequest(request_id="same", agent="queue", thread_id="t1", message="two")
        answers = await asyncio.gather(*(stage.service.start(ALICE, request) for _ in range(4)))
        assert answers == answers[:1] * 4
        assert len(await stage.store.queued("acme", "alice", "t1")) == 1
        assert await stage.service.start(ALICE, request) == answers[0]
        with pytest.raises(Conflict):
            await desk.ask("something else", request_id="same")
        desk.abandon("one", "two")
        await stage.done(answers[0].run_id)
        assert await stage.service.start(ALICE, request) == answers[0]
        assert desk.begun == ["one", "two"]
        await stage.check()


async def test_r91_a_run_id_that_is_taken_does_not_wait(kind: str, directory: Path) -> None:
    """A queued start with the id of another run of that person is 409, and harms no other write."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        await desk.ask("one", run_id="r1")
        await desk.ask("two", run_id="r2")
        for taken in ("r1", "r2"):
            other = write(stage.broker, Write())
            refused, fine = await asyncio.gather(
                desk.ask("three", run_id=taken), other, return_exceptions=True
            )
            assert isinstance(refused, Conflict)
            assert isinstance(fine, Written)
        desk.abandon("one", "two")
        await stage.done("r2")
        assert await played(stage) == [("r1", "success"), ("r2", "success")]


async def test_a_queued_run_sees_what_was_said_before_it(kind: str, directory: Path) -> None:
    """Its agent gets the conversation as it is when it begins, and the roles of who asked."""
    seen: list[tuple[list[str], frozenset[str]]] = []

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        seen.append(([one["content"] for one in request.messages], request.context.roles))
        yield f"re {request.message}"

    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        stage.cast(agent, double_texting="queue")
        await desk.ask("one")
        who = type(ALICE)(tenant="acme", user="alice", roles=frozenset({"b", "a"}))
        runs = [await stage.start(message=name, who=who) for name in ("two", "three")]
        desk.abandon("one")
        await stage.done(runs[-1])
    roles = frozenset({"a", "b"})
    assert seen == [
        (["one", "one.", "two"], roles),
        (["one", "one.", "two", "re two", "three"], roles),
    ]


async def test_r47_a_run_that_fails_or_hangs_lets_the_next_begin(
    kind: str, directory: Path
) -> None:
    """Exception, deadline, garbage and stop free the thread like any ending."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        stage.cast(saying(raises=ValueError()), "breaks", double_texting="queue")
        stage.cast(saying(42), "garbage", double_texting="queue")
        stage.cast(waiting("a"), "hangs", double_texting="queue", deadline=0.05)
        stage.cast(waiting("a"), "stopped", double_texting="queue")
        first = await desk.ask("one")
        names = ("breaks", "garbage", "hangs", "stopped")
        runs = [await stage.start(agent=name) for name in names]
        last = await desk.ask("last")
        desk.abandon("one", "last")

        async def stopped_runs() -> bool:
            return await status(stage, runs[-1]) == "running"

        await eventually(stopped_runs)
        assert await stage.service.cancel(ALICE, runs[-1]) == "accepted"
        await stage.done(last)
        assert await played(stage) == [
            (first, "success"),
            (runs[0], "run.failed"),
            (runs[1], "run.illegal_event"),
            (runs[2], "run.deadline"),
            (runs[3], "cancelled"),
            (last, "success"),
        ]
        await stage.check()


# Cancelling what waits


async def test_r88_a_queued_run_can_be_cancelled(kind: str, directory: Path) -> None:
    """Accepted at once; when its turn comes it starts and ends as cancelled, and asks no agent."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        first = await desk.ask("one")
        second = await desk.ask("two")
        third = await desk.ask("three")
        assert await stage.service.cancel(ALICE, second) == "accepted"
        assert await stage.service.cancel(ALICE, second) == "accepted"
        assert await status(stage, second) == "pending"
        with pytest.raises(NotFound):
            await stage.service.cancel(BOB, second)
        assert await status(stage, first) == "running"
        desk.abandon("one", "three")
        await stage.done(third)
        expected = [(first, "success"), (second, "cancelled"), (third, "success")]
        assert await played(stage) == expected
        own = [one for one in await stage.log() if one.tags["run"] == second]
        kinds = [msgspec.json.decode(one.data)["type"] for one in own]
        assert kinds == ["RUN_STARTED", "RUN_FINISHED"]
        assert desk.begun == ["one", "three"]
        assert await status(stage, second) == "cancelled"
        assert await stage.service.cancel(ALICE, second) == "too_late"
        ended = [one for one in stage.happened if isinstance(one, RunEnded) and one.run == second]
        assert [one.status for one in ended] == ["cancelled"]
        await stage.check()


async def test_r88_a_stop_that_races_the_turn_is_kept(kind: str, directory: Path) -> None:
    """However a stop meets the beginning of a queued run: accepted means it ends as cancelled."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        for turns in range(25):
            one, two = f"one{turns}", f"two{turns}"
            await desk.ask(one)
            run = await desk.ask(two)
            desk.abandon(one)
            for _ in range(turns):
                await asyncio.sleep(0)
            assert await stage.service.cancel(ALICE, run) == "accepted"
            await stage.done(run)
            assert (await played(stage))[-1] == (run, "cancelled")
        await stage.check()


async def test_r87_whoever_leaves_takes_a_queued_run_along(kind: str, directory: Path) -> None:
    """A stop that waits for nothing reaches a run that waits, and harms none that is over."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        first = await desk.ask("one")
        second = await desk.ask("two")
        stage.service.stop(ALICE, second)
        stage.service.stop(ALICE, "nothing")

        async def withdrawn() -> bool:
            return all(one.withdrawn for one in await stage.store.queued("acme", "alice", "t1"))

        await eventually(withdrawn)
        desk.abandon("one", "two")
        await stage.done(second)
        stage.service.stop(ALICE, first)
        assert await played(stage) == [(first, "success"), (second, "cancelled")]


async def test_p6_a_stop_that_cannot_be_written_is_temporary(kind: str, directory: Path) -> None:
    """Cancelling a queued run while the log refuses is Unavailable, and nothing is cancelled."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        await desk.ask("one")
        run = await desk.ask("two")
        stage.broker.broken = True
        with pytest.raises(Unavailable):
            await stage.service.cancel(ALICE, run)
        stage.broker.broken = False
        desk.abandon("one", "two")
        await stage.done(run)
        assert [how for _, how in await played(stage)] == ["success", "success"]


# Trouble


async def test_p6_a_log_that_refuses_for_a_while_delays_the_turn(
    kind: str, directory: Path
) -> None:
    """The turn is tried until the log answers; then everything goes on in order."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        runs = [await desk.ask(name) for name in ("one", "two", "three")]
        assert await stage.service.cancel(ALICE, runs[1]) == "accepted"
        stage.broker.broken = True
        desk.abandon("one", "three")
        await eventually(stage.broker.refused_thrice)
        with pytest.raises(Unavailable):
            await desk.ask("four")
        stage.broker.broken = False
        await stage.done(runs[-1])
        assert [run for run, _ in await played(stage)] == runs
        assert desk.begun == ["one", "three"]
        await stage.check()


async def test_r92_queued_runs_outlive_a_drain(kind: str, directory: Path) -> None:
    """A drain ends the active run and leaves those that wait; the next start begins them."""
    async with staged(kind, directory, enter=False) as stage:
        desk = Desk(stage)
        async with stage.service:
            runs = [await desk.ask(name) for name in ("one", "two", "three")]
            await stage.service.drain()
            with pytest.raises(Unavailable):
                await desk.ask("four")
        assert [await status(stage, run) for run in runs] == ["failed", "pending", "pending"]
        desk.abandon("two", "three")
        stage.service = stage.new_service()
        async with stage.service:
            await stage.done(runs[-1])
        endings = ["run.drained", "success", "success"]
        assert await played(stage) == list(zip(runs, endings, strict=True))
        assert desk.begun == ["one", "two", "three"]
        await stage.check()


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_r59_a_drain_that_races_a_turn_leaves_nothing_running(
    kind: str, directory: Path, turns: int
) -> None:
    """A run that begins while a drain does is drained, or waits; the service ends either way."""
    async with staged(kind, directory, enter=False) as stage:
        desk = Desk(stage)
        async with asyncio.timeout(5), stage.service:
            runs = [await desk.ask(name) for name in ("one", "two", "three")]
            desk.abandon("one")
            for _ in range(turns):
                await asyncio.sleep(0)
        assert await stage.store.unfinished() == []
        assert await status(stage, runs[2]) == "pending"
        desk.abandon("two", "three")
        stage.service = stage.new_service()
        async with stage.service:
            await stage.done(runs[-1])
        assert [run for run, _ in await played(stage)] == runs
        await stage.check()


async def test_r59_a_drain_does_not_wait_for_a_log_that_refuses(kind: str, directory: Path) -> None:
    """While a turn is tried on a log that refuses, the service can be left."""
    async with staged(kind, directory, enter=False) as stage:
        desk = Desk(stage)
        async with asyncio.timeout(5), stage.service:
            await line_up(stage, "first")
            stage.broker.broken = True
            stage.service._queue.wake("acme", "alice", "t1")
            await eventually(stage.broker.refused_thrice)
        assert await status(stage, "first") == "pending"
        assert desk.begun == []


async def test_r92_a_crash_loses_the_active_run_and_no_other(kind: str, directory: Path) -> None:
    """What a dead process was running is lost, what waited runs: each has one ending, in order."""
    async with staged(kind, directory, enter=False) as stage:
        desk = Desk(stage)
        await asyncio.create_task(stage.service.__aenter__())
        runs = [await desk.ask(name) for name in ("one", "two", "three")]
        await stage.logged(3)
        dying = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in dying:
            task.cancel()
        stage.broker.refuse_next = 99  # A dead process writes nothing more.
        await asyncio.wait(dying)
        stage.broker.refuse_next = 0
        stage.service = stage.new_service()
        desk.abandon("two", "three")
        async with stage.service:
            await stage.done(runs[-1])
        endings = ["run.lost", "success", "success"]
        assert await played(stage) == list(zip(runs, endings, strict=True))
        await stage.check()


async def test_r47_a_queued_run_whose_agent_is_gone_ends(kind: str, directory: Path) -> None:
    """After a restart without its agent a queued run ends with RUN_ERROR, and the next begins."""
    async with staged(kind, directory, enter=False) as stage:
        desk = Desk(stage)
        stage.cast(saying("a"), "leaves", double_texting="queue")
        async with stage.service:
            one = await desk.ask("one")
            gone = await stage.start(agent="leaves")
            last = await desk.ask("last")
        del stage.registry._agents["leaves"]
        stage.service = stage.new_service()
        desk.abandon("last")
        async with stage.service:
            await stage.done(last)
        expected = [(one, "run.drained"), (gone, "run.failed"), (last, "success")]
        assert await played(stage) == expected
        assert await status(stage, gone) == "failed"
        await stage.check()


async def test_r47_a_queued_run_that_cannot_be_read_ends(kind: str, directory: Path) -> None:
    """What was stored and makes no sense any more ends with RUN_ERROR, and holds up nobody."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        key = RunKey(tenant="acme", user="alice", thread="t1", run="broken", agent="queue")
        for request in (b"\xff", b"{}"):
            key = replace(key, run=f"{request!r}")
            fact = RunQueued(key=key, request=request, at=1_000.0)
            await write(stage.broker, Write(facts=(fact,)))
        last = await desk.ask("last")
        desk.abandon("last")
        await stage.done(last)
        assert [how for _, how in await played(stage)] == ["run.failed", "run.failed", "success"]
        await stage.check()


async def test_r91_a_thread_for_which_runs_wait_stays(kind: str, directory: Path) -> None:
    """Deleting is refused while a run is active or waits; an accepted run is never dropped."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        channel = thread_channel("acme", "alice", "t1")
        delete = Write(facts=(ThreadDeleted(key=KEY),), truncate=(channel,))
        await desk.ask("one")
        run = await desk.ask("two")
        with pytest.raises(Conflict):
            await write(stage.broker, delete)
        desk.abandon("one", "two", "three")
        await stage.done(run)
        await line_up(stage, "three")
        with pytest.raises(Conflict):
            await write(stage.broker, delete)
        stage.service._queue.wake("acme", "alice", "t1")
        await stage.done("three")
        await stage.check()
        await write(stage.broker, delete)
        assert not await stage.store.exists("acme", "alice", "t1")


async def test_p8_a_decision_is_not_lost_to_those_that_wait(kind: str, directory: Path) -> None:
    """An answer to a question cannot wait: where runs do, it is refused and nothing is decided."""
    async with staged(kind, directory) as stage:
        desk = Desk(stage)
        ending = {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": [ASKS]}}
        stage.cast(saying("may I?", ending), double_texting="queue")
        run = await stage.start()
        await stage.done(run)
        await line_up(stage, "waits")
        decision = Decision(request_id="d", run_id=run, interrupt_id="q1", decision="approve")
        with pytest.raises(Conflict):
            await stage.service.approve(ALICE, decision)
        (question,) = await stage.store.interrupts("acme", "alice", run)
        assert question.status.value == "open"
        desk.abandon("waits")
        stage.service._queue.wake("acme", "alice", "t1")
        await stage.done("waits")
        gone = await stage.service.approve(ALICE, decision)
        assert gone == Decided(status="gone")
        assert [how for _, how in await played(stage)] == ["interrupt", "success"]


# Any order

Step = Callable[["Play"], Awaitable[None]]


class Play:
    """One thread on which people ask, stop and wait in any order."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.desk = Desk(stage)
        self.runs: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.stopped: set[str] = set()

    def do(self, what: str, number: int) -> None:
        """Do one thing at once with whatever is under way."""
        if what == "finish":
            self.desk.abandon(f"{number}")
        elif what == "cancel":
            self.tasks.append(asyncio.create_task(self._cancel(number)))
        else:
            self.tasks.append(asyncio.create_task(self._start(f"{len(self.tasks)}", what)))

    async def _start(self, name: str, policy: str) -> None:
        try:
            self.runs.append(await self.desk.ask(name, policy))
        except (Conflict, LimitExceeded):
            assert name not in self.desk.begun

    async def _cancel(self, number: int) -> None:
        if not self.runs:
            return
        run = self.runs[number % len(self.runs)]
        if await self.stage.service.cancel(ALICE, run) == "accepted":
            self.stopped.add(run)
        else:
            record = await self.stage.store.find_run("acme", "alice", run)
            assert record is not None
            live = self.stage.service._active.get(("acme", "alice", run))
            assert record.ended_at is not None or (live is not None and live.run.over)


steps = st.lists(
    st.tuples(
        st.sampled_from([*POLICIES, "queue", "cancel", "cancel", "finish", "finish", "drain"]),
        st.integers(0, 20),
        st.integers(0, 12),
    ),
    min_size=2,
    max_size=40,
)


@pytest.mark.parametrize("kind", ENGINES)
@given(taken=steps)
@settings(max_examples=60, deadline=None)
def test_p5_r88_r91_in_any_order_runs_keep_their_turn(
    kind: str, taken: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is asked, stopped, finished and drained, in any order and at once.

    Never are two runs of the thread active, every accepted run has one ending, and they begin in
    the order in which they were accepted.
    """
    asyncio.run(play(kind, tmp_path_factory.mktemp("log"), taken))


async def play(kind: str, where: Path, taken: list[tuple[str, int, int]]) -> None:
    limits = RunLimits(cleanup_seconds=0.01, retry_seconds=0.01)
    async with staged(kind, where, limits=limits, enter=False) as stage:
        now = Play(stage)
        await stage.service.__aenter__()
        for what, number, pause in taken:
            if what == "drain":
                await asyncio.gather(*now.tasks)
                await stage.service.__aexit__(None, None, None)
                stage.service = stage.new_service()
                await stage.service.__aenter__()
            else:
                now.do(what, number)
            for _ in range(pause):
                await asyncio.sleep(0)
        await asyncio.gather(*now.tasks)
        now.desk.abandon(*(f"{n}" for n in range(len(now.tasks) + 1)))
        for run in now.runs:
            await stage.done(run)
        await stage.service.__aexit__(None, None, None)
        endings = await played(stage) if now.runs else []
        assert [run for run, _ in endings] == await accepted(stage)
        assert sorted(run for run, _ in endings) == sorted(now.runs)
        assert all(how == "cancelled" for run, how in endings if run in now.stopped)
        if now.runs:
            await stage.check()
        assert not [one for one in stage.happened if isinstance(one, InternalError)]
