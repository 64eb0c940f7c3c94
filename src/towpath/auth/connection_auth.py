"""Authentication of a connection: sources of the credential, failure limits, verdict and expiry.

Only this module decides what a verdict means on the wire: which verdict is an error after which the
client tries again, which verdict closes the connection for good, and which event is emitted. The
HTTP endpoints use the same checks, so that no endpoint is less strict than another.

This module holds no state of a single connection; all data about a connection is an argument.

Source: WIRE sections 2 and 3; DESIGN section 7.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, assert_never

from towpath import codes, telemetry
from towpath.auth.cache import Digest, digest
from towpath.auth.handshake import (
    Credential,
    Source,
    UpgradeInfo,
    bearer,
    find_credential,
    is_misspelt,
)
from towpath.auth.service import AuthService
from towpath.auth.verdicts import Invalid, Unknown, Valid
from towpath.codes import CloseCode, ErrorCode
from towpath.identity import Principal
from towpath.rate_limits import Rate, RateLimits
from towpath.telemetry import Telemetry

HANDSHAKE_STABILIZATION_DELAY: Final = 0.2
"""The longest this module would wait for a state to be reached, in seconds. No code sleeps
for this time: the path from connect to its reply depends on states only."""
MAX_HELD: Final = 256
"""How many answers past a limit are delayed at one time; further answers are not delayed."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The credential is valid. `renewable`: an SDK can renew it on the connection."""

    principal: Principal
    renewable: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The credential is missing or not accepted."""

    code: ErrorCode | CloseCode
    """An error code if the client should try again, a close code if it should not."""
    verdict: str
    """`missing`, `invalid`, `expired`, `revoked`, `unknown` or `limited`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grace:
    """How long a connection outlives its credential. Seconds."""

    expiry: float = 25.0
    """SDKs refresh a credential when it expires, not before."""
    outage: float = 900.0
    """While the issuer, which could give a new credential, does not answer; 0 disables it."""


class ConnectionAuth:
    """Authenticates connections, and requests, for the gateway."""

    def __init__(
        self,
        service: AuthService,
        *,
        telemetry: Telemetry,
        monotonic: Callable[[], float],
        now: Callable[[], float],
        grace: Grace | None = None,
        source_failures: Rate | None = None,
        credential_failures: Rate | None = None,
        limited_delay: float = 0.0,
    ) -> None:
        """Authenticate with this service.

        Args:
            service: verifies credentials.
            telemetry: receives an event for each accepted and refused credential.
            monotonic: seconds of a monotonic clock.
            now: Unix seconds.
            grace: how long a connection outlives its credential.
            source_failures: how often one source address may fail.
            credential_failures: how often one credential may fail.
            limited_delay: how long an answer past these limits is delayed, in seconds.
        """
        self.service = service
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._now = now
        self._grace = grace or Grace()
        self._limited_delay = limited_delay
        self._held = 0
        self._sources: RateLimits[str] = RateLimits(
            source_failures or Rate(per_second=10, burst=200)
        )
        self._credentials: RateLimits[Digest] = RateLimits(
            credential_failures or Rate(per_second=0.5, burst=20)
        )

    async def authenticate_websocket_connection(
        self, connect_token: str, handshake: UpgradeInfo, *, connection: str
    ) -> Authenticated | Refused:
        """Return the principal of a new connection, or the refusal to send.

        Args:
            connect_token: the token of the connect command.
            handshake: the data of the upgrade request.
            connection: the connection's id, for events.
        """
        credential = find_credential(connect_token, handshake)
        return await self._authenticate(credential, handshake, connection)

    async def authenticate_request(self, handshake: UpgradeInfo) -> Authenticated | Refused:
        """Return the principal of an HTTP request by its Authorization header, or the refusal."""
        token = bearer(handshake.authorization)
        credential = Credential(token, Source.AUTHORIZATION) if token else None
        return await self._authenticate(credential, handshake, "")

    async def refresh(
        self, principal: Principal, token: str, handshake: UpgradeInfo, *, connection: str
    ) -> Authenticated | Refused:
        """Return the principal of a connection's new credential; it must be the same person."""
        credential = Credential(token, Source.CONNECT)
        made = await self._judge(credential, handshake, connection)
        if isinstance(made, Authenticated) and not principal.same_person(made.principal):
            return self._refuse(codes.INVALID_TOKEN, "invalid", "another person's", connection)
        return made

    def expires_at(self, principal: Principal) -> float | None:
        """Return when the grace after a credential's expiry ends, in Unix seconds."""
        ends = principal.expires_at
        return None if ends is None else ends + self._grace.expiry

    def lapsed(self, principal: Principal) -> None:
        """Check whether the issuer answers, after a credential expired and was not renewed."""
        self.service.probe(principal)

    def held_until(self, principal: Principal) -> float | None:
        """Return until when an outage keeps an expired connection open, in Unix seconds; or None.

        The issuer, which could issue a new credential, does not answer. The outage explains why
        there is no new credential. An outage only keeps connections open; it opens no connection.
        """
        ends = principal.expires_at
        if ends is None or not self.service.in_outage(principal):
            return None
        until = ends + self._grace.outage
        return until if until > self._now() else None

    def auth_state(self, issuer: str | None = None) -> dict[str, Any]:
        """Return the state of authentication as nine plain values; no credential is in them.

        Args:
            issuer: whose breaker to show; None shows one that is not closed, if there is one.
        """
        breaker, retry = self.service.issuer(issuer).breaker, self.service.retry
        return {
            "failure_count": breaker.failure_count,
            "failure_threshold": breaker.failure_threshold,
            "reset_timeout": breaker.reset_timeout,
            "last_failure_time": breaker.last_failure_time,
            "state": breaker.state.value,
            "concurrent_token_cache": len(self.service.cache),
            "token_cache_lock": self.service.under_way > 0,
            "cloud_run_backoff": retry.base * 2.0 ** (retry.attempts - 1),
            "handshake_stabilization_delay": HANDSHAKE_STABILIZATION_DELAY,
        }

    def _check_circuit_breaker(self, issuer: str | None = None) -> bool:
        """Whether a call to an issuer's key server would be admitted now; makes no call."""
        return self.service.issuer(issuer).breaker.retry_after == 0

    def _record_circuit_breaker_failure(self, issuer: str | None = None) -> None:
        """Report a failed call that was made elsewhere to an issuer's breaker."""
        self.service.issuer(issuer).breaker.record_failure()

    async def _authenticate(
        self, credential: Credential | None, handshake: UpgradeInfo, connection: str
    ) -> Authenticated | Refused:
        """Verify a credential, unless it is missing or a failure limit applies."""
        if credential is None:
            self._charge(handshake.address)
            return self._refuse(codes.NO_CREDENTIAL, "missing", "no credential", connection)
        if self._limited(credential, handshake):
            await self._hold()
            return self._refuse(codes.TOO_MANY_REQUESTS, "limited", "too many failures", connection)
        return await self._judge(credential, handshake, connection)

    async def _judge(
        self, credential: Credential, handshake: UpgradeInfo, connection: str
    ) -> Authenticated | Refused:
        if credential.misplaced:
            return self._refuse_bad(credential, handshake, Invalid("misplaced"), connection)
        judged = await self.service.authenticate(credential.token, origin=handshake.origin)
        match judged.verdict:
            case Valid(principal) if self._over(principal):
                return self._refuse(codes.TOKEN_EXPIRED, "expired", "past its grace", connection)
            case Valid(principal):
                source, age = credential.source.value, judged.age
                self._telemetry.emit(
                    telemetry.CredentialAccepted(connection=connection, source=source, age=age)
                )
                return Authenticated(principal, credential.renewable)
            case Unknown(reason, suspect=suspect):
                if suspect:
                    self._charge(handshake.address)
                return self._refuse(codes.TEMPORARY, "unknown", reason, connection)
            case Invalid() as bad:
                return self._refuse_bad(credential, handshake, bad, connection)
            case never:
                assert_never(never)

    def _refuse_bad(
        self, credential: Credential, handshake: UpgradeInfo, bad: Invalid, connection: str
    ) -> Refused:
        """Refuse an invalid credential; count the failure for its address and for itself."""
        self._charge(handshake.address)
        self._credentials.take(digest(credential.token), self._monotonic())
        if bad.expired:
            return self._refuse(codes.TOKEN_EXPIRED, "expired", bad.reason, connection)
        if bad.revoked:
            return self._refuse(codes.NOT_ALLOWED, "revoked", bad.reason, connection)
        code = codes.NO_CREDENTIAL if is_misspelt(credential.token) else codes.INVALID_TOKEN
        return self._refuse(code, "invalid", bad.reason, connection)

    def _refuse(
        self, code: ErrorCode | CloseCode, verdict: str, reason: str, connection: str
    ) -> Refused:
        self._telemetry.emit(
            telemetry.CredentialRefused(connection=connection, verdict=verdict, reason=reason)
        )
        return Refused(code, verdict)

    def _over(self, principal: Principal) -> bool:
        """Whether the grace is over, so that a connection would end at once.

        This happens because clocks may differ by more than the grace.
        """
        ends = self.expires_at(principal)
        return ends is not None and self._now() >= ends

    def _limited(self, credential: Credential, handshake: UpgradeInfo) -> bool:
        """Whether a failure limit applies; an address limit exempts credentials cached as valid."""
        now = self._monotonic()
        if self._credentials.empty(digest(credential.token), now):
            return True
        if not self._sources.empty(handshake.address, now):
            return False
        return not self.service.remembers(credential.token)

    async def _hold(self) -> None:
        """Delay the answer past a failure limit, so that each attempt of a flood costs a timer."""
        if self._held >= MAX_HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(self._limited_delay)
        finally:
            self._held -= 1

    def _charge(self, address: str) -> None:
        self._sources.take(address, self._monotonic())
