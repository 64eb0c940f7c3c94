"""The service over both engines: whatever an agent does, its run is told whole and ends once."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.runs.stage import ALICE, BOB, QUICK, Stage, eventually, saying, staged, waiting
from towpath.agents.agent import AgentError, AgentInput
from towpath.errors import BadRequest, Conflict, NotFound, StorageError, TooLarge, Unavailable
from towpath.events.types import TYPES
from towpath.log.broker import IdempotencyKey, Write
from towpath.runs.deps import RunLimits
from towpath.runs.requests import RunRequest
from towpath.telemetry import InternalError, RunEnded

ENGINES = ("memory", "sqlite")
SECRET = "sk-live-0123456789"
ALL_KINDS: tuple[dict[str, Any], ...] = (
    {"type": "RUN_STARTED", "threadId": "t1", "runId": ""},
    {"type": "STEP_STARTED", "stepName": "s"},
    {"type": "REASONING_START", "messageId": "th"},
    {"type": "REASONING_MESSAGE_START", "messageId": "th", "role": "reasoning"},
    {"type": "REASONING_MESSAGE_CONTENT", "messageId": "th", "delta": "hm"},
    {"type": "REASONING_MESSAGE_END", "messageId": "th"},
    {"type": "REASONING_END", "messageId": "th"},
    {"type": "SUBAGENT_STARTED", "subagentRunId": "sub", "name": "helper"},
    {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "f"},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "{}"},
    {"type": "TOOL_CALL_END", "toolCallId": "c"},
    {"type": "TOOL_CALL_RESULT", "messageId": "r", "toolCallId": "c", "content": "ok"},
    {"type": "SUBAGENT_FINISHED", "subagentRunId": "sub"},
    {"type": "STATE_SNAPSHOT", "snapshot": {"a": 1}},
    {"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/b", "value": 2}]},
    {"type": "ACTIVITY_SNAPSHOT", "messageId": "a", "activityType": "P", "content": {"n": 1}},
    {
        "type": "ACTIVITY_DELTA",
        "messageId": "a",
        "activityType": "P",
        "patch": [{"op": "replace", "path": "/n", "value": 2}],
    },
    {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "hi"},
    {"type": "TEXT_MESSAGE_END", "messageId": "m"},
    {"type": "MESSAGES_SNAPSHOT", "messages": [{"id": "u9", "role": "user", "content": "q"}]},
    {"type": "CUSTOM", "name": "x", "value": 1},
    {"type": "META_EVENT", "payload": 1},
    {"type": "STEP_FINISHED", "stepName": "s"},
)
"""A run with an event of every kind, in legal order."""


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """One of the engines."""
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a log may live."""
    return tmp_path


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


async def test_r45_a_run_is_told_from_its_start_to_its_end(kind: str, directory: Path) -> None:
    """Text an agent yields is one message between RUN_STARTED and RUN_FINISHED."""
    async with staged(kind, directory) as stage:
        events = await stage.played(saying("Hel", "lo"))
        assert kinds(events) == [
            "RUN_STARTED",
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END",
            "RUN_FINISHED",
        ]
        assert events[0]["input"]["messages"][0]["content"] == "hello"
        stored = await stage.store.get("acme", "alice", "t1")
        assert stored is not None
        assert [one["content"] for one in stored.messages] == ["hello", "Hello"]
        assert stored.row.title == "hello"
        assert await stage.notices() == [
            ("towpath.run.started", "running"),
            ("towpath.run.ended", "finished"),
        ]


async def test_r47_an_agent_that_breaks_at_any_event_ends_once(kind: str, directory: Path) -> None:
    """After each kind of event an exception gives one RUN_ERROR, last, and no word of its own."""
    async with staged(kind, directory) as stage:
        for cut in range(len(ALL_KINDS)):
            yielded = [event for event in ALL_KINDS[: cut + 1] if event["type"] != "RUN_STARTED"]
            stage.cast(saying(*yielded, raises=RuntimeError(SECRET)), f"a{cut}")
            await stage.done(await stage.start(f"t{cut}", agent=f"a{cut}"))
            await stage.check(f"t{cut}")
            events = await stage.events(f"t{cut}")
            assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "run.failed")
            assert SECRET not in str(await stage.log(f"t{cut}"))
        assert any(isinstance(one, InternalError) for one in stage.happened)


LATER_KINDS: tuple[tuple[dict[str, Any], ...], ...] = (
    ({"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "delta": "hi"},),
    ({"type": "REASONING_MESSAGE_CHUNK", "messageId": "th", "delta": "hm"},),
    ({"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "toolCallName": "f", "delta": "{"},),
    (
        {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
        {
            "type": "REASONING_ENCRYPTED_VALUE",
            "subtype": "message",
            "entityId": "m",
            "encryptedValue": "x",
        },
    ),
    (
        {"type": "SUBAGENT_STARTED", "subagentRunId": "sub", "name": "helper"},
        {"type": "SUBAGENT_ERROR", "subagentRunId": "sub", "message": "no"},
    ),
    ({"type": "RAW", "event": {"a": 1}},),
)
"""The kinds that `ALL_KINDS` has not, but for the endings: each after what it needs."""


def test_every_kind_of_event_is_broken_at() -> None:
    """What agents break at below are all 31 kinds of AG-UI."""
    later = {yielded[-1]["type"] for yielded in LATER_KINDS}
    here = {event["type"] for event in ALL_KINDS} - {"META_EVENT"}
    assert here | later | {"RUN_FINISHED", "RUN_ERROR"} == TYPES
    assert not here & later


@pytest.mark.parametrize("yielded", LATER_KINDS, ids=lambda yielded: str(yielded[-1]["type"]))
async def test_r47_an_agent_that_breaks_or_hangs_after_any_other_kind_ends_once(
    kind: str, directory: Path, yielded: tuple[dict[str, Any], ...]
) -> None:
    """So with the other kinds: one RUN_ERROR, last, whether the agent raises or says no more."""
    async with staged(kind, directory) as stage:
        stage.cast(saying(*yielded, raises=RuntimeError(SECRET)), "raises")
        stage.cast(waiting(*yielded), "hangs", deadline=0.05)
        for agent, code in (("raises", "run.failed"), ("hangs", "run.deadline")):
            run = await stage.start(agent, agent=agent)
            await stage.done(run)
            await stage.check(agent)
            events = await stage.events(agent)
            assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", code)
            assert SECRET not in str(await stage.log(agent))


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ({"type": "RUN_FINISHED"}, ("RUN_FINISHED", None)),
        ({"type": "RUN_ERROR", "message": "no", "code": "mine"}, ("RUN_ERROR", "mine")),
    ],
)
async def test_r47_r48_an_agent_that_breaks_after_its_end_has_ended(
    kind: str, directory: Path, ending: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    """Its own ending stands, and is the only one."""
    async with staged(kind, directory) as stage:
        events = await stage.played(saying("a", ending, raises=RuntimeError(SECRET)))
        assert (events[-1]["type"], events[-1].get("code")) == expected


async def test_r47_an_agent_that_hangs_after_any_event_meets_its_deadline(
    kind: str, directory: Path
) -> None:
    """After each kind of event, silence until the deadline gives one RUN_ERROR, last."""
    async with staged(kind, directory) as stage:
        runs = []
        for cut in range(1, len(ALL_KINDS)):
            stage.cast(waiting(*ALL_KINDS[1 : cut + 1]), f"a{cut}", deadline=0.3)
            runs.append(await stage.start(f"t{cut}", agent=f"a{cut}"))
        for cut, run in enumerate(runs, 1):
            await stage.done(run)
            await stage.check(f"t{cut}")
            assert (await stage.events(f"t{cut}"))[-1]["code"] == "run.deadline"


async def test_r47_an_agent_that_returns_nothing_finishes(kind: str, directory: Path) -> None:
    """An empty answer is an answer: started, finished, nothing made up between."""
    async with staged(kind, directory) as stage:
        assert kinds(await stage.played(saying())) == ["RUN_STARTED", "RUN_FINISHED"]


async def test_r44_an_agent_that_cannot_start_is_an_error(kind: str, directory: Path) -> None:
    """No success is made up for an agent that fails before its first word."""
    async with staged(kind, directory) as stage:
        events = await stage.played(saying(raises=ImportError(SECRET)))
        assert kinds(events) == ["RUN_STARTED", "RUN_ERROR"]
        assert SECRET not in str(events)


async def test_r47_an_agent_without_a_deadline_meets_that_of_the_limits(
    kind: str, directory: Path
) -> None:
    """The limits count where the registration says nothing, and only there."""
    async with staged(kind, directory, limits=RunLimits(deadline_seconds=0.05)) as stage:
        stage.cast(waiting("x"), "patient", deadline=10.0)
        patient = await stage.start("t2", agent="patient")
        assert (await stage.played(waiting("x"), deadline=None))[-1]["code"] == "run.deadline"
        assert await stage.service.cancel(ALICE, patient) == "accepted"


async def test_r47_an_agent_that_hangs_meets_its_deadline(kind: str, directory: Path) -> None:
    """Past its deadline a run ends with run.deadline, and its agent is sent home."""
    left: list[bool] = []
    async with staged(kind, directory) as stage:
        hanging = waiting("thinking", then=lambda: left.append(True))
        events = await stage.played(hanging, deadline=0.05)
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "run.deadline")
    assert left == [True]


async def test_r47_an_agent_that_cancels_itself_has_failed(kind: str, directory: Path) -> None:
    """Who cancels itself did not hang: the run ends at once and as failed."""
    async with staged(kind, directory) as stage:
        events = await stage.played(saying("half", raises=asyncio.CancelledError()))
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "run.failed")


async def test_r59_a_log_that_refuses_does_not_hold_the_exit_up(kind: str, directory: Path) -> None:
    """Endings that cannot be written are given up after a bound, for the next start to write."""
    limits = replace(QUICK, drain_seconds=0.2)
    async with staged(kind, directory, limits=limits, enter=False) as stage:
        async with stage.service:
            stage.cast(waiting("thinking"))
            run = await stage.start()
            stage.broker.broken = True
        record = await stage.store.find_run(ALICE.tenant, ALICE.user, run)
        assert record is not None
        assert record.ended_at is None
        stage.broker.broken = False
        async with stage.new_service():
            await stage.done(run)
            assert (await stage.events())[-1]["code"] == "run.lost"


async def test_r89_an_agent_that_ignores_its_cancellation_is_left_behind(
    kind: str, directory: Path
) -> None:
    """It is given a bound, then the run is over without it; what it says later is refused."""
    late = asyncio.Event()
    yielded: list[str] = []

    async def stubborn(request: AgentInput) -> AsyncGenerator[object, None]:
        yield "begin"
        while not late.is_set():
            try:
                await late.wait()
            except asyncio.CancelledError:
                continue
        yielded.append("late")
        yield "late"
        yielded.append("later")

    async with staged(kind, directory) as stage:
        stage.cast(stubborn)
        run = await stage.start()
        await stage.logged(3)
        assert await stage.service.cancel(ALICE, run) == "accepted"
        await stage.done(run)
        before = await stage.log()
        late.set()
        await asyncio.sleep(0.05)
        assert await stage.log() == before
        await stage.check()
    assert yielded == ["late"]


async def test_r89_stop_reaches_the_agent(kind: str, directory: Path) -> None:
    """A cancelled run's agent is cancelled where it waits, and its run says so."""
    left: list[bool] = []
    async with staged(kind, directory) as stage:
        stage.cast(waiting("a", then=lambda: left.append(True)))
        run = await stage.start()
        assert await stage.service.cancel(ALICE, run) == "accepted"
        assert (await stage.events())[-1]["outcome"] == {"type": "cancelled"}
        await stage.done(run)
        assert left == [True]
        record = await stage.store.find_run("acme", "alice", run)
        assert record is not None
        assert record.status.value == "cancelled"
        assert (await stage.notices())[-1] == ("towpath.run.ended", "cancelled")
        await stage.check()


@pytest.mark.parametrize("yielded", ["a word too many", 42])
async def test_r89_an_agent_that_is_refused_tidies_up_before_its_run_is_let_go(
    kind: str, directory: Path, yielded: object
) -> None:
    """Where a run ends while its agent waits in a yield, its clean-up is run, and waited for."""
    left: list[bool] = []

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        try:
            yield "a"
            yield yielded
            yield {"type": "RUN_FINISHED"}
            yield "after the end"
        finally:
            await asyncio.sleep(0.02)
            left.append(True)

    async with staged(kind, directory) as stage:
        await stage.done(await stage.cast(agent).start())
        assert left == [True]
        await stage.check()


async def test_r47_r89_a_clean_up_that_hangs_delays_no_ending(kind: str, directory: Path) -> None:
    """What an agent may not say ends its run at once; its clean-up is cut off after the bound."""
    left: list[bool] = []

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        try:
            yield 42
        finally:
            try:
                await asyncio.Event().wait()
            finally:
                left.append(True)

    async with staged(kind, directory) as stage:
        run = await stage.cast(agent).start()
        await stage.logged(2)
        assert (await stage.events())[-1]["code"] == "run.illegal_event"
        assert left == []
        async with asyncio.timeout(2):
            await stage.done(run)
        assert left == [True]
        await stage.check()


async def test_r90_a_late_stop_touches_nothing(kind: str, directory: Path) -> None:
    """Cancelling an ended run says too_late and leaves the newer run of the thread alone."""
    async with staged(kind, directory) as stage:
        stage.cast(saying("a")).cast(waiting("b"), "waits")
        first = await stage.start()
        await stage.done(first)
        second = await stage.start(agent="waits")
        assert await stage.service.cancel(ALICE, first) == "too_late"
        assert stage.service.active == 1
        with pytest.raises(NotFound):
            await stage.service.cancel(BOB, second)
        with pytest.raises(NotFound):
            await stage.service.cancel(ALICE, "nothing")
        assert await stage.service.cancel(ALICE, second) == "accepted"


async def test_r88_stop_and_end_at_once_leave_one_ending(kind: str, directory: Path) -> None:
    """However a stop races the agent's own end, one terminal event stands, and it is true."""
    async with staged(kind, directory) as stage:
        go = asyncio.Event()
        stage.cast(waiting("a", until=go))
        for turns in range(12):
            go.clear()
            run = await stage.start()
            go.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            answers = await asyncio.gather(*(stage.service.cancel(ALICE, run) for _ in range(3)))
            await stage.done(run)
            outcome = (await stage.events())[-1]["outcome"]["type"]
            accepted = answers.count("accepted")
            assert (outcome, accepted) in (("cancelled", 1), ("success", 0))
        await stage.check()


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (42, "run.illegal_event"),
        (None, "run.illegal_event"),
        ({"no": "type"}, "run.illegal_event"),
        ({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}, "run.illegal_event"),
        ({"type": "TEXT_MESSAGE_START"}, "run.illegal_event"),
        ({"type": "RUN_FINISHED", "threadId": "t1", "runId": "foreign"}, "run.illegal_event"),
        ({"type": "RUN_STARTED", "threadId": "foreign", "runId": "x"}, "run.illegal_event"),
        ({"type": "STATE_DELTA", "delta": [{"op": "remove", "path": "/x"}]}, "run.illegal_event"),
        ({"type": "CUSTOM", "name": "x", "value": object()}, "run.illegal_event"),
        ({"type": "META_EVENT", "value": object()}, "run.illegal_event"),
        ({"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "delta": "x"}, "run.illegal_event"),
        (
            {"type": "TOOL_CALL_RESULT", "messageId": "r", "toolCallId": "c", "content": "\ud800"},
            "run.illegal_event",
        ),
        ({"type": "CUSTOM", "name": "\ud800", "value": 1}, "run.illegal_event"),
    ],
)
async def test_r43_r47_garbage_ends_the_run_and_nothing_else(
    kind: str, directory: Path, item: object, code: str
) -> None:
    """What is no legal event is refused at ingress: not published, and named in one RUN_ERROR."""
    async with staged(kind, directory) as stage:
        stage.cast(waiting("other"), "other")
        other = await stage.start("t2", agent="other")
        stage.cast(saying("before", item, "after"))
        run = await stage.start()
        await stage.logged(4)
        await stage.service.cancel(ALICE, other)
        await stage.done(run)
        await stage.check()
        await stage.check("t2")
        events = await stage.events()
        assert events[-1]["code"] == code
        assert kinds(events)[:3] == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
        assert "after" not in str(events)
        assert (await stage.events("t2"))[-1]["outcome"] == {"type": "cancelled"}


async def test_r48_what_an_agent_says_after_its_end_is_refused(kind: str, directory: Path) -> None:
    """An agent that tells its own end is taken at its word: nothing of it follows."""
    async with staged(kind, directory) as stage:

        async def chatty(request: AgentInput) -> AsyncGenerator[object, None]:
            ids = {"threadId": request.context.thread, "runId": request.context.run}
            yield {"type": "RUN_STARTED", **ids}
            yield "answer"
            yield {"type": "RUN_FINISHED", **ids, "result": {"n": 1}}
            yield "more"

        events = await stage.played(chatty)
        assert kinds(events).count("RUN_STARTED") == 1
        assert events[-1]["type"] == "RUN_FINISHED"
        assert events[-1]["result"] == {"n": 1}
        assert "more" not in str(events)


async def test_an_agents_own_words_for_its_error_are_shown(kind: str, directory: Path) -> None:
    """AgentError is meant for the person, with its code."""
    async with staged(kind, directory) as stage:
        events = await stage.played(saying("a", raises=AgentError("try later", code="busy")))
        assert (events[-1]["message"], events[-1]["code"]) == ("try later", "busy")


@pytest.mark.parametrize("words", ["half \ud83d", "\udc00"])
async def test_r47_words_that_cannot_be_written_still_end_the_run(
    kind: str, directory: Path, words: str
) -> None:
    """An error whose text is no Unicode ends the run like any other."""
    async with staged(kind, directory) as stage:
        events = await stage.played(saying("a", raises=AgentError(words, code=words)))
        assert events[-1]["type"] == "RUN_ERROR"


async def test_r47_an_agent_that_says_the_conversation_anew_can_end(
    kind: str, directory: Path
) -> None:
    """A messages snapshot that drops this run's texts costs no run its ending."""
    async with staged(kind, directory) as stage:
        anew = {"type": "MESSAGES_SNAPSHOT", "messages": []}
        events = await stage.played(saying("a", anew, "b"))
        assert events[-1]["type"] == "RUN_FINISHED"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["u1"], ["u1"]),
        (["u2"], ["u1", "a1", "u2"]),
        (["u1", "a1", "u2"], ["u1", "a1", "u2"]),
        (["note", "u2"], ["u1", "a1", "u2", "note"]),
        (["u1", "a1", "u2", "a2", "new"], ["u1", "a1", "u2", "a2", "new"]),
        (["new"], ["u1", "a1", "u2", "a2", "new"]),
        (["u1", "a1", "u2", "a2"], ["u1", "a1", "u2", "a2"]),
    ],
)
async def test_an_agent_is_shown_the_conversation_up_to_what_it_is_to_answer(
    kind: str, tmp_path: Path, given: list[str], shown: list[str]
) -> None:
    """Asked for another answer to a message, it does not see the one that was given; others do."""
    roles = {"u": "user", "a": "assistant", "n": "user"}
    before = ("u1", "a1", "u2", "a2")
    stored_messages = {
        key: {"id": key, "role": roles[key[0]], "content": key} for key in (*before, *given)
    }
    seen: list[str] = []

    async def look(request: AgentInput) -> AsyncGenerator[object, None]:
        seen.extend(one["id"] for one in request.messages)
        yield "well"

    async with staged(kind, tmp_path) as stage:
        past = [stored_messages[key] for key in before]
        silent = saying({"type": "RUN_FINISHED"})
        stage.cast(silent, "silent").cast(look)
        await stage.done(
            await stage.start(agent="silent", request_id="1", input={"messages": past})
        )
        request = {"messages": [stored_messages[key] for key in given]}
        await stage.done(await stage.start(request_id="2", input=request))
        assert seen == shown
        await stage.check()
        stored = await stage.store.get("acme", "alice", "t1")
        assert stored is not None
        kept = [one["id"] for one in stored.messages if one["content"] != "well"]
        assert kept == [*before, *(key for key in given if key in ("note", "new"))]


async def test_an_agent_may_do_what_it_likes_with_its_input(kind: str, directory: Path) -> None:
    """What it changes in the messages and state it was given is its own copy."""
    async with staged(kind, directory) as stage:

        async def vandal(request: AgentInput) -> AsyncGenerator[object, None]:
            request.messages[0]["content"] = "forged"
            request.state["a"] = "forged"
            request.messages.clear()
            yield "done"

        message = {"id": "u1", "role": "user", "content": "truth"}
        await stage.played(vandal, input={"messages": [message], "state": {"a": "truth"}})
        stored = await stage.store.get("acme", "alice", "t1")
        assert stored is not None
        assert stored.messages[0]["content"] == "truth"
        assert stored.state == {"a": "truth"}


async def test_r81_the_same_request_is_the_same_run(kind: str, directory: Path) -> None:
    """Asked again (while it runs, after it, at once), the run is the same, and runs once."""
    begun: list[str] = []

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        begun.append(request.message)
        yield "a"

    async with staged(kind, directory) as stage:
        stage.cast(agent)
        request = RunRequest(request_id="r1", agent="agent", message="hi")
        first, twin = await asyncio.gather(
            stage.service.start(ALICE, request), stage.service.start(ALICE, request)
        )
        assert first == twin
        await stage.done(first.run_id)
        assert await stage.service.start(ALICE, request) == first
        assert begun == ["hi"]
        assert first.position.offset == 0
        other = RunRequest(request_id="r1", agent="agent", message="something else")
        with pytest.raises(Conflict):
            await stage.service.start(ALICE, other)
        theirs = await stage.service.start(BOB, request)
        assert theirs.run_id != first.run_id
        await stage.done(theirs.run_id, who=BOB)


async def test_r91_a_busy_thread_takes_no_second_run(kind: str, directory: Path) -> None:
    """While a run is active its thread refuses another; other threads and people do not mind."""
    async with staged(kind, directory) as stage:
        stage.cast(waiting("a"))
        run = await stage.start()
        with pytest.raises(Conflict):
            await stage.start()
        await stage.start("t2")
        await stage.start("t1", who=BOB)
        await stage.service.cancel(ALICE, run)
        again = await stage.start()
        assert again != run
        assert (await stage.events())[-1]["type"] in (
            "RUN_STARTED",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_START",
        )


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"agent": "nobody"}, NotFound),
        ({"message": ""}, BadRequest),
        ({"message": " \n"}, BadRequest),
        ({"message": None}, BadRequest),
        ({"input": {"messages": []}, "message": "x"}, BadRequest),
        ({"input": {"messages": "x"}}, BadRequest),
        ({"input": {"messages": [{"role": "user"}]}}, BadRequest),
        ({"input": {"messages": [{"id": "a", "role": "pirate", "content": "x"}]}}, BadRequest),
        ({"input": {}}, BadRequest),
        ({"request_id": ""}, BadRequest),
        ({"request_id": "x" * 129}, BadRequest),
        ({"thread": "x" * 129}, BadRequest),
        ({"thread": "a\nb"}, BadRequest),
        ({"message": "x" * 1001}, TooLarge),
    ],
)
async def test_what_cannot_be_asked_is_refused_without_a_trace(
    kind: str, directory: Path, question: dict[str, Any], error: type[Exception]
) -> None:
    """Each malformed question has its error, and starts nothing."""
    limits = RunLimits(message_bytes=1000)
    async with staged(kind, directory, limits=limits) as stage:
        stage.cast(saying("a"))
        with pytest.raises(error):
            await stage.start(**{"thread": "t1", **question})
        assert stage.service.active == 0
        assert await stage.store.threads("acme", "alice", limit=10) == []


async def test_r67_the_last_allowed_byte_passes(kind: str, directory: Path) -> None:
    """The bound on a message is exact: at it a run starts, one byte over it is 413."""
    size = len(msgspec.json.encode(("x", None)))
    async with staged(kind, directory, limits=RunLimits(message_bytes=size)) as stage:
        stage.cast(saying("a"))
        await stage.start(message="x")
        with pytest.raises(TooLarge):
            await stage.start(message="xx")


async def test_p7_a_run_that_says_too_much_ends(kind: str, directory: Path) -> None:
    """All events of a run together have a bound; past it the run ends with run.too_large."""
    async with staged(
        kind, directory, limits=RunLimits(run_bytes=2_000, cleanup_seconds=0.05)
    ) as stage:
        events = await stage.played(saying(*["x" * 100] * 1000))
        assert events[-1]["code"] == "run.too_large"
        assert len(msgspec.json.encode(events)) < 6_000


@pytest.mark.parametrize(
    "item",
    [
        {"type": "CUSTOM", "name": "n", "value": "x" * 5_000},
        {"type": "RUN_FINISHED", "result": "x" * 5_000},
        AgentError("x" * 5_000, code="agent.own"),
    ],
    ids=["event", "result", "error"],
)
async def test_p7_an_event_that_is_too_large_ends_the_run(
    kind: str, directory: Path, item: object
) -> None:
    """Nothing of it is in the log; what came before it stays, and the thread can go on."""
    async with staged(kind, directory, limits=RunLimits(event_bytes=4_096)) as stage:
        agent = saying("a", raises=item) if isinstance(item, AgentError) else saying("a", item)
        events = await stage.played(agent)
        assert events[-1]["type"] == "RUN_ERROR"
        assert events[-1]["code"] == "run.too_large"
        assert max(len(one.data) for one in await stage.log()) <= 4_096
        assert [one.get("delta") for one in events if "delta" in one] == ["a"]
        stage.cast(saying("b"), name="other")
        await stage.done(await stage.start(agent="other"))
        await stage.check()


async def test_p7_a_long_answer_is_split_and_stored_whole(kind: str, directory: Path) -> None:
    """An agent that yields its whole answer at once is not refused for its length."""
    answer = "x" * 10_000
    async with staged(kind, directory, limits=RunLimits(event_bytes=4_096)) as stage:
        events = await stage.played(saying(answer))
        assert events[-1]["type"] == "RUN_FINISHED"
        assert max(len(one.data) for one in await stage.log()) <= 4_096
        assert "".join(one.get("delta", "") for one in events) == answer
        await stage.check()


async def test_r92_lost_runs_get_their_ending_after_a_start(kind: str, directory: Path) -> None:
    """What a dead process left running gets one run.lost, and the store agrees with the log."""
    async with staged(kind, directory, enter=False) as stage:
        crashed = asyncio.create_task(crash(stage))
        runs = await crashed
        stage.service = stage.new_service()
        async with stage.service:
            for thread, run in runs.items():
                await stage.done(run)
                await stage.check(thread)
                last = (await stage.events(thread))[-1]
                assert (last["type"], last["code"]) == ("RUN_ERROR", "run.lost")
                record = await stage.store.find_run("acme", "alice", run)
                assert record is not None
                assert (record.status.value, record.code) == ("lost", "run.lost")
                assert await stage.service.cancel(ALICE, run) == "too_late"
            again = await stage.start("t1")
            await stage.service.cancel(ALICE, again)
        await stage.check("t1")


async def crash(stage: Stage) -> dict[str, str]:
    """Start two runs, the second on a thread with a past, and lose their producer."""
    await stage.service.__aenter__()
    text = {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}
    stage.cast(waiting(text)).cast(saying("past"), "quick")
    await stage.done(await stage.start("t2", agent="quick"))
    runs = {thread: await stage.start(thread) for thread in ("t1", "t2")}
    await stage.logged(2)
    await stage.logged(7, "t2")
    stage.broker.broken = True
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task() and task.get_name().startswith(("run ", "agent ")):
            task.cancel()
    await asyncio.sleep(0.15)
    for task in asyncio.all_tasks():
        if task.get_name().startswith("ending "):
            task.cancel()
    stage.broker.broken = False
    return runs


async def test_p10_r59_drain_gives_each_run_its_ending(kind: str, directory: Path) -> None:
    """On drain nothing new starts, each live run ends with run.drained, and the store knows."""
    async with staged(kind, directory) as stage:
        stage.cast(waiting("a"))
        runs = [await stage.start(f"t{n}") for n in range(5)]
        await stage.service.drain()
        for n, run in enumerate(runs):
            assert (await stage.events(f"t{n}"))[-1]["code"] == "run.drained"
            record = await stage.store.find_run("acme", "alice", run)
            assert record is not None
            assert record.code == "run.drained"
        with pytest.raises(Unavailable):
            await stage.start("new")
    for n in range(5):
        assert stage.service.active == 0, n


async def test_r42_a_run_goes_on_without_listeners(kind: str, directory: Path) -> None:
    """Whoever asked may leave, even while the run is being started."""
    async with staged(kind, directory) as stage:
        stage.cast(saying("a"))
        asking = asyncio.create_task(stage.start())
        await asyncio.sleep(0)
        asking.cancel()
        await eventually(lambda: stage.store.exists("acme", "alice", "t1"))
        (run,) = await stage.store.runs("acme", "alice", "t1", limit=9)
        await stage.done(run.run_id)
        await stage.check()


@pytest.mark.parametrize("outage", ["some", "until the end", "ending only"])
async def test_p5_r47_an_outage_mid_run_leaves_no_gap_and_one_ending(
    kind: str, directory: Path, outage: str
) -> None:
    """The log refuses writes for a while: no gap, one ending once it can be written, one truth."""
    async with staged(kind, directory) as stage:

        async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
            yield "first "
            await asyncio.sleep(0.02)
            if outage == "some":
                stage.broker.refuse_next = 1
            elif outage == "until the end":
                stage.broker.broken = True
            for n in range(20):
                yield f"{n} "
                await asyncio.sleep(0)
            if outage == "ending only":
                stage.broker.refuse_next = 2

        stage.cast(agent)
        run = await stage.start()
        if outage == "until the end":
            await eventually(stage.broker.refused_thrice)
            stage.broker.broken = False
        await stage.done(run)
        await stage.check()
        events = await stage.events()
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "run.storage")
        record = await stage.store.find_run("acme", "alice", run)
        assert record is not None
        assert record.code == "run.storage"
        (ended,) = [one for one in stage.happened if isinstance(one, RunEnded)]
        assert ended.code == "run.storage"


async def test_p5_a_stop_during_an_outage_is_still_a_stop(kind: str, directory: Path) -> None:
    """A run cancelled while the log refuses writes ends as cancelled when it can be written."""
    async with staged(kind, directory) as stage:
        stage.cast(waiting("a"))
        run = await stage.start()
        await stage.logged(3)
        stage.broker.broken = True
        stopping = asyncio.create_task(stage.service.cancel(ALICE, run))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        assert await stage.service.cancel(ALICE, run) == "too_late"
        stage.broker.broken = False
        assert await stopping == "accepted"
        assert (await stage.events())[-1]["outcome"] == {"type": "cancelled"}
        await stage.done(run)
        await stage.check()


async def test_p6_an_outage_at_start_is_temporary(kind: str, directory: Path) -> None:
    """A run that cannot be written does not exist, and the same request works later."""
    async with staged(kind, directory) as stage:
        stage.cast(saying("a"))
        stage.broker.broken = True
        with pytest.raises(Unavailable):
            await stage.start(request_id="r1")
        assert stage.service.active == 0
        stage.broker.broken = False
        await stage.done(await stage.start(request_id="r1"))
        await stage.check()


async def test_p7_an_agent_waits_when_too_much_is_under_way(directory: Path) -> None:
    """Writes of one run that are under way have a bound, and reach the log in order."""
    most = 0
    async with staged("sqlite", directory, limits=RunLimits(in_flight=4)) as stage:

        async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
            nonlocal most
            (live,) = stage.service._active
            for n in range(300):
                yield f"{n} "
                most = max(most, len(live._in_flight))

        await stage.played(agent)
    assert 1 <= most <= 4


async def test_history_reaches_the_next_run(kind: str, directory: Path) -> None:
    """An agent sees the conversation so far, the newest question last, and the thread's state."""
    seen: list[tuple[list[str], str, Any]] = []

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        seen.append(([one["content"] for one in request.messages], request.message, request.state))
        yield "answer"
        yield {"type": "STATE_SNAPSHOT", "snapshot": {"n": len(seen)}}

    async with staged(kind, directory) as stage:
        stage.cast(agent)
        for question in ("one", "two"):
            await stage.done(await stage.start(message=question))
        await stage.check()
    assert seen == [(["one"], "one", None), (["one", "answer", "two"], "two", {"n": 1})]


async def test_storage_errors_are_no_agents_business(directory: Path) -> None:
    """Reading the store fails: the answer is temporary, never `not found`."""

    class Blind:
        async def find_run(self, tenant: str, user: str, run: str) -> None:
            raise StorageError("unreadable")

    async with staged("memory", directory) as stage:
        object.__setattr__(stage.service._deps, "store", Blind())
        with pytest.raises(Unavailable):
            await stage.service.cancel(ALICE, "r1")
        object.__setattr__(stage.service._deps, "store", stage.store)


async def result(stage: Stage, key: IdempotencyKey) -> bytes | None:
    """Return the result that is stored under a key."""
    stored = await stage.broker.stored_result(key)
    return None if stored is None else bytes(stored.result)


def stop_request(text: str = "stop") -> IdempotencyKey:
    """Return what makes a request to stop the same one."""
    return IdempotencyKey(("acme", "alice", "run.cancel"), "stop", text)


async def test_p8_r81_a_stop_that_is_asked_twice_at_once_is_one_stop(
    kind: str, directory: Path
) -> None:
    """The same request again, while the first is under way, is told the same: accepted."""
    async with staged(kind, directory) as stage:
        run = await stage.cast(waiting("a")).start()
        stage.broker.refuse_next = 2
        stops = [stage.service.cancel(ALICE, run, key=stop_request()) for _ in range(3)]
        assert await asyncio.gather(*stops) == ["accepted"] * 3
        assert await stage.service.cancel(ALICE, run) == "too_late"
        await stage.done(run)
        await stage.check()


async def test_p8_r81_a_stop_is_remembered_though_its_asker_left(
    kind: str, directory: Path
) -> None:
    """Whoever leaves before the answer finds it under the same request: the run's end wrote it."""
    async with staged(kind, directory) as stage:
        stage.cast(waiting("a"), double_texting="queue")
        run = await stage.start()
        asking = asyncio.create_task(stage.service.cancel(ALICE, run, key=stop_request()))
        await asyncio.sleep(0)
        asking.cancel()
        await stage.done(run)
        assert await result(stage, stop_request()) == b'{"status":"accepted"}'
        busy, waits = await stage.start(), await stage.start()
        queued = replace(stop_request(), request_id="another")
        assert await stage.service.cancel(ALICE, waits, key=queued) == "accepted"
        assert await result(stage, queued) == b'{"status":"accepted"}'
        await stage.service.cancel(ALICE, busy)


@pytest.mark.parametrize("used_for", ["stop", "something else"])
async def test_p5_a_request_that_was_used_meanwhile_does_not_keep_a_run_from_ending(
    kind: str, directory: Path, used_for: str
) -> None:
    """Whatever its request id was used for, a run that is stopped has its one ending."""
    async with staged(kind, directory) as stage:
        run = await stage.cast(waiting("a")).start()
        used = Write(key=stop_request(used_for), result=b"{}")
        await stage.broker.submit(used)
        assert await stage.service.cancel(ALICE, run, key=stop_request()) == "accepted"
        await stage.done(run)
        assert (await stage.events())[-1]["outcome"] == {"type": "cancelled"}
        await stage.check()


async def test_r89_an_agent_that_hears_of_a_stop_by_itself_tidies_up(
    kind: str, directory: Path
) -> None:
    """One that speaks once more after the stop is closed, and its clean-up is not broken off."""
    left = asyncio.Event()

    async def busy(request: AgentInput) -> AsyncGenerator[object, None]:
        """Speak without a pause, and take a moment to leave."""
        try:
            while True:
                yield "word "
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0.01)
            left.set()

    async with staged(kind, directory) as stage:
        run = await stage.cast(busy).start()
        await stage.logged(3)
        assert await stage.service.cancel(ALICE, run) == "accepted"
        await stage.done(run)
        assert left.is_set()
        await stage.check()
