"""The test kit, as the tests of an application use it."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, assert_type

from towpath import AgentInput, Gateway, Settings
from towpath.testing import (
    FinishedRun,
    Gate,
    GatewayTestClient,
    RunHandle,
    ServerProcess,
    TokenSigner,
    VirtualClock,
    expect_events,
    scripted,
)
from towpath.testing.wire_client import WireClient, wire_client

gateway = Gateway(Settings())


@gateway.agent("parrot")
async def parrot(request: AgentInput) -> AsyncGenerator[str, None]:
    """Repeat the message."""
    yield request.message


async def in_process() -> None:
    """Run an agent without a server."""
    async with GatewayTestClient(gateway) as client:
        assert_type(client, GatewayTestClient)
        run = await client.run("parrot", "hello", user="alice")
        assert_type(run, FinishedRun)
        assert_type(run.text, str)
        assert_type(run.code, str | None)
        assert_type(run.events, list[dict[str, Any]])
        expect_events(run.events, ["RUN_STARTED", ..., {"delta": "hello"}, ...])
        assert_type(await client.approve(run, payload={"limit": 3}), FinishedRun)
        assert_type(await client.notices("alice", tenant="globex"), list[dict[str, Any]])


async def held(clock: VirtualClock) -> None:
    """Hold an agent at a gate, in virtual time."""
    gate = Gate()
    gateway.agent("held")(scripted("One ", gate, ValueError("no")))
    async with GatewayTestClient(gateway, clock=clock, signer=TokenSigner()) as client:
        started = await client.start("held", "go", roles=["towpath:service"])
        assert_type(started, RunHandle)
        await gate.reached(timeout=1)
        clock.advance(60)
        assert_type(await client.cancel(started), str)
        assert_type(client.signer.token("bob", expires_in=60), str)


async def over_the_wire(data: Path) -> None:
    """Talk to a real server."""
    with ServerProcess(data) as server:
        assert_type(server.token("alice"), str)
        async with wire_client(server.ws, server.token("alice")) as client:
            assert_type(client, WireClient)
            assert_type(await client.command("subscribe", channel="tenant"), dict[str, Any])
            assert_type(await client.until_closed(), int)


async def mistakes(client: GatewayTestClient) -> None:
    """A type checker finds each of these before the test runs."""
    await client.run(parrot)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    expect_events([], [3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await client.run("parrot", who="alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    GatewayTestClient(Settings())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
