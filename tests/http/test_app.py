"""The HTTP endpoints of a real server: who may ask, what they answer, and what they hide."""

import asyncio
import re
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from tests.servers.conversation import ask, until_over
from towpath.gateway import Gateway
from towpath.http.app import PUBLIC, make_app
from towpath.methods.table import METHODS
from towpath.settings import Settings
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx2.Client]:
    """Somebody who has not said who they are."""
    with httpx2.Client(base_url=server.http, trust_env=False) as client:
        yield client


def known(server: ServerProcess, user: str, tenant: str = "acme") -> httpx2.Client:
    """Return a client of the REST API that bears a good token."""
    return httpx2.Client(
        base_url=f"{server.http}/api/v1",
        headers={"Authorization": f"Bearer {server.token(user, tenant)}"},
        trust_env=False,
    )


def asked(**more: Any) -> dict[str, Any]:
    """Return a body with a request id of its own."""
    return {"request_id": uuid.uuid4().hex, **more}


def endpoints(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield every path of an application and its methods; WebSocket endpoints have none."""
    for route in routes:
        if isinstance(route, Mount) and route.routes:
            yield from endpoints(route.routes, prefix + route.path)
        elif isinstance(route, Route):
            yield prefix + route.path, route.methods or set()
        elif isinstance(route, Mount | WebSocketRoute):
            yield prefix + route.path, set()


def test_r15_every_endpoint_outside_the_public_list_asks(http: httpx2.Client) -> None:
    """All routes are walked: without a credential, or with a bad one, each other answers 401."""
    found = dict(endpoints(make_app(Gateway(Settings())).routes))
    guarded = {path: methods for path, methods in found.items() if path not in PUBLIC}
    assert set(found) >= PUBLIC
    # The socket's own path answers 426 to what is no upgrade, and 3500 to one (R63).
    assert http.get("/connection/websocket").status_code == 426
    agui = {"/agui/{agent}", "/agui/threads/{thread}"}
    assert set(guarded) == agui | {f"/api/v1{one.route[1]}" for one in METHODS.values()}
    for path, methods in guarded.items():
        for method in methods:
            url = re.sub(r"\{\w+\}", "x", path)
            # The same bad credential again and again would meet a limit instead.
            bad = {"Authorization": f"Bearer {uuid.uuid4().hex}.y.z"}
            for headers in ({}, bad, {"Authorization": "Basic eA=="}):
                answer = http.request(method, url, headers=headers, params={"token": "x"})
                assert answer.status_code == 401, (method, url)
                assert answer.headers["www-authenticate"] == "Bearer"


def test_every_method_over_rest(server: ServerProcess) -> None:
    """Each method does over REST what it does over the wire, with HTTP's statuses."""
    with known(server, "rest") as rest, known(server, "stranger") as stranger:
        who = rest.get("/whoami").json()
        assert (who["user"], who["tenant"], who["connection"]) == ("rest", "acme", None)
        assert [one["name"] for one in rest.get("/agents").json()["agents"]] == ["tools", "echo"]
        thread = rest.post("/threads", json=asked(title="one")).json()["thread_id"]
        assert rest.patch(f"/threads/{thread}", json=asked(title="two")).json() == {}
        assert rest.get("/threads", params={"limit": 1}).json()["threads"][0]["title"] == "two"
        start = asked(agent="tools", thread_id=thread, message="count 100000 at 50/s")
        run = rest.post("/runs", json=start).json()["run_id"]
        assert rest.post("/runs", json=start).json()["run_id"] == run
        assert rest.post("/runs", json={**start, "message": "x"}).status_code == 409
        assert rest.get(f"/runs/{run}").json()["status"] == "running"
        assert stranger.post(f"/runs/{run}/cancel", json=asked()).status_code == 404
        assert rest.post(f"/runs/{run}/cancel", json=asked()).json() == {"status": "accepted"}
        assert rest.get(f"/runs/{run}").json()["status"] == "cancelled"
        assert rest.post(f"/runs/{run}/cancel", json=asked()).json() == {"status": "too_late"}
        assert [one["run_id"] for one in rest.get(f"/threads/{thread}/runs").json()["runs"]] == [
            run
        ]
        view = rest.get(f"/threads/{thread}").json()
        assert [message["role"] for message in view["messages"]] == ["user", "assistant"]
        assert view["position"]["offset"] > 0
        assert rest.delete(f"/threads/{thread}", params=asked()).json() == {}
        assert rest.get(f"/threads/{thread}").status_code == 404
        assert rest.post("/runs", json=asked(agent="nobody", message="x")).status_code == 404


async def test_r35_a_foreign_thread_is_a_missing_one_over_rest(server: ServerProcess) -> None:
    """Every endpoint answers for somebody else's thread and run exactly as for none: 404."""
    async with wire_client(server.ws, server.token("keeper")) as client:
        started = await ask(client, "private", agent="echo")
        await until_over(client, started)
    for user, tenant in (("stranger", "acme"), ("keeper", "globex")):
        with known(server, user, tenant) as rest:
            for method, path in (
                ("GET", "/threads/{}"),
                ("GET", "/threads/{}/runs"),
                ("PATCH", "/threads/{}"),
                ("DELETE", "/threads/{}"),
                ("GET", "/runs/{}"),
                ("POST", "/runs/{}/cancel"),
            ):
                body = None if method == "GET" else asked(title="mine")
                number = started.run if path.startswith("/runs") else started.thread
                foreign = rest.request(method, path.format(number), json=body)
                missing = rest.request(method, path.format("missing"), json=body)
                assert foreign.status_code == missing.status_code == 404, (method, path)
                assert foreign.content == missing.content


def test_bad_bodies_are_answered(server: ServerProcess) -> None:
    """Malformed, oversize and too deep bodies get 400 or 413; never 500."""
    with known(server, "sloppy") as rest:
        bodies = (b"{", b"[]", b"7", b"\xff\xfe", b"null", b"[" * 5000, b'{"title":4}', b"{}")
        for body in bodies:
            answer = rest.post("/threads", content=body)
            assert answer.status_code == 400, body[:20]
            assert set(answer.json()["error"]) == {"code", "message"}
        big = asked(agent="echo", message="x" * 300_000)
        assert rest.post("/runs", json=big).status_code == 413
        assert rest.post("/runs", content=b" " * 1_100_000).status_code == 413
        assert rest.get("/threads", params={"limit": "many"}).status_code == 400
        assert rest.get("/threads", params={"limit": "0"}).status_code == 400
        assert rest.get("/threads").json() == {"threads": []}


def test_the_description_lists_every_method(http: httpx2.Client) -> None:
    """The OpenAPI document names each method once and refers to nothing that is not there."""
    described = http.get("/api/v1/openapi.json").json()
    listed = {
        operation["operationId"]: (method.upper(), path)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert listed == {
        name: (one.route[0], f"/api/v1{one.route[1]}") for name, one in METHODS.items()
    }
    assert described["openapi"].startswith("3.1")
    assert described["security"] == [{"bearer": []}]
    schemas = described["components"]["schemas"]
    references = re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(described))
    assert references
    assert set(references) <= set(schemas)
    for path, methods in described["paths"].items():
        for operation in methods.values():
            named = {x["name"] for x in operation.get("parameters", ()) if x["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))


def test_health_says_live_ready_and_started(http: httpx2.Client) -> None:
    """The three health paths and their aliases answer 200 on a server that works."""
    for path in ("live", "ready", "startup"):
        assert http.get(f"/health/{path}").status_code == 200
    for path in ("/livez", "/readyz", "/healthz"):
        assert http.get(path).status_code == 200


async def test_r57_r53_readiness_follows_the_log(tmp_path: Path) -> None:
    """While the log cannot be written, ready is 503 and live is 200; after it, ready again."""
    environment = {"TOWPATH_READY_TIMEOUT": "0.3"}
    with (
        ServerProcess(tmp_path / "data", environment=environment) as server,
        httpx2.Client(base_url=server.http, trust_env=False) as http,
    ):
        async with wire_client(server.ws, server.token()) as client:
            other = sqlite3.connect(tmp_path / "data" / "towpath.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            try:
                answer = await asyncio.to_thread(http.get, "/health/ready")
                assert answer.status_code == 503
                assert "retry-after" in answer.headers
                assert http.get("/health/live").status_code == 200
                assert (await client.rpc("whoami"))["user"] == "alice"
            finally:
                other.execute("ROLLBACK")
                other.close()
            async with asyncio.timeout(10):
                while not server.ready():  # noqa: ASYNC110 - another process.
                    await asyncio.sleep(0.05)
            assert (await client.rpc("thread.create", request_id="after"))["thread_id"]


async def test_metrics_hold_no_id(server: ServerProcess, http: httpx2.Client) -> None:
    """Every metric starts with towpath_, and nothing a person chose stands in a label."""
    async with wire_client(server.ws, server.token("metric-user", "metric-tenant")) as client:
        started = await ask(client, "hello", agent="echo")
        await until_over(client, started)
        await client.command("rpc", method="metric-method", data={})
        refused = {"request_id": "metric-request", "agent": "metric-agent", "message": "x"}
        await client.command("rpc", method="run.start", data=refused)
        text = http.get("/metrics").text
        ids = (client.client_id, started.run, started.thread)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines
    assert all(line.startswith("towpath_") for line in lines)
    for word in (*ids, "metric-"):
        assert word not in text
    assert re.search(r"^towpath_connections 1\.0$", text, re.MULTILINE)
    assert re.search(r'towpath_runs_ended_total\{agent="echo",code="",status="finished"\}', text)


async def test_metrics_come_in_the_format_that_the_client_accepts(http: httpx2.Client) -> None:
    """OpenMetrics for a scraper that asks for it, with its content type; text for all others."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"
    answer = http.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    for other in ("text/html", "application/openmetrics-text; version=abc"):
        answer = http.get("/metrics", headers={"accept": other})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_a_page_that_was_not_built_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout whose page was not built serves everything else, and says how it is built."""
    monkeypatch.setattr("towpath.http.app.files", lambda package: tmp_path)
    gateway = Gateway(Settings(data=tmp_path / "data"))
    gateway.use_development_key("127.0.0.1")
    transport = httpx2.ASGITransport(app=make_app(gateway))
    async with (
        gateway.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        answer = await client.get("/")
        assert answer.status_code == 404
        assert "make page" in answer.json()["error"]
        assert (await client.get("/health/live")).status_code == 200


def test_r12_the_demo_token_goes_to_the_page_on_this_machine_only(
    server: ServerProcess, http: httpx2.Client
) -> None:
    """The page's own request gets a real token; any trace of a proxy or another page gets 404."""
    page = {"Origin": server.http}

    def ask_for(user: Any = "alice", **headers: str) -> int:
        return http.post("/dev/token", json={"user": user}, headers=headers).status_code

    assert ask_for(**page) == 200
    for header in ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"):
        assert ask_for(**page, **{header: "x"}) == 404, header
    for header in ("X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Anything"):
        assert ask_for(**page, **{header: "x"}) == 404, header
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{server.port}", "file://"):
        assert ask_for(Origin=origin) == 404, origin
    assert ask_for() == 404
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        "127.0.0.1.evil.example",
        "10.0.0.1",
    ):
        assert ask_for(Host=host, Origin=f"http://{host}") == 404, host
    for user in ("root", "", None, 7, ["alice"]):
        assert ask_for(user, **page) == 404, user
    assert http.get("/page.json").json()["demo_users"]
    assert http.get("/page.json", headers={"Via": "x"}).json()["demo_users"] == []
    granted = http.post("/dev/token", json={"user": "bob"}, headers=page).json()["token"]
    bearing = {"Authorization": f"Bearer {granted}"}
    assert http.get("/api/v1/whoami", headers=bearing).json()["user"] == "bob"


def test_r12_without_dev_there_are_no_demo_users(tmp_path: Path) -> None:
    """A server with an issuer of its own offers nobody and mints nothing."""
    environment = {"TOWPATH_JWT_KEY": "k" * 40, "TOWPATH_TENANT": "acme"}
    with (
        ServerProcess(tmp_path / "data", environment=environment, development=False) as server,
        httpx2.Client(base_url=server.http, trust_env=False) as http,
    ):
        headers = {"Origin": server.http}
        assert http.post("/dev/token", json={"user": "alice"}, headers=headers).status_code == 404
        assert http.get("/page.json").json()["demo_users"] == []
        bearing = {"Authorization": f"Bearer {server.token()}"}
        assert http.get("/api/v1/whoami", headers=bearing).status_code == 401


def test_a_page_of_another_origin_cannot_connect(
    server: ServerProcess, http: httpx2.Client
) -> None:
    """An upgrade with a foreign Origin is 403, whatever else it brings."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Authorization": f"Bearer {server.token()}",
    }
    for origin in ("http://evil.example", "null", f"http://localhost:{server.port}"):
        answer = http.get("/connection/websocket", headers={**upgrade, "Origin": origin})
        assert answer.status_code == 403, origin
