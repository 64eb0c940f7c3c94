"""What a flood of bad tokens does to people with good ones.

Attackers present one bad token after the other as fast as they are answered, half of them over the
wire and half over REST, each attacker from an address of its own. Meanwhile one good client logs in
again and again from yet another address: with a token never seen, then once more with the same.
"""

import asyncio
import itertools
import json
import os
import random
import time
import uuid
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import uvloop

from benchmarks import servers
from benchmarks.figures import Measure, Sample, percentile
from benchmarks.load import LoadError, ignore, open_client, undisturbed
from benchmarks.machine import Usage
from benchmarks.rest import RestClient
from towpath.testing.oidc_provider import OidcProvider

REST_PATH = "/api/v1/threads"
GOOD_SOURCE = "127.0.1.1"
SHARES = (50, 99)
"""Which percentiles are told."""
PAUSE_SECONDS = 0.02
"""Between a good login's end and the next one."""
FLOOD_SECONDS = 120.0
"""A flood that is answered slowly ends before all of its tokens are presented."""
TRIES = 5
"""How often the good client comes where it is told to come back, before it counts as shut out."""
COME_BACK = frozenset({100, 111, 3000})
"""What does not shut anybody out."""
ANSWERS = (3500, 109, 111, 100)
STATUSES = (401, 429, 503)

ACCEPTED = Measure("bad tokens accepted", "tokens", zero=True)
PRESENTED = Measure("bad tokens presented", "tokens")
OTHERWISE = Measure("bad tokens answered otherwise, or not at all", "tokens", zero=True)
SHUT_OUT = Measure("good logins refused for good", "logins", zero=True)
TOLD_TO_RETRY = Measure("good logins told to come back", "logins")
MOVED = Measure("breakers that moved", "breakers", zero=True)
FAILED_FETCHES = Measure("calls to the provider that failed", "calls", zero=True)
FETCHES = Measure("calls to the provider, during all attacks", "calls")
LASTED = Measure("all attacks together", "s")


@dataclass(slots=True)
class GoodClient:
    """Somebody with good tokens, who logs in until told to stop."""

    port: int
    provider: OidcProvider
    shut_out: int = 0
    told_to_retry: int = 0
    nanoseconds: list[int] = field(default_factory=list)
    """How long logins took."""

    async def log_in_until(self, enough: asyncio.Event) -> None:
        """Log in again and again until it is enough."""
        while not enough.is_set():
            await self.log_in_times(1)

    async def log_in_times(self, number: int) -> None:
        """Log in so many times with a new token, and each time once more with the same."""
        for _ in range(number):
            token = self.provider.token("good", jti=uuid.uuid4().hex)
            for _ in ("never seen", "remembered"):
                await self._log_in(token)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _log_in(self, token: str) -> None:
        began, tries = time.monotonic_ns(), 1
        while (code := await _present(self.port, token, GOOD_SOURCE)) in COME_BACK:
            if tries == TRIES:
                break
            tries += 1
            self.told_to_retry += 1
            await asyncio.sleep(PAUSE_SECONDS)
        if code:
            self.shut_out += 1
        self.nanoseconds.append(time.monotonic_ns() - began)


@dataclass(frozen=True, slots=True)
class Attack:
    """Floods by more and more attackers, one after the other."""

    name = "attack"
    total: int
    """Bad tokens, over all floods."""
    attackers: tuple[int, ...]
    """Of each flood."""
    idle: int
    """Pairs of good logins before them."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        listed = ", then ".join(map(str, self.attackers))
        return (
            f"{self.total} bad tokens, no two the same, a quarter each forged, expired, of an "
            f"unknown key and garbage, in floods of equal size by {listed} attackers, each of "
            f"{FLOOD_SECONDS:g} s at most; "
            f"good logins one at a time, {PAUSE_SECONDS * 1000:g} ms apart"
        )

    def sample(self) -> Sample:
        """Measure once."""
        return uvloop.run(self._measure())

    async def _measure(self) -> Sample:
        async with OidcProvider() as provider, servers.gateway_of(provider) as running:
            bad = _bad_tokens(provider, self.total)
            good = GoodClient(running.port, provider)
            await good.log_in_times(self.idle // 10)
            good.nanoseconds.clear()
            with undisturbed():
                await good.log_in_times(self.idle)
            idle = _latencies("idle", good)
            request, answers, sample = provider.requests.total(), Counter[int](), Sample(idle)
            began = time.monotonic()
            for number in self.attackers:
                tokens = list(itertools.islice(bad, self.total // len(self.attackers)))
                sample |= await _flood(running, good, number, tokens, answers, idle)
            return {
                **_verdicts(answers),
                SHUT_OUT: good.shut_out,
                TOLD_TO_RETRY: good.told_to_retry,
                **await asyncio.to_thread(_seen_by_the_server, running.port),
                FETCHES: provider.requests.total() - request,
                LASTED: time.monotonic() - began,
                **sample,
            }


async def _flood(
    running: servers.Running,
    good: GoodClient,
    number: int,
    tokens: Sequence[str],
    answers: Counter[int],
    idle: Sample,
) -> Sample:
    """Present bad tokens from so many addresses at once, and see how good ones fare meanwhile."""
    waiting, over, title = iter(tokens), asyncio.Event(), _attackers(number)
    presented = answers.total()
    good.nanoseconds.clear()
    with undisturbed():
        before = Usage.now(running.pid)
        # Once the first attacker is through, it is no longer a flood.
        logins = asyncio.create_task(good.log_in_until(over))
        async with asyncio.TaskGroup() as group:
            for at in range(number):
                source = f"127.0.0.{at + 2}"
                attack = _attack(running.port, source, waiting, answers)
                group.create_task(attack).add_done_callback(lambda _: over.set())
        after = Usage.now(running.pid)
        await logins
    busy = {
        Measure(f"{title}: {measure.name}", measure.unit): value
        for measure, value in after.since(before).items()
    }
    attacked = _latencies(title, good)
    ratios = {
        Measure(f"ratio: good login, p{share}, {title}", "÷ idle"): (
            attacked[_login(title, share)] / idle[_login("idle", share)]
        )
        for share in SHARES
    }
    answered = Measure(f"{title}: bad tokens answered", "/s")
    rate = (answers.total() - presented) / (after.at - before.at)
    return {answered: rate, **busy, **attacked, **ratios}


async def _attack(port: int, source: str, tokens: Iterator[str], answers: Counter[int]) -> None:
    """Present tokens, by turns over the wire and over REST, and count the answers."""
    until = time.monotonic() + FLOOD_SECONDS
    async with RestClient(port, source) as rest:
        for token in itertools.takewhile(lambda _: time.monotonic() < until, tokens):
            answers[await _present(port, token, source)] += 1
            for other in itertools.islice(tokens, 1):
                answers[await rest.get(REST_PATH, other)] += 1


async def _present(port: int, token: str, source: str) -> int:
    """Return 0 where a token lets somebody in, otherwise the error or close code."""
    try:
        client = await open_client(port, token, ignore, source=source)
    except LoadError as error:
        return error.code or -1
    except TimeoutError:
        return -1
    client.link.drop()
    return 0


def _verdicts(answers: Counter[int]) -> Sample:
    """Return how many bad tokens were answered how."""
    sample: Sample = {ACCEPTED: answers[0] + answers[200], PRESENTED: answers.total()}
    for code in ANSWERS:
        sample[Measure(f"wire: answered {code}", "tokens")] = answers[code]
    for status in STATUSES:
        sample[Measure(f"REST: answered {status}", "tokens")] = answers[status]
    known = (0, 200, *ANSWERS, *STATUSES)
    sample[OTHERWISE] = answers.total() - sum(answers[code] for code in known)
    return sample


def _seen_by_the_server(port: int) -> Sample:
    """Return what its metrics say of the breaker, which shows up there once it moves."""
    numbers = servers.numbers(port)
    failed = (
        value
        for series, value in numbers.items()
        if series.startswith("towpath_key_fetch_seconds_count") and 'outcome="failed"' in series
    )
    return {
        MOVED: sum(series.startswith("towpath_breaker_state{") for series in numbers),
        FAILED_FETCHES: sum(failed),
    }


def _latencies(title: str, good: GoodClient) -> Sample:
    return {_login(title, share): percentile(good.nanoseconds, share) / 1e6 for share in SHARES}


def _login(title: str, share: int) -> Measure:
    return Measure(f"{title}: good login, p{share}", "ms")


def _bad_tokens(provider: OidcProvider, number: int) -> Iterator[str]:
    """Return so many bad tokens, no two the same, in no order."""
    makers = (_forged, _expired, _unknown_key, _garbage)
    tokens = [makers[at % len(makers)](provider) for at in range(number)]
    random.Random(1).shuffle(tokens)
    return iter(tokens)


def _forged(provider: OidcProvider) -> str:
    """Return a token that is right but for its signature."""
    return _signed_by_nobody(provider, provider.kids[-1])


def _unknown_key(provider: OidcProvider) -> str:
    """Return a token with an unknown key id."""
    return _signed_by_nobody(provider, uuid.uuid4().hex)


def _signed_by_nobody(provider: OidcProvider, kid: str) -> str:
    now = int(time.time())
    claims = {
        "iss": provider.issuer,
        "aud": provider.audience,
        "sub": "mallory",
        provider.tenant_claim: "acme",
        "iat": now,
        "exp": now + 3600,
        "jti": uuid.uuid4().hex,
    }
    # Below any modulus of its size, so that the number is not refused before it is worked with.
    signature = b"\0" + os.urandom(255)
    header = json.dumps({"alg": "RS256", "kid": kid}).encode()
    return _compact(header, json.dumps(claims).encode(), signature)


def _expired(provider: OidcProvider) -> str:
    """Return a token that was good an hour ago."""
    return provider.token("mallory", ttl=60.0, now=time.time() - 3600.0, jti=uuid.uuid4().hex)


def _garbage(provider: OidcProvider) -> str:
    """Return what is no token, with the dots of one."""
    return _compact(os.urandom(50), os.urandom(200), os.urandom(256))


def _compact(*parts: bytes) -> str:
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _attackers(number: int) -> str:
    return "1 attacker" if number == 1 else f"{number} attackers"


FULL = Attack(total=100_000, attackers=(1, 4, 16, 64), idle=500)
QUICK = Attack(total=800, attackers=(1, 4), idle=20)
