"""Heads that are too large or cannot be read are answered at once, on every path."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from tests.servers.heads import AT_ONCE, TOO_LARGE, head, line_of, status_of
from tests.servers.issuing import http_client
from towpath.http.uvicorn_protocols import (
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    MAX_LINES,
    HttpProtocol,
    SocketProtocol,
)
from towpath.testing.server import ServerProcess

pytestmark = pytest.mark.servers


@pytest.mark.parametrize(("path", "good"), [("/health/live", 200), ("/connection/websocket", 101)])
async def test_a_head_over_the_bounds_is_431_at_once(
    server: ServerProcess, path: str, good: int
) -> None:
    """A line of the bound passes, one more byte does not; nor more lines, or a head without end."""
    used = head(path).count(b"\r\n") - 2
    many = [f"X-{number}: y" for number in range(MAX_LINES)]
    wide = [f"X-{number}: {'y' * 8000}" for number in range(9)]
    assert sum(map(len, wide)) > MAX_HEAD_BYTES
    cases = {
        "a line at the bound": (head(path, line_of(MAX_LINE_BYTES)), good),
        "a line past it": (head(path, line_of(MAX_LINE_BYTES + 1)), TOO_LARGE),
        "a long line": (head(path, line_of(16 * 1024)), TOO_LARGE),
        "a huge line": (head(path, line_of(1024 * 1024)), TOO_LARGE),
        "a line without an end": (head(path)[:-2] + b"X: " + b"y" * 200_000, TOO_LARGE),
        "a name without an end": (head(path)[:-2] + b"y" * 200_000, TOO_LARGE),
        "a target too long": (head(f"{path}?ticket={'t' * MAX_LINE_BYTES}"), TOO_LARGE),
        "a target without an end": (f"GET {path}?".encode() + b"t" * 200_000, TOO_LARGE),
        "lines at the bound": (head(path, *many[used:]), good),
        "a line too many": (head(path, *many[used:], "Z: z"), TOO_LARGE),
    }
    for what, (request, expected) in cases.items():
        status, seconds = await status_of(server.port, request)
        assert (status, seconds < AT_ONCE) == (expected, True), what


@pytest.mark.parametrize("path", ["/health/live", "/connection/websocket"])
async def test_a_head_that_drips_has_an_end_too(server: ServerProcess, path: str) -> None:
    """A head that never ends is cut off at its bound, however small the pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head(path)[:-2])
    sent = 0
    answer = asyncio.create_task(reader.readline())
    while not answer.done():
        assert sent <= 2 * MAX_HEAD_BYTES
        writer.write(b"X: " + b"y" * 995 + b"\r\n")
        sent += 1000
        await writer.drain()
        await asyncio.sleep(0.001)
    assert b" 431 " in await answer
    writer.transport.abort()


async def test_the_bounds_are_of_one_request_not_of_a_connection(server: ServerProcess) -> None:
    """A connection is kept for a hundred requests with large heads, one after another."""
    async with http_client(server, server.token("kept")) as rest:
        for number in range(100):
            headers = {"X-Filler": "f" * 4000}
            body = {"request_id": f"kept-{number}", "title": "t" * 150}
            answer = await rest.post("/api/v1/threads", json=body, headers=headers)
            assert answer.status_code == 200


async def test_an_upgrade_that_cannot_be_read_is_400_at_once(server: ServerProcess) -> None:
    """A body, an encoding, half a key: an answer, never a hang."""
    path = "/connection/websocket"
    for lines in (
        ["Content-Length: 5"],
        ["Transfer-Encoding: chunked"],
        ["Sec-WebSocket-Key: again"],
        ["Sec-WebSocket-Protocol: ,;,"],
    ):
        status, seconds = await status_of(server.port, head(path, *lines))
        assert (status, seconds < AT_ONCE) == (400, True), lines
    assert server.ready()


NOT_ASCII = b"\xff\xfecaf\xc3\xa9"
"""Bytes that are neither ASCII nor UTF-8."""


@pytest.mark.parametrize(
    "header",
    [
        b"Sec-WebSocket-Protocol: centrifuge-json, " + NOT_ASCII,
        b"Sec-WebSocket-Extensions: " + NOT_ASCII,
        b"Sec-WebSocket-Key: " + NOT_ASCII,
        b"Sec-WebSocket-Version: " + NOT_ASCII,
        b"Connection: Upgrade, " + NOT_ASCII,
    ],
)
async def test_r17_an_upgrade_header_that_is_not_ascii_is_400_at_once(
    server: ServerProcess, header: bytes
) -> None:
    """An answer, whatever version of websockets reads it, that repeats nothing of what was sent."""
    name = header.partition(b":")[0]
    lines = head("/connection/websocket").removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [line for line in lines if not line.startswith(name)]
    answer = await answer_to(server.port, b"\r\n".join([*kept, header, b"", b""]))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"ASCII" in answer
    assert NOT_ASCII not in answer
    assert b"caf" not in answer
    assert server.ready()


async def answer_to(port: int, request: bytes) -> bytes:
    """Send a request and return all that comes until the server closes, in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(AT_ONCE):
            return await reader.read()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("path", ["/health/live", "/connection/websocket"])
async def test_other_header_values_reach_the_application_byte_by_byte(path: str) -> None:
    """Over HTTP and WebSocket alike: nothing is decoded, replaced or left out on the way."""
    seen: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
        else:
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

    async with listening(Config(application)) as port:
        for name in (b"X-Name", b"Origin", b"Authorization", b"Cookie"):
            request = head(path)[:-2] + name + b": Bearer " + NOT_ASCII + b"\r\n\r\n"
            status, _ = await status_of(port, request)
            assert status == (204 if path == "/health/live" else 101)
            assert (name.lower(), b"Bearer " + NOT_ASCII) in seen[-1]["headers"]


@asynccontextmanager
async def listening(config: Config) -> AsyncGenerator[int, None]:
    """Serve an application by both classes, and give the port."""
    config.ws_protocol_class = SocketProtocol
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: HttpProtocol(config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
