"""The connect command: only a valid credential opens a connection.

Nothing is awaited between the verdict and the entry into the hub, so a revocation is either part of
the verdict or finds the connection in the hub.

Source: WIRE sections 2 and 3.
"""

import asyncio
from collections.abc import Callable

from msgspec import UNSET
from msgspec.structs import replace

from towpath import codes
from towpath.auth.connection_auth import Authenticated, Refused
from towpath.auth.handshake import UpgradeInfo
from towpath.channels import Channel, named
from towpath.codes import CloseCode, ErrorCode
from towpath.connections.answers import first_answer
from towpath.connections.commands import CommandHandler
from towpath.connections.expiry import Expiry
from towpath.connections.keepalive import KeepAlive
from towpath.connections.parts import Parts
from towpath.connections.session import Session, SessionLimits
from towpath.delivery.outbox import Outbox
from towpath.delivery.subscriber import Subscriber
from towpath.errors import StorageError
from towpath.identity import Principal
from towpath.protocol import frames
from towpath.protocol.connection import Connection
from towpath.protocol.frames import Command, Malformed
from towpath.protocol.states import State
from towpath.rate_limits import Rate
from towpath.telemetry import ConnectionOpened


class ConnectHandler:
    """Handles the connect command of one connection: `authenticate`, then `accept`."""

    def __init__(
        self,
        parts: Parts,
        protocol: Connection,
        outbox: Outbox,
        *,
        connection_id: str,
        upgrade: UpgradeInfo,
        principal: Principal | None = None,
        end: Callable[[CloseCode], None],
        reschedule: Callable[[], None],
    ) -> None:
        """Describe a connection that is not open yet.

        Args:
            parts: the shared parts of the node.
            protocol: the protocol state, which encodes the reply.
            outbox: takes the reply.
            connection_id: the id of this connection, the same in every layer.
            upgrade: the data of its upgrade request.
            principal: the person, if the application authenticated the socket itself.
            end: ends the connection; idempotent.
            reschedule: called when the next deadline of the connection changed.
        """
        self._parts = parts
        self._protocol = protocol
        self._outbox = outbox
        self._id = connection_id
        self._upgrade = upgrade
        self._principal = principal
        self._end = end
        self._reschedule = reschedule
        self._loop = asyncio.get_running_loop()

    async def authenticate(
        self, number: int, request: frames.ConnectRequest
    ) -> CommandHandler | None:
        """Verify the credential and enter the hub; return None if the connection is refused."""
        verdict = await self._authenticate(request.token)
        if isinstance(verdict, Refused):
            self._refuse(number, verdict.code)
            return None
        return self._enter(number, verdict)

    async def _authenticate(self, token: str) -> Authenticated | Refused:
        if self._principal is not None:
            return Authenticated(self._principal, renewable=False)
        return await self._parts.connection_auth.authenticate_websocket_connection(
            token, self._upgrade, connection=self._id
        )

    async def accept(
        self, commands: CommandHandler, number: int, request: frames.ConnectRequest
    ) -> list[Command | Malformed]:
        """Subscribe to the server-side channels and reply; return the commands that waited."""
        subscriber = commands.subscriber
        try:
            subs = await self._subscribe(commands, request.subs)
        except StorageError:
            self._refuse(number, codes.TEMPORARY)
            return []
        if self._protocol.state is not State.AUTHENTICATING:
            return []  # The connection ended while the log was read.
        reply, waiting = self._protocol.accept(number, self._result(commands.expiry, subs))
        self._outbox.put(reply)
        self._go_live(subscriber, subs)
        commands.expiry.watch()
        self._parts.telemetry.emit(
            ConnectionOpened(
                connection=self._id,
                tenant=subscriber.principal.tenant,
                user=subscriber.principal.user,
            )
        )
        return waiting

    def _refuse(self, number: int, code: ErrorCode | CloseCode) -> None:
        """Reply to connect with an error and close, or close with a code of its own."""
        if isinstance(code, CloseCode):
            self._end(code)
        elif self._protocol.state is State.AUTHENTICATING:
            self._outbox.put(self._protocol.refuse(number, code))
            self._end(codes.CONNECT_FAILED)

    def _enter(self, number: int, verdict: Authenticated) -> CommandHandler | None:
        """Enter the hub; return None if a limit is reached, or the connection has ended."""
        if self._protocol.closed:
            return None
        subscriber = Subscriber(self._id, verdict.principal, self._outbox, self._end)
        if (full := self._parts.hub.connect(subscriber)) is not None:
            self._refuse(number, full)
            return None
        return self._open(subscriber, renewable=verdict.renewable)

    def _open(self, subscriber: Subscriber, *, renewable: bool) -> CommandHandler:
        parts, limits, now = self._parts, self._parts.settings, self._loop.time()
        principal = subscriber.principal
        session = Session(principal, parts.may_read, _session_limits(parts), now=now)
        subscriber.on_unsubscribed = session.on_unsubscribed
        keepalive = KeepAlive(
            now, ping_interval=limits.ping_interval, pong_timeout=limits.pong_timeout
        )
        expiry = Expiry(
            parts, principal, keepalive, renewable=renewable, reschedule=self._reschedule
        )
        return CommandHandler(
            parts,
            self._protocol,
            subscriber,
            session,
            keepalive=keepalive,
            expiry=expiry,
            upgrade=self._upgrade,
        )

    async def _subscribe(
        self, commands: CommandHandler, requests: dict[str, frames.SubscribeRequest]
    ) -> dict[Channel, frames.SubscribeResult]:
        """Join the server-side channels; publications wait until `_go_live`."""
        subscriber, principal = commands.subscriber, commands.subscriber.principal
        subs: dict[Channel, frames.SubscribeResult] = {}
        for name in self._parts.settings.server_subscriptions:
            channel = named(name, principal)
            assert channel is not None, "the settings name channels that exist"
            commands.session.joined(channel)
            self._parts.hub.subscribe(subscriber, channel)
            # A gone position must not refuse the whole connection: the answer is unrecovered.
            request = replace(requests.get(name, frames.SubscribeRequest()), flag=0)
            subs[channel] = await first_answer(
                self._parts.recovery, channel, principal.user, request
            )
        return subs

    def _go_live(self, subscriber: Subscriber, subs: dict[Channel, frames.SubscribeResult]) -> None:
        """Deliver the publications that are not in the reply, from now on."""
        for channel, result in subs.items():
            if channel in subscriber.subscriptions:
                self._parts.hub.go_live(subscriber.subscriptions[channel], result.offset)

    def _result(
        self, expiry: Expiry, subs: dict[Channel, frames.SubscribeResult]
    ) -> frames.ConnectResult:
        expires, ttl = expiry.lifetime()
        return frames.ConnectResult(
            client=self._id,
            version=self._parts.version,
            ping=max(1, round(self._parts.settings.ping_interval)),
            pong=True,
            expires=expires,
            ttl=ttl,
            subs={channel.visible: result for channel, result in subs.items()} or UNSET,
        )


def _session_limits(parts: Parts) -> SessionLimits:
    limits = parts.settings
    return SessionLimits(
        subscriptions=limits.subscriptions,
        errors=limits.errors,
        commands=Rate(per_second=limits.commands_per_second, burst=limits.commands_burst),
    )
