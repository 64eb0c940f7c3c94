"""A loopback port that is listened on while a context is open; the base of scripted servers.

Nothing outlives the context: connections that are open at its end are reset.
"""

import abc
import asyncio
import contextlib
from types import TracebackType
from typing import Self

HEAD_BYTES = 32 * 1024
"""How long the head of a request may be; a longer one is dropped."""


class Listener(abc.ABC):
    """Takes connections on a free port, and has each of them served in a task of its own."""

    def __init__(self) -> None:
        """Describe a listener; nothing listens yet."""
        self.port = 0
        """Where it listens; known once the context is open."""
        self._group = asyncio.TaskGroup()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def http(self) -> str:
        """The base URL of where it listens."""
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
        # All its tasks are ending, and what the body raised stays what it is: it is not theirs.
        await self._group.__aexit__(None, None, None)

    @abc.abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end; an `OSError` or `EOFError` is one too."""

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
