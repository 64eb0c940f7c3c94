"""Scripted agents and gates, as runs of a gateway show them."""

import pytest

from towpath import AgentError, Gateway, Settings
from towpath.events import tool_call
from towpath.testing import Gate, GatewayTestClient, expect_events, scripted


async def test_a_script_is_played_in_order_and_again_in_each_run() -> None:
    """Text, events and values, as any agent yields them; each run has tool calls of its own."""
    gateway = Gateway(Settings())
    state = {"type": "STATE_SNAPSHOT", "snapshot": {"paid": True}}
    call = tool_call("pay", {"sum": 3})
    gateway.agent("clerk")(scripted("Hello ", state, call, call.result("done"), "there."))
    async with GatewayTestClient(gateway) as client:
        runs = [await client.run("clerk", "go", thread="t1") for _ in range(2)]
    for run in runs:
        expect_events(
            run.events,
            [
                "RUN_STARTED",
                "TEXT_MESSAGE_START",
                {"type": "TEXT_MESSAGE_CONTENT", "delta": "Hello "},
                "TEXT_MESSAGE_END",
                state,
                {"type": "TOOL_CALL_START", "toolCallName": "pay"},
                {"type": "TOOL_CALL_ARGS", "delta": '{"sum": 3}'},
                "TOOL_CALL_END",
                {"type": "TOOL_CALL_RESULT", "content": "done"},
                "TEXT_MESSAGE_START",
                {"type": "TEXT_MESSAGE_CONTENT", "delta": "there."},
                "TEXT_MESSAGE_END",
                "RUN_FINISHED",
            ],
        )
    first, second = [run.tool_calls[0].id for run in runs]
    assert first != second


@pytest.mark.parametrize(
    ("error", "code"),
    [(AgentError("No.", code="clerk.no"), "clerk.no"), (ValueError("secret"), "run.failed")],
)
async def test_a_script_may_end_with_an_error(error: Exception, code: str) -> None:
    """The run ends as any run does whose agent raises."""
    gateway = Gateway(Settings())
    gateway.agent("clerk")(scripted("Well, ", error, "never said"))
    async with GatewayTestClient(gateway) as client:
        run = await client.run("clerk", "go")
    assert (run.text, run.code) == ("Well, ", code)


async def test_a_gate_holds_every_agent_until_it_is_released() -> None:
    """Before it is released nobody passes, afterwards everybody does at once."""
    gateway, gate = Gateway(Settings()), Gate()
    gateway.agent("clerk")(scripted("One ", gate, "two."))
    async with GatewayTestClient(gateway) as client:
        started = await client.start("clerk", "go")
        await gate.reached()
        before = await client.events(started)
        gate.release()
        first, second = await client.wait(started), await client.run("clerk", "go")
    assert [event["delta"] for event in before if "delta" in event] == ["One "]
    assert (first.text, second.text) == ("One two.", "One two.")


async def test_a_gate_that_nobody_reaches_has_a_name() -> None:
    """A test that waits in vain ends, and says what for."""
    with pytest.raises(TimeoutError, match="no agent reached the 'payment'"):
        await Gate("payment").reached(timeout=0.01)
