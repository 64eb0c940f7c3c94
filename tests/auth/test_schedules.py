"""Authentication under explored schedules: whoever comes first, leaves or is late, its promises
hold.

The second half seeds races, each a slip somebody could make in the code as it stands, and has to
find every one of them: an exploration that finds nothing there proves nothing here either.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from typing import Any

import detangle
import pytest

from tests.kit import auth_scenarios, connection_scenarios, late_provider
from towpath import codes
from towpath.auth import service
from towpath.auth.breaker import CircuitBreaker, Permit, State, Transition
from towpath.auth.cache import VerdictCache, digest
from towpath.auth.connection_auth import Authenticated, ConnectionAuth
from towpath.auth.jwks import RemoteKeys
from towpath.auth.keys import KeyRing
from towpath.auth.provider import IdentityProvider
from towpath.auth.service import AuthService, Judged
from towpath.auth.single_flight import SingleFlight, _Flight
from towpath.auth.tickets import Tickets
from towpath.auth.tokens import KeysUnavailable
from towpath.auth.verdicts import Valid, Verdict
from towpath.connections import client_connection
from towpath.connections.client_connection import ClientConnection
from towpath.connections.commands import CommandHandler
from towpath.connections.expiry import Expiry
from towpath.identity import Principal
from towpath.protocol.states import State as Stage

RUNS = 1000
SEEDED_RUNS = 3000
"""At most; a seeded race is found within a few hundred, most within ten."""
Scenario = Callable[[], Awaitable[None]]


def explored(scenario: Scenario, runs: int = RUNS) -> detangle.ExploreStats:
    """Explore a scenario under this many schedules, with a strategy of its own."""
    return detangle.explore(
        scenario,  # type: ignore[arg-type]
        runs=runs,
        strategy=detangle.RandomWalk(),
        database=False,
        shrink=False,
        check_leaks=True,
    )


def assert_found(scenario: Scenario, *promises: str) -> None:
    """Assert that the exploration finds the seeded race, by a promise that it breaks."""
    with pytest.raises(detangle.BugFound, match="|".join(promises)):
        explored(scenario, SEEDED_RUNS)


def test_r27_riders_share_one_flight_and_leave_nothing() -> None:
    """Whichever waiter is cancelled, the others get the outcome, and no work runs for nobody."""
    assert explored(auth_scenarios.waiters).distinct_schedules > RUNS / 2


def test_flights_that_are_closed_keep_nobody_waiting() -> None:
    """Whenever all work is cancelled at the exit, no waiter is left waiting."""
    assert explored(auth_scenarios.closing).distinct_schedules > RUNS / 2


def test_r27_one_credential_is_verified_once_at_a_time() -> None:
    """Whoever presents it and is cancelled, a credential is verified once, with its own verdict."""
    assert explored(auth_scenarios.callers).distinct_schedules > RUNS / 2


def test_r24_r25_a_half_open_breaker_lets_one_call_through() -> None:
    """One call is the probe of a half-open breaker, and older calls do not count."""
    assert explored(auth_scenarios.probes).distinct_schedules > RUNS / 2


def test_r29_rotation_and_outages_refuse_no_published_key() -> None:
    """However keys rotate and the provider flaps, published keys are accepted, and no others."""
    assert explored(auth_scenarios.rotation).distinct_schedules > RUNS / 2


def test_r31_r32_a_provider_that_is_down_is_asked_as_often_as_set() -> None:
    """During an outage each caller gets a true verdict in time, with no more attempts than set."""
    assert explored(auth_scenarios.retries).distinct_schedules > RUNS / 2


def test_r28_nothing_revoked_is_taken_whatever_was_first() -> None:
    """Verified, cached or pending: a revoked credential is never accepted afterwards."""
    assert explored(auth_scenarios.revocations).distinct_schedules > RUNS / 2


def test_r16_a_ticket_is_good_once() -> None:
    """Of concurrent redemptions of a ticket one succeeds."""
    assert explored(auth_scenarios.tickets).distinct_schedules > RUNS / 2


def test_r84_r85_renewal_expiry_and_revocation_meet() -> None:
    """In any order on an open connection: one reply each, one deadline, one end."""
    assert explored(connection_scenarios.lifetimes).distinct_schedules > RUNS / 2


def test_r26_an_outage_ends_no_connection_and_opens_none() -> None:
    """In an outage open connections stay, and new ones are refused."""
    assert explored(connection_scenarios.outages).distinct_schedules > RUNS / 2


def test_r22_nothing_is_left_of_who_leaves_while_connecting() -> None:
    """Whenever a client disconnects or is refused, its early commands waited, and it is gone."""
    assert explored(connection_scenarios.arrivals).distinct_schedules > RUNS / 2


ALL_RIDE = (
    "nobody else's leaving cancels anybody",
    "no outcome of a flight that was over",
    "nobody rides any more",
    "what was begun is done",
    "one flight at a time",
)
"""What a slip in flights may break first."""
Work = Callable[[], Awaitable[Any]]
Patch = pytest.MonkeyPatch


def test_a_leader_that_takes_its_riders_along_is_found(monkeypatch: Patch) -> None:
    """The first waiter does the work itself, so its cancellation ends it for all: found."""

    async def share(self: SingleFlight[Hashable, Any], key: Hashable, work: Work) -> Any:
        if (flight := self._flights.get(key)) is not None:
            return await asyncio.shield(flight.outcome)
        flight = self._flights[key] = _Flight(asyncio.get_running_loop().create_future())
        try:
            flight.outcome.set_result(await work())
        except KeysUnavailable as error:
            flight.outcome.set_exception(error)
        except asyncio.CancelledError:
            flight.outcome.cancel()
            raise
        finally:
            self._forget(key, flight)
        return await flight.outcome

    monkeypatch.setattr(SingleFlight, "share", share)
    assert_found(auth_scenarios.waiters, *ALL_RIDE)


def test_a_flight_forgotten_too_late_is_found(monkeypatch: Patch) -> None:
    """A completed flight is known for a moment too long, so a caller gets an old outcome: found."""
    real = SingleFlight._forget

    def forget(self: SingleFlight[Hashable, Any], key: Hashable, flight: _Flight[Any]) -> None:
        asyncio.get_running_loop().call_soon(real, self, key, flight)

    monkeypatch.setattr(SingleFlight, "_forget", forget)
    assert_found(auth_scenarios.waiters, *ALL_RIDE)


def test_a_cancelled_flight_that_takes_riders_is_found(monkeypatch: Patch) -> None:
    """A cancelled flight still accepts waiters, who are cancelled with it: found."""

    def cancel(self: SingleFlight[Hashable, Any], key: Hashable, flight: _Flight[Any]) -> None:
        assert flight.task is not None
        flight.task.cancel()

    monkeypatch.setattr(SingleFlight, "_cancel", cancel)
    assert_found(auth_scenarios.waiters, *ALL_RIDE)


def test_a_flight_begun_for_nobody_and_lost_is_found(monkeypatch: Patch) -> None:
    """The last waiter of background work cancels it, if a waiter started it first: found."""

    def begin(self: SingleFlight[Hashable, Any], key: Hashable, work: Work) -> None:
        if key not in self:
            self._begin(key, work).alone = True

    monkeypatch.setattr(SingleFlight, "begin", begin)
    assert_found(auth_scenarios.waiters, "what was begun is done")


def test_a_pause_before_a_flight_begins_is_found(monkeypatch: Patch) -> None:
    """An await between the look-up and the start allows two flights of one key: found."""
    real = SingleFlight.share

    async def share(self: SingleFlight[Hashable, Any], key: Hashable, work: Work) -> Any:
        seen = self._flights.get(key)
        await asyncio.sleep(0)
        if seen is None:
            self._flights.pop(key, None)
        return await real(self, key, work)

    monkeypatch.setattr(SingleFlight, "share", share)
    assert_found(auth_scenarios.waiters, *ALL_RIDE)


def test_a_flight_that_goes_on_for_nobody_is_found(monkeypatch: Patch) -> None:
    """The last cancelled waiter does not cancel the work: found."""
    monkeypatch.setattr(SingleFlight, "_cancel", lambda *_: None)
    assert_found(auth_scenarios.waiters, "nobody rides any more")
    assert_found(auth_scenarios.callers, "nobody waits, so nothing is under way")
    assert_found(connection_scenarios.arrivals, "nothing is found out for who left")


def test_a_flight_that_never_says_it_was_closed_is_found(monkeypatch: Patch) -> None:
    """Work closed before its first step never ends the wait of its waiters: found."""
    monkeypatch.setattr(SingleFlight, "_finish", lambda *_: None)
    assert_found(auth_scenarios.closing, "nobody waits for what will not come")


def test_a_failure_dressed_up_by_flights_is_found(monkeypatch: Patch) -> None:
    """Where flights take what went wrong round them for their own, its reason is lost."""

    async def leave(self: SingleFlight[Hashable, Any], *failure: Any) -> None:
        await self._group.__aexit__(*failure)

    monkeypatch.setattr(SingleFlight, "__aexit__", leave)
    assert_found(auth_scenarios.closing, "ExceptionGroup")


def test_a_verdict_kept_under_less_than_the_credential_is_found(monkeypatch: Patch) -> None:
    """A cache key that is not the whole credential returns another one's verdict: found."""
    monkeypatch.setattr(service, "digest", lambda credential: digest(credential[:64]))
    assert_found(auth_scenarios.callers, "nobody else's verdict")


def test_an_abandoned_probe_that_keeps_its_slot_is_found(monkeypatch: Patch) -> None:
    """A cancelled probe that is not reported blocks the breaker for ever: found."""
    real = CircuitBreaker.tell

    def tell(self: CircuitBreaker, move: Transition, generation: int) -> None:
        if move is not Transition.ABANDON:
            real(self, move, generation)

    monkeypatch.setattr(CircuitBreaker, "tell", tell)
    assert_found(auth_scenarios.probes, "the slot is free")


def test_a_breaker_that_ignores_generations_is_found(monkeypatch: Patch) -> None:
    """The result of an older call moves a breaker of a later generation: found."""
    real = CircuitBreaker.tell

    def tell(self: CircuitBreaker, move: Transition, generation: int) -> None:
        if self.state is not State.OPEN:
            real(self, move, self._generation)

    monkeypatch.setattr(CircuitBreaker, "tell", tell)
    assert_found(auth_scenarios.probes, "no call of an older generation moves it")


def test_a_half_open_breaker_that_lets_all_through_is_found(monkeypatch: Patch) -> None:
    """A half-open breaker allows every call, so the provider gets all of them: found."""
    real = CircuitBreaker.admit

    def admit(self: CircuitBreaker) -> Permit:
        return Permit(self, self._generation) if self.state is State.HALF_OPEN else real(self)

    monkeypatch.setattr(CircuitBreaker, "admit", admit)
    assert_found(auth_scenarios.probes, "one probe")


def test_absence_proved_by_older_keys_is_found(monkeypatch: Patch) -> None:
    """Keys fetched before the lookup prove absence, so a rotated key is invalid: found."""
    real = RemoteKeys._search

    async def search(self: RemoteKeys, kid: str, algorithm: str) -> Any:
        if self.issuer not in self._flights:
            return await real(self, kid, algorithm)
        await self.fetch()
        return self._ring.find(kid, algorithm)

    monkeypatch.setattr(RemoteKeys, "_search", search)
    assert_found(auth_scenarios.rotation, "a published key is never called foreign")


def test_a_failed_fetch_that_wipes_the_keys_is_found(monkeypatch: Patch) -> None:
    """A failed fetch drops the known keys, so a short outage refuses users: found."""
    real = RemoteKeys._fetch

    async def fetch(self: RemoteKeys) -> None:
        try:
            await real(self)
        except KeysUnavailable:
            if self._fetched is not None:
                self._fetched = replace(self._fetched, began=-math.inf)
            raise

    monkeypatch.setattr(RemoteKeys, "_fetch", fetch)
    assert_found(auth_scenarios.rotation, "inside the window a hiccup is nobody's business")


def test_keys_believed_for_ever_are_found(monkeypatch: Patch) -> None:
    """Old keys never expire, so an outage keeps a withdrawn key valid: found."""
    monkeypatch.setattr(RemoteKeys, "warm", property(lambda self: self._fetched is not None))
    assert_found(auth_scenarios.rotation, "a withdrawn key is believed no more")


def test_a_retry_that_does_not_ask_the_breaker_is_found(monkeypatch: Patch) -> None:
    """Retries skip the breaker, so an open one protects nothing: found."""

    def admit(self: CircuitBreaker) -> Permit:
        return Permit(self, self._generation if self.state is State.CLOSED else -1)

    monkeypatch.setattr(CircuitBreaker, "admit", admit)
    assert_found(auth_scenarios.retries, "an open breaker is asked before each try")


def test_a_second_layer_of_retries_is_found(monkeypatch: Patch) -> None:
    """A lower layer retries too, so attempts multiply: found."""
    real = IdentityProvider.fetch

    async def fetch(self: IdentityProvider) -> KeyRing:
        try:
            return await real(self)
        except KeysUnavailable:
            return await real(self)

    monkeypatch.setattr(IdentityProvider, "fetch", fetch)
    assert_found(auth_scenarios.retries, "one layer tries again")


def test_a_deadline_for_each_try_instead_of_all_is_found(monkeypatch: Patch) -> None:
    """A deadline per call instead of one for all adds up: found."""

    async def authenticate(
        self: AuthService, credential: str, *, origin: str | None = None
    ) -> Judged:
        key = digest(credential)
        return Judged(await self._verdicts.share(key, lambda: self._find_out(key, credential)))

    monkeypatch.setattr(AuthService, "authenticate", authenticate)
    assert_found(auth_scenarios.retries, "in time")


def test_an_outage_turned_into_a_refusal_is_found(monkeypatch: Patch) -> None:
    """A lower layer reports "no such key" for an outage, so users are refused: found."""
    real = RemoteKeys.find

    async def find(self: RemoteKeys, kid: str | None, algorithm: str) -> Any:
        try:
            return await real(self, kid, algorithm)
        except KeysUnavailable:
            return None

    monkeypatch.setattr(RemoteKeys, "find", find)
    assert_found(auth_scenarios.retries, "an outage says nothing about a credential")
    assert_found(auth_scenarios.rotation, "a published key is never called foreign")


def test_a_verdict_remembered_past_its_revocation_is_found(monkeypatch: Patch) -> None:
    """Revocations are checked before a verdict is cached, not when it is returned: found."""
    check, real = (
        AuthService._unless_revoked,
        AuthService._persist,
    )

    async def persist(self: AuthService, *args: Any) -> Verdict:
        verdict = check(self, await real(self, *args))
        await asyncio.sleep(detangle.choice(late_provider.MOMENTS))
        return verdict

    monkeypatch.setattr(AuthService, "_persist", persist)
    monkeypatch.setattr(AuthService, "_unless_revoked", lambda self, verdict: verdict)
    assert_found(auth_scenarios.revocations, "nothing is taken that was taken back")


def test_a_revocation_that_trips_over_an_old_verdict_is_found(monkeypatch: Patch) -> None:
    """A verdict expires while it is dropped, so the revocation raises: found."""

    def forget(self: VerdictCache, named: Callable[[Principal], bool]) -> None:
        for key, entry in list(self._entries.items()):
            if isinstance(entry.verdict, Valid) and named(entry.verdict.principal):
                del self._entries[key]

    monkeypatch.setattr(VerdictCache, "forget", forget)
    assert_found(auth_scenarios.revocations, "KeyError")


def test_a_ticket_used_up_too_late_is_found(monkeypatch: Patch) -> None:
    """A ticket is checked first and used up later, so two redemptions succeed: found."""
    real = Tickets.redeem

    def redeem(self: Tickets, ticket: str, origin: str | None, now: float) -> Verdict:
        kept = self._waiting.get(digest(ticket))
        verdict = real(self, ticket, origin, now)
        if kept is not None:
            self._waiting[digest(ticket)] = kept
            asyncio.get_running_loop().call_soon(self._waiting.pop, digest(ticket), None)
        return verdict

    monkeypatch.setattr(Tickets, "redeem", redeem)
    assert_found(auth_scenarios.tickets, "one use", "the first one's")


def test_a_renewal_that_comes_after_the_end_is_found(monkeypatch: Patch) -> None:
    """A refresh is accepted without a check that the connection is open: found."""
    real = CommandHandler._refresh

    async def refresh(self: CommandHandler, number: int, token: str) -> Any:
        made = await self._parts.connection_auth.refresh(
            self.session.principal, token, self._upgrade, connection=self.subscriber.id
        )
        if isinstance(made, Authenticated):
            self._renew(made.principal)
        return await real(self, number, token)

    monkeypatch.setattr(CommandHandler, "_refresh", refresh)
    assert_found(
        connection_scenarios.lifetimes, "changes nothing", "one deadline", "the first cause"
    )


def test_a_renewal_that_keeps_the_old_deadline_is_found(monkeypatch: Patch) -> None:
    """A refresh does not move the deadline, so there are two: found."""
    real = Expiry.watch

    def watch(self: Expiry) -> None:
        if self._keepalive._expires_at is None:
            real(self)

    monkeypatch.setattr(Expiry, "watch", watch)
    assert_found(connection_scenarios.lifetimes, "one deadline", "the first cause")


def test_words_after_a_revocation_are_found(monkeypatch: Patch) -> None:
    """Waiting bytes are still written after a revocation: found."""
    monkeypatch.setattr(
        client_connection, "AT_ONCE", client_connection.AT_ONCE - {codes.NOT_ALLOWED}
    )
    assert_found(connection_scenarios.lifetimes, "once revoked, nothing but the close frame")


def test_a_pause_between_verdict_and_hub_is_found(monkeypatch: Patch) -> None:
    """An await between verdict and hub lets a revocation miss the connection: found."""
    real = ConnectionAuth.authenticate_websocket_connection

    async def pausing(self: ConnectionAuth, *args: Any, **kwargs: Any) -> Any:
        verdict = await real(self, *args, **kwargs)
        await asyncio.sleep(detangle.choice(late_provider.MOMENTS))
        return verdict

    monkeypatch.setattr(ConnectionAuth, "authenticate_websocket_connection", pausing)
    assert_found(connection_scenarios.lifetimes, "nobody is let in with what was taken back")


def test_somebody_left_in_the_hub_is_found(monkeypatch: Patch) -> None:
    """Clean-up skips a connection that was never accepted, so it stays in the hub: found."""
    real = ClientConnection._clean_up

    def abandon(self: ClientConnection) -> None:
        if self._protocol.state is Stage.AUTHENTICATING:
            self._commands = None
        real(self)

    monkeypatch.setattr(ClientConnection, "_clean_up", abandon)
    assert_found(connection_scenarios.arrivals, "who left is not there")
