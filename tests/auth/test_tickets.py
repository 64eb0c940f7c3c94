"""A ticket is good once, for a minute, for one person, from one place."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.stage import NOW, Clock
from towpath.auth.tickets import PREFIX, TICKET_SECONDS, Tickets, is_ticket
from towpath.auth.verdicts import Invalid, Valid
from towpath.errors import TooManyRequests
from towpath.identity import Principal

MIA = Principal(tenant="acme", user="mia", expires_at=NOW + 3600)
HERE, ELSEWHERE = "https://app.example", "https://attacker.example"
USED = Invalid("a ticket that is used up or over", expired=True)
SECRET = "s" * 43


class Office:
    """Tickets, and the clock by which they run out."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.tickets = Tickets(monotonic=self.clock, **options)

    def issue(self, principal: Principal = MIA, origin: str | None = HERE) -> str:
        return self.tickets.issue(principal, origin)

    def redeem(self, ticket: str, origin: str | None = HERE, now: float = NOW) -> Any:
        return self.tickets.redeem(ticket, origin, now)


def test_r16_a_ticket_is_good_once() -> None:
    """The first time it says who, the second time it is used up: 109, and a new one helps."""
    office = Office()
    ticket = office.issue()
    assert office.redeem(ticket) == Valid(MIA)
    assert office.redeem(ticket) == USED
    assert len(office.tickets) == 0


async def test_r16_of_a_thousand_redemptions_at_once_one_succeeds() -> None:
    """However many present it together, one gets in."""
    office = Office()
    ticket = office.issue()

    async def present() -> bool:
        await asyncio.sleep(0)
        return isinstance(office.redeem(ticket), Valid)

    outcomes = await asyncio.gather(*(present() for _ in range(1000)))
    assert outcomes.count(True) == 1


def test_r16_a_ticket_waits_a_minute() -> None:
    """To the moment, by a clock that nobody sets."""
    assert TICKET_SECONDS == 60
    office = Office()
    early, late = office.issue(), office.issue()
    office.clock.now += 59.999
    assert office.redeem(early) == Valid(MIA)
    office.clock.now += 0.001
    assert office.redeem(late) == USED


def test_r16_each_ticket_is_its_own_persons() -> None:
    """In any order of redeeming."""
    office = Office()
    people = [Principal(tenant="acme", user=f"user {number}") for number in range(20)]
    tickets = [office.issue(who) for who in people]
    assert len(set(tickets)) == 20
    for ticket, who in reversed([*zip(tickets, people, strict=True)]):
        assert office.redeem(ticket) == Valid(who)


@pytest.mark.parametrize("origin", [ELSEWHERE, None, "", "https://app.example/", "null"])
def test_r15_a_ticket_of_another_origin_is_no_good_and_used_up(origin: str | None) -> None:
    """Whoever steals it for another page gets nothing, and leaves nothing."""
    office = Office()
    ticket = office.issue()
    assert office.redeem(ticket, origin) == Invalid("a ticket of another origin")
    assert office.redeem(ticket, HERE) == USED


@pytest.mark.parametrize("origin", [HERE, None, ""])
def test_a_ticket_bound_to_no_origin_is_good_anywhere(origin: str | None) -> None:
    """A server asked for it, on behalf of a page it knows nothing of."""
    office = Office()
    assert office.redeem(office.issue(origin=None), origin) == Valid(MIA)


@pytest.mark.parametrize(("late", "good"), [(-0.001, True), (0.0, False), (5.0, False)])
def test_r84_a_ticket_does_not_outlive_the_credential_it_stands_for(
    late: float, good: bool
) -> None:
    """A minute's ticket for a credential of five seconds is good for five seconds."""
    office = Office()
    ticket = office.issue(Principal(tenant="acme", user="mia", expires_at=NOW + 5))
    verdict = office.redeem(ticket, now=NOW + 5 + late)
    assert isinstance(verdict, Valid) is good
    if not good:
        assert verdict == Invalid("a ticket whose credential is over", expired=True)


def test_a_credential_without_an_end_has_tickets_too() -> None:
    """There is nothing to outlive."""
    office = Office()
    assert isinstance(office.redeem(office.issue(Principal(tenant="acme", user="mia"))), Valid)


# Its form.


def test_r16_a_ticket_is_256_bits_that_nobody_can_guess() -> None:
    """43 characters of base64url, and no two alike."""
    office = Office()
    made = {office.issue() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"tkt_[A-Za-z0-9_-]{43}", ticket) for ticket in made)
    assert all(len({ticket[at] for ticket in made}) > 20 for at in range(4, 46))


@pytest.mark.parametrize(
    "ticket",
    [
        "",
        "tkt_",
        "tkt_" + "s" * 42,
        "tkt_" + "s" * 44,
        "tkt_" + "s" * 43 + "\n",
        " tkt_" + "s" * 43,
        "TKT_" + "s" * 43,
        "tkt-" + "s" * 43,
        "tkt_" + "s" * 42 + "=",
        "tkt_" + "s" * 42 + "é",
        "s" * 43,
        "tkt_" + "s" * 100_000,
    ],
)
def test_what_has_not_the_form_of_a_ticket_is_malformed(ticket: str) -> None:
    """It never was one: 3500, not 109, and it uses up nothing."""
    office = Office(new_secret=lambda: SECRET)
    real = office.issue()
    verdict = office.redeem(ticket)
    assert verdict == Invalid("not a ticket")
    assert not verdict.expired
    assert office.redeem(real) == Valid(MIA)


@given(st.text("tkt_abcAB-", max_size=47).map(lambda text: PREFIX + text))
def test_r16_no_made_up_ticket_is_good(ticket: str) -> None:
    """Guessing gets an answer, never a principal, and never an exception."""
    office = Office()
    office.issue()
    assert isinstance(office.redeem(ticket), Invalid)
    assert len(office.tickets) == 1


@pytest.mark.parametrize(
    ("credential", "means"),
    [("tkt_", True), ("tkt_x", True), ("tkt", False), ("TKT_x", False), (" tkt_", False)],
)
def test_what_begins_like_a_ticket_means_to_be_one(credential: str, means: bool) -> None:
    """A JWT never does, so the two are never mixed up."""
    assert is_ticket(credential) is means
    assert not is_ticket("eyJhbGciOiJIUzI1NiJ9.e30.x")


def test_r17_tickets_are_kept_as_digests() -> None:
    """Nothing the server holds can be presented as a ticket."""
    office = Office(new_secret=lambda: SECRET)
    office.issue()
    assert SECRET not in repr(vars(office.tickets))


# How many.


def test_tickets_that_wait_are_bounded_and_never_pushed_out() -> None:
    """Past the bound nobody gets one; those who have theirs keep them; used and old make room."""
    office = Office(max_tickets=3)
    kept = [office.issue() for _ in range(3)]
    with pytest.raises(TooManyRequests, match="tickets"):
        office.issue()
    assert office.redeem(kept[0]) == Valid(MIA)
    kept.append(office.issue())
    with pytest.raises(TooManyRequests):
        office.issue()
    assert office.redeem(kept[1]) == Valid(MIA)
    assert office.redeem(kept[3]) == Valid(MIA)
    office.clock.now += TICKET_SECONDS
    assert [office.redeem(office.issue()) for _ in range(4)] == [Valid(MIA)] * 4
    assert [isinstance(office.issue(), str) for _ in range(3)] == [True] * 3
