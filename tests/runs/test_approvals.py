"""Decisions over both engines: the first one wins, expiry is no refusal, and what is over stays."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.client import errors_of, judged
from tests.runs.stage import ALICE, BOB, QUICK, Stage, eventually, saying, staged, waiting
from towpath.agents import demo
from towpath.agents.agent import AgentFunction, AgentInput
from towpath.channels import user_channel
from towpath.errors import BadRequest, Conflict, NotFound, Unavailable
from towpath.identity import Principal
from towpath.log.broker import Write, write
from towpath.runs.deps import RunLimits
from towpath.runs.interrupts import NotOpen, shown_digest
from towpath.runs.model import ThreadDeleted, ThreadKey
from towpath.runs.requests import Decision
from towpath.telemetry import InternalError

ENGINES = ("memory", "sqlite")
ARGUMENTS = '{"what": "a barge"}'
DAY = 24 * 3600.0
DECIDED = {"approve": "approved", "refuse": "refused"}


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """One of the engines."""
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a log may live."""
    return tmp_path


def asking(*ids: str, resumes: list[Any] | None = None, **fields: Any) -> AgentFunction:
    """Return an agent that ends with these questions, and says what it was answered."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        """Ask, or go on."""
        if request.resume:
            if resumes is not None:
                resumes.append(request.resume)
            yield "going on"
            return
        yield "may I? "
        questions = [{"id": one, "reason": "confirmation", **fields} for one in ids]
        yield {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": questions}}

    return agent


def calling(**question: Any) -> AgentFunction:
    """Return an agent that asks about a tool call."""
    start = {"type": "TOOL_CALL_START", "toolCallId": "c1", "toolCallName": "buy"}
    pieces = [{"type": "TOOL_CALL_ARGS", "toolCallId": "c1", "delta": one} for one in ARGUMENTS]
    interrupt = {"id": "q1", "reason": "tool_call", "toolCallId": "c1", **question}
    outcome = {"type": "interrupt", "interrupts": [interrupt]}
    return saying(start, *pieces, {"type": "RUN_FINISHED", "outcome": outcome})


async def interrupted(stage: Stage, thread: str = "t1", **fields: Any) -> str:
    """Start a run and wait until it has ended with its questions."""
    run = await stage.start(thread, **fields)
    await stage.done(run)
    return run


def decision_on(
    run: str, interrupt: str = "q1", decision: str = "approve", **more: Any
) -> Decision:
    """Return a decision with a request id of its own, unless it is given."""
    more.setdefault("request_id", f"{run}-{interrupt}-{decision}")
    return Decision(run_id=run, interrupt_id=interrupt, decision=decision, **more)


async def decide(
    stage: Stage, run: str, *interrupt: str, who: Principal = ALICE, **more: Any
) -> dict[str, Any]:
    """Decide and return the reply."""
    reply = await stage.service.approve(who, decision_on(run, *interrupt, **more))
    return msgspec.json.decode(msgspec.json.encode(reply))  # type: ignore[no-any-return]


async def standing(stage: Stage, run: str) -> dict[str, str]:
    """Return what the store holds of a run's questions."""
    questions = await stage.store.interrupts("acme", "alice", run)
    return {one.id: one.status.value for one in questions}


async def notices_named(stage: Stage, name: str) -> list[dict[str, Any]]:
    """Return the values of the notices of one name."""
    replay = await stage.broker.read(user_channel("acme", "alice"), 0)
    events = [msgspec.json.decode(one.data) for one in replay.publications]
    return [event["value"] for event in events if event["name"] == name]


async def runs(stage: Stage, thread: str = "t1") -> int:
    """Return how many runs a thread has had."""
    return len(await stage.store.runs("acme", "alice", thread, limit=99))


def resumed(*answers: object) -> dict[str, Any]:
    """Return AG-UI input that answers questions."""
    return {"messages": [], "resume": list(answers)}


def resolved(interrupt: str, **payload: Any) -> dict[str, Any]:
    """Return AG-UI's answer to a question."""
    return {"interruptId": interrupt, "status": "resolved", "payload": payload}


YES = resolved("q1", approved=True)


async def test_r93_a_run_that_asks_is_over_and_holds_nothing(kind: str, directory: Path) -> None:
    """It ends as interrupted, with a notice; no task of it is left, and its question is open."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        await stage.check()
        record = await stage.store.find_run("acme", "alice", run)
        assert record is not None
        assert (record.status.value, record.code) == ("interrupted", None)
        assert stage.service.active == 0
        assert (await stage.notices())[-1] == ("towpath.run.interrupted", "interrupted")
        (question,) = await stage.store.interrupts("acme", "alice", run)
        assert (question.status.value, question.expires) == ("open", 1_000.0 + DAY)


@pytest.mark.parametrize("decision", ["approve", "refuse"])
async def test_p5_the_first_decision_stands_and_the_run_goes_on(
    kind: str, directory: Path, decision: str
) -> None:
    """A decision begins a run that names its parent and carries the answer; others get already."""
    resumes: list[Any] = []
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1", resumes=resumes)))
        log = await stage.log()
        reply = await decide(stage, run, "q1", decision)
        assert reply["status"] == "accepted"
        assert reply["position"]["offset"] == len(log)
        for other in ("approve", "refuse"):
            late = await decide(stage, run, "q1", other, request_id=f"late-{other}")
            assert late == {"status": "already"}
        await stage.done(reply["run_id"])
        await stage.check()
        started = (await stage.events())[-5]
        assert (started["type"], started["parentRunId"]) == ("RUN_STARTED", run)
        payload = {"approved": decision == "approve"}
        answer = {"interruptId": "q1", "status": "resolved", "payload": payload}
        assert started["input"]["resume"] == [answer]
        assert resumes == [[answer]]
        assert await standing(stage, run) == {"q1": DECIDED[decision]}
        assert await runs(stage) == 2


async def test_p8_r81_the_same_decision_again_gets_the_same_reply(
    kind: str, directory: Path
) -> None:
    """A repeated request id gets the first answer, at once or later; another use is a conflict."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        twins = [stage.service.approve(ALICE, decision_on(run, request_id="d")) for _ in range(3)]
        first, *others = await asyncio.gather(*twins)
        assert others == [first, first]
        assert first.status == "accepted"
        assert first.run_id is not None
        await stage.done(first.run_id)
        assert await stage.service.approve(ALICE, decision_on(run, request_id="d")) == first
        with pytest.raises(Conflict):
            await decide(stage, run, "q1", "refuse", request_id="d")
        assert await runs(stage) == 2


async def test_p8_r81_the_same_resume_again_gets_the_same_reply(kind: str, directory: Path) -> None:
    """Twins of a start that brings the answers are one run, and so is its repetition."""
    async with staged(kind, directory) as stage:
        await interrupted(stage.cast(asking("q1")))
        starts = [stage.start(request_id="s", input=resumed(YES)) for _ in range(3)]
        first, *others = await asyncio.gather(*starts)
        assert others == [first, first]
        await stage.done(first)
        assert await stage.start(request_id="s", input=resumed(YES)) == first
        assert await runs(stage) == 2


async def test_several_questions_are_answered_together(kind: str, directory: Path) -> None:
    """Only the last answer begins the run, with all answers in the order of the questions."""
    resumes: list[Any] = []
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1", "q2", "q3", resumes=resumes)))
        assert await decide(stage, run, "q3", "refuse", payload="too dear") == {
            "status": "accepted"
        }
        assert await decide(stage, run, "q1", payload={"by": "noon"}) == {"status": "accepted"}
        assert await runs(stage) == 1
        assert await standing(stage, run) == {"q1": "approved", "q2": "open", "q3": "refused"}
        reply = await decide(stage, run, "q2")
        assert reply["status"] == "accepted"
        await stage.done(reply["run_id"])
        await stage.check()
        assert [(one["interruptId"], one["payload"]) for one in resumes[0]] == [
            ("q1", {"by": "noon", "approved": True}),
            ("q2", {"approved": True}),
            ("q3", {"payload": "too dear", "approved": False}),
        ]
        assert [
            one["interrupt_id"] for one in await notices_named(stage, "towpath.interrupt.decided")
        ] == [
            "q3",
            "q1",
        ]


async def test_p5_the_last_two_answers_at_once_begin_one_run(kind: str, directory: Path) -> None:
    """Both decided at the same time: each is accepted, and exactly one of them begins the run."""
    resumes: list[Any] = []
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1", "q2", resumes=resumes)))
        replies = await asyncio.gather(decide(stage, run, "q1"), decide(stage, run, "q2", "refuse"))
        assert [reply["status"] for reply in replies] == ["accepted", "accepted"]
        (going_on,) = [reply["run_id"] for reply in replies if "run_id" in reply]
        await stage.done(going_on)
        await stage.check()
        assert await standing(stage, run) == {"q1": "approved", "q2": "refused"}
        assert len(resumes) == 1


async def test_r95_expired_is_not_refused(kind: str, directory: Path) -> None:
    """In reply, event and store an unanswered question differs from a refused one."""
    async with staged(kind, directory) as stage:
        stage.cast(asking("q1"))
        unanswered, refused = await interrupted(stage), await interrupted(stage, "t2")
        going_on = (await decide(stage, refused, "q1", "refuse"))["run_id"]
        await stage.done(going_on)
        stage.now += DAY
        reply = await decide(stage, unanswered)
        assert reply == {"status": "expired"}
        assert await standing(stage, unanswered) == {"q1": "expired"}
        assert await standing(stage, refused) == {"q1": "refused"}
        assert await notices_named(stage, "towpath.interrupt.expired") == [
            {"thread_id": "t1", "run_id": unanswered, "agent": "agent"}
        ]
        assert await runs(stage) == 1, "nobody said no, and nothing goes on"
        await stage.check()


async def test_r95_nobody_has_to_come_for_a_question_to_expire(kind: str, directory: Path) -> None:
    """When its time comes the store and the person's devices are told, once, by nobody's doing."""
    async with staged(kind, directory, limits=RunLimits(interrupt_seconds=0.0)) as stage:
        run = await interrupted(stage.cast(asking("q1", "q2")))

        async def expired() -> bool:
            return bool(await notices_named(stage, "towpath.interrupt.expired"))

        await eventually(expired)
        assert await standing(stage, run) == {"q1": "expired", "q2": "expired"}
        assert await decide(stage, run) == {"status": "expired"}
        assert len(await notices_named(stage, "towpath.interrupt.expired")) == 1


async def test_r95_the_agents_own_moment_counts(kind: str, directory: Path) -> None:
    """A question that says when it expires is answered until then, and the others with it."""
    async with staged(kind, directory) as stage:
        stage.cast(asking("q1", "q2", expiresAt="1970-01-01T00:18:00Z"))
        run, other = await interrupted(stage), await interrupted(stage, "t2")
        stage.now = 18 * 60 - 0.1
        assert (await decide(stage, run))["status"] == "accepted"
        assert (await decide(stage, run, "q2"))["status"] == "accepted"
        assert (await decide(stage, other))["status"] == "accepted"
        stage.now = 18 * 60.0
        assert (await decide(stage, other, "q2"))["status"] == "expired"
        assert await standing(stage, other) == {"q1": "approved", "q2": "expired"}
        assert await runs(stage, "t2") == 1


async def test_r95_what_expired_unnoticed_is_noticed_at_the_next_start(
    kind: str, directory: Path
) -> None:
    """A question whose time came while no server ran expires when one runs again."""
    async with staged(kind, directory, enter=False) as stage:
        async with stage.service:
            run = await interrupted(stage.cast(asking("q1")))
        stage.now += 2 * DAY
        assert await standing(stage, run) == {"q1": "open"}
        stage.service = stage.new_service()
        async with stage.service:

            async def expired() -> bool:
                return await standing(stage, run) == {"q1": "expired"}

            await eventually(expired)


async def test_r95_an_expired_question_stays_that_when_the_thread_goes_on(
    kind: str, directory: Path
) -> None:
    """Who was told that a question expired is not told later that it was left behind."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        stage.now += DAY
        await stage.done(await stage.start())
        assert await standing(stage, run) == {"q1": "expired"}
        assert await decide(stage, run) == {"status": "expired"}


async def test_r95_a_late_decision_notes_the_expiry_it_speaks_of(
    kind: str, directory: Path
) -> None:
    """Nobody is told `expired` before it is written, so no decision in flight can undo it."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        stage.now += DAY
        stage.broker.broken = True
        with pytest.raises(Unavailable):
            await decide(stage, run)
        stage.broker.broken = False
        assert await decide(stage, run) == {"status": "expired"}
        assert await standing(stage, run) == {"q1": "expired"}


async def test_r95_expiry_survives_a_log_that_refuses(kind: str, directory: Path) -> None:
    """While nothing can be written the expiry waits, is reported, and is written later, once."""
    limits = RunLimits(interrupt_seconds=1.0, retry_seconds=0.01)
    async with staged(kind, directory, limits=limits) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        stage.broker.broken = True
        stage.now += 2.0
        stage.service._approvals.wake()
        await eventually(stage.broker.refused_thrice)
        assert await standing(stage, run) == {"q1": "open"}
        stage.broker.broken = False

        async def expired() -> bool:
            return await standing(stage, run) == {"q1": "expired"}

        await eventually(expired)
        assert len(await notices_named(stage, "towpath.interrupt.expired")) == 1
        faults = [one for one in stage.happened if isinstance(one, InternalError)]
        assert {one.where for one in faults} == {"expiring interrupts"}


async def test_r96_a_thread_that_went_on_leaves_its_questions_behind(
    kind: str, directory: Path
) -> None:
    """A new run without answers makes what was asked before `gone`; deciding it begins nothing."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1", "q2")))
        await decide(stage, run, "q1", "refuse")
        newer = await interrupted(stage)
        before = await stage.events()
        assert await standing(stage, run) == {"q1": "refused", "q2": "gone"}
        assert await decide(stage, run, "q2") == {"status": "gone"}
        assert await decide(stage, run, "q1", request_id="again") == {"status": "already"}
        assert await stage.events() == before
        assert await standing(stage, newer) == {"q1": "open", "q2": "open"}
        await stage.check()


@pytest.mark.parametrize("how", ["cancelled", "failed", "finished", "lost"])
async def test_r96_a_run_that_ended_otherwise_stays_as_it_is(
    kind: str, directory: Path, how: str
) -> None:
    """Deciding on a run that was cancelled, failed, finished or lost answers `gone`, no more."""
    async with staged(kind, directory) as stage:
        stage.cast(waiting("a")).cast(saying(raises=ValueError()), "failed")
        stage.cast(saying("a"), "finished")
        if how in ("cancelled", "lost"):
            run = await stage.start()
            (live,) = stage.service._active
            assert live.end(live.run.cancel() if how == "cancelled" else live.run.lose())
        else:
            run = await stage.start(agent=how)
        await stage.done(run)
        before, notices = await stage.events(), await stage.notices()
        for decision in ("approve", "refuse"):
            assert await decide(stage, run, "q1", decision) == {"status": "gone"}
        assert (await stage.events(), await stage.notices()) == (before, notices)
        record = await stage.store.find_run("acme", "alice", run)
        assert record is not None
        assert record.status.value == how


async def test_r96_a_continued_run_that_is_cancelled_is_not_revived(
    kind: str, directory: Path
) -> None:
    """After a decision the continuation was stopped; deciding again begins no other."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        """Ask; then work for ever."""
        async for one in (waiting("working") if request.resume else asking("q1"))(request):
            yield one

    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(agent))
        going_on = (await decide(stage, run))["run_id"]
        assert await stage.service.cancel(ALICE, going_on) == "accepted"
        before = await stage.events()
        assert await decide(stage, run, request_id="again") == {"status": "already"}
        assert await decide(stage, going_on) == {"status": "gone"}
        assert await stage.events() == before


async def test_a_run_that_goes_on_has_asked_nothing_yet(kind: str, directory: Path) -> None:
    """Deciding on it is 404, not `gone`: it may still ask."""
    async with staged(kind, directory) as stage:
        run = await stage.cast(waiting("a")).start()
        with pytest.raises(NotFound):
            await decide(stage, run)


async def test_p1_r35_a_foreign_question_looks_like_none(kind: str, directory: Path) -> None:
    """A run or question of somebody else is 404, as one that never was, and nothing changes."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        stranger = Principal(tenant="other", user="alice")
        refusals = []
        for who, other in ((BOB, run), (stranger, run), (ALICE, "nothing")):
            with pytest.raises(NotFound) as refusal:
                await decide(stage, other, who=who)
            refusals.append(str(refusal.value))
        assert len(set(refusals)) == 1
        with pytest.raises(NotFound):
            await decide(stage, run, "q9")
        with pytest.raises(BadRequest):
            await stage.start(who=BOB, input=resumed(YES))
        assert await standing(stage, run) == {"q1": "open"}


@pytest.mark.parametrize("decision", ["", "maybe", "APPROVE", "approve "])
async def test_a_decision_is_yes_or_no(kind: str, directory: Path, decision: str) -> None:
    """Anything else is refused, and the question stays open."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        with pytest.raises(BadRequest):
            await decide(stage, run, "q1", decision)
        assert await standing(stage, run) == {"q1": "open"}


async def test_a_tool_call_is_decided_on_the_arguments_that_were_shown(
    kind: str, directory: Path
) -> None:
    """Without the digest, or with that of other arguments, nothing is decided; then it is."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(calling()))
        with pytest.raises(BadRequest):
            await decide(stage, run)
        for decision in ("approve", "refuse"):
            with pytest.raises(Conflict):
                await decide(stage, run, "q1", decision, digest=shown_digest("{}"))
        assert await standing(stage, run) == {"q1": "open"}
        reply = await decide(stage, run, digest=shown_digest(ARGUMENTS))
        assert reply["status"] == "accepted"


@pytest.mark.parametrize("question", [{"id": "x" * 129}, {"id": "a\nb"}, {"toolCallId": "c2"}])
async def test_r95_a_question_nobody_could_answer_fails_its_run(
    kind: str, directory: Path, question: dict[str, Any]
) -> None:
    """It would wait for an answer that cannot be given; so the run ends as illegal instead."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(calling(**question)))
        await stage.check()
        assert (await stage.events())[-1]["code"] == "run.illegal_event"
        assert await standing(stage, run) == {}


async def test_answers_may_come_with_a_start(kind: str, directory: Path) -> None:
    """A start that answers every question once continues the run that asked."""
    resumes: list[Any] = []
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1", "q2", "q3", resumes=resumes)))
        answers = [
            resolved("q2", approved=False),
            {"interruptId": "q3", "status": "cancelled"},
            YES,
        ]
        going_on = await stage.start(input=resumed(*answers))
        await stage.done(going_on)
        await stage.check()
        assert resumes == [answers]
        assert (await stage.events())[-5]["parentRunId"] == run
        assert await standing(stage, run) == {"q1": "approved", "q2": "refused", "q3": "refused"}
        assert await decide(stage, run) == {"status": "already"}
        with pytest.raises(BadRequest):
            await stage.start(input=resumed(*answers), request_id="again")
        assert await runs(stage) == 2


@pytest.mark.parametrize(
    "answers",
    [
        [YES],
        [YES, YES],
        [YES, resolved("q2"), resolved("q2")],
        [YES, resolved("q2"), resolved("q3")],
        [YES, resolved("q3")],
        [YES, {"status": "resolved"}],
        [YES, {"interruptId": "q2", "status": "perhaps"}],
        [YES, {"interruptId": "q2"}],
        [YES, 1],
        [None],
        ["q1", "q2"],
    ],
)
async def test_answers_that_are_not_all_and_each_once_begin_nothing(
    kind: str, directory: Path, answers: list[object]
) -> None:
    """Too few, too many, doubled, of other questions or malformed: refused, and all stays open."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1", "q2")))
        with pytest.raises(BadRequest):
            await stage.start(input=resumed(*answers))
        assert await standing(stage, run) == {"q1": "open", "q2": "open"}
        assert await runs(stage) == 1


async def test_answers_to_nothing_begin_nothing(kind: str, directory: Path) -> None:
    """Where no run asked, or the one that did has been left behind, a resume is refused."""
    async with staged(kind, directory) as stage:
        stage.cast(asking("q1")).cast(saying("a"), "other")
        with pytest.raises(BadRequest):
            await stage.start(input=resumed(YES))
        await interrupted(stage)
        await stage.done(await stage.start(agent="other"))
        with pytest.raises(BadRequest):
            await stage.start(input=resumed(YES))


async def test_answers_go_to_the_agent_that_asked(kind: str, directory: Path) -> None:
    """Another agent cannot be started with the answers to what this one asked."""
    async with staged(kind, directory) as stage:
        stage.cast(asking("q1")).cast(saying("I will take it"), "other")
        run = await interrupted(stage)
        with pytest.raises(BadRequest):
            await stage.start(agent="other", input=resumed(YES))
        assert await standing(stage, run) == {"q1": "open"}


async def test_answers_that_come_too_late_begin_nothing(kind: str, directory: Path) -> None:
    """After the questions expired, or one was answered, a resume of all says why it is refused."""
    async with staged(kind, directory) as stage:
        stage.cast(asking("q1", "q2"))
        answers = resumed(YES, resolved("q2"))
        run, other = await interrupted(stage), await interrupted(stage, "t2")
        await decide(stage, run)
        with pytest.raises(NotOpen) as refusal:
            await stage.start(input=answers)
        assert refusal.value.status == "already"
        assert (await decide(stage, run, "q2"))["status"] == "accepted"
        stage.now += DAY
        with pytest.raises(NotOpen) as refusal:
            await stage.start("t2", input=answers)
        assert refusal.value.status == "expired"
        assert await standing(stage, other) == {"q1": "expired", "q2": "expired"}


@pytest.mark.parametrize("step", [-500.0, 0.0])
async def test_a_clock_that_is_set_back_hides_no_question(
    kind: str, directory: Path, step: float
) -> None:
    """What was asked last is known by the log's order, not by the time of day."""
    async with staged(kind, directory) as stage:
        stage.cast(asking("q1"))
        interrupted_runs = []
        for _ in range(4):
            interrupted_runs.append(await interrupted(stage))
            stage.now += step
        going_on = await stage.start(input=resumed(YES))
        await stage.done(going_on)
        assert (await stage.events())[-5]["parentRunId"] == interrupted_runs[-1]


async def test_a_question_may_lead_to_another(kind: str, directory: Path) -> None:
    """A continuation may ask again, with the same id: each run's question is its own."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        """Ask twice."""
        times = request.state or 0
        yield {"type": "STATE_SNAPSHOT", "snapshot": times + 1}
        if times < 2:
            question = {"id": "q1", "reason": "confirmation"}
            outcome = {"type": "interrupt", "interrupts": [question]}
            yield {"type": "RUN_FINISHED", "outcome": outcome}

    async with staged(kind, directory) as stage:
        first = await interrupted(stage.cast(agent))
        second = (await decide(stage, first))["run_id"]
        await stage.done(second)
        assert await standing(stage, second) == {"q1": "open"}
        third = (await decide(stage, second, "q1", "refuse"))["run_id"]
        await stage.done(third)
        await stage.check()
        assert await standing(stage, first) == {"q1": "approved"}
        assert await standing(stage, second) == {"q1": "refused"}
        assert await decide(stage, first, "q1", "refuse") == {"status": "already"}


async def test_r59_a_draining_server_decides_nothing_and_the_next_one_does(
    kind: str, directory: Path
) -> None:
    """While it drains a decision is temporary; the question waits for whoever comes next."""
    async with staged(kind, directory, enter=False) as stage:
        async with stage.service:
            run = await interrupted(stage.cast(asking("q1")))
            await stage.service.drain()
            with pytest.raises(Unavailable):
                await decide(stage, run, request_id="d")
        stage.service = stage.new_service()
        async with stage.service:
            assert await standing(stage, run) == {"q1": "open"}
            reply = await decide(stage, run, request_id="d")
            assert reply["status"] == "accepted"
            await stage.done(reply["run_id"])
            await stage.check()


async def test_r93_a_new_process_leaves_interrupted_runs_alone(kind: str, directory: Path) -> None:
    """Looking for lost runs at a start finds those that ran, not those that wait for a person."""
    async with staged(kind, directory, enter=False) as stage:
        async with stage.service:
            run = await interrupted(stage.cast(asking("q1")))
            before = await stage.events()
        for _ in range(3):
            stage.service = stage.new_service()
            async with stage.service:
                await stage.service._lost.end()
                assert await stage.store.unfinished() == []
                assert await stage.events() == before
                assert await standing(stage, run) == {"q1": "open"}


async def test_r93_the_deadline_of_a_run_is_not_that_of_its_question(
    kind: str, directory: Path
) -> None:
    """After the agent's deadline has passed the question is still open and can be answered."""
    async with staged(kind, directory) as stage:
        stage.cast(asking("q1"), deadline=0.05)
        run = await interrupted(stage)
        await asyncio.sleep(0.1)
        assert await standing(stage, run) == {"q1": "open"}
        reply = await decide(stage, run)
        await stage.done(reply["run_id"])
        assert (await stage.events())[-1]["outcome"] == {"type": "success"}


async def test_p6_a_log_that_refuses_decides_nothing(kind: str, directory: Path) -> None:
    """The answer is temporary, the question stays open, and the same request works later."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1", "q2")))
        for interrupt in ("q1", "q2"):
            stage.broker.broken = True
            with pytest.raises(Unavailable):
                await decide(stage, run, interrupt, request_id=interrupt)
            assert (await standing(stage, run))[interrupt] == "open"
            assert stage.service.active == 0
            stage.broker.broken = False
            reply = await decide(stage, run, interrupt, request_id=interrupt)
            assert reply["status"] == "accepted"
        for row in await stage.store.runs("acme", "alice", "t1", limit=9):
            await stage.done(row.run_id)
        await stage.check()
        assert await runs(stage) == 2


async def test_r47_an_interrupt_the_log_refuses_asks_nothing(kind: str, directory: Path) -> None:
    """Where the ending with its questions cannot be written, a run fails and has asked nothing."""
    async with staged(kind, directory) as stage:

        async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
            """Ask into a log that refuses."""
            stage.broker.refuse_next = 1
            async for one in asking("q1")(request):
                if isinstance(one, dict):
                    yield one

        run = await interrupted(stage.cast(agent))
        await stage.check()
        assert (await stage.events())[-1]["code"] == "run.storage"
        assert await standing(stage, run) == {}
        assert await decide(stage, run) == {"status": "gone"}


async def test_a_decision_is_carried_through_when_its_asker_leaves(
    kind: str, directory: Path
) -> None:
    """Whoever decided may go before the answer comes: it is decided, and the run goes on."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        deciding = asyncio.create_task(decide(stage, run))
        await asyncio.sleep(0)
        deciding.cancel()

        async def going_on() -> bool:
            return await runs(stage) == 2

        await eventually(going_on)
        for row in await stage.store.runs("acme", "alice", "t1", limit=2):
            await stage.done(row.run_id)
        assert await standing(stage, run) == {"q1": "approved"}
        await stage.check()


async def test_an_agent_that_is_gone_is_temporary(kind: str, directory: Path) -> None:
    """Where the agent that asked is not served any more nothing is decided."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        del stage.registry._agents["agent"]
        with pytest.raises(Unavailable):
            await decide(stage, run)
        assert await standing(stage, run) == {"q1": "open"}


async def test_a_deleted_thread_takes_its_questions_along(kind: str, directory: Path) -> None:
    """After the thread is gone so is what was asked in it, for decisions and for expiry."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(asking("q1")))
        key = ThreadKey(tenant="acme", user="alice", id="t1")
        await write(stage.broker, Write(facts=(ThreadDeleted(key=key),)))
        with pytest.raises(NotFound):
            await decide(stage, run)
        assert await stage.store.next_expiry() is None


@pytest.mark.parametrize(
    ("decision", "payload", "says"),
    [
        ("approve", None, "Bought."),
        ("approve", {"note": "the blue one"}, "Bought."),
        ("approve", {"approved": False}, "Bought."),
        ("refuse", {"approved": True}, "Then I will not buy it."),
        ("refuse", "no", "Then I will not buy it."),
        ("approve", "words", "Bought."),
    ],
)
async def test_the_demo_agent_buys_what_was_approved(
    kind: str, directory: Path, decision: str, payload: Any, says: str
) -> None:
    """`buy …` asks about its call, and does what was decided, whatever words came with it."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(demo.tools), message="buy a barge")
        (question,) = await stage.store.interrupts("acme", "alice", run)
        assert question.interrupt["message"] == "Buy a barge?"
        fields = {"digest": shown_digest(ARGUMENTS), "payload": payload}
        reply = await decide(stage, run, question.id, decision, **fields)
        await stage.done(reply["run_id"])
        await stage.check()
        stored = await stage.store.get("acme", "alice", "t1")
        assert stored is not None
        assert stored.messages[-1]["content"] == says


@pytest.mark.parametrize("decision", ["approve", "refuse"])
async def test_an_interrupted_run_and_its_continuation_are_legal(
    kind: str, directory: Path, decision: str
) -> None:
    """AG-UI's validator accepts both runs together, live and as the prelude at each one's end."""
    async with staged(kind, directory) as stage:
        run = await interrupted(stage.cast(demo.tools), message="buy a barge")
        (question,) = await stage.store.interrupts("acme", "alice", run)
        waits = await stage.store.get("acme", "alice", "t1")
        reply = await decide(stage, run, question.id, decision, digest=shown_digest(ARGUMENTS))
        await stage.done(reply["run_id"])
        ended = await stage.store.get("acme", "alice", "t1")
        streams = [await stage.events(), *(one.fold().snapshot() for one in (waits, ended) if one)]
        assert len(streams) == 3
        for stream in streams:
            assert errors_of(stream) == []
            diagnostics = judged(stream).diagnostics
            assert [one.message for one in diagnostics if one.severity == "warning"] == []
        (waiting_end,) = [one for one in streams[1] if one["type"] == "RUN_FINISHED"]
        assert waiting_end["outcome"]["interrupts"] == [question.interrupt]


steps = st.one_of(
    st.tuples(
        st.just("decide"), st.sampled_from(["q1", "q2"]), st.sampled_from(["approve", "refuse"])
    ),
    st.tuples(st.just("start"), st.just(""), st.just("")),
    st.tuples(st.just("resume"), st.just(""), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["short", "long"]), st.just("")),
)


@given(st.lists(st.lists(steps, min_size=1, max_size=3), min_size=1, max_size=5))
@settings(max_examples=60)
def test_p5_r95_each_question_ends_in_one_answer(acts: list[list[tuple[str, str, str]]]) -> None:
    """Whatever is done in whatever order, alone or at once, no answer is ever another one later."""
    asyncio.run(live_through(acts))


async def live_through(acts: list[list[tuple[str, str, str]]]) -> None:
    """Do each list of steps at once, and look at every question after each of them."""
    async with staged("memory", Path(), limits=QUICK) as stage:
        stage.cast(asking("q1", "q2", expiresAt="1970-01-01T00:18:00Z"))
        first = await interrupted(stage)
        final: dict[tuple[str, str], str] = {}
        accepted: list[tuple[str, str]] = []
        for act in acts:
            steps = [do(stage, step, number, accepted) for number, step in enumerate(act)]
            await asyncio.gather(*steps)
            for row in await stage.store.runs("acme", "alice", "t1", limit=99):
                await stage.done(row.run_id)
                for name, answer in (await standing(stage, row.run_id)).items():
                    before = final.get((row.run_id, name))
                    assert before in (None, answer), "an answer is for good"
                    if answer != "open":
                        final[row.run_id, name] = answer
        await stage.check()
        assert len(accepted) == len(set(accepted)), "nobody else was told that theirs counts"
        for where in accepted:
            assert final[where] in ("approved", "refused")
        assert set(await standing(stage, first)) == {"q1", "q2"}


async def do(
    stage: Stage, step: tuple[str, str, str], number: int, accepted: list[tuple[str, str]]
) -> None:
    """Do one step, on the latest run where it is about one."""
    act, what, how = step
    stage.now += 0.001
    (newest,) = await stage.store.runs("acme", "alice", "t1", limit=1)
    if act == "wait":
        stage.now += 1.0 if what == "short" else 100.0
        stage.service._approvals.wake()
    elif act == "decide":
        request = f"d{next(stage.requests)}-{number}"
        reply = await decide(stage, newest.run_id, what, how, request_id=request)
        if reply["status"] == "accepted":
            accepted.append((newest.run_id, what))
    else:
        with contextlib.suppress(Conflict, BadRequest, NotOpen):
            if act == "start":
                await stage.start()
            else:
                await stage.start(input=resumed(YES, resolved("q2", approved=False)))
