"""Verdicts that need not be found out again: by the credential's digest, and never for long.

Only the verdict is kept, under the sha256 of the whole credential, so that two people can never
share one. A good verdict is kept no longer than its credential lives, a bad one only long enough to
make repeating it cheap, an unknown one not at all. What was revoked since is dropped here, and
whoever asks still looks into the revocations afterwards.

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
    """Return what stands for a credential wherever it must not stand itself."""
    return Digest(hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest())


@dataclass(frozen=True, slots=True)
class Remembered:
    """A verdict and when it was found out."""

    verdict: Verdict
    at: float
    """On the cache's monotonic clock."""


class VerdictCache:
    """The verdicts of this node, bounded in number and time."""

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
            monotonic: seconds of a monotonic clock, by which entries age.
            now: Unix seconds, by which credentials end.
            max_entries: the least recently used one makes room.
            valid_seconds: how long a good verdict is kept at most.
            invalid_seconds: how long a bad one is.
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
        """Return what is remembered of a credential; None where it has to be verified."""
        found: Remembered | None = self._entries.get(key)
        if found is None:
            return None
        if isinstance(found.verdict, Valid) and self._left(found.verdict) <= 0:
            # The wall clock was set since: the end of a credential is a date, not a duration.
            self._entries.pop(key, None)
            return None
        return found

    def put(self, key: Digest, verdict: Verdict) -> None:
        """Remember a verdict, where it is one to be remembered."""
        self._entries[key] = Remembered(verdict, self._monotonic())

    def forget(self, named: Callable[[Principal], bool]) -> None:
        """Drop the good verdicts about these principals."""
        for key, entry in list(self._entries.items()):
            if isinstance(entry.verdict, Valid) and named(entry.verdict.principal):
                self._entries.pop(key, None)  # It may have aged out since it was listed.

    def _kept_until(self, _: Digest, entry: Remembered, now: float) -> float:
        match entry.verdict:
            case Valid() as good:
                return now + min(self._valid_seconds, self._left(good))
            case Invalid(passing=False):
                return now + self._invalid_seconds
            case Invalid() | Unknown():
                return now

    def _left(self, good: Valid) -> float:
        """Return how many seconds the credential has to live."""
        ends = good.principal.expires_at
        return self._valid_seconds if ends is None else ends - self._now()
