"""A ticket is valid once, for a minute, for one user and one origin."""

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


class TicketHarness:
    """Tickets, and the clock by which they expire."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.tickets = Tickets(monotonic=self.clock, **options)

    def issue(self, principal: Principal = MIA, origin: str | None = HERE) -> str:
        return self.tickets.issue(principal, origin)

    def redeem(self, ticket: str, origin: str | None = HERE, now: float = NOW) -> Any:
        return self.tickets.redeem(ticket, origin, now)


def test_r16_a_ticket_is_good_once() -> None:
    """The first redemption gives the principal, the second 109, and a new ticket is valid."""
    harness = TicketHarness()
    ticket = harness.issue()
    assert harness.redeem(ticket) == Valid(MIA)
    assert harness.redeem(ticket) == USED
    assert len(harness.tickets) == 0


async def test_r16_of_a_thousand_redemptions_at_once_one_succeeds() -> None:
    """Of concurrent redemptions one succeeds."""
    harness = TicketHarness()
    ticket = harness.issue()

    async def present() -> bool:
        await asyncio.sleep(0)
        return isinstance(harness.redeem(ticket), Valid)

    outcomes = await asyncio.gather(*(present() for _ in range(1000)))
    assert outcomes.count(True) == 1


def test_r16_a_ticket_waits_a_minute() -> None:
    """To the moment, by the monotonic clock."""
    assert TICKET_SECONDS == 60
    harness = TicketHarness()
    early, late = harness.issue(), harness.issue()
    harness.clock.now += 59.999
    assert harness.redeem(early) == Valid(MIA)
    harness.clock.now += 0.001
    assert harness.redeem(late) == USED


def test_r16_each_ticket_is_its_own_persons() -> None:
    """In any order of redemption."""
    harness = TicketHarness()
    people = [Principal(tenant="acme", user=f"user {number}") for number in range(20)]
    tickets = [harness.issue(who) for who in people]
    assert len(set(tickets)) == 20
    for ticket, who in reversed([*zip(tickets, people, strict=True)]):
        assert harness.redeem(ticket) == Valid(who)


@pytest.mark.parametrize("origin", [ELSEWHERE, None, "", "https://app.example/", "null"])
def test_r15_a_ticket_of_another_origin_is_no_good_and_used_up(origin: str | None) -> None:
    """A ticket presented from another origin is invalid, and used up by that."""
    harness = TicketHarness()
    ticket = harness.issue()
    assert harness.redeem(ticket, origin) == Invalid("a ticket of another origin")
    assert harness.redeem(ticket, HERE) == USED


@pytest.mark.parametrize("origin", [HERE, None, ""])
def test_a_ticket_bound_to_no_origin_is_good_anywhere(origin: str | None) -> None:
    """A server requested it for a page whose origin it does not know."""
    harness = TicketHarness()
    assert harness.redeem(harness.issue(origin=None), origin) == Valid(MIA)


@pytest.mark.parametrize(("late", "good"), [(-0.001, True), (0.0, False), (5.0, False)])
def test_r84_a_ticket_does_not_outlive_the_credential_it_stands_for(
    late: float, good: bool
) -> None:
    """A ticket for a credential that expires in five seconds expires with it."""
    harness = TicketHarness()
    ticket = harness.issue(Principal(tenant="acme", user="mia", expires_at=NOW + 5))
    verdict = harness.redeem(ticket, now=NOW + 5 + late)
    assert isinstance(verdict, Valid) is good
    if not good:
        assert verdict == Invalid("a ticket whose credential is over", expired=True)


def test_a_credential_without_an_end_has_tickets_too() -> None:
    """There is no expiry to exceed."""
    harness = TicketHarness()
    assert isinstance(harness.redeem(harness.issue(Principal(tenant="acme", user="mia"))), Valid)


# Its form.


def test_r16_a_ticket_is_256_bits_that_nobody_can_guess() -> None:
    """43 characters of base64url, and no two alike."""
    harness = TicketHarness()
    made = {harness.issue() for _ in range(200)}
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
    """Malformed text is 3500, not 109, and uses up nothing."""
    harness = TicketHarness(new_secret=lambda: SECRET)
    real = harness.issue()
    verdict = harness.redeem(ticket)
    assert verdict == Invalid("not a ticket")
    assert not verdict.expired
    assert harness.redeem(real) == Valid(MIA)


@given(st.text("tkt_abcAB-", max_size=47).map(lambda text: PREFIX + text))
def test_r16_no_made_up_ticket_is_good(ticket: str) -> None:
    """A guess gets a verdict, never a principal, and never an exception."""
    harness = TicketHarness()
    harness.issue()
    assert isinstance(harness.redeem(ticket), Invalid)
    assert len(harness.tickets) == 1


@pytest.mark.parametrize(
    ("credential", "means"),
    [("tkt_", True), ("tkt_x", True), ("tkt", False), ("TKT_x", False), (" tkt_", False)],
)
def test_what_begins_like_a_ticket_means_to_be_one(credential: str, means: bool) -> None:
    """A JWT never has the prefix, so the two are never confused."""
    assert is_ticket(credential) is means
    assert not is_ticket("eyJhbGciOiJIUzI1NiJ9.e30.x")


def test_r17_tickets_are_kept_as_digests() -> None:
    """Nothing that the server stores can be presented as a ticket."""
    harness = TicketHarness(new_secret=lambda: SECRET)
    harness.issue()
    assert SECRET not in repr(vars(harness.tickets))


# How many.


def test_tickets_that_wait_are_bounded_and_never_pushed_out() -> None:
    """Past the bound no ticket is issued and none evicted; used and expired ones free places."""
    harness = TicketHarness(max_tickets=3)
    kept = [harness.issue() for _ in range(3)]
    with pytest.raises(TooManyRequests, match="tickets"):
        harness.issue()
    assert harness.redeem(kept[0]) == Valid(MIA)
    kept.append(harness.issue())
    with pytest.raises(TooManyRequests):
        harness.issue()
    assert harness.redeem(kept[1]) == Valid(MIA)
    assert harness.redeem(kept[3]) == Valid(MIA)
    harness.clock.now += TICKET_SECONDS
    assert [harness.redeem(harness.issue()) for _ in range(4)] == [Valid(MIA)] * 4
    assert [isinstance(harness.issue(), str) for _ in range(3)] == [True] * 3
