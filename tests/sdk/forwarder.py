"""A TCP forwarder between an SDK and the server, which may cut every line and refuse new ones."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset: the peer is told nothing else."""


class Forwarder:
    """Passes bytes both ways; use `forward` to open one."""

    def __init__(self, target: int) -> None:
        self.port = 0
        """Where it listens."""
        self.accepted = 0
        """How many lines were opened so far, refused ones included."""
        self.answered = asyncio.Event()
        """Set once the server has said something."""
        self.refusing = False
        """Whether new lines are reset at once."""
        self._target = target
        self._lines: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ws(self) -> str:
        """The URL of the server's WebSocket endpoint, by way of this forwarder."""
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    def cut(self) -> int:
        """Reset every line, without a close frame; return how many ends that were."""
        for writer in self._lines:
            _reset(writer)
        return len(self._lines)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a new line."""
        self.accepted += 1
        task = asyncio.create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Cut every line and wait until none is left."""
        self.refusing = True
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a line with one to the server until either ends."""
        if self.refusing:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            return
        self._lines |= {writer, far_writer}
        try:
            await asyncio.gather(
                _pass(reader, far_writer), _pass(far_reader, writer, heard=self.answered.set)
            )
        finally:
            self._lines -= {writer, far_writer}
            writer.close()
            far_writer.close()


async def _pass(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    heard: Callable[[], None] = lambda: None,
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            heard()
            writer.write(data)
            await writer.drain()
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    handle = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def forward(target: int) -> AsyncGenerator[Forwarder, None]:
    """Open a forwarder to a port of this machine."""
    forwarder = Forwarder(target)
    listening = await asyncio.start_server(forwarder.accept, "127.0.0.1", 0)
    forwarder.port = listening.sockets[0].getsockname()[1]
    try:
        yield forwarder
    finally:
        listening.close()
        await forwarder.end()
