"""A gateway in a Starlette application that enters the gateway's lifespan in its own.

    pip install towpath 'uvicorn[standard]'
    export TOWPATH_JWT_KEY="$(openssl rand -hex 32)" TOWPATH_TENANT=acme
    uvicorn examples.starlette_app:app

Open http://127.0.0.1:8000/towpath/ and paste a token; `python examples/sign_token.py alice` signs
one, where the variables are set too.

`gateway.mount(app, "/towpath")` would do the same in one line. This way serves applications that
list their routes, and decide themselves what starts before the gateway and what after it.
"""

import contextlib
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from towpath import AgentInput, Gateway

gateway = Gateway()


@gateway.agent("assistant")
async def assistant(request: AgentInput) -> AsyncGenerator[str, None]:
    """Say the message in capitals."""
    for word in request.message.split():
        yield word.upper() + " "


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    """Run the gateway as long as the application serves."""
    async with gateway.lifespan():
        yield


async def home(request: Request) -> Response:
    """Show an endpoint of the application, beside the gateway."""
    return PlainTextResponse("The chat is at /towpath/")


app = Starlette(routes=[Route("/", home), Mount("/towpath", gateway)], lifespan=lifespan)
