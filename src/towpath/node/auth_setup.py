"""Everything that judges credentials, put together from the settings."""

import asyncio
import contextlib
import random
import time

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
    development_key: OctKey | None,
) -> ConnectionAuth:
    """Return what authenticates connections and requests; the stack closes it.

    Args:
        settings: what to make it from.
        hooks: hear of everything that happens in it.
        stack: takes over whatever has to be closed.
        development_key: of the one issuer there is in development; None outside of it.

    Raises:
        ConfigurationError: no issuer is configured, or one that cannot be.
    """

    def lost(error: Exception) -> None:
        """Report what verifying raised while nobody waited; outages are reported already."""
        if not isinstance(error, KeysUnavailable):
            telemetry.emit(InternalError(where="keys", error=error))

    fetches: SingleFlight[str, None] = SingleFlight(lost)
    verdicts: SingleFlight[Digest, Verdict] = SingleFlight(lost)
    deps = AuthDeps(
        settings=settings,
        telemetry=telemetry,
        fetches=fetches,
        clock=time.monotonic,
        random=random.random,
    )
    service = AuthService(
        await _issuers(deps, stack, development_key),
        cache=VerdictCache(
            clock=time.monotonic, wall_clock=time.time, valid_seconds=settings.verdict_seconds
        ),
        tickets=Tickets(clock=time.monotonic),
        revocations=Revocations(KEEP_SECONDS),
        verdicts=verdicts,
        fetches=fetches,
        clock=time.monotonic,
        wall_clock=time.time,
        random=random.random,
        retry=Retry(attempts=settings.auth_attempts, deadline=settings.auth_timeout),
    )
    return ConnectionAuth(
        await stack.enter_async_context(service),
        telemetry=telemetry,
        clock=time.monotonic,
        wall_clock=time.time,
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
    deps: AuthDeps, stack: contextlib.AsyncExitStack, development_key: OctKey | None
) -> list[TrustedIssuer]:
    if development_key is not None:
        return [make_development_issuer(development_key, deps)]
    configured = configured_issuers(deps.settings)
    client = None
    if any(one.key is None for one in configured):
        client = await asyncio.to_thread(make_client, deps.settings)
        await stack.enter_async_context(client)
    return [make_issuer(one, deps, client) for one in configured]
