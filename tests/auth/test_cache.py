"""A verdict is cached for its own credential only, and never longer than it is valid."""

import hashlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.auth.stage import NOW, Clock
from towpath.auth.cache import Digest, VerdictCache, digest
from towpath.auth.revocations import Revocation
from towpath.auth.verdicts import Invalid, Unknown, Valid, Verdict
from towpath.identity import Principal

HOUR = 3600.0
KEY = digest("token")


def valid(user: str = "mia", ends: float | None = NOW + HOUR, **fields: Any) -> Valid:
    return Valid(Principal(tenant="acme", user=user, expires_at=ends, **fields))


class Kept:
    """A cache and its two clocks."""

    def __init__(self, **options: Any) -> None:
        self.clock, self.wall = Clock(), Clock(NOW)
        self.cache = VerdictCache(monotonic=self.clock, now=self.wall, **options)

    def put(self, verdict: Verdict, credential: str = "token") -> "Kept":
        self.cache.put(digest(credential), verdict)
        return self

    def found(self, credential: str = "token") -> Verdict | None:
        stored_result = self.cache.get(digest(credential))
        return None if stored_result is None else stored_result.verdict

    def pass_(self, seconds: float) -> "Kept":
        """Let time pass, on both clocks."""
        self.clock.now += seconds
        self.wall.now += seconds
        return self


# Whose it is.


def test_r27_the_key_is_the_sha256_of_the_credential() -> None:
    """The cache contains no part of the credential."""
    assert digest("token") == hashlib.sha256(b"token").digest()


@given(st.text(st.characters(), max_size=40), st.text(st.characters(), max_size=40))
@example("token", "token ")
@example("token", "Token")
@example("é", "e\u0301")
@example("\ud800", "\ud801")
@example("\udfff", "\U0010ffff")
@example("", "\x00")
def test_r27_two_credentials_share_nothing_however_alike(one: str, other: str) -> None:
    """The whole credential is the key, to the last character."""
    kept = Kept()
    kept.put(valid("mia"), one)
    assert kept.found(one) == valid("mia")
    if other != one:
        assert kept.found(other) is None
        kept.put(valid("leo"), other)
        assert kept.found(one) == valid("mia")
        assert kept.found(other) == valid("leo")
        assert len(kept.cache) == 2


@given(st.text("ab.", min_size=1, max_size=30), st.integers(0, 29))
def test_r27_a_part_of_a_credential_is_another_one(credential: str, cut: int) -> None:
    """Same beginning, same end, same signature: none of these is a key."""
    kept = Kept().put(valid(), credential)
    for part in (credential[:cut], credential[cut:], credential + credential[-1]):
        assert (kept.found(part) is not None) is (part == credential)


# For how long.


@pytest.mark.parametrize(
    ("ends", "seconds"),
    [
        (NOW + HOUR, 300),
        (NOW + 300, 300),
        (NOW + 300.5, 300),
        (NOW + 299, 299),
        (NOW + 10, 10),
        (NOW + 0.5, 0.5),
        (None, 300),
    ],
)
def test_r28_a_good_verdict_lives_no_longer_than_its_credential(
    ends: float | None, seconds: float
) -> None:
    """The lifetime is exactly min(300 s, exp - now)."""
    kept = Kept().put(valid(ends=ends))
    assert kept.pass_(seconds - 0.001).found() == valid(ends=ends)
    assert kept.pass_(0.001).found() is None


@pytest.mark.parametrize("ends", [NOW, NOW - 0.001, NOW - 29, 0.0, -1.0])
def test_r28_what_is_past_its_end_is_not_kept(ends: float) -> None:
    """A credential accepted by the leeway only is verified each time."""
    kept = Kept().put(valid(ends=ends))
    assert kept.found() is None
    assert len(kept.cache) == 0


def test_r28_looking_does_not_make_it_live_longer() -> None:
    """The age counts from the verification."""
    kept = Kept().put(valid())
    for _ in range(3):
        assert kept.pass_(99).found() == valid()
    assert kept.pass_(3).found() is None


def test_r28_what_is_found_says_how_old_it_is() -> None:
    """A cached verdict has its age."""
    kept = Kept().put(valid())
    kept.pass_(42)
    stored_result = kept.cache.get(KEY)
    assert stored_result is not None
    assert kept.clock.now - stored_result.at == 42


@pytest.mark.parametrize("seconds", [0.0, 1.0, 299.0])
def test_r28_a_wall_clock_set_forward_ends_what_is_over(seconds: float) -> None:
    """The expiry of a credential is a wall-clock time: set an hour ahead, the entry has expired."""
    kept = Kept().put(valid(ends=NOW + HOUR)).pass_(seconds)
    kept.wall.now += HOUR - seconds - 0.001
    assert kept.found() == valid(ends=NOW + HOUR)
    kept.wall.now += 0.001
    assert kept.found() is None
    assert len(kept.cache) == 0
    kept.wall.now -= HOUR
    assert kept.found() is None


def test_r28_a_wall_clock_set_back_makes_nothing_live_longer() -> None:
    """An entry ages by the monotonic clock."""
    kept = Kept().put(valid(ends=NOW + 60))
    kept.wall.now -= HOUR
    kept.pass_(59)
    assert kept.found() is not None
    assert kept.pass_(1).found() is None
    other = Kept()
    other.wall.now -= HOUR
    other.put(valid(ends=NOW + 60))
    assert other.pass_(299).found() is not None
    assert other.pass_(1).found() is None


@given(
    st.none() | st.floats(0.01, 1000),
    st.floats(0, 1000),
    st.sampled_from([0.0, HOUR, -HOUR]) | st.floats(-1000, 1000),
)
def test_r28_at_any_times_only_what_is_true_is_found(
    lives: float | None, passed: float, step: float
) -> None:
    """Found exactly as long as neither the cap, nor the credential's time, nor its date is over."""
    ends = None if lives is None else NOW + lives
    kept = Kept().put(valid(ends=ends)).pass_(passed)
    kept.wall.now += step
    left = 300.0 if ends is None else min(300.0, ends - NOW)
    in_time = kept.clock.now < 1000.0 + left
    before_end = ends is None or kept.wall.now < ends
    assert (kept.found() is not None) is (in_time and before_end)


# Which.


@pytest.mark.parametrize(
    "verdict", [Invalid("no"), Invalid("no", expired=True), Invalid("no", revoked=True)]
)
def test_r28_a_bad_verdict_is_kept_briefly(verdict: Invalid) -> None:
    """Ten seconds: a repeated bad credential is cheap, and an error of ours is short."""
    kept = Kept().put(verdict)
    assert kept.pass_(9.999).found() == verdict
    assert kept.pass_(0.001).found() is None


@pytest.mark.parametrize(
    "verdict", [Unknown("down"), Unknown("down", 5.0, suspect=True), Invalid("soon", passing=True)]
)
def test_r22_what_time_alone_changes_is_never_kept(verdict: Verdict) -> None:
    """No refusal is cached for an outage, or for a credential that is not valid yet."""
    kept = Kept().put(verdict)
    assert kept.found() is None
    assert len(kept.cache) == 0


@pytest.mark.parametrize("later", [Unknown("down"), Invalid("no"), Invalid("no", passing=True)])
def test_r28_a_later_verdict_takes_the_place_of_an_earlier_one(later: Verdict) -> None:
    """The latest verdict replaces the one before."""
    kept = Kept().put(valid()).put(later)
    assert kept.found() in (None, later)


def test_the_lifetimes_can_be_set() -> None:
    """In seconds, for valid and for invalid verdicts."""
    kept = Kept(valid_seconds=5.0, invalid_seconds=2.0)
    kept.put(valid(), "good").put(valid(ends=None), "endless").put(Invalid("no"), "bad")
    kept.pass_(1.999)
    assert kept.found("bad") is not None
    kept.pass_(0.001)
    assert kept.found("bad") is None
    kept.pass_(2.999)
    assert [kept.found(name) for name in ("good", "endless")] == [valid(), valid(ends=None)]
    kept.pass_(0.001)
    assert [kept.found(name) for name in ("good", "endless")] == [None, None]


# How many.


def test_r27_the_number_is_bounded_and_who_comes_again_stays() -> None:
    """The least recently used one is evicted; invalid ones take no more than their share."""
    kept = Kept(max_entries=3)
    for name in "abc":
        kept.put(valid(name), name)
    assert kept.found("a") is not None
    kept.put(valid("d"), "d")
    assert len(kept.cache) == 3
    assert [kept.found(name) is not None for name in "abcd"] == [True, False, True, True]
    for number in range(1000):
        kept.put(Invalid("no"), f"bad {number}")
    assert len(kept.cache) == 3


def test_what_is_over_takes_no_room() -> None:
    """The size counts only entries that can still be found."""
    kept = Kept()
    for number in range(10):
        kept.put(valid(ends=NOW + 10 + number), str(number))
    assert len(kept.cache) == 10
    kept.pass_(15)
    assert len(kept.cache) == 4


# Forgetting.


def test_r28_a_revocation_drops_the_verdicts_it_names_and_no_others() -> None:
    """The user's verdicts are dropped at once; other users' and invalid ones stay."""
    kept = Kept()
    kept.put(valid("mia"), "one").put(valid("mia", token_id="j"), "two")
    kept.put(valid("leo"), "other").put(Invalid("no"), "bad")
    kept.cache.forget(Revocation(tenant="acme", user="mia", at=NOW).names)
    assert [kept.found(name) for name in ("one", "two", "other", "bad")] == [
        None,
        None,
        valid("leo"),
        Invalid("no"),
    ]
    kept.cache.forget(lambda _: True)
    assert [kept.found(name) for name in ("other", "bad")] == [None, Invalid("no")]


def test_forgetting_while_entries_run_out_is_no_fault() -> None:
    """Entries may expire between being listed and being read."""
    kept = Kept()
    for number in range(5):
        kept.put(valid(str(number), ends=NOW + 10), str(number))

    def named(_: Principal) -> bool:
        kept.pass_(4)
        return True

    kept.cache.forget(named)
    assert len(kept.cache) == 0


def test_r17_nothing_in_the_cache_shows_a_credential() -> None:
    """Keys are digests, and a digest reveals nothing."""
    key: Digest = digest("eyJ.SECRET.x")
    kept = Kept().put(valid(), "eyJ.SECRET.x")
    assert "SECRET" not in f"{key!r} {kept.cache.get(key)!r}"
    assert len(key) == 32
