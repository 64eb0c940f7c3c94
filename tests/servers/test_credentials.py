"""What widens access, and what does not; and where pieces of a credential may never be seen."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers.issuing import (
    UPGRADE,
    Issuer,
    http_client,
    issuing,
    log_events,
    serving,
    trusting,
)
from towpath.testing.faults import PASS, Refuse
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

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
    """A connect without a valid credential ends with 3500 and without a frame."""
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
    received: list[str] = []
    for first in (good, expired, forged):
        async with wire_client(f"{server.ws}?token={query}") as client:
            await client.send({"id": 1, "connect": {"token": first}})
            await client.until(lambda c=client: bool(c.frames) or c.close_code is not None)  # type: ignore[misc]
            received.append(json.dumps(client.frames) + str(client.close_reason))
    async with wire_client(
        server.ws, additional_headers={"Authorization": f"Bearer {header}"}
    ) as c:
        await c.connect()
        await c.rpc("whoami")
        await c.command("refresh", token=token("header", ttl=-60))
        await c.send({"id": 90, "refresh": {"token": stranger}})
        assert await c.until_closed() == 3500
        received.append(json.dumps(c.frames) + str(c.close_reason))
    async with wire_client(server.ws, good) as c:
        wrong = await c.command("rpc", method=refresh, data={"token": refresh})
        received.append(json.dumps(wrong))
    async with httpx2.AsyncClient(base_url=server.http, trust_env=False) as http:
        for path in ("/api/v1/whoami", f"/api/v1/whoami?token={query}", f"/{query}"):
            for credential in (rest, forged, expired):
                bearing = {"Authorization": f"Bearer {credential}"}
                received.append((await http.get(path, headers=bearing)).text)
        received.append((await http.get("/metrics")).text)
    log = server.log.read_text()
    assert "credential_refused" in log
    for credential in presented:
        for part in credential.split(".")[1:]:
            for start in range(0, len(part) - 16, 8):
                piece = part[start : start + 16]
                assert piece not in log
                assert not any(piece in text for text in received)


def pieces(credential: str) -> Iterator[str]:
    """Yield what of a credential must be seen nowhere, as it is and as `jwt.` entries have it."""
    # The first part of a token is the same for all and says nothing; the others are secret.
    header, _, secret = credential.rpartition("tkt_") if "tkt_" in credential else ("", "", "")
    if not secret:
        header, _, secret = credential.partition(".")
    encoded = urlsafe_b64encode(credential.encode()).decode().rstrip("=")
    for text in (secret, encoded[len(header) * 4 // 3 + 8 :]):
        yield from (text[start : start + 14] for start in range(0, len(text) - 14, 7))


class Eavesdropper:
    """Presents credentials in every way there is, and keeps every response."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.received: list[str] = []
        self.presented: list[str] = []
        self.codes: set[int] = set()
        """Of errors, close frames and HTTP answers."""

    async def connect(self, path: str, token: str = "", **options: Any) -> None:
        """Open a socket and connect; a refused upgrade is repeated over HTTP."""
        async with wire_client(f"{self.server.ws}{path}", **options) as client:
            await client.send({"id": 1, "connect": {"token": token} if token else {}})
            await client.until(lambda: bool(client.frames) or client.close_code is not None)
            if client.frames and "connect" in client.frames[0]:
                await client.rpc("whoami")
                await client.leave()
            self._record(await client.until_closed(), str(client.close_reason))
            for frame in client.frames:
                self._record(frame.get("error", {}).get("code", 0), json.dumps(frame))

    async def refresh(self, first: str, *tokens: str) -> None:
        """Connect and refresh with each of these, until the server closes."""
        async with wire_client(self.server.ws, first) as client:
            for number, token in enumerate(tokens):
                await client.send({"id": 50 + number, "refresh": {"token": token}})
                await client.until(
                    lambda n=number: (
                        client.frames[-1].get("id") == 50 + n  # type: ignore[misc]
                        or client.close_code is not None
                    )
                )
            if client.close_code is None:
                await client.leave()
            self._record(await client.until_closed(), str(client.close_reason))
            for frame in client.frames:
                self._record(frame.get("error", {}).get("code", 0), json.dumps(frame))

    async def get(self, path: str, **headers: str) -> None:
        """Send a GET request, and keep the whole response."""
        async with http_client(self.server) as client:
            answer = await client.get(path, headers=headers)
        self._record(answer.status_code, f"{answer.headers}{answer.text}")

    async def everywhere(self, credential: str) -> None:
        """Present a credential at every source and endpoint, also where none belongs."""
        self.presented.append(credential)
        bearing = {"Authorization": f"Bearer {credential}"}
        encoded = urlsafe_b64encode(credential.encode()).decode().rstrip("=")
        await self.connect("", credential)
        await self.connect("", additional_headers=bearing)
        for query in ("ticket", "token", "access_token"):
            await self.connect(f"?{query}={credential}")
        for entry in (f"jwt.{encoded}", f"bearer.{credential}"):
            await self.connect("", subprotocols=["centrifuge-json", entry])
        for offered in (f"jwt.{encoded}", f"centrifuge-json, jwt.{encoded}==", f"x, {credential}"):
            socket = "/connection/websocket"
            await self.get(socket, **UPGRADE, **{"Sec-WebSocket-Protocol": offered})
            await self.get(f"{socket}?ticket={credential}", **UPGRADE, Origin="null")
        for path in ("whoami", f"whoami?token={credential}", f"threads/{credential}", credential):
            await self.get(f"/api/v1/{path}", **bearing)
        await self.get(f"/{credential}", Cookie=f"session={credential}")
        await self.get("/api/v1/whoami", Authorization=credential)
        await self.get("/api/v1/whoami", Authorization=f"bearer  {credential}")

    def _record(self, code: int, text: str) -> None:
        self.codes.add(code)
        self.received.append(text)


async def test_r16_r17_no_piece_of_any_kind_of_credential_is_seen_anywhere(tmp_path: Path) -> None:
    """Tokens of a fetched issuer and tickets, good, bad, over, unheard-of, revoked, limited and in
    an outage, in every place: no log line at DEBUG, frame, error, header or metric has a piece.
    """
    settings: dict[str, Any] = {"failures_burst": 10_000, "keys_timeout": 0.3, "auth_timeout": 1}
    async with (
        issuing() as issuer,
        serving(
            tmp_path / "data", "--log-level", "DEBUG", issuers=trusting(issuer), **settings
        ) as server,
    ):
        eavesdropper = Eavesdropper(server)
        await present_all(eavesdropper, issuer)
        await eavesdropper.get("/metrics")
        await eavesdropper.get("/health/ready")
        async with http_client(server, issuer.token("ops", roles=["towpath:inspect"])) as rest:
            listed = await rest.get("/api/v1/sessions", params={"user": "good"})
            eavesdropper.received.append(listed.text)
    log = server.log.read_text()
    verdicts = {one["verdict"] for one in log_events(server, "credential_refused")}
    assert verdicts == {"missing", "invalid", "expired", "revoked", "unknown", "limited"}
    assert '"source": "Sec-WebSocket-Protocol"' in log
    assert eavesdropper.codes >= {
        0,
        100,
        109,
        111,
        3000,
        3500,
        3507,
        200,
        400,
        401,
        403,
        404,
        429,
        503,
    }
    all_received = "\n".join(eavesdropper.received)
    for credential in eavesdropper.presented:
        for piece in pieces(credential):
            assert piece not in log
            assert piece not in all_received


async def present_all(eavesdropper: Eavesdropper, issuer: Issuer) -> None:
    """Present a credential of every kind and verdict."""
    good = issuer.token("good", jti="good-1")
    async with http_client(eavesdropper.server, good) as rest:
        tickets = [(await rest.post("/api/v1/tickets", json={})).json()["ticket"] for _ in range(3)]
    spoilt = issuer.token("spoilt")
    middle = len(spoilt) // 2
    await eavesdropper.everywhere(good)
    await eavesdropper.everywhere(issuer.token("over", ttl=-600))
    await eavesdropper.everywhere(spoilt[:middle] + "A" + spoilt[middle + 1 :])
    await eavesdropper.everywhere(issuer.token("other", aud="somebody-else"))
    await eavesdropper.everywhere(issuer.token("foreign", iss="https://other.example"))
    for ticket in tickets:
        await eavesdropper.everywhere(ticket)
    await eavesdropper.refresh(
        good, issuer.token("good"), issuer.token("good", ttl=-600), tickets[0]
    )
    await eavesdropper.refresh(good, issuer.token("somebody-else"))
    looped = issuer.token("looped", aud="nobody")
    for _ in range(3):
        await eavesdropper.everywhere(looped)
    issuer.line.fault = Refuse()
    unheard_of = issuer.token("unheard-of", kid="unheard-of")
    await eavesdropper.everywhere(unheard_of)
    await eavesdropper.refresh(good, unheard_of)
    issuer.line.fault = PASS
    revoker = issuer.token("ops", roles=["towpath:revoke"])
    async with http_client(eavesdropper.server, revoker) as rest:
        await rest.delete("/api/v1/sessions", params={"request_id": "one", "user": "good"})
    await eavesdropper.everywhere(good)
    eavesdropper.presented += [looped, revoker]
