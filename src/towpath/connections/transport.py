"""The contract of one socket."""

from typing import Protocol


class Transport(Protocol):
    """One socket after its upgrade. Each method is called by one task at a time."""

    async def receive(self) -> str | bytes | None:
        """Return the next message; always None once the peer has disconnected."""

    async def send(self, message: bytes) -> None:
        """Send UTF-8 text; return when the socket accepts more. Do nothing once it is closed."""

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame; idempotent, the first code wins."""
