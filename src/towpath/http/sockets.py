"""The upgrade of a WebSocket: its origin and its sub-protocol are checked, then it is accepted."""

from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from towpath.auth.handshake import UpgradeInfo, negotiate, origin_allowed
from towpath.errors import BadRequest
from towpath.http.client_address import ClientAddress, client_address, networks
from towpath.node.node import Node


async def accept(websocket: WebSocket, node: Node) -> UpgradeInfo | None:
    """Accept an upgrade and return its data; None if it was refused with an HTTP status."""
    client = client_address(websocket, networks(node.parts.settings.trusted_proxies))
    if not _origin_allowed(websocket, client, node):
        await _refuse(websocket, "origin not allowed", 403)
        return None
    try:
        answered, offered = negotiate(websocket.scope.get("subprotocols", []))
    except BadRequest as error:
        await _refuse(websocket, error.message, 400)
        return None
    await websocket.accept(subprotocol=answered)
    return _upgrade_info(websocket, client, offered)


async def deny(websocket: WebSocket, response: Response) -> None:
    """Answer an upgrade with a response; a server without that ASGI extension answers 403."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
    else:
        await websocket.close()


async def _refuse(websocket: WebSocket, reason: str, status: int) -> None:
    await deny(websocket, JSONResponse({"error": reason}, status))


def _origin_allowed(websocket: WebSocket, client: ClientAddress, node: Node) -> bool:
    headers, allowed = websocket.headers, node.parts.settings.allowed_origins
    return origin_allowed(headers.get("origin"), headers.get("host", ""), client.scheme, allowed)


def _upgrade_info(websocket: WebSocket, client: ClientAddress, offered: str) -> UpgradeInfo:
    return UpgradeInfo(
        address=client.rate_limit_key,
        origin=websocket.headers.get("origin"),
        offered=offered,
        ticket=websocket.query_params.get("ticket", ""),
        authorization=websocket.headers.get("authorization", ""),
    )
