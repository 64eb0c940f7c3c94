"""The one place where a credential becomes a principal.

A ticket is redeemed; anything else goes to the verifier of the issuer it names, unless its verdict
is remembered. Finding out is shared by everybody who presents the same credential at once, has
one deadline, and is tried again in one layer only, and only where nobody could tell. Whatever
comes out, from wherever, is held against the revocations last.

Source: DESIGN section 7.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from towpath.aliases import retired_methods
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
"""What logs and metrics call an issuer without a name."""


class Verifier(Protocol):
    """Finds out what a credential is worth; the seam for other kinds than JWT (RFC 7662).

    An implementer promises: no exception for anything a client may present; `Unknown` only where
    asking again may help; every call it makes over a network bounded in time and led through the
    breaker of whatever it asks.
    """

    def takes(self, credential: str) -> bool:
        """Whether this credential is for this verifier to judge, by what it says of itself."""

    async def verify(self, credential: str, now: float) -> Verdict:
        """Return the verdict about a credential at a Unix time in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """One issuer whose credentials are taken."""

    issuer: str | None
    """Its `iss`; None where the key alone says who signed."""
    verifier: Verifier
    breaker: CircuitBreaker
    """Of the one thing that verifying needs from elsewhere."""
    keys: RemoteKeys | None = None
    """None where verifying needs nothing from elsewhere."""
    required: bool = True
    """Whether readiness at start waits for its keys."""

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return self.issuer or UNNAMED

    @property
    def warm(self) -> bool:
        """Whether its credentials can be verified now."""
        return self.keys is None or self.keys.warm

    @property
    def in_outage(self) -> bool:
        """Whether it is known not to answer."""
        failing = self.keys is not None and self.keys.failing
        return failing or self.breaker.state is not State.CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and for how long, an answer is sought."""

    attempts: int = 3
    base: float = 0.1
    """The first pause is at most this long, each further one twice the one before. Seconds."""
    deadline: float = 2.5
    """For everything together; SDKs give a command 5 s. Seconds."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict and how old it is."""

    verdict: Verdict
    age: float = 0.0
    """Seconds since it was found out; 0 for one found out just now."""


@retired_methods("towpath.UnifiedAuthenticationService")
class AuthService:
    """Judges credentials; an async context manager whose exit leaves nothing under way."""

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
        """Judge for these issuers.

        Args:
            issuers: whose credentials are taken.
            cache: verdicts found out before.
            tickets: those issued here.
            revocations: what was taken back.
            verdicts: verifications under way.
            fetches: keys under way, in which the issuers' keys fly.
            monotonic: seconds of a monotonic clock.
            now: Unix seconds.
            random: from 0 to below 1, for pauses.
            retry: how often an answer is sought.
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
        """How many verifications are under way."""
        return len(self._verdicts)

    async def authenticate(self, credential: str, *, origin: str | None = None) -> Judged:
        """Return the verdict about a credential; within the deadline, whatever else hangs.

        Args:
            credential: a token or a ticket, as it was presented.
            origin: of the page that presents it; a ticket may be bound to it.
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
            verdict = Unknown("nobody answered in time")
        return Judged(self._unless_revoked(verdict))

    def remembers(self, credential: str) -> bool:
        """Whether a credential is known to be good without finding it out anew."""
        found = self.cache.get(digest(credential))
        return found is not None and isinstance(found.verdict, Valid)

    def apply(self, revocation: Revocation) -> bool:
        """Take a revocation into account, from now on and for what is remembered.

        Returns:
            Whether it takes back anything that was not taken back before.
        """
        if not self.revocations.add(revocation):
            return False
        self.cache.forget(revocation.names)
        return True

    @property
    def cold(self) -> list[str]:
        """The required issuers whose keys are not there."""
        return [one.name for one in self.issuers if one.required and not one.warm]

    async def warm(self) -> None:
        """Fetch every issuer's keys; returns once those of the required ones are there."""
        async with asyncio.TaskGroup() as group:
            optional = [
                group.create_task(self._warm(one)) for one in self.issuers if not one.required
            ]
            required = [group.create_task(self._warm(one)) for one in self.issuers if one.required]
            await asyncio.gather(*required)
            for task in optional:
                task.cancel()  # They are fetched when somebody comes with such a credential.

    async def keep_fresh(self) -> None:
        """Keep every issuer's keys fresh, so that an outage never meets old ones; does not end."""
        async with asyncio.TaskGroup() as group:
            for one in self.issuers:
                if one.keys is not None:
                    group.create_task(one.keys.keep_fresh())

    def issuer(self, name: str | None = None) -> TrustedIssuer:
        """Return an issuer by name; without one the first, or one whose breaker is not closed.

        Raises:
            LookupError: there is none of that name.
        """
        if name is not None:
            named = [one for one in self.issuers if one.name == name]
            if not named:
                raise LookupError(f"no issuer {name!r}")
            return named[0]
        troubled = (one for one in self.issuers if one.breaker.state is not State.CLOSED)
        return next(troubled, self.issuers[0])

    def probe(self, principal: Principal) -> None:
        """Find out in the background whether whoever vouches for this principal is there."""
        for one in self._vouching_for(principal):
            if one.keys is not None:
                one.keys.probe()

    def in_outage(self, principal: Principal) -> bool:
        """Whether whoever vouches for this principal is known not to answer."""
        return any(one.in_outage for one in self._vouching_for(principal))

    def _vouching_for(self, principal: Principal) -> list[TrustedIssuer]:
        return [one for one in self.issuers if one.issuer == principal.issuer]

    async def _warm(self, issuer: TrustedIssuer) -> None:
        """Fetch an issuer's keys, as often as it takes."""
        failures = 0
        while issuer.keys is not None and not issuer.warm:
            try:
                await issuer.keys.fetch()
            except KeysUnavailable as outage:
                failures += 1
                pause = self._pause(min(failures, 6))
                await asyncio.sleep(max(outage.retry_after, pause))

    async def _find_out(self, key: Digest, credential: str) -> Verdict:
        """Have a credential verified, trying again where nobody could tell."""
        verifier = self._verifier(credential)
        if verifier is None:
            return Invalid("no issuer of ours")
        verdict = await self._persist(verifier, credential)
        self.cache.put(key, verdict)
        return verdict

    async def _persist(self, verifier: Verifier, credential: str) -> Verdict:
        """Ask a verifier until it can tell, or there is no time or no try left."""
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
        """Return how long to wait after the nth failure: full jitter, so that a herd disperses."""
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
