"""The test client: an agent's run, in process, as the gateway's clients would see it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from towpath import AgentError, AgentInput, Gateway, Settings
from towpath.errors import BadRequest, NotFound
from towpath.telemetry import RunEnded, TelemetryEvent
from towpath.testing.gateway_client import GatewayTestClient


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

    return gateway


async def test_a_run_gives_its_text_and_all_its_events(gateway: Gateway) -> None:
    """Text is joined over messages; events are those of the log, from start to ending."""
    async with GatewayTestClient(gateway) as client:
        run = await client.run("grocer", "pears", user="bob")
    assert run.text == "bob: pears cost 0.30."
    assert (run.events[0]["type"], run.ending["type"]) == ("RUN_STARTED", "RUN_FINISHED")
    assert run.code is None


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
        assert (await client.run("grocer", "gold")).code == "grocer.unknown"
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
