"""AuthService: retries, deadlines, sharing, the cache, tickets, revocations and several issuers."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import detangle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from tests.auth.stage import NOW, virtual, wall_clock
from towpath.auth.breaker import CircuitBreaker
from towpath.auth.cache import VerdictCache, digest
from towpath.auth.jwks import RemoteKeys
from towpath.auth.keys import FixedKey, KeyRing
from towpath.auth.revocations import Revocation, Revocations
from towpath.auth.service import AuthService, Judged, Retry, TrustedIssuer
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import Tickets
from towpath.auth.tokens import Issuer, KeysUnavailable, TokenVerifier
from towpath.auth.verdicts import Invalid, Unknown, Valid, Verdict
from towpath.identity import Principal

MIA = Principal(
    tenant="acme", user="mia", expires_at=NOW + 3600, issued_at=NOW - 60, token_id="j1", issuer="a"
)
GOOD, BAD, DOWN = Valid(MIA), Invalid("no"), Unknown("down")


class Scripted:
    """A verifier that returns scripted verdicts after a delay, and records its calls."""

    def __init__(self, *verdicts: Verdict, takes: str = "", seconds: float = 0.0) -> None:
        self.verdicts = list(verdicts)
        """In this order; the last one is repeated."""
        self.claims = takes
        self.seconds = seconds
        self.recorded_calls: list[tuple[str, float]] = []
        """The credential and the time of each call."""
        self.cancellations = 0
        """How often a call was cancelled."""

    def takes(self, credential: str) -> bool:
        return credential.startswith(self.claims)

    async def verify(self, credential: str, now: float) -> Verdict:
        assert now == wall_clock()
        self.recorded_calls.append((credential, detangle.now()))
        verdict = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancellations += 1
            raise
        return verdict


class Keys:
    """A key source that is down for the first fetches."""

    def __init__(self, issuer: str, *, down: int = 0, retry_after: float = 0.0) -> None:
        self.issuer = issuer
        self.down = down
        self.retry_after = retry_after
        self.recorded_calls: list[float] = []

    async def fetch(self) -> KeyRing:
        self.recorded_calls.append(detangle.now())
        await asyncio.sleep(0.01)
        if len(self.recorded_calls) <= self.down:
            raise KeysUnavailable("down", self.retry_after)
        return KeyRing([OctKey.import_key("s" * 32)])


def trusted(name: str, verifier: Any, keys: RemoteKeys | None = None, **fields: Any) -> Any:
    breaker = CircuitBreaker(name, clock=detangle.now)
    return TrustedIssuer(issuer=name, verifier=verifier, breaker=breaker, keys=keys, **fields)


def remote(source: Keys, fetches: SingleFlight[str, None]) -> RemoteKeys:
    return RemoteKeys(source, fetches, monotonic=detangle.now, random=lambda: 0.5)


class Made:
    """A service and its parts."""

    def __init__(self, random: float, retry: Retry | None) -> None:
        self.lost: list[Exception] = []
        self.fetches = SingleFlight[str, None](self.lost.append)
        self.random = random
        self.retry = retry
        self.tickets = Tickets(monotonic=detangle.now)

    def service(self, *issuers: TrustedIssuer) -> AuthService:
        return AuthService(
            issuers,
            cache=VerdictCache(monotonic=detangle.now, now=wall_clock),
            tickets=self.tickets,
            revocations=Revocations(86_400),
            verdicts=SingleFlight(self.lost.append),
            fetches=self.fetches,
            monotonic=detangle.now,
            now=wall_clock,
            random=lambda: self.random,
            retry=self.retry,
        )


@asynccontextmanager
async def serving(
    *verifiers: Scripted, random: float = 0.5, retry: Retry | None = None
) -> AsyncIterator[AuthService]:
    """Open a service over these verifiers; at the end nothing may be pending or lost."""
    made = Made(random, retry)
    service = made.service(*(trusted(f"issuer {n}", one) for n, one in enumerate(verifiers)))
    async with service:
        yield service
    assert service.under_way == 0
    assert made.lost == []


async def verdict_of(service: AuthService, credential: str = "t") -> Verdict:
    return (await service.authenticate(credential)).verdict


# Trying again.


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_r31_the_attempts_at_a_failing_verifier_are_those_of_the_setting(attempts: int) -> None:
    """One layer retries: the verifier counts its calls."""

    async def play() -> None:
        verifier = Scripted(DOWN)
        async with serving(verifier, retry=Retry(attempts=attempts)) as service:
            assert await verdict_of(service) == DOWN
            assert len(verifier.recorded_calls) == attempts

    detangle.run(play)


@virtual
async def test_r31_the_defaults_are_those_of_the_documentation() -> None:
    """Three attempts, a first pause of at most 0.1 s, all within 2.5 seconds."""
    assert Retry() == Retry(attempts=3, base=0.1, deadline=2.5)
    verifier = Scripted(DOWN)
    async with serving(verifier) as service:
        await verdict_of(service)
        assert len(verifier.recorded_calls) == 3


@pytest.mark.parametrize("verdict", [GOOD, BAD, Invalid("no", passing=True), Invalid("x", True)])
def test_r31_what_is_known_is_not_asked_again(verdict: Verdict) -> None:
    """Only an unknown verdict is retried."""

    async def play() -> None:
        verifier = Scripted(verdict)
        async with serving(verifier) as service:
            assert await verdict_of(service) == verdict
            assert len(verifier.recorded_calls) == 1

    detangle.run(play)


@virtual
async def test_r31_a_blip_is_not_noticed() -> None:
    """The second or third attempt succeeds."""
    for blips in (1, 2):
        verifier = Scripted(*[DOWN] * blips, GOOD)
        async with serving(verifier) as service:
            assert await verdict_of(service) == GOOD
            assert len(verifier.recorded_calls) == blips + 1


@pytest.mark.parametrize("random", [0.0, 0.25, 0.5, 0.999])
def test_r31_pauses_are_fully_jittered_and_double(random: float) -> None:
    """Between 0 and 0.1, 0.2 and 0.4 seconds, so that clients spread out."""

    async def play() -> None:
        verifier = Scripted(DOWN)
        async with serving(verifier, random=random, retry=Retry(attempts=4)) as service:
            await verdict_of(service)
        times = [when for _, when in verifier.recorded_calls]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses == pytest.approx([random * 0.1, random * 0.2, random * 0.4])

    detangle.run(play)


@virtual
async def test_r31_who_is_told_to_come_later_comes_later() -> None:
    """The pause is at least `retry_after`, plus the jitter."""
    verifier = Scripted(Unknown("busy", 0.75), GOOD)
    async with serving(verifier) as service:
        assert await verdict_of(service) == GOOD
        assert verifier.recorded_calls[1][1] == pytest.approx(0.75 + 0.05)


@virtual
async def test_r32_what_cannot_be_waited_for_is_not() -> None:
    """A `retry_after` past the deadline ends the retries at once and is returned."""
    verifier = Scripted(Unknown("open", 15.0))
    async with serving(verifier) as service:
        assert await verdict_of(service) == Unknown("open", 15.0)
        assert detangle.now() == 0
        assert len(verifier.recorded_calls) == 1


# The deadline.


@virtual
async def test_r32_a_verifier_that_hangs_is_left_at_the_deadline() -> None:
    """The verdict is unknown after 2.5 seconds, and no task is left."""
    verifier = Scripted(GOOD, seconds=3600)
    async with serving(verifier) as service:
        judged = await service.authenticate("t")
        assert isinstance(judged.verdict, Unknown)
        assert detangle.now() == 2.5
        await asyncio.sleep(0)
        assert (verifier.cancellations, service.under_way) == (1, 0)


@settings(max_examples=50)
@given(
    st.lists(
        st.sampled_from([DOWN, GOOD, BAD]) | st.floats(0, 20).map(lambda w: Unknown("busy", w)),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 4),
    st.floats(0, 0.999),
    st.integers(1, 6),
)
def test_r32_whatever_hangs_the_answer_comes_in_time(
    verdicts: list[Verdict], seconds: float, random: float, attempts: int
) -> None:
    """With any delays and settings: a verdict within the deadline, and never an invented one."""

    async def play() -> None:
        verifier = Scripted(*verdicts, seconds=seconds)
        async with serving(verifier, random=random, retry=Retry(attempts=attempts)) as service:
            verdict = await verdict_of(service)
            assert detangle.now() <= 2.5
            assert len(verifier.recorded_calls) <= attempts
            assert isinstance(verdict, Unknown) or verdict in verdicts

    detangle.run(play)


@virtual
async def test_r32_each_caller_has_a_deadline_of_their_own() -> None:
    """A caller that joins late keeps its own deadline."""
    verifier = Scripted(GOOD, seconds=3.0)
    async with serving(verifier) as service:
        first = asyncio.create_task(verdict_of(service))
        await asyncio.sleep(1.0)
        second = asyncio.create_task(verdict_of(service))
        assert isinstance(await first, Unknown)
        assert await second == GOOD
        assert detangle.now() == 3.0
        assert len(verifier.recorded_calls) == 1


# Sharing and remembering.


@virtual
async def test_r27_the_same_credential_at_once_is_verified_once() -> None:
    """100 callers with one credential share a verification; another credential has its own."""
    verifier = Scripted(GOOD, BAD, seconds=0.1)
    async with serving(verifier) as service:
        mine = [asyncio.create_task(verdict_of(service, "t")) for _ in range(100)]
        await asyncio.sleep(0.01)
        other = asyncio.create_task(verdict_of(service, "t2"))
        await asyncio.sleep(0.01)
        assert service.under_way == 2
        assert await asyncio.gather(*mine) == [GOOD] * 100
        assert await other == BAD
        assert [credential for credential, _ in verifier.recorded_calls] == ["t", "t2"]


@virtual
async def test_r27_callers_who_leave_disturb_nobody() -> None:
    """99 of 100 callers are cancelled; the last one gets its verdict."""
    verifier = Scripted(GOOD, seconds=1.0)
    async with serving(verifier) as service:
        callers = [asyncio.create_task(verdict_of(service)) for _ in range(100)]
        await asyncio.sleep(0.5)
        for caller in callers[:-1]:
            caller.cancel()
        assert await callers[-1] == GOOD
        assert (len(verifier.recorded_calls), verifier.cancellations) == (1, 0)


@virtual
async def test_r28_a_good_verdict_is_remembered_with_its_age() -> None:
    """For five minutes; telemetry shows the age of the verdict."""
    verifier = Scripted(GOOD)
    async with serving(verifier) as service:
        assert await service.authenticate("t") == Judged(GOOD, 0.0)
        await asyncio.sleep(42)
        assert await service.authenticate("t") == Judged(GOOD, 42.0)
        assert service.remembers("t")
        assert not service.remembers("t ")
        await asyncio.sleep(300 - 42)
        assert not service.remembers("t")
        assert await service.authenticate("t") == Judged(GOOD, 0.0)
        assert len(verifier.recorded_calls) == 2


@virtual
async def test_r28_a_bad_verdict_is_remembered_briefly_and_known_to_be_bad() -> None:
    """A cached invalid verdict costs no verification; `remembers` is about valid ones only."""
    verifier = Scripted(BAD)
    async with serving(verifier) as service:
        for _ in range(5):
            assert await verdict_of(service) == BAD
        assert len(verifier.recorded_calls) == 1
        assert not service.remembers("t")
        await asyncio.sleep(10)
        assert await verdict_of(service) == BAD
        assert len(verifier.recorded_calls) == 2


@virtual
async def test_r22_an_unknown_verdict_is_never_remembered() -> None:
    """After the outage the next attempt succeeds."""
    verifier = Scripted(DOWN, GOOD)
    async with serving(verifier, retry=Retry(attempts=1)) as service:
        assert await verdict_of(service) == DOWN
        assert len(service.cache) == 0
        assert await verdict_of(service) == GOOD


@virtual
async def test_r22_a_deadline_is_never_remembered() -> None:
    """A missed deadline is no verdict about the credential."""
    verifier = Scripted(BAD, GOOD, seconds=10)
    async with serving(verifier) as service:
        assert isinstance(await verdict_of(service), Unknown)
        assert len(service.cache) == 0
        verifier.seconds = 0
        assert await verdict_of(service) == GOOD


@virtual
async def test_a_fault_of_ours_reaches_who_asked_and_nobody_else() -> None:
    """An internal error is not cached, and the next call verifies again."""

    class Broken(Scripted):
        async def verify(self, credential: str, now: float) -> Verdict:
            if not self.recorded_calls:
                self.recorded_calls.append((credential, now))
                raise ZeroDivisionError
            return await super().verify(credential, now)

    async with serving(Broken(GOOD)) as service:
        with pytest.raises(ZeroDivisionError):
            await service.authenticate("t")
        assert await verdict_of(service) == GOOD


# Tickets.


@virtual
async def test_r16_a_ticket_is_redeemed_here_and_no_verifier_sees_it() -> None:
    """A ticket is redeemed once and never cached."""
    verifier = Scripted(GOOD)
    async with serving(verifier) as service:
        ticket = service.tickets.issue(MIA, "https://app.example")
        assert not service.remembers(ticket)
        judged = await service.authenticate(ticket, origin="https://app.example")
        assert judged == Judged(GOOD, 0.0)
        again = await service.authenticate(ticket, origin="https://app.example")
        assert again.verdict == Invalid("a ticket that is used up or over", expired=True)
        assert len(service.cache) == 0
        assert verifier.recorded_calls == []


@virtual
async def test_r15_a_ticket_is_held_against_the_origin_that_presents_it() -> None:
    """A ticket presented from another origin is refused."""
    async with serving(Scripted(GOOD)) as service:
        ticket = service.tickets.issue(MIA, "https://app.example")
        judged = await service.authenticate(ticket, origin="https://attacker.example")
        assert judged.verdict == Invalid("a ticket of another origin")


@virtual
async def test_r84_a_ticket_of_somebody_revoked_is_revoked() -> None:
    """The credential behind the ticket was revoked since."""
    async with serving(Scripted(GOOD)) as service:
        ticket = service.tickets.issue(MIA, None)
        service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        assert await verdict_of(service, ticket) == Invalid("revoked", revoked=True)


# Revocation.

REVOKED = Invalid("revoked", revoked=True)


@pytest.mark.parametrize("what", [{"token_id": "j1"}, {"user": "mia"}, {}])
def test_r84_a_revocation_beats_what_is_remembered(what: dict[str, str]) -> None:
    """A revocation overrides a cached verdict, however fresh."""

    async def play() -> None:
        verifier = Scripted(GOOD)
        async with serving(verifier) as service:
            assert await verdict_of(service) == GOOD
            service.apply(Revocation(tenant="acme", at=NOW, **what))
            assert not service.remembers("t")
            assert await verdict_of(service) == REVOKED
            assert await verdict_of(service) == REVOKED

    detangle.run(play)


@virtual
async def test_r84_a_revocation_beats_a_verification_under_way() -> None:
    """A revocation during a verification overrides its verdict, now and later."""
    async with serving(Scripted(GOOD, seconds=1.0)) as service:
        asking = asyncio.create_task(verdict_of(service))
        await asyncio.sleep(0.5)
        service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        assert await asking == REVOKED
        assert await verdict_of(service) == REVOKED


@virtual
async def test_r84_a_revocation_is_about_those_it_names() -> None:
    """Verdicts of other users and of other tenants stay cached."""
    leo = Valid(Principal(tenant="acme", user="leo", expires_at=NOW + 3600, issued_at=NOW))
    verifier = Scripted(GOOD, leo)
    async with serving(verifier) as service:
        await verdict_of(service, "mine")
        await verdict_of(service, "leo's")
        service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        service.apply(Revocation(tenant="other", at=NOW))
        assert service.remembers("leo's")
        assert await verdict_of(service, "leo's") == leo
        assert len(verifier.recorded_calls) == 2


@virtual
async def test_r84_who_logs_in_after_a_revocation_is_let_in() -> None:
    """A credential issued after the revocation is valid."""
    new = Valid(Principal(tenant="acme", user="mia", expires_at=NOW + 3600, issued_at=NOW + 31))
    async with serving(Scripted(GOOD, new)) as service:
        service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        assert await verdict_of(service, "old") == REVOKED
        assert await verdict_of(service, "new") == new
        assert service.remembers("new")


# Several issuers.


def signed(secret: str, **claims: Any) -> str:
    made = {"sub": "mia", "aud": "towpath", "exp": int(NOW) + 60, **claims}
    return jwt.encode({"alg": "HS256", "kid": "k1"}, made, OctKey.import_key(secret))


def jwt_issuer(name: str, secret: str, tenant: str) -> Any:
    issuer = Issuer(
        issuer=name,
        audience="towpath",
        algorithms=frozenset({"HS256"}),
        tenant_claim=None,
        tenant=tenant,
    )
    return trusted(name, TokenVerifier(issuer, FixedKey(OctKey.import_key(secret))))


@virtual
async def test_r13_a_token_is_judged_by_the_issuer_it_names_alone() -> None:
    """Same kid and sub: each token gets the tenant of its issuer; a forged issuer is refused."""
    one, other = jwt_issuer("one", "1" * 32, "acme"), jwt_issuer("two", "2" * 32, "globex")
    async with Made(0.5, None).service(one, other) as service:
        for name, secret, tenant in (("one", "1" * 32, "acme"), ("two", "2" * 32, "globex")):
            verdict = await verdict_of(service, signed(secret, iss=name))
            assert isinstance(verdict, Valid)
            assert (verdict.principal.tenant, verdict.principal.issuer) == (tenant, name)
        for name, secret in (("one", "2"), ("two", "1"), ("three", "1"), ("", "1")):
            forged = signed(secret * 32, iss=name)
            assert isinstance(await verdict_of(service, forged), Invalid)
        for text in (signed("1" * 32), "no token", "", "a.b.c", signed("1" * 32, iss=["one"])):
            assert await verdict_of(service, text) == Invalid("no issuer of ours")


@virtual
async def test_r23_only_the_issuer_a_token_names_is_asked() -> None:
    """An outage of one issuer does not affect the users of another."""
    down, up = Scripted(DOWN, takes="a"), Scripted(GOOD, takes="b")
    async with serving(down, up) as service:
        assert await verdict_of(service, "b token") == GOOD
        assert await verdict_of(service, "c token") == Invalid("no issuer of ours")
        assert down.recorded_calls == []
        assert await verdict_of(service, "a token") == DOWN
        assert len(up.recorded_calls) == 1


@virtual
async def test_an_only_issuer_judges_whatever_comes() -> None:
    """With one issuer there is no choice; its verdict names the error."""
    only = Scripted(BAD, takes="nothing")
    async with serving(only) as service:
        assert await verdict_of(service, "anything") == BAD


# Readiness.


def with_keys(*sources: tuple[Keys, bool], random: float = 0.5) -> AuthService:
    made = Made(random, None)
    return made.service(
        *(
            trusted(source.issuer, Scripted(GOOD), remote(source, made.fetches), required=required)
            for source, required in sources
        )
    )


@virtual
async def test_r30_warming_waits_for_the_keys_of_the_required_issuers() -> None:
    """`cold` names them until then; optional issuers are not waited for."""
    need, more, extra = Keys("need", down=1), Keys("more"), Keys("extra", down=10**6)
    async with with_keys((need, True), (extra, False), (more, True)) as service:
        assert service.cold == ["need", "more"]
        await service.warm()
        assert service.cold == []
        assert [len(source.recorded_calls) for source in (need, more)] == [2, 1]
        assert [one.warm for one in service.issuers] == [True, False, True]
        tries = len(extra.recorded_calls)
        await asyncio.sleep(600)
        assert len(extra.recorded_calls) == tries


@virtual
async def test_r30_keys_of_an_optional_issuer_that_come_first_are_kept() -> None:
    """Keys of an optional issuer that arrive during the wait are used."""
    need, extra = Keys("need", down=2), Keys("extra")
    async with with_keys((need, True), (extra, False)) as service:
        await service.warm()
        assert [one.warm for one in service.issuers] == [True, True]
        assert len(extra.recorded_calls) == 1


@virtual
async def test_r30_warming_goes_on_until_the_keys_are_there() -> None:
    """Pauses double up to 3.2 seconds; a `retry_after` is obeyed."""
    source = Keys("need", down=9)
    async with with_keys((source, True), random=0.999) as service:
        await service.warm()
        pauses = [b - a - 0.01 for a, b in itertools.pairwise(source.recorded_calls)]
        assert pauses == pytest.approx([0.0999 * 2**n for n in (0, 1, 2, 3, 4, 5, 5, 5, 5)])
    patient = Keys("need", down=2, retry_after=15.0)
    async with with_keys((patient, True)) as service:
        await service.warm()
        assert patient.recorded_calls[1] - patient.recorded_calls[0] == pytest.approx(15.01)


@virtual
async def test_an_issuer_without_keys_elsewhere_is_always_warm() -> None:
    """There is nothing to fetch."""
    async with serving(Scripted(GOOD)) as service:
        assert service.cold == []
        await service.warm()
        assert detangle.now() == 0


@virtual
async def test_r29_tending_replaces_the_keys_of_every_issuer() -> None:
    """Without any login, until the task is cancelled."""
    one, other = Keys("one"), Keys("other")
    async with with_keys((one, True), (other, False)) as service:
        tending = asyncio.create_task(service.keep_fresh())
        await asyncio.sleep(601)
        tending.cancel()
        assert [len(source.recorded_calls) for source in (one, other)] == [2, 2]


# Outages.


@virtual
async def test_r23_an_outage_is_one_issuers() -> None:
    """A failed fetch or a breaker that is not closed; other issuers are not affected."""
    down, up = Keys("down", down=1), Keys("up")
    async with with_keys((down, True), (up, True)) as service:
        theirs, ours = (
            Principal(tenant="acme", user="mia", issuer=name) for name in ("down", "up")
        )
        assert [service.in_outage(who) for who in (theirs, ours)] == [False, False]
        service.probe(theirs)
        await asyncio.sleep(1)
        assert (len(down.recorded_calls), len(up.recorded_calls)) == (1, 0)
        assert [service.in_outage(who) for who in (theirs, ours)] == [True, False]
        service.probe(theirs)
        await asyncio.sleep(1)
        assert not service.in_outage(theirs)
        for _ in range(3):
            service.issuer("up").breaker.record_failure()
        assert [service.in_outage(who) for who in (theirs, ours)] == [False, True]
        stranger = Principal(tenant="acme", user="mia", issuer="gone")
        service.probe(stranger)
        assert not service.in_outage(stranger)


@virtual
async def test_an_issuer_is_found_by_name_or_by_trouble() -> None:
    """Without a name: the first whose breaker is not closed, or the first of all."""
    async with serving(Scripted(GOOD), Scripted(GOOD), Scripted(GOOD)) as service:
        assert service.issuer().name == "issuer 0"
        assert service.issuer("issuer 2").name == "issuer 2"
        for _ in range(3):
            service.issuer("issuer 1").breaker.record_failure()
        assert service.issuer().name == "issuer 1"
        assert service.issuer("issuer 0").name == "issuer 0"


# The end.


@virtual
async def test_the_exit_leaves_nothing_under_way() -> None:
    """Verifications and fetches are cancelled, and their waiters with them."""
    verifier = Scripted(GOOD, seconds=2.0)
    async with serving(verifier) as service:
        asking = asyncio.create_task(verdict_of(service))
        await asyncio.sleep(0.5)
    assert verifier.cancellations == 1
    await asyncio.wait([asking], timeout=1)
    assert asking.cancelled()


def test_r17_nothing_of_the_service_holds_a_credential() -> None:
    """Verdicts are cached and shared under digests."""

    async def play() -> None:
        async with serving(Scripted(GOOD, seconds=0.1)) as service:
            asking = asyncio.create_task(verdict_of(service, "eyJ.SECRET.x"))
            await asyncio.sleep(0.05)
            held: list[Callable[[], Any]] = [lambda: vars(service), lambda: vars(service.cache)]
            assert not any("SECRET" in repr(one()) for one in held)
            await asking
            assert not any("SECRET" in repr(one()) for one in held)
            assert service.cache.get(digest("eyJ.SECRET.x")) is not None

    detangle.run(play)


def test_nobody_is_an_issuer_by_a_name_that_was_never_configured() -> None:
    """An unknown name is a programming error and raises."""
    service = AuthService.__new__(AuthService)
    service.issuers = ()
    with pytest.raises(LookupError, match="nobody"):
        service.issuer("nobody")
