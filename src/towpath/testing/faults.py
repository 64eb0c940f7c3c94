"""A TCP proxy that fails on demand, as networks and dying hosts do.

It stands between a client and a target and forwards bytes, whatever they mean. Its `fault` says
what goes wrong; it holds for every connection, open ones too, from the moment it is set:

    async with FaultProxy("127.0.0.1", port) as proxy:
        proxy.fault = Drop()   # everything hangs
        proxy.fault = PASS     # and heals

Faults act on what the target says to the client; requests are passed on as they come, except that
`Drop` swallows them too. What a fault swallowed or cut is gone when the next one is set; what it
only held back goes on under the next one at once. `cut` resets every open connection, whatever the
fault.
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
"""SO_LINGER that makes a close a reset: the peer is told nothing else."""
_TICK_SECONDS = 0.02
"""How often a slow connection says something, if it can say more than a byte."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Nothing goes wrong."""


@dataclass(frozen=True, slots=True)
class Delay:
    """What the target says comes later; what it says meanwhile comes with it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Connections are accepted and nothing passes, not even the target's end: a hang."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody listens: new connections are refused, open ones reset."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Connections are reset after some bytes of the target's; after 0 at once, unasked."""

    after: int = 0
    """Bytes the client may still get, counted for each connection since the fault holds."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """The client reads an end after some bytes of the target's; it may go on writing."""

    after: int = 0
    """Bytes the client may still get, counted for each connection since the fault holds."""


@dataclass(frozen=True, slots=True)
class Slow:
    """What the target says comes in drops."""

    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Garbage:
    """The target's next answer is replaced by other bytes and an end."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Flap:
    """Two faults take turns, from one new connection to the next, beginning with the first.

    A refused connection would be nobody's turn: here, `Refuse` is `Reset()`.
    """

    first: "Steady"
    second: "Steady"


Steady = Pass | Delay | Drop | Refuse | Reset | HalfClose | Slow | Garbage
"""What can go wrong with one connection."""
InternalError = Steady | Flap
"""What can go wrong with a proxy."""

PASS = Pass()
"""The fault that is none."""


class FaultProxy:
    """Listens on a free loopback port while its context is open; see the module for the idea."""

    def __init__(self, target_host: str, target_port: int, *, fault: InternalError = PASS) -> None:
        """Describe a proxy; nothing listens yet.

        Args:
            target_host: where it forwards to; IPv4.
            target_port: the port there. Nobody has to listen yet: while nobody does, connections
                are accepted and reset.
            fault: what goes wrong at first.
        """
        self.target = (target_host, target_port)
        """Where new connections go; may be changed while it runs."""
        self.host = "127.0.0.1"
        """Where it listens."""
        self.port = 0
        """The port there; known once the context is open, and kept while it is."""
        self.connections = 0
        """How many were accepted so far, whatever became of them."""
        self.answered = asyncio.Event()
        """Set once a client got something of the target's."""
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
    def fault(self) -> InternalError:
        """What goes wrong; setting it takes hold at once."""
        return self._fault

    @fault.setter
    def fault(self, fault: InternalError) -> None:
        self._fault = fault
        self._turns = _turns(fault)
        for line, own in zip(self._lines.values(), _turns(fault), strict=False):
            line.take(own)
        if self._reservation is not None:
            self._listen()

    def cut(self) -> int:
        """Reset all open connections, without a word; return how many."""
        for line in self._lines.values():
            line.cut()
        return len(self._lines)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        # Bound and never listening, it keeps the port ours while nobody listens.
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
        # All its tasks are ending, and what the body raised stays what it is: it is not theirs.
        await self._group.__aexit__(None, None, None)

    def _listen(self) -> None:
        """Listen, or do not, as the fault has it."""
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
        # Not the task's own doing: one that is cut before it began does nothing.
        self._lines.pop(task).close()


class _Line:
    """One connection and its counterpart to the target, under one fault at a time."""

    def __init__(
        self, client: socket.socket, target: tuple[str, int], answered: asyncio.Event
    ) -> None:
        self._near = client
        self._far = socket.socket()
        self._target = target
        self._answered = answered
        self._fault: Steady = PASS
        self._passed = 0
        """Bytes the client got since the fault holds."""
        self._ended = False
        """Whether the client was told that there is no more."""
        self._reset = False
        """Whether the two ends are closed by a reset."""
        self._change = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        for end in (self._near, self._far):
            end.setblocking(False)

    def begin(self, task: asyncio.Task[None], fault: Steady) -> None:
        """Say which task runs the line, and under what fault it begins."""
        self._task = task
        self.take(fault)

    def take(self, fault: Steady) -> None:
        """Go on under another fault."""
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
        """Close both ends, in the way that was found out."""
        for end in (self._near, self._far):
            if self._reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()

    async def run(self) -> None:
        """Carry bytes both ways until both ways have ended; an end that breaks breaks the other."""
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
        """Carry what the fault lets through; return what is left to carry."""
        match self._fault:
            case Delay(seconds=seconds):
                if await self._changed_within(seconds):
                    return data
                await self._send(data + self._said_meanwhile())
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
        """Whether another fault took hold before so much time had passed."""
        self._change.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._change.wait()
        except TimeoutError:
            return False
        return True

    def _said_meanwhile(self) -> bytes:
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
        """Tell the client that there is no more, once."""
        if not self._ended:
            self._ended = True
            with contextlib.suppress(OSError):  # that it is gone, reading from it will tell
                self._near.shutdown(socket.SHUT_WR)


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setblocking(False)
    bound.bind((host, port))
    return bound


def _turns(fault: InternalError) -> Iterator[Steady]:
    """Return what one connection after the other comes under, for ever."""
    if isinstance(fault, Flap):
        return itertools.cycle((fault.first, fault.second))
    return itertools.repeat(fault)
