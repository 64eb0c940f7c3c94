"""Published keys are fresh, then stale, then gone; and nobody is told what nobody can know."""

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
    """Where keys are fetched: it may be down, slow, and change its keys."""

    issuer = "https://id.example/"

    def __init__(self) -> None:
        self.published = ["old"]
        self.down = False
        self.anew = False
        """Whether each fetch makes its key objects anew, as a real one does."""
        self.slow = 0.0
        """How long a fetch takes."""
        self.asked: list[float] = []
        """When each fetch began."""
        self.good: list[float] = []
        """When those began that brought keys."""

    async def fetch(self) -> KeyRing:
        began = detangle.now()
        self.asked.append(began)
        published, down = list(self.published), self.down
        await asyncio.sleep(self.slow)
        if down:
            raise KeysUnavailable("down", 3.0)
        self.good.append(began)
        keys = (KEYS[name] for name in published)
        return KeyRing([ECKey.import_key(key.as_dict()) if self.anew else key for key in keys])


class World:
    """Remote keys, their provider, and the flights between them."""

    def __init__(self, flights: SingleFlight[str, None], jitter: float) -> None:
        self.provider = Provider()
        self.flights = flights
        self.keys = RemoteKeys(
            self.provider, flights, monotonic=detangle.now, random=lambda: jitter
        )

    async def find(self, kid: str | None = "old", algorithm: str = "ES256") -> Key | None:
        """Ask for a key, a moment after whatever happened before."""
        await asyncio.sleep(TICK)
        return await self.keys.find(kid, algorithm)

    async def said(self, kid: str | None = "old") -> str:
        """Return in a word what was answered."""
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
        return len(self.provider.asked)


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
    """The first who needs them waits for them; for 300 seconds nobody else does."""
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
    """All fetches are one flight, whatever each of them looks for."""
    async with world(warm=False) as w:
        w.provider.slow = 0.5
        found = await asyncio.gather(*(w.find(kid) for kid in ("old", None) for _ in range(25)))
        assert found == [KEYS["old"]] * 50
        assert w.fetches == 1


@virtual
async def test_r22_fifty_who_meet_an_outage_are_all_told_so() -> None:
    """One call fails, and each hears what it said."""
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
    """Whoever began the fetch may be cancelled in the middle of it."""
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
    """Nobody waits for the fetch that replaces them, not even the one who caused it."""
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
    """What the provider no longer publishes opens nothing, once we have heard of it."""
    async with world() as w:
        w.provider.published = ["new"]
        await w.until(FRESH - 1)
        assert await w.said("old") == "found"
        await w.until(FRESH)
        assert await w.said("old") == "found"
        await asyncio.sleep(0.1)
        assert await w.said("new") == "found"
        assert await w.said("old") == "absent"


@virtual
async def test_r29_an_outage_rejects_nobody_within_the_window_and_trusts_nobody_beyond() -> None:
    """To the moment: 3,900 seconds after the last good fetch began the keys are gone."""
    async with world() as w:
        w.provider.down = True
        for when in (1.0, FRESH, FRESH + 1, 1800.0, FRESH + STALE - 1, FRESH + STALE - 2 * TICK):
            await w.until(when)
            assert await w.said() == "found", when
            assert w.warm()
        for when in (FRESH + STALE, FRESH + STALE + 1, 10 * STALE):
            await w.until(when)
            assert not w.warm()
            assert await w.said() == "unavailable", when
        w.provider.down = False
        assert await w.said() == "found"
        assert w.warm()
        assert not w.keys.failing


@virtual
async def test_r29_a_slow_fetch_makes_nothing_younger() -> None:
    """Keys are as old as their fetch's beginning: what happened during it may be missing."""
    async with world() as w:
        await w.until(FRESH)
        w.provider.slow = 20.0
        await w.find()
        await w.until(FRESH + 30)
        w.provider.down = True
        await w.until(FRESH + FRESH + STALE - 1)
        assert await w.said() == "found"
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
    """At any times: a good key is found inside the window, and never found beyond it."""

    async def play() -> None:
        async with world(jitter=jitter) as w:
            w.provider.slow = slow
            for wait, down in looks:
                w.provider.down = down
                await asyncio.sleep(wait)
                age = detangle.now() + TICK - w.provider.good[-1]
                said = await w.said()
                if age < FRESH + STALE:
                    assert said == "found", age
                elif down:
                    assert said == "unavailable", age

    detangle.run(play)


@pytest.mark.parametrize(
    ("jitter", "begins"),
    [
        (0.0, [0, 1, 3, 7, 15, 31, 61, 91, 121]),
        (0.5, [0, 1.5, 4.5, 10.5, 22.5, 46.5, 91.5, 136.5]),
    ],
)
def test_r29_failures_in_the_background_back_off(jitter: float, begins: list[float]) -> None:
    """Twice as long each time, jittered down to half, and never longer than a minute."""

    async def play() -> None:
        async with world(jitter=jitter) as w:
            w.provider.down = True
            await w.until(FRESH)
            while detangle.now() < FRESH + begins[-1] + 0.5:
                assert answered(w.keys.find("old", "ES256")) is KEYS["old"]
                await asyncio.sleep(0.05)
            made = [at - FRESH for at in w.provider.asked[1:]]
            assert made == pytest.approx(begins, abs=0.11 * len(begins))
            w.provider.down = False
            await asyncio.sleep(61)
            await w.find()
            await asyncio.sleep(0.1)
            assert not w.keys.failing
            assert await w.said() == "found"

    detangle.run(play)


# Keys nobody has seen.


@virtual
async def test_r29_a_rotated_key_is_found_by_the_first_who_brings_it() -> None:
    """One fetch, and nobody with the new key is refused; the old one goes with it."""
    async with world() as w:
        await w.until(20.0)
        w.provider.published, w.provider.slow = ["new"], 0.2
        assert await asyncio.gather(*(w.said("new") for _ in range(20))) == ["found"] * 20
        assert w.fetches == 2
        assert await w.said("old") == "suspect", "nobody has asked for it since"


@virtual
async def test_r29_a_key_that_is_not_there_is_absent_and_remembered() -> None:
    """One fetch tells, for ten seconds; another name or algorithm is another question."""
    async with world() as w:
        await w.until(20.0)
        assert await w.said("made up") == "absent"
        assert w.fetches == 2
        for _ in range(9):
            assert await w.said("made up") == "absent"
            await asyncio.sleep(1)
        assert w.fetches == 2
        await w.until(20.0 + ABSENT + 1)
        assert await w.find("old", "RS256") is None
        assert await w.find("old", "RS256") is None
        assert w.fetches == 3
        await w.until(20.0 + 2 * ABSENT + 2)
        assert await w.said("made up") == "absent"
        assert w.fetches == 4


@virtual
async def test_r29_what_was_absent_and_has_come_is_found() -> None:
    """A remembered absence hides no key that we have."""
    async with world() as w:
        await w.until(280.0)
        assert await w.said("new") == "absent"
        w.provider.published = ["old", "new"]
        await asyncio.sleep(COOLDOWN)
        assert await w.said("third") == "absent"
        assert await w.said("new") == "found"


@virtual
async def test_r23_made_up_names_cost_one_fetch_in_ten_seconds() -> None:
    """A hundred a second for a minute: six fetches, and everybody else is told the truth."""
    async with world() as w:
        await w.until(20.0)
        said = dict.fromkeys(("found", "absent", "suspect", "unavailable"), 0)
        for second in range(600):
            for number in range(10):
                said[await w.said(f"made up {second} {number}")] += 1
                assert await w.said() == "found"
            await asyncio.sleep(0.1)
        assert w.fetches - 1 == 6
        assert said == {"found": 0, "absent": 6, "suspect": 6000 - 6, "unavailable": 0}
        gaps = [b - a for a, b in zip(w.provider.asked[1:], w.provider.asked[2:], strict=False)]
        assert min(gaps) >= COOLDOWN


@virtual
async def test_r23_who_has_to_wait_for_the_cool_down_is_told_how_long() -> None:
    """Asking again then helps, and their token is the likelier cause."""
    async with world() as w:
        await w.until(20.0)
        await w.said("made up")
        await asyncio.sleep(4.0)
        with pytest.raises(KeysUnavailable) as refused:
            await w.find("another")
        assert refused.value.suspect
        assert refused.value.retry_after == pytest.approx(6.0, abs=0.01)
        await asyncio.sleep(refused.value.retry_after)
        assert await w.said("another") == "absent"


@virtual
async def test_r22_a_search_that_fails_says_nothing_about_the_key() -> None:
    """Neither absent nor suspect: the provider was down; the cool-down holds all the same."""
    async with world() as w:
        await w.until(20.0)
        w.provider.down = True
        assert await w.said("new") == "unavailable"
        w.provider.down, w.provider.published = False, ["old", "new"]
        assert await w.said("new") == "suspect"
        assert await w.said("old") == "found"
        await asyncio.sleep(COOLDOWN)
        assert await w.said("new") == "found"


@virtual
async def test_r29_a_fetch_that_left_before_the_question_proves_no_absence() -> None:
    """Its answer may be from before the rotation: whoever asked meanwhile is told to come again."""
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
        assert await w.said("new") == "found"
        assert w.fetches == 3


@virtual
async def test_r29_a_fetch_under_way_may_prove_that_a_key_is_there() -> None:
    """Presence needs no later fetch, only absence does."""
    async with world() as w:
        await w.until(FRESH)
        w.provider.slow, w.provider.published = 1.0, ["old", "new"]
        await w.find()
        await asyncio.sleep(0.5)
        assert await w.said("new") == "found"
        assert w.fetches == 2


@virtual
async def test_r29_cold_and_unseen_is_looked_for_no_more_than_once_more() -> None:
    """The fetch that warms and the one that searches, and then it is absent."""
    async with world(warm=False) as w:
        assert await w.said("made up") == "absent"
        assert w.fetches <= 2
        assert await w.said("made up") == "absent"
        assert w.fetches <= 2


@virtual
async def test_a_token_without_a_key_id_never_searches() -> None:
    """There is no name to look for."""
    async with world() as w:
        assert await w.said(None) == "found"
        assert await w.find(None, "RS256") is None
        w.provider.published = ["old", "new"]
        await w.until(FRESH)
        await w.find()
        await asyncio.sleep(1)
        assert await w.said(None) == "absent"
        assert w.fetches == 2


# Keys without a name.


async def succeeded(w: World, key: str = "old", kid: str | None = None) -> str:
    """Return in a word what was answered to the question for another key than this one."""
    await asyncio.sleep(TICK)
    try:
        found = await w.keys.successor(KEYS[key], kid, "ES256")
    except KeysUnavailable as outage:
        return "suspect" if outage.suspect else "unavailable"
    return "none" if found is None else str(found.kid)


@virtual
async def test_r29_the_key_that_took_anothers_place_is_found() -> None:
    """By one fetch, which all who ask meanwhile share; afterwards it is at hand."""
    async with world() as w:
        await w.until(20.0)
        w.provider.published, w.provider.slow = ["new"], 0.2
        assert await asyncio.gather(*(succeeded(w) for _ in range(20))) == ["new"] * 20
        assert w.fetches == 2
        assert await succeeded(w) == "new"
        assert w.fetches == 2


@virtual
async def test_r23_bad_signatures_cost_one_fetch_in_ten_seconds() -> None:
    """The first is told that nothing was replaced, the others that nobody can tell yet."""
    async with world() as w:
        await w.until(20.0)
        w.provider.anew = True
        assert await succeeded(w) == "none"
        for _ in range(90):
            await asyncio.sleep(0.1)
            assert await succeeded(w) == "suspect"
        assert w.fetches == 2
        await asyncio.sleep(1.0)
        assert await succeeded(w) == "none"
        assert w.fetches == 3
        assert await w.said(None) == "found", "the key that is there goes on"


@virtual
async def test_r23_made_up_names_and_bad_signatures_share_one_cool_down() -> None:
    """Whoever mixes them gets no more fetches out of us."""
    async with world() as w:
        await w.until(20.0)
        assert await w.said("made up") == "absent"
        assert await succeeded(w) == "suspect"
        assert w.fetches == 2


@virtual
async def test_r29_a_fetch_that_left_before_the_question_proves_no_succession() -> None:
    """That the old key was still there then says nothing about now."""
    async with world() as w:
        await w.until(FRESH)
        w.provider.slow = 1.0
        await w.find()
        await asyncio.sleep(0.5)
        w.provider.published = ["new"]
        assert await succeeded(w) == "suspect"
        assert await succeeded(w) == "new"
        assert w.fetches == 3


@virtual
async def test_r29_of_several_keys_without_a_name_none_takes_a_place() -> None:
    """Which one is meant cannot be told any more, and nobody is let in by a guess."""
    async with world() as w:
        await w.until(20.0)
        w.provider.published = ["new", "third"]
        assert await succeeded(w) == "none"
        assert await w.said(None) == "absent"


@virtual
async def test_r22_a_succession_nobody_can_look_up_is_an_outage() -> None:
    """Not suspect: the provider is down."""
    async with world() as w:
        await w.until(20.0)
        w.provider.down = True
        assert await succeeded(w) == "unavailable"


@virtual
async def test_r23_remembered_absences_are_bounded() -> None:
    """Whoever makes up more names than that only makes us forget old ones."""
    async with world() as w:
        for number in range(MAX_ABSENT + 20):
            w.keys._absent[f"made up {number}", "ES256"] = None
        assert len(w.keys._absent) == MAX_ABSENT == 1000


# In the background.


@virtual
async def test_r22_a_probe_finds_out_whether_the_provider_is_there() -> None:
    """It waits for nothing, and asks only where the answer is not known already."""
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
    """Keys of a moment ago say nothing about a provider that failed since."""
    async with world() as w:
        w.provider.down = True
        assert await w.said("new") == "unavailable"
        w.provider.down = False
        w.keys.probe()
        await asyncio.sleep(1)
        assert (w.fetches, w.keys.failing) == (3, False)


@virtual
async def test_r30_a_probe_of_cold_keys_fetches_them() -> None:
    """There is nothing yet that could tell."""
    async with world(warm=False) as w:
        w.keys.probe()
        await asyncio.sleep(1)
        assert w.warm()


@virtual
async def test_r29_tended_keys_are_replaced_though_nobody_comes() -> None:
    """A night without a visitor ends with fresh keys."""
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
    """It reaches whoever asked as what it is, and the keys we have stay."""
    async with world() as w:

        async def broken() -> Any:
            raise ZeroDivisionError

        w.provider.fetch = broken  # type: ignore[method-assign]
        await w.until(20.0)
        with pytest.raises(ZeroDivisionError):
            await w.find("new")
        assert not w.keys.failing
        assert await w.said("old") == "found"


@virtual
async def test_r29_a_probe_asks_no_sooner_than_the_cool_down_allows() -> None:
    """Four seconds after a fetch it waits six; then it finds out."""
    async with world() as w:
        await w.until(4.0)
        w.keys.probe()
        await w.until(9.0)
        assert w.fetches == 1
        w.provider.down = True
        await w.until(11.0)
        assert w.provider.asked[1:] == pytest.approx([10.0])
        assert w.keys.failing
