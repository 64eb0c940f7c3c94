"""Shared by all HTTP endpoints: the node, the caller's principal, the body, error responses.

Errors are `{"error": {"code", "message"}}` with the HTTP status of the code.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from towpath import codes
from towpath.auth.connection_auth import Refused
from towpath.auth.handshake import UpgradeInfo
from towpath.codes import ErrorCode
from towpath.errors import (
    BadRequest,
    CommandError,
    NotRunning,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from towpath.http.client_address import client_address, networks
from towpath.identity import Principal
from towpath.json_bounds import too_deep
from towpath.node.metrics import Metrics
from towpath.node.node import Node, Phase
from towpath.settings import Settings

MAX_BODY = 1024 * 1024
"""The largest request body, in bytes."""


class Site(Protocol):
    """The gateway of the endpoints; its node exists only during its lifespan."""

    @property
    def settings(self) -> Settings:
        """The gateway's settings."""

    @property
    def metrics(self) -> Metrics:
        """The gateway's metrics."""

    @property
    def phase(self) -> Phase:
        """The gateway's phase between its start and its stop."""

    @property
    def node(self) -> Node | None:
        """The running parts; None before and after the lifespan."""

    @property
    def demo_users(self) -> Sequence[str]:
        """The users that the page offers in development; empty outside of it."""

    def demo_token(self, user: str) -> str:
        """Return a development token for a demo user."""


class Unauthorized(CommandError):
    """The credential is missing or invalid (HTTP 401)."""

    code = ErrorCode(
        number=401, message="a valid token is needed, as Authorization: Bearer", http_status=401
    )


class NotServing(Unavailable):
    """There is no node that could answer: it is being opened, or could not be, or is closed."""

    def __init__(self, phase: Phase) -> None:
        super().__init__(REASONS.get(phase, str(NotRunning())))
        self.phase = phase
        """The phase of the gateway, for the client."""


REASONS = {
    Phase.STARTING: "the server is starting: its log is being opened",
    Phase.FAILED: "the server could not start: its operator finds the reason in its log lines",
}
"""What a client is told in the phases in which a server without a node answers."""


def error_response(error: CommandError) -> Response:
    """Return the response to a request that failed."""
    headers = {"retry-after": "1"} if error.code.http_status in (429, 503) else {}
    if error.code.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    body: dict[str, Any] = {"error": {"code": error.code.number, "message": error.message}}
    if isinstance(error, NotServing):
        body["phase"] = error.phase
    return JSONResponse(body, error.code.http_status, headers=headers)


def running(site: Site) -> Node:
    """Return the node, if it answers requests.

    Raises:
        NotServing: there is no node.
        Unavailable: it waits for keys.
    """
    node = site.node
    if node is None:
        raise NotServing(site.phase)
    if node.phase not in (Phase.READY, Phase.DRAINING):
        raise Unavailable("the server is starting: keys of an issuer are missing")
    return node


async def authenticate(node: Node, request: Request) -> Principal:
    """Return the principal of a request's credential.

    Raises:
        Unavailable, TooManyRequests: the credential cannot be verified now; try again later.
        Unauthorized: the credential is missing or invalid.
    """
    upgrade = UpgradeInfo(
        address=client_address(
            request, networks(node.parts.settings.trusted_proxies)
        ).rate_limit_key,
        origin=request.headers.get("origin"),
        authorization=request.headers.get("authorization", ""),
    )
    made = await node.parts.connection_auth.authenticate_request(upgrade)
    if not isinstance(made, Refused):
        return made.principal
    if made.code is codes.TEMPORARY:
        raise Unavailable("the credential cannot be verified now")
    if made.code is codes.TOO_MANY_REQUESTS:
        raise TooManyRequests
    raise Unauthorized


async def read_body(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request's body; an empty one for an empty body.

    Raises:
        BadRequest: the body is not a JSON object, is nested too deep, or is incomplete.
        TooLarge: the body has more than `MAX_BODY` bytes.
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
