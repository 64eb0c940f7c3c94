"""What widens access, and what does not; and where pieces of a credential may never be seen."""

import json
from pathlib import Path

import httpx2
import pytest

from towpath.testing.client import wire_client
from towpath.testing.server import ServerProcess

pytestmark = pytest.mark.servers

WORDS = ("test", "testing", "e2e", "demo", "dev", "debug", "mock", "internal", "staging", "bypass")
VALUES = ("1", "true", "yes", "test", "alice", "admin")
HEADERS = (
    *(f"X-{word.title()}" for word in WORDS),
    *(f"X-{word.title()}-Mode" for word in WORDS),
    "X-User-Id",
    "X-Tenant-Id",
    "X-Forwarded-User",
    "X-Remote-User",
    "X-Auth-Request-User",
    "X-Api-Key",
    "X-Skip-Auth",
    "X-Original-Url",
    "User-Agent",
)
PARAMETERS = (*WORDS, "token", "jwt", "access_token", "auth", "user", "tenant", "mode", "role")


async def assert_refused(url: str, token: str = "", **headers: str) -> None:
    """A connect without a good credential ends with 3500 and not one frame."""
    async with wire_client(url, additional_headers=headers) as client:
        await client.send({"id": 1, "connect": {"token": token} if token else {}})
        assert await client.until_closed() == 3500
        assert client.frames == []


async def test_r11_no_name_that_looks_like_a_test_widens_access(tmp_path: Path) -> None:
    """Fuzzed environment, headers, parameters and token texts: every connect is refused."""
    names = ("TESTING", "ENVIRONMENT", "ENV", "E2E", "CI", "DEBUG", "PYTEST_CURRENT_TEST")
    towpath = ("TOWPATH_TESTING", "TOWPATH_ENV", "TOWPATH_DEBUG", "TOWPATH_AUTH", "TOWPATH_DEV")
    environment = {**dict.fromkeys(names, "test"), **dict.fromkeys(towpath, "1")}
    with ServerProcess(tmp_path / "data", environment=environment) as server:
        await assert_refused(server.ws)
        for value in VALUES:
            await assert_refused(server.ws, **dict.fromkeys(HEADERS, value))
        for header in HEADERS:
            await assert_refused(server.ws, **{header: "true"})
        for scheme in ("Test", "Dev", "Basic", "Bearer"):
            await assert_refused(server.ws, Authorization=f"{scheme} alice")
        good = server.token()
        for parameter in PARAMETERS:
            await assert_refused(f"{server.ws}?{parameter}=true")
            await assert_refused(f"{server.ws}?{parameter}={good}")
        for word in (*WORDS, "null", "undefined", "anonymous", "Bearer", "e30.e30.", "..", " "):
            await assert_refused(server.ws, word)
        async with wire_client(server.ws, good) as client:
            assert (await client.rpc("whoami"))["roles"] == []


async def test_r16_r17_no_piece_of_a_credential_is_logged_or_answered(
    own_server: ServerProcess,
) -> None:
    """After good and bad credentials at every source, log, metrics and frames hold no piece."""
    server = own_server
    token = server.token
    # The first part of a token is the same for all and says nothing; the others are secret.
    presented = [token("good"), token("good", ttl=-60), token("header"), token("query")]
    presented += [token("rest"), token("refresh"), token("stranger")]
    spoilt = token("spoilt")
    presented.append(spoilt[: len(spoilt) // 2] + "A" + spoilt[len(spoilt) // 2 + 1 :])
    good, expired, header, query, rest, refresh, stranger, forged = presented
    told: list[str] = []
    for first in (good, expired, forged):
        async with wire_client(f"{server.ws}?token={query}") as client:
            await client.send({"id": 1, "connect": {"token": first}})
            await client.until(lambda c=client: bool(c.frames) or c.close_code is not None)  # type: ignore[misc]
            told.append(json.dumps(client.frames) + str(client.close_reason))
    async with wire_client(
        server.ws, additional_headers={"Authorization": f"Bearer {header}"}
    ) as c:
        await c.connect()
        await c.rpc("whoami")
        await c.command("refresh", token=token("header", ttl=-60))
        await c.send({"id": 90, "refresh": {"token": stranger}})
        assert await c.until_closed() == 3500
        told.append(json.dumps(c.frames) + str(c.close_reason))
    async with wire_client(server.ws, good) as c:
        wrong = await c.command("rpc", method=refresh, data={"token": refresh})
        told.append(json.dumps(wrong))
    async with httpx2.AsyncClient(base_url=server.http, trust_env=False) as http:
        for path in ("/api/v1/whoami", f"/api/v1/whoami?token={query}", f"/{query}"):
            for credential in (rest, forged, expired):
                bearing = {"Authorization": f"Bearer {credential}"}
                told.append((await http.get(path, headers=bearing)).text)
        told.append((await http.get("/metrics")).text)
    log = server.log.read_text()
    assert "credential_refused" in log
    for credential in presented:
        for part in credential.split(".")[1:]:
            for start in range(0, len(part) - 16, 8):
                piece = part[start : start + 16]
                assert piece not in log
                assert not any(piece in text for text in told)
