"""A gateway in a host application: the host's lifespan, several gateways, and hosts that fail."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Scope
from websockets.exceptions import InvalidStatus

from tests.hosts import HostDied, HostProcess, served, token
from tests.servers.conversation import ask, text_of, until_over
from towpath.agents.agent import AgentInput
from towpath.errors import ConfigurationError, NotRunning
from towpath.gateway import Gateway
from towpath.identity import UserExecutionContext
from towpath.log.sqlite.broker import SqliteBroker
from towpath.manager.bridge import AgentWebSocketBridge
from towpath.manager.results import StartedRun
from towpath.node import build
from towpath.node.node import Phase
from towpath.settings import Settings
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

NOT_RUNNING = "the gateway is not running: the application must mount it with gateway.mount"
SOCKET = "connection/websocket"


def make_gateway(data: Path, *, secret: str = "a shared secret of more than 32 bytes") -> Gateway:
    """Return a gateway whose agent repeats the message."""
    settings = Settings(data=data, jwt_key=SecretStr(secret), tenant_claim="tenant")
    gateway = Gateway(settings)

    @gateway.agent("echo")
    async def echo(request: AgentInput) -> AsyncGenerator[str, None]:
        yield request.message

    return gateway


async def answer_of(url: str, bearer: str, message: str) -> tuple[str, str]:
    """Ask the agent over the wire; return its answer and the thread."""
    async with wire_client(url, bearer) as client:
        started = await ask(client, message, agent="echo")
        await until_over(client, started)
        return text_of(client.events(started.channel)), started.thread


def call(url: str, bearer: str = "", **options: Any) -> httpx2.Response:
    """Request a URL, with a token if there is one."""
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    method = "POST" if options else "GET"
    with httpx2.Client(trust_env=False, timeout=20) as client:
        return client.request(method, url, headers=headers, **options)


def test_a_fastapi_application_keeps_its_lifespan_middleware_and_threads(tmp_path: Path) -> None:
    """Everything of the gateway works beside them, and an endpoint in a thread calls into it."""
    gateway, phases = make_gateway(tmp_path / "data"), []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, str], None]:
        phases.append(gateway.phase)
        yield {"opened": "by the host"}
        phases.append(gateway.phase)

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(GZipMiddleware, minimum_size=1)
    gateway.mount(app, "/towpath")

    async def count_connections() -> int:
        assert gateway.node is not None
        return len(gateway.node.connections)

    @app.get("/connections")
    def connections() -> int:
        return gateway.portal.call(count_connections)

    with served(app) as address:
        base = f"http://{address}/towpath"
        assert "towpath-chat" in call(f"{base}/").text
        assert call(f"{base}/api/v1/whoami", token("mia")).json()["user"] == "mia"
        said, _ = asyncio.run(answer_of(f"ws://{address}/towpath/{SOCKET}", token("mia"), "hello"))
        body = {"threadId": "t", "runId": "r", "messages": [user_message("a stream")]}
        stream = call(f"{base}/agui/echo", token("mia"), json=body)
        assert call(f"http://{address}/connections").json() == 0
    assert said == "hello"
    assert '"delta":"a stream"' in stream.text
    assert phases == [Phase.READY, Phase.READY]
    assert gateway.phase is Phase.STOPPED


def user_message(text: str) -> dict[str, str]:
    """Return a message of a person in AG-UI's form."""
    return {"id": uuid.uuid4().hex, "role": "user", "content": text}


def test_several_gateways_in_one_process_share_nothing(tmp_path: Path) -> None:
    """Each has its people, threads, agents and metrics; the other one's token is invalid there."""
    first = make_gateway(tmp_path / "first", secret="1" * 40)
    second = make_gateway(tmp_path / "second", secret="2" * 40)
    app = Starlette()
    first.mount(app, "/first")
    second.mount(app, "/second")
    mia, foreign = token("mia", secret="1" * 40), token("mia", secret="2" * 40)
    with served(app) as address:
        base = f"http://{address}"
        _, thread = asyncio.run(answer_of(f"ws://{address}/first/{SOCKET}", mia, "hello"))
        assert call(f"{base}/first/api/v1/threads/{thread}", mia).status_code == 200
        # The same person of the same tenant, as the second gateway knows them.
        assert call(f"{base}/second/api/v1/threads/{thread}", foreign).status_code == 404
        assert call(f"{base}/second/api/v1/whoami", mia).status_code == 401
        assert call(f"{base}/first/api/v1/whoami", foreign).status_code == 401
        count = 'towpath_runs_ended_total{agent="echo",code="",status="finished"} 1.0'
        assert count in call(f"{base}/first/metrics").text
        assert count not in call(f"{base}/second/metrics").text
    assert (tmp_path / "first/towpath.db").exists()
    assert (tmp_path / "second/towpath.db").exists()


async def test_two_gateways_over_one_data_directory_are_refused(tmp_path: Path) -> None:
    """The second one stops the start of the host, which names the directory."""
    app = Starlette()
    for path in ("/first", "/second"):
        make_gateway(tmp_path / "data").mount(app, path)
    with pytest.raises(ConfigurationError, match="data is in use"):
        async with app.router.lifespan_context(app):
            pass


FAILING = """
import contextlib, os

from starlette.applications import Starlette

from towpath import Gateway

gateway = Gateway()


@gateway.agent("slow")
async def slow(request):
    for number in range(100000):
        yield f"{number} "


@contextlib.asynccontextmanager
async def lifespan(app):
    if os.environ.get("HOST_FAILS") == "start":
        raise RuntimeError("the database of the host is away")
    yield
    raise RuntimeError("the host cannot close")


app = Starlette(lifespan=lifespan)
gateway.mount(app, "/towpath")
"""


def failing_host(tmp_path: Path, fails: str) -> HostProcess:
    """Return a host whose own lifespan fails at its start or at its end."""
    (tmp_path / "host.py").write_text(FAILING)
    given = {"HOST_FAILS": fails}
    return HostProcess("host:app", tmp_path / "data", cwd=tmp_path, environment=given)


async def test_a_host_that_cannot_start_leaves_the_gateway_closed_and_whole(tmp_path: Path) -> None:
    """The process ends with the host's own error, and the data serves the next start."""
    with pytest.raises(HostDied, match="\nRuntimeError: the database of the host is away\n"):
        failing_host(tmp_path, "start").start()
    with failing_host(tmp_path, "never") as host:
        assert call(f"{host.http}/api/v1/whoami", token()).status_code == 200


async def test_a_host_that_cannot_stop_still_ends_the_runs(tmp_path: Path) -> None:
    """The error of the host's end comes first, then the gateway drains: the run has its ending."""
    with failing_host(tmp_path, "end") as host:
        async with wire_client(host.ws, token()) as client:
            started = await ask(client, "go", agent="slow")
            await client.until_event(started.channel, "TEXT_MESSAGE_CONTENT")
            await asyncio.to_thread(host.stop)
    assert "\nRuntimeError: the host cannot close\n" in host.said
    with failing_host(tmp_path, "never") as host:
        run = call(f"{host.http}/api/v1/runs/{started.run}", token()).json()
    assert (run["status"], run["code"]) == ("failed", "run.drained")


async def test_a_host_that_runs_no_lifespan_gets_one_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """REST, readiness and the upgrade answer 503 and say what to do; the log says it once."""
    app = Starlette()
    app.mount("/towpath", make_gateway(tmp_path / "data"))
    with served(app) as address:
        base = f"http://{address}/towpath"
        for path in ("health/ready", "api/v1/whoami"):
            answer = await asyncio.to_thread(call, f"{base}/{path}", token())
            assert (answer.status_code, NOT_RUNNING in answer.text) == (503, True), path
        with pytest.raises(InvalidStatus) as refused:
            async with wire_client(f"ws://{address}/towpath/{SOCKET}", token()):
                pass
    assert refused.value.response.status_code == 503
    assert NOT_RUNNING in bytes(refused.value.response.body).decode()
    errors = [one for one in caplog.records if one.name == "towpath"]
    assert [one.levelname for one in errors] == ["ERROR"]
    assert NOT_RUNNING in errors[0].getMessage()


class Slow(SqliteBroker):
    """A log that opens when it may."""

    begun = asyncio.Event()
    may_open = asyncio.Event()

    async def start(self) -> None:
        self.begun.set()
        await self.may_open.wait()
        await super().start()


@pytest.fixture
def slow_log(monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
    """Let logs wait until they may open."""
    for name in ("begun", "may_open"):
        monkeypatch.setattr(Slow, name, asyncio.Event())
    monkeypatch.setattr(build, "SqliteBroker", Slow)
    return Slow


def in_background(data: Path) -> tuple[Gateway, Starlette]:
    """Return a gateway that opens in the background, and its host with a route of its own."""
    gateway = make_gateway(data)
    gateway.open_in_background = True

    async def home(_: Request) -> PlainTextResponse:
        return PlainTextResponse("the host serves")

    app = Starlette(routes=[Route("/", home)])
    gateway.mount(app, "/towpath")
    return gateway, app


async def until_phase(gateway: Gateway, phase: Phase) -> None:
    """Wait until the gateway is in a phase."""
    async with asyncio.timeout(60):
        while gateway.phase is not phase:  # noqa: ASYNC110 - the phase is a plain value
            await asyncio.sleep(0.01)


async def test_a_host_serves_while_the_log_is_opened_in_the_background(
    tmp_path: Path, slow_log: type[Slow]
) -> None:
    """Requests, upgrades and calls are refused until then; nothing is logged; then all works."""
    gateway, app = in_background(tmp_path / "data")
    alice = UserExecutionContext(tenant="acme", user="alice")
    async with app.router.lifespan_context(app):
        assert (gateway.phase, gateway.node) == (Phase.STARTING, None)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://host") as client:
            assert (await client.get("/")).text == "the host serves"
            for path in ("/towpath/api/v1/whoami", "/towpath/", "/towpath/agui/threads/t"):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["phase"]) == (503, "starting"), path
            assert (await client.get("/towpath/health/startup")).json()["phase"] == "starting"
            assert (await client.get("/towpath/health/live")).status_code == 200
            with pytest.raises(NotRunning, match="open_in_background"):
                await gateway.notify(alice, "hello")
            with pytest.raises(NotRunning):
                await asyncio.to_thread(gateway.portal.call, gateway.notify, alice, "hello")
            slow_log.may_open.set()
            await until_phase(gateway, Phase.READY)
            headers = {"Authorization": f"Bearer {token('alice')}"}
            assert (await client.get("/towpath/api/v1/whoami", headers=headers)).status_code == 200
        await gateway.notify(alice, "hello")
    assert (gateway.phase, gateway.node) == (Phase.STOPPED, None)


async def test_a_host_that_stops_while_the_log_is_opened_does_not_wait(
    tmp_path: Path, slow_log: type[Slow]
) -> None:
    """The opening is cancelled, and the gateway can be opened again."""
    gateway, app = in_background(tmp_path / "data")
    phases = []
    async with app.router.lifespan_context(app):
        await slow_log.begun.wait()
        phases.append(gateway.phase)
    phases.append(gateway.phase)
    slow_log.may_open.set()
    async with app.router.lifespan_context(app):
        await until_phase(gateway, Phase.READY)
        phases.append(gateway.phase)
    assert phases == [Phase.STARTING, Phase.STOPPED, Phase.READY]


async def test_a_log_that_cannot_be_opened_in_the_background_is_seen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The host serves on; the log has the reason once, and phase, health and requests say so."""
    (tmp_path / "file").write_text("")
    gateway, app = in_background(tmp_path / "file" / "data")
    async with app.router.lifespan_context(app):
        await until_phase(gateway, Phase.FAILED)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://host") as client:
            assert (await client.get("/")).status_code == 200
            assert (await client.get("/towpath/health/live")).status_code == 200
            for path in ("health/ready", "health/startup", "api/v1/whoami", ""):
                answer = await client.get(f"/towpath/{path}")
                assert (answer.status_code, "failed" in answer.text) == (503, True), path
                assert "file" not in answer.text
            metrics = gateway.metrics.exposition("")[0].decode()
            assert 'towpath_faults_total{where="gateway"} 1.0' in metrics
    (line,) = [one for one in caplog.records if one.name == "towpath"]
    assert line.levelname == "ERROR"
    assert line.exc_info is not None
    assert isinstance(line.exc_info[1], ConfigurationError)
    assert gateway.phase is Phase.STOPPED


async def test_a_mounted_gateway_names_the_agents_that_still_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It gives the run its ending, closes its log, says who holds on, and does not wait longer."""
    gateway, released, begun = make_gateway(tmp_path / "data"), asyncio.Event(), asyncio.Event()
    bounds = {"cleanup_timeout": 0.2, "drain_timeout": 2.0}
    gateway.settings = gateway.settings.model_copy(update=bounds)

    @gateway.agent("deaf")
    async def deaf(request: AgentInput) -> AsyncGenerator[str, None]:
        yield request.message
        begun.set()
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    app = Starlette()
    gateway.mount(app, "/towpath")
    alice = UserExecutionContext(tenant="acme", user="alice")
    async with app.router.lifespan_context(app):
        run = await gateway.start_run(alice, "deaf", "hello")
        assert isinstance(run, StartedRun)
        await begun.wait()
    try:
        (line,) = [one for one in caplog.records if "agents_still_running" in one.getMessage()]
        assert f"deaf (thread {run.thread}, run {run.run})" in line.getMessage()
        assert gateway.phase is Phase.STOPPED
        async with gateway.lifespan():
            record = await AgentWebSocketBridge(alice, gateway=gateway).get_run_status(run.run)
        assert record is not None
        assert (record.status, record.code) == ("failed", "run.drained")
    finally:
        released.set()


async def test_a_server_without_denial_responses_closes_the_upgrade(tmp_path: Path) -> None:
    """Such a server answers 403 for a close before the accept; nothing is raised in the host."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "websocket",
        "path": f"/{SOCKET}",
        "headers": [(b"host", b"127.0.0.1")],
        "query_string": b"",
        "extensions": {},
    }
    await make_gateway(tmp_path / "data")(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
