"""Everything that judges credentials, over a provider that is as late as the explorer likes.

All parts are the real ones, put together as the gateway does it; only the network and the clocks
are not. What goes wrong where nobody could hear of it is kept, and `open` looks at it in the end.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import detangle
import httpx2

from tests.kit.late_provider import AUDIENCE, EPOCH, ISSUER, MOMENTS, LateProvider
from towpath.auth.breaker import CircuitBreaker, State
from towpath.auth.cache import Digest, VerdictCache
from towpath.auth.connection_auth import ConnectionAuth, Grace
from towpath.auth.jwks import Freshness, RemoteKeys
from towpath.auth.keys import ASYMMETRIC
from towpath.auth.provider import IdentityProvider
from towpath.auth.revocations import Revocations
from towpath.auth.service import AuthService, Retry, TrustedIssuer, Verifier
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import Tickets
from towpath.auth.tokens import Issuer, KeysUnavailable, TokenVerifier
from towpath.auth.verdicts import Verdict
from towpath.telemetry import InternalError, Telemetry, TelemetryEvent

TICK = 1e-9
"""The least that passes between two looks at the clock, as with a real one."""
PAUSES = (0.0, 0.3, 0.6, 0.9)
"""What stands in for randomness in pauses."""


class Clock:
    """The virtual time, monotonic, never the same twice."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self) -> float:
        self._last = max(detangle.now(), self._last + TICK)
        return self._last


class WatchedVerifier:
    """A verifier that takes its time, and sees that nobody has one credential verified twice at
    once. One whose caller is leaving does not count."""

    def __init__(self, verifier: Verifier) -> None:
        self.attempts: Counter[asyncio.Task[object] | None] = Counter()
        """How often each flight asked."""
        self._verifier = verifier
        self._asking: dict[str, asyncio.Task[object]] = {}

    def takes(self, credential: str) -> bool:
        return self._verifier.takes(credential)

    async def verify(self, credential: str, now: float) -> Verdict:
        task, other = asyncio.current_task(), self._asking.get(credential)
        assert task is not None, "verifying happens in a task"
        assert other is None or other.cancelling(), "one verification at a time"
        self._asking[credential] = task
        self.attempts[task] += 1
        try:
            await asyncio.sleep(detangle.choice(MOMENTS))
            return await self._verifier.verify(credential, now)
        finally:
            if self._asking.get(credential) is task:
                del self._asking[credential]


class AuthWorld:
    """A provider, and whatever asks it."""

    def __init__(
        self,
        *,
        freshness: Freshness | None = None,
        retry: Retry | None = None,
        grace: Grace | None = None,
        failure_threshold: int = 3,
        reset_timeout: float = 15.0,
        keys_timeout: float = 1.0,
        verdict_seconds: float = 300.0,
    ) -> None:
        """Put everything together.

        Args:
            freshness: how long keys are believed.
            retry: how often an answer is sought.
            grace: how long a connection outlives its credential.
            failure_threshold: of the breaker.
            reset_timeout: of the breaker.
            keys_timeout: how long a call to the provider may take.
            verdict_seconds: how long a verdict is remembered, good or bad.
        """
        self.clock = Clock()
        self.provider = LateProvider(self.arrived)
        self.events: list[TelemetryEvent] = []
        """Everything that happened, in order."""
        self.telemetry = Telemetry([self.events.append])
        self.lost: list[Exception] = []
        """What was raised while nobody waited for it."""
        self.breaker = CircuitBreaker(
            ISSUER,
            failure_threshold=failure_threshold,
            reset_timeout=reset_timeout,
            clock=self.clock,
            watch=self.moved,
        )
        self._client = httpx2.AsyncClient(transport=self.provider, trust_env=False)
        self.source = IdentityProvider(
            ISSUER,
            self._client,
            self.breaker,
            telemetry=self.telemetry,
            jwks_url=f"{ISSUER}/jwks",
            timeout=keys_timeout,
            monotonic=self.clock,
        )
        self.fetches: SingleFlight[str, None] = SingleFlight(self.lost.append)
        self.keys = RemoteKeys(
            self.source, self.fetches, monotonic=self.clock, random=_random, freshness=freshness
        )
        self.verdicts: SingleFlight[Digest, Verdict] = SingleFlight(self.lost.append)
        self.verifier = WatchedVerifier(TokenVerifier(_issuer(), self.keys))
        self.service = self._service(retry, verdict_seconds)
        self.auth = ConnectionAuth(
            self.service,
            telemetry=self.telemetry,
            monotonic=self.clock,
            now=self.wall_clock,
            grace=grace,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Judge until the scenario is over; nothing may be under way then, or have been lost."""
        async with self._client, self.service:
            yield self
            assert self.service.under_way == 0, "no verification goes on for nobody"
            while len(self.fetches):  # noqa: ASYNC110 - the time is virtual
                await asyncio.sleep(0.1)
        assert [one for one in self.lost if not isinstance(one, KeysUnavailable)] == []
        assert [one for one in self.events if isinstance(one, InternalError)] == []

    def arrived(self) -> None:
        """Hear of a call that arrived at the provider."""

    def moved(self, name: str, before: State, after: State) -> None:
        """Hear of a change of the breaker's state."""

    def wall_clock(self) -> float:
        """Return the Unix time."""
        return EPOCH + detangle.now()

    def _service(self, retry: Retry | None, seconds: float) -> AuthService:
        issuer = TrustedIssuer(
            issuer=ISSUER, verifier=self.verifier, breaker=self.breaker, keys=self.keys
        )
        return AuthService(
            [issuer],
            cache=VerdictCache(
                monotonic=self.clock,
                now=self.wall_clock,
                valid_seconds=seconds,
                invalid_seconds=seconds,
            ),
            tickets=Tickets(monotonic=self.clock),
            revocations=Revocations(3600.0),
            verdicts=self.verdicts,
            fetches=self.fetches,
            monotonic=self.clock,
            now=self.wall_clock,
            random=_random,
            retry=retry,
        )


def _random() -> float:
    return detangle.choice(PAUSES)


def _issuer() -> Issuer:
    return Issuer(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=ASYMMETRIC,
        tenant_claim="tenant",
        tenant=None,
    )
