"""A listening loopback port while a context is open; the base of scripted servers.

Connections that are open at the end of the context are reset.
"""

import abc
import asyncio
import contextlib
from types import TracebackType
from typing import Self

HEAD_BYTES = 32 * 1024
"""How long the head of a request may be; a longer one is dropped."""


class Listener(abc.ABC):
    """Accepts connections on a free port, and serves each one in its own task."""

    def __init__(self) -> None:
        """Describe a listener; it does not listen yet."""
        self.port = 0
        """The port; known once the context is open."""
        self._group = asyncio.TaskGroup()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def http(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=HEAD_BYTES, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None, "the context is open"
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        # All tasks are ending. The exception of the body is not theirs, so it is not passed on.
        await self._group.__aexit__(None, None, None)

    @abc.abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end; an `OSError` or `EOFError` ends it too."""

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self._group.create_task(self._run_to_end(reader, writer))

    async def _run_to_end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await self.serve(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self._open.discard(writer)
