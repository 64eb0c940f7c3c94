"""Sockets that an application authenticated itself, over a real server and the official client."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import centrifuge  # type: ignore[import-untyped] # it ships no types
import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from towpath import (
    Delivered,
    Gateway,
    Refused,
    Settings,
    UserExecutionContext,
    WebSocketManager,
    create_websocket_manager,
)
from towpath.manager import ConnectionEnded, ForeignUser

ALICE = UserExecutionContext(tenant="acme", user="alice")
Ends = list[ConnectionEnded | Refused | str | None]


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, which belong to the process of the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Application:
    """A host that knows its people by the path, and hands their sockets over."""

    def __init__(self, directory: Path, context: UserExecutionContext, **settings: Any) -> None:
        self.context = context
        self.gateway = Gateway(
            Settings(data=directory, jwt_key="k" * 32, tenant="acme", **settings)
        )
        self.ends: Ends = []
        self.app = Starlette(
            routes=[
                WebSocketRoute("/at-once/{user}", self.at_once),
                WebSocketRoute("/accepted/{user}", self.accepted),
                WebSocketRoute("/background/{user}", self.background),
                WebSocketRoute("/foreign/{user}", self.foreign),
                WebSocketRoute("/bound/{user}", self.bound),
            ]
        )
        self.gateway.mount(self.app, "/towpath")

    @property
    def tenant(self) -> WebSocketManager:
        return create_websocket_manager(tenant="acme", gateway=self.gateway)

    async def at_once(self, websocket: WebSocket) -> None:
        self.ends.append(await self.tenant.connect_user(_user(websocket), websocket))

    async def accepted(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await self.at_once(websocket)

    async def background(self, websocket: WebSocket) -> None:
        user = _user(websocket)
        connection = await self.tenant.add_connection(user, websocket, connection_id=f"of-{user}")
        self.ends.append(str(connection))
        assert self.tenant.get_connection_id_by_websocket(websocket) == connection
        assert isinstance(connection, str)
        self.ends.append(await self.tenant.handle_connection(connection))

    async def bound(self, websocket: WebSocket) -> None:
        manager = create_websocket_manager(self.context, gateway=self.gateway)
        self.ends.append(await manager.connect_user(_user(websocket), websocket))

    async def foreign(self, websocket: WebSocket) -> None:
        manager = create_websocket_manager(ALICE, gateway=self.gateway)
        with pytest.raises(ForeignUser):
            await manager.connect_user(_user(websocket), websocket)
        await websocket.close(4403)


def _user(websocket: WebSocket) -> str:
    user: str = websocket.path_params["user"]
    return user


@asynccontextmanager
async def served(
    directory: Path, context: UserExecutionContext = ALICE, **settings: Any
) -> AsyncIterator[tuple[Application, int]]:
    """Serve the application on a free port of loopback."""
    application = Application(directory, context, **settings)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = Server(uvicorn.Config(application.app, log_config=None, ws="websockets-sansio"))
        serving = asyncio.create_task(server.serve([listening]))
        try:
            while not server.started:
                await asyncio.sleep(0.005)
                assert not serving.done()
            yield application, listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


class Device(centrifuge.ClientEventHandler):  # type: ignore[misc] # untyped
    """The official client of one person, and what it was sent."""

    def __init__(self, port: int, path: str, token: str = "") -> None:
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.over: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self.client = centrifuge.Client(
            f"ws://127.0.0.1:{port}{path}", events=self, token=token, use_protobuf=False
        )

    async def on_publication(self, context: Any) -> None:
        await self.received.put(context.pub.data)

    async def on_disconnected(self, context: Any) -> None:
        await self.over.put((context.code, context.reason))


@pytest.mark.parametrize("path", ["/at-once", "/accepted", "/background"])
async def test_connect_user_serves_the_official_client_to_its_end(
    tmp_path: Path, path: str
) -> None:
    """Accepted or not, at once or in the background: messages arrive, and the end is reported."""
    async with served(tmp_path) as (application, port):
        device = Device(port, f"{path}/alice")
        await device.client.connect()
        assert await application.tenant.wait_for_connection("alice", 10)
        sent = await application.tenant.send_to_user_with_wait("alice", {"n": 1}, wait_timeout=10)
        assert isinstance(sent, Delivered)
        async with asyncio.timeout(10):
            event = await device.received.get()
        assert event == {"type": "CUSTOM", "name": "message", "value": {"n": 1}}
        assert application.tenant.is_user_connected("alice")
        assert not application.tenant.is_user_connected("bob")
        assert (
            await application.tenant.disconnect_user("alice", code=4501, reason="signed out") == 1
        )
        async with asyncio.timeout(10):
            assert await device.over.get() == (4501, "signed out")
    end = application.ends[-1]
    assert isinstance(end, ConnectionEnded)
    assert (end.code, end.reason) == (4501, "signed out")
    if path == "/background":
        assert application.ends[0] == end.id == "of-alice"


async def test_connect_user_ignores_a_credential_of_the_client(tmp_path: Path) -> None:
    """The person is whom the application authenticated, whatever token the client sends."""
    async with served(tmp_path) as (application, port):
        device = Device(port, "/at-once/alice", token="not a token")
        await device.client.connect()
        assert await application.tenant.wait_for_connection("alice", 10)
        await device.client.disconnect()


async def test_connect_user_ends_with_the_context(tmp_path: Path) -> None:
    """A client cannot renew what the application authenticated: no `expires`, and 3005 in time."""
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    context = UserExecutionContext(tenant="acme", user="alice", expires=soon)
    async with served(tmp_path, context, expiry_grace=0.2) as (_, port):
        async with websockets.connect(f"ws://127.0.0.1:{port}/bound/alice") as plain:
            await plain.send('{"id":1,"connect":{}}')
            reply = json.loads(await plain.recv())["connect"]
            assert "expires" not in reply
            assert "ttl" not in reply
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await plain.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3005


async def test_connect_user_refuses_an_identity_that_is_not_the_contexts(tmp_path: Path) -> None:
    """The socket is not touched, so the application may still answer it."""
    async with served(tmp_path) as (application, port):
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(f"ws://127.0.0.1:{port}/foreign/bob")
        assert application.tenant.get_connection_count() == 0


async def test_connect_user_checks_the_origin_as_the_gateway_does(tmp_path: Path) -> None:
    """A page of another site is refused with 403, and the endpoint learns of it."""
    async with served(tmp_path) as (application, port):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(
                f"ws://127.0.0.1:{port}/at-once/alice",
                additional_headers={"Origin": "https://evil.example"},
            )
        assert refused.value.response.status_code == 403
    assert application.ends == [Refused("upgrade")]


async def test_add_connection_is_refused_while_the_gateway_drains(tmp_path: Path) -> None:
    """No socket is taken over that would be closed at once."""
    async with served(tmp_path) as (application, port):
        await application.gateway.drain()
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(f"ws://127.0.0.1:{port}/at-once/alice")
    assert application.ends == [Refused("unavailable")]


async def test_handle_connection_knows_only_connections_of_its_people(tmp_path: Path) -> None:
    """An unknown id, or another tenant's connection, is None at once."""
    async with served(tmp_path) as (application, port):
        device = Device(port, "/background/alice")
        await device.client.connect()
        assert await application.tenant.wait_for_connection("alice", 10)
        stranger = create_websocket_manager(tenant="globex", gateway=application.gateway)
        assert await stranger.handle_connection("of-alice") is None
        assert await application.tenant.handle_connection("nobody") is None
        await device.client.disconnect()
