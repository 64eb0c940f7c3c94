"""A socket in memory: the server's side is a transport, the other side is in a test's hands.

What was written stays, in order, with its time: so a test can say what a client saw, what it saw
after something happened, and that nothing came after the close frame.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Written:
    """One thing the server wrote."""

    at: float
    """On the loop's clock."""
    text: str = ""
    """A message; empty for the close frame."""
    code: int = 0
    """Of the close frame; 0 for a message."""


class MemoryTransport:
    """See `towpath.connections.transport.Transport` for the server's side."""

    def __init__(self, pace: Callable[[], float] = lambda: 0.0) -> None:
        """Open a socket.

        Args:
            pace: asked at each write how long it takes. Seconds.
        """
        self.written: list[Written] = []
        """What reached the other side, in order."""
        self.left = False
        """Whether the other side is gone."""
        self._pace = pace
        self._sent_messages: deque[str] = deque()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def close_code(self) -> int | None:
        """The code of the close frame, once there was one."""
        return next((one.code for one in self.written if one.code), None)

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Every frame that was written, taken apart, in order."""
        return [json.loads(line) for one in self.written for line in one.text.splitlines()]

    @property
    def replies(self) -> list[dict[str, Any]]:
        """The frames that answer a command."""
        return [frame for frame in self.frames if "id" in frame]

    def say(self, *commands: dict[str, Any]) -> None:
        """Send commands in one message."""
        self._sent_messages.append("\n".join(map(json.dumps, commands)))
        self._news.set()

    def leave(self) -> None:
        """Be gone, without a word; what is written from now on is lost."""
        self.left = True
        self._news.set()

    async def receive(self) -> str | bytes | None:
        while not self._sent_messages:
            if self.left:
                return None
            self._news.clear()
            await self._news.wait()
        return self._sent_messages.popleft()

    async def send(self, message: bytes) -> None:
        await self._write(Written(self._loop.time(), text=message.decode()))

    async def close(self, code: int, reason: str) -> None:
        await self._write(Written(self._loop.time(), code=code))

    async def _write(self, what: Written) -> None:
        if not self.left:
            self.written.append(what)
        await asyncio.sleep(self._pace())
