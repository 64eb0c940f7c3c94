"""Mounts a gateway in another application: its routes, and its lifespan around the application's.

A gateway that cannot start reports the reason in one sentence. Without this module, Starlette sends
the whole traceback to the server, which logs it with the reason as its last line.

Source: ASGI specification 3.0, lifespan protocol.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from towpath.errors import ConfigurationError

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


def mount_gateway(app: Starlette, path: str, gateway: ASGIApp, inner: Lifespan) -> None:
    """Add the routes of a gateway to an application, and wrap the application's lifespan.

    Args:
        app: a Starlette or FastAPI application.
        path: the path prefix of the gateway's routes.
        gateway: the routes.
        inner: the gateway's lifespan; begins before that of the application, and ends after it.
    """
    app.mount(path, gateway)
    outer = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(host: Any) -> AsyncGenerator[Any, None]:
        async with inner(), outer(host) as state:
            yield state

    app.router.lifespan_context = lifespan
    report_refusals_in_one_sentence(app.router)


def report_refusals_in_one_sentence(router: Router) -> None:
    """Report a ConfigurationError at startup as its message only, without the traceback."""
    run, enter = router.lifespan, router.lifespan_context
    refusal: ConfigurationError | None = None

    @contextlib.asynccontextmanager
    async def noting(host: Any) -> AsyncGenerator[Any, None]:
        nonlocal refusal
        try:
            async with enter(host) as state:
                yield state
        except ConfigurationError as error:
            refusal = error
            raise

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        async def plainly(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and refusal is not None:
                message = {**message, "message": f"towpath: {refusal}"}
            await send(message)

        await run(scope, receive, plainly)

    router.lifespan_context = noting
    router.lifespan = lifespan  # type: ignore[method-assign]
