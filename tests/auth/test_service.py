"""A credential becomes a principal in one place, in time, or nobody is told anything untrue."""

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
    """A verifier that says what it was told to, takes its time, and counts."""

    def __init__(self, *verdicts: Verdict, takes: str = "", seconds: float = 0.0) -> None:
        self.verdicts = list(verdicts)
        """In this order; the last one for ever."""
        self.claims = takes
        self.seconds = seconds
        self.asked: list[tuple[str, float]] = []
        """What was asked about, and when."""
        self.left = 0
        """How often whoever asked was cancelled."""

    def takes(self, credential: str) -> bool:
        return credential.startswith(self.claims)

    async def verify(self, credential: str, now: float) -> Verdict:
        assert now == wall_clock()
        self.asked.append((credential, detangle.now()))
        verdict = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.left += 1
            raise
        return verdict


class Keys:
    """Where an issuer's keys come from: down for so many fetches."""

    def __init__(self, issuer: str, *, down: int = 0, retry_after: float = 0.0) -> None:
        self.issuer = issuer
        self.down = down
        self.retry_after = retry_after
        self.asked: list[float] = []

    async def fetch(self) -> KeyRing:
        self.asked.append(detangle.now())
        await asyncio.sleep(0.01)
        if len(self.asked) <= self.down:
            raise KeysUnavailable("down", self.retry_after)
        return KeyRing([OctKey.import_key("s" * 32)])


def trusted(name: str, verifier: Any, keys: RemoteKeys | None = None, **fields: Any) -> Any:
    breaker = CircuitBreaker(name, clock=detangle.now)
    return TrustedIssuer(issuer=name, verifier=verifier, breaker=breaker, keys=keys, **fields)


def remote(source: Keys, fetches: SingleFlight[str, None]) -> RemoteKeys:
    return RemoteKeys(source, fetches, monotonic=detangle.now, random=lambda: 0.5)


class Made:
    """A service, and what it was made with."""

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
    """Open a service over these verifiers; in the end nothing is under way and nothing lost."""
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
    """One layer, counted where the calls arrive."""

    async def play() -> None:
        verifier = Scripted(DOWN)
        async with serving(verifier, retry=Retry(attempts=attempts)) as service:
            assert await verdict_of(service) == DOWN
            assert len(verifier.asked) == attempts

    detangle.run(play)


@virtual
async def test_r31_the_defaults_are_those_of_the_documentation() -> None:
    """Three tries, the first pause a tenth of a second at most, all within 2.5 seconds."""
    assert Retry() == Retry(attempts=3, base=0.1, deadline=2.5)
    verifier = Scripted(DOWN)
    async with serving(verifier) as service:
        await verdict_of(service)
        assert len(verifier.asked) == 3


@pytest.mark.parametrize("verdict", [GOOD, BAD, Invalid("no", passing=True), Invalid("x", True)])
def test_r31_what_is_known_is_not_asked_again(verdict: Verdict) -> None:
    """Only an unknown verdict is worth a second try."""

    async def play() -> None:
        verifier = Scripted(verdict)
        async with serving(verifier) as service:
            assert await verdict_of(service) == verdict
            assert len(verifier.asked) == 1

    detangle.run(play)


@virtual
async def test_r31_a_blip_is_not_noticed() -> None:
    """The second or third try says who it is."""
    for blips in (1, 2):
        verifier = Scripted(*[DOWN] * blips, GOOD)
        async with serving(verifier) as service:
            assert await verdict_of(service) == GOOD
            assert len(verifier.asked) == blips + 1


@pytest.mark.parametrize("random", [0.0, 0.25, 0.5, 0.999])
def test_r31_pauses_are_fully_jittered_and_double(random: float) -> None:
    """From nothing to 0.1, 0.2 and 0.4 seconds, so that a herd disperses."""

    async def play() -> None:
        verifier = Scripted(DOWN)
        async with serving(verifier, random=random, retry=Retry(attempts=4)) as service:
            await verdict_of(service)
        times = [when for _, when in verifier.asked]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses == pytest.approx([random * 0.1, random * 0.2, random * 0.4])

    detangle.run(play)


@virtual
async def test_r31_who_is_told_to_come_later_comes_later() -> None:
    """The wait somebody asked for is waited, and the jitter on top of it."""
    verifier = Scripted(Unknown("busy", 0.75), GOOD)
    async with serving(verifier) as service:
        assert await verdict_of(service) == GOOD
        assert verifier.asked[1][1] == pytest.approx(0.75 + 0.05)


@virtual
async def test_r32_what_cannot_be_waited_for_is_not() -> None:
    """An open breaker for 15 seconds: the answer comes at once, and says how long."""
    verifier = Scripted(Unknown("open", 15.0))
    async with serving(verifier) as service:
        assert await verdict_of(service) == Unknown("open", 15.0)
        assert detangle.now() == 0
        assert len(verifier.asked) == 1


# The deadline.


@virtual
async def test_r32_a_verifier_that_hangs_is_left_at_the_deadline() -> None:
    """Nobody can tell, after 2.5 seconds, and nothing hangs on."""
    verifier = Scripted(GOOD, seconds=3600)
    async with serving(verifier) as service:
        judged = await service.authenticate("t")
        assert isinstance(judged.verdict, Unknown)
        assert detangle.now() == 2.5
        await asyncio.sleep(0)
        assert (verifier.left, service.under_way) == (1, 0)


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
    """At any slowness, waits and settings: an answer within the deadline, never a made-up one."""

    async def play() -> None:
        verifier = Scripted(*verdicts, seconds=seconds)
        async with serving(verifier, random=random, retry=Retry(attempts=attempts)) as service:
            verdict = await verdict_of(service)
            assert detangle.now() <= 2.5
            assert len(verifier.asked) <= attempts
            assert isinstance(verdict, Unknown) or verdict in verdicts

    detangle.run(play)


@virtual
async def test_r32_each_caller_has_a_deadline_of_their_own() -> None:
    """Who joins late is not sent away with the first one."""
    verifier = Scripted(GOOD, seconds=3.0)
    async with serving(verifier) as service:
        first = asyncio.create_task(verdict_of(service))
        await asyncio.sleep(1.0)
        second = asyncio.create_task(verdict_of(service))
        assert isinstance(await first, Unknown)
        assert await second == GOOD
        assert detangle.now() == 3.0
        assert len(verifier.asked) == 1


# Sharing and remembering.


@virtual
async def test_r27_the_same_credential_at_once_is_verified_once() -> None:
    """A hundred connections of one person: one verification; another credential is another."""
    verifier = Scripted(GOOD, BAD, seconds=0.1)
    async with serving(verifier) as service:
        mine = [asyncio.create_task(verdict_of(service, "t")) for _ in range(100)]
        await asyncio.sleep(0.01)
        other = asyncio.create_task(verdict_of(service, "t2"))
        await asyncio.sleep(0.01)
        assert service.under_way == 2
        assert await asyncio.gather(*mine) == [GOOD] * 100
        assert await other == BAD
        assert [credential for credential, _ in verifier.asked] == ["t", "t2"]


@virtual
async def test_r27_callers_who_leave_disturb_nobody() -> None:
    """Ninety-nine of a hundred hang up; the last one gets their answer."""
    verifier = Scripted(GOOD, seconds=1.0)
    async with serving(verifier) as service:
        callers = [asyncio.create_task(verdict_of(service)) for _ in range(100)]
        await asyncio.sleep(0.5)
        for caller in callers[:-1]:
            caller.cancel()
        assert await callers[-1] == GOOD
        assert (len(verifier.asked), verifier.left) == (1, 0)


@virtual
async def test_r28_a_good_verdict_is_remembered_with_its_age() -> None:
    """Five minutes; whoever watches sees how old the answer is."""
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
        assert len(verifier.asked) == 2


@virtual
async def test_r28_a_bad_verdict_is_remembered_briefly_and_known_to_be_bad() -> None:
    """Repeating it costs nothing; `remembers` is about good ones."""
    verifier = Scripted(BAD)
    async with serving(verifier) as service:
        for _ in range(5):
            assert await verdict_of(service) == BAD
        assert len(verifier.asked) == 1
        assert not service.remembers("t")
        await asyncio.sleep(10)
        assert await verdict_of(service) == BAD
        assert len(verifier.asked) == 2


@virtual
async def test_r22_an_unknown_verdict_is_never_remembered() -> None:
    """The moment the outage is over everybody is let in."""
    verifier = Scripted(DOWN, GOOD)
    async with serving(verifier, retry=Retry(attempts=1)) as service:
        assert await verdict_of(service) == DOWN
        assert len(service.cache) == 0
        assert await verdict_of(service) == GOOD


@virtual
async def test_r22_a_deadline_is_never_remembered() -> None:
    """Nobody could tell, which is no verdict about the credential."""
    verifier = Scripted(BAD, GOOD, seconds=10)
    async with serving(verifier) as service:
        assert isinstance(await verdict_of(service), Unknown)
        assert len(service.cache) == 0
        verifier.seconds = 0
        assert await verdict_of(service) == GOOD


@virtual
async def test_a_fault_of_ours_reaches_who_asked_and_nobody_else() -> None:
    """It is no verdict, it is not remembered, and the next one is verified again."""

    class Broken(Scripted):
        async def verify(self, credential: str, now: float) -> Verdict:
            if not self.asked:
                self.asked.append((credential, now))
                raise ZeroDivisionError
            return await super().verify(credential, now)

    async with serving(Broken(GOOD)) as service:
        with pytest.raises(ZeroDivisionError):
            await service.authenticate("t")
        assert await verdict_of(service) == GOOD


# Tickets.


@virtual
async def test_r16_a_ticket_is_redeemed_here_and_no_verifier_sees_it() -> None:
    """Once; the second time it is used up; and it is never remembered."""
    verifier = Scripted(GOOD)
    async with serving(verifier) as service:
        ticket = service.tickets.issue(MIA, "https://app.example")
        assert not service.remembers(ticket)
        judged = await service.authenticate(ticket, origin="https://app.example")
        assert judged == Judged(GOOD, 0.0)
        again = await service.authenticate(ticket, origin="https://app.example")
        assert again.verdict == Invalid("a ticket that is used up or over", expired=True)
        assert len(service.cache) == 0
        assert verifier.asked == []


@virtual
async def test_r15_a_ticket_is_held_against_the_origin_that_presents_it() -> None:
    """The page that stole it is not the page it was made for."""
    async with serving(Scripted(GOOD)) as service:
        ticket = service.tickets.issue(MIA, "https://app.example")
        judged = await service.authenticate(ticket, origin="https://attacker.example")
        assert judged.verdict == Invalid("a ticket of another origin")


@virtual
async def test_r84_a_ticket_of_somebody_revoked_is_revoked() -> None:
    """It stands for a credential that was taken back since."""
    async with serving(Scripted(GOOD)) as service:
        ticket = service.tickets.issue(MIA, None)
        service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        assert await verdict_of(service, ticket) == Invalid("revoked", revoked=True)


# Revocation.

REVOKED = Invalid("revoked", revoked=True)


@pytest.mark.parametrize("what", [{"token_id": "j1"}, {"user": "mia"}, {}])
def test_r84_a_revocation_beats_what_is_remembered(what: dict[str, str]) -> None:
    """From that moment on, however fresh the verdict is."""

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
    """It may come while the answer is on its way, and counts all the same, now and later."""
    async with serving(Scripted(GOOD, seconds=1.0)) as service:
        asking = asyncio.create_task(verdict_of(service))
        await asyncio.sleep(0.5)
        service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        assert await asking == REVOKED
        assert await verdict_of(service) == REVOKED


@virtual
async def test_r84_a_revocation_is_about_those_it_names() -> None:
    """Another person keeps what is remembered of them, another tenant too."""
    leo = Valid(Principal(tenant="acme", user="leo", expires_at=NOW + 3600, issued_at=NOW))
    verifier = Scripted(GOOD, leo)
    async with serving(verifier) as service:
        await verdict_of(service, "mine")
        await verdict_of(service, "leo's")
        service.apply(Revocation(tenant="acme", user="mia", at=NOW))
        service.apply(Revocation(tenant="other", at=NOW))
        assert service.remembers("leo's")
        assert await verdict_of(service, "leo's") == leo
        assert len(verifier.asked) == 2


@virtual
async def test_r84_who_logs_in_after_a_revocation_is_let_in() -> None:
    """A credential issued later is another one."""
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
    """Same kid, same sub: each gets the tenant of its issuer, and a forged name gets nothing."""
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
    """One issuer's outage is nothing to another's people."""
    down, up = Scripted(DOWN, takes="a"), Scripted(GOOD, takes="b")
    async with serving(down, up) as service:
        assert await verdict_of(service, "b token") == GOOD
        assert await verdict_of(service, "c token") == Invalid("no issuer of ours")
        assert down.asked == []
        assert await verdict_of(service, "a token") == DOWN
        assert len(up.asked) == 1


@virtual
async def test_an_only_issuer_judges_whatever_comes() -> None:
    """Its verdict names the fault; nothing has to be chosen."""
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
    """They are cold until then, by name; an optional one is not waited for."""
    need, more, extra = Keys("need", down=1), Keys("more"), Keys("extra", down=10**6)
    async with with_keys((need, True), (extra, False), (more, True)) as service:
        assert service.cold == ["need", "more"]
        await service.warm()
        assert service.cold == []
        assert [len(source.asked) for source in (need, more)] == [2, 1]
        assert [one.warm for one in service.issuers] == [True, False, True]
        tries = len(extra.asked)
        await asyncio.sleep(600)
        assert len(extra.asked) == tries


@virtual
async def test_r30_keys_of_an_optional_issuer_that_come_first_are_kept() -> None:
    """What was not waited for is welcome all the same."""
    need, extra = Keys("need", down=2), Keys("extra")
    async with with_keys((need, True), (extra, False)) as service:
        await service.warm()
        assert [one.warm for one in service.issuers] == [True, True]
        assert len(extra.asked) == 1


@virtual
async def test_r30_warming_goes_on_until_the_keys_are_there() -> None:
    """Pauses double up to 3.2 seconds; who says how long to wait is believed."""
    source = Keys("need", down=9)
    async with with_keys((source, True), random=0.999) as service:
        await service.warm()
        pauses = [b - a - 0.01 for a, b in itertools.pairwise(source.asked)]
        assert pauses == pytest.approx([0.0999 * 2**n for n in (0, 1, 2, 3, 4, 5, 5, 5, 5)])
    patient = Keys("need", down=2, retry_after=15.0)
    async with with_keys((patient, True)) as service:
        await service.warm()
        assert patient.asked[1] - patient.asked[0] == pytest.approx(15.01)


@virtual
async def test_an_issuer_without_keys_elsewhere_is_always_warm() -> None:
    """There is nothing to wait for."""
    async with serving(Scripted(GOOD)) as service:
        assert service.cold == []
        await service.warm()
        assert detangle.now() == 0


@virtual
async def test_r29_tending_replaces_the_keys_of_every_issuer() -> None:
    """Whether or not anybody comes, and until it is stopped."""
    one, other = Keys("one"), Keys("other")
    async with with_keys((one, True), (other, False)) as service:
        tending = asyncio.create_task(service.keep_fresh())
        await asyncio.sleep(601)
        tending.cancel()
        assert [len(source.asked) for source in (one, other)] == [2, 2]


# Outages.


@virtual
async def test_r23_an_outage_is_one_issuers() -> None:
    """Known by a failed fetch or a breaker that is not closed; nobody else's people are in it."""
    down, up = Keys("down", down=1), Keys("up")
    async with with_keys((down, True), (up, True)) as service:
        theirs, ours = (
            Principal(tenant="acme", user="mia", issuer=name) for name in ("down", "up")
        )
        assert [service.in_outage(who) for who in (theirs, ours)] == [False, False]
        service.probe(theirs)
        await asyncio.sleep(1)
        assert (len(down.asked), len(up.asked)) == (1, 0)
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
    """Verifications and fetches are cancelled, and whoever waits is let go."""
    verifier = Scripted(GOOD, seconds=2.0)
    async with serving(verifier) as service:
        asking = asyncio.create_task(verdict_of(service))
        await asyncio.sleep(0.5)
    assert verifier.left == 1
    await asyncio.wait([asking], timeout=1)
    assert asking.cancelled()


def test_r17_nothing_of_the_service_holds_a_credential() -> None:
    """Verdicts are kept and shared under digests."""

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
    """Asking for it is a mistake of ours, and says so."""
    service = AuthService.__new__(AuthService)
    service.issuers = ()
    with pytest.raises(LookupError, match="nobody"):
        service.issuer("nobody")
