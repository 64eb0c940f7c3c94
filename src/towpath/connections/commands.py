"""The only place where decisions meet deeds: what a session wants is done here.

A performer belongs to one open connection. It asks the session what a command means, does it, and
sees to it that the command gets its one reply: a result, the error that doing it raised, or the
end of the connection.

Source: WIRE sections 3, 5 and 7.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import UNSET, Raw, UnsetType

from towpath import codes, telemetry
from towpath.auth.connection_auth import Authenticated, ConnectionAuth, Refused
from towpath.auth.handshake import UpgradeInfo
from towpath.channels import Channel, named
from towpath.codes import CloseCode, ErrorCode
from towpath.connections.effects import (
    Answer,
    Call,
    Effect,
    End,
    Fail,
    Join,
    Leave,
    ReadHistory,
    Renew,
    TellPresence,
)
from towpath.connections.keepalive import KeepAlive
from towpath.connections.session import Session
from towpath.delivery.hub import Hub, MayRead, Subscriber
from towpath.delivery.recovery import RecoverFrom, Recovery
from towpath.errors import CommandError, StorageError, UnrecoverablePosition
from towpath.log.broker import Broker, Position
from towpath.methods.method import Caller
from towpath.methods.table import METHODS, Methods
from towpath.protocol import frames
from towpath.protocol.connection import Connection
from towpath.protocol.frames import Command, Malformed
from towpath.runs.store import ThreadStore
from towpath.settings import Settings
from towpath.telemetry import Telemetry

MIN_HOLD_SECONDS = 5.0
"""How often a connection that an outage keeps is looked at, at the most."""
HISTORY_LIMIT = 1000
"""How many publications one history answer may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every connection works with; made once by the gateway."""

    settings: Settings
    hub: Hub
    broker: Broker
    store: ThreadStore
    recovery: Recovery
    methods: Methods
    auth: ConnectionAuth
    may_read: MayRead
    telemetry: Telemetry
    version: str
    wall_clock: Callable[[], float]
    """Unix seconds, for credentials."""


class CommandHandler:
    """Does what one open connection's session wants."""

    def __init__(
        self,
        parts: Parts,
        connection: Connection,
        member: Subscriber,
        session: Session,
        keepalive: KeepAlive,
        *,
        handshake: UpgradeInfo,
        renewable: bool,
        reschedule: Callable[[], None],
    ) -> None:
        """Take over a connection whose verdict is valid.

        Args:
            parts: what it works with.
            connection: the protocol state, which makes the replies.
            member: its place in the hub; its outbox takes them.
            session: what it may do.
            keepalive: when it is to be looked at.
            handshake: what its upgrade brought.
            renewable: whether its SDK can bring a new credential over the live connection.
            reschedule: called when `keepalive` has another next deadline.
        """
        self.member = member
        self.keepalive = keepalive
        self._parts = parts
        self._connection = connection
        self._session = session
        self._handshake = handshake
        self._renewable = renewable
        self._reschedule = reschedule
        self._loop = asyncio.get_running_loop()

    async def perform(self, command: Command | Malformed) -> None:
        """Do what a command means; whatever comes of it, it gets its one reply."""
        began = self._loop.time()
        effect = self._session.handle(command, began)
        error = await self._reply_to(command.id, effect) if effect is not None else 0
        self._parts.telemetry.emit(
            telemetry.CommandAnswered(
                connection=self.member.id,
                command=_name(command),
                error=error,
                seconds=self._loop.time() - began,
            )
        )

    async def server_subscriptions(
        self, asked: dict[str, frames.SubscribeRequest]
    ) -> dict[str, frames.SubscribeResult]:
        """Begin to read the channels every connection reads; return what connect's reply says.

        Until `go_live` their publications wait.
        """
        subs: dict[str, frames.SubscribeResult] = {}
        for name in self._parts.settings.server_subscriptions:
            channel = named(name, self._session.principal)
            assert channel is not None, "the settings name channels that exist"
            self._session.joined(channel)
            self._parts.hub.subscribe(self.member, channel)
            subs[name] = await self._first(channel, asked.get(name, frames.SubscribeRequest()))
        return subs

    def go_live(self, subs: dict[str, frames.SubscribeResult]) -> None:
        """Let the channels of `server_subscriptions` flow, now that their answer is under way."""
        for name, result in subs.items():
            channel = named(name, self._session.principal)
            if channel in self.member.subscriptions:
                self._parts.hub.go_live(self.member.subscriptions[channel], result.offset)

    def lifetime(self) -> tuple[bool | UnsetType, int | UnsetType]:
        """Return `expires` and `ttl`; only for a credential that the SDK itself can renew."""
        expires_at = self._session.principal.expires_at
        if expires_at is None or not self._renewable:
            return UNSET, UNSET
        return True, max(1, int(expires_at - self._parts.wall_clock()))

    def watch_expiry(self) -> None:
        """Have the connection looked at when its credential ends, and when the grace does."""
        principal = self._session.principal
        lapse, end = principal.expires_at, self._parts.auth.expires_at(principal)
        self.keepalive.expire_at(self._moment(end), lapse=self._moment(lapse))
        self._reschedule()

    def lapsed(self) -> None:
        """Take note that the credential ended and no other came."""
        self._parts.auth.lapsed(self._session.principal)

    def expired(self) -> bool:
        """Whether the grace is over for good; in an outage it goes on for a while."""
        principal = self._session.principal
        until = self._parts.auth.held_until(principal)
        if until is None:
            return True
        # Look again after another grace: who can bring a new credential by then will have.
        left = until - self._parts.wall_clock()
        pause = min(left, max(self._parts.settings.expiry_grace, MIN_HOLD_SECONDS))
        self.keepalive.expire_at(self._loop.time() + pause)
        self._parts.auth.lapsed(principal)
        return False

    def _moment(self, wall: float | None) -> float | None:
        """Return a Unix time as a time of the loop."""
        if wall is None:
            return None
        return self._loop.time() + wall - self._parts.wall_clock()

    async def _reply_to(self, number: int, effect: Effect) -> int:
        """Do one thing; return the error code of the reply, 0 for success."""
        try:
            await self._do(effect)
        except CommandError as error:
            code, message = error.code, error.message
        except StorageError:
            code, message = codes.TEMPORARY, codes.TEMPORARY.message
        else:
            return effect.code.number if isinstance(effect, Fail) else 0
        if isinstance(effect, Join):
            self._session.on_unsubscribed(effect.channel)
            self._parts.hub.unsubscribe(self.member, effect.channel)
        await self._do(self._session.failed(number, code, message))
        return code.number

    async def _do(self, effect: Effect) -> None:
        match effect:
            case Answer(number, result):
                self._reply(number, result)
            case Fail(number, code, message):
                self._fail(number, code, message)
            case End(code):
                self.member.close(code)
            case Join():
                await self._join(effect)
            case Leave(number, channel):
                self._parts.hub.unsubscribe(self.member, channel)
                self._reply(number, frames.Empty())
            case Call(number, method, data):
                caller = Caller(
                    principal=self._session.principal,
                    connection=self.member.id,
                    origin=self._handshake.origin,
                )
                made = await self._parts.methods.call(method, data, caller)
                self._reply(number, frames.RPCResult(data=Raw(made)))
            case ReadHistory():
                await self._history(effect)
            case TellPresence():
                await self._presence(effect)
            case Renew():
                await self._renew(effect)

    async def _join(self, join: Join) -> None:
        subscription = self._parts.hub.subscribe(self.member, join.channel)
        result = await self._first(join.channel, join.request)
        self._reply(join.id, result)
        self._parts.hub.go_live(subscription, result.offset)

    async def _first(
        self, channel: Channel, request: frames.SubscribeRequest
    ) -> frames.SubscribeResult:
        """Return what a reader of this channel gets first."""
        asked = RecoverFrom(request.recover, Position(request.epoch, request.offset))
        user = self._session.principal.user
        answer = await self._parts.recovery.answer(channel, user, asked)
        if request.recover and not answer.recovered and request.flag & frames.REJECT_UNRECOVERED:
            raise UnrecoverablePosition
        told = answer.publications
        return frames.SubscribeResult(
            epoch=answer.epoch,
            offset=answer.top,
            recovered=answer.recovered,
            was_recovering=request.recover,
            publications=(_at_once(told) if channel.is_thread else told) or UNSET,
        )

    async def _history(self, effect: ReadHistory) -> None:
        await self._parts.recovery.check(effect.channel, self._session.principal.user)
        request = effect.request
        since = request.since or frames.StreamPosition()
        limit = min(request.limit, HISTORY_LIMIT) if request.limit >= 0 else HISTORY_LIMIT
        replay = await self._parts.broker.read(
            effect.channel,
            # As in a subscribe, offset 0 in no epoch is no position: all that is kept is asked for.
            since.offset if since != frames.StreamPosition() else None,
            epoch=since.epoch or None,
            limit=limit,
            reverse=request.reverse,
        )
        if replay.gone:
            raise UnrecoverablePosition
        publications = [
            frames.Publication(data=Raw(item.data), offset=item.offset, tags=item.tags or UNSET)
            for item in replay.publications
        ]
        result = frames.HistoryResult(
            publications=publications, epoch=replay.epoch, offset=replay.top
        )
        self._reply(effect.id, result)

    async def _presence(self, effect: TellPresence) -> None:
        await self._parts.recovery.check(effect.channel, self._session.principal.user)
        readers = self._parts.hub.readers(effect.channel)
        if effect.only_count:
            users = {member.principal.user for member in readers}
            stats = frames.PresenceStatsResult(num_clients=len(readers), num_users=len(users))
            self._reply(effect.id, stats)
            return
        clients = {
            member.id: frames.ClientInfo(user=member.principal.user, client=member.id)
            for member in readers
        }
        self._reply(effect.id, frames.PresenceResult(presence=clients))

    async def _renew(self, renew: Renew) -> None:
        """Take a new credential for the live connection (WIRE section 3, refresh)."""
        made = await self._parts.auth.refresh(
            self._session.principal, renew.token, self._handshake, connection=self.member.id
        )
        if self._connection.closed:
            return  # It expired, or was revoked, while the new one was looked at.
        match made:
            case Refused(CloseCode() as code):
                self.member.close(code)
            case Refused(ErrorCode() as code):
                match self._session.failed(renew.id, code):
                    case Fail(number, error):
                        # Any error on refresh that is not temporary is the end for an SDK.
                        self._fail(number, error, temporary=True)
                    case effect:
                        await self._do(effect)
            case Authenticated(principal):
                self._session.principal = self.member.principal = principal
                self.watch_expiry()
                expires, ttl = self.lifetime()
                client, version = self.member.id, self._parts.version
                self._reply(
                    renew.id,
                    frames.RefreshResult(client=client, version=version, expires=expires, ttl=ttl),
                )

    def _reply(self, number: int, result: frames.Result) -> None:
        if not self._connection.closed:
            self._put(self._connection.reply(number, result))

    def _fail(
        self,
        number: int,
        code: codes.ErrorCode,
        message: str | None = None,
        *,
        temporary: bool = False,
    ) -> None:
        if not self._connection.closed:
            self._put(self._connection.fail(number, code, message, temporary=temporary))

    def _put(self, frame: bytes) -> None:
        if not self.member.outbox.put(frame, answer=True):
            self.member.close(codes.SLOW)


def _at_once(told: list[frames.Publication]) -> list[frames.Publication]:
    """Return a folded answer as one reply tells it: it comes whole, so only its end is a place."""
    return [frames.Publication(data=one.data, tags=one.tags) for one in told[:-1]] + told[-1:]


def _name(command: Command | Malformed) -> str:
    if isinstance(command, Malformed):
        return "unknown"
    if isinstance(command.request, frames.RPCRequest):
        # What clients make up is neither logged nor counted by name: it may hold anything.
        known = command.request.method in METHODS
        return f"rpc.{command.request.method}" if known else "rpc.unknown"
    return command.name
