"""The routes of the gateway, and its endpoints outside the APIs: health, metrics, chat page.

`PUBLIC` lists all paths that respond without a credential; every other endpoint needs one. A test
compares the list with all routes.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Lifespan
from starlette.websockets import WebSocket

from towpath.auth.handshake import origin_allowed
from towpath.connections.asgi import AsgiTransport
from towpath.errors import NotRunning, StorageError
from towpath.http.agui import agui_routes
from towpath.http.mounting import report_refusals_in_one_sentence
from towpath.http.requests import Site
from towpath.http.rest import api_routes
from towpath.http.sockets import accept, deny
from towpath.http.without_node import WithoutNode
from towpath.node.node import VERSION, Phase

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
"""Paths that respond without a credential. `/dev/token` does so in development only. The WebSocket
path responds with 426 to every request that is not an upgrade."""

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""The Host names for which the demo-token endpoint returns tokens."""
FORWARDING = ("forwarded", "x-forwarded-", "via")
"""Prefixes of the names of headers that a proxy adds."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html dompurify"
)
"""The content security policy of the chat page. Only two sources of HTML are trusted: the
page's templates, and what DOMPurify has sanitised."""


def make_app(site: Site, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """Return the application of a site.

    Args:
        site: the gateway of the endpoints.
        lifespan: runs the site's node, if a server runs the application alone.
    """
    endpoints = _Endpoints(site)
    web = Path(str(files("towpath") / "web"))
    routes: list[BaseRoute] = [
        WebSocketRoute("/connection/websocket", endpoints.socket),
        Route("/connection/websocket", endpoints.no_socket),
        Mount("/api/v1", routes=api_routes(site)),
        agui_routes(site),
        Route("/health/live", endpoints.live),
        Route("/health/ready", endpoints.ready),
        Route("/health/startup", endpoints.startup),
        Route("/livez", endpoints.live),
        Route("/readyz", endpoints.ready),
        Route("/healthz", endpoints.live),
        Route("/metrics", endpoints.metrics),
        Route("/dev/token", endpoints.demo_token, methods=["POST"]),
        Route("/page.json", endpoints.page_facts),
        Route("/", endpoints.page),
        Mount("/static", StaticFiles(directory=web, check_dir=False)),
    ]
    waiting = Middleware(WithoutNode, site=site)
    app = Starlette(routes=routes, middleware=[waiting], lifespan=lifespan)
    report_refusals_in_one_sentence(app.router)
    return app


class _Endpoints:
    """The endpoints that are not part of an API."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._page = Path(str(files("towpath") / "web" / "index.html"))

    async def socket(self, websocket: WebSocket) -> None:
        """Answer an upgrade: 101 whatever its credential; an error status if it is refused."""
        node = self._site.node
        if node is None or node.phase is not Phase.READY:
            await deny(websocket, _not_ready(self._site.phase))
        elif (upgrade := await accept(websocket, node)) is not None:
            await node.serve(node.open(AsgiTransport(websocket), upgrade))

    async def no_socket(self, request: Request) -> Response:
        """Refuse a request that is not an upgrade: this path supports WebSocket only."""
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return JSONResponse({"error": "this path speaks WebSocket"}, 426, headers=headers)

    async def live(self, request: Request) -> Response:
        """Show that the process runs its event loop."""
        return JSONResponse({"status": "live", "version": VERSION})

    async def ready(self, request: Request) -> Response:
        """Show whether the node can serve, after a round trip through its log and projection."""
        if self._site.node is None:
            return _not_ready(self._site.phase)
        try:
            await self._site.node.ready()
        except StorageError as error:
            return _unavailable(str(error))
        return JSONResponse({"status": "ready"})

    async def startup(self, request: Request) -> Response:
        """Show the phase, and which issuers' keys are missing."""
        phase, node = self._site.phase, self._site.node
        waiting_for = node.waiting_for if node is not None else []
        status = 200 if phase in (Phase.READY, Phase.DRAINING) else 503
        return JSONResponse({"phase": phase.value, "waiting_for": waiting_for}, status)

    async def metrics(self, request: Request) -> Response:
        """Show the metrics."""
        accept = request.headers.get("accept", "")
        body, content_type = self._site.metrics.exposition(accept)
        return Response(body, media_type=content_type)

    async def page(self, request: Request) -> Response:
        """Show the chat page."""
        if not self._page.exists():
            return _error("the page is not built: run `make page`", 404)
        headers = {"content-security-policy": PAGE_POLICY, "referrer-policy": "no-referrer"}
        return FileResponse(self._page, headers=headers)

    async def page_facts(self, request: Request) -> Response:
        """List the demo users that the page may offer; none outside of development."""
        users = self._site.demo_users if _is_local(request) else ()
        return JSONResponse({"demo_users": list(users), "version": VERSION})

    async def demo_token(self, request: Request) -> Response:
        """Return a demo user's token, only to the page on this machine."""
        offered = self._site.demo_users
        if not offered or not _is_local(request) or "origin" not in request.headers:
            return _error("not found", 404)
        user = await _requested_user(request)
        if user not in offered:
            return _error("no such demo user", 404)
        return JSONResponse({"token": self._site.demo_token(user)})


async def _requested_user(request: Request) -> Any:
    """Return the `user` of a JSON body; None if the body is not a JSON object."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        return None
    return body.get("user") if isinstance(body, dict) else None


def _is_local(request: Request) -> bool:
    """Whether a page on this machine sent the request, without a proxy."""
    host = request.headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in LOCAL_HOSTS or any(header.startswith(FORWARDING) for header in request.headers):
        return False
    return origin_allowed(request.headers.get("origin"), host, request.url.scheme, frozenset())


def _error(reason: str, status: int) -> Response:
    return JSONResponse({"error": reason}, status)


def _not_ready(phase: Phase) -> Response:
    return _unavailable(str(NotRunning()) if phase is Phase.STOPPED else phase)


def _unavailable(reason: str) -> Response:
    return JSONResponse({"error": reason}, 503, headers={"retry-after": "1"})
