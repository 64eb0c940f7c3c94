"""`WebSocketManager`: messages of the application reach the right person, durable first."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.manager.stage import ALICE, BOB, STRANGER, Stage, on_stage, staged
from towpath import (
    AgentInput,
    AgentWebSocketBridge,
    Delivered,
    Gateway,
    Queued,
    Refused,
    Settings,
    UserExecutionContext,
    WebSocketManager,
    create_websocket_manager,
    get_websocket_manager,
)
from towpath.errors import (
    BadRequest,
    Conflict,
    MethodNotFound,
    NotFound,
    NotRunning,
    PermissionDenied,
    SeveralGateways,
    StorageError,
    TooLarge,
    WrongLoop,
)
from towpath.events.types import IllegalEvent
from towpath.identity import InvalidContext
from towpath.log.broker import Position
from towpath.manager import ForeignUser, JobEvents, NoIdentity, StartedRun, Unserialisable


def message(value: object, name: str = "message") -> dict[str, Any]:
    """Return the event that clients get for a message."""
    return {"type": "CUSTOM", "name": name, "value": value}


def breaking(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log refuse every write from now on."""

    def refused(write: object) -> "asyncio.Future[object]":
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        future.set_exception(StorageError("the disk is full"))
        return future

    monkeypatch.setattr(stage.node.parts.broker, "submit", refused)


# Identity.


def test_a_manager_needs_one_identity() -> None:
    """Neither a context nor a tenant is an error, and so are both; the error is a ValueError."""
    for context, tenant in ((None, None), (ALICE, "acme")):
        with pytest.raises(NoIdentity):
            WebSocketManager(context, tenant=tenant)
        with pytest.raises(ValueError, match="one of the two"):
            create_websocket_manager(context, tenant=tenant)
    with pytest.raises(InvalidContext):
        WebSocketManager(tenant=" ")


@on_stage
async def test_p1_a_manager_of_a_person_reaches_nobody_else(stage: Stage) -> None:
    """Each method that takes a user refuses another one, and nothing is written."""
    manager = stage.manager()
    for call in (
        manager.send_to_user("bob", 1),
        manager.send_to_user_with_wait("bob", 1, wait_timeout=0),
        manager.send_agent_event("bob", "agent_thinking", {"text": ""}),
        manager.emit_critical_event("bob", "x"),
        manager.attempt_message_recovery("bob"),
        manager.force_cleanup_user_events("bob"),
        manager.handle_message("bob", {"method": "whoami"}),
        manager.connect_to_job("bob", "r1"),
        manager.disconnect_user("bob"),
        manager.wait_for_connection("bob", 0),
        manager.broadcast(1),
    ):
        with pytest.raises(ForeignUser):
            await call
    for look in (
        manager.is_user_connected,
        manager.get_user_connections,
        manager.get_connection_health,
        manager.get_connection_count,
        manager.find_connection,
    ):
        with pytest.raises(ForeignUser):
            look("bob")
    assert (await stage.manager(BOB).attempt_message_recovery("bob")).messages == ()


@on_stage
async def test_blank_users_are_refused(stage: Stage) -> None:
    """A blank user id is an error, not everybody."""
    for blank in ("", " ", None, 7):
        with pytest.raises(InvalidContext):
            await stage.tenant().send_to_user(blank, 1)  # type: ignore[arg-type]


@on_stage
async def test_a_manager_finds_the_one_gateway_that_runs(stage: Stage) -> None:
    """Without a gateway named, the running one is used; two need a name; none is an error."""
    assert await (await get_websocket_manager(ALICE)).send_to_user("alice", 1) == Queued(
        (await stage.manager().attempt_message_recovery("alice")).position
    )
    async with staged() as other:
        with pytest.raises(SeveralGateways, match="gateway="):
            await get_websocket_manager(ALICE)
        assert isinstance(await other.manager().send_to_user("alice", 2), Queued)
    assert len((await stage.manager().attempt_message_recovery("alice")).messages) == 1


async def test_before_the_start_and_after_the_stop_calls_fail_with_a_sentence() -> None:
    """Making a manager is possible at any time; calling it needs a gateway that runs."""
    manager = create_websocket_manager(ALICE)
    named = create_websocket_manager(ALICE, gateway=Gateway(Settings()))
    async with staged() as stage:
        stopped = stage.manager()
    for one in (manager, named, stopped):
        with pytest.raises(NotRunning, match="lifespan"):
            await one.send_to_user("alice", 1)
        with pytest.raises(NotRunning):
            one.is_user_connected("alice")
    with pytest.raises(NotRunning):
        await get_websocket_manager(ALICE)


@on_stage
async def test_another_event_loop_is_told_to_use_the_portal(stage: Stage) -> None:
    """A coroutine of the manager on another loop fails at once, and writes nothing."""

    def elsewhere() -> None:
        with pytest.raises(WrongLoop, match="portal"):
            asyncio.run(stage.manager().send_to_user("alice", 1))
        with pytest.raises(WrongLoop):
            stage.manager().is_user_connected("alice")

    await asyncio.to_thread(elsewhere)
    assert (await stage.manager().attempt_message_recovery("alice")).messages == ()


# Messages.


@on_stage
async def test_send_to_user_reaches_every_device_of_the_person_and_nobody_else(
    stage: Stage,
) -> None:
    """Each device of the person gets the message; others, and namesakes elsewhere, get nothing."""
    phone, laptop = await stage.connect(), await stage.connect()
    others = [await stage.connect(BOB), await stage.connect(STRANGER)]
    sent = await stage.manager().send_to_user("alice", {"n": 1, "user_id": "bob"}, name="note")
    assert sent == Delivered(Position(sent.position.epoch, 1), 2)  # type: ignore[union-attr]
    event = message({"n": 1, "user_id": "bob"}, "note")
    assert await phone.got(1) == await laptop.got(1) == [event]
    assert [device.received() for device in others] == [[], []]


@on_stage
async def test_send_to_user_is_queued_where_nobody_is_there(stage: Stage) -> None:
    """The message is in the log, and its position says where."""
    device = await stage.connect()
    device.socket.leave()
    await device.serving
    sent = await stage.manager().send_to_user("alice", "hi")
    kept = await stage.manager().attempt_message_recovery("alice")
    assert isinstance(sent, Queued)
    assert (kept.messages, kept.position) == ((message("hi"),), sent.position)


@on_stage
async def test_send_to_user_counts_no_connection_that_has_ended(stage: Stage) -> None:
    """A device that is being closed is still in the hub, and receives nothing more."""
    await stage.connect()
    await stage.manager().disconnect_user("alice")
    assert stage.node.parts.hub.subscribers("acme", "alice")
    assert isinstance(await stage.manager().send_to_user("alice", 1), Queued)


@on_stage
async def test_send_to_user_with_the_same_key_takes_effect_once(stage: Stage) -> None:
    """The same key and message give the same position; another message is a conflict."""
    manager = stage.manager()
    sends = (manager.send_to_user("alice", 1, key="k") for _ in range(5))
    assert len(set(await asyncio.gather(*sends))) == 1
    with pytest.raises(Conflict):
        await manager.send_to_user("alice", 2, key="k")
    await stage.tenant().send_to_user("bob", 2, key="k")  # A key belongs to its person.
    assert (await manager.attempt_message_recovery("alice")).messages == (message(1),)


@on_stage
async def test_send_to_user_refuses_bad_messages_before_anything_is_written(stage: Stage) -> None:
    """An unserialisable or too large message, or a bad name or key, is an error at the caller."""
    manager = stage.manager()
    for error, value, options in (
        (Unserialisable, object(), {}),
        (TooLarge, "x" * 10_000_000, {}),
        (BadRequest, 1, {"name": "towpath.run.ended"}),
        (BadRequest, 1, {"name": ""}),
        (BadRequest, 1, {"key": "\n"}),
    ):
        with pytest.raises(error):
            await manager.send_to_user("alice", value, **options)
    assert (await manager.attempt_message_recovery("alice")).messages == ()


@on_stage
async def test_send_to_user_is_refused_while_the_log_cannot_be_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is delivered that is not durable (P4)."""
    device = await stage.connect()
    breaking(stage, monkeypatch)
    assert await stage.manager().send_to_user("alice", 1) == Refused("storage")
    assert device.received() == []


@on_stage
async def test_send_to_user_with_wait_waits_for_a_device(stage: Stage) -> None:
    """A device that connects while the caller waits gets the message, and the result says so."""
    sending = asyncio.create_task(
        stage.manager().send_to_user_with_wait("alice", "hi", wait_timeout=30)
    )
    await asyncio.sleep(0)
    assert not sending.done()
    await stage.connect(BOB)
    assert not sending.done()
    device = await stage.connect()
    assert isinstance(await sending, Delivered)
    assert await device.got(1) == [message("hi")]


@on_stage
async def test_send_to_user_with_wait_sends_after_its_time(stage: Stage) -> None:
    """When nobody came, the message waits in the log, and nothing is left behind."""
    sent = await stage.manager().send_to_user_with_wait("alice", "hi", wait_timeout=0.01)
    assert isinstance(sent, Queued)
    assert not stage.node.parts.hub._awaited


@on_stage
async def test_send_to_thread_is_about_a_thread_of_the_person(stage: Stage) -> None:
    """Devices get the message on `user` with the tag; a thread of somebody else is not found."""
    device = await stage.connect()
    await stage.manager().handle_message(
        "alice", {"method": "thread.create", "data": {"request_id": "1", "thread_id": "t1"}}
    )
    assert isinstance(await stage.manager().send_to_thread("t1", "hi"), Delivered)
    await device.got(2)  # The first one is the notice of the new thread.
    pushed = [frame["push"] for frame in device.socket.frames if "push" in frame]
    assert (pushed[-1]["pub"]["data"], pushed[-1]["pub"]["tags"]) == (
        message("hi"),
        {"thread": "t1"},
    )
    with pytest.raises(NotFound):
        await stage.manager(BOB).send_to_thread("t1", "hi")
    with pytest.raises(NotFound):
        await stage.tenant().send_to_thread("t1", "hi", user_id="bob")
    with pytest.raises(InvalidContext):
        await stage.tenant().send_to_thread("t1", "hi")


@on_stage
async def test_broadcast_reaches_the_tenant_and_never_beyond(stage: Stage) -> None:
    """Everybody in the tenant gets it once; other tenants get nothing."""
    devices = [await stage.connect(), await stage.connect(BOB)]
    stranger = await stage.connect(STRANGER)
    sent = await stage.tenant().broadcast("all", key="k")
    assert await stage.tenant().broadcast("all", key="k") == sent
    assert isinstance(sent, Delivered)
    assert sent.connections == 2
    assert [await one.got(1, "tenant") for one in devices] == [[message("all")]] * 2
    assert stranger.received("tenant") == []
    assert isinstance(await stage.tenant("nobody").broadcast("all"), Queued)


@on_stage
async def test_broadcast_message_is_broadcast_and_warns_at_the_caller(stage: Stage) -> None:
    """The duplicate is the same object, and its warning names the line that used it."""
    with pytest.warns(DeprecationWarning, match="broadcast") as warned:
        assert WebSocketManager.broadcast_message is WebSocketManager.broadcast  # type: ignore[deprecated]
    assert warned[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="broadcast"):
        assert isinstance(await stage.tenant().broadcast_message(1), Queued)  # type: ignore[deprecated]


# Events of runs.


@on_stage
async def test_send_agent_event_publishes_in_the_run_of_the_context(stage: Stage) -> None:
    """Golden-path names become AG-UI events of the run, in order with what the agent yields."""

    @stage.gateway.agent("grocer")
    async def grocer(request: AgentInput) -> AsyncGenerator[object, None]:
        manager = WebSocketManager(request.context, gateway=stage.client)
        for name, data in (
            ("agent_started", {}),
            ("agent_thinking", {"text": "hm"}),
            ("tool_executing", {"tool_name": "price", "arguments": {"of": "pear"}}),
            ("tool_completed", {"tool_name": "price", "result": {"price": 3}}),
        ):
            assert isinstance(await manager.send_agent_event("alice", name, data), Queued)
        yield "3"
        await manager.send_agent_event("alice", "agent_completed", {"result": 3})

    run = await stage.client.run("grocer", "pear")
    assert [event["type"] for event in run.events] == [
        "RUN_STARTED",
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    call = run.events[6]["toolCallId"]
    assert (run.events[9]["toolCallId"], run.events[9]["content"]) == (call, '{"price": 3}')
    assert run.ending["result"] == 3


@on_stage
async def test_send_agent_event_is_refused_without_a_run(stage: Stage) -> None:
    """Neither a context without a run, nor an unknown run, nor another person's takes an event."""
    for context in (ALICE, UserExecutionContext(tenant="acme", user="alice", run="r404")):
        manager = stage.manager(context)
        sent = await manager.send_agent_event("alice", "agent_thinking", {"text": ""})
        assert sent == Refused("no_run")
    assert await stage.tenant().send_agent_event("alice", "CUSTOM") == Refused("no_run")


@on_stage
async def test_send_agent_event_is_refused_after_the_run(stage: Stage) -> None:
    """A run that is over takes no more events, and says so."""

    @stage.gateway.agent("quick")
    async def quick(request: AgentInput) -> AsyncGenerator[object, None]:
        yield "done"

    run = await stage.client.run("quick", "hi")
    context = UserExecutionContext(tenant="acme", user="alice", run=run.run)
    sent = await stage.manager(context).send_agent_event("alice", "agent_thinking", {"text": ""})
    assert sent == Refused("run_over")
    foreign = UserExecutionContext(tenant="acme", user="bob", run=run.run)
    sent = await stage.manager(foreign).send_agent_event("bob", "agent_thinking", {"text": ""})
    assert sent == Refused("no_run")


@on_stage
async def test_send_agent_event_that_is_illegal_is_an_error_at_the_caller(stage: Stage) -> None:
    """The run goes on after an illegal event, and nothing of the event is published."""
    caught: list[Exception] = []

    @stage.gateway.agent("grocer")
    async def grocer(request: AgentInput) -> AsyncGenerator[object, None]:
        manager = WebSocketManager(request.context, gateway=stage.client)
        for name, data in (
            ("TEXT_MESSAGE_END", {"messageId": "m1"}),
            ("TEXT_MESSAGE_CONTENT", {"delta": 1}),
            ("agent_thinking", {}),
            ("agent_thinking", {"text": "", "more": 1}),
            ("tool_completed", {"tool_name": "price"}),
            ("tool_executing", {"tool_name": ""}),
            ("agent_thinking", {"text": object()}),
        ):
            try:
                await manager.send_agent_event("alice", name, data)
            except (IllegalEvent, Unserialisable) as error:
                caught.append(error)
        yield "ok"

    run = await stage.client.run("grocer", "pear")
    assert len(caught) == 7
    assert (run.text, run.code) == ("ok", None)
    assert len(run.events) == 5


async def test_p7_an_event_that_is_too_large_is_an_error_at_the_caller() -> None:
    """The run goes on, and takes a smaller result of the same tool call."""
    async with staged(event_bytes=4_096, run_message_bytes=4_096) as stage:

        @stage.gateway.agent("grocer")
        async def grocer(request: AgentInput) -> AsyncGenerator[object, None]:
            manager = WebSocketManager(request.context, gateway=stage.client)
            await manager.send_agent_event("alice", "tool_executing", {"tool_name": "price"})
            for result in ("x" * 5_000, "small"):
                fields = {"tool_name": "price", "result": result}
                try:
                    await manager.send_agent_event("alice", "tool_completed", fields, key="k")
                except IllegalEvent:
                    yield "refused"

        run = await stage.client.run("grocer", "pear")
        results = [one["content"] for one in run.events if one["type"] == "TOOL_CALL_RESULT"]
        assert (run.text, run.code, results) == ("refused", None, ["small"])


@on_stage
async def test_emit_critical_event_takes_effect_once_for_each_key(stage: Stage) -> None:
    """In a run, five calls at once with one key publish one event, also when repeated later."""
    results: list[object] = []
    contexts: list[UserExecutionContext] = []

    @stage.gateway.agent("grocer")
    async def grocer(request: AgentInput) -> AsyncGenerator[object, None]:
        contexts.append(request.context)
        manager = WebSocketManager(request.context, gateway=stage.client)
        emits = (manager.emit_critical_event("alice", "paid", {"n": 1}, key="k") for _ in range(5))
        results.extend(await asyncio.gather(*emits))
        with pytest.raises(Conflict):
            await manager.emit_critical_event("alice", "paid", {"n": 2}, key="k")
        yield "ok"

    run = await stage.client.run("grocer", "pear")
    assert [event for event in run.events if event["type"] == "CUSTOM"] == [
        message({"n": 1}, "paid")
    ]
    while stage.node.runs.active:  # noqa: ASYNC110 - the executor leaves after the ending
        await asyncio.sleep(0.001)
    manager = stage.manager(contexts[0])
    results.append(await manager.emit_critical_event("alice", "paid", {"n": 1}, key="k"))
    assert len(set(results)) == 1
    assert await manager.emit_critical_event("alice", "paid", {}, key="new") == Refused("run_over")


@on_stage
async def test_a_key_that_was_used_in_another_run_harms_no_run(stage: Stage) -> None:
    """The event is that of the first run; the second run goes on to its own ending."""
    results: list[object] = []

    @stage.gateway.agent("grocer")
    async def grocer(request: AgentInput) -> AsyncGenerator[object, None]:
        manager = WebSocketManager(request.context, gateway=stage.client)
        results.append(await manager.emit_critical_event("alice", "paid", {"n": 1}, key="k"))
        yield "ok"

    runs = [await stage.client.run("grocer", "pear") for _ in range(2)]
    assert [run.events[-1]["type"] for run in runs] == ["RUN_FINISHED", "RUN_FINISHED"]
    paid = [[one for one in run.events if one["type"] == "CUSTOM"] for run in runs]
    assert paid == [[message({"n": 1}, "paid")], []]
    positions = [one.position for one in results if isinstance(one, Queued | Delivered)]
    assert len(positions) == 2
    assert positions[0] == positions[1]


@on_stage
async def test_emit_critical_event_without_a_run_goes_to_the_person(stage: Stage) -> None:
    """It is a CUSTOM event on `user`, once for each key."""
    device = await stage.connect()
    manager = stage.manager()
    sent = [
        await manager.emit_critical_event("alice", "logged_out", {"why": "idle"}, key="k")
        for _ in range(2)
    ]
    assert sent[0] == sent[1]
    assert await device.got(1) == [message({"why": "idle"}, "logged_out")]
    with pytest.raises(BadRequest):
        await manager.emit_critical_event("alice", "towpath.run.ended")


# Recovery, clean-up, calls.


@on_stage
async def test_attempt_message_recovery_returns_what_was_missed(stage: Stage) -> None:
    """From a position on, in pages, and honest about what is gone."""
    manager = stage.manager()
    for n in range(5):
        await manager.send_to_user("alice", n)
    first = await manager.attempt_message_recovery("alice", limit=2)
    assert (first.messages, first.recovered) == ((message(0), message(1)), True)
    rest = await manager.attempt_message_recovery("alice", first.position)
    assert rest.messages == (message(2), message(3), message(4))
    assert (await manager.attempt_message_recovery("alice", rest.position)).messages == ()
    gone = await manager.attempt_message_recovery("alice", Position("another", 3))
    assert (gone.recovered, len(gone.messages)) == (False, 5)
    with pytest.raises(BadRequest):
        await manager.attempt_message_recovery("alice", limit=0)


@on_stage
async def test_force_cleanup_user_events_drops_what_is_stored(stage: Stage) -> None:
    """The messages are gone for good, positions go on, and other people keep theirs."""
    manager = stage.manager()
    sent = await manager.send_to_user("alice", 1)
    await stage.manager(BOB).send_to_user("bob", 1)
    assert await manager.force_cleanup_user_events("alice") == 1
    assert await manager.force_cleanup_user_events("alice") == 0
    kept = await manager.attempt_message_recovery("alice")
    assert (kept.messages, kept.recovered) == ((), False)
    again = await manager.send_to_user("alice", 2)
    # Forgetting takes an offset.
    assert again.position.offset == sent.position.offset + 2  # type: ignore[union-attr]
    assert len((await stage.manager(BOB).attempt_message_recovery("bob")).messages) == 1


@on_stage
async def test_handle_message_calls_a_method_as_the_person(stage: Stage) -> None:
    """The person's rights apply: roles come from the context, and threads are their own."""
    manager = stage.manager()
    who = await manager.handle_message("alice", {"method": "whoami"})
    assert (who["user"], who["roles"]) == ("alice", [])
    with pytest.raises(PermissionDenied):
        await manager.handle_message("alice", {"method": "session.list", "data": {"user": "bob"}})
    operator = UserExecutionContext(
        tenant="acme", user="alice", roles=frozenset({"towpath:inspect"})
    )
    listed = await stage.manager(operator).handle_message(
        "alice", {"method": "session.list", "data": {"user": "bob"}}
    )
    assert listed == {"sessions": []}
    for error, bad in ((BadRequest, {}), (MethodNotFound, {"method": "no.such"})):
        with pytest.raises(error):
            await manager.handle_message("alice", bad)


@on_stage
async def test_connect_to_job_reads_a_run_from_its_first_event_to_its_end(stage: Stage) -> None:
    """Whenever the application connects, it reads every event once, in order."""
    halfway, released = asyncio.Event(), asyncio.Event()
    runs: list[str | None] = []

    @stage.gateway.agent("slow")
    async def slow(request: AgentInput) -> AsyncGenerator[object, None]:
        runs.append(request.context.run)
        yield "one "
        halfway.set()
        await released.wait()
        yield "two"

    running = asyncio.create_task(stage.client.run("slow", "hi"))
    await halfway.wait()
    (run_id,) = runs
    assert run_id is not None
    job = await stage.manager().connect_to_job("alice", run_id)
    events = [await anext(aiter(job)) for _ in range(3)]
    assert stage.manager().get_connection_count("alice") == 0  # Reading is no connection.
    released.set()
    events += [event async for event in job]
    assert events == (await running).events
    await stage.manager().disconnect_from_job(job)
    again = await stage.manager().connect_to_job("alice", run_id)
    assert [event async for event in again] == events
    with pytest.raises(NotFound):
        await stage.manager(BOB).connect_to_job("bob", run_id)


@on_stage
async def test_connect_to_job_shows_no_other_run_of_the_thread(stage: Stage) -> None:
    """A run that waits for its turn is read from its own first event on."""
    released = asyncio.Event()

    @stage.gateway.agent("turns", double_texting="queue")
    async def turns(request: AgentInput) -> AsyncGenerator[object, None]:
        yield request.message
        await released.wait()

    bridge = AgentWebSocketBridge(ALICE, gateway=stage.client)
    starts = [await bridge.start_run("turns", text, thread_id="t1") for text in ("one", "two")]
    first, second = [start.run for start in starts if isinstance(start, StartedRun)]
    job = await stage.manager().connect_to_job("alice", second)
    reading = asyncio.create_task(_all(job))
    await asyncio.sleep(0)
    released.set()
    told = await reading
    assert {event["runId"] for event in told if event["type"].startswith("RUN_")} == {second}
    assert first != second
    assert "".join(event.get("delta", "") for event in told) == "two"


async def _all(job: JobEvents) -> list[dict[str, Any]]:
    return [event async for event in job]


@on_stage
async def test_disconnect_from_job_ends_the_reading_and_not_the_run(stage: Stage) -> None:
    """The run goes on without its reader, and the hub keeps no reader."""
    begun, released = asyncio.Event(), asyncio.Event()
    contexts: list[UserExecutionContext] = []

    @stage.gateway.agent("slow")
    async def slow(request: AgentInput) -> AsyncGenerator[object, None]:
        contexts.append(request.context)
        begun.set()
        await released.wait()
        yield "done"

    running = asyncio.create_task(stage.client.run("slow", "hi"))
    await begun.wait()
    assert contexts[0].run is not None
    job = await stage.manager().connect_to_job("alice", contexts[0].run)
    assert (await anext(aiter(job)))["type"] == "RUN_STARTED"
    reading = asyncio.create_task(anext(aiter(job), None))
    await asyncio.sleep(0)
    manager = stage.manager(contexts[0])
    assert isinstance(await manager.send_agent_event("alice", "note", {}), Queued)
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait((reading,))
    await stage.manager().disconnect_from_job(job)
    await stage.manager().disconnect_from_job(job)
    assert stage.node.parts.hub.subscriptions == 0
    released.set()
    assert (await running).text == "done"


# Cost.


@on_stage
async def test_a_dropped_manager_leaves_nothing_behind(stage: Stage) -> None:
    """A hundred thousand managers, each used and dropped, retain no memory."""
    for _ in range(1000):
        stage.manager().is_user_connected("alice")
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100_000):
            stage.manager().is_user_connected("alice")
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000
