"""The plainest server there is: Starlette, one `send_text` per delta.

No log, no order to keep, no login, no second reader. It runs on the same uvicorn with the same
options as the gateway, so the difference is what the gateway does.
"""

import sys

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from benchmarks.stamps import stamped_deltas

PATH = "/stream"


async def stream(websocket: WebSocket) -> None:
    """Answer one message with the deltas it asks for."""
    await websocket.accept()
    request = await websocket.receive_text()
    await _send(websocket, {"type": "RUN_STARTED"})
    async for delta in stamped_deltas(request):
        await _send(
            websocket, {"type": "TEXT_MESSAGE_CONTENT", "messageId": "message", "delta": delta}
        )
    await _send(websocket, {"type": "RUN_FINISHED"})
    await websocket.receive()


async def _send(websocket: WebSocket, event: dict[str, str]) -> None:
    await websocket.send_text(msgspec.json.encode(event).decode())


app = Starlette(routes=[WebSocketRoute(PATH, stream)])


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_level="error",
        access_log=False,
        lifespan="off",
    )
