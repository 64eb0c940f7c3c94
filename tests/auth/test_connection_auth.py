"""What a verdict means on the wire, who is limited, and what outlives its credential."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import detangle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.auth.stage import NOW, Clock, virtual
from towpath import codes
from towpath.auth.breaker import CircuitBreaker, State
from towpath.auth.cache import VerdictCache
from towpath.auth.connection_auth import (
    MAX_HELD,
    Authenticated,
    ConnectionAuth,
    Grace,
    Refused,
)
from towpath.auth.handshake import UpgradeInfo
from towpath.auth.revocations import Revocation, Revocations
from towpath.auth.service import AuthService, Retry, TrustedIssuer
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import Tickets
from towpath.auth.verdicts import Invalid, Unknown, Valid, Verdict
from towpath.codes import CloseCode, ErrorCode
from towpath.identity import Principal
from towpath.rate_limits import Rate
from towpath.telemetry import CredentialAccepted, CredentialRefused, Telemetry, TelemetryEvent

MIA = Principal(
    tenant="acme", user="mia", expires_at=NOW + 3600, issued_at=NOW - 60, issuer="issuer"
)
HERE = UpgradeInfo(address="192.0.2.1", origin="https://app.example")
THERE = UpgradeInfo(address="198.51.100.7", origin="https://app.example")


def person(**fields: Any) -> Principal:
    return Principal(
        **{
            "tenant": "acme",
            "user": "mia",
            "expires_at": NOW + 3600,
            "issued_at": NOW,
            "issuer": "issuer",
            **fields,
        }
    )


class Table:
    """A verifier that looks verdicts up, and counts."""

    def __init__(self, verdicts: dict[str, Verdict]) -> None:
        self.verdicts = verdicts
        self.asked: list[str] = []

    def takes(self, credential: str) -> bool:
        return True

    async def verify(self, credential: str, now: float) -> Verdict:
        self.asked.append(credential)
        if credential == "slow":
            await asyncio.Event().wait()
        return self.verdicts.get(credential, Invalid("unheard of"))


class Door:
    """Authentication of connections over a table of verdicts, and what was told of it."""

    def __init__(self, verdicts: dict[str, Verdict], issuers: int, **options: Any) -> None:
        self.clock, self.wall = Clock(), Clock(NOW)
        self.verifier = Table({"good": Valid(MIA), "down": Unknown("down"), **verdicts})
        self.told: list[TelemetryEvent] = []
        self.breakers = [CircuitBreaker(f"issuer {n}", clock=self.clock) for n in range(issuers)]
        names = ["issuer", *(f"issuer {n}" for n in range(1, issuers))]
        self.service = AuthService(
            [
                TrustedIssuer(issuer=name, verifier=self.verifier, breaker=breaker)
                for name, breaker in zip(names, self.breakers, strict=True)
            ],
            cache=VerdictCache(monotonic=self.clock, now=self.wall, invalid_seconds=0.0),
            tickets=Tickets(monotonic=self.clock),
            revocations=Revocations(86_400),
            verdicts=SingleFlight(lambda _: None),
            fetches=SingleFlight(lambda _: None),
            monotonic=self.clock,
            now=self.wall,
            random=lambda: 0.0,
            retry=Retry(attempts=1),
        )
        self.auth = ConnectionAuth(
            self.service,
            telemetry=Telemetry([self.told.append]),
            monotonic=self.clock,
            now=self.wall,
            **options,
        )

    async def connect(
        self, token: str = "", handshake: UpgradeInfo = HERE
    ) -> Authenticated | Refused:
        return await self.auth.authenticate_websocket_connection(token, handshake, connection="c1")

    async def code(
        self, token: str = "", handshake: UpgradeInfo = HERE
    ) -> ErrorCode | CloseCode | None:
        """Return what a newcomer is answered; None for one who is let in."""
        made = await self.connect(token, handshake)
        return made.code if isinstance(made, Refused) else None

    async def refresh(self, token: str, principal: Principal = MIA) -> Authenticated | Refused:
        return await self.auth.refresh(principal, token, HERE, connection="c1")

    async def use_up(self, handshake: UpgradeInfo = HERE, times: int = 200) -> None:
        """Fail so often from one address, each time with another credential."""
        for number in range(times):
            await self.connect(f"bad {number} of {handshake.address}", handshake)

    def refusals(self) -> list[tuple[str, str]]:
        return [
            (one.connection, one.verdict) for one in self.told if isinstance(one, CredentialRefused)
        ]


@asynccontextmanager
async def door(
    verdicts: dict[str, Verdict] | None = None, *, issuers: int = 1, **options: Any
) -> AsyncIterator[Door]:
    made = Door(verdicts or {}, issuers, **options)
    async with made.service:
        yield made


# Verdicts and codes.


@pytest.mark.parametrize(
    ("verdict", "code", "name"),
    [
        (Invalid("bad"), codes.INVALID_TOKEN, "invalid"),
        (Invalid("soon", passing=True), codes.INVALID_TOKEN, "invalid"),
        (Invalid("over", expired=True), codes.TOKEN_EXPIRED, "expired"),
        (Invalid("taken back", revoked=True), codes.NOT_ALLOWED, "revoked"),
        (Unknown("down"), codes.TEMPORARY, "unknown"),
        (Unknown("down", 30.0), codes.TEMPORARY, "unknown"),
        (Unknown("odd key", 5.0, suspect=True), codes.TEMPORARY, "unknown"),
    ],
)
async def test_r22_each_verdict_has_its_code(
    verdict: Verdict, code: ErrorCode | CloseCode, name: str
) -> None:
    """An outage is never called a bad credential, and a bad one never an outage."""
    async with door({"t": verdict}) as d:
        assert await d.connect("t") == Refused(code, name)
        assert d.refusals() == [("c1", name)]


async def test_a_good_credential_lets_in_and_is_told_of() -> None:
    """Who, whether an SDK can renew it, where it was found and how old the verdict is."""
    async with door() as d:
        assert await d.connect("good") == Authenticated(MIA, renewable=True)
        d.clock.now += 42
        header = UpgradeInfo(address="192.0.2.1", authorization="Bearer good")
        assert await d.connect("", header) == Authenticated(MIA, renewable=False)
        assert d.told == [
            CredentialAccepted(connection="c1", source="connect.token", age=0.0),
            CredentialAccepted(connection="c1", source="Authorization", age=42.0),
        ]


async def test_r63_no_credential_is_told_how_to_bring_one() -> None:
    """3500 with the sentence that names the ways; nothing is verified."""
    async with door() as d:
        for handshake in (HERE, UpgradeInfo(authorization="Basic dTpw"), UpgradeInfo()):
            assert await d.connect("", handshake) == Refused(codes.NO_CREDENTIAL, "missing")
        assert d.verifier.asked == []
        assert "connect.token" in codes.NO_CREDENTIAL.reason
        assert codes.NO_CREDENTIAL.number == codes.INVALID_TOKEN.number == 3500


@pytest.mark.parametrize("token", ["Bearer x", "bearer x", "JWT x", "Token\tx"])
async def test_r19_a_misspelt_credential_is_told_how_it_is_spelt(token: str) -> None:
    """A scheme in `connect.token` is a near miss: the reason says what belongs there."""
    async with door() as d:
        assert await d.connect(token) == Refused(codes.NO_CREDENTIAL, "invalid")


@pytest.mark.parametrize(
    ("connect", "handshake"),
    [
        ("good", UpgradeInfo(ticket="bad", offered="bad", authorization="Bearer bad")),
        ("", UpgradeInfo(offered="good", authorization="Bearer bad")),
        ("", UpgradeInfo(authorization="Bearer good")),
    ],
)
async def test_r19_the_first_source_counts_and_no_other(
    connect: str, handshake: UpgradeInfo
) -> None:
    """A good one is found in its place; a later one rescues no bad one."""
    async with door() as d:
        assert isinstance(await d.connect(connect, handshake), Authenticated)
        assert d.verifier.asked == ["good"]
        swapped = UpgradeInfo(
            ticket=handshake.ticket,
            offered=handshake.offered and "bad",
            authorization="Bearer good",
        )
        if connect or handshake.offered:
            assert await d.code(connect and "bad", swapped) is codes.INVALID_TOKEN


@pytest.mark.parametrize(
    "handshake",
    [
        UpgradeInfo(ticket="good"),
        UpgradeInfo(ticket="Bearer good"),
        UpgradeInfo(ticket=" good"),
    ],
)
async def test_r16_a_jwt_in_the_query_authenticates_nobody(handshake: UpgradeInfo) -> None:
    """However good it is: it is refused unread, and a header beside it does not rescue it."""
    async with door() as d:
        assert isinstance(await d.connect("", handshake), Refused)
        beside = UpgradeInfo(ticket=handshake.ticket, authorization="Bearer good")
        assert isinstance(await d.connect("", beside), Refused)
        assert d.verifier.asked == []


async def test_r16_a_ticket_comes_by_query_connect_and_refresh() -> None:
    """Each of the three ways, each ticket once."""
    async with door() as d:
        tickets = [d.service.tickets.issue(MIA, HERE.origin) for _ in range(3)]
        query = UpgradeInfo(address="192.0.2.1", origin=HERE.origin, ticket=tickets[0])
        assert await d.connect("", query) == Authenticated(MIA, renewable=False)
        assert await d.code("", query) is codes.TOKEN_EXPIRED
        assert await d.connect(tickets[1]) == Authenticated(MIA, renewable=True)
        assert await d.code(tickets[1]) is codes.TOKEN_EXPIRED
        assert await d.refresh(tickets[2]) == Authenticated(MIA, renewable=True)
        assert await d.refresh(tickets[2]) == Refused(codes.TOKEN_EXPIRED, "expired")


async def test_r16_a_ticket_in_a_header_is_refused_and_not_used_up() -> None:
    """A ticket buys a connection, not requests, and never another ticket."""
    async with door() as d:
        ticket = d.service.tickets.issue(MIA, HERE.origin)
        header = UpgradeInfo(origin=HERE.origin, authorization=f"Bearer {ticket}")
        assert isinstance(await d.auth.authenticate_request(header), Refused)
        for handshake in (header, UpgradeInfo(origin=HERE.origin, offered=ticket)):
            assert await d.code("", handshake) is codes.INVALID_TOKEN
        assert await d.connect(ticket) == Authenticated(MIA, renewable=True)


@pytest.mark.parametrize("ticket", ["tkt_", "tkt_short", "tkt_" + "!" * 43])
async def test_a_malformed_ticket_is_invalid(ticket: str) -> None:
    """3500, where a used one is 109."""
    async with door() as d:
        assert await d.code(ticket) is codes.INVALID_TOKEN


async def test_r15_the_http_doors_ask_the_same_questions() -> None:
    """By the Authorization header alone, with the same codes and the same limits."""
    async with door({"old": Invalid("over", expired=True)}) as d:

        async def request(token: str) -> Authenticated | Refused:
            return await d.auth.authenticate_request(
                UpgradeInfo(address="192.0.2.1", authorization=token, ticket="good", offered="good")
            )

        assert await request("Bearer good") == Authenticated(MIA, renewable=False)
        assert await request("Bearer bad") == Refused(codes.INVALID_TOKEN, "invalid")
        assert await request("Bearer old") == Refused(codes.TOKEN_EXPIRED, "expired")
        assert await request("Bearer down") == Refused(codes.TEMPORARY, "unknown")
        for header in ("", "Bearer", "Basic good", "good"):
            assert await request(header) == Refused(codes.NO_CREDENTIAL, "missing")
        assert {connection for connection, _ in d.refusals()} == {""}


async def test_r17_nothing_that_is_told_holds_a_piece_of_a_credential() -> None:
    """Whatever was presented, and whatever came of it."""
    async with door({"down SECRET": Unknown("down"), "ok SECRET": Valid(MIA)}) as d:
        for token in ("ok SECRET", "down SECRET", "bad SECRET", "Bearer SECRET", "tkt_SECRET"):
            made = await d.connect(token)
            refreshed = await d.refresh(token)
            assert "SECRET" not in f"{made!r} {refreshed!r}"
        await d.connect("", UpgradeInfo(ticket="SECRET", authorization="Bearer SECRET"))
        await d.connect("", UpgradeInfo(offered="SECRET"))
        assert len(d.told) == 12
        assert "SECRET" not in repr(d.told)


# The end of a credential.


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (NOW + 1, None),
        (NOW - 24.9, None),
        (NOW - 25.0, codes.TOKEN_EXPIRED),
        (NOW - 29.0, codes.TOKEN_EXPIRED),
        (None, None),
    ],
)
async def test_r84_nobody_is_let_in_who_would_be_thrown_out_at_once(
    ends: float | None, code: ErrorCode | None
) -> None:
    """Clocks may differ by more than the grace: then 109 comes first, at connect and refresh."""
    async with door({"t": Valid(person(expires_at=ends))}) as d:
        assert await d.code("t") is code
        refreshed = await d.refresh("t")
        assert (refreshed.code if isinstance(refreshed, Refused) else None) is code


async def test_r84_the_grace_is_25_seconds_unless_it_is_set() -> None:
    """A connection without an end has none."""
    assert Grace() == Grace(expiry=25.0, outage=900.0)
    async with door(grace=Grace(expiry=7.0)) as d:
        assert d.auth.expires_at(person(expires_at=NOW)) == NOW + 7
        assert d.auth.expires_at(person(expires_at=None)) is None
    async with door() as d:
        assert d.auth.expires_at(person(expires_at=NOW)) == NOW + 25


# Limits.


async def test_r23_a_source_that_fails_too_often_is_limited() -> None:
    """Two hundred at once; then nothing unknown is looked at, good or bad, and others go on."""
    async with door({"other": Valid(person(user="leo"))}) as d:
        await d.use_up(times=199)
        assert await d.code("one more") is codes.INVALID_TOKEN
        asked = len(d.verifier.asked)
        assert await d.connect("other") == Refused(codes.TOO_MANY_REQUESTS, "limited")
        assert await d.code("bad") is codes.TOO_MANY_REQUESTS
        assert len(d.verifier.asked) == asked
        assert await d.code("other", THERE) is None
        assert await d.code("bad", THERE) is codes.INVALID_TOKEN


@virtual
async def test_r23_an_answer_past_the_limit_is_held_back() -> None:
    """A second for whoever failed too often; who is known, or fails elsewhere, waits not."""
    async with door(limited_delay=1.0) as d:
        await d.connect("good", THERE)
        await d.use_up()
        began = detangle.now()
        assert await d.code("good") is None
        assert await d.code("bad", THERE) is codes.INVALID_TOKEN
        assert detangle.now() == began
        assert await d.code("bad") is codes.TOO_MANY_REQUESTS
        assert detangle.now() == began + 1.0


@virtual
async def test_r97_so_many_answers_are_held_back_and_no_more() -> None:
    """The next one is given at once; and whoever leaves makes room."""
    async with door(limited_delay=1.0) as d:
        await d.use_up()
        began = detangle.now()
        held = [asyncio.create_task(d.code(f"bad-{number}")) for number in range(MAX_HELD)]
        await asyncio.sleep(0)
        assert await d.code("bad") is codes.TOO_MANY_REQUESTS
        assert detangle.now() == began
        held.pop().cancel()
        await asyncio.sleep(0)
        assert await d.code("bad") is codes.TOO_MANY_REQUESTS
        assert detangle.now() == began + 1.0
        assert set(await asyncio.gather(*held)) == {codes.TOO_MANY_REQUESTS}


async def test_r23_who_is_known_passes_a_limited_source() -> None:
    """People behind the same address, with credentials that were good a moment ago, go on."""
    async with door() as d:
        await d.connect("good", THERE)
        await d.use_up()
        assert await d.code("good") is None
        d.clock.now += 299
        d.wall.now += 299
        await d.use_up(times=4000)
        assert await d.code("good") is None
        d.clock.now += 1
        d.wall.now += 1
        await d.use_up(times=4000)
        assert await d.code("good") is codes.TOO_MANY_REQUESTS, "it is remembered no longer"


async def test_r23_a_limited_source_gets_its_looks_back() -> None:
    """Ten a second; and being refused for the limit costs nothing more."""
    async with door() as d:
        await d.use_up()
        for _ in range(1000):
            assert await d.code("x") is codes.TOO_MANY_REQUESTS
        d.clock.now += 0.09
        assert await d.code("x") is codes.TOO_MANY_REQUESTS
        d.clock.now += 0.011
        assert await d.code("x") is codes.INVALID_TOKEN
        assert await d.code("y") is codes.TOO_MANY_REQUESTS


@pytest.mark.parametrize(
    ("token", "charged"),
    [("good", False), ("down", False), ("suspect", True), ("bad", True), ("old", True), ("", True)],
)
async def test_r23_only_what_the_source_can_help_is_held_against_it(
    token: str, charged: bool
) -> None:
    """An outage is nobody's fault; a made-up key, a bad credential and none at all are."""
    verdicts: dict[str, Verdict] = {
        "suspect": Unknown("a key nobody has seen", suspect=True),
        "old": Invalid("over", expired=True),
    }
    rate = Rate(per_second=0.001, burst=5)
    async with door(verdicts, source_failures=rate) as d:
        for _ in range(5):
            await d.connect(token)
        assert (await d.code("fresh") is codes.TOO_MANY_REQUESTS) is charged


async def test_r23_one_credential_that_fails_too_often_is_limited_everywhere() -> None:
    """Twenty times at once, then half a second's worth; others from the same source go on."""
    async with door() as d:
        for number in range(20):
            assert (
                await d.code("bad", UpgradeInfo(address=f"192.0.2.{number}")) is codes.INVALID_TOKEN
            )
        for handshake in (HERE, THERE):
            assert await d.connect("bad", handshake) == Refused(codes.TOO_MANY_REQUESTS, "limited")
            assert await d.code("bad ", handshake) is codes.INVALID_TOKEN
        d.clock.now += 1.9
        assert await d.code("bad") is codes.TOO_MANY_REQUESTS
        d.clock.now += 0.2
        assert await d.code("bad") is codes.INVALID_TOKEN


async def test_r23_a_ticket_is_not_used_up_by_a_limit() -> None:
    """Whoever is told to come later can come later with it."""
    async with door() as d:
        ticket = d.service.tickets.issue(MIA, HERE.origin)
        await d.use_up()
        assert await d.code(ticket) is codes.TOO_MANY_REQUESTS
        d.clock.now += 1
        assert await d.code(ticket) is None


async def test_r23_a_flood_of_bad_tokens_leaves_the_breaker_alone() -> None:
    """It never moves: only calls to the key server count."""
    async with door() as d:
        await d.use_up(times=1000)
        assert d.breakers[0].state is State.CLOSED
        assert d.breakers[0].failure_count == 0


async def test_r23_a_refresh_is_looked_at_whatever_others_did() -> None:
    """Who is inside is not thrown out for their address's failures; theirs count all the same."""
    async with door({"new": Valid(person(issued_at=NOW + 1))}) as d:
        await d.use_up()
        assert isinstance(await d.refresh("new"), Authenticated)
    async with door(source_failures=Rate(per_second=0.001, burst=3)) as d:
        for number in range(3):
            await d.refresh(f"bad {number}")
        assert await d.code("fresh") is codes.TOO_MANY_REQUESTS


# Refresh.


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (Invalid("bad"), Refused(codes.INVALID_TOKEN, "invalid")),
        (Invalid("over", expired=True), Refused(codes.TOKEN_EXPIRED, "expired")),
        (Invalid("taken back", revoked=True), Refused(codes.NOT_ALLOWED, "revoked")),
        (Unknown("down"), Refused(codes.TEMPORARY, "unknown")),
        (Valid(person(user="leo")), Refused(codes.INVALID_TOKEN, "invalid")),
        (Valid(person(tenant="other")), Refused(codes.INVALID_TOKEN, "invalid")),
        (Valid(person(user="Mia")), Refused(codes.INVALID_TOKEN, "invalid")),
        (Valid(person(user="acme", tenant="mia")), Refused(codes.INVALID_TOKEN, "invalid")),
    ],
)
async def test_r85_a_refresh_is_fully_verified(verdict: Verdict, answer: Refused) -> None:
    """The same verdicts as at connect; tenant and subject may not change."""
    async with door({"t": verdict}) as d:
        assert await d.refresh("t") == answer
        assert d.refusals() == [("c1", answer.verdict)]
        assert d.verifier.asked == ["t"]


async def test_r86_rights_after_a_refresh_are_those_of_the_new_credential() -> None:
    """Roles, end, id and even the issuer come from it, and nothing of the old one stays."""
    new = person(roles=frozenset({"ops"}), expires_at=NOW + 7200, token_id="j2", issuer="another")
    old = person(roles=frozenset({"towpath:operator"}), token_id="j1")
    async with door({"t": Valid(new)}) as d:
        made = await d.refresh("t", old)
        assert made == Authenticated(new, renewable=True)


async def test_r84_a_refresh_with_what_was_taken_back_is_refused() -> None:
    """It was remembered as good until a moment ago."""
    async with door() as d:
        await d.connect("good")
        d.service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        assert await d.refresh("good") == Refused(codes.NOT_ALLOWED, "revoked")
        assert await d.code("good") is codes.NOT_ALLOWED


# Outages.


def in_outage(d: Door, number: int = 0) -> None:
    for _ in range(3):
        d.breakers[number].record_failure()


async def test_r22_an_outage_holds_who_is_connected() -> None:
    """Fifteen minutes past the end of the credential, by the wall clock, and then no longer."""
    async with door() as d:
        ends = person(expires_at=NOW)
        assert d.auth.held_until(ends) is None
        in_outage(d)
        assert d.auth.held_until(ends) == NOW + 900
        d.wall.now = NOW + 899.9
        assert d.auth.held_until(ends) == NOW + 900
        d.wall.now = NOW + 900
        assert d.auth.held_until(ends) is None
        assert d.auth.held_until(person(expires_at=None)) is None


async def test_r22_the_outage_grace_can_be_switched_off() -> None:
    """Nought is never."""
    async with door(grace=Grace(outage=0.0)) as d:
        in_outage(d)
        assert d.auth.held_until(person(expires_at=NOW)) is None
    async with door(grace=Grace(outage=60.0)) as d:
        in_outage(d)
        assert d.auth.held_until(person(expires_at=NOW)) == NOW + 60


async def test_r23_one_issuers_outage_holds_nobody_elses_people() -> None:
    """Whoever could have renewed and did not is not held."""
    async with door(issuers=2) as d:
        in_outage(d, 1)
        assert d.auth.held_until(person(expires_at=NOW)) is None
        assert d.auth.held_until(person(expires_at=NOW, issuer="issuer 1")) == NOW + 900


async def test_r26_an_outage_lets_nobody_in() -> None:
    """Held is who is inside; a newcomer with the same credential is refused."""
    old = person(expires_at=NOW - 60)
    async with door({"t": Valid(old)}) as d:
        in_outage(d)
        assert d.auth.held_until(old) is not None
        assert await d.code("t") is codes.TOKEN_EXPIRED
        assert await d.code("down") is codes.TEMPORARY
        assert isinstance(await d.refresh("down", old), Refused)


async def test_r22_a_lapsed_credential_has_its_issuer_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether anybody could have renewed it is found out then, and of the issuer it came from."""
    async with door() as d:
        probed: list[Principal] = []
        monkeypatch.setattr(d.service, "probe", probed.append)
        d.auth.lapsed(MIA)
        assert probed == [MIA]


# The documented state.

FIELDS = {
    "failure_count",
    "failure_threshold",
    "reset_timeout",
    "last_failure_time",
    "state",
    "concurrent_token_cache",
    "token_cache_lock",
    "cloud_run_backoff",
    "handshake_stabilization_delay",
}


async def test_the_state_has_its_nine_fields_and_each_is_true() -> None:
    """Exactly these; they are the breaker's, the cache's and the retry layer's own values."""
    async with door() as d:
        assert d.auth.auth_state() == {
            "failure_count": 0,
            "failure_threshold": 3,
            "reset_timeout": 15.0,
            "last_failure_time": None,
            "state": "closed",
            "concurrent_token_cache": 0,
            "token_cache_lock": False,
            "cloud_run_backoff": 0.1,
            "handshake_stabilization_delay": 0.2,
        }
        await d.connect("good")
        in_outage(d)
        state = d.auth.auth_state()
        assert state.keys() == FIELDS
        assert (state["failure_count"], state["state"], state["last_failure_time"]) == (
            3,
            "open",
            1000.0,
        )
        assert state["concurrent_token_cache"] == 1


async def test_the_state_says_whether_anything_is_being_verified() -> None:
    """While somebody waits for a verdict, and not a moment longer."""
    async with door() as d:
        waiting = asyncio.create_task(d.connect("slow"))
        while not d.verifier.asked:  # noqa: ASYNC110 - it needs turns only
            await asyncio.sleep(0)
        assert d.auth.auth_state()["token_cache_lock"] is True
        waiting.cancel()
        await asyncio.wait([waiting])
        assert d.auth.auth_state()["token_cache_lock"] is False


async def test_the_state_shows_the_issuer_in_trouble_or_the_one_named() -> None:
    """An operator looks for what is not as it should be."""
    async with door(issuers=3) as d:
        in_outage(d, 1)
        assert d.auth.auth_state()["state"] == "open"
        assert d.auth.auth_state("issuer 2")["state"] == "closed"
        assert d.auth.auth_state("issuer 1")["failure_count"] == 3


async def test_r17_the_state_holds_no_secret() -> None:
    """Plain values, as JSON, without a piece of anything presented."""
    async with door({"SECRET": Valid(MIA)}) as d:
        await d.connect("SECRET")
        await d.connect("bad SECRET")
        assert "SECRET" not in json.dumps(d.auth.auth_state())


async def test_the_breaker_can_be_looked_at_without_moving_it() -> None:
    """Closed yes, open no, due for a probe yes, probing no; and looking is no probe."""
    async with door() as d:
        breaker = d.breakers[0]
        assert d.auth._check_circuit_breaker()
        in_outage(d)
        assert not d.auth._check_circuit_breaker()
        d.clock.now += 14.9
        assert not d.auth._check_circuit_breaker()
        d.clock.now += 0.1
        assert d.auth._check_circuit_breaker()
        assert d.auth.auth_state()["state"] == "open"
        breaker.admit()
        assert not d.auth._check_circuit_breaker("issuer")


async def test_a_failure_seen_elsewhere_counts_for_its_issuer() -> None:
    """Three open the one that is named, or the first."""
    async with door(issuers=2) as d:
        for _ in range(3):
            assert d.auth._check_circuit_breaker("issuer 1")
            d.auth._record_circuit_breaker_failure("issuer 1")
        assert not d.auth._check_circuit_breaker("issuer 1")
        assert d.auth._check_circuit_breaker("issuer")
        d.auth._record_circuit_breaker_failure("issuer")
        assert [breaker.failure_count for breaker in d.breakers] == [1, 3]


@given(st.lists(st.sampled_from(["good", "bad", "down", "old", ""]), max_size=30))
def test_r22_r23_no_order_of_credentials_changes_what_each_is_worth(tokens: list[str]) -> None:
    """Below the limits each credential gets its own answer, whoever came before it."""
    expected = {
        "good": None,
        "bad": codes.INVALID_TOKEN,
        "down": codes.TEMPORARY,
        "old": codes.TOKEN_EXPIRED,
        "": codes.NO_CREDENTIAL,
    }

    async def play() -> None:
        async with door(
            {"old": Invalid("over", expired=True)},
            credential_failures=Rate(per_second=1, burst=100),
        ) as d:
            for token in tokens:
                assert await d.code(token) is expected[token]

    asyncio.run(play())
