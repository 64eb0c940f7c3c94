"""What it costs to find out what a token is worth, by algorithm, against bare joserfc.

All in this process, on the server's core, on the same tokens and keys, in turns.
"""

import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import uvloop
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, OctKey

from benchmarks.figures import Measure, Sample
from benchmarks.load import undisturbed
from benchmarks.machine import on_server_core
from towpath.auth.breaker import CircuitBreaker
from towpath.auth.cache import Digest, VerdictCache
from towpath.auth.jwks import RemoteKeys
from towpath.auth.keys import FixedKey, KeyRing, read_key_set
from towpath.auth.revocations import Revocations
from towpath.auth.service import AuthService, TrustedIssuer
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import Tickets
from towpath.auth.tokens import LEEWAY, Issuer, Keys, TokenVerifier
from towpath.auth.verdicts import Valid, Verdict
from towpath.testing.oidc_provider import OidcProvider

ALGORITHMS = ("HS256", "RS256", "PS256", "ES256", "EdDSA")
ISSUER, AUDIENCE = "https://issuer.example", "towpath"
WARM_UP = 50
"""Tokens whose cost is not counted."""
TURN = 50
"""Tokens that each way takes before it is the next one's turn."""

JOSERFC = "joserfc"
VERIFY = "verify"
COLD = "authenticate, never seen"
REMEMBERED = "authenticate, remembered"

REFUSED = Measure("good tokens refused", "tokens", zero=True)

Way = Callable[[str], Awaitable[bool]]
"""Finds out whether a token is good."""


@dataclass(slots=True)
class Published:
    """Keys that are had for the asking; what a fetch costs is not measured here."""

    issuer: str
    ring: KeyRing

    async def fetch(self) -> KeyRing:
        """Return the keys."""
        return self.ring


@dataclass(frozen=True, slots=True)
class Verification:
    """Good tokens of one issuer, judged in each of the ways there are."""

    name = "verification"
    total: int
    """Tokens of each algorithm."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"{self.total} good tokens of each algorithm, RSA keys of 2048 bits, judged in turns "
            f"of {TURN} by bare joserfc, by `TokenVerifier.verify`, and twice by "
            "`AuthService.authenticate`"
        )

    def sample(self) -> Sample:
        """Measure once."""
        sample: Sample = {REFUSED: 0}
        with on_server_core():
            for algorithm in ALGORITHMS:
                costs, refused = uvloop.run(self._judge(algorithm))
                sample[REFUSED] += refused
                for way, cost in costs.items():
                    sample[Measure(f"{algorithm}: {way}", "µs/token")] = cost
                for way in (VERIFY, COLD, REMEMBERED):
                    ratio = Measure(f"{algorithm}: ratio, {way}", "÷ joserfc")
                    sample[ratio] = costs[way] / costs[JOSERFC]
        return sample

    async def _judge(self, algorithm: str) -> tuple[dict[str, float], int]:
        """Return what a token costs in each way, and how many good ones were refused."""
        provider = OidcProvider(issuer=ISSUER, audience=AUDIENCE)
        secret = OctKey.generate_key(256) if algorithm == "HS256" else None
        kid = provider.add_key(algorithm, key=secret)
        key = secret or read_key_set(provider.key_set()).find(kid, algorithm)
        assert key is not None, "the provider has just published it"
        tokens = [
            provider.token(f"user{at}", jti=f"{at:032x}") for at in range(WARM_UP + self.total)
        ]
        async with _ways(algorithm, key) as ways:
            await _take_turns(ways, tokens[:WARM_UP])
            with undisturbed():
                return await _take_turns(ways, tokens[WARM_UP:])


async def _take_turns(ways: dict[str, Way], tokens: Sequence[str]) -> tuple[dict[str, float], int]:
    """Return the µs of CPU time that a token costs in each way, and how many were refused."""
    seconds = dict.fromkeys(ways, 0.0)
    refused = 0
    for first in range(0, len(tokens), TURN):
        turn = tokens[first : first + TURN]
        for name, way in ways.items():
            began = time.process_time()
            for token in turn:
                refused += not await way(token)
            seconds[name] += time.process_time() - began
    return {name: spent / len(tokens) * 1e6 for name, spent in seconds.items()}, refused


@contextlib.asynccontextmanager
async def _ways(algorithm: str, key: Key) -> AsyncIterator[dict[str, Way]]:
    """Yield the ways to judge a token, the cheapest first."""
    fetches: SingleFlight[str, None] = SingleFlight(lambda _: None)
    keys, remote = _keys(key, fetches)
    issuer = Issuer(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=frozenset({algorithm}),
        tenant_claim="tenant",
        tenant=None,
    )
    verifier = TokenVerifier(issuer, keys)
    trusted = TrustedIssuer(
        issuer=ISSUER, verifier=verifier, breaker=CircuitBreaker(ISSUER), keys=remote
    )

    async def verify(token: str) -> bool:
        return isinstance(await verifier.verify(token, time.time()), Valid)

    async with _service(trusted, fetches) as service:

        async def authenticate(token: str) -> bool:
            return isinstance((await service.authenticate(token)).verdict, Valid)

        yield {
            JOSERFC: _bare(algorithm, key),
            VERIFY: verify,
            COLD: authenticate,
            REMEMBERED: authenticate,
        }


def _keys(key: Key, fetches: SingleFlight[str, None]) -> tuple[Keys, RemoteKeys | None]:
    """Return the keys as a gateway has them: a shared one configured, a public one fetched."""
    if isinstance(key, OctKey):
        return FixedKey(key), None
    source = Published(ISSUER, KeyRing([key]))
    remote = RemoteKeys(source, fetches, monotonic=time.monotonic, random=random.random)
    return remote, remote


def _service(issuer: TrustedIssuer, fetches: SingleFlight[str, None]) -> AuthService:
    verdicts: SingleFlight[Digest, Verdict] = SingleFlight(lambda _: None)
    return AuthService(
        [issuer],
        cache=VerdictCache(monotonic=time.monotonic, now=time.time),
        tickets=Tickets(monotonic=time.monotonic),
        revocations=Revocations(3600.0),
        verdicts=verdicts,
        fetches=fetches,
        monotonic=time.monotonic,
        now=time.time,
        random=random.random,
    )


def _bare(algorithm: str, key: Key) -> Way:
    """Return the way of somebody who has joserfc and nothing else, asking for the same claims."""
    claims = jwt.JWTClaimsRegistry(
        leeway=int(LEEWAY),
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        sub={"essential": True},
        exp={"essential": True},
        tenant={"essential": True},
    )
    algorithms = [algorithm]

    async def judge(token: str) -> bool:
        try:
            claims.validate(jwt.decode(token, key, algorithms=algorithms).claims)
        except JoseError:
            return False
        return True

    return judge


FULL = Verification(total=3_000)
QUICK = Verification(total=100)
