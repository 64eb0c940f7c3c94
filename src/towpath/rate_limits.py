"""Rate limits: a token bucket, and one token bucket for each of many subjects.

A bucket holds at most `burst` tokens and gains `per_second` of them. Each use takes one token, and
is refused if the bucket is empty. Time is an argument.

Source: WIRE section 3 (111, 3013); DESIGN section 7.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The number of uses allowed per second in the long run, and at once (`burst`)."""

    per_second: float
    burst: int


class TokenBucket:
    """One rate limit of one subject."""

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._level = float(rate.burst)
        self._at = now

    def take(self, now: float) -> bool:
        """Take a token; return False if the bucket is empty."""
        if self.empty(now):
            return False
        self._level -= 1
        return True

    def empty(self, now: float) -> bool:
        """Return whether there is no token to take."""
        gained = max(0.0, now - self._at) * self._rate.per_second
        self._level = min(float(self._rate.burst), self._level + gained)
        self._at = max(self._at, now)
        return self._level < 1


class RateLimits(Generic[K]):
    """The same rate limit for many subjects.

    At most `max_subjects` buckets are kept; the least recently used one is dropped.
    """

    def __init__(self, rate: Rate, *, max_subjects: int = 10_000) -> None:
        self._rate = rate
        self._buckets: LRUCache[K, TokenBucket] = LRUCache(max_subjects)

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, subject: K, now: float) -> bool:
        """Take a token of this subject; return False if it has none."""
        bucket = self._buckets.get(subject)
        if bucket is None:
            bucket = self._buckets[subject] = TokenBucket(self._rate, now)
        return bucket.take(now)

    def empty(self, subject: K, now: float) -> bool:
        """Return whether this subject has no token to take."""
        bucket = self._buckets.get(subject)
        return bucket is not None and bucket.empty(now)
