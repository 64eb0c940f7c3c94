"""The published keys of one issuer, kept: fresh, then stale, then gone.

How to think about it
=====================

Fetched keys are *fresh* for a while and used without a thought. After that they are *stale*: still
used, while one fetch in the background replaces them. So a provider that hiccups rejects nobody. A
stale set that could not be replaced within its window is *gone*, and with it the right to believe
it: a key withdrawn during an outage is trusted no longer than the window.

A token may name a key we have not seen, because keys rotate, or because somebody makes names up.
The first one is worth a fetch; a thousand are not. So such fetches are a cool-down apart, and what
is said meanwhile is the truth: nobody can tell now. Only a set whose fetch began after the question
may say that there is no such key; that answer is remembered for the one name.

All fetches are one flight: whoever needs keys while some are on their way waits for those.

Source: DESIGN section 7; RFC 5861 for the term stale-while-revalidate.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cachetools import TTLCache
from joserfc.jwk import Key

from towpath.auth.keys import KeyRing
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tokens import KeysUnavailable

MAX_ABSENT: Final = 1000
"""How many made-up key ids are remembered."""
MAX_BACKOFF: Final = 60.0
"""The longest pause between fetches in the background that fail, in seconds."""


class Source(Protocol):
    """Where keys are fetched; bounded in time by itself."""

    issuer: str

    async def fetch(self) -> KeyRing:
        """Return the present keys.

        Raises:
            KeysUnavailable: they cannot be had now.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How long fetched keys are believed. Seconds."""

    fresh: float = 300.0
    """Used without a thought."""
    stale: float = 3600.0
    """Used beyond that, while new ones are fetched; then they are gone."""
    cooldown: float = 10.0
    """Between fetches because of a key nobody has seen."""
    absent: float = 10.0
    """How long a key id that was looked for in vain is refused without looking again."""


@dataclass(frozen=True, slots=True)
class _Fetched:
    ring: KeyRing
    began: float


class RemoteKeys:
    """The published keys of one issuer; see `towpath.auth.tokens.Keys`."""

    def __init__(
        self,
        source: Source,
        flights: SingleFlight[str, None],
        *,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        freshness: Freshness | None = None,
    ) -> None:
        """Know no keys yet.

        Args:
            source: where they are fetched.
            flights: in which fetches fly, under the issuer's name.
            monotonic: seconds of a monotonic clock.
            random: from 0 to below 1, for pauses.
            freshness: how long keys are believed.
        """
        self._source = source
        self._flights = flights
        self._monotonic = monotonic
        self._random = random
        self._freshness = freshness or Freshness()
        self._fetched: _Fetched | None = None
        self._failures = 0
        self._next_revalidation = 0.0
        self._next_search = 0.0
        self._absent: TTLCache[tuple[str | None, str], None] = TTLCache(
            MAX_ABSENT, self._freshness.absent, timer=monotonic
        )

    @property
    def issuer(self) -> str:
        """Whose keys these are."""
        return self._source.issuer

    @property
    def warm(self) -> bool:
        """Whether there are keys that may be used."""
        return self._fetched is not None and self._age < self._believed

    @property
    def failing(self) -> bool:
        """Whether the last fetch failed."""
        return self._failures > 0

    @property
    def _age(self) -> float:
        assert self._fetched is not None, "keys have an age once they are there"
        return self._monotonic() - self._fetched.began

    @property
    def _believed(self) -> float:
        return self._freshness.fresh + self._freshness.stale

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key for this id and algorithm; None where the issuer has none.

        Raises:
            KeysUnavailable: nobody can tell now.
        """
        if not self.warm:
            await self.fetch()
        elif self._age >= self._freshness.fresh:
            self._revalidate()
        key = self._ring.find(kid, algorithm)
        if key is not None or kid is None or (kid, algorithm) in self._absent:
            return key
        return await self._search(kid, algorithm)

    async def successor(self, key: Key, kid: str | None, algorithm: str) -> Key | None:
        """Return the key that has taken the place of one; None where none has.

        Raises:
            KeysUnavailable: nobody can tell now.
        """
        found = await self._search(kid, algorithm, beyond=key)
        return None if found is None or _same(found, key) else found

    async def fetch(self) -> None:
        """Fetch the keys, or wait for those on their way.

        Raises:
            KeysUnavailable: they cannot be had now.
        """
        await self._flights.share(self.issuer, self._fetch)

    def probe(self) -> None:
        """Find out in the background whether the provider is there; `failing` will tell."""
        self._flights.begin(f"probe {self.issuer}", self._probe)

    async def _probe(self) -> None:
        """Fetch, though not sooner than the cool-down allows."""
        if self.warm and not self.failing:
            await asyncio.sleep(max(0.0, self._freshness.cooldown - self._age))
        await self.fetch()

    async def keep_fresh(self) -> None:
        """Replace the keys whenever they are stale, whoever comes, for as long as this runs."""
        while True:
            await asyncio.sleep(self._freshness.fresh)
            self._revalidate()

    @property
    def _ring(self) -> KeyRing:
        assert self._fetched is not None, "a fetch that does not raise leaves keys"
        return self._fetched.ring

    def _revalidate(self) -> None:
        """Fetch in the background, unless that failed a moment ago."""
        if self._monotonic() >= self._next_revalidation:
            self._flights.begin(self.issuer, self._fetch)

    async def _search(
        self, kid: str | None, algorithm: str, *, beyond: Key | None = None
    ) -> Key | None:
        """Look for a key nobody has seen, or for another one, in keys fetched from now on."""
        looked_at = self._monotonic()
        known = self._ring.find(kid, algorithm) if beyond is not None else None
        if beyond is not None and known is not None and not _same(known, beyond):
            return known  # It was replaced while the token was looked at.
        if self.issuer not in self._flights:
            if looked_at < self._next_search:
                raise self._not_now()
            self._next_search = looked_at + self._freshness.cooldown
        await self.fetch()
        key = self._ring.find(kid, algorithm)
        if key is None or (beyond is not None and _same(key, beyond)):
            assert self._fetched is not None, "a fetch that does not raise leaves keys"
            if self._fetched.began < looked_at:
                raise self._not_now()  # The keys on their way left before the question.
            if key is None:
                self._absent[kid, algorithm] = None
        return key

    def _not_now(self) -> KeysUnavailable:
        wait = max(0.0, self._next_search - self._monotonic())
        return KeysUnavailable("a key nobody has seen", wait, suspect=True)

    async def _fetch(self) -> None:
        began = self._monotonic()
        try:
            ring = await self._source.fetch()
        except KeysUnavailable:
            self._failures += 1
            pause = min(MAX_BACKOFF, 2.0 ** min(self._failures, 10))
            self._next_revalidation = self._monotonic() + pause * (0.5 + self._random() / 2)
            raise
        self._failures = 0
        self._fetched = _Fetched(ring, began)


def _same(one: Key, other: Key) -> bool:
    return one.thumbprint() == other.thumbprint()
