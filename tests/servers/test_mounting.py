"""A gateway inside another application, behind that application's middleware."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.hosts import SECRET, served, token
from tests.servers.conversation import GOLDEN_PATH, ask, golden_names, until_over
from towpath.agents import demo
from towpath.agents.agent import AgentInput
from towpath.errors import ConfigurationError
from towpath.gateway import Gateway
from towpath.settings import Settings
from towpath.testing.server import ServerProcess, free_port
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers


class CookieMiddleware:
    """Sets a cookie on each answer, as session middleware does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"set-cookie", b"session=1")]
            await send(message)

        scope["session"] = {}
        await self.app(scope, receive, marked)


MIDDLEWARE = (
    Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"]),
    Middleware(GZipMiddleware, minimum_size=1),
    Middleware(CORSMiddleware, allow_origins=["https://app.example"]),
    Middleware(CookieMiddleware),
)


def make_gateway(data: Path) -> Gateway:
    """Return a gateway with an issuer, as one that is mounted needs."""
    settings = Settings(data=data, jwt_key=SecretStr(SECRET), tenant_claim="tenant")
    gateway = Gateway(settings)
    gateway.agent("tools")(demo.tools)
    return gateway


def mounted(gateway: Gateway, middleware: tuple[Middleware, ...] = ()) -> Starlette:
    """Return an application with the gateway in it."""
    app = Starlette(middleware=middleware)
    gateway.mount(app, "/towpath")
    return app


async def types_of_a_run(url: str, token: str) -> list[str]:
    """Run the golden path and return the types of its events, in order."""
    async with wire_client(url, token) as client:
        started = await ask(client, "hello wonderful world")
        await until_over(client, started)
        events = client.events(started.channel)
    assert golden_names(events) == GOLDEN_PATH
    return [event["type"] for event in events]


@pytest.mark.parametrize("first", range(len(MIDDLEWARE)))
def test_r54_the_golden_path_passes_behind_middleware(tmp_path: Path, first: int) -> None:
    """Host check, compression, CORS and cookies around it, in every order: all five names."""
    rest = [one for one in MIDDLEWARE if one is not MIDDLEWARE[first]]
    for number, order in enumerate(itertools.permutations(rest)):
        gateway = make_gateway(tmp_path / str(number))
        with served(mounted(gateway, (MIDDLEWARE[first], *order))) as address:
            url = f"ws://{address}/towpath/connection/websocket"
            asyncio.run(types_of_a_run(url, token()))


def test_r49_every_construction_path_delivers_the_same(
    tmp_path: Path, server: ServerProcess
) -> None:
    """`gateway.mount`, `app.mount` with its lifespan, and `towpath serve`: identical events."""
    with served(mounted(make_gateway(tmp_path / "mount"))) as address:
        url = f"ws://{address}/towpath/connection/websocket"
        by_gateway = asyncio.run(types_of_a_run(url, token()))
    plain = make_gateway(tmp_path / "plain")
    app = Starlette(lifespan=plain.lifespan)
    app.mount("/deep/down", plain)
    with served(app) as address:
        url = f"ws://{address}/deep/down/connection/websocket"
        by_app = asyncio.run(types_of_a_run(url, token()))
    with served(make_gateway(tmp_path / "alone")) as address:
        alone = asyncio.run(types_of_a_run(f"ws://{address}/connection/websocket", token()))
    by_serve = asyncio.run(types_of_a_run(server.ws, server.token("guest")))
    assert by_gateway == by_app == alone == by_serve


async def hangs(request: AgentInput) -> AsyncGenerator[str, None]:
    """Begin, and never end."""
    yield request.message
    await asyncio.Event().wait()


def test_the_deadline_of_replaced_settings_counts(tmp_path: Path) -> None:
    """Settings may be replaced until the lifespan begins, also after an agent was registered."""
    gateway = make_gateway(tmp_path / "data")
    gateway.agent("hangs")(hangs)
    gateway.agent("patient", deadline=600)(hangs)
    bounds = {"run_deadline": 0.3, "cleanup_timeout": 0.2}
    gateway.settings = gateway.settings.model_copy(update=bounds)
    with served(gateway) as address:
        url = f"ws://{address}/connection/websocket"
        code, status = asyncio.run(end_and_status(url, token()))
    assert (code, status) == ("run.deadline", "running")


async def end_and_status(url: str, token: str) -> tuple[str, str]:
    """Return how a run of `hangs` ended, and the status of one of `patient` at that moment."""
    async with wire_client(url, token) as client:
        patient = await ask(client, "wait", agent="patient")
        hanging = await ask(client, "wait", agent="hangs")
        await until_over(client, hanging)
        (*_, end) = client.events(hanging.channel)
        status = (await client.rpc("run.get", run_id=patient.run))["status"]
    return end["code"], status


async def test_a_mounted_gateway_needs_an_issuer(tmp_path: Path) -> None:
    """Without one the host does not start, and the line names both ways out."""
    gateway = Gateway(Settings(data=tmp_path / "data"))
    app = mounted(gateway)
    with pytest.raises(ConfigurationError, match=r"TOWPATH_JWT_KEY.*--dev"):
        async with app.router.lifespan_context(app):
            pass
    assert not (tmp_path / "data").exists()


MAIN = """
from starlette.applications import Starlette
from towpath import Gateway

gateway = Gateway()
app = Starlette()
gateway.mount(app, "/towpath")
"""


@pytest.mark.parametrize("what", ["main:app", "main:gateway"])
def test_a_second_worker_is_refused_in_one_sentence(tmp_path: Path, what: str) -> None:
    """uvicorn with two workers, mounted or as it is: one says what to do, without a traceback."""
    (tmp_path / "main.py").write_text(MAIN)
    command = [sys.executable, "-m", "uvicorn", what, "--workers", "2", "--port", str(free_port())]
    settings = {"TOWPATH_JWT_KEY": SECRET, "TOWPATH_TENANT": "acme", "TOWPATH_DATA": "data"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as supervisor:
        try:
            assert supervisor.stderr is not None
            lines = []
            for line in supervisor.stderr:
                lines.append(line)
                if "startup failed" in line:
                    break
        finally:
            supervisor.terminate()
    (sentence,) = [line for line in lines if "towpath: " in line]
    assert "data directory data is in use" in sentence
    assert "run one worker" in sentence
    assert not any("Traceback" in line or 'File "' in line for line in lines)
