"""The client of an identity provider: fetches the discovery document and the keys.

Each request is bounded in time and size, follows no redirect and accepts no compressed body. An
unexpected response (a status, a page, half a document) is a failure of the provider, and
not a verdict on a credential. The same holds for an exception in the HTTP client's own code, for
example if a connection is reset while it is being opened. The provider's breaker counts fetches of
the keys. A fetch may take both requests: a discovery document without the keys is not a success.
Addresses come from configuration, or from the document at the configured address; never from a
token.

Source: OpenID Connect Discovery 1.0 section 4; RFC 8414 section 3.3; DESIGN section 7.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from towpath.auth.breaker import BreakerOpen, CircuitBreaker
from towpath.auth.keys import KeyRing, read_key_set
from towpath.auth.tokens import KeysUnavailable
from towpath.errors import ConfigurationError
from towpath.json_bounds import too_deep
from towpath.telemetry import InternalError, KeysFetched, Telemetry

MAX_ANSWER_BYTES = 256 * 1024
"""A longer answer is not read to its end."""
DISCOVERY_PATH = "/.well-known/openid-configuration"
DISCOVERY_SECONDS = 3600.0
"""How long the discovered address of the keys is used."""

ABANDONED = "abandoned"
"""The failure that is reported for a cancelled request."""

T = TypeVar("T")


class BadAnswer(Exception):
    """The provider sent an unexpected response; the message describes it."""


class IdentityProvider:
    """Fetches the keys of one issuer."""

    def __init__(
        self,
        issuer: str,
        client: httpx2.AsyncClient,
        breaker: CircuitBreaker,
        *,
        telemetry: Telemetry,
        jwks_url: str | None = None,
        timeout: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe a provider; nothing is fetched yet.

        Args:
            issuer: its exact `iss`, and where its discovery document is found.
            client: sends the requests; it must follow no redirects.
            breaker: wraps each fetch.
            telemetry: receives an event for each request.
            jwks_url: the address of its keys; None uses the discovery document.
            timeout: seconds one request may take, from connecting to the last byte.
            monotonic: seconds of a monotonic clock.

        Raises:
            ConfigurationError: `may_ask` refuses the address.
        """
        self.issuer = issuer
        self.breaker = breaker
        self._client = client
        self._telemetry = telemetry
        self._timeout = timeout
        self._monotonic = monotonic
        self._configured = jwks_url
        self._discovered: tuple[str, float] | None = None
        if not may_ask(jwks_url or issuer):
            raise ConfigurationError(
                f"{without_user(jwks_url or issuer)}: keys are fetched over https, or from "
                "loopback over http, and from an address without a user or a query"
            )

    async def fetch(self) -> KeyRing:
        """Return the issuer's current keys.

        Raises:
            KeysUnavailable: the keys cannot be fetched now.
        """
        try:
            permit = self.breaker.admit()
        except BreakerOpen as refused:
            raise KeysUnavailable(str(refused), refused.retry_after) from None
        with permit:
            try:
                url = self._configured or await self._discover()
                return await self._get(url, read_key_set)
            except KeysUnavailable:
                self._discovered = None  # The keys may have moved.
                permit.failed()
                raise

    async def _discover(self) -> str:
        if self._discovered is not None:
            url, at = self._discovered
            if self._monotonic() < at + DISCOVERY_SECONDS:
                return url
        url = await self._get(self.issuer.rstrip("/") + DISCOVERY_PATH, self._read_document)
        self._discovered = (url, self._monotonic())
        return url

    def _read_document(self, document: Any) -> str:
        """Return the address of the keys in a discovery document of this issuer."""
        if not isinstance(document, dict) or document.get("issuer") != self.issuer:
            raise BadAnswer("the discovery document is another issuer's")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not may_ask(url):
            raise BadAnswer("the discovery document has no permitted jwks_uri")
        return url

    async def _get(self, url: str, read: Callable[[Any], T]) -> T:
        """Send one request and return its JSON response as `read` returns it."""
        began, failure = self._monotonic(), ABANDONED
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._body(url)
            made, failure = read(_json(body)), ""
            return made
        except TimeoutError:
            failure = "timeout"
        except (BadAnswer, ValueError) as error:
            failure = str(error)
        except (httpx2.HTTPError, OSError) as error:
            failure = type(error).__name__
        except (AttributeError, RuntimeError) as error:
            # The HTTP client's own code raises these if a connection is reset while it is opened.
            failure = type(error).__name__
            self._telemetry.emit(InternalError(where="identity provider", error=error))
        finally:
            seconds = self._monotonic() - began
            self._telemetry.emit(KeysFetched(issuer=self.issuer, failure=failure, seconds=seconds))
        raise KeysUnavailable(f"no keys from {self.issuer}: {failure}")

    async def _body(self, url: str) -> bytes:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        async with self._client.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 200:
                raise BadAnswer(f"status {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise BadAnswer("a compressed response")
            body = bytearray()
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise BadAnswer("a response that is too large")
            return bytes(body)


def _json(body: bytes) -> Any:
    if too_deep(body):
        raise BadAnswer("nested too deep")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadAnswer("not JSON") from None


def may_ask(url: str) -> bool:
    """Whether keys may be fetched from an address: over https, or from loopback over http."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def without_user(url: str) -> str:
    """Return an address without the user and password that it may contain."""
    head, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}{slashes}{host.rpartition('@')[2]}{slash}{path}" if slashes else url


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
