"""The doors: routes of the gateway, and what may be said about health without a credential.

`PUBLIC` is the whole list of paths that answer somebody who has not said who they are; every
other door asks. A test walks all routes and compares.
"""

import contextlib
import json
from collections.abc import AsyncGenerator
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from towpath.auth.handshake import UpgradeInfo, negotiate, origin_allowed
from towpath.errors import BadRequest, StorageError
from towpath.gateway import VERSION, Gateway, Phase
from towpath.http.agui import agui_routes
from towpath.http.mounting import report_refusals_in_one_sentence
from towpath.http.rest import api_routes
from towpath.node.metrics import CONTENT_TYPE

PUBLIC = frozenset(
    {
        "/",
        "/static",
        "/page.json",
        "/dev/token",
        "/health/live",
        "/health/ready",
        "/health/startup",
        "/healthz",
        "/livez",
        "/readyz",
        "/metrics",
        "/connection/websocket",
        "/api/v1/openapi.json",
    }
)
"""Paths that answer without a credential: `/dev/token` in development only, the socket's path to a
request that is no upgrade only with the status that says so."""

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Host names by which the demo-token endpoint may be asked."""
FORWARDING = ("forwarded", "x-forwarded-", "via")
"""How the names of headers begin that say somebody stands between."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html dompurify"
)
"""The content security policy of the chat page. Text becomes elements in two places only: the
templates of the page, and what DOMPurify has been over."""


def make_app(gateway: Gateway) -> Starlette:
    """Return the application behind a gateway; its lifespan is the gateway's."""
    doors = _Doors(gateway)
    web = Path(str(files("towpath") / "web"))
    routes: list[BaseRoute] = [
        WebSocketRoute("/connection/websocket", doors.socket),
        Route("/connection/websocket", doors.no_socket),
        Mount("/api/v1", routes=api_routes(gateway)),
        agui_routes(gateway),
        Route("/health/live", doors.live),
        Route("/health/ready", doors.ready),
        Route("/health/startup", doors.startup),
        Route("/livez", doors.live),
        Route("/readyz", doors.ready),
        Route("/healthz", doors.live),
        Route("/metrics", doors.metrics),
        Route("/dev/token", doors.demo_token, methods=["POST"]),
        Route("/page.json", doors.page_facts),
        Route("/", doors.page),
        Mount("/static", StaticFiles(directory=web, check_dir=False)),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncGenerator[None, None]:
        async with gateway.lifespan():
            yield

    app = Starlette(routes=routes, lifespan=lifespan)
    report_refusals_in_one_sentence(app.router)
    return app


class _Doors:
    """The handlers; each a line or two over the gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._page = Path(str(files("towpath") / "web" / "index.html"))

    async def socket(self, websocket: WebSocket) -> None:
        """Answer an upgrade: 101 whatever the credential is worth, a status for all else."""
        gateway = self._gateway
        if gateway.phase != Phase.READY:
            await websocket.send_denial_response(_unavailable(gateway.phase))
            return
        headers, peer = websocket.headers, gateway.peer(websocket)
        allowed = gateway.settings.allowed_origins
        if not origin_allowed(headers.get("origin"), headers.get("host", ""), peer.scheme, allowed):
            refusal = JSONResponse({"error": "origin not allowed"}, 403)
            await websocket.send_denial_response(refusal)
            return
        try:
            answered, offered = negotiate(websocket.scope.get("subprotocols", []))
        except BadRequest as error:
            await websocket.send_denial_response(JSONResponse({"error": error.message}, 400))
            return
        await websocket.accept(subprotocol=answered)
        handshake = UpgradeInfo(
            address=peer.address,
            origin=headers.get("origin"),
            offered=offered,
            ticket=websocket.query_params.get("ticket", ""),
            authorization=headers.get("authorization", ""),
        )
        await gateway.serve_socket(websocket, handshake)

    async def no_socket(self, request: Request) -> Response:
        """Say that this path speaks WebSocket only."""
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return JSONResponse({"error": "this path speaks WebSocket"}, 426, headers=headers)

    async def live(self, request: Request) -> Response:
        """Say that the process runs its loop."""
        return JSONResponse({"status": "live", "version": VERSION})

    async def ready(self, request: Request) -> Response:
        """Say whether traffic may come: a real round trip through log and projection."""
        try:
            await self._gateway.ready()
        except StorageError as error:
            return _unavailable(str(error))
        return JSONResponse({"status": "ready"})

    async def startup(self, request: Request) -> Response:
        """Say which phase of its life the gateway is in."""
        phase, waiting = self._gateway.phase, self._gateway.waiting_for()
        status = 200 if phase in (Phase.READY, Phase.DRAINING) else 503
        return JSONResponse({"phase": phase, "waiting_for": waiting}, status)

    async def metrics(self, request: Request) -> Response:
        """Show the numbers."""
        return Response(self._gateway.metrics.text(), media_type=CONTENT_TYPE)

    async def page(self, request: Request) -> Response:
        """Show the chat page."""
        if not self._page.exists():
            return JSONResponse({"error": "the page is not built: run `make page`"}, 404)
        headers = {"content-security-policy": PAGE_POLICY, "referrer-policy": "no-referrer"}
        return FileResponse(self._page, headers=headers)

    async def page_facts(self, request: Request) -> Response:
        """Tell the page what it may offer: in development the demo users, otherwise nothing."""
        users = self._gateway.demo_users if _local(request) else ()
        return JSONResponse({"demo_users": list(users), "version": VERSION})

    async def demo_token(self, request: Request) -> Response:
        """Hand a demo user's token to the page on this machine, and to nobody else."""
        gateway = self._gateway
        if not gateway.demo_users or not _local(request) or "origin" not in request.headers:
            return JSONResponse({"error": "not found"}, 404)
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError):
            body = None
        user = body.get("user") if isinstance(body, dict) else None
        if user not in gateway.demo_users:
            return JSONResponse({"error": "no such demo user"}, 404)
        return JSONResponse({"token": gateway.demo_token(user)})


def _local(request: Request) -> bool:
    """Whether a request comes from a page of this machine, with nobody in between."""
    host = request.headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in LOCAL_HOSTS or any(header.startswith(FORWARDING) for header in request.headers):
        return False
    return origin_allowed(request.headers.get("origin"), host, request.url.scheme, frozenset())


def _unavailable(reason: str) -> Response:
    return JSONResponse({"error": reason}, 503, headers={"retry-after": "1"})
