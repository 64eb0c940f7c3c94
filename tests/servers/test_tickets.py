"""Credentials of clients that cannot send a token of their own: tickets and sub-protocols."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.typing import Subprotocol

from tests.servers.conversation import ask, until_over
from tests.servers.issuing import UPGRADE, connect_once, environment, get, http_client
from towpath.auth.handshake import PLAIN_NAMES, SPELLING
from towpath.auth.tickets import PREFIX
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

PAGE = "https://app.example"
OTHER_PAGE = "https://other.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two pages on other hosts, at log level DEBUG, that limits no failures: those
    limits have tests of their own.
    """
    settings = environment(
        allowed_origins=json.dumps([PAGE, OTHER_PAGE]),
        failures_burst=100_000,
        repeats_burst=100_000,
    )
    data = tmp_path_factory.mktemp("tickets") / "data"
    with ServerProcess(data, "--log-level", "DEBUG", environment=settings) as process:
        yield process


async def ticket(server: ServerProcess, user: str, *, page: str = "", **body: Any) -> str:
    """Issue a ticket, as a page's own server or, with `page`, as the page itself does."""
    async with http_client(server, server.token(user)) as rest:
        headers = {"origin": page} if page else {}
        answer = await rest.post("/api/v1/tickets", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["expires_in"] == 60
    issued: str = answer.json()["ticket"]
    assert issued.startswith(PREFIX)
    assert len(issued) == len(PREFIX) + 43, "256 bit"
    return issued


def encoded(token: str) -> str:
    """Return a token as it is encoded in `jwt.` entries."""
    return urlsafe_b64encode(token.encode()).decode().rstrip("=")


# -- tickets -------------------------------------------------------------------------------------


async def test_r16_a_ticket_logs_in_once_wherever_it_may_travel(server: ServerProcess) -> None:
    """As ?ticket=, connect.token and refresh.token it authenticates once; then it is 109."""
    in_query = await ticket(server, "query")
    async with wire_client(f"{server.ws}?ticket={in_query}") as client:
        connected = (await client.connect())["connect"]
        assert (await client.rpc("whoami"))["user"] == "query"
        assert "ttl" not in connected, "no SDK could renew it"
    assert (await connect_once(f"{server.ws}?ticket={in_query}")).code == 109
    in_connect = await ticket(server, "connect")
    async with wire_client(server.ws) as client:
        connected = (await client.connect(in_connect))["connect"]
        assert connected["ttl"] > 3500, "what it stands for ends when its credential would"
        assert (await client.rpc("whoami"))["user"] == "connect"
        in_refresh = await ticket(server, "connect")
        renewed = await client.command("refresh", token=in_refresh)
        assert renewed["refresh"]["client"] == client.client_id
        for used in (in_refresh, in_connect, in_query):
            error = (await client.command("refresh", token=used))["error"]
            assert (error["code"], error["temporary"]) == (109, True)
        assert (await client.rpc("whoami"))["user"] == "connect"
    for used in (in_query, in_connect, in_refresh):
        assert (await connect_once(server.ws, used)).code == 109
        assert (await connect_once(f"{server.ws}?ticket={used}")).code == 109


async def test_a_ticket_over_the_wire_is_as_good(server: ServerProcess) -> None:
    """`ticket.create` on a connection issues a ticket for the user of the connection."""
    async with wire_client(server.ws, server.token("wired")) as client:
        issued = (await client.rpc("ticket.create"))["ticket"]
    async with wire_client(server.ws) as client:
        assert "connect" in await client.connect(issued)
        assert (await client.rpc("whoami"))["user"] == "wired"


async def test_what_is_no_ticket_is_refused_for_good(server: ServerProcess) -> None:
    """3500 for a malformed ticket, 109 for a used or unknown one, 401 where none is accepted."""
    good = await ticket(server, "malformed")
    for bad in (PREFIX, good[:-1], good + "A", good.upper(), PREFIX + "=" * 43, PREFIX + "é" * 43):
        assert (await connect_once(server.ws, bad)).code == 3500, bad
    assert (await connect_once(server.ws, PREFIX + "A" * 43)).code == 109
    assert (await connect_once(server.ws, good)).accepted
    async with http_client(server) as nobody:
        assert (await nobody.post("/api/v1/tickets", json={})).status_code == 401
    async with http_client(server, await ticket(server, "chain")) as holder:
        # A ticket is not a header credential: else one could be turned into the next for ever.
        assert (await holder.post("/api/v1/tickets", json={})).status_code == 401


async def test_r16_one_of_a_thousand_redeems_a_ticket(server: ServerProcess) -> None:
    """1000 sockets present one ticket at the same moment: one connects, 999 get 109."""
    issued = await ticket(server, "popular")
    async with AsyncExitStack() as stack:
        clients: list[WireClient] = []
        for _ in range(10):  # More at once than the listening queue holds would be refused.
            opening = (stack.enter_async_context(wire_client(server.ws)) for _ in range(100))
            clients += await asyncio.gather(*opening)
        connect = {"id": 1, "connect": {"token": issued}}
        await asyncio.gather(*(client.send(connect) for client in clients))
        await asyncio.gather(*(client.until(lambda c=client: bool(c.frames)) for client in clients))  # type: ignore[misc]
        replies = [client.frames[0] for client in clients]
    assert sum("connect" in reply for reply in replies) == 1
    codes = [reply["error"]["code"] for reply in replies if "error" in reply]
    assert codes == [109] * 999


async def test_a_ticket_is_good_on_the_page_it_was_issued_for(server: ServerProcess) -> None:
    """Bound to the Origin of the request or to `origin`: elsewhere it is 3500, and used up."""
    request = [{"page": PAGE}, {"origin": PAGE}, {"page": OTHER_PAGE, "origin": PAGE}]
    for how in request:
        good, stolen, dropped = [await ticket(server, "bound", **how) for _ in range(3)]
        for issued, origin, code in (
            (good, PAGE, 0),
            (stolen, OTHER_PAGE, 3500),
            (stolen, PAGE, 109),
            (dropped, None, 3500),
        ):
            outcome = await connect_once(
                server.ws, issued, **({"origin": origin} if origin else {})
            )
            assert outcome.code == code, (how, origin)
    free = await ticket(server, "bound")
    assert (await connect_once(server.ws, free, origin=OTHER_PAGE)).accepted


async def test_r16_a_jwt_in_the_query_does_not_authenticate(server: ServerProcess) -> None:
    """A token under ?ticket= is refused, also with a good header: URLs end up in logs."""
    token = server.token("leaky")
    assert (await connect_once(f"{server.ws}?ticket={token}")).code == 3500
    headers = {"Authorization": f"Bearer {token}"}
    assert (
        await connect_once(f"{server.ws}?ticket={token}", additional_headers=headers)
    ).code == 3500
    assert (await get(server, f"/api/v1/whoami?ticket={token}")).status_code == 401
    used = await ticket(server, "leaky")
    assert (await get(server, f"/api/v1/whoami?ticket={used}")).status_code == 401


async def test_r19_the_first_source_wins(server: ServerProcess) -> None:
    """Token before ticket before sub-protocol before header; empty ones are skipped."""
    token = server.token
    names = ["connect", "query", "protocol", "header"]

    async def who(*present: str, bad: str = "") -> str | int:
        spoilt = dict.fromkeys((bad,), "A.B.C")
        given = {name: spoilt.get(name, token(name)) for name in present}
        if "query" in present and bad != "query":
            given["query"] = await ticket(server, "query")
        url = f"{server.ws}?ticket={given.get('query', '')}"
        offered = [f"jwt.{encoded(given['protocol'])}"] if "protocol" in given else []
        options: dict[str, Any] = {
            "subprotocols": ["centrifuge-json", *offered],
            "additional_headers": {"Authorization": f"Bearer {given.get('header', '')}"},
        }
        async with wire_client(url, **options) as client:
            connect = {"token": given.get("connect", "")}
            await client.send({"id": 1, "connect": connect})
            await client.until(lambda: bool(client.frames) or client.close_code is not None)
            if not client.frames:
                return await client.until_closed()
            user: str = (await client.rpc("whoami"))["user"]
            return user

    for index, name in enumerate(names):
        assert await who(*names[index:]) == name
        assert await who(*names[index:], bad=name) == 3500
    assert await who() == 3500


# -- sub-protocols -------------------------------------------------------------------------------


@asynccontextmanager
async def browser(server: ServerProcess, *protocols: str) -> AsyncGenerator[WireClient, None]:
    """Open a socket as `new WebSocket(url, protocols)` does: a page can set nothing else."""
    names = [Subprotocol(name) for name in protocols]
    async with wire_client(server.ws, subprotocols=names, origin=server.http) as client:
        yield client


@pytest.mark.parametrize("plain", PLAIN_NAMES)
@pytest.mark.parametrize("spelling", ["jwt", "bearer"])
async def test_r18_r19_a_page_that_can_set_sub_protocols_only_logs_in(
    server: ServerProcess, spelling: str, plain: str
) -> None:
    """Each spelling with each plain name, in either order: the plain name is echoed."""
    token = server.token("browser")
    entry = f"jwt.{encoded(token)}" if spelling == "jwt" else f"bearer.{token}"
    for offered in ((plain, entry), (entry, plain), (entry, "unheard-of", plain)):
        async with browser(server, *offered) as client:
            assert client.socket.subprotocol == plain
            connected = (await client.connect())["connect"]
            assert "ttl" not in connected
            assert (await client.rpc("whoami"))["user"] == "browser"
            started = await ask(client, "hello", agent="echo")
            await until_over(client, started)
    async with browser(server, plain, f"bearer.{server.token('browser', ttl=-60)}") as client:
        assert (await client.connect())["error"]["code"] == 109


async def test_r17_r19_near_misses_are_told_the_spelling_and_not_repeated(
    server: ServerProcess,
) -> None:
    """Alone, padded, capitalised, with other words or twice: 400 with a fixed reason."""
    token = server.token("clumsy")
    padded = urlsafe_b64encode((token + " " * (-len(token) % 3 + 1)).encode()).decode()
    assert padded.endswith("=")
    near = [
        f"jwt.{encoded(token)}",
        f"bearer.{token}",
        f"unknown, bearer.{token}",
        f"centrifuge-json, jwt.{padded}",
        f"centrifuge-json, jwt.{encoded(token)}=",
        f"centrifuge-json, jwt.{encoded(token)}==",
        f"centrifuge-json, jwt.{token}",
        f"centrifuge-json, JWT.{encoded(token)}",
        f"centrifuge-json, jwt-{encoded(token)}",
        "centrifuge-json, jwt.",
        f"centrifuge-json, Bearer.{token}",
        f"centrifuge-json, Bearer {token}",
        f"centrifuge-json, bearer:{token}",
        f"centrifuge-json, token.{token}",
        f"centrifuge-json, access_token.{token}",
        f"centrifuge-json, authorization.{token}",
        f"centrifuge-json, {token}",
        f"centrifuge-json, bearer.{token}, jwt.{encoded(token)}",
        f"centrifuge-json, bearer.{token}, bearer.{token}",
    ]
    for offered in near:
        headers = {**UPGRADE, "sec-websocket-protocol": offered}
        answer = await get(server, "/connection/websocket", headers=headers)
        assert (answer.status_code, answer.json()) == (400, {"error": SPELLING}), offered
        assert "sec-websocket-protocol" not in answer.headers
    assert '"level": "error"' not in server.log.read_text()


async def test_names_we_do_not_know_are_no_credentials(server: ServerProcess) -> None:
    """Unknown plain names are ignored; the first known one is echoed, or none."""
    for offered, answered in (
        (["graphql-ws"], None),
        (["centrifuge-protobuf", "centrifuge-json"], "centrifuge-json"),
        (["towpath.v1", "centrifuge-json"], "towpath.v1"),
        (["mqtt", "jwt-auth"], "jwt-auth"),
        (["author", "bearers", "tokens"], None),
    ):
        async with browser(server, *offered) as client:
            assert client.socket.subprotocol == answered
            assert "connect" in await client.connect(server.token("plain"))


async def test_an_origin_is_checked_whatever_the_credential(server: ServerProcess) -> None:
    """A page of a host that is not allowed is 403 with every kind of credential."""
    issued, token = await ticket(server, "foreign"), server.token("foreign")
    urls = (server.ws, f"{server.ws}?ticket={issued}")
    for url in urls:
        for protocol in ("centrifuge-json", f"centrifuge-json, jwt.{encoded(token)}"):
            headers = {"authorization": f"Bearer {token}", "sec-websocket-protocol": protocol}
            for origin in ("https://evil.example", "null", f"{PAGE}.evil.example", f"{PAGE}/"):
                path = "/connection/websocket" + url.removeprefix(server.ws)
                answer = await get(server, path, headers={**UPGRADE, **headers, "origin": origin})
                assert answer.status_code == 403, (origin, url)
    assert (await connect_once(server.ws, issued)).accepted, "it was not used up by it"


async def test_r17_no_ticket_is_ever_logged(server: ServerProcess) -> None:
    """At DEBUG the log contains no part of a ticket, used or refused, and its telemetry events."""
    used, stolen, unused = [await ticket(server, "discreet", page=PAGE) for _ in range(3)]
    assert (await connect_once(f"{server.ws}?ticket={used}", origin=PAGE)).accepted
    assert (await connect_once(f"{server.ws}?ticket={used}", origin=PAGE)).code == 109
    assert (await connect_once(f"{server.ws}?ticket={stolen}", origin=OTHER_PAGE)).code == 3500
    refused = await get(
        server, f"/connection/websocket?ticket={unused}", headers=UPGRADE | {"origin": "null"}
    )
    assert refused.status_code == 403
    log = server.log.read_text()
    assert '"source": "?ticket="' in log
    for issued in (used, stolen, unused):
        secret = issued.removeprefix(PREFIX)
        assert not any(secret[at : at + 12] in log for at in range(31))
