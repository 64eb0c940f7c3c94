"""The load client: raw WebSocket frames on asyncio, parsing only what is needed.

It must not be the bottleneck, so it is no general client: it takes whole, unmasked, uncompressed
text frames as this server sends them and refuses anything else; it masks with the key 0, which is
legal and costs the client nothing. Answers to commands are looked for only while one is awaited.

Source: RFC 6455 sections 4.1 and 5; WIRE sections 1, 2 and 4.
"""

import asyncio
import base64
import contextlib
import gc
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

LOOPBACK = "127.0.0.1"
TIMEOUT = 30.0
"""Seconds for an upgrade or an answer."""

THIN_SEGMENT = 1400
"""Bytes in a segment of a thin line."""
THIN_BUFFER = 4096
"""Bytes that wait at the reader's end of it."""

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_FIN = 0x80
_IP_BIND_ADDRESS_NO_PORT = 24
"""Of Linux; Python knows it from 3.12 on."""

Command = tuple[str, dict[str, Any]]
"""The name of a command and its fields."""
Receive = Callable[[bytes, int], None]
"""Takes a text message and when it came, in nanoseconds of CLOCK_MONOTONIC."""


class LoadError(Exception):
    """The server did what a measurement cannot go on with; the message says what."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        """Of the error reply or the close frame; 0 where there was neither."""


class Link(asyncio.Protocol):
    """One WebSocket."""

    def __init__(self, request: bytes, receive: Receive, gone: Callable[[], None]) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.close_code: int | None = None
        """Why it is over: a close code, 1006 without one; None while it is not."""
        self._request = request
        self._receive = receive
        self._gone = gone
        self._rest = b""
        self._upgraded = False
        self._rate: float | None = None
        self._pause: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of this class and are not of it.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.take_at(None)
        self.close_code = self.close_code or 1006
        if not self.opened.done():
            self.opened.set_exception(LoadError("closed before the upgrade"))
        self._gone()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._rate is not None:
            self._transport.pause_reading()
            loop = asyncio.get_running_loop()
            self._pause = loop.call_later(len(data) / self._rate, self._go_on)
        if self._rest:
            data = self._rest + data
        at = 0 if self._upgraded else self._upgrade(data)
        size = len(data)
        while size - at >= 2:
            head, length, body = data[at], data[at + 1], at + 2
            if length == 126:
                body = at + 4
                length = int.from_bytes(data[at + 2 : body])
            elif length == 127:
                body = at + 10
                length = int.from_bytes(data[at + 2 : body])
            at_end = body + length
            if at_end > size:
                break
            self._frame(head, data[body:at_end], now)
            at = at_end
        self._rest = data[at:]

    def send(self, text: bytes, opcode: int = TEXT) -> None:
        """Send one frame."""
        size = len(text)
        if size < 126:
            head = bytes((_FIN | opcode, 0x80 | size))
        elif size < 1 << 16:
            head = bytes((_FIN | opcode, 0xFE)) + size.to_bytes(2)
        else:
            head = bytes((_FIN | opcode, 0xFF)) + size.to_bytes(8)
        self._transport.write(head + b"\0\0\0\0" + text)

    def drop(self) -> None:
        """Cut the line."""
        self._transport.abort()

    def take_at(self, rate: float | None) -> None:
        """Take so many bytes a second from now on; None takes what comes."""
        self._rate = rate
        if rate is None and self._pause is not None:
            self._pause.cancel()
            self._go_on()

    def _go_on(self) -> None:
        self._pause = None
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _upgrade(self, data: bytes) -> int:
        """Return where the frames begin; 0 while the answer is incomplete."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        if not data.startswith(b"HTTP/1.1 101 "):
            self.opened.set_exception(LoadError(data[: data.index(b"\r\n")].decode()))
            self._transport.abort()
            return len(data)
        self._upgraded = True
        self.opened.set_result(None)
        return end + 4

    def _frame(self, head: int, payload: bytes, now: int) -> None:
        if head == _FIN | TEXT:
            self._receive(payload, now)
        elif head == _FIN | PING:
            self.send(payload, PONG)
        elif head == _FIN | CLOSE:
            self.close_code = int.from_bytes(payload[:2]) if payload else 1005
            self._transport.abort()
        else:
            raise LoadError(f"a frame that begins with {head:#x}")


async def connected(port: int, source: str, *, thin: bool = False) -> socket.socket:
    """Return a socket from this loopback address to a port of the one there is.

    Its own port is chosen when it connects: choosing it before, as `bind` does, means searching
    among all that were used in the last minute, and costs more than a login. A thin line takes
    segments of the size networks have: with those of loopback, fifty times larger, the kernel alone
    holds megabytes for whoever does not read.
    """
    line = socket.socket()
    line.setblocking(False)
    line.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    if thin:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, THIN_SEGMENT)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, THIN_BUFFER)
    line.bind((source, 0))
    try:
        await asyncio.get_running_loop().sock_connect(line, (LOOPBACK, port))
    except BaseException:
        line.close()
        raise
    return line


async def open_link(
    port: int,
    path: str,
    receive: Receive,
    gone: Callable[[], None],
    *,
    source: str = LOOPBACK,
    thin: bool = False,
) -> Link:
    """Open a WebSocket on the loopback address, from this address or another."""
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TIMEOUT):
        line = await connected(port, source, thin=thin)
        _, link = await loop.create_connection(
            lambda: Link(request.encode(), receive, gone), sock=line
        )
        await link.opened
    return link


class Client:
    """One connection to the gateway; `open_client` makes one."""

    link: Link

    def __init__(self, receive: Receive) -> None:
        self.gone = asyncio.Event()
        """Set once the connection is over."""
        self._receive = receive
        self._last = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    @property
    def close_code(self) -> int | None:
        """Why the connection is over; None while it is not."""
        return self.link.close_code

    async def ask(self, *commands: Command, seconds: float = TIMEOUT) -> list[dict[str, Any]]:
        """Send commands in one frame, wait for their answers and return them.

        Raises:
            LoadError: one of them is an error.
        """
        lines = []
        for name, fields in commands:
            self._last += 1
            self._answers[self._last] = asyncio.get_running_loop().create_future()
            lines.append(json.dumps({"id": self._last, name: fields}))
        waiting = list(self._answers.values())
        self.link.send("\n".join(lines).encode())
        async with asyncio.timeout(seconds):
            answers: list[dict[str, Any]] = await asyncio.gather(*waiting)
        for answer in answers:
            if "error" in answer:
                raise LoadError(str(answer), answer["error"]["code"])
        return answers

    async def create(self, thread: str) -> None:
        """Make a thread: one that does not exist cannot be read."""
        await self._call("thread.create", thread_id=thread)

    async def read(self, thread: str) -> None:
        """Subscribe to a thread."""
        await self.ask(("subscribe", {"channel": f"thread:{thread}"}))

    async def start(self, agent: str, thread: str, message: str) -> None:
        """Ask an agent and wait until its run has begun."""
        await self._call("run.start", thread_id=thread, agent=agent, message=message)

    async def close(self) -> None:
        """Say goodbye, and wait until the server has said it too."""
        self.link.send((1000).to_bytes(2), CLOSE)
        async with asyncio.timeout(TIMEOUT):
            await self.gone.wait()

    def receive(self, message: bytes, now: int) -> None:
        """Take a message: pongs and answers here, everything to whoever listens."""
        if message == b"{}":
            self.link.send(b"{}")
            return
        # Every value of a message is an object, so this can only be a ping among others.
        if b"\n{}" in message or message.startswith(b"{}\n"):
            self.link.send(b"{}")
        if self._answers:
            self._settle(message)
        self._receive(message, now)

    def leave(self) -> None:
        """Note that the connection is over."""
        self.gone.set()
        for answer in self._answers.values():
            if not answer.done():
                code = self.close_code or 0
                answer.set_exception(LoadError(f"closed with {code}", code))
        self._answers.clear()

    async def _call(self, method: str, **data: str) -> None:
        request = {"request_id": os.urandom(8).hex(), **data}
        await self.ask(("rpc", {"method": method, "data": request}))

    def _settle(self, message: bytes) -> None:
        for line in message.split(b"\n"):
            if line.startswith(b'{"id":'):
                answer = json.loads(line)
                waiting = self._answers.pop(answer["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)


async def open_client(
    port: int,
    token: str,
    receive: Receive,
    *commands: Command,
    source: str = LOOPBACK,
    thin: bool = False,
) -> Client:
    """Open a connection and log in.

    Args:
        port: of the server.
        token: says who it is.
        hear: takes what comes.
        commands: sent in one frame with the login, as SDKs send what they subscribe to.
        source: the address it comes from.
        thin: whether its line is one on which slowness is felt at the other end.

    Raises:
        LoadError: the server lets nobody in, or refuses a command; its code says why.
    """
    client = Client(receive)
    client.link = await open_link(
        port,
        "/connection/websocket",
        client.receive,
        client.leave,
        source=source,
        thin=thin,
    )
    await client.ask(("connect", {"token": token}), *commands)
    return client


def ignore(message: bytes, now: int) -> None:
    """Ignore a message."""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep this process's own garbage collection out of what it measures."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
