"""Close codes and error codes of verdicts, failure limits, and the grace after expiry."""

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


class TableVerifier:
    """A verifier that reads verdicts from a table and records each credential."""

    def __init__(self, verdicts: dict[str, Verdict]) -> None:
        self.verdicts = verdicts
        self.verified_credentials: list[str] = []

    def takes(self, credential: str) -> bool:
        return True

    async def verify(self, credential: str, now: float) -> Verdict:
        self.verified_credentials.append(credential)
        if credential == "slow":
            await asyncio.Event().wait()
        return self.verdicts.get(credential, Invalid("unheard of"))


class AuthHarness:
    """A `ConnectionAuth` over a table of verdicts, and the telemetry events it emitted."""

    def __init__(self, verdicts: dict[str, Verdict], issuers: int, **options: Any) -> None:
        self.clock, self.wall = Clock(), Clock(NOW)
        self.verifier = TableVerifier({"good": Valid(MIA), "down": Unknown("down"), **verdicts})
        self.events: list[TelemetryEvent] = []
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
            telemetry=Telemetry([self.events.append]),
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
        """Return the code with which a new connection is refused; None if it is accepted."""
        made = await self.connect(token, handshake)
        return made.code if isinstance(made, Refused) else None

    async def refresh(self, token: str, principal: Principal = MIA) -> Authenticated | Refused:
        return await self.auth.refresh(principal, token, HERE, connection="c1")

    async def use_up(self, handshake: UpgradeInfo = HERE, times: int = 200) -> None:
        """Fail this often from one address, each time with another credential."""
        for number in range(times):
            await self.connect(f"bad {number} of {handshake.address}", handshake)

    def refusals(self) -> list[tuple[str, str]]:
        return [
            (one.connection, one.verdict)
            for one in self.events
            if isinstance(one, CredentialRefused)
        ]


@asynccontextmanager
async def connection_auth(
    verdicts: dict[str, Verdict] | None = None, *, issuers: int = 1, **options: Any
) -> AsyncIterator[AuthHarness]:
    made = AuthHarness(verdicts or {}, issuers, **options)
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
    """An outage is never reported as a bad credential, and a bad credential never as an outage."""
    async with connection_auth({"t": verdict}) as harness:
        assert await harness.connect("t") == Refused(code, name)
        assert harness.refusals() == [("c1", name)]


async def test_a_good_credential_lets_in_and_is_told_of() -> None:
    """The event has the source of the credential and the age of the verdict."""
    async with connection_auth() as harness:
        assert await harness.connect("good") == Authenticated(MIA, renewable=True)
        harness.clock.now += 42
        header = UpgradeInfo(address="192.0.2.1", authorization="Bearer good")
        assert await harness.connect("", header) == Authenticated(MIA, renewable=False)
        assert harness.events == [
            CredentialAccepted(connection="c1", source="connect.token", age=0.0),
            CredentialAccepted(connection="c1", source="Authorization", age=42.0),
        ]


async def test_r63_no_credential_is_told_how_to_bring_one() -> None:
    """3500 with a reason that names the ways to send a credential; nothing is verified."""
    async with connection_auth() as harness:
        for handshake in (HERE, UpgradeInfo(authorization="Basic dTpw"), UpgradeInfo()):
            assert await harness.connect("", handshake) == Refused(codes.NO_CREDENTIAL, "missing")
        assert harness.verifier.verified_credentials == []
        assert "connect.token" in codes.NO_CREDENTIAL.reason
        assert codes.NO_CREDENTIAL.number == codes.INVALID_TOKEN.number == 3500


@pytest.mark.parametrize("token", ["Bearer x", "bearer x", "JWT x", "Token\tx"])
async def test_r19_a_misspelt_credential_is_told_how_it_is_spelt(token: str) -> None:
    """A scheme in `connect.token` is refused before it is verified."""
    async with connection_auth() as harness:
        assert await harness.connect(token) == Refused(codes.NO_CREDENTIAL, "invalid")


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
    """The first source is used; a good credential in a later source does not rescue a bad one."""
    async with connection_auth() as harness:
        assert isinstance(await harness.connect(connect, handshake), Authenticated)
        assert harness.verifier.verified_credentials == ["good"]
        swapped = UpgradeInfo(
            ticket=handshake.ticket,
            offered=handshake.offered and "bad",
            authorization="Bearer good",
        )
        if connect or handshake.offered:
            assert await harness.code(connect and "bad", swapped) is codes.INVALID_TOKEN


@pytest.mark.parametrize(
    "handshake",
    [
        UpgradeInfo(ticket="good"),
        UpgradeInfo(ticket="Bearer good"),
        UpgradeInfo(ticket=" good"),
    ],
)
async def test_r16_a_jwt_in_the_query_authenticates_nobody(handshake: UpgradeInfo) -> None:
    """A valid JWT is refused without verification, also if the header holds a good one."""
    async with connection_auth() as harness:
        assert isinstance(await harness.connect("", handshake), Refused)
        beside = UpgradeInfo(ticket=handshake.ticket, authorization="Bearer good")
        assert isinstance(await harness.connect("", beside), Refused)
        assert harness.verifier.verified_credentials == []


async def test_r16_a_ticket_comes_by_query_connect_and_refresh() -> None:
    """Each of the three ways accepts a ticket, and each ticket once."""
    async with connection_auth() as harness:
        tickets = [harness.service.tickets.issue(MIA, HERE.origin) for _ in range(3)]
        query = UpgradeInfo(address="192.0.2.1", origin=HERE.origin, ticket=tickets[0])
        assert await harness.connect("", query) == Authenticated(MIA, renewable=False)
        assert await harness.code("", query) is codes.TOKEN_EXPIRED
        assert await harness.connect(tickets[1]) == Authenticated(MIA, renewable=True)
        assert await harness.code(tickets[1]) is codes.TOKEN_EXPIRED
        assert await harness.refresh(tickets[2]) == Authenticated(MIA, renewable=True)
        assert await harness.refresh(tickets[2]) == Refused(codes.TOKEN_EXPIRED, "expired")


async def test_r16_a_ticket_in_a_header_is_refused_and_not_used_up() -> None:
    """A ticket opens a connection; it authenticates no HTTP request and buys no other ticket."""
    async with connection_auth() as harness:
        ticket = harness.service.tickets.issue(MIA, HERE.origin)
        header = UpgradeInfo(origin=HERE.origin, authorization=f"Bearer {ticket}")
        assert isinstance(await harness.auth.authenticate_request(header), Refused)
        for handshake in (header, UpgradeInfo(origin=HERE.origin, offered=ticket)):
            assert await harness.code("", handshake) is codes.INVALID_TOKEN
        assert await harness.connect(ticket) == Authenticated(MIA, renewable=True)


@pytest.mark.parametrize("ticket", ["tkt_", "tkt_short", "tkt_" + "!" * 43])
async def test_a_malformed_ticket_is_invalid(ticket: str) -> None:
    """A malformed ticket is 3500; a used one is 109."""
    async with connection_auth() as harness:
        assert await harness.code(ticket) is codes.INVALID_TOKEN


async def test_r15_the_http_doors_ask_the_same_questions() -> None:
    """HTTP endpoints read the Authorization header only, with the same codes and limits."""
    async with connection_auth({"old": Invalid("over", expired=True)}) as harness:

        async def request(token: str) -> Authenticated | Refused:
            return await harness.auth.authenticate_request(
                UpgradeInfo(address="192.0.2.1", authorization=token, ticket="good", offered="good")
            )

        assert await request("Bearer good") == Authenticated(MIA, renewable=False)
        assert await request("Bearer bad") == Refused(codes.INVALID_TOKEN, "invalid")
        assert await request("Bearer old") == Refused(codes.TOKEN_EXPIRED, "expired")
        assert await request("Bearer down") == Refused(codes.TEMPORARY, "unknown")
        for header in ("", "Bearer", "Basic good", "good"):
            assert await request(header) == Refused(codes.NO_CREDENTIAL, "missing")
        assert {connection for connection, _ in harness.refusals()} == {""}


async def test_r17_nothing_that_is_told_holds_a_piece_of_a_credential() -> None:
    """No result and no telemetry event contains a part of a credential, whatever the verdict."""
    async with connection_auth(
        {"down SECRET": Unknown("down"), "ok SECRET": Valid(MIA)}
    ) as harness:
        for token in ("ok SECRET", "down SECRET", "bad SECRET", "Bearer SECRET", "tkt_SECRET"):
            made = await harness.connect(token)
            refreshed = await harness.refresh(token)
            assert "SECRET" not in f"{made!r} {refreshed!r}"
        await harness.connect("", UpgradeInfo(ticket="SECRET", authorization="Bearer SECRET"))
        await harness.connect("", UpgradeInfo(offered="SECRET"))
        assert len(harness.events) == 12
        assert "SECRET" not in repr(harness.events)


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
    """If the clocks differ by more than the grace: 109 at connect and at refresh."""
    async with connection_auth({"t": Valid(person(expires_at=ends))}) as harness:
        assert await harness.code("t") is code
        refreshed = await harness.refresh("t")
        assert (refreshed.code if isinstance(refreshed, Refused) else None) is code


async def test_r84_the_grace_is_25_seconds_unless_it_is_set() -> None:
    """A credential without an expiry has no grace."""
    assert Grace() == Grace(expiry=25.0, outage=900.0)
    async with connection_auth(grace=Grace(expiry=7.0)) as harness:
        assert harness.auth.expires_at(person(expires_at=NOW)) == NOW + 7
        assert harness.auth.expires_at(person(expires_at=None)) is None
    async with connection_auth() as harness:
        assert harness.auth.expires_at(person(expires_at=NOW)) == NOW + 25


# Limits.


async def test_r23_a_source_that_fails_too_often_is_limited() -> None:
    """After 200 failures no unknown credential is verified; other addresses are not limited."""
    async with connection_auth({"other": Valid(person(user="leo"))}) as harness:
        await harness.use_up(times=199)
        assert await harness.code("one more") is codes.INVALID_TOKEN
        verified_credentials = len(harness.verifier.verified_credentials)
        assert await harness.connect("other") == Refused(codes.TOO_MANY_REQUESTS, "limited")
        assert await harness.code("bad") is codes.TOO_MANY_REQUESTS
        assert len(harness.verifier.verified_credentials) == verified_credentials
        assert await harness.code("other", THERE) is None
        assert await harness.code("bad", THERE) is codes.INVALID_TOKEN


@virtual
async def test_r23_an_answer_past_the_limit_is_held_back() -> None:
    """A limited address waits one second; known credentials and other addresses do not wait."""
    async with connection_auth(limited_delay=1.0) as harness:
        await harness.connect("good", THERE)
        await harness.use_up()
        began = detangle.now()
        assert await harness.code("good") is None
        assert await harness.code("bad", THERE) is codes.INVALID_TOKEN
        assert detangle.now() == began
        assert await harness.code("bad") is codes.TOO_MANY_REQUESTS
        assert detangle.now() == began + 1.0


@virtual
async def test_r97_so_many_answers_are_held_back_and_no_more() -> None:
    """Past the bound a refusal is sent at once; a client that disconnects frees its place."""
    async with connection_auth(limited_delay=1.0) as harness:
        await harness.use_up()
        began = detangle.now()
        held = [asyncio.create_task(harness.code(f"bad-{number}")) for number in range(MAX_HELD)]
        await asyncio.sleep(0)
        assert await harness.code("bad") is codes.TOO_MANY_REQUESTS
        assert detangle.now() == began
        held.pop().cancel()
        await asyncio.sleep(0)
        assert await harness.code("bad") is codes.TOO_MANY_REQUESTS
        assert detangle.now() == began + 1.0
        assert set(await asyncio.gather(*held)) == {codes.TOO_MANY_REQUESTS}


async def test_r23_who_is_known_passes_a_limited_source() -> None:
    """Clients of a limited address with a cached good verdict are accepted."""
    async with connection_auth() as harness:
        await harness.connect("good", THERE)
        await harness.use_up()
        assert await harness.code("good") is None
        harness.clock.now += 299
        harness.wall.now += 299
        await harness.use_up(times=4000)
        assert await harness.code("good") is None
        harness.clock.now += 1
        harness.wall.now += 1
        await harness.use_up(times=4000)
        assert await harness.code("good") is codes.TOO_MANY_REQUESTS, "it is remembered no longer"


async def test_r23_a_limited_source_gets_its_looks_back() -> None:
    """Ten verifications per second are refilled; a refusal by the limit costs nothing."""
    async with connection_auth() as harness:
        await harness.use_up()
        for _ in range(1000):
            assert await harness.code("x") is codes.TOO_MANY_REQUESTS
        harness.clock.now += 0.09
        assert await harness.code("x") is codes.TOO_MANY_REQUESTS
        harness.clock.now += 0.011
        assert await harness.code("x") is codes.INVALID_TOKEN
        assert await harness.code("y") is codes.TOO_MANY_REQUESTS


@pytest.mark.parametrize(
    ("token", "charged"),
    [("good", False), ("down", False), ("suspect", True), ("bad", True), ("old", True), ("", True)],
)
async def test_r23_only_what_the_source_can_help_is_held_against_it(
    token: str, charged: bool
) -> None:
    """An outage is not charged; an unknown key, a bad credential and a missing one are."""
    verdicts: dict[str, Verdict] = {
        "suspect": Unknown("the key id is unknown", suspect=True),
        "old": Invalid("over", expired=True),
    }
    rate = Rate(per_second=0.001, burst=5)
    async with connection_auth(verdicts, source_failures=rate) as harness:
        for _ in range(5):
            await harness.connect(token)
        assert (await harness.code("fresh") is codes.TOO_MANY_REQUESTS) is charged


async def test_r23_one_credential_that_fails_too_often_is_limited_everywhere() -> None:
    """A burst of 20, then one each two seconds; other credentials of the address are verified."""
    async with connection_auth() as harness:
        for number in range(20):
            assert (
                await harness.code("bad", UpgradeInfo(address=f"192.0.2.{number}"))
                is codes.INVALID_TOKEN
            )
        for handshake in (HERE, THERE):
            assert await harness.connect("bad", handshake) == Refused(
                codes.TOO_MANY_REQUESTS, "limited"
            )
            assert await harness.code("bad ", handshake) is codes.INVALID_TOKEN
        harness.clock.now += 1.9
        assert await harness.code("bad") is codes.TOO_MANY_REQUESTS
        harness.clock.now += 0.2
        assert await harness.code("bad") is codes.INVALID_TOKEN


async def test_r23_a_ticket_is_not_used_up_by_a_limit() -> None:
    """A ticket refused by the limit can be redeemed later."""
    async with connection_auth() as harness:
        ticket = harness.service.tickets.issue(MIA, HERE.origin)
        await harness.use_up()
        assert await harness.code(ticket) is codes.TOO_MANY_REQUESTS
        harness.clock.now += 1
        assert await harness.code(ticket) is None


async def test_r23_a_flood_of_bad_tokens_leaves_the_breaker_alone() -> None:
    """The breaker stays closed: only calls to the key server count."""
    async with connection_auth() as harness:
        await harness.use_up(times=1000)
        assert harness.breakers[0].state is State.CLOSED
        assert harness.breakers[0].failure_count == 0


async def test_r23_a_refresh_is_looked_at_whatever_others_did() -> None:
    """A limited address does not stop a refresh; a failed refresh counts for the address."""
    async with connection_auth({"new": Valid(person(issued_at=NOW + 1))}) as harness:
        await harness.use_up()
        assert isinstance(await harness.refresh("new"), Authenticated)
    async with connection_auth(source_failures=Rate(per_second=0.001, burst=3)) as harness:
        for number in range(3):
            await harness.refresh(f"bad {number}")
        assert await harness.code("fresh") is codes.TOO_MANY_REQUESTS


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
    """The same verdicts as at connect; tenant and user may not change."""
    async with connection_auth({"t": verdict}) as harness:
        assert await harness.refresh("t") == answer
        assert harness.refusals() == [("c1", answer.verdict)]
        assert harness.verifier.verified_credentials == ["t"]


async def test_r86_rights_after_a_refresh_are_those_of_the_new_credential() -> None:
    """Roles, expiry, id and issuer are those of the new credential only."""
    new = person(roles=frozenset({"ops"}), expires_at=NOW + 7200, token_id="j2", issuer="another")
    old = person(roles=frozenset({"towpath:operator"}), token_id="j1")
    async with connection_auth({"t": Valid(new)}) as harness:
        made = await harness.refresh("t", old)
        assert made == Authenticated(new, renewable=True)


async def test_r84_a_refresh_with_what_was_taken_back_is_refused() -> None:
    """A revocation overrides a cached good verdict."""
    async with connection_auth() as harness:
        await harness.connect("good")
        harness.service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        assert await harness.refresh("good") == Refused(codes.NOT_ALLOWED, "revoked")
        assert await harness.code("good") is codes.NOT_ALLOWED


# Outages.


def in_outage(harness: AuthHarness, number: int = 0) -> None:
    for _ in range(3):
        harness.breakers[number].record_failure()


async def test_r22_an_outage_holds_who_is_connected() -> None:
    """Until 15 minutes after the expiry of the credential, by the wall clock."""
    async with connection_auth() as harness:
        ends = person(expires_at=NOW)
        assert harness.auth.held_until(ends) is None
        in_outage(harness)
        assert harness.auth.held_until(ends) == NOW + 900
        harness.wall.now = NOW + 899.9
        assert harness.auth.held_until(ends) == NOW + 900
        harness.wall.now = NOW + 900
        assert harness.auth.held_until(ends) is None
        assert harness.auth.held_until(person(expires_at=None)) is None


async def test_r22_the_outage_grace_can_be_switched_off() -> None:
    """A grace of 0 disables it."""
    async with connection_auth(grace=Grace(outage=0.0)) as harness:
        in_outage(harness)
        assert harness.auth.held_until(person(expires_at=NOW)) is None
    async with connection_auth(grace=Grace(outage=60.0)) as harness:
        in_outage(harness)
        assert harness.auth.held_until(person(expires_at=NOW)) == NOW + 60


async def test_r23_one_issuers_outage_holds_nobody_elses_people() -> None:
    """A user whose issuer works could have refreshed, so the connection is not held."""
    async with connection_auth(issuers=2) as harness:
        in_outage(harness, 1)
        assert harness.auth.held_until(person(expires_at=NOW)) is None
        assert harness.auth.held_until(person(expires_at=NOW, issuer="issuer 1")) == NOW + 900


async def test_r26_an_outage_lets_nobody_in() -> None:
    """Only open connections are held; a new one with the same credential is refused."""
    old = person(expires_at=NOW - 60)
    async with connection_auth({"t": Valid(old)}) as harness:
        in_outage(harness)
        assert harness.auth.held_until(old) is not None
        assert await harness.code("t") is codes.TOKEN_EXPIRED
        assert await harness.code("down") is codes.TEMPORARY
        assert isinstance(await harness.refresh("down", old), Refused)


async def test_r22_a_lapsed_credential_has_its_issuer_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The issuer of the lapsed credential is probed."""
    async with connection_auth() as harness:
        probed: list[Principal] = []
        monkeypatch.setattr(harness.service, "probe", probed.append)
        harness.auth.lapsed(MIA)
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
    """Exactly these fields, with the values of the breaker, the cache and the retry settings."""
    async with connection_auth() as harness:
        assert harness.auth.auth_state() == {
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
        await harness.connect("good")
        in_outage(harness)
        state = harness.auth.auth_state()
        assert state.keys() == FIELDS
        assert (state["failure_count"], state["state"], state["last_failure_time"]) == (
            3,
            "open",
            1000.0,
        )
        assert state["concurrent_token_cache"] == 1


async def test_the_state_says_whether_anything_is_being_verified() -> None:
    """True while a verification is pending, and false right after it."""
    async with connection_auth() as harness:
        waiting = asyncio.create_task(harness.connect("slow"))
        while not harness.verifier.verified_credentials:  # noqa: ASYNC110 - it needs turns only
            await asyncio.sleep(0)
        assert harness.auth.auth_state()["token_cache_lock"] is True
        waiting.cancel()
        await asyncio.wait([waiting])
        assert harness.auth.auth_state()["token_cache_lock"] is False


async def test_the_state_shows_the_issuer_in_trouble_or_the_one_named() -> None:
    """Without a name, the state is that of the first issuer whose breaker is not closed."""
    async with connection_auth(issuers=3) as harness:
        in_outage(harness, 1)
        assert harness.auth.auth_state()["state"] == "open"
        assert harness.auth.auth_state("issuer 2")["state"] == "closed"
        assert harness.auth.auth_state("issuer 1")["failure_count"] == 3


async def test_r17_the_state_holds_no_secret() -> None:
    """The state is plain JSON values, without a part of any credential."""
    async with connection_auth({"SECRET": Valid(MIA)}) as harness:
        await harness.connect("SECRET")
        await harness.connect("bad SECRET")
        assert "SECRET" not in json.dumps(harness.auth.auth_state())


async def test_the_breaker_can_be_looked_at_without_moving_it() -> None:
    """Closed: true, open: false, due for a probe: true, probing: false; reading starts no probe."""
    async with connection_auth() as harness:
        breaker = harness.breakers[0]
        assert harness.auth._check_circuit_breaker()
        in_outage(harness)
        assert not harness.auth._check_circuit_breaker()
        harness.clock.now += 14.9
        assert not harness.auth._check_circuit_breaker()
        harness.clock.now += 0.1
        assert harness.auth._check_circuit_breaker()
        assert harness.auth.auth_state()["state"] == "open"
        breaker.admit()
        assert not harness.auth._check_circuit_breaker("issuer")


async def test_a_failure_seen_elsewhere_counts_for_its_issuer() -> None:
    """Three failures open the breaker of the named issuer, or of the first one."""
    async with connection_auth(issuers=2) as harness:
        for _ in range(3):
            assert harness.auth._check_circuit_breaker("issuer 1")
            harness.auth._record_circuit_breaker_failure("issuer 1")
        assert not harness.auth._check_circuit_breaker("issuer 1")
        assert harness.auth._check_circuit_breaker("issuer")
        harness.auth._record_circuit_breaker_failure("issuer")
        assert [breaker.failure_count for breaker in harness.breakers] == [1, 3]


@given(st.lists(st.sampled_from(["good", "bad", "down", "old", ""]), max_size=30))
def test_r22_r23_no_order_of_credentials_changes_what_each_is_worth(tokens: list[str]) -> None:
    """Below the limits the code of a credential does not depend on the ones before it."""
    expected = {
        "good": None,
        "bad": codes.INVALID_TOKEN,
        "down": codes.TEMPORARY,
        "old": codes.TOKEN_EXPIRED,
        "": codes.NO_CREDENTIAL,
    }

    async def play() -> None:
        async with connection_auth(
            {"old": Invalid("over", expired=True)},
            credential_failures=Rate(per_second=1, burst=100),
        ) as harness:
            for token in tokens:
                assert await harness.code(token) is expected[token]

    asyncio.run(play())
