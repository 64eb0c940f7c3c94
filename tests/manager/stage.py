"""A running gateway in memory, its people, and sockets that the application hands over."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.kit.transport import MemoryTransport
from towpath import Gateway, Settings, UserExecutionContext, WebSocketManager
from towpath.auth.handshake import UpgradeInfo
from towpath.connections.client_connection import ClientConnection
from towpath.identity import Principal
from towpath.node.node import Node
from towpath.testing.gateway_client import GatewayTestClient

ALICE = UserExecutionContext(tenant="acme", user="alice")
BOB = UserExecutionContext(tenant="acme", user="bob")
STRANGER = UserExecutionContext(tenant="globex", user="alice")
"""A person of another tenant with Alice's user id."""


@dataclass
class Device:
    """A connected device: what it was sent is in its socket."""

    socket: MemoryTransport
    connection: ClientConnection
    serving: asyncio.Task[None]

    @property
    def id(self) -> str:
        return self.connection.id

    def received(self, channel: str = "user") -> list[dict[str, Any]]:
        """Return the events of the channel that were pushed to the device."""
        pushes = [frame["push"] for frame in self.socket.frames if "push" in frame]
        return [push["pub"]["data"] for push in pushes if push["channel"] == channel]

    async def replied(self, count: int) -> None:
        """Wait until so many commands have their reply."""
        async with asyncio.timeout(10):
            while len(self.socket.replies) < count:  # noqa: ASYNC110 - a socket in memory
                await asyncio.sleep(0.001)

    async def got(self, count: int, channel: str = "user") -> list[dict[str, Any]]:
        """Wait until so many events of a channel were pushed, and return them."""
        async with asyncio.timeout(10):
            while len(self.received(channel)) < count:  # noqa: ASYNC110 - a socket in memory
                await asyncio.sleep(0.001)
        return self.received(channel)


@dataclass
class Stage:
    """A running gateway, and the devices of its people."""

    gateway: Gateway
    client: GatewayTestClient
    devices: list[Device] = field(default_factory=list)

    @property
    def node(self) -> Node:
        return self.client.node

    def manager(self, context: UserExecutionContext = ALICE) -> WebSocketManager:
        """Return a manager of a person."""
        return WebSocketManager(context, gateway=self.gateway)

    def tenant(self, tenant: str = "acme") -> WebSocketManager:
        """Return a manager of a tenant."""
        return WebSocketManager(tenant=tenant, gateway=self.gateway)

    def arrive(self, context: UserExecutionContext = ALICE) -> Device:
        """Open the socket of a device that has not sent its connect command yet."""
        socket = MemoryTransport()
        principal = Principal(tenant=context.tenant, user=context.user)
        connection = self.node.open(socket, UpgradeInfo(), principal=principal)
        device = Device(socket, connection, asyncio.create_task(self.node.serve(connection)))
        self.devices.append(device)
        return device

    async def connect(self, context: UserExecutionContext = ALICE) -> Device:
        """Connect a device, and return it once it has its reply."""
        device = self.arrive(context)
        device.socket.say({"id": 1, "connect": {}})
        await device.replied(1)
        return device


@asynccontextmanager
async def staged(**settings: Any) -> AsyncIterator[Stage]:
    """Run a gateway over a log in memory."""
    gateway = Gateway(Settings(**settings))
    async with GatewayTestClient(gateway) as client:
        yield Stage(gateway, client)


def on_stage(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Run a test with a stage as its first argument."""

    @functools.wraps(test)
    async def run(**fixtures: Any) -> None:
        async with staged() as stage:
            await test(stage, **fixtures)

    _, *fixtures = inspect.signature(test).parameters.values()
    run.__signature__ = inspect.Signature(fixtures)  # type: ignore[attr-defined]
    return run
