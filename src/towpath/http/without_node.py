"""Answers requests while the gateway has no node: 503, with the phase and `Retry-After`.

A log may take its time to open. A server that listens meanwhile tells load balancers and clients
when to come back, and no request reaches a part that is not built yet.
"""

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from towpath.http.requests import NotServing, Site, error_response
from towpath.http.sockets import deny

HEALTH = frozenset(
    {"/health/live", "/health/ready", "/health/startup", "/livez", "/readyz", "/healthz"}
)
"""The paths that are answered without a node: they show the phase themselves."""
AGUI = "/agui/"
"""The prefix of the paths that refuse a request themselves, with the headers of CORS."""


class WithoutNode:
    """ASGI middleware that answers in place of an application that has no node."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI."""
        if self._site.node is not None or _answers_itself(scope):
            await self._app(scope, receive, send)
            return
        response = error_response(NotServing(self._site.phase))
        if scope["type"] == "websocket":
            await deny(WebSocket(scope, receive, send), response)
        else:
            await response(scope, receive, send)


def _answers_itself(scope: Scope) -> bool:
    """Whether an endpoint answers without a node; `root_path` is where the gateway is mounted."""
    if scope["type"] == "lifespan":
        return True
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in HEALTH or path.startswith(AGUI)
