"""The one place where a credential becomes a principal.

A ticket is redeemed. Any other credential goes to the verifier of the issuer it names, unless its
verdict is cached. Concurrent calls with the same credential share one verification. A verification
has one deadline. Only this layer retries it, and only while the verdict is `Unknown`. Every
verdict, cached ones included, is checked against the revocations last.

Source: DESIGN section 7.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from towpath.aliases import RetiredMethod, retired_methods
from towpath.auth.breaker import CircuitBreaker, State
from towpath.auth.cache import Digest, VerdictCache, digest
from towpath.auth.jwks import RemoteKeys
from towpath.auth.revocations import Revocation, Revocations
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import Tickets, is_ticket
from towpath.auth.tokens import KeysUnavailable
from towpath.auth.verdicts import Invalid, Unknown, Valid, Verdict
from towpath.identity import Principal

UNNAMED: Final = "configured key"
"""The name in logs and metrics of an issuer without a name."""


class Verifier(Protocol):
    """Verifies credentials; the seam for other kinds than JWT (RFC 7662).

    An implementer promises: no exception for anything a client may present; `Unknown` only if a
    retry may help; every network call is bounded in time and goes through the breaker of the
    called server.
    """

    def takes(self, credential: str) -> bool:
        """Whether this verifier is responsible for a credential, by the credential's own claims."""

    async def verify(self, credential: str, now: float) -> Verdict:
        """Return the verdict about a credential at a Unix time in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """One issuer whose credentials are accepted."""

    issuer: str | None
    """Its `iss`; None if only the key identifies the signer."""
    verifier: Verifier
    breaker: CircuitBreaker
    """The breaker of the one server that verification needs."""
    keys: RemoteKeys | None = None
    """None if verification needs no other server."""
    required: bool = True
    """Whether readiness at start waits for its keys."""

    @property
    def name(self) -> str:
        """The name in logs and metrics."""
        return self.issuer or UNNAMED

    @property
    def warm(self) -> bool:
        """Whether its credentials can be verified now."""
        return self.keys is None or self.keys.warm

    @property
    def in_outage(self) -> bool:
        """Whether the issuer is known not to answer."""
        failing = self.keys is not None and self.keys.failing
        return failing or self.breaker.state is not State.CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and for how long, a verification is tried."""

    attempts: int = 3
    base: float = 0.1
    """The longest first pause; the limit doubles with each further pause. Seconds."""
    deadline: float = 2.5
    """For all attempts together; SDKs wait 5 s for a command. Seconds."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict and how old it is."""

    verdict: Verdict
    age: float = 0.0
    """Seconds since the verification; 0 if the verdict is not from the cache."""


@retired_methods("towpath.UnifiedAuthenticationService")
class AuthService:
    """Verifies credentials; an async context manager whose exit ends all work in progress."""

    def __init__(
        self,
        issuers: Sequence[TrustedIssuer],
        *,
        cache: VerdictCache,
        tickets: Tickets,
        revocations: Revocations,
        verdicts: SingleFlight[Digest, Verdict],
        fetches: SingleFlight[str, None],
        monotonic: Callable[[], float],
        now: Callable[[], float],
        random: Callable[[], float],
        retry: Retry | None = None,
    ) -> None:
        """Accept credentials of these issuers.

        Args:
            issuers: the issuers whose credentials are accepted.
            cache: the verdicts of earlier verifications.
            tickets: the tickets issued by this node.
            revocations: the revocations in force.
            verdicts: the verifications in progress.
            fetches: the fetches of the issuers' keys in progress.
            monotonic: seconds of a monotonic clock.
            now: Unix seconds.
            random: from 0 to below 1, for pauses.
            retry: how often, and for how long, a verification is tried.
        """
        self.issuers = tuple(issuers)
        self.retry = retry or Retry()
        self.cache = cache
        self.tickets = tickets
        self.revocations = revocations
        self._verdicts = verdicts
        self._fetches = fetches
        self._monotonic = monotonic
        self._now = now
        self._random = random
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._fetches)
        await self._stack.enter_async_context(self._verdicts)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    @property
    def under_way(self) -> int:
        """How many verifications are in progress."""
        return len(self._verdicts)

    async def authenticate(self, credential: str, *, origin: str | None = None) -> Judged:
        """Return the verdict about a credential, always within the deadline.

        Args:
            credential: a token or a ticket, as it was presented.
            origin: the origin of the page that presents it; a ticket may be bound to an origin.
        """
        if is_ticket(credential):
            redeemed = self.tickets.redeem(credential, origin, self._now())
            return Judged(self._unless_revoked(redeemed))
        key = digest(credential)
        if (found := self.cache.get(key)) is not None:
            return Judged(self._unless_revoked(found.verdict), self._monotonic() - found.at)
        try:
            async with asyncio.timeout(self.retry.deadline):
                work = functools.partial(self._find_out, key, credential)
                verdict = await self._verdicts.share(key, work)
        except TimeoutError:
            verdict = Unknown("no verdict before the deadline")
        return Judged(self._unless_revoked(verdict))

    def remembers(self, credential: str) -> bool:
        """Whether a credential is cached as valid."""
        found = self.cache.get(digest(credential))
        return found is not None and isinstance(found.verdict, Valid)

    def apply(self, revocation: Revocation) -> bool:
        """Apply a revocation to cached and to future verdicts.

        Returns:
            Whether it revokes anything that was not revoked before.
        """
        if not self.revocations.add(revocation):
            return False
        self.cache.forget(revocation.names)
        return True

    hear = RetiredMethod(apply)

    @property
    def cold(self) -> list[str]:
        """The required issuers that have no usable keys."""
        return [one.name for one in self.issuers if one.required and not one.warm]

    async def warm(self) -> None:
        """Fetch every issuer's keys; return when all required issuers have keys."""
        async with asyncio.TaskGroup() as group:
            optional = [
                group.create_task(self._warm(one)) for one in self.issuers if not one.required
            ]
            required = [group.create_task(self._warm(one)) for one in self.issuers if one.required]
            await asyncio.gather(*required)
            for task in optional:
                task.cancel()  # The first credential of this issuer fetches the keys.

    async def keep_fresh(self) -> None:
        """Keep every issuer's keys fresh, so that no outage begins with old keys; does not end."""
        async with asyncio.TaskGroup() as group:
            for one in self.issuers:
                if one.keys is not None:
                    group.create_task(one.keys.keep_fresh())

    def issuer(self, name: str | None = None) -> TrustedIssuer:
        """Return an issuer by name; without a name one whose breaker is not closed, or the first.

        Raises:
            LookupError: no issuer has that name.
        """
        if name is not None:
            named = [one for one in self.issuers if one.name == name]
            if not named:
                raise LookupError(f"no issuer {name!r}")
            return named[0]
        troubled = (one for one in self.issuers if one.breaker.state is not State.CLOSED)
        return next(troubled, self.issuers[0])

    def probe(self, principal: Principal) -> None:
        """Check in the background whether the issuer of this principal answers."""
        for one in self._vouching_for(principal):
            if one.keys is not None:
                one.keys.probe()

    def in_outage(self, principal: Principal) -> bool:
        """Whether the issuer of this principal is known not to answer."""
        return any(one.in_outage for one in self._vouching_for(principal))

    def _vouching_for(self, principal: Principal) -> list[TrustedIssuer]:
        return [one for one in self.issuers if one.issuer == principal.issuer]

    async def _warm(self, issuer: TrustedIssuer) -> None:
        """Fetch an issuer's keys, and retry until a fetch succeeds."""
        failures = 0
        while issuer.keys is not None and not issuer.warm:
            try:
                await issuer.keys.fetch()
            except KeysUnavailable as outage:
                failures += 1
                pause = self._pause(min(failures, 6))
                await asyncio.sleep(max(outage.retry_after, pause))

    async def _find_out(self, key: Digest, credential: str) -> Verdict:
        """Verify a credential, with retries, and cache the verdict."""
        verifier = self._verifier(credential)
        if verifier is None:
            return Invalid("no issuer of ours")
        verdict = await self._persist(verifier, credential)
        self.cache.put(key, verdict)
        return verdict

    async def _persist(self, verifier: Verifier, credential: str) -> Verdict:
        """Call a verifier until the verdict is not `Unknown`, or no time or attempt is left."""
        until, attempt = self._monotonic() + self.retry.deadline, 1
        verdict = await verifier.verify(credential, self._now())
        while isinstance(verdict, Unknown) and attempt < self.retry.attempts:
            pause = verdict.retry_after + self._pause(attempt)
            if self._monotonic() + pause >= until:
                break
            await asyncio.sleep(pause)
            attempt += 1
            verdict = await verifier.verify(credential, self._now())
        return verdict

    def _pause(self, attempt: int) -> float:
        """Return the pause after the nth failure: full jitter, so that retries spread out."""
        return self._random() * self.retry.base * 2.0 ** (attempt - 1)

    def _verifier(self, credential: str) -> Verifier | None:
        if len(self.issuers) == 1:
            return self.issuers[0].verifier
        verifiers = (one.verifier for one in self.issuers)
        return next((one for one in verifiers if one.takes(credential)), None)

    def _unless_revoked(self, verdict: Verdict) -> Verdict:
        if isinstance(verdict, Valid) and self.revocations.revoked(verdict.principal):
            return Invalid("revoked", revoked=True)
        return verdict
