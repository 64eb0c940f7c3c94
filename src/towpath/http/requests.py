"""What every HTTP door does: find out who knocks, read what they bring, and say what went wrong.

Errors are `{"error": {"code", "message"}}` with the HTTP status of the code.
"""

from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from towpath import codes
from towpath.auth.connection_auth import Refused
from towpath.auth.handshake import UpgradeInfo
from towpath.codes import ErrorCode
from towpath.errors import BadRequest, CommandError, TooLarge, TooManyRequests, Unavailable
from towpath.gateway import Gateway, House, Phase
from towpath.identity import Principal
from towpath.json_bounds import too_deep

MAX_BODY = 1024 * 1024
"""The largest request body, in bytes."""


class Unauthorized(CommandError):
    """No credential, or one that is not good (HTTP 401)."""

    code = ErrorCode(
        number=401, message="a valid token is needed, as Authorization: Bearer", http_status=401
    )


def error_response(error: CommandError) -> Response:
    """Return what answers a request that cannot be carried out."""
    headers = {"retry-after": "1"} if error.code.http_status in (429, 503) else {}
    if error.code.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    body = {"error": {"code": error.code.number, "message": error.message}}
    return JSONResponse(body, error.code.http_status, headers=headers)


async def authenticated(gateway: Gateway, request: Request) -> tuple[House, Principal]:
    """Return the running parts and who makes a request.

    Raises:
        Unavailable, TooManyRequests: not now, or nobody can tell now; ask again later.
        Unauthorized: the credential is no good.
    """
    if gateway.house is None or gateway.phase not in (Phase.READY, Phase.DRAINING):
        raise Unavailable("the server is starting or stopping")
    house = gateway.house
    handshake = UpgradeInfo(
        address=gateway.peer(request).address,
        origin=request.headers.get("origin"),
        authorization=request.headers.get("authorization", ""),
    )
    made = await house.parts.auth.authenticate_request(handshake)
    if not isinstance(made, Refused):
        return house, made.principal
    if made.code is codes.TEMPORARY:
        raise Unavailable("the credential cannot be verified now")
    if made.code is codes.TOO_MANY_REQUESTS:
        raise TooManyRequests
    raise Unauthorized


async def read_body(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request's body, an empty one where there is none.

    Raises:
        BadRequest, TooLarge: it is no such thing, or more than may be.
    """
    if request.method in ("GET", "HEAD"):
        return {}
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                raise TooLarge(f"a body may have {MAX_BODY} bytes")
    except ClientDisconnect:
        raise BadRequest("the body broke off") from None
    if not body:
        return {}
    if too_deep(bytes(body)):
        raise BadRequest("nested too deep")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is no object")
    return value
