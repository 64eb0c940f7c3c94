"""The published keys of one issuer, cached: fresh, then stale, then gone.

How to think about it
=====================

Fetched keys are *fresh* for a while and used without revalidation. After that they are *stale*:
still used, while one fetch in the background replaces them. So a short outage of the provider
rejects no valid token. Stale keys that were not replaced within their window are *gone*: they are
no longer used. So a key withdrawn during an outage is trusted no longer than the window.

A token may name an unknown key id, because keys rotate, or because a client invents key ids. One
unknown key id is worth a fetch; a thousand are not. So these fetches are at least a cool-down
apart. During the cool-down, tokens with an unknown key id cannot be verified: the lookup raises
`KeysUnavailable`. Only keys whose fetch began after the lookup can prove that the key id does not
exist; this result is cached for the one key id.

Fetches of one issuer are shared: a caller that needs keys waits for the fetch in progress.

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
"""How many key ids that do not exist are cached."""
MAX_BACKOFF: Final = 60.0
"""The longest pause between failed fetches in the background, in seconds."""


class Source(Protocol):
    """Fetches keys; an implementer bounds the time of each fetch."""

    issuer: str

    async def fetch(self) -> KeyRing:
        """Return the current keys.

        Raises:
            KeysUnavailable: the keys cannot be fetched now.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How long fetched keys are used. Seconds."""

    fresh: float = 300.0
    """Used without revalidation."""
    stale: float = 3600.0
    """Used after that, while new keys are fetched; then they are gone."""
    cooldown: float = 10.0
    """Minimum time between fetches for an unknown key id."""
    absent: float = 10.0
    """How long a key id that was not found is refused without another fetch."""


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
        """Start without keys.

        Args:
            source: fetches the keys.
            flights: the fetches in progress, by the issuer's name.
            monotonic: seconds of a monotonic clock.
            random: from 0 to below 1, for pauses.
            freshness: how long keys are used.
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
        """The issuer of these keys."""
        return self._source.issuer

    @property
    def warm(self) -> bool:
        """Whether there are keys that may still be used."""
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
        """Return the key for this id and algorithm; None if the issuer has none.

        Raises:
            KeysUnavailable: the key cannot be looked up now.
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
        """Return the key that has replaced a key; None if none has.

        Raises:
            KeysUnavailable: the key cannot be looked up now.
        """
        found = await self._search(kid, algorithm, beyond=key)
        return None if found is None or _same(found, key) else found

    async def fetch(self) -> None:
        """Fetch the keys, or wait for the fetch in progress.

        Raises:
            KeysUnavailable: the keys cannot be fetched now.
        """
        await self._flights.share(self.issuer, self._fetch)

    def probe(self) -> None:
        """Check in the background whether the provider answers; `failing` shows the result."""
        self._flights.begin(f"probe {self.issuer}", self._probe)

    async def _probe(self) -> None:
        """Fetch the keys; after a successful fetch, wait for the end of the cool-down first."""
        if self.warm and not self.failing:
            await asyncio.sleep(max(0.0, self._freshness.cooldown - self._age))
        await self.fetch()

    async def keep_fresh(self) -> None:
        """Replace the keys whenever they are stale, even without clients; run until cancelled."""
        while True:
            await asyncio.sleep(self._freshness.fresh)
            self._revalidate()

    @property
    def _ring(self) -> KeyRing:
        assert self._fetched is not None, "a fetch that does not raise leaves keys"
        return self._fetched.ring

    def _revalidate(self) -> None:
        """Fetch in the background, except during the pause after a failed fetch."""
        if self._monotonic() >= self._next_revalidation:
            self._flights.begin(self.issuer, self._fetch)

    async def _search(
        self, kid: str | None, algorithm: str, *, beyond: Key | None = None
    ) -> Key | None:
        """Look for an unknown key, or for a key other than `beyond`, in newly fetched keys."""
        looked_at = self._monotonic()
        known = self._ring.find(kid, algorithm) if beyond is not None else None
        if beyond is not None and known is not None and not _same(known, beyond):
            return known  # The key was replaced while the token was verified.
        if self.issuer not in self._flights:
            if looked_at < self._next_search:
                raise self._not_now()
            self._next_search = looked_at + self._freshness.cooldown
        await self.fetch()
        key = self._ring.find(kid, algorithm)
        if key is None or (beyond is not None and _same(key, beyond)):
            assert self._fetched is not None, "a fetch that does not raise leaves keys"
            if self._fetched.began < looked_at:
                raise self._not_now()  # The shared fetch began before this lookup.
            if key is None:
                self._absent[kid, algorithm] = None
        return key

    def _not_now(self) -> KeysUnavailable:
        wait = max(0.0, self._next_search - self._monotonic())
        return KeysUnavailable("the key id is unknown", wait, suspect=True)

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
