"""A client of the wire protocol that shows every frame, in order.

Tests with SDKs prove that SDKs work; tests with this client check the exact frames. It answers
pings, unless `answer_pings` is false, and keeps every push.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from towpath.errors import MissingExtra

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed
except ImportError as error:
    raise MissingExtra.of(__name__, "serve", error) from error

Reply = dict[str, Any]


class WireClient:
    """One connection; use `wire_client` to open one."""

    def __init__(self, socket: ClientConnection, *, answer_pings: bool) -> None:
        self.socket = socket
        self.frames: list[Reply] = []
        """Everything received, in order."""
        self.client_id = ""
        """The connection id of the connect reply."""
        self._answer_pings = answer_pings
        self._next_id = 1
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @property
    def close_code(self) -> int | None:
        """The code of the close frame, once there was one."""
        return self.socket.close_code

    @property
    def close_reason(self) -> str | None:
        """Its reason."""
        return self.socket.close_reason

    def publications(self, channel: str) -> list[dict[str, Any]]:
        """Return the live publications of a channel so far, in the order of arrival."""
        pushes = [frame["push"] for frame in self.frames if "push" in frame]
        return [push["pub"] for push in pushes if push["channel"] == channel and "pub" in push]

    def events(self, channel: str) -> list[dict[str, Any]]:
        """Return the data of the live publications of a channel so far."""
        return [publication["data"] for publication in self.publications(channel)]

    async def send(self, *commands: dict[str, Any]) -> None:
        """Send commands in one frame, as they are."""
        await self.socket.send("\n".join(json.dumps(command) for command in commands))

    async def command(self, name: str, **fields: Any) -> Reply:
        """Send one command and return its reply, error or not."""
        number, self._next_id = self._next_id, self._next_id + 1
        future = self._replies[number] = asyncio.get_running_loop().create_future()
        await self.send({"id": number, name: fields})
        async with asyncio.timeout(10):
            reply: Reply = await future
        return reply

    async def connect(self, token: str = "", **fields: Any) -> Reply:
        """Send connect and return its reply."""
        given = {"token": token, **fields} if token else fields
        reply = await self.command("connect", **given)
        self.client_id = reply.get("connect", {}).get("client", "")
        return reply

    async def rpc(self, method: str, **data: Any) -> Any:
        """Call a method and return its result.

        Raises:
            AssertionError: the reply is an error; it is in the message.
        """
        reply = await self.command("rpc", method=method, data=data)
        assert "rpc" in reply, reply
        return reply["rpc"]["data"]

    async def until(self, condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
        """Wait until a condition on the received frames is true.

        Raises:
            TimeoutError: the condition did not become true in time.
        """
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(condition)

    async def until_event(self, channel: str, *types: str, seconds: float = 10.0) -> None:
        """Wait until an event of one of these types arrived in a channel."""
        await self.until(
            lambda: any(event["type"] in types for event in self.events(channel)), seconds=seconds
        )

    async def until_closed(self, *, seconds: float = 10.0) -> int:
        """Wait for the close frame and return its code."""
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._reader)
        assert self.close_code is not None, "the reader ends with the connection"
        return self.close_code

    async def leave(self) -> None:
        """Close the connection from this side."""
        await self.socket.close()
        await self._reader

    def drop(self) -> None:
        """Abort the connection without a close frame."""
        self.socket.transport.abort()

    async def _read(self) -> None:
        try:
            async for message in self.socket:
                for line in str(message).split("\n"):
                    await self._take(json.loads(line))
        except ConnectionClosed:
            pass
        finally:
            for future in self._replies.values():
                if not future.done():
                    future.set_exception(ConnectionError("closed before the reply arrived"))
                    future.exception()
            async with self._news:
                self._news.notify_all()

    async def _take(self, frame: Reply) -> None:
        self.frames.append(frame)
        if frame == {} and self._answer_pings:
            await self.socket.send("{}")
        future = self._replies.get(frame.get("id", 0))
        if future is not None and not future.done():
            future.set_result(frame)
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def wire_client(
    url: str, token: str = "", *, answer_pings: bool = True, **options: Any
) -> AsyncGenerator[WireClient, None]:
    """Open a WebSocket; with a token, connect too. Options go to the WebSocket library."""
    options.setdefault("max_size", None)
    async with connect(url, ping_interval=None, proxy=None, **options) as socket:
        client = WireClient(socket, answer_pings=answer_pings)
        if token:
            await client.connect(token)
        yield client
