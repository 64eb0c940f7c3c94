"""A TCP proxy that injects the faults of networks and of failing hosts on demand.

The proxy forwards bytes between a client and a target. Its `fault` applies to every connection,
open ones too, from the moment it is set:

    async with FaultProxy("127.0.0.1", port) as proxy:
        proxy.fault = Drop()   # everything hangs
        proxy.fault = PASS     # and recovers

Faults apply to the bytes from the target to the client. Requests are forwarded unchanged, except
that `Drop` discards them too. Bytes that a fault discarded are lost. Bytes that a fault only
delayed are handled by the next fault at once. `cut` resets every open connection, whatever the
fault is.
"""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that turns a close into a reset."""
_TICK_SECONDS = 0.02
"""Seconds between two writes of a slow connection, if its rate allows a byte in each."""


@dataclass(frozen=True, slots=True)
class Pass:
    """No fault: all bytes are forwarded."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Bytes of the target are delayed; bytes that arrive during the delay are sent with them."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Connections are accepted and no bytes are forwarded, nor the target's end: a hang."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The port is closed: new connections are refused, open ones reset."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Connections are reset after some bytes of the target; with 0 at once."""

    after: int = 0
    """Bytes the client may still get, counted for each connection since the fault holds."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """The client reads an end of file after some bytes of the target; it may continue to write."""

    after: int = 0
    """Bytes the client may still get, counted for each connection since the fault holds."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Bytes of the target are forwarded at a limited rate."""

    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Garbage:
    """The target's next bytes are replaced by other bytes and an end of file."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Flap:
    """Two faults alternate between new connections, beginning with the first.

    A refused connection would not count as a new one, so `Refuse` is `Reset()` here.
    """

    first: "Steady"
    second: "Steady"


Steady = Pass | Delay | Drop | Refuse | Reset | HalfClose | Slow | Garbage
"""The faults of one connection."""
ProxyFault = Steady | Flap
"""The faults of a proxy."""

PASS = Pass()
"""No fault."""


class FaultProxy:
    """Listens on a free loopback port while its context is open; see the module."""

    def __init__(self, target_host: str, target_port: int, *, fault: ProxyFault = PASS) -> None:
        """Describe a proxy; it does not listen yet.

        Args:
            target_host: where it forwards to; IPv4.
            target_port: the port there. While no server listens on it, connections are accepted
                and reset.
            fault: the first fault.
        """
        self.target = (target_host, target_port)
        """Where new connections go; may be changed while it runs."""
        self.host = "127.0.0.1"
        """Where it listens."""
        self.port = 0
        """The port there; known once the context is open, and kept while it is."""
        self.connections = 0
        """The number of connections accepted so far."""
        self.answered = asyncio.Event()
        """Set once a client received bytes of the target."""
        self._fault = fault
        self._turns = _turns(fault)
        self._lines: dict[asyncio.Task[None], _Line] = {}
        self._listening: socket.socket | None = None
        self._reservation: socket.socket | None = None
        self._group = asyncio.TaskGroup()

    @property
    def http(self) -> str:
        """The base URL of an HTTP target, by way of the proxy."""
        return f"http://{self.host}:{self.port}"

    @property
    def live(self) -> int:
        """How many connections are open now."""
        return len(self._lines)

    @property
    def fault(self) -> ProxyFault:
        """The current fault; a new one applies at once."""
        return self._fault

    @fault.setter
    def fault(self, fault: ProxyFault) -> None:
        self._fault = fault
        self._turns = _turns(fault)
        for line, own in zip(self._lines.values(), _turns(fault), strict=False):
            line.take(own)
        if self._reservation is not None:
            self._listen()

    def cut(self) -> int:
        """Reset all open connections; return how many."""
        for line in self._lines.values():
            line.cut()
        return len(self._lines)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        # This socket is bound and never listens. It reserves the port while `_listening` is closed.
        self._reservation = _bind(self.host, 0)
        self.port = self._reservation.getsockname()[1]
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._reservation is not None, "the context is open"
        self._stop_listening()
        self._reservation.close()
        self._reservation = None
        self.cut()
        # All tasks are ending. The exception of the body is not theirs, so it is not passed on.
        await self._group.__aexit__(None, None, None)

    def _listen(self) -> None:
        """Listen or stop listening, as the fault requires."""
        if isinstance(self._fault, Refuse):
            self._stop_listening()
        elif self._listening is None:
            self._listening = _bind(self.host, self.port)
            self._listening.listen(1024)
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _stop_listening(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.connections += 1
        line = _Line(client, self.target, self.answered)
        task = self._group.create_task(line.run())
        self._lines[task] = line
        task.add_done_callback(self._forget)
        line.begin(task, next(self._turns))

    def _forget(self, task: asyncio.Task[None]) -> None:
        # Not done in the task: a task that is cancelled before it began runs no code.
        self._lines.pop(task).close()


class _Line:
    """One connection of a client and one to the target, under one fault at a time."""

    def __init__(
        self, client: socket.socket, target: tuple[str, int], answered: asyncio.Event
    ) -> None:
        self._near = client
        self._far = socket.socket()
        self._target = target
        self._answered = answered
        self._fault: Steady = PASS
        self._passed = 0
        """Bytes sent to the client since the fault was set."""
        self._ended = False
        """Whether the end of file was sent to the client."""
        self._reset = False
        """Whether the two ends are closed by a reset."""
        self._change = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        for end in (self._near, self._far):
            end.setblocking(False)

    def begin(self, task: asyncio.Task[None], fault: Steady) -> None:
        """Set the task of this connection, and its first fault."""
        self._task = task
        self.take(fault)

    def take(self, fault: Steady) -> None:
        """Apply another fault."""
        self._fault = fault
        self._passed = 0
        self._change.set()
        match fault:
            case Refuse() | Reset(after=0):
                self.cut()
            case HalfClose(after=0):
                self._end()

    def cut(self) -> None:
        """Reset both ends."""
        assert self._task is not None, "the line has begun"
        self._reset = True
        self._task.cancel()

    def close(self) -> None:
        """Close both ends, with a reset if one was requested or received."""
        for end in (self._near, self._far):
            if self._reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()

    async def run(self) -> None:
        """Forward bytes both ways until both ways have ended; a failure of one end resets both."""
        try:
            await asyncio.get_running_loop().sock_connect(self._far, self._target)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._carry_requests())
                pumps.create_task(self._carry_answers())
        except* OSError:
            self._reset = True

    async def _carry_requests(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._near, _CHUNK_BYTES):
            if not isinstance(self._fault, Drop):
                await loop.sock_sendall(self._far, data)
        self._far.shutdown(socket.SHUT_WR)

    async def _carry_answers(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._far, _CHUNK_BYTES):
            while data:
                data = await self._carry(data)
        if not isinstance(self._fault, Drop):
            self._end()

    async def _carry(self, data: bytes) -> bytes:
        """Forward the bytes that the fault allows; return the rest."""
        match self._fault:
            case Delay(seconds=seconds):
                if await self._changed_within(seconds):
                    return data
                await self._send(data + self._received_meanwhile())
            case Slow(bytes_per_second=rate):
                size = max(1, int(rate * _TICK_SECONDS))
                if await self._changed_within(size / rate):
                    return data
                await self._send(data[:size])
                return data[size:]
            case Reset(after=after):
                await self._send(data[: after - self._passed])
                if self._passed >= after:
                    self.cut()
            case HalfClose(after=after):
                await self._send(data[: after - self._passed])
                if self._passed >= after:
                    self._end()
            case Garbage(payload=payload):
                await self._send(payload)
                self._end()
            case Drop():
                pass
            case _:
                await self._send(data)
        return b""

    async def _changed_within(self, seconds: float) -> bool:
        """Whether another fault was set within this time."""
        self._change.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._change.wait()
        except TimeoutError:
            return False
        return True

    def _received_meanwhile(self) -> bytes:
        try:
            return self._far.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return b""

    async def _send(self, data: bytes) -> None:
        if not self._ended:
            self._passed += len(data)
            await asyncio.get_running_loop().sock_sendall(self._near, data)
            self._answered.set()

    def _end(self) -> None:
        """Send the end of file to the client, once."""
        if not self._ended and not self._reset:
            self._ended = True
            with contextlib.suppress(OSError):  # If the client has left, a read reports it.
                self._near.shutdown(socket.SHUT_WR)


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setblocking(False)
    bound.bind((host, port))
    return bound


def _turns(fault: ProxyFault) -> Iterator[Steady]:
    """Yield the fault of each new connection, without end."""
    if isinstance(fault, Flap):
        return itertools.cycle((fault.first, fault.second))
    return itertools.repeat(fault)
