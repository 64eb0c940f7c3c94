"""A gateway in a Litestar application.

    pip install towpath litestar 'uvicorn[standard]'
    export TOWPATH_JWT_KEY="$(openssl rand -hex 32)" TOWPATH_TENANT=acme
    uvicorn examples.litestar_app:app

Open http://127.0.0.1:8000/towpath/ and paste a token; `python examples/sign_token.py alice` signs
one, where the variables are set too.

The gateway is an ASGI application: a handler passes requests on to it, and Litestar runs the
gateway's lifespan. `is_static` makes Litestar pass the rest of a path as it is; with `is_mount`
Litestar would add a slash, and no route of the gateway would match.
"""

from collections.abc import AsyncGenerator

from litestar import Litestar, asgi, get
from starlette.types import Receive, Scope, Send

from towpath import AgentInput, Gateway

gateway = Gateway()


@gateway.agent("assistant")
async def assistant(request: AgentInput) -> AsyncGenerator[str, None]:
    """Say the message in capitals."""
    for word in request.message.split():
        yield word.upper() + " "


@asgi("/towpath", is_static=True, copy_scope=True)
async def towpath(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass everything under this path to the gateway."""
    await gateway(scope, receive, send)


@get("/")
async def home() -> str:
    """Show an endpoint of the application, beside the gateway."""
    return "The chat is at /towpath/"


app = Litestar([home, towpath], lifespan=[gateway.lifespan])
