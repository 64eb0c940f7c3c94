"""A gateway in a FastAPI application that has a lifespan and middleware of its own.

    pip install towpath fastapi 'uvicorn[standard]'
    export TOWPATH_JWT_KEY="$(openssl rand -hex 32)" TOWPATH_TENANT=acme
    uvicorn examples.fastapi_app:app

Open http://127.0.0.1:8000/towpath/ and paste a token; `python examples/sign_token.py alice` signs
one, where the variables are set too.
"""

import contextlib
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware

from towpath import AgentInput, Gateway

gateway = Gateway()


@gateway.agent("assistant")
async def assistant(request: AgentInput) -> AsyncGenerator[str, None]:
    """Say the message in capitals."""
    for word in request.message.split():
        yield word.upper() + " "


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Open what the application needs; the gateway has started, and stops later."""
    app.state.prices = {"pears": "0.30"}
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(GZipMiddleware)
gateway.mount(app, "/towpath")


@app.get("/prices/{fruit}")
def price(fruit: str) -> dict[str, str | None]:
    """Show an endpoint of the application, beside the gateway."""
    return {"price": app.state.prices.get(fruit)}
