"""Heads of requests, written byte by byte, and how soon a server answers them."""

import asyncio

AT_ONCE = 1.0
"""Seconds in which a refusal has to be there; nothing here waits for anything."""
TOO_LARGE = 431


async def status_of(port: int, request: bytes) -> tuple[int, float]:
    """Send a head; return the status of the answer, and after how many seconds it came."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        began = loop.time()
        writer.write(request)
        async with asyncio.timeout(5):
            line = await reader.readline()
        return int(line.split(b" ")[1]), loop.time() - began
    finally:
        writer.transport.abort()


def head(path: str, *lines: str) -> bytes:
    """Return a request's head; for the socket's path one that asks for an upgrade."""
    upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    upgrade.append("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    given = ["Host: x", *(upgrade if path.startswith("/connection") else []), *lines]
    return "\r\n".join((f"GET {path} HTTP/1.1", *given, "", "")).encode()


def line_of(size: int) -> str:
    """Return a header line of so many bytes, its end included."""
    start = "Authorization: Bearer "
    return start + "a" * (size - len(start) - 2)
