"""Scenarios for explored schedules: judging credentials while everything around it may be late.

Each is a coroutine function without arguments for `detangle.explore`. It lets callers come and go
at once, over a provider that answers when the explorer likes or not at all, and checks what must
hold whoever was first.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from typing import Any

import detangle

from tests.kit.auth_world import AuthWorld
from tests.kit.late_provider import DOWN, FLAPPING, MOMENTS, WELL, token
from towpath import codes
from towpath.auth.breaker import State
from towpath.auth.connection_auth import Authenticated
from towpath.auth.handshake import UpgradeInfo
from towpath.auth.jwks import MAX_BACKOFF, Freshness
from towpath.auth.revocations import Revocation
from towpath.auth.service import Retry
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import TICKET_SECONDS
from towpath.auth.tokens import KeysUnavailable
from towpath.auth.verdicts import Invalid, Unknown, Valid, Verdict
from towpath.errors import Unavailable
from towpath.identity import Principal
from towpath.telemetry import KeysFetched, TelemetryEvent

MOMENT = 1e-6
"""Less than this apart is the same time."""
ALICE = Principal(tenant="acme", user="alice")


def leaving(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Begin something that the explorer may cancel, at one of its awaits or at some moment."""
    task = asyncio.ensure_future(work)
    if detangle.flip(0.5):
        detangle.inject_cancellation(task, points=4)
    elif detangle.flip(0.5):
        moment = detangle.choice((*MOMENTS, 0.4, 0.5))
        asyncio.get_running_loop().call_later(moment, task.cancel)
    return task


async def settled(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Wait for tasks, and raise what one of them raised; only who was cancelled may be so."""
    tasks = list(tasks)
    await asyncio.wait(tasks)
    for task in tasks:
        assert task.cancelling() or not task.cancelled(), "nobody else's leaving cancels anybody"
        if not task.cancelled():
            task.result()


class Errand:
    """Work for a flight: how it ends is up to the explorer, and its ends are numbered."""

    def __init__(self) -> None:
        self.ended = 0
        self._under_way: asyncio.Task[Any] | None = None

    async def __call__(self) -> int:
        other, self._under_way = self._under_way, asyncio.current_task()
        assert other is None or other.cancelling(), "one flight at a time"
        await asyncio.sleep(detangle.choice(MOMENTS))
        self.ended += 1
        self._under_way = None
        if detangle.flip(0.2):
            raise KeysUnavailable(str(self.ended))
        return self.ended


class Riding:
    """Flights with one errand."""

    def __init__(self) -> None:
        self.errand = Errand()
        self.calls = 0
        """How many riders have asked."""
        self.lost: list[Exception] = []
        self.flights: SingleFlight[str, int] = SingleFlight(self.lost.append)

    async def ride(self) -> None:
        """Share a flight; its outcome has to be one that was to come when this began."""
        await asyncio.sleep(detangle.choice(MOMENTS))
        self.calls, request = self.calls + 1, self.errand.ended
        try:
            outcome = await self.flights.share("there", self.errand)
        except KeysUnavailable as failure:
            outcome = int(failure.reason)
        assert outcome > request, "no outcome of a flight that was over"

    async def begin(self) -> None:
        """Begin a flight for nobody; it has to be flown to its end."""
        await asyncio.sleep(detangle.choice(MOMENTS))
        begun = self.errand.ended
        self.flights.begin("there", self.errand)
        while len(self.flights):  # noqa: ASYNC110 - the time is virtual
            await asyncio.sleep(0.1)
        assert self.errand.ended > begun, "what was begun is done"


async def waiters() -> None:
    """Riders of a flight come and leave: who stays gets the outcome of a flight that was under way,
    what was begun for nobody is done, and nothing else goes on."""
    world = Riding()
    async with world.flights:
        riding = [leaving(world.ride()) for _ in range(detangle.choice((2, 3, 4)))]
        if detangle.flip(0.5):
            riding.append(asyncio.create_task(world.begin()))
        await settled(riding)
        assert not len(world.flights), "nobody rides any more, so nothing flies"
    assert all(isinstance(one, KeysUnavailable) for one in world.lost), "one flight at a time"


async def closing() -> None:
    """Flights are closed while somebody waits for them, or because something else went wrong:
    everybody goes on, what went wrong is not dressed up, and nothing is left."""
    world = Riding()
    riding = [asyncio.create_task(world.ride()) for _ in range(3)]
    try:
        async with world.flights:
            while world.calls < len(riding):  # noqa: ASYNC110 - the time is virtual
                await asyncio.sleep(0.1)
            if detangle.flip(0.5):
                raise Unavailable("outside")
    except Unavailable:
        pass  # `suppress` would look into a group too, and so miss what is looked for here.
    await asyncio.wait(riding, timeout=60.0)
    assert all(task.done() for task in riding), "nobody waits for what will not come"
    assert not len(world.flights), "nothing is left"


async def callers() -> None:
    """Many present one credential at once, some leave: it is verified once at a time, and everybody
    who stays gets the verdict about their own credential."""
    async with AuthWorld().open() as world:

        async def call(user: str) -> None:
            await asyncio.sleep(detangle.choice(MOMENTS))
            judged = await world.service.authenticate(token(user))
            assert isinstance(judged.verdict, Valid), "whoever stays gets an answer"
            assert judged.verdict.principal.user == user, "nobody else's verdict"

        await settled(leaving(call(user)) for user in ("alice", "alice", "alice", "bob", "bob"))
        assert world.service.under_way == 0, "nobody waits, so nothing is under way"


class Probed(AuthWorld):
    """A world whose breaker half-opens while everybody calls."""

    RESET = 0.4

    def __init__(self) -> None:
        super().__init__(failure_threshold=2, reset_timeout=self.RESET, keys_timeout=0.7)
        self.strays: list[str] = []
        """Moves of the breaker that were none of the mover's business."""
        self._generation = 0
        self._admitted: dict[asyncio.Task[Any] | None, int] = {}
        self._calls: Counter[int] = Counter()

    def arrived(self) -> None:
        self._admitted[asyncio.current_task()] = self._generation
        self._calls[self._generation] += 1
        assert self.breaker.state is not State.OPEN, "nothing gets through an open breaker"
        if self.breaker.state is State.HALF_OPEN:
            assert self._calls[self._generation] == 1, "one probe"

    def moved(self, name: str, before: State, after: State) -> None:
        mover = self._admitted.get(asyncio.current_task(), self._generation)
        if after is not State.HALF_OPEN and mover != self._generation:
            self.strays.append(f"{before.value} to {after.value}")
        self._generation += 1

    async def call(self) -> None:
        """Ask the provider, whatever comes of it."""
        await asyncio.sleep(detangle.choice((0.0, 0.1, 0.5, 0.5, 0.6, 0.7)))
        try:
            await self.source.fetch()
        except KeysUnavailable:
            return


async def probes() -> None:
    """Everybody calls at once as the breaker half-opens, and some leave: one call gets through, no
    call of an older generation moves the breaker, and who left leaves the slot free."""
    async with Probed().open() as world:
        world.provider.outcomes = FLAPPING
        calling = [leaving(world.call()) for _ in range(10)]
        await asyncio.sleep(0.1)
        for _ in range(world.breaker.failure_threshold):
            world.breaker.record_failure()
        await settled(calling)
        assert world.strays == [], "no call of an older generation moves it"
        world.provider.outcomes = WELL
        await asyncio.sleep(2 * world.RESET)
        assert world.breaker.retry_after == 0, "the slot is free"
        await world.source.fetch()
        assert world.breaker.state is State.CLOSED, "it heals with one probe"


class Rotating(AuthWorld):
    """A world whose keys rotate."""

    def __init__(self) -> None:
        freshness, self._remembered = Freshness(fresh=0.4, stale=1.2, cooldown=0.3, absent=0.5), 0.2
        super().__init__(freshness=freshness, keys_timeout=0.7, verdict_seconds=self._remembered)
        self._window = freshness.fresh + freshness.stale
        self._believed_until = 0.0
        """Until when keys are believed that are known to have arrived."""
        self._withdrawn: dict[str, float] = {}
        self.telemetry.add_observer(self._watch)

    async def rotate(self, new: str) -> None:
        """Publish a new key, perhaps withdraw the oldest, and have somebody log in."""
        await asyncio.sleep(detangle.choice((*MOMENTS, 0.6)))
        self.provider.published.append(new)
        if detangle.flip(0.7):
            self._withdrawn[self.provider.published.pop(0)] = detangle.now()
        await asyncio.sleep(detangle.choice(MOMENTS))
        await self._present(new, "login")

    async def present(self, number: int) -> None:
        """Present a token signed with a key that is published, or was to begin with."""
        await asyncio.sleep(detangle.choice((*MOMENTS, 0.6, 0.8, 1.1, 2.6)))
        await self._present(detangle.choice(("key-1", *self.provider.published)), str(number))

    async def forge(self, kid: str | None) -> None:
        """Present a token signed with a key that never was published."""
        await asyncio.sleep(detangle.choice(MOMENTS))
        verdict = await self.judge(token("alice", signed_with="never", kid=kid))
        assert not isinstance(verdict, Valid), "a key that never was published opens nothing"

    async def judge(self, credential: str) -> Verdict:
        """Return the verdict about a credential."""
        return (await self.service.authenticate(credential)).verdict

    async def _present(self, key: str, jti: str) -> None:
        """Present a token signed with this key, and check the verdict by what is published."""
        sure = detangle.now() + max(MOMENTS) < self._believed_until - MOMENT
        verdict = await self.judge(token("alice", signed_with=key, jti=jti))
        if key not in self.provider.published:
            believed = self._withdrawn[key] + self._window + self._remembered
            late = detangle.now() > believed + MOMENT
            assert not (late and isinstance(verdict, Valid)), "a withdrawn key is believed no more"
            return
        assert not isinstance(verdict, Invalid), "a published key is never called foreign"
        if key == "key-1" and sure:
            assert isinstance(verdict, Valid), "inside the window a hiccup is nobody's business"

    def _watch(self, happening: TelemetryEvent) -> None:
        if isinstance(happening, KeysFetched) and not happening.failure:
            self._believed_until = detangle.now() - happening.seconds + self._window


async def rotation() -> None:
    """Keys rotate while tokens are verified and the provider flaps: no token is refused whose key
    is published, none is taken whose key never was or has long been withdrawn."""
    async with Rotating().open() as world:
        if detangle.flip(0.5):
            await world.keys.fetch()
        world.provider.outcomes = detangle.choice((WELL, FLAPPING, DOWN))
        work = [world.rotate("key-2"), world.rotate("key-3"), world.forge(None)]
        work += [world.forge("key-1"), *(world.present(number) for number in range(3))]
        await settled([*map(asyncio.create_task, work), leaving(world.present(3))])
        world.provider.outcomes = WELL
        await asyncio.sleep(MAX_BACKOFF)
        for key in world.provider.published:
            healed = await world.judge(token("alice", signed_with=key, jti="late"))
            assert isinstance(healed, Valid), "it heals by itself"


class Failing(AuthWorld):
    """A world whose provider is down, and whose settings the explorer chooses."""

    def __init__(self) -> None:
        retry = Retry(attempts=detangle.choice((1, 2, 3)))
        super().__init__(retry=retry, failure_threshold=detangle.choice((2, 3, 4)))
        self.provider.outcomes = DOWN

    def arrived(self) -> None:
        assert self.breaker.state is State.CLOSED, "an open breaker is asked before each try"

    async def call(self, user: str) -> None:
        """Present a token; the truth is that nobody can tell, and it does not take long."""
        await asyncio.sleep(detangle.choice((*MOMENTS, 1.0)))
        began = detangle.now()
        judged = await self.service.authenticate(token(user))
        assert isinstance(judged.verdict, Unknown), "an outage says nothing about a credential"
        assert detangle.now() - began <= self.service.retry.deadline + MOMENT, "in time"

    def check(self) -> None:
        """Check how often the provider was asked."""
        failed = [one for one in self.events if isinstance(one, KeysFetched)]
        failed = [one for one in failed if one.failure != "abandoned"]
        tries, attempts = self.verifier.attempts, self.service.retry.attempts
        assert max(tries.values()) <= attempts, "a flight tries as often as the setting says"
        assert self.provider.calls <= sum(tries.values()), "one layer tries again"
        opened = self.breaker.state is State.OPEN
        assert opened == (len(failed) == self.breaker.failure_threshold), "the nth failure opens it"


async def retries() -> None:
    """The provider is down and many call: each is answered in time, each flight tries as often as
    the setting says, and the breaker ends it for all."""
    async with Failing().open() as world:
        await settled(
            asyncio.create_task(world.call(user)) for user in ("alice", "alice", "alice", "bob")
        )
        world.check()


class Revoking(AuthWorld):
    """A world in which something of alice's is taken back."""

    def __init__(self) -> None:
        super().__init__(verdict_seconds=detangle.choice((0.2, 300.0)))
        self._revocation: Revocation | None = None

    async def revoke(self) -> None:
        """Take alice's token, everything of hers, or her whole tenant back."""
        await asyncio.sleep(detangle.choice((*MOMENTS, 0.4, 0.5)))
        what = detangle.choice(({"token_id": "a"}, {"user": "alice"}, {}))
        self._revocation = Revocation(tenant="acme", at=self.wall_clock(), **what)
        self.service.apply(self._revocation)

    async def call(self, user: str, tenant: str = "acme") -> None:
        """Present the same token twice; each verdict has to be true as it comes."""
        for _ in range(2):
            await asyncio.sleep(detangle.choice(MOMENTS))
            credential = token(user, tenant=tenant, jti=user[:1])
            verdict = (await self.service.authenticate(credential)).verdict
            who = Principal(tenant=tenant, user=user, token_id=user[:1])
            if self._revocation is not None and self._revocation.names(who):
                assert isinstance(verdict, Invalid), "nothing is taken that was taken back"
                assert verdict.revoked, "and it says why"
            else:
                assert isinstance(verdict, Valid), "nobody else's is"

    async def return_later(self) -> None:
        """Present what alice got after it all, when no clock may be that far ahead."""
        await asyncio.sleep(40.0)
        credential = token("alice", issued=detangle.now(), jti="new")
        verdict = (await self.service.authenticate(credential)).verdict
        assert isinstance(verdict, Valid), "who logs in again is let in"


async def revocations() -> None:
    """Something is taken back while it is verified, remembered and asked for: from then on it is
    good for nothing, and whatever is not concerned is as good as before."""
    async with Revoking().open() as world:
        calling = [world.call("alice") for _ in range(3)]
        calling += [world.call("alan"), world.call("alice", "elsewhere"), world.revoke()]
        await settled([*map(asyncio.create_task, calling), leaving(world.call("alice"))])
        await world.return_later()


class Redeeming(AuthWorld):
    """A world in which one ticket is in many hands."""

    def __init__(self) -> None:
        super().__init__()
        self.ticket = self.service.tickets.issue(ALICE, "https://chat.example")
        self.first: tuple[str, float] | None = None
        """Origin and time of the first who came with it."""
        self.admitted = 0

    async def redeem(self) -> None:
        """Come with the ticket, from its origin or another, in time or not."""
        await asyncio.sleep(detangle.choice((*MOMENTS, 0.5, TICKET_SECONDS + 1)))
        origin = detangle.choice((*3 * ("https://chat.example",), "https://other.example"))
        again, self.first = self.first is not None, self.first or (origin, detangle.now())
        handshake = UpgradeInfo(origin=origin, ticket=self.ticket)
        made = await self.auth.authenticate_websocket_connection("", handshake, connection="")
        if isinstance(made, Authenticated):
            assert made.principal == ALICE, "it stands for whoever asked for it"
            self.admitted += 1
        elif again:
            assert made.code is codes.TOKEN_EXPIRED, "one use: a second one asks for a new ticket"


async def tickets() -> None:
    """Many come with one ticket at once, some leave: whoever was first gets what it is worth, and
    nobody else anything."""
    async with Redeeming().open() as world:
        await settled(leaving(world.redeem()) for _ in range(8))
        if world.first is None:
            return
        origin, at = world.first
        good = origin == "https://chat.example" and at < TICKET_SECONDS
        assert world.admitted <= 1, "one use"
        assert world.admitted == int(good), "the first one's"
