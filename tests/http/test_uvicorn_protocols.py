"""Heads that are too large or cannot be read are answered at once, on every path."""

import asyncio

import pytest

from tests.servers.heads import AT_ONCE, TOO_LARGE, head, line_of, status_of
from tests.servers.issuing import asking
from towpath.http.uvicorn_protocols import MAX_HEAD_BYTES, MAX_LINE_BYTES, MAX_LINES
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
    async with asking(server, server.token("kept")) as rest:
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
