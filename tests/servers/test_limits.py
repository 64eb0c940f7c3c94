"""Limits: the last allowed one passes, the next gets its code, and nobody else pays for it.

Where a server trusts a proxy in front of it, the address people fail from is the one the proxy
tells; so each test here fails from an address of its own.
"""

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers.conversation import open_thread
from tests.servers.issuing import (
    Outcome,
    breaker_moves,
    connect_once,
    environment,
    get,
    http_client,
    issuing,
    metric,
    serving,
    trusting,
)
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

NEVER = 0.000_1
"""A rate at which nothing comes back while a test lasts."""
TIGHT = environment(
    user_connections=2,
    tenant_connections=4,
    commands_burst=6,
    commands_per_second=NEVER,
    errors=3,
    runs_burst=3,
    runs_per_second=NEVER,
    failures_burst=8,
    failures_per_second=NEVER,
    repeats_burst=3,
    repeats_per_second=NEVER,
)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with tight limits behind a proxy it trusts, which is us."""
    data = tmp_path_factory.mktemp("limits") / "data"
    trusted = environment(trusted_proxies='["127.0.0.0/8", "10.0.0.0/8"]')
    with ServerProcess(data, environment={**TIGHT, **trusted}) as process:
        yield process


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The same server with nobody in front of it."""
    data = tmp_path_factory.mktemp("exposed") / "data"
    with ServerProcess(data, environment=TIGHT) as process:
        yield process


@pytest.fixture
def address() -> str:
    """Return an address that no other test uses."""
    return f"203.0.113.{next(_numbers)}"


def bad_token() -> str:
    """Return an invalid token that was never used."""
    return f"{uuid.uuid4().hex}.x.y"


def coming_from(*addresses: str) -> dict[str, str]:
    """Return the header in which proxies name the address of their client."""
    return {"X-Forwarded-For": ", ".join(addresses)}


async def connect_from(server: ServerProcess, token: str, *addresses: str) -> Outcome:
    """Connect as a client at the first of these addresses, by way of proxies at the others."""
    return await connect_once(server.ws, token, additional_headers=coming_from(*addresses))


def over_limit(outcome: Outcome) -> bool:
    """Whether the error is temporary and reports a limit."""
    return (outcome.code, outcome.temporary) == (111, True)


# -- those who are in ----------------------------------------------------------------------------


async def test_r67_a_user_and_a_tenant_have_so_many_connections(server: ServerProcess) -> None:
    """Past a user's bound 3504, past the tenant's 111; each free place can be taken."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        token = server.token
        first, _ = [await enter(wire_client(server.ws, token("ann", "crowded"))) for _ in range(2)]
        assert (await connect_once(server.ws, token("ann", "crowded"))).code == 3504
        for user in ("ben", "cid"):
            await enter(wire_client(server.ws, token(user, "crowded")))
        assert over_limit(await connect_once(server.ws, token("dot", "crowded")))
        assert (await connect_once(server.ws, token("ann", "roomy"))).accepted
        await first.leave()
        client = await enter(wire_client(server.ws, token("dot", "crowded")))
        assert client.client_id
        assert over_limit(await connect_once(server.ws, token("eve", "crowded")))


async def test_r64_r67_a_connection_sends_so_many_commands(server: ServerProcess) -> None:
    """The sixth command is executed, the seventh is 111; after three such errors 3013."""
    async with wire_client(server.ws, server.token("chatty", "c1")) as client:
        for _ in range(6):
            assert (await client.rpc("whoami"))["user"] == "chatty"
        for _ in range(3):
            reply = await client.command("rpc", method="thread.create", data={"request_id": "x"})
            assert reply["error"]["code"] == 111
            assert reply["error"]["temporary"] is True
        await client.send({"id": 99, "rpc": {"method": "whoami"}})
        assert await client.until_closed() == 3013
    async with wire_client(server.ws, server.token("chatty", "c1")) as client:
        assert (await client.rpc("thread.list"))["threads"] == [], "what was refused did nothing"


async def test_r67_a_user_starts_so_many_runs(server: ServerProcess) -> None:
    """Three runs over any connection, then 111 at both endpoints; other users start theirs."""

    def start() -> dict[str, Any]:
        return {"request_id": uuid.uuid4().hex, "agent": "echo", "message": "hi"}

    async with wire_client(server.ws, server.token("eager", "c2")) as client:
        await open_thread(client)
        for _ in range(2):
            await client.rpc("run.start", **start())
    async with wire_client(server.ws, server.token("eager", "c2")) as client:
        await client.rpc("run.start", **start())
        reply = await client.command("rpc", method="run.start", data=start())
        assert (reply["error"]["code"], reply["error"]["temporary"]) == (111, True)
    async with http_client(server, server.token("eager", "c2")) as rest:
        answer = await rest.post("/api/v1/runs", json=start())
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, 111)
        assert answer.headers["retry-after"]
    for user, tenant in (("other", "c2"), ("eager", "c3")):
        async with http_client(server, server.token(user, tenant)) as rest:
            assert (await rest.post("/api/v1/runs", json=start())).status_code == 200


# -- those who are not ---------------------------------------------------------------------------


async def exhaust(server: ServerProcess, *addresses: str) -> None:
    """Fail from an address until no credential is verified any more."""
    for _ in range(8):
        assert (await connect_from(server, bad_token(), *addresses)).code == 3500
    assert over_limit(await connect_from(server, bad_token(), *addresses))


async def test_r23_r64_an_address_fails_so_often(server: ServerProcess, address: str) -> None:
    """After eight failures an unknown credential is 111; a cached good one passes."""
    known = server.token("known", "c4")
    assert (await connect_from(server, known, address)).accepted
    await exhaust(server, address)
    assert (await connect_from(server, known, address)).accepted
    assert over_limit(await connect_from(server, server.token("fresh", "c4"), address))
    bearing = coming_from(address)
    assert (await get(server, "/api/v1/whoami", known, bearing)).status_code == 200
    answer = await get(server, "/api/v1/whoami", bad_token(), bearing)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, 111)
    assert answer.headers["retry-after"]
    # Who is connected goes on, and can renew.
    async with wire_client(server.ws, known, additional_headers=bearing) as client:
        reply = await client.command("refresh", token=server.token("known", "c4"))
        assert "refresh" in reply


async def test_r23_no_credential_and_expired_ones_count_as_failures_too(
    server: ServerProcess, address: str
) -> None:
    """Whatever the failure and the endpoint, the address is charged one failure."""
    bearing = coming_from(address)
    for number in range(3):
        assert (await connect_once(server.ws, "", additional_headers=bearing)).code == 3500
        expired = server.token(f"late-{number}", ttl=-60)
        assert (await connect_from(server, expired, address)).code == 109
    for _ in range(2):
        assert (await get(server, "/api/v1/whoami", bad_token(), bearing)).status_code == 401
    assert (await get(server, "/api/v1/whoami", bad_token(), bearing)).status_code == 429
    assert over_limit(await connect_from(server, bad_token(), address))


async def test_r23_others_behind_the_same_proxies_pay_nothing(
    server: ServerProcess, address: str
) -> None:
    """By X-Forwarded-For of trusted proxies each client counts alone; its own entries do not."""
    await exhaust(server, address, "10.1.2.3")
    fresh = server.token
    assert (await connect_from(server, fresh("ann", "c5"), "198.51.100.7", "10.1.2.3")).accepted
    assert (await connect_from(server, fresh("ben", "c5"), "198.51.100.8")).accepted
    # What stands further left was written by the client: it cannot pass for somebody else.
    assert over_limit(await connect_from(server, fresh("cid", "c5"), "198.51.100.9", address))
    assert over_limit(await connect_from(server, fresh("cid", "c5"), "x", "198.51.100.9", address))
    # An IPv6 subscriber has a whole network to choose from.
    for host in range(8):
        outcome = await connect_from(server, bad_token(), f"2001:db8:{address[-1]}::{host:x}")
        assert outcome.code == 3500
    assert over_limit(await connect_from(server, bad_token(), f"2001:db8:{address[-1]}::ffff"))
    assert (await connect_from(server, fresh("dot", "c5"), "2001:db8:ffff::1")).accepted


async def test_r23_without_a_trusted_proxy_headers_change_nothing(exposed: ServerProcess) -> None:
    """Headers like X-Forwarded-For are ignored: the address of the connection is charged."""
    known = exposed.token("known")
    assert (await connect_once(exposed.ws, known)).accepted
    for number in range(8):
        spoofed = {
            "X-Forwarded-For": f"198.51.100.{number}",
            "X-Real-IP": f"198.51.100.{number}",
            "Forwarded": f"for=198.51.100.{number}",
        }
        outcome = await connect_once(exposed.ws, bad_token(), additional_headers=spoofed)
        assert outcome.code == 3500
    for headers in ({}, coming_from("198.51.100.99"), coming_from("127.0.0.1")):
        assert over_limit(await connect_once(exposed.ws, bad_token(), additional_headers=headers))
    assert (await connect_once(exposed.ws, known)).accepted


async def test_r64_one_bad_credential_is_looked_at_so_often(server: ServerProcess) -> None:
    """From any address: verified three times, then 111; other credentials are verified."""
    addresses = (f"192.0.2.{number}" for number in itertools.count(1))
    forged, expired = bad_token(), server.token("looping", "c6", ttl=-60)
    for token, code in ((forged, 3500), (expired, 109)):
        for _ in range(3):
            assert (await connect_from(server, token, next(addresses))).code == code
        for _ in range(2):
            assert over_limit(await connect_from(server, token, next(addresses)))
        answer = await get(server, "/api/v1/whoami", token, coming_from(next(addresses)))
        assert answer.status_code == 429
    assert (await connect_from(server, bad_token(), next(addresses))).code == 3500
    assert (await connect_from(server, server.token("looping", "c6"), next(addresses))).accepted


async def test_r64_a_page_that_loops_on_a_failing_refresh_is_stopped(
    server: ServerProcess, address: str
) -> None:
    """Repeated refreshes with an expired token end with 3013."""
    bearing = coming_from(address)
    token = server.token("refresher", "c7")
    async with wire_client(server.ws, token, additional_headers=bearing) as client:
        expired = server.token("refresher", "c7", ttl=-60)
        for _ in range(3):
            error = (await client.command("refresh", token=expired))["error"]
            assert (error["code"], error["temporary"]) == (109, True)
        await client.send({"id": 99, "refresh": {"token": expired}})
        assert await client.until_closed() == 3013


async def flood(server: ServerProcess, tokens: list[str]) -> list[int]:
    """Present these tokens over REST, fifty at a time; return the statuses."""
    waiting, statuses = iter(tokens), []

    async def one(rest: httpx2.AsyncClient) -> None:
        for token in waiting:
            headers = {"authorization": f"Bearer {token}"}
            statuses.append((await rest.get("/api/v1/whoami", headers=headers)).status_code)

    async with http_client(server) as rest:
        await asyncio.gather(*(one(rest) for _ in range(50)))
    return statuses


@pytest.mark.parametrize("burst", [200, 100_000])
async def test_r23_a_flood_of_bad_tokens_does_not_move_the_breaker(
    tmp_path: Path, burst: int
) -> None:
    """Thousands of forged, foreign and made-up ones, limited or not: good ones get in, the issuer
    is left in peace, and the breaker stays closed.
    """
    async with (
        issuing() as issuer,
        issuing() as stranger,
        serving(
            tmp_path / "data", issuers=trusting(issuer), failures_burst=burst, limited_delay=0
        ) as server,
    ):
        known = issuer.token("known")
        assert (await connect_once(server.ws, known)).accepted
        header, claims, signature = known.split(".")
        foreign = stranger.token("mallory", iss=issuer.issuer)
        tokens = [
            *(f"{header}.{claims}.{number:04}{signature[4:]}" for number in range(1000)),
            *(f"{foreign[:-4]}{number:04}" for number in range(1000)),
            *(bad_token() for _ in range(500)),
            *(issuer.token("mallory", kid=f"made-up-{number}") for number in range(200)),
        ]
        flooding = asyncio.create_task(flood(server, tokens))
        while not flooding.done():
            outcome = await connect_once(server.ws, known)
            assert outcome.accepted
            assert outcome.seconds < 1
        statuses = await flooding
        assert len(statuses) == len(tokens)
        assert 200 not in statuses
        assert statuses.count(429) >= (2000 if burst == 200 else 0)
        assert burst == 200 or statuses.count(401) >= 2000
        assert issuer.fetches[1] <= 3, "a key nobody has is looked for once in a while"
        assert breaker_moves(server, issuer) == ["closed"]
        assert await metric(server, "towpath_breaker_state", dependency=issuer.issuer) == 0
        if burst > 200:
            assert (await connect_once(server.ws, issuer.token("fresh"))).accepted
