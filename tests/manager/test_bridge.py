"""`AgentWebSocketBridge`: agents that push have runs like those of generators."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.manager.stage import ALICE, BOB, Stage, on_stage, staged
from towpath import AgentInput, AgentWebSocketBridge, Queued, Refused, UserExecutionContext
from towpath.errors import BadRequest, Conflict, NotFound, StorageError
from towpath.events.types import IllegalEvent
from towpath.log.broker import Position, Write, Written
from towpath.manager import ForeignUser, StartedRun


def bridge(stage: Stage, context: UserExecutionContext = ALICE) -> AgentWebSocketBridge:
    """Return a bridge of a person."""
    return AgentWebSocketBridge(context, gateway=stage.client)


async def started(stage: Stage, **options: Any) -> StartedRun:
    """Begin a pushed run."""
    run = await bridge(stage).notify_agent_started(None, "pusher", "two pears", **options)
    assert isinstance(run, StartedRun)
    return run


async def events(stage: Stage, run: StartedRun) -> list[dict[str, Any]]:
    """Return the events of a run that has ended, as a reader gets them."""
    job = await stage.manager().connect_to_job("alice", run.run)
    return [event async for event in job]


@on_stage
async def test_a_pushed_run_is_a_run_like_any_other(stage: Stage) -> None:
    """From the person's message to the result: legal AG-UI, with gateway's ids."""
    run, push = await started(stage), bridge(stage)
    for pushed in (
        push.notify_agent_thinking(run.run, "Which fruit?"),
        push.notify_tool_executing(run.run, "price", {"of": "pear"}),
        push.notify_progress_update(run.run, 0.5, "half"),
        push.notify_tool_completed(run.run, "price", {"price": 3}),
        push.notify_agent_text(run.run, "Three "),
        push.notify_agent_text(run.run, "each."),
        push.notify_custom(run.run, "stock", [1, 2]),
        push.emit_agent_event(run.run, "STATE_SNAPSHOT", {"snapshot": {"n": 1}}),
        push.notify_agent_completed(run.run, {"total": 6}),
    ):
        assert isinstance(await pushed, Queued)
    told = await events(stage, run)
    assert [event["type"] for event in told] == [
        "RUN_STARTED",
        *("REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"),
        *("REASONING_MESSAGE_END", "REASONING_END"),
        *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"),
        "CUSTOM",
        "TOOL_CALL_RESULT",
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT"),
        "TEXT_MESSAGE_END",
        *("CUSTOM", "STATE_SNAPSHOT", "RUN_FINISHED"),
    ]
    assert told[0]["input"]["messages"][0]["content"] == "two pears"
    assert told[9]["value"] == {"progress": 0.5, "message": "half"}
    assert (told[10]["toolCallId"], told[-1]["result"]) == (told[6]["toolCallId"], {"total": 6})
    assert (told[15]["name"], told[15]["value"]) == ("stock", [1, 2])


@on_stage
async def test_the_same_run_id_begins_one_run(stage: Stage) -> None:
    """A repetition returns the first result; another message under the id is a conflict."""
    push = bridge(stage)
    starts = (push.notify_agent_started("r1", "pusher", "hi") for _ in range(3))
    runs = await asyncio.gather(*starts)
    assert len(set(runs)) == 1
    assert isinstance(runs[0], StartedRun)
    assert runs[0].run == "r1"
    with pytest.raises(Conflict):
        await push.notify_agent_started("r1", "pusher", "something else")
    assert push.get_health().active_runs == 1


@on_stage
async def test_a_thread_has_one_active_run(stage: Stage) -> None:
    """A second run on the thread is refused until the first one has ended."""
    run = await started(stage, thread_id="t1")
    with pytest.raises(Conflict):
        await started(stage, thread_id="t1")
    await bridge(stage).notify_agent_completed(run.run)
    assert (await started(stage, thread_id="t1")).thread == "t1"


@on_stage
async def test_an_illegal_event_is_an_error_at_its_caller(stage: Stage) -> None:
    """Nothing of it is published, and the run goes on."""
    run, push = await started(stage), bridge(stage)
    for illegal in (
        push.notify_tool_completed(run.run, "price", 1),
        push.emit_agent_event(run.run, "TEXT_MESSAGE_END", {"messageId": "m1"}),
        push.emit_agent_event(run.run, "TOOL_CALL_END", {"toolCallId": "c1"}),
        push.emit_agent_event(run.run, "agent_thinking", {"thought": "x"}),
    ):
        with pytest.raises(IllegalEvent):
            await illegal
    for bad in (
        push.notify_progress_update(run.run, 2),
        push.notify_custom(run.run, "towpath.mine", 1),
    ):
        with pytest.raises(BadRequest):
            await bad
    await push.notify_agent_completed(run.run)
    assert [event["type"] for event in await events(stage, run)] == ["RUN_STARTED", "RUN_FINISHED"]


@on_stage
async def test_an_illegal_event_with_a_key_leaves_the_key_unused(stage: Stage) -> None:
    """The caller may correct the event and push it under the same key."""
    run, push = await started(stage), bridge(stage)
    with pytest.raises(IllegalEvent):
        await push.emit_agent_event(run.run, "TEXT_MESSAGE_END", {"messageId": "m"}, key="k")
    assert isinstance(await push.emit_agent_event(run.run, "note", {"n": 1}, key="k"), Queued)
    with pytest.raises(Conflict):
        await push.emit_agent_event(run.run, "note", {"n": 2}, key="k")


@on_stage
async def test_a_run_that_is_over_takes_nothing(stage: Stage) -> None:
    """After its end by error, cancel or success, pushes are refused and change nothing."""
    push = bridge(stage)
    for end, ending in (
        (push.notify_agent_error, ("We have none.",)),
        (push.notify_agent_completed, ()),
        (push.cancel_run, ()),
    ):
        run = await started(stage)
        await end(run.run, *ending)
        assert await push.notify_agent_text(run.run, "late") == Refused("run_over")
        assert (await events(stage, run))[-1]["type"] in ("RUN_FINISHED", "RUN_ERROR")
    assert await push.notify_agent_text("r404", "x") == Refused("no_run")


@on_stage
async def test_an_error_is_what_a_person_reads(stage: Stage) -> None:
    """Message and code arrive; a code of the gateway's own is replaced."""
    for code, shown in (("shop.closed", "shop.closed"), ("run.lost", "agent.failed"), (None, None)):
        run = await started(stage)
        await bridge(stage).notify_agent_error(run.run, "Closed.", code=code)
        ending = (await events(stage, run))[-1]
        assert (ending["type"], ending["message"]) == ("RUN_ERROR", "Closed.")
        assert ending["code"] == (shown or "agent.failed")


@on_stage
async def test_p5_a_push_that_the_log_refuses_ends_the_run(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not durable is refused, and the run ends with the reason instead of a gap."""
    run, broker = await started(stage), stage.node.parts.broker
    real = broker.submit

    def once(write: Write) -> "asyncio.Future[Written]":
        monkeypatch.setattr(broker, "submit", real)
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        future.set_exception(StorageError("the disk is full"))
        return future

    monkeypatch.setattr(broker, "submit", once)
    assert await bridge(stage).notify_agent_text(run.run, "lost") == Refused("storage")
    told = await events(stage, run)
    assert [event["type"] for event in told] == ["RUN_STARTED", "RUN_ERROR"]
    assert told[-1]["code"] == "run.storage"


async def test_a_pushed_run_that_ended_is_not_waited_for() -> None:
    """There is no agent that could clean up, so the thread is free at once."""
    async with staged(cleanup_timeout=120.0, drain_timeout=300.0) as stage:
        run = await started(stage)
        await bridge(stage).notify_agent_completed(run.run)
        async with asyncio.timeout(20):
            while stage.node.runs.active:  # noqa: ASYNC110 - the executor leaves after the ending
                await asyncio.sleep(0.001)


@on_stage
async def test_results_go_to_the_oldest_open_call_of_the_tool(stage: Stage) -> None:
    """Two calls of one tool get their results in order; an id names its call exactly."""
    run, push = await started(stage), bridge(stage)
    for call in ("a", "b", "c"):
        await push.notify_tool_executing(run.run, "price", {"of": call}, tool_call_id=call)
    await push.notify_tool_completed(run.run, "price", 1)
    await push.notify_tool_completed(run.run, "price", 3, tool_call_id="c")
    await push.notify_tool_completed(run.run, "price", 2)
    with pytest.raises(IllegalEvent):
        await push.notify_tool_completed(run.run, "price", 4)
    await push.notify_agent_completed(run.run)
    told = [event for event in await events(stage, run) if event["type"] == "TOOL_CALL_RESULT"]
    assert [(one["toolCallId"], one["content"]) for one in told] == [
        ("a", "1"),
        ("c", "3"),
        ("b", "2"),
    ]


@on_stage
async def test_an_id_is_not_taken_for_the_name_of_a_tool(stage: Stage) -> None:
    """A result with an id is for the call with that id, never for a call of a tool so named."""
    run, push = await started(stage), bridge(stage)
    await push.notify_tool_executing(run.run, "price", {"of": "pear"})
    with pytest.raises(IllegalEvent):
        await push.notify_tool_completed(run.run, "price", 1, tool_call_id="price")
    assert isinstance(await push.notify_tool_completed(run.run, "price", 1), Queued)


@on_stage
async def test_p1_runs_of_others_take_nothing(stage: Stage) -> None:
    """Neither another person's bridge nor another user id reaches a run."""
    run = await started(stage)
    other = bridge(stage, BOB)
    assert await other.notify_agent_text(run.run, "x") == Refused("no_run")
    assert await other.get_run_status(run.run) is None
    assert await other.get_thread_id(run.run) is None
    with pytest.raises(NotFound):
        await other.cancel_run(run.run)
    with pytest.raises(ForeignUser):
        await other.notify_agent_text(run.run, "x", user_id="alice")
    tenant = AgentWebSocketBridge(tenant="acme", gateway=stage.client)
    assert isinstance(await tenant.notify_agent_text(run.run, "x", user_id="alice"), Queued)


@on_stage
async def test_runs_and_threads_are_found_by_each_other(stage: Stage) -> None:
    """The status is that of now, and the thread that of the run."""
    run, push = await started(stage, thread_id="t1"), bridge(stage)
    assert await push.get_thread_id(run.run) == "t1"
    status = await push.get_run_status(run.run)
    assert status is not None
    assert (status.status, status.agent, status.active_here) == ("running", "pusher", True)
    await push.notify_agent_error(run.run, "no")
    status = await push.get_run_status(run.run)
    assert status is not None
    assert (status.status, status.code, status.active_here) == ("failed", "agent.failed", False)


async def test_p5_a_pushed_run_has_its_deadline() -> None:
    """A run whose agent never pushes its end is ended by the gateway, once."""
    async with staged(run_deadline=0.05, cleanup_timeout=0.05) as stage:
        run = await started(stage)
        assert (await events(stage, run))[-1]["code"] == "run.deadline"


@on_stage
async def test_start_run_starts_a_registered_agent(stage: Stage) -> None:
    """The application starts a run for a person, once for each key, and may cancel it."""

    @stage.gateway.agent("waits")
    async def waits(request: AgentInput) -> AsyncGenerator[object, None]:
        yield request.message
        await asyncio.Event().wait()

    push = bridge(stage)
    runs = [await push.start_run("waits", "hi", key="k") for _ in range(2)]
    assert runs[0] == runs[1]
    assert isinstance(runs[0], StartedRun)
    assert runs[0].position == Position(runs[0].position.epoch, 0)
    assert await push.cancel_run(runs[0].run) == "accepted"
    assert await push.cancel_run(runs[0].run) == "too_late"
    with pytest.raises(NotFound):
        await push.start_run("nobody", "hi")
    with pytest.raises(BadRequest):
        await push.start_run("waits")


@on_stage
async def test_approve_decides_an_interrupt(stage: Stage) -> None:
    """A decision from the application starts the continuation, like one from a client."""

    @stage.gateway.agent("asks")
    async def asks(request: AgentInput) -> AsyncGenerator[object, None]:
        if request.resume:
            yield "approved" if request.resume[0]["status"] == "resolved" else "refused"
            return
        interrupt = {"id": "i1", "reason": "confirmation", "message": "Sure?"}
        yield {"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": [interrupt]}}

    run = await stage.client.run("asks", "hi")
    decided = await bridge(stage).approve(run.run, "i1", "approve", key="k")
    assert decided.status == "accepted"
    assert decided == await bridge(stage).approve(run.run, "i1", "approve", key="k")
    assert decided.run_id is not None
    job = await stage.manager().connect_to_job("alice", decided.run_id)
    texts = [event.get("delta", "") async for event in job]
    assert "".join(texts) == "approved"


@on_stage
async def test_health_is_that_of_the_node_now(stage: Stage) -> None:
    """While the node drains no run can be started, and the health says so."""
    assert bridge(stage).get_health().healthy
    run = await started(stage)
    await stage.node.drain()
    assert not bridge(stage).get_health().healthy
    refused = await bridge(stage).notify_agent_started(None, "pusher", "hi")
    assert refused == Refused("unavailable")
    assert (await events(stage, run))[-1]["code"] == "run.drained"
