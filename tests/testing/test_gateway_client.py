"""The test client: an agent's run, in process, as the gateway's clients would see it."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from towpath import AgentError, AgentInput, Gateway, Settings, UserExecutionContext
from towpath.errors import BadRequest, Conflict, NotFound, PermissionDenied, TooManyRequests
from towpath.runs.interrupts import NotOpen
from towpath.telemetry import RunEnded, TelemetryEvent
from towpath.testing import Gate, GatewayTestClient, VirtualClock, scripted


@pytest.fixture
def gateway() -> Gateway:
    """A gateway of one grocer, as the tutorial has it."""
    gateway = Gateway(Settings())

    @gateway.agent("grocer")
    async def grocer(request: AgentInput) -> AsyncGenerator[object, None]:
        """Say what a fruit costs."""
        if request.message == "gold":
            raise AgentError("We have no gold.", code="grocer.unknown")
        if request.message == "for ever":
            await asyncio.sleep(60)
        yield f"{request.context.user}: "
        yield {"type": "STATE_SNAPSHOT", "snapshot": {"asked": len(request.messages)}}
        yield f"{request.message} cost 0.30."

    @gateway.agent("buyer")
    async def buyer(request: AgentInput) -> AsyncGenerator[object, None]:
        """Ask before each purchase."""
        if request.resume:
            answers = [one["payload"] for one in request.resume]
            yield json.dumps(answers)
            return
        interrupts = []
        for what in request.message.split():
            for event in tool_call(what, json.dumps({"what": what})):
                yield event
            interrupts.append({"id": f"i-{what}", "reason": "tool_call", "toolCallId": what})
        outcome = {"type": "interrupt", "interrupts": interrupts}
        yield {"type": "RUN_FINISHED", "outcome": outcome}

    return gateway


def tool_call(name: str, *deltas: str, result: str | None = None) -> list[dict[str, str]]:
    """Return the events of a tool call, whose id is the tool's name."""
    call = {"toolCallId": name}
    events = [{"type": "TOOL_CALL_START", **call, "toolCallName": name}]
    events += [{"type": "TOOL_CALL_ARGS", **call, "delta": delta} for delta in deltas]
    events += [{"type": "TOOL_CALL_END", **call}]
    if result is not None:
        message = {"messageId": f"m-{name}", "role": "tool", "content": result}
        events += [{"type": "TOOL_CALL_RESULT", **call, **message}]
    return events


async def test_a_run_gives_its_text_and_all_its_events(gateway: Gateway) -> None:
    """Text is joined over messages; events are those of the log, from start to ending."""
    async with GatewayTestClient(gateway) as client:
        run = await client.run("grocer", "pears", user="bob")
    assert run.text == "bob: pears cost 0.30."
    assert (run.events[0]["type"], run.ending["type"]) == ("RUN_STARTED", "RUN_FINISHED")
    assert (run.outcome, run.code) == ("success", None)


async def test_threads_go_on_and_people_are_apart(gateway: Gateway) -> None:
    """A thread remembers, and another person's thread of the same id is their own."""
    async with GatewayTestClient(gateway) as client:
        first = await client.run("grocer", "pears", thread="t1")
        second = await client.run("grocer", "plums", thread="t1")
        others = await client.run("grocer", "pears", thread="t1", user="bob")

    def asked(events: list[dict[str, Any]]) -> int:
        (count,) = [one["snapshot"]["asked"] for one in events if one["type"] == "STATE_SNAPSHOT"]
        return int(count)

    assert [asked(one.events) for one in (first, second, others)] == [1, 4, 1]
    assert second.run != first.run


async def test_many_runs_at_once_each_get_their_own_events(gateway: Gateway) -> None:
    """No run waits for another, and none gets another's text."""
    async with GatewayTestClient(gateway) as client:
        users = [f"u{n}" for n in range(50)]
        runs = await asyncio.gather(*(client.run("grocer", "figs", user=user) for user in users))
    assert [run.text for run in runs] == [f"{user}: figs cost 0.30." for user in users]


async def test_what_goes_wrong_is_what_clients_would_see(gateway: Gateway) -> None:
    """An agent's error is the run's code; what cannot be started raises; a hang ends the wait."""
    async with GatewayTestClient(gateway, timeout=0.2) as client:
        run = await client.run("grocer", "gold")
        assert (run.outcome, run.code) == ("error", "grocer.unknown")
        with pytest.raises(NotFound):
            await client.run("nobody", "pears")
        with pytest.raises(BadRequest):
            await client.run("grocer", "")
        with pytest.raises(TimeoutError):
            await client.run("grocer", "for ever")


async def test_observers_see_what_happens(gateway: Gateway) -> None:
    """The client has telemetry of its own, so that a test can look."""
    seen: list[TelemetryEvent] = []
    client = GatewayTestClient(gateway)
    client.telemetry.add_observer(seen.append)
    async with client:
        await client.run("grocer", "pears")
    assert [one.status for one in seen if isinstance(one, RunEnded)] == ["finished"]


async def test_the_text_has_every_message_of_the_run(gateway: Gateway) -> None:
    """However many messages an agent writes, and however many were there before."""
    pause = {"type": "CUSTOM", "name": "pause", "value": None}
    words = [item for number in range(40) for item in (f"{number} ", pause)]
    gateway.agent("counter")(scripted(*words))
    async with GatewayTestClient(gateway) as client:
        await client.run("counter", "go", thread="t1")
        second = await client.run("counter", "again", thread="t1")
    assert second.text == "".join(f"{number} " for number in range(40))


async def test_a_run_gives_its_tool_calls_in_plain_values(gateway: Gateway) -> None:
    """Arguments and results are decoded; what is not JSON stays text; no result is None."""
    calls = (
        *tool_call("price", '{"of":', ' "pears"}', result='{"price": 0.3}'),
        *tool_call("greet", result="Hello"),
        *tool_call("wait", "a while"),
    )
    gateway.agent("clerk")(scripted(*calls))
    async with GatewayTestClient(gateway) as client:
        run = await client.run("clerk", "go")
    shown = [(call.name, call.arguments, call.result) for call in run.tool_calls]
    assert shown == [
        ("price", {"of": "pears"}, {"price": 0.3}),
        ("greet", "", "Hello"),
        ("wait", "a while", None),
    ]


async def test_messages_and_state_are_those_of_the_thread(gateway: Gateway) -> None:
    """A run continues the state and the messages of the thread, also after the thread was new."""
    more = {"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/more", "value": 1}]}
    gateway.agent("more")(scripted("And more.", more))
    async with GatewayTestClient(gateway) as client:
        first = await client.run("grocer", "pears", thread="t1")
        second = await client.run("more", "and?", thread="t1")
        view = await client.thread("t1")
        await client.call("thread.delete", {"thread_id": "t1"})
        new = await client.run("grocer", "plums", thread="t1")
    assert (first.state, second.state) == ({"asked": 1}, {"asked": 1, "more": 1})
    assert [one["role"] for one in first.messages] == ["user", "assistant", "assistant"]
    assert second.messages[: len(first.messages)] == first.messages
    assert (view.messages, view.state) == (second.messages, second.state)
    assert [one["content"] for one in new.messages[:2]] == ["plums", "alice: "]


async def test_a_run_is_watched_and_cancelled_while_it_goes_on(gateway: Gateway) -> None:
    """Its events so far are there, then it ends with the code of a cancel; later is too late."""
    gate = Gate()
    gateway.agent("held")(scripted("One ", gate, "two."))
    async with GatewayTestClient(gateway) as client:
        started = await client.start("held", "go")
        await gate.reached()
        so_far = await client.events(started)
        assert await client.cancel(started) == "accepted"
        run = await client.wait(started)
        assert await client.cancel(started) == "too_late"
    assert so_far == run.events[: len(so_far)]
    assert so_far[-1]["delta"] == "One "
    assert (run.text, run.outcome) == ("One ", "cancelled")


async def test_a_queued_run_is_waited_for_by_its_own_ending(gateway: Gateway) -> None:
    """The run before it on the thread is not taken for it."""
    gate = Gate()
    gateway.agent("held", double_texting="queue")(scripted(gate, "done"))
    async with GatewayTestClient(gateway) as client:
        first = await client.start("held", "first", thread="t1")
        second = await client.start("held", "second", thread="t1")
        gate.release()
        runs = await asyncio.gather(client.wait(second), client.wait(first))
    assert [run.ending["runId"] for run in runs] == [second.run, first.run]
    assert [run.events[0]["type"] for run in runs] == ["RUN_STARTED"] * 2
    assert [len(run.messages) for run in runs] == [4, 2]


@pytest.mark.parametrize("approved", [True, False])
async def test_a_person_decides_and_the_agent_goes_on(gateway: Gateway, approved: bool) -> None:
    """The agent gets the decision with its payload; a second decision is late."""
    async with GatewayTestClient(gateway) as client:
        run = await client.run("buyer", "figs")
        decide = client.approve if approved else client.refuse
        done = await decide(run, payload={"limit": 3})
        with pytest.raises(NotOpen, match="already"):
            await client.approve(run)
        with pytest.raises(ValueError, match="without interrupts"):
            await client.approve(done)
    assert run.outcome == "interrupt"
    assert [one["id"] for one in run.interrupts] == ["i-figs"]
    assert json.loads(done.text) == [{"limit": 3, "approved": approved}]
    assert done.events[0]["parentRunId"] == run.run


async def test_interrupts_are_decided_one_by_one(gateway: Gateway) -> None:
    """The last decision starts the run that continues; what was not shown is not approved."""
    async with GatewayTestClient(gateway) as client:
        run = await client.run("buyer", "figs plums")
        with pytest.raises(Conflict):
            await client.decide(run, "i-figs", "approve", arguments='{"what": "gold"}')
        with pytest.raises(NotFound):
            await client.decide(run, "i-gold", "approve")
        assert await client.decide(run, "i-plums", "refuse") is None
        started = await client.decide(run, "i-figs", "approve")
        assert started is not None
        done = await client.wait(started)
    assert json.loads(done.text) == [{"approved": True}, {"approved": False}]


async def test_an_interrupt_expires_when_the_clock_says_so(gateway: Gateway) -> None:
    """A second before it is open; at its time it has expired, and the person is notified."""
    clock = VirtualClock()
    async with GatewayTestClient(gateway, clock=clock) as client:
        early, late = [await client.run("buyer", "figs") for _ in range(2)]
        clock.advance(gateway.settings.interrupt_timeout - 1)
        assert (await client.approve(early)).code is None
        clock.advance(1)
        with pytest.raises(NotOpen, match="expired"):
            await client.approve(late)
        names = [one["name"] for one in await client.notices()]
    assert names.count("towpath.interrupt.expired") == 1


async def test_limits_are_those_of_the_clock(gateway: Gateway) -> None:
    """A person who has started too many runs may start others once time has passed."""
    gateway.settings = Settings(runs_burst=2, runs_per_second=1.0)
    clock = VirtualClock()
    async with GatewayTestClient(gateway, clock=clock) as client:
        await client.run("grocer", "pears")
        await client.run("grocer", "pears")
        with pytest.raises(TooManyRequests):
            await client.run("grocer", "pears")
        assert (await client.run("grocer", "pears", user="bob")).code is None
        clock.advance(1)
        assert (await client.run("grocer", "pears")).code is None


async def test_people_of_two_tenants_are_apart(gateway: Gateway) -> None:
    """The same user name and thread id in another tenant is another person's thread."""
    async with GatewayTestClient(gateway, tenant="acme") as client:
        await client.run("grocer", "pears", thread="t1")
        await client.run("grocer", "plums", thread="t1", tenant="globex")
        ours = await client.thread("t1")
        theirs = await client.thread("t1", tenant="globex")
        with pytest.raises(NotFound):
            await client.thread("t1", user="bob")
    assert [one.messages[0]["content"] for one in (ours, theirs)] == ["pears", "plums"]


async def test_notices_reach_their_person_only(gateway: Gateway) -> None:
    """A service's notice is in the channel of its user or of the tenant; others may not publish."""
    notice = {"name": "parcel", "value": {"at": "door"}, "user": "bob"}
    async with GatewayTestClient(gateway) as client:
        with pytest.raises(PermissionDenied):
            await client.call("notice.publish", notice)
        role = ["towpath:service"]
        await client.call("notice.publish", notice, user="post", roles=role)
        await client.call("notice.publish", {"name": "closed"}, user="post", roles=role)
        bob, alice, everybody = [await client.notices(who) for who in ("bob", "alice", None)]
    assert bob == [{"type": "CUSTOM", "name": "parcel", "value": {"at": "door"}}]
    assert (alice, [one["name"] for one in everybody]) == ([], ["closed"])


async def test_a_run_that_hangs_says_how_far_it_came(gateway: Gateway) -> None:
    """The error has the types of the events so far."""
    gateway.agent("held")(scripted("One ", Gate()))
    async with GatewayTestClient(gateway, timeout=0.05) as client:
        with pytest.raises(TimeoutError, match=r"0\.05 s.*RUN_STARTED, TEXT_MESSAGE_START"):
            await client.run("held", "go")


async def test_a_failed_assertion_stays_what_it_is(gateway: Gateway) -> None:
    """No group of exceptions is put around it, also while an agent still works."""
    gate = Gate()
    gateway.agent("held")(scripted(gate))

    async def fail() -> None:
        async with GatewayTestClient(gateway) as client:
            await client.start("held", "go")
            await gate.reached()
            raise AssertionError("as it was")

    with pytest.raises(AssertionError, match="as it was"):
        await fail()
    assert gateway.node is None


async def test_the_gateway_serves_requests_by_the_clients_node(gateway: Gateway) -> None:
    """As an ASGI application it accepts the signer's tokens until the clock ends them."""
    clock = VirtualClock()
    transport = httpx2.ASGITransport(app=gateway)
    async with (
        GatewayTestClient(gateway, clock=clock) as client,
        httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http,
    ):
        token = client.signer.token("bob", tenant="globex", expires_in=60)
        http.headers["authorization"] = f"Bearer {token}"
        await client.run("grocer", "pears", user="bob", tenant="globex", thread="t1")
        thread = (await http.get("/api/v1/threads/t1")).json()
        clock.advance(100)
        expired = await http.get("/api/v1/threads/t1")
    assert thread["messages"][0]["content"] == "pears"
    assert expired.status_code == 401


async def test_the_gateways_own_calls_work_from_tasks_and_threads(gateway: Gateway) -> None:
    """A message of the application's code is in the person's channel."""
    alice = UserExecutionContext(tenant="acme", user="alice")
    async with GatewayTestClient(gateway) as client:
        await gateway.notify(alice, "one")
        await asyncio.to_thread(gateway.portal.call, gateway.notify, alice, "two")
        notices = await client.notices("alice")
    assert [one["value"] for one in notices] == ["one", "two"]


async def test_a_client_runs_once_and_in_its_context_only(gateway: Gateway) -> None:
    """Outside of its context it says what to do; one gateway has one node at a time."""
    client = GatewayTestClient(gateway)
    with pytest.raises(RuntimeError, match="async with client"):
        await client.run("grocer", "pears")
    async with client:
        with pytest.raises(RuntimeError, match="the gateway is running"):
            await GatewayTestClient(gateway).__aenter__()
        assert (await client.run("grocer", "pears")).code is None
    async with client:
        assert (await client.run("grocer", "pears")).code is None
