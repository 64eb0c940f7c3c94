"""Nobody gets more than their burst and their rate, whatever the clock does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.rate_limits import Rate, RateLimits, TokenBucket

START = 1000.0


def bucket(per_second: float = 2.0, burst: int = 5) -> TokenBucket:
    return TokenBucket(Rate(per_second=per_second, burst=burst), START)


def test_a_burst_is_taken_at_once_and_no_more() -> None:
    """Five at the first moment, and the sixth is refused."""
    tokens = bucket()
    assert [tokens.take(START) for _ in range(7)] == [True] * 5 + [False] * 2


def test_tokens_come_back_at_the_rate() -> None:
    """Two a second: half a second is one, and not a moment earlier."""
    tokens = bucket()
    while tokens.take(START):
        pass
    assert not tokens.take(START + 0.499)
    assert tokens.take(START + 0.5)
    assert not tokens.take(START + 0.5)
    assert [tokens.take(START + 2.0) for _ in range(4)] == [True] * 3 + [False]


def test_no_more_than_the_burst_is_saved_up() -> None:
    """A day of silence is worth one burst."""
    tokens = bucket()
    assert [tokens.take(START + 86_400) for _ in range(6)] == [True] * 5 + [False]


def test_looking_takes_nothing() -> None:
    """Whether there is one may be asked as often as one likes, and being refused costs nothing."""
    tokens = bucket(per_second=1.0, burst=1)
    assert [tokens.empty(START) for _ in range(5)] == [False] * 5
    assert tokens.take(START)
    assert [tokens.empty(START) for _ in range(5)] == [True] * 5
    assert [tokens.take(START + 0.5) for _ in range(5)] == [False] * 5
    assert tokens.take(START + 1.0)


def test_r25_a_clock_that_goes_back_gives_nothing() -> None:
    """Neither going back nor coming forward again to where it was is worth a token."""
    tokens = bucket()
    while tokens.take(START):
        pass
    assert not tokens.take(START - 3600)
    assert not tokens.take(START)
    assert not tokens.take(START + 0.4)
    assert tokens.take(START + 0.5)


@given(
    st.lists(st.tuples(st.floats(-5, 20), st.booleans()), max_size=60),
    st.floats(0.01, 50),
    st.integers(1, 20),
)
def test_r23_never_more_than_burst_and_rate_allow(
    asked: list[tuple[float, bool]], per_second: float, burst: int
) -> None:
    """At any times of asking: at most burst + rate * t is taken in any stretch of t seconds."""
    tokens, now, latest = bucket(per_second, burst), START, START
    taken: list[float] = []
    for wait, takes in asked:
        now += wait
        latest = max(latest, now)
        if not takes:
            tokens.empty(now)
        elif tokens.take(now):
            taken.append(latest)
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            allowed = burst + per_second * (taken[last] - begin)
            assert last - first + 1 <= allowed + 1e-6


@given(st.floats(0.01, 50), st.integers(1, 20), st.integers(1, 100))
def test_who_keeps_to_the_rate_is_never_refused(per_second: float, burst: int, times: int) -> None:
    """One token at a time, as fast as they come, is always there."""
    tokens = bucket(per_second, burst)
    for number in range(times):
        assert tokens.take(START + number * (1 / per_second) * 1.000001)


# Many subjects.


def limits(**options: Any) -> RateLimits[str]:
    return RateLimits(Rate(per_second=1.0, burst=2), **options)


def test_r23_each_subject_has_a_bucket_of_its_own() -> None:
    """What one used up is not missing elsewhere."""
    many = limits()
    assert [many.take("a", START) for _ in range(3)] == [True, True, False]
    assert many.empty("a", START)
    assert not many.empty("b", START)
    assert many.take("b", START)
    assert many.take("a", START + 1)


def test_who_was_never_counted_is_not_empty_and_takes_no_room() -> None:
    """Asking about somebody makes nothing."""
    many = limits()
    assert not many.empty("a", START)
    assert len(many) == 0
    many.take("a", START)
    assert len(many) == 1


def test_r23_the_number_of_subjects_is_bounded() -> None:
    """The least recently used one is dropped, so that an attacker who goes on is not."""
    many = limits(max_subjects=3)
    while many.take("attacker", START):
        pass
    for number in range(100):
        many.take(f"other {number}", START)
        assert many.empty("attacker", START)
    assert len(many) == 3


@pytest.mark.parametrize("subjects", [1, 5])
def test_whoever_is_forgotten_begins_anew(subjects: int) -> None:
    """Forgetting errs on the side of letting through."""
    many = limits(max_subjects=subjects)
    while many.take("a", START):
        pass
    for number in range(subjects):
        many.take(f"other {number}", START)
    assert not many.empty("a", START)
    assert len(many) == subjects
