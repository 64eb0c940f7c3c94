"""The transport over a WebSocket of any ASGI server.

Source: ASGI specification 3.0, WebSocket; its denial response extension for HTTP answers.
"""

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState


class AsgiTransport:
    """A `Transport` over ASGI; see `towpath.connections.transport.Transport`."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self._closed = False
        self._lost = False

    async def receive(self) -> str | bytes | None:
        if self._lost:
            return None
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            self._lost = True
            return None
        text = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    async def send(self, message: bytes) -> None:
        if self._closed or self._lost:
            return
        try:
            await self.websocket.send_text(message.decode())
        except (WebSocketDisconnect, RuntimeError, OSError):
            self._closed = True

    async def close(self, code: int, reason: str) -> None:
        if self._closed or self._lost:
            return
        self._closed = True
        if self.websocket.application_state is WebSocketState.CONNECTED:
            try:
                await self.websocket.close(code, reason)
            except (WebSocketDisconnect, RuntimeError, OSError):
                self._lost = True
