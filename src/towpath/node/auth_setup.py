"""Builds the parts that verify credentials, from the settings."""

import asyncio
import contextlib
import random
from collections.abc import Callable

import httpx2
from joserfc.jwk import OctKey

from towpath.auth.cache import Digest, VerdictCache
from towpath.auth.connection_auth import ConnectionAuth, Grace
from towpath.auth.revocations import KEEP_SECONDS, Revocations
from towpath.auth.service import AuthService, Retry, TrustedIssuer
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import Tickets
from towpath.auth.tokens import KeysUnavailable
from towpath.auth.verdicts import Verdict
from towpath.node.issuers import (
    AuthDeps,
    configured_issuers,
    make_client,
    make_development_issuer,
    make_issuer,
)
from towpath.rate_limits import Rate
from towpath.settings import Settings
from towpath.telemetry import InternalError, Telemetry


async def open_authentication(
    settings: Settings,
    telemetry: Telemetry,
    stack: contextlib.AsyncExitStack,
    *,
    now: Callable[[], float],
    monotonic: Callable[[], float],
    http_client: httpx2.AsyncClient | None,
    development_key: OctKey | None,
) -> ConnectionAuth:
    """Return the authentication of connections and requests; the stack closes it.

    Args:
        settings: the settings.
        telemetry: is notified of all its events.
        stack: closes the opened parts.
        now: returns Unix seconds.
        monotonic: returns seconds of a monotonic clock.
        http_client: fetches the issuers' keys and stays open; None opens one from the settings.
        development_key: the key of the only issuer in development; None outside of it.

    Raises:
        ConfigurationError: no issuer is configured, or an issuer's settings are invalid.
    """

    def lost(error: Exception) -> None:
        """Report an error that no caller waits for any more, except an outage, reported already."""
        if not isinstance(error, KeysUnavailable):
            telemetry.emit(InternalError(where="keys", error=error))

    fetches: SingleFlight[str, None] = SingleFlight(lost)
    deps = AuthDeps(
        settings=settings,
        telemetry=telemetry,
        fetches=fetches,
        monotonic=monotonic,
        random=random.random,
    )
    issuers = await _issuers(deps, stack, http_client, development_key)
    verdicts: SingleFlight[Digest, Verdict] = SingleFlight(lost)
    auth_service = _auth_service(deps, issuers, verdicts, now)
    await stack.enter_async_context(auth_service)
    return _connection_auth(deps, auth_service, now)


def _auth_service(
    deps: AuthDeps,
    issuers: list[TrustedIssuer],
    verdicts: SingleFlight[Digest, Verdict],
    now: Callable[[], float],
) -> AuthService:
    settings, monotonic = deps.settings, deps.monotonic
    return AuthService(
        issuers,
        cache=VerdictCache(monotonic=monotonic, now=now, valid_seconds=settings.verdict_seconds),
        tickets=Tickets(monotonic=monotonic),
        revocations=Revocations(KEEP_SECONDS),
        verdicts=verdicts,
        fetches=deps.fetches,
        monotonic=monotonic,
        now=now,
        random=deps.random,
        retry=Retry(attempts=settings.auth_attempts, deadline=settings.auth_timeout),
    )


def _connection_auth(
    deps: AuthDeps, auth_service: AuthService, now: Callable[[], float]
) -> ConnectionAuth:
    settings = deps.settings
    return ConnectionAuth(
        auth_service,
        telemetry=deps.telemetry,
        monotonic=deps.monotonic,
        now=now,
        grace=Grace(expiry=settings.expiry_grace, outage=settings.outage_grace),
        source_failures=Rate(
            per_second=settings.failures_per_second, burst=settings.failures_burst
        ),
        credential_failures=Rate(
            per_second=settings.repeats_per_second, burst=settings.repeats_burst
        ),
        limited_delay=settings.limited_delay,
    )


async def _issuers(
    deps: AuthDeps,
    stack: contextlib.AsyncExitStack,
    http_client: httpx2.AsyncClient | None,
    development_key: OctKey | None,
) -> list[TrustedIssuer]:
    if development_key is not None:
        return [make_development_issuer(development_key, deps)]
    configured = configured_issuers(deps.settings)
    if http_client is None and any(one.key is None for one in configured):
        http_client = await asyncio.to_thread(make_client, deps.settings)
        await stack.enter_async_context(http_client)
    return [make_issuer(one, deps, http_client) for one in configured]
