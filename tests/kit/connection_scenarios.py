"""Scenarios for explored schedules: connections whose right to be there begins, changes and ends.

Each is a coroutine function without arguments for `detangle.explore`. What is checked is what a
client can see: what was written to it, and when.
"""

import asyncio
from typing import Any

import detangle
import msgspec

from tests.kit.auth_scenarios import MOMENT, leaving, settled
from tests.kit.connection_world import PACES, ConnectionWorld, Visit
from tests.kit.late_provider import DOWN, EPOCH, FLAPPING, MOMENTS, WELL, token
from tests.kit.transport import Written
from towpath import codes
from towpath.auth.cache import digest
from towpath.auth.connection_auth import Grace
from towpath.auth.jwks import Freshness
from towpath.auth.revocations import Revocation
from towpath.channels import user_channel
from towpath.codes import CloseCode
from towpath.delivery.subscriber import Subscriber
from towpath.identity import Principal
from towpath.log.broker import Append, Item, Write, write
from towpath.methods.method import Caller
from towpath.telemetry import ConnectionOpened, CredentialRefused, SessionsRevoked, TelemetryEvent

OPERATOR = Principal(tenant="acme", user="olga", roles=frozenset({"towpath:operator"}))
ENDS = {"first": 1.0, "longer": 6.0, "shorter": 0.6, "over": -100.0}
"""When alice's credentials end, by their `jti`, in seconds."""


class Lifetime(ConnectionWorld):
    """A world in which alice's credential is renewed, expires and is taken back, all at once."""

    GRACE = 0.5

    def __init__(self) -> None:
        super().__init__(grace=Grace(expiry=self.GRACE, outage=0.0))
        self.alice = self.visit(_credential("first"))
        self.bob = self.visit(token("bob"))
        self._causes: set[int] = set()
        """What ends her connection, if not its time: the first cause there was."""
        self._principal: Principal | None = None
        """Who she was when it came."""
        self._revocation: Revocation | None = None
        self._revocation_applied = False
        """Whether everybody knows of it."""
        self._seen: int | None = None
        """How much had been written to her when her right was taken back."""
        self._too_late = False
        """Whether she was let in after that."""
        self.telemetry.add_observer(self._watch)

    async def renew(self) -> None:
        """Be alice: connect, and bring one credential after the other."""
        self.alice.socket.say(self.alice.connect())
        for _ in range(3):
            await asyncio.sleep(detangle.choice(MOMENTS))
            self.alice.socket.say(self._command())
        if detangle.flip(0.2):
            self.alice.socket.leave()

    async def stay(self) -> None:
        """Be bob: connect, and be left alone."""
        self.bob.socket.say(self.bob.connect())
        await asyncio.sleep(10.0)
        self.bob.socket.leave()

    async def take_back(self) -> None:
        """Be the operator: take something back, hers or not."""
        await asyncio.sleep(detangle.choice((*MOMENTS, 0.5, 0.8, 1.3, 1.5)))
        given = detangle.choice(
            ({"jti": "first"}, {"jti": "longer"}, {"user": "alice"}, {"user": "bob"})
        )
        self._revocation = Revocation(
            tenant="acme", at=0.0, token_id=given.get("jti"), user=given.get("user")
        )
        data = msgspec.json.encode({"request_id": "r", **given})
        await self.methods.call("session.revoke", data, Caller(principal=OPERATOR))

    async def publish(self) -> None:
        """Be the application: tell people things, one and a few at once."""
        for user in ("bob", "alice", "alice"):
            await asyncio.sleep(detangle.choice((*MOMENTS, 0.6)))
            for _ in range(3):
                item = Item(msgspec.json.encode({"for": user}), {})
                await write(self.broker, Write((Append(user_channel("acme", user), (item,)),)))

    def check(self) -> None:
        """Check what alice saw, now that it is over."""
        for frame in self.alice.socket.frames:
            self._check_frame(frame)
        assert not self._too_late, "nobody is let in with what was taken back"
        written = self.alice.socket.written
        if self._seen is not None:
            after = written[self._seen :]
            assert all(one.code for one in after), "once revoked, nothing but the close frame"
        if not self.alice.socket.left:
            self._check_end(written[-1])

    @property
    def _subscriber(self) -> Subscriber | None:
        """Alice's place in the hub, since she was let in."""
        return self.hub.met.get(self.alice.name)

    def _command(self) -> dict[str, Any]:
        """Return something alice may say."""
        what = detangle.choice(("whoami", *ENDS, *ENDS, "bob's", "forged", "strange"))
        if what == "whoami":
            return self.alice.command("rpc", method="whoami", data={})
        return self.alice.command("refresh", token=_credential(what))

    def _check_frame(self, frame: dict[str, Any]) -> None:
        if "push" in frame:
            assert frame["push"]["pub"]["data"] == {"for": "alice"}, "nobody else's words"
        elif "rpc" in frame:
            assert frame["rpc"]["data"]["user"] == "alice", "nobody else's answer"
        elif "error" in frame:
            assert frame["error"]["code"] in (100, 109), "an error that says come back"
            assert frame["error"]["temporary"] is True, "and not to give up"

    def _check_end(self, end: Written) -> None:
        """Check that the connection ended for the first cause, or else in its time."""
        assert end.code in (self._causes or {codes.EXPIRED.number}), "the first cause ends it"
        if self._causes:
            who = self._subscriber.principal if self._subscriber is not None else None
            assert who is self._principal, "what comes after the end changes nothing"
            return
        assert self._subscriber is not None, "only who was let in can expire"
        late = end.at - self._deadline(self._subscriber)
        assert -MOMENT < late < max(PACES) + MOMENT, "one deadline: her credential's"
        if end.at > 5.0:
            replies = self.alice.socket.replies
            assert len(replies) == self.alice.sent_commands, "every command is answered"

    def _deadline(self, subscriber: Subscriber) -> float:
        ends = subscriber.principal.expires_at
        assert ends is not None, "every token here has an end"
        return ends + self.GRACE - EPOCH

    def _watch(self, happening: TelemetryEvent) -> None:
        match happening:
            case CredentialRefused(connection=self.alice.name, verdict="invalid"):
                self._ended_by(codes.INVALID_TOKEN)
            case CredentialRefused(connection=self.alice.name, verdict="revoked"):
                self._ended_by(codes.NOT_ALLOWED)
            case ConnectionOpened(connection=self.alice.name):
                self._too_late = self._taken_back()
            case SessionsRevoked():
                self._revocation_applied = True
                if self._taken_back():
                    self._ended_by(codes.NOT_ALLOWED)
                    self._seen = len(self.alice.socket.written)

    def _taken_back(self) -> bool:
        """Whether what she is there with is good no more."""
        if self._subscriber is None or self._revocation is None or not self._revocation_applied:
            return False
        return self._revocation.names(self._subscriber.principal)

    def _ended_by(self, code: CloseCode) -> None:
        """Note what ends her connection, unless something did before."""
        if self._causes:
            return
        subscriber = self._subscriber
        late = detangle.now() - self._deadline(subscriber) if subscriber is not None else -1.0
        if late > -MOMENT:
            self._causes.add(codes.EXPIRED.number)
        if late < MOMENT:
            self._causes.add(code.number)
        self._principal = subscriber.principal if subscriber is not None else None


async def lifetimes() -> None:
    """A credential is renewed, expires and is taken back at once, while things are told and asked:
    one reply or a close per command, one deadline, and after a revocation nothing but its close."""
    async with Lifetime().open() as world:
        await world.keys.fetch()
        world.provider.outcomes = detangle.choice((WELL, DOWN))
        work = (world.renew(), world.stay(), world.take_back(), world.publish())
        await settled(map(asyncio.create_task, work))
    world.check()


class Outage(ConnectionWorld):
    """A world whose provider goes down before alice's credential ends."""

    ENDS = 2.0
    """When it ends."""
    GRACE = Grace(expiry=1.5, outage=8.0)

    def __init__(self) -> None:
        super().__init__(freshness=Freshness(cooldown=0.1), grace=self.GRACE)
        self.alice = self.visit(token("alice", expires=self.ENDS))
        self.heals = detangle.choice((None, None, 0.5, 2.0, 4.0))
        """How long after it the provider is back, if it comes back."""

    async def hold_on(self) -> None:
        """Be alice: connect, and have no new credential to bring."""
        self.alice.socket.say(self.alice.connect())
        await self.alice.connection.over.wait()

    async def fail(self) -> None:
        """Be the provider: go down, and perhaps come back."""
        await self._until(detangle.choice((0.8, 1.2, 1.5)))
        self.provider.outcomes = DOWN
        if self.heals is not None:
            await self._until(self.ENDS + self.heals)
            self.provider.outcomes = WELL

    async def stranger(self, number: int) -> None:
        """Come with a token nobody can judge now, and leave when tired of waiting."""
        await self._until(detangle.choice((1.7, 1.8, 1.9, 2.0, 2.0, 2.1)))
        visit = self.visit(_credential("strange", str(number)))
        visit.socket.say(visit.connect())
        await asyncio.sleep(detangle.choice(MOMENTS))
        visit.socket.leave()
        await visit.connection.over.wait()
        assert visit.name not in self.hub.met, "an outage lets nobody in"

    def check(self) -> None:
        """Check how long alice stayed."""
        end = self.alice.socket.written[-1]
        assert end.code == codes.EXPIRED.number, "only time ends it"
        longest = self.ENDS + self.GRACE.outage
        assert end.at < longest + max(PACES) + MOMENT, "and no outage is for ever"
        earliest = longest if self.heals is None else self.ENDS + self.GRACE.expiry
        assert end.at > earliest - MOMENT, "an outage logs nobody out"

    @staticmethod
    async def _until(moment: float) -> None:
        await asyncio.sleep(moment - detangle.now())


async def outages() -> None:
    """The provider goes down, a credential ends and cannot be renewed, strangers come and go: who
    is connected stays for as long as the setting says, and nobody is let in."""
    async with Outage().open() as world:
        await world.keys.fetch()
        work = (world.hold_on(), world.fail(), *(world.stranger(number) for number in range(3)))
        await settled(map(asyncio.create_task, work))
    world.check()


class Arrival(ConnectionWorld):
    """A world to which alice comes from several devices at once."""

    CONNECTIONS = 2
    SAYS = (("rpc", {"method": "whoami", "data": {}}), ("subscribe", {"channel": "thread:none"}))
    """What a client says together with its connect command, or soon after."""

    def __init__(self) -> None:
        super().__init__(connections=self.CONNECTIONS)
        self.provider.outcomes = detangle.choice((WELL, FLAPPING))
        self.broker.refusals = detangle.choice((0.0, 0.1))
        self._kinds: dict[str, str] = {}
        """What each connection brought."""
        detangle.invariant(self._bounded)

    async def arrive(self, number: int) -> None:
        """Come, say everything at once or bit by bit, and stay or leave at any moment."""
        await asyncio.sleep(detangle.choice(MOMENTS))
        kind = detangle.choice((*4 * ("good",), "strange", "over", "none", "mute"))
        visit = self.visit(_credential(kind, str(number)))
        self._kinds[visit.name] = kind
        await asyncio.wait([leaving(self._talk(visit))])
        if detangle.flip(0.5):
            visit.socket.leave()
        await visit.connection.over.wait()
        assert digest(visit.credential) not in self.verdicts, "nothing is found out for who left"
        present = {subscriber.id for subscriber in self.hub.subscribers("acme", "alice")}
        assert visit.name not in present, "who left is not there"

    async def move(self) -> None:
        """Be the server that tells everybody to move elsewhere, at some moment and in the end."""
        for moment in (detangle.choice((0.2, 0.5, 0.9, 1.4)), 8.0):
            await asyncio.sleep(moment)
            for visit in self.visits:
                visit.connection.drain()
                visit.connection.end(codes.MOVE_ELSEWHERE)

    def check(self) -> None:
        """Check what became of everybody."""
        for visit in self.visits:
            good = self._kinds[visit.name] == "good"
            assert good or visit.name not in self.hub.met, "who is nobody is not let in"
            connected = [reply for reply in visit.socket.replies if reply["id"] == 1]
            refused = [reply["error"]["code"] for reply in connected if "error" in reply]
            if refused:
                assert visit.socket.replies == connected, "what waited is dropped"
                assert visit.socket.close_code in (None, codes.CONNECT_FAILED.number)
            if good:
                assert refused in ([], [100]), "an outage says nothing about a credential"
                assert visit.socket.close_code not in (3005, 3500, 3507), "nor ends anything for it"
            if visit.socket.written and visit.socket.written[-1].at > 8.0:
                assert len(visit.socket.replies) == visit.sent_commands, "every command is answered"

    async def _talk(self, visit: Visit) -> None:
        if self._kinds[visit.name] == "mute":
            return
        says = (("connect", {"token": visit.credential}), *self.SAYS)
        if detangle.flip(0.5):
            visit.socket.say(*(visit.command(name, **fields) for name, fields in says))
            await asyncio.sleep(detangle.choice(MOMENTS))
            return
        for name, fields in says:
            visit.socket.say(visit.command(name, **fields))
            await asyncio.sleep(detangle.choice(MOMENTS))

    def _bounded(self) -> bool:
        return len(self.hub.subscribers("acme", "alice")) <= self.CONNECTIONS


async def arrivals() -> None:
    """Clients connect while verdicts are late, leave, say more than they may yet, and are told to
    move elsewhere: nothing is done before the verdict, and nothing is left of who is gone."""
    async with Arrival().open() as world:
        work = (world.move(), *(world.arrive(number) for number in range(4)))
        await settled(map(asyncio.create_task, work))
    world.check()


def _credential(what: str, number: str = "") -> str:
    """Return a credential of alice's, or one that only looks like it."""
    match what:
        case "none" | "mute":
            return ""
        case "bob's":
            return token("bob")
        case "forged":
            return token("alice", signed_with="never", kid="key-1", jti=number)
        case "strange":
            return token("alice", signed_with="never", jti=number)
    return token("alice", expires=ENDS.get(what, 3600.0), jti=number or what)
