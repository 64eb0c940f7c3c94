"""nginx in front of a server does to headers and connections what its configuration says."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.nginx import Nginx, nginx

pytestmark = [pytest.mark.servers, pytest.mark.nginx]


def describe(connection: ServerConnection, request: Request) -> Response | None:
    """Answer a plain request with its headers as JSON, and let an upgrade go on."""
    if "Upgrade" in request.headers:
        return None
    return connection.respond(HTTPStatus.OK, json.dumps(dict(request.headers.raw_items())))


async def echo(connection: ServerConnection) -> None:
    assert connection.request is not None, "the handshake is over"
    await connection.send(connection.request.headers.get("Authorization", "none"))
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def fronted(**options: Any) -> AsyncIterator[Nginx]:
    """Run a server that tells what it hears, with nginx in front of it."""
    async with serve(echo, "127.0.0.1", 0, process_request=describe) as server:
        port: int = next(iter(server.sockets)).getsockname()[1]
        with nginx(port, **options) as front:
            yield front


async def received_headers(front: Nginx, **headers: str) -> Any:
    async with httpx2.AsyncClient(base_url=front.http, trust_env=False) as client:
        answer = await client.get("/some/where?ticket=x", headers=headers)
    assert answer.status_code == 200, answer.text
    return {name.lower(): value for name, value in answer.json().items()}


async def test_requests_pass_with_the_address_of_the_client() -> None:
    """The server sees the outer Host, the credential, and who is really calling; a log is kept."""
    async with fronted() as front:
        headers = await received_headers(
            front, authorization="Bearer abc", **{"x-forwarded-for": "1.2.3.4"}
        )
        assert headers["host"] == f"127.0.0.1:{front.port}"
        assert headers["authorization"] == "Bearer abc"
        assert headers["x-forwarded-for"] == "1.2.3.4, 127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"
        assert '"GET /some/where?ticket=x HTTP/1.1" 200' in front.access_log


async def test_upgrades_pass() -> None:
    """A WebSocket goes through, credential and all, both ways."""
    async with fronted() as front:
        given = {"Authorization": "Bearer abc"}
        async with connect(front.ws, additional_headers=given, proxy=None) as socket:
            assert await socket.recv() == "Bearer abc"
            await socket.send("hello")
            assert await socket.recv() == "hello"


async def test_headers_are_stripped() -> None:
    """A header that is stripped reaches neither a request nor an upgrade; others do."""
    async with fronted(strip=["Authorization", "X-Forwarded-For"]) as front:
        headers = await received_headers(front, authorization="Bearer abc", accept="a/b")
        assert headers["accept"] == "a/b"
        assert not {"authorization", "x-forwarded-for"} & headers.keys()
        given = {"Authorization": "Bearer abc"}
        async with connect(front.ws, additional_headers=given, proxy=None) as socket:
            assert await socket.recv() == "none"


@pytest.mark.parametrize(
    ("size", "buffers", "status"),
    [(3072, (4, 2048), 400), (3072, None, 200), (9216, None, 400), (9216, (4, 16384), 431)],
)
async def test_header_lines_are_bounded(
    size: int, buffers: tuple[int, int] | None, status: int
) -> None:
    """A line longer than a buffer gets 400 from nginx; what fits is for the server to bound."""
    async with (
        fronted(header_buffers=buffers) as front,
        httpx2.AsyncClient(base_url=front.http, trust_env=False) as client,
    ):
        answer = await client.get("/", headers={"authorization": "a" * size})
        assert answer.status_code == status


async def test_silence_is_cut() -> None:
    """A connection on which the server says nothing for that long is closed."""
    async with fronted(read_timeout=0.3) as front:
        async with connect(front.ws, proxy=None) as socket:
            await socket.recv()
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), timeout=5)
        assert "upstream timed out" in front.error_log


async def test_more_directives() -> None:
    """Any other directive of the server and of the location has its place."""
    async with (
        fronted(server=["add_header X-Front yes"], location=["client_max_body_size 10"]) as front,
        httpx2.AsyncClient(base_url=front.http, trust_env=False) as client,
    ):
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["x-front"]) == (200, "yes")
        assert (await client.post("/", content=b"x" * 11)).status_code == 413


async def test_it_ends_with_its_context() -> None:
    """Afterwards nobody listens and its files are gone; a wrong directive is said at once."""
    async with fronted() as front:
        assert front.directory.is_dir()
    assert not front.directory.exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", front.port)
    with pytest.raises(AssertionError, match="it ended"), nginx(1, server=["no_such_directive on"]):
        pass
