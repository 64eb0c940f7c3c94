"""The other half of the load client: HTTP requests, one after the other on a kept connection."""

import asyncio
from types import TracebackType
from typing import Self

from benchmarks.load import LOOPBACK, TIMEOUT, connected

_LENGTH = b"content-length: "


class RestClient:
    """A REST client with one source address; a context manager."""

    def __init__(self, port: int, source: str) -> None:
        self._port = port
        self._source = source

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            sock=await connected(self._port, self._source)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.transport.abort()

    async def get(self, path: str, token: str) -> int:
        """Send a GET request with a token and return the status."""
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{self._port}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        )
        self._writer.write(request.encode())
        async with asyncio.timeout(TIMEOUT):
            head = await self._reader.readuntil(b"\r\n\r\n")
            begin = head.lower().index(_LENGTH) + len(_LENGTH)
            await self._reader.readexactly(int(head[begin : head.index(b"\r", begin)]))
        return int(head.split(b" ", 2)[1])
