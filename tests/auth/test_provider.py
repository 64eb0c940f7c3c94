"""Fetching keys over HTTP: limits, validation, the breaker and telemetry."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.auth.stage import Clock
from towpath.auth.breaker import CircuitBreaker, State
from towpath.auth.provider import (
    ABANDONED,
    DISCOVERY_SECONDS,
    MAX_ANSWER_BYTES,
    IdentityProvider,
    may_ask,
    without_user,
)
from towpath.auth.tokens import KeysUnavailable
from towpath.errors import ConfigurationError
from towpath.telemetry import InternalError, KeysFetched, Telemetry, TelemetryEvent
from towpath.testing.faults import Drop, FaultProxy
from towpath.testing.oidc_provider import (
    DISCOVERY,
    JWKS,
    Html,
    Json,
    OidcProvider,
    Oversize,
    Raw,
    Redirect,
    Status,
)


class ProviderHarness:
    """Our `IdentityProvider` over a provider in this process, and its telemetry events."""

    def __init__(self, issuer: str, client: httpx2.AsyncClient, **options: Any) -> None:
        self.clock = Clock()
        self.events: list[TelemetryEvent] = []
        self.breaker = CircuitBreaker("keys", clock=self.clock, failure_threshold=3)
        self.provider = IdentityProvider(
            issuer,
            client,
            self.breaker,
            telemetry=Telemetry([self.events.append]),
            monotonic=self.clock,
            **options,
        )

    @property
    def failures(self) -> list[str]:
        """The failure of each call; empty for a success."""
        return [one.failure for one in self.events if isinstance(one, KeysFetched)]

    async def refused(self) -> str:
        """Fetch, expect a failure, and return its reason."""
        with pytest.raises(KeysUnavailable) as outage:
            await self.provider.fetch()
        return str(outage.value)


@asynccontextmanager
async def provider_harness(**options: Any) -> AsyncIterator[tuple[OidcProvider, ProviderHarness]]:
    """Yield a running provider and a harness that fetches from it."""
    async with OidcProvider() as server, httpx2.AsyncClient(trust_env=False) as client:
        yield server, ProviderHarness(server.issuer, client, **options)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://id.example", True),
        ("https://id.example/", True),
        ("https://id.example:8443/realms/x", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost/realms/x", True),
        ("http://[::1]:8080/", True),
        ("http://id.example", False),
        ("http://10.0.0.1", False),
        ("http://127.0.0.1.id.example", False),
        ("https://user@id.example", False),
        ("https://user:secret@id.example", False),
        ("https://@id.example", False),
        ("https://id.example/?x=1", False),
        ("https://id.example/#x", False),
        ("https://", False),
        ("https:///realms", False),
        ("https://id.example:port", False),
        ("https://[::1", False),
        ("ftp://id.example", False),
        ("file:///etc/keys", False),
        ("id.example", False),
        ("", False),
    ],
)
def test_r29_keys_are_fetched_over_https_or_from_this_machine(url: str, allowed: bool) -> None:
    """No user, no query, no other scheme; plain http for loopback addresses only."""
    assert may_ask(url) is allowed


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@id.example/x", "https://id.example/x"),
        ("https://a@b@id.example", "https://id.example"),
        ("https://id.example/a@b", "https://id.example/a@b"),
        ("nothing", "nothing"),
    ],
)
def test_r17_an_address_is_shown_without_the_password_in_it(url: str, shown: str) -> None:
    """The user and the password of a URL are removed."""
    assert without_user(url) == shown


async def test_r17_an_address_that_may_not_be_asked_is_refused_at_start() -> None:
    """The error names the URL without its password."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        with pytest.raises(ConfigurationError) as refused:
            ProviderHarness("https://user:hunter2@id.example", client)
        assert "https://id.example" in str(refused.value)
        assert "hunter2" not in str(refused.value)
        with pytest.raises(ConfigurationError, match=r"http://id\.example/keys"):
            ProviderHarness("https://id.example", client, jwks_url="http://id.example/keys")


async def test_r29_a_fetch_gives_the_published_keys() -> None:
    """The discovery document, then the keys; each call emits an event."""
    async with provider_harness() as (server, harness):
        ring = await harness.provider.fetch()
        [kid] = server.kids
        assert ring.find(kid, "RS256") is not None
        assert harness.failures == ["", ""]
        assert (server.requests[DISCOVERY], server.requests[JWKS]) == (1, 1)


async def test_a_configured_address_of_the_keys_needs_no_document() -> None:
    """A configured `jwks_url` is used without discovery."""
    async with OidcProvider() as server, httpx2.AsyncClient(trust_env=False) as client:
        harness = ProviderHarness(server.issuer, client, jwks_url=server.http + JWKS)
        assert len(await harness.provider.fetch()) == 1
        assert server.requests[DISCOVERY] == 0


def padded(document: dict[str, object], size: int) -> bytes:
    """Return a document of exactly this many bytes."""
    text = json.dumps({**document, "pad": ""})
    return json.dumps({**document, "pad": "x" * (size - len(text))}).encode()


async def test_r97_an_answer_may_have_256_kib_and_no_byte_more() -> None:
    """The bound is exact, and a larger response is not read to its end."""
    async with provider_harness() as (server, harness):
        server.answer(Raw(padded(server.key_set(), MAX_ANSWER_BYTES), "application/json", 200))
        server.answer(Json(server.document()), path=DISCOVERY)
        assert len(await harness.provider.fetch()) == 1
        over = padded(server.key_set(), MAX_ANSWER_BYTES + 1)
        server.answer(Raw(over, "application/json", 200), path=JWKS)
        assert "too large" in await harness.refused()


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Status(204), "status 204"),
        (Status(401), "status 401"),
        (Status(503), "status 503"),
        (Redirect("https://elsewhere.example/"), "status 302"),
        (Html(), "not JSON"),
        (Raw(b'{"keys":', "application/json", 200), "not JSON"),
        (Raw(b"\xff", "application/json", 200), "not JSON"),
        (Raw(b"[" * 100 + b"]" * 100, "application/json", 200), "nested too deep"),
        (Json({}), ""),
        (Raw(b"[]", "application/json", 200), ""),
        (Raw(b"7", "application/json", 200), ""),
        (Oversize(size=10**6), "too large"),
        (Oversize(size=10**6, framing="chunked"), "too large"),
        (Oversize(size=10**6, framing="gzip"), "compressed"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_r22_whatever_else_comes_is_the_providers_failure(
    answer: Any, reason: str, path: str
) -> None:
    """Each is an outage with a reason, counted once by the breaker; then a fetch succeeds."""
    async with provider_harness() as (server, harness):
        server.answer(answer, path=path)
        assert reason in await harness.refused()
        assert harness.breaker.failure_count == 1
        assert harness.failures[-1]
        server.heal()
        assert len(await harness.provider.fetch()) == 1
        assert harness.breaker.failure_count == 0


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://other.example"},
        {"issuer": ...},
        {"jwks_uri": "http://keys.example/jwks"},
        {"jwks_uri": "https://user:x@keys.example/jwks"},
        {"jwks_uri": 7},
        {"jwks_uri": ...},
    ],
)
async def test_r13_a_document_of_somebody_else_leads_nowhere(change: dict[str, Any]) -> None:
    """The issuer must match exactly, and the URL of the keys must be allowed."""
    async with provider_harness() as (server, harness):
        server.metadata.update(change)
        await harness.refused()
        assert server.requests[JWKS] == 0


async def test_the_address_of_the_keys_is_believed_for_an_hour() -> None:
    """After an hour, or after a failure, the document is fetched again."""
    async with provider_harness() as (server, harness):
        await harness.provider.fetch()
        harness.clock.now += DISCOVERY_SECONDS - 1
        await harness.provider.fetch()
        assert server.requests[DISCOVERY] == 1
        harness.clock.now += 1
        await harness.provider.fetch()
        assert server.requests[DISCOVERY] == 2
        server.answer(Status(404), path=JWKS)
        await harness.refused()
        server.heal()
        await harness.provider.fetch()
        assert server.requests[DISCOVERY] == 3


async def test_r26_keys_that_do_not_come_open_the_breaker_though_the_document_does() -> None:
    """A fetch succeeds or fails as a whole; an open breaker makes no call."""
    async with provider_harness() as (server, harness):
        server.answer(Status(503), path=JWKS)
        for _ in range(3):
            await harness.refused()
        assert harness.breaker.state is State.OPEN
        calls = server.requests.total()
        assert "considered down" in await harness.refused()
        assert server.requests.total() == calls


async def test_r22_a_client_that_breaks_says_nothing_about_anybody() -> None:
    """An unexpected exception of the HTTP client is an outage, and emits an internal error."""
    broken = AttributeError("'NoneType' object has no attribute 'getpeername'")

    def handle(request: httpx2.Request) -> httpx2.Response:
        raise broken

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handle)) as client:
        harness = ProviderHarness("https://id.example", client)
        for _ in range(3):
            assert "AttributeError" in await harness.refused()
        assert harness.failures == ["AttributeError"] * 3
        assert harness.breaker.state is State.OPEN
        faults = [one for one in harness.events if isinstance(one, InternalError)]
        assert [one.error for one in faults] == [broken] * 3


async def test_r32_a_hang_has_an_end_of_its_own() -> None:
    """A provider that does not respond fails after `timeout`."""
    async with (
        OidcProvider() as server,
        FaultProxy("127.0.0.1", server.port, fault=Drop()) as line,
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        server.issuer = line.http
        harness = ProviderHarness(line.http, client, timeout=0.05)
        assert "timeout" in await harness.refused()
        assert harness.failures == ["timeout"]
        assert harness.breaker.failure_count == 1


async def test_r24_a_call_whose_caller_leaves_proves_nothing() -> None:
    """A cancelled call is reported as abandoned, and is neither a success nor a failure."""
    async with (
        OidcProvider() as server,
        FaultProxy("127.0.0.1", server.port, fault=Drop()) as line,
        httpx2.AsyncClient(trust_env=False) as client,
    ):
        server.issuer = line.http
        harness = ProviderHarness(line.http, client, timeout=30.0)
        harness.breaker.record_failure()
        fetching = asyncio.create_task(harness.provider.fetch())
        while not line.live:  # noqa: ASYNC110 - the other end of a socket.
            await asyncio.sleep(0.01)
        fetching.cancel()
        await asyncio.wait((fetching,))
        assert harness.failures == [ABANDONED]
        assert harness.breaker.failure_count == 1


def test_the_bounds_are_the_documented_ones() -> None:
    """One hour for the discovery document, 256 KiB for a response."""
    assert (DISCOVERY_SECONDS, MAX_ANSWER_BYTES) == (3600.0, 262_144)
