"""A bounded cache of verdicts, by the digest of the credential.

Only the verdict is stored, under the SHA-256 of the whole credential, so that two people never
share an entry. A valid verdict is kept no longer than its credential is valid. An invalid verdict
is kept only long enough to make a repeated attempt cheap. An unknown verdict is not kept. A
revocation drops the verdicts it concerns, and the caller still checks the revocations afterwards.

Source: DESIGN section 7.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NewType

from cachetools import TLRUCache

from towpath.auth.verdicts import Invalid, Unknown, Valid, Verdict
from towpath.identity import Principal

Digest = NewType("Digest", bytes)
"""The sha256 of a credential."""


def digest(credential: str) -> Digest:
    """Return the digest that replaces a credential wherever the credential must not appear."""
    return Digest(hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest())


@dataclass(frozen=True, slots=True)
class Remembered:
    """A verdict and the time of its verification."""

    verdict: Verdict
    at: float
    """On the cache's monotonic clock."""


class VerdictCache:
    """The verdicts of this node, bounded in number and age."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        now: Callable[[], float],
        max_entries: int = 10_000,
        valid_seconds: float = 300.0,
        invalid_seconds: float = 10.0,
    ) -> None:
        """Make an empty cache.

        Args:
            monotonic: seconds of a monotonic clock, for the age of entries.
            now: Unix seconds, for the expiry of credentials.
            max_entries: beyond this number, the least recently used entry is dropped.
            valid_seconds: the longest time a valid verdict is kept.
            invalid_seconds: how long an invalid verdict is kept.
        """
        self._monotonic = monotonic
        self._now = now
        self._valid_seconds = valid_seconds
        self._invalid_seconds = invalid_seconds
        self._entries: TLRUCache[Digest, Remembered] = TLRUCache(
            max_entries, ttu=self._kept_until, timer=monotonic
        )

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Digest) -> Remembered | None:
        """Return the cached verdict of a credential; None if the credential must be verified."""
        found: Remembered | None = self._entries.get(key)
        if found is None:
            return None
        if isinstance(found.verdict, Valid) and self._left(found.verdict) <= 0:
            # The wall clock was set meanwhile: a credential expires at a date, not after a time.
            self._entries.pop(key, None)
            return None
        return found

    def put(self, key: Digest, verdict: Verdict) -> None:
        """Cache a verdict, unless it is unknown or time alone may change it."""
        self._entries[key] = Remembered(verdict, self._monotonic())

    def forget(self, named: Callable[[Principal], bool]) -> None:
        """Drop the valid verdicts about these principals."""
        for key, entry in list(self._entries.items()):
            if isinstance(entry.verdict, Valid) and named(entry.verdict.principal):
                self._entries.pop(key, None)  # It may have expired meanwhile.

    def _kept_until(self, _: Digest, entry: Remembered, now: float) -> float:
        match entry.verdict:
            case Valid() as good:
                return now + min(self._valid_seconds, self._left(good))
            case Invalid(passing=False):
                return now + self._invalid_seconds
            case Invalid() | Unknown():
                return now

    def _left(self, good: Valid) -> float:
        """Return for how many more seconds the credential is valid."""
        ends = good.principal.expires_at
        return self._valid_seconds if ends is None else ends - self._now()
