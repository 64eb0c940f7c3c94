"""Published keys are fresh, then stale, then dropped; an outage is never a verdict."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import detangle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, Key

from tests.auth.stage import answered, virtual
from towpath.auth.jwks import MAX_ABSENT, Freshness, RemoteKeys
from towpath.auth.keys import KeyRing
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tokens import KeysUnavailable

FRESH, STALE, COOLDOWN, ABSENT = 300.0, 3600.0, 10.0, 10.0
KEYS = {name: ECKey.generate_key("P-256", {"kid": name}) for name in ("old", "new", "third")}
TICK = 1e-6
"""So much passes between two steps, as on a real clock, where no moment comes twice."""


class Provider:
    """A key source that can be down, slow, and rotate its keys."""

    issuer = "https://id.example/"

    def __init__(self) -> None:
        self.published = ["old"]
        self.down = False
        self.anew = False
        """Whether each fetch creates new key objects, as a real one does."""
        self.slow = 0.0
        """How long a fetch takes."""
        self.fetch_times: list[float] = []
        """The start of each fetch."""
        self.successful_fetch_times: list[float] = []
        """The start of each fetch that succeeded."""

    async def fetch(self) -> KeyRing:
        began = detangle.now()
        self.fetch_times.append(began)
        published, down = list(self.published), self.down
        await asyncio.sleep(self.slow)
        if down:
            raise KeysUnavailable("down", 3.0)
        self.successful_fetch_times.append(began)
        keys = (KEYS[name] for name in published)
        return KeyRing([ECKey.import_key(key.as_dict()) if self.anew else key for key in keys])


class World:
    """Remote keys, their provider, and the `SingleFlight` between them."""

    def __init__(self, flights: SingleFlight[str, None], jitter: float) -> None:
        self.provider = Provider()
        self.flights = flights
        self.keys = RemoteKeys(
            self.provider, flights, monotonic=detangle.now, random=lambda: jitter
        )

    async def find(self, kid: str | None = "old", algorithm: str = "ES256") -> Key | None:
        """Look a key up, a moment after the step before."""
        await asyncio.sleep(TICK)
        return await self.keys.find(kid, algorithm)

    async def lookup(self, kid: str | None = "old") -> str:
        """Return the outcome of a lookup as a word."""
        try:
            found = await self.find(kid)
        except KeysUnavailable as outage:
            return "suspect" if outage.suspect else "unavailable"
        return "absent" if found is None else "found"

    async def until(self, when: float) -> None:
        await asyncio.sleep(when - detangle.now())

    def warm(self) -> bool:
        return self.keys.warm

    @property
    def fetches(self) -> int:
        return len(self.provider.fetch_times)


@asynccontextmanager
async def world(*, warm: bool = True, jitter: float = 0.5) -> AsyncIterator[World]:
    lost: list[Exception] = []
    async with SingleFlight[str, None](lost.append) as flights:
        made = World(flights, jitter)
        if warm:
            await made.keys.fetch()
        yield made
    assert all(isinstance(error, KeysUnavailable) for error in lost)


# Fresh.


@virtual
async def test_r29_keys_are_fetched_once_and_then_used() -> None:
    """The first lookup waits for the fetch; for 300 seconds no other one does."""
    async with world(warm=False) as w:
        assert not w.warm()
        assert await w.find() is KEYS["old"]
        assert w.warm()
        for when in (1.0, 150.0, FRESH - 1):
            await w.until(when)
            assert await w.find() is KEYS["old"]
        assert w.fetches == 1


@virtual
async def test_r29_the_default_times_are_those_of_the_documentation() -> None:
    """Five minutes fresh, an hour stale, ten seconds of cool-down and of absence."""
    assert Freshness() == Freshness(fresh=FRESH, stale=STALE, cooldown=COOLDOWN, absent=ABSENT)
    async with world(warm=False) as w:
        assert w.keys.issuer == "https://id.example/"


@virtual
async def test_r30_fifty_who_need_them_at_once_fetch_once() -> None:
    """Concurrent lookups share one fetch, whatever their key id."""
    async with world(warm=False) as w:
        w.provider.slow = 0.5
        found = await asyncio.gather(*(w.find(kid) for kid in ("old", None) for _ in range(25)))
        assert found == [KEYS["old"]] * 50
        assert w.fetches == 1


@virtual
async def test_r22_fifty_who_meet_an_outage_are_all_told_so() -> None:
    """One call fails, and each waiter gets its error."""
    async with world(warm=False) as w:
        w.provider.down, w.provider.slow = True, 0.5
        outcomes = await asyncio.gather(*(w.find() for _ in range(50)), return_exceptions=True)
        assert [(str(one), getattr(one, "retry_after", None)) for one in outcomes] == [
            ("down", 3.0)
        ] * 50
        assert w.fetches == 1
        assert w.keys.failing
        assert not w.warm()


@virtual
async def test_a_caller_who_leaves_takes_nothing_from_the_others() -> None:
    """The caller that started the fetch may be cancelled during it."""
    async with world(warm=False) as w:
        w.provider.slow = 1.0
        first, second = (asyncio.create_task(w.find()) for _ in range(2))
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second is KEYS["old"]
        assert w.fetches == 1


# Stale.


@virtual
async def test_r29_stale_keys_are_used_at_once_and_replaced_behind() -> None:
    """No lookup waits for the background fetch, not even the one that started it."""
    async with world() as w:
        await w.until(FRESH)
        w.provider.slow = 0.5
        w.provider.published = ["old", "new"]
        assert answered(w.keys.find("old", "ES256")) is KEYS["old"]
        assert await w.find() is KEYS["old"]
        await asyncio.sleep(1)
        assert w.fetches == 2
        assert answered(w.keys.find("new", "ES256")) is KEYS["new"]
        await w.until(2 * FRESH - 1)
        await w.find()
        assert w.fetches == 2, "they are fresh again from when their fetch began"
        await w.until(2 * FRESH)
        await w.find()
        await asyncio.sleep(1)
        assert w.fetches == 3


@virtual
async def test_r29_a_key_withdrawn_is_gone_with_the_next_fetch() -> None:
    """A key that the provider no longer publishes is absent after the next fetch."""
    async with world() as w:
        w.provider.published = ["new"]
        await w.until(FRESH - 1)
        assert await w.lookup("old") == "found"
        await w.until(FRESH)
        assert await w.lookup("old") == "found"
        await asyncio.sleep(0.1)
        assert await w.lookup("new") == "found"
        assert await w.lookup("old") == "absent"


@virtual
async def test_r29_an_outage_rejects_nobody_within_the_window_and_trusts_nobody_beyond() -> None:
    """The keys are dropped exactly 3,900 seconds after the last good fetch began."""
    async with world() as w:
        w.provider.down = True
        for when in (1.0, FRESH, FRESH + 1, 1800.0, FRESH + STALE - 1, FRESH + STALE - 2 * TICK):
            await w.until(when)
            assert await w.lookup() == "found", when
            assert w.warm()
        for when in (FRESH + STALE, FRESH + STALE + 1, 10 * STALE):
            await w.until(when)
            assert not w.warm()
            assert await w.lookup() == "unavailable", when
        w.provider.down = False
        assert await w.lookup() == "found"
        assert w.warm()
        assert not w.keys.failing


@virtual
async def test_r29_a_slow_fetch_makes_nothing_younger() -> None:
    """The age of keys counts from the start of their fetch: later changes may be missing."""
    async with world() as w:
        await w.until(FRESH)
        w.provider.slow = 20.0
        await w.find()
        await w.until(FRESH + 30)
        w.provider.down = True
        await w.until(FRESH + FRESH + STALE - 1)
        assert await w.lookup() == "found"
        await w.until(FRESH + FRESH + STALE + 2 * TICK)
        assert not w.warm()


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(1, 900), st.booleans()), min_size=1, max_size=25),
    st.floats(0, 0.99),
    st.floats(0, 5),
)
def test_r29_however_the_provider_flaps_the_window_is_exact(
    looks: list[tuple[float, bool]], jitter: float, slow: float
) -> None:
    """At any times: a good key is found within the window, and never after it."""

    async def play() -> None:
        async with world(jitter=jitter) as w:
            w.provider.slow = slow
            for wait, down in looks:
                w.provider.down = down
                await asyncio.sleep(wait)
                age = detangle.now() + TICK - w.provider.successful_fetch_times[-1]
                outcome = await w.lookup()
                if age < FRESH + STALE:
                    assert outcome == "found", age
                elif down:
                    assert outcome == "unavailable", age

    detangle.run(play)


@pytest.mark.parametrize(
    ("jitter", "begins"),
    [
        (0.0, [0, 1, 3, 7, 15, 31, 61, 91, 121]),
        (0.5, [0, 1.5, 4.5, 10.5, 22.5, 46.5, 91.5, 136.5]),
    ],
)
def test_r29_failures_in_the_background_back_off(jitter: float, begins: list[float]) -> None:
    """Pauses double, with jitter down to half, up to one minute."""

    async def play() -> None:
        async with world(jitter=jitter) as w:
            w.provider.down = True
            await w.until(FRESH)
            while detangle.now() < FRESH + begins[-1] + 0.5:
                assert answered(w.keys.find("old", "ES256")) is KEYS["old"]
                await asyncio.sleep(0.05)
            made = [at - FRESH for at in w.provider.fetch_times[1:]]
            assert made == pytest.approx(begins, abs=0.11 * len(begins))
            w.provider.down = False
            await asyncio.sleep(61)
            await w.find()
            await asyncio.sleep(0.1)
            assert not w.keys.failing
            assert await w.lookup() == "found"

    detangle.run(play)


# Keys nobody has seen.


@virtual
async def test_r29_a_rotated_key_is_found_by_the_first_who_brings_it() -> None:
    """One fetch finds the new key for all callers and drops the old one."""
    async with world() as w:
        await w.until(20.0)
        w.provider.published, w.provider.slow = ["new"], 0.2
        assert await asyncio.gather(*(w.lookup("new") for _ in range(20))) == ["found"] * 20
        assert w.fetches == 2
        assert await w.lookup("old") == "suspect", "nobody has asked for it since"


@virtual
async def test_r29_a_key_that_is_not_there_is_absent_and_remembered() -> None:
    """One fetch answers for ten seconds; another key id or algorithm is looked up separately."""
    async with world() as w:
        await w.until(20.0)
        assert await w.lookup("made up") == "absent"
        assert w.fetches == 2
        for _ in range(9):
            assert await w.lookup("made up") == "absent"
            await asyncio.sleep(1)
        assert w.fetches == 2
        await w.until(20.0 + ABSENT + 1)
        assert await w.find("old", "RS256") is None
        assert await w.find("old", "RS256") is None
        assert w.fetches == 3
        await w.until(20.0 + 2 * ABSENT + 2)
        assert await w.lookup("made up") == "absent"
        assert w.fetches == 4


@virtual
async def test_r29_what_was_absent_and_has_come_is_found() -> None:
    """A cached absence does not hide a key of a later fetch."""
    async with world() as w:
        await w.until(280.0)
        assert await w.lookup("new") == "absent"
        w.provider.published = ["old", "new"]
        await asyncio.sleep(COOLDOWN)
        assert await w.lookup("third") == "absent"
        assert await w.lookup("new") == "found"


@virtual
async def test_r23_made_up_names_cost_one_fetch_in_ten_seconds() -> None:
    """100 lookups per second for a minute: six fetches; the other lookups are suspect."""
    async with world() as w:
        await w.until(20.0)
        outcomes = dict.fromkeys(("found", "absent", "suspect", "unavailable"), 0)
        for second in range(600):
            for number in range(10):
                outcomes[await w.lookup(f"made up {second} {number}")] += 1
                assert await w.lookup() == "found"
            await asyncio.sleep(0.1)
        assert w.fetches - 1 == 6
        assert outcomes == {"found": 0, "absent": 6, "suspect": 6000 - 6, "unavailable": 0}
        gaps = [
            b - a
            for a, b in zip(w.provider.fetch_times[1:], w.provider.fetch_times[2:], strict=False)
        ]
        assert min(gaps) >= COOLDOWN


@virtual
async def test_r23_who_has_to_wait_for_the_cool_down_is_told_how_long() -> None:
    """A retry after the cool-down helps; the unknown key id is suspect."""
    async with world() as w:
        await w.until(20.0)
        await w.lookup("made up")
        await asyncio.sleep(4.0)
        with pytest.raises(KeysUnavailable) as refused:
            await w.find("another")
        assert refused.value.suspect
        assert refused.value.retry_after == pytest.approx(6.0, abs=0.01)
        await asyncio.sleep(refused.value.retry_after)
        assert await w.lookup("another") == "absent"


@virtual
async def test_r22_a_search_that_fails_says_nothing_about_the_key() -> None:
    """Neither absent nor suspect: the provider is down; the cool-down still applies."""
    async with world() as w:
        await w.until(20.0)
        w.provider.down = True
        assert await w.lookup("new") == "unavailable"
        w.provider.down, w.provider.published = False, ["old", "new"]
        assert await w.lookup("new") == "suspect"
        assert await w.lookup("old") == "found"
        await asyncio.sleep(COOLDOWN)
        assert await w.lookup("new") == "found"


@virtual
async def test_r29_a_fetch_that_left_before_the_question_proves_no_absence() -> None:
    """Its keys may precede the rotation: lookups during the fetch are to be retried."""
    async with world() as w:
        await w.until(FRESH)
        w.provider.slow = 1.0
        w.provider.published = ["old"]
        await w.find()
        await asyncio.sleep(0.5)
        w.provider.published = ["old", "new"]
        with pytest.raises(KeysUnavailable) as refused:
            await w.find("new")
        assert refused.value.retry_after == 0
        assert w.fetches == 2, "whoever asks during a fetch waits for it"
        assert await w.lookup("new") == "found"
        assert w.fetches == 3


@virtual
async def test_r29_a_fetch_under_way_may_prove_that_a_key_is_there() -> None:
    """Only absence needs a fetch that began after the lookup."""
    async with world() as w:
        await w.until(FRESH)
        w.provider.slow, w.provider.published = 1.0, ["old", "new"]
        await w.find()
        await asyncio.sleep(0.5)
        assert await w.lookup("new") == "found"
        assert w.fetches == 2


@virtual
async def test_r29_cold_and_unseen_is_looked_for_no_more_than_once_more() -> None:
    """The first fetch and one search; then the key is absent."""
    async with world(warm=False) as w:
        assert await w.lookup("made up") == "absent"
        assert w.fetches <= 2
        assert await w.lookup("made up") == "absent"
        assert w.fetches <= 2


@virtual
async def test_a_token_without_a_key_id_never_searches() -> None:
    """There is no key id to search for."""
    async with world() as w:
        assert await w.lookup(None) == "found"
        assert await w.find(None, "RS256") is None
        w.provider.published = ["old", "new"]
        await w.until(FRESH)
        await w.find()
        await asyncio.sleep(1)
        assert await w.lookup(None) == "absent"
        assert w.fetches == 2


# Keys without a name.


async def successor_of(w: World, key: str = "old", kid: str | None = None) -> str:
    """Return the outcome of a lookup for the successor of this key as a word."""
    await asyncio.sleep(TICK)
    try:
        found = await w.keys.successor(KEYS[key], kid, "ES256")
    except KeysUnavailable as outage:
        return "suspect" if outage.suspect else "unavailable"
    return "none" if found is None else str(found.kid)


@virtual
async def test_r29_the_key_that_took_anothers_place_is_found() -> None:
    """Concurrent lookups share one fetch; later lookups need none."""
    async with world() as w:
        await w.until(20.0)
        w.provider.published, w.provider.slow = ["new"], 0.2
        assert await asyncio.gather(*(successor_of(w) for _ in range(20))) == ["new"] * 20
        assert w.fetches == 2
        assert await successor_of(w) == "new"
        assert w.fetches == 2


@virtual
async def test_r23_bad_signatures_cost_one_fetch_in_ten_seconds() -> None:
    """The first lookup finds no successor; the others are suspect until the cool-down ends."""
    async with world() as w:
        await w.until(20.0)
        w.provider.anew = True
        assert await successor_of(w) == "none"
        for _ in range(90):
            await asyncio.sleep(0.1)
            assert await successor_of(w) == "suspect"
        assert w.fetches == 2
        await asyncio.sleep(1.0)
        assert await successor_of(w) == "none"
        assert w.fetches == 3
        assert await w.lookup(None) == "found", "the key that is there goes on"


@virtual
async def test_r23_made_up_names_and_bad_signatures_share_one_cool_down() -> None:
    """Mixing the two causes no more fetches."""
    async with world() as w:
        await w.until(20.0)
        assert await w.lookup("made up") == "absent"
        assert await successor_of(w) == "suspect"
        assert w.fetches == 2


@virtual
async def test_r29_a_fetch_that_left_before_the_question_proves_no_succession() -> None:
    """A fetch that began before the lookup may precede the rotation."""
    async with world() as w:
        await w.until(FRESH)
        w.provider.slow = 1.0
        await w.find()
        await asyncio.sleep(0.5)
        w.provider.published = ["new"]
        assert await successor_of(w) == "suspect"
        assert await successor_of(w) == "new"
        assert w.fetches == 3


@virtual
async def test_r29_of_several_keys_without_a_name_none_takes_a_place() -> None:
    """With several keys the successor is ambiguous, so there is none."""
    async with world() as w:
        await w.until(20.0)
        w.provider.published = ["new", "third"]
        assert await successor_of(w) == "none"
        assert await w.lookup(None) == "absent"


@virtual
async def test_r22_a_succession_nobody_can_look_up_is_an_outage() -> None:
    """Not suspect: the provider is down."""
    async with world() as w:
        await w.until(20.0)
        w.provider.down = True
        assert await successor_of(w) == "unavailable"


@virtual
async def test_r23_remembered_absences_are_bounded() -> None:
    """More invented key ids than the bound evict the oldest absences."""
    async with world() as w:
        for number in range(MAX_ABSENT + 20):
            w.keys._absent[f"made up {number}", "ES256"] = None
        assert len(w.keys._absent) == MAX_ABSENT == 1000


# In the background.


@virtual
async def test_r22_a_probe_finds_out_whether_the_provider_is_there() -> None:
    """It runs in the background, and fetches only if the last fetch does not tell already."""
    async with world() as w:
        w.keys.probe()
        await asyncio.sleep(1)
        assert w.fetches == 1, "what was fetched a moment ago tells already"
        await w.until(COOLDOWN)
        w.provider.down = True
        w.keys.probe()
        w.keys.probe()
        assert not w.keys.failing
        await asyncio.sleep(1)
        assert (w.fetches, w.keys.failing) == (2, True)
        w.provider.down = False
        w.keys.probe()
        await asyncio.sleep(1)
        assert (w.fetches, w.keys.failing) == (3, False)
        assert w.warm()


@virtual
async def test_r22_a_probe_looks_again_after_a_failure_however_young_the_keys() -> None:
    """Fresh keys do not show whether a provider that failed since is up."""
    async with world() as w:
        w.provider.down = True
        assert await w.lookup("new") == "unavailable"
        w.provider.down = False
        w.keys.probe()
        await asyncio.sleep(1)
        assert (w.fetches, w.keys.failing) == (3, False)


@virtual
async def test_r30_a_probe_of_cold_keys_fetches_them() -> None:
    """No fetch has happened yet."""
    async with world(warm=False) as w:
        w.keys.probe()
        await asyncio.sleep(1)
        assert w.warm()


@virtual
async def test_r29_tended_keys_are_replaced_though_nobody_comes() -> None:
    """After hours without a lookup the keys are fresh."""
    async with world() as w:
        tending = asyncio.create_task(w.keys.keep_fresh())
        await w.until(10 * FRESH + 1)
        assert w.fetches == 11
        w.provider.down = True
        await w.until(10 * FRESH + STALE)
        assert answered(w.keys.find("old", "ES256")) is KEYS["old"]
        tending.cancel()


@virtual
async def test_a_fault_of_ours_in_a_fetch_is_no_outage() -> None:
    """The caller gets the internal error, and the known keys stay."""
    async with world() as w:

        async def broken() -> Any:
            raise ZeroDivisionError

        w.provider.fetch = broken  # type: ignore[method-assign]
        await w.until(20.0)
        with pytest.raises(ZeroDivisionError):
            await w.find("new")
        assert not w.keys.failing
        assert await w.lookup("old") == "found"


@virtual
async def test_r29_a_probe_asks_no_sooner_than_the_cool_down_allows() -> None:
    """Four seconds after a fetch the probe waits six, then fetches."""
    async with world() as w:
        await w.until(4.0)
        w.keys.probe()
        await w.until(9.0)
        assert w.fetches == 1
        w.provider.down = True
        await w.until(11.0)
        assert w.provider.fetch_times[1:] == pytest.approx([10.0])
        assert w.keys.failing
