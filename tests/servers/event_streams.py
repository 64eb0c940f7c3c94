"""A client of event streams that records all it reads, and one that reconnects like a browser."""

import asyncio
import json
import socket
import struct
import uuid
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2

from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess


class Seen(NamedTuple):
    """One event as it was received."""

    id: str
    """Empty where it has none."""
    event: dict[str, Any]


class Stream:
    """One response, read event by event."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.comments = 0
        """How many came, with nothing but a comment in them."""
        self._pieces = answer.aiter_raw()
        self._rest = b""
        self._waiting: deque[Seen] = deque()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Seen:
        """Read one more event; reading goes on where it stopped, whoever reads."""
        while not self._waiting:
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                assert not self._rest, "a response ends with a whole event"
                raise
            *whole, self._rest = (self._rest + piece).split(b"\n\n")
            for event in whole:
                if (seen := read_event(event)) is None:
                    self.comments += 1
                else:
                    self._waiting.append(seen)
        self.seen.append(self._waiting.popleft())
        return self.seen[-1]

    async def until(self, *types: str) -> Seen:
        """Read until an event of one of these types came."""
        async for seen in self:
            if seen.event["type"] in types:
                return seen
        raise AssertionError(f"the stream ended before {types}: {self.types}")

    async def rest(self) -> list[Seen]:
        """Read to the end and return all events."""
        async for _ in self:
            pass
        return self.seen

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far."""
        return [one.event for one in self.seen]

    @property
    def types(self) -> list[str]:
        """Their types."""
        return [event["type"] for event in self.events]


def read_event(text: bytes) -> Seen | None:
    """Return the event between two empty lines; None for a comment. An id alone is an error."""
    fields = dict(line.split(b": ", 1) for line in text.split(b"\n") if line[:1] != b":")
    if not fields:
        return None
    assert set(fields) <= {b"id", b"data"}, fields
    return Seen(fields.get(b"id", b"").decode(), json.loads(fields[b"data"]))


def read_all(raw: bytes) -> list[Seen]:
    """Return the whole events in the first bytes of a response."""
    whole = raw.split(b"\n\n")[:-1]
    return [seen for event in whole if (seen := read_event(event)) is not None]


class Person:
    """A user with a token, and their requests to the HTTP endpoints."""

    def __init__(self, server: ServerProcess, user: str, tenant: str = "acme") -> None:
        self.user = user
        self.tenant = tenant
        self.server = server
        self.token = server.token(user, tenant)

    def http(self) -> httpx2.AsyncClient:
        """Return a client that sends the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.AsyncClient(
            base_url=self.server.http, headers=headers, trust_env=False, timeout=20
        )

    @asynccontextmanager
    async def run(
        self, agent: str, message: str = "hello there", **request: Any
    ) -> AsyncGenerator[Stream, None]:
        """Start a run; leaving the block drops the response."""
        async with (
            self.http() as http,
            http.stream("POST", f"/agui/{agent}", json=run_input(message, **request)) as answer,
        ):
            if answer.status_code != 200:
                await answer.aread()
            yield Stream(answer)

    @asynccontextmanager
    async def join(self, thread: str, last_id: str = "") -> AsyncGenerator[Stream, None]:
        """Join a thread, or resume it; leaving the block drops the response."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with (
            self.http() as http,
            http.stream("GET", f"/agui/threads/{thread}", headers=headers) as answer,
        ):
            if answer.status_code != 200:
                await answer.aread()
            yield Stream(answer)

    async def get(self, path: str) -> Any:
        """Send a GET request to the REST endpoint."""
        async with self.http() as http:
            return (await http.get(f"/api/v1{path}")).json()


def run_input(
    message: str = "hello there",
    *,
    thread: str | None = None,
    run: str | None = None,
    props: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the run input of an AG-UI client."""
    return {
        "threadId": thread or uuid.uuid4().hex,
        "runId": run or uuid.uuid4().hex,
        "messages": [{"id": uuid.uuid4().hex, "role": "user", "content": message}],
        "tools": [],
        "context": [],
        "forwardedProps": {} if props is None else props,
        **more,
    }


def resumed(before: list[Seen], after: list[Seen]) -> list[Seen]:
    """Return what a client shows that was cut off after `before` and came back with its last id.

    What came behind the last id comes again, so it is forgotten; and an answer that begins the run
    anew replaces all of it.
    """
    kept = len(before)
    while kept and not before[kept - 1].id:
        kept -= 1
    begun = {one.event["runId"] for one in before[:kept] if one.event["type"] == "RUN_STARTED"}
    first = after[0].event if after else {}
    if first.get("type") == "RUN_STARTED" and first["runId"] in begun:
        return after
    return before[:kept] + after


def last_id(seen: list[Seen]) -> str:
    """Return the id with which a client resumes."""
    return next((one.id for one in reversed(seen) if one.id), "")


def is_over(seen: list[Seen]) -> bool:
    """Whether the last event ends a run."""
    return bool(seen) and seen[-1].event["type"] in TERMINAL


async def drop_abruptly(server: ServerProcess, request: bytes, *, after: int) -> None:
    """Send a request, read this many bytes of the response, and reset the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    await writer.drain()
    if after:
        await reader.read(after)
    raw = writer.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def stalled(server: ServerProcess, person: Person, path: str) -> socket.socket:
    """Request a stream with a tiny window and read its status only; the caller closes."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", server.port))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {person.token}\r\n\r\n"
    await loop.sock_sendall(raw, request.encode())
    assert await loop.sock_recv(raw, 12) == b"HTTP/1.1 200"
    return raw


async def gauges(server: ServerProcess) -> dict[str, float]:
    """Return the metrics of `/metrics` that have no labels."""
    async with httpx2.AsyncClient(base_url=server.http, trust_env=False) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}
