"""Servers with issuers in this process, helpers to connect to them, and their metrics and logs.

A server in another process fetches keys from an issuer in this one, so nothing here may block the
loop: servers are started and stopped in a thread, and HTTP is asynchronous.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2

from towpath.testing.faults import PASS, FaultProxy
from towpath.testing.oidc_provider import DISCOVERY, JWKS, OidcProvider
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

DEADLINE = 3.0
"""Seconds within which an attempt to connect is answered (R32)."""
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The headers of a request for a WebSocket, for those who want to see its HTTP answer."""


class AnyIssuer(Protocol):
    """What a server needs to know of an issuer to accept its tokens."""

    @property
    def issuer(self) -> str: ...

    @property
    def audience(self) -> str: ...

    @property
    def tenant_claim(self) -> str: ...


class Issuer:
    """An identity provider behind a proxy that can inject faults."""

    def __init__(self, provider: OidcProvider, line: FaultProxy) -> None:
        self.provider = provider
        self.line = line
        self.token = provider.token

    @property
    def issuer(self) -> str:
        """Its name, which is the line's address."""
        return self.provider.issuer

    @property
    def audience(self) -> str:
        """The `aud` of its tokens."""
        return self.provider.audience

    @property
    def tenant_claim(self) -> str:
        """The claim that is the tenant."""
        return self.provider.tenant_claim

    @property
    def calls(self) -> int:
        """The number of all requests to the issuer."""
        return sum(self.provider.requests.values())

    @property
    def fetches(self) -> tuple[int, int]:
        """The number of requests for the discovery document, and for the keys."""
        return self.provider.requests[DISCOVERY], self.provider.requests[JWKS]

    def heal(self) -> None:
        """Remove the faults of the line and of the provider."""
        self.line.fault = PASS
        self.line.cut()  # Connections that hang never recover.
        self.provider.heal()


@asynccontextmanager
async def issuing(path: str = "", **options: Any) -> AsyncGenerator[Issuer, None]:
    """Run an issuer whose name has this path; options are the provider's."""
    async with (
        OidcProvider(**options) as provider,
        FaultProxy("127.0.0.1", provider.port) as line,
    ):
        provider.issuer = line.http + path
        yield Issuer(provider, line)


def environment(**settings: object) -> dict[str, str]:
    """Return settings as environment variables of a server."""
    return {f"TOWPATH_{name.upper()}": str(value) for name, value in settings.items()}


def trusting(*issuers: AnyIssuer, **more: object) -> str:
    """Return the setting `issuers` that accepts the tokens of these; `more` applies to each."""
    entries = [
        {
            "issuer": one.issuer,
            "audience": one.audience,
            **({} if "tenant" in more else {"tenant_claim": one.tenant_claim}),
            **more,
        }
        for one in issuers
    ]
    return json.dumps(entries)


@asynccontextmanager
async def serving(
    data: Path, *arguments: str, start: bool = True, **settings: object
) -> AsyncGenerator[ServerProcess, None]:
    """Run a server with these settings and no other issuers than they name.

    Args:
        data: its data directory.
        arguments: more of `towpath serve`.
        start: whether to wait until it is ready.
        settings: its environment; see `environment`.
    """
    server = ServerProcess(data, *arguments, environment=environment(**settings), development=False)
    await asyncio.to_thread(server.start if start else server.launch)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


@dataclass(frozen=True)
class Outcome:
    """The result of one attempt to connect."""

    code: int
    """0 if connected; else the error of the connect reply, or the close code without one."""
    temporary: bool = False
    seconds: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether the connect command succeeded."""
        return self.code == 0

    @property
    def later(self) -> bool:
        """Whether the error is temporary (100) and came in time."""
        return self.code == 100 and self.temporary and self.seconds < DEADLINE


async def connect_once(url: str, token: str = "", **options: Any) -> Outcome:
    """Connect with a token, disconnect, and return the outcome."""
    loop = asyncio.get_running_loop()
    async with wire_client(url, **options) as client:
        began = loop.time()
        await client.send({"id": 1, "connect": {"token": token} if token else {}})
        await client.until(lambda: bool(client.frames) or client.socket.close_code is not None)
        seconds = loop.time() - began
        if not client.frames:
            return Outcome(await client.until_closed(), seconds=seconds)
        error = client.frames[0].get("error")
        if error is None:
            return Outcome(0, seconds=seconds)
        await client.until_closed()
        return Outcome(error["code"], error.get("temporary", False), seconds)


def http_client(server: ServerProcess, token: str = "") -> httpx2.AsyncClient:
    """Return an HTTP client of the server, with a token if there is one."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    # No request uses TLS, and a client that loads no certificates is created faster.
    return httpx2.AsyncClient(
        base_url=server.http, headers=headers, trust_env=False, timeout=10, verify=False
    )


async def get(
    server: ServerProcess, path: str, token: str = "", headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    """Send a GET request to the server, with a token if there is one."""
    bearing = {"authorization": f"Bearer {token}"} if token else {}
    async with http_client(server) as client:
        return await client.get(path, headers={**bearing, **(headers or {})})


async def metric(server: ServerProcess, name: str, **labels: str) -> float:
    """Return the value of a metric; 0 if it does not exist yet."""
    text = (await get(server, "/metrics")).text
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found is not None and found[1] == name:
            found_labels = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            if found_labels.items() >= labels.items():
                return float(found[3])
    return 0.0


def log_events(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    """Return the events of this name in the server's log, in order."""
    *whole, _ = server.log.read_text().split("\n")  # The last line may be incomplete.
    events = (json.loads(line) for line in whole if line.startswith("{"))
    return [one for one in events if one["event"] == event]


def breaker_moves(server: ServerProcess, issuer: AnyIssuer) -> list[str]:
    """Return the states of an issuer's breaker since the server started, by its log."""
    events = [
        one for one in log_events(server, "breaker_moved") if one["dependency"] == issuer.issuer
    ]
    return [events[0]["before"], *(one["after"] for one in events)] if events else ["closed"]
