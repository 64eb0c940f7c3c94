"""Handles the commands of an open connection.

A `CommandHandler` asks the session whether a command is allowed, carries it out, and ensures that
it gets its one reply: a result, an error, or the end of the connection.

Source: WIRE sections 3, 5 and 7.
"""

import asyncio

from msgspec import Raw

from towpath import codes
from towpath.auth.connection_auth import Authenticated, Refused
from towpath.auth.handshake import UpgradeInfo
from towpath.channels import Channel
from towpath.codes import CloseCode, ErrorCode
from towpath.connections.answers import (
    first_answer,
    history_result,
    presence_result,
    presence_stats_result,
)
from towpath.connections.expiry import Expiry
from towpath.connections.keepalive import KeepAlive
from towpath.connections.parts import Parts
from towpath.connections.session import Denied, Session
from towpath.delivery.subscriber import Subscriber
from towpath.errors import CommandError, StorageError, UnrecoverablePosition
from towpath.identity import Principal
from towpath.methods.method import Caller
from towpath.methods.table import METHODS
from towpath.protocol import frames
from towpath.protocol.connection import Connection
from towpath.protocol.frames import Command, Malformed
from towpath.telemetry import CommandAnswered

HISTORY_LIMIT = 1000
"""How many publications one history answer may hold."""


class CommandHandler:
    """Handles the commands of one connection whose credential is valid."""

    def __init__(
        self,
        parts: Parts,
        protocol: Connection,
        subscriber: Subscriber,
        session: Session,
        *,
        keepalive: KeepAlive,
        expiry: Expiry,
        upgrade: UpgradeInfo,
    ) -> None:
        """Take over a connection after its verdict.

        Args:
            parts: the shared parts of the node.
            protocol: the protocol state, which encodes the replies.
            subscriber: the connection in the hub; its outbox takes the replies.
            session: its rights and subscriptions.
            keepalive: its deadlines.
            expiry: the lifetime of its credential.
            upgrade: the data of its upgrade request.
        """
        self.subscriber = subscriber
        self.keepalive = keepalive
        self.expiry = expiry
        self._parts = parts
        self._protocol = protocol
        self.session = session
        self._upgrade = upgrade
        self._loop = asyncio.get_running_loop()

    async def handle(self, command: Command | Malformed) -> None:
        """Carry out one command and send its one reply."""
        began = self._loop.time()
        error = await self._answer(command, began)
        self._parts.telemetry.emit(
            CommandAnswered(
                connection=self.subscriber.id,
                command=_name(command),
                error=error,
                seconds=self._loop.time() - began,
            )
        )

    async def _answer(self, command: Command | Malformed, now: float) -> int:
        """Carry out a command if it is allowed; return the error code of its reply, 0 for none."""
        answer = self.session.authorize(command, now)
        if isinstance(answer, Denied):
            return self._deny(command.id, answer)
        assert isinstance(command, Command), "a malformed command is denied"
        try:
            result = await self.dispatch(command, answer.channel)
        except CommandError as error:
            return self._failed(command.id, error.code, error.message)
        except StorageError:
            return self._failed(command.id, codes.TEMPORARY)
        if result is not None:
            self._reply(command.id, result)
        return 0

    async def dispatch(self, command: Command, channel: Channel | None) -> frames.Result | None:
        """Carry out an allowed command.

        Returns:
            The result to reply with; None if the reply was sent already or the command has none.

        Raises:
            CommandError: the command failed; the code gives the reason.
            StorageError: the log cannot be used now.
        """
        match command.request, channel:
            case frames.RPCRequest() as request, _:
                return await self._call(request)
            case frames.SubscribeRequest() as request, Channel() as read:
                await self._subscribe(command.id, read, request)
            case frames.UnsubscribeRequest(), _:
                return self._unsubscribe(channel)
            case frames.HistoryRequest() as request, Channel() as read:
                return await self._history(read, request)
            case frames.PresenceRequest(), Channel() as read:
                return presence_result(await self._readers(read))
            case frames.PresenceStatsRequest(), Channel() as read:
                return presence_stats_result(await self._readers(read))
            case frames.RefreshRequest(token=token), _:
                return await self._refresh(command.id, token)
            case frames.Empty(), _:
                return frames.Empty()
        return None  # The reply was sent, or the command is a one-way message, which is ignored.

    async def _call(self, request: frames.RPCRequest) -> frames.RPCResult:
        caller = Caller(
            principal=self.session.principal,
            connection=self.subscriber.id,
            origin=self._upgrade.origin,
        )
        data = await self._parts.methods.call(request.method, bytes(request.data), caller)
        return frames.RPCResult(data=Raw(data))

    async def _subscribe(
        self, number: int, channel: Channel, request: frames.SubscribeRequest
    ) -> None:
        """Join a channel; its publications are delivered after the reply."""
        hub, user = self._parts.hub, self.session.principal.user
        # Subscribe before the answer is made: later publications are buffered until `go_live`.
        subscription = hub.subscribe(self.subscriber, channel)
        try:
            result = await first_answer(self._parts.recovery, channel, user, request)
        except (CommandError, StorageError):
            self.session.on_unsubscribed(channel)
            hub.unsubscribe(self.subscriber, channel)
            raise
        self._reply(number, result)
        hub.go_live(subscription, result.offset)

    def _unsubscribe(self, channel: Channel | None) -> frames.Empty:
        if channel is not None:
            self._parts.hub.unsubscribe(self.subscriber, channel)
        return frames.Empty()

    async def _history(
        self, channel: Channel, request: frames.HistoryRequest
    ) -> frames.HistoryResult:
        await self._parts.recovery.check(channel, self.session.principal.user)
        since = request.since or frames.StreamPosition()
        replay = await self._parts.broker.read(
            channel,
            # As in a subscribe, offset 0 in no epoch is no position: read all that is kept.
            since.offset if since != frames.StreamPosition() else None,
            epoch=since.epoch or None,
            limit=min(request.limit, HISTORY_LIMIT) if request.limit >= 0 else HISTORY_LIMIT,
            max_bytes=self._parts.settings.answer_bytes,
            reverse=request.reverse,
        )
        if replay.gone:
            raise UnrecoverablePosition
        return history_result(replay)

    async def _readers(self, channel: Channel) -> list[Subscriber]:
        """Return the readers of a channel, which must exist if it is a thread's."""
        await self._parts.recovery.check(channel, self.session.principal.user)
        return self._parts.hub.readers(channel)

    async def _refresh(self, number: int, token: str) -> frames.RefreshResult | None:
        """Verify a new credential for the live connection (WIRE section 3, refresh)."""
        verdict = await self._parts.connection_auth.refresh(
            self.session.principal, token, self._upgrade, connection=self.subscriber.id
        )
        if self._protocol.closed:
            return None  # It expired or was revoked while the new credential was verified.
        match verdict:
            case Authenticated(principal):
                return self._renew(principal)
            case Refused(CloseCode() as code):
                self.subscriber.close(code)
            case Refused(ErrorCode() as code):
                # Without `temporary`, SDKs give up after any error on refresh.
                self._deny(number, self.session.failed(code), temporary=True)
        return None

    def _renew(self, principal: Principal) -> frames.RefreshResult:
        """Replace the principal with that of a new credential."""
        self.session.principal = self.subscriber.principal = principal
        self.expiry.renew(principal)
        expires, ttl = self.expiry.lifetime()
        return frames.RefreshResult(
            client=self.subscriber.id, version=self._parts.version, expires=expires, ttl=ttl
        )

    def _failed(self, number: int, code: ErrorCode, message: str | None = None) -> int:
        """Count an error and reply with it, or end the connection; return the error code."""
        self._deny(number, self.session.failed(code, message))
        return code.number

    def _deny(self, number: int, denied: Denied, *, temporary: bool = False) -> int:
        """Reply with an error or end the connection; return the error code of the reply, if any."""
        code = denied.code
        if isinstance(code, CloseCode):
            self.subscriber.close(code)
            return 0
        if number == 0:
            return 0  # A one-way message has no reply that could carry the error.
        if not self._protocol.closed:
            self._put(self._protocol.fail(number, code, denied.message, temporary=temporary))
        return code.number

    def _reply(self, number: int, result: frames.Result) -> None:
        if not self._protocol.closed:
            self._put(self._protocol.reply(number, result))

    def _put(self, frame: bytes) -> None:
        if not self.subscriber.outbox.put(frame, answer=True):
            self.subscriber.close(codes.SLOW)


def _name(command: Command | Malformed) -> str:
    """Return the name of a command for logs and metrics."""
    if isinstance(command, Malformed):
        return "unknown"
    if isinstance(command.request, frames.RPCRequest):
        # An unknown name may contain anything, so it is neither logged nor used as a label.
        known = command.request.method in METHODS
        return f"rpc.{command.request.method}" if known else "rpc.unknown"
    return command.name
