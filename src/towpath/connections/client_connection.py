"""One live connection: its socket, its tasks, its verdict and its end.

Three tasks share a connection. One reads messages and lets the protocol take them apart; pongs are
noted at once, commands queue up, bounded, and a full queue stops the reading. One takes commands
from the queue and has them performed, in order. One empties the outbox into the socket, everything
that gathered in one message. The socket is read by the first and written by the last; nobody else
touches it. A connection ends once: `end` notes the code, the writer sends what is still due and
the close frame, and the tasks are gone.

Source: WIRE sections 2 to 4.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from msgspec import UNSET

from towpath import codes, telemetry
from towpath.auth.connection_auth import Authenticated, Refused
from towpath.auth.handshake import UpgradeInfo
from towpath.codes import CloseCode, ErrorCode
from towpath.connections.commands import CommandHandler, Parts
from towpath.connections.keepalive import Due, KeepAlive
from towpath.connections.session import Session, SessionLimits
from towpath.connections.transport import Transport
from towpath.delivery.catch_up import catch_up
from towpath.delivery.hub import Subscriber
from towpath.delivery.outbox import Outbox
from towpath.errors import StorageError
from towpath.protocol import codec_json as codec
from towpath.protocol import frames
from towpath.protocol.connection import Bounds, Closed, Connection
from towpath.protocol.frames import Command, Malformed, Pong
from towpath.protocol.states import State
from towpath.rate_limits import Rate

COMMAND_QUEUE = 256
"""Commands read and not yet performed; past it the socket is not read."""
AT_ONCE = frozenset(
    {
        codes.SLOW,
        codes.EXPIRED,
        codes.NOT_ALLOWED,
        codes.INVALID_TOKEN,
        codes.NO_CREDENTIAL,
    }
)
"""After these nothing that still waits is written: there is no room, or no right to it."""


class ClientConnection:
    """Sees one connection from its upgrade to its end."""

    def __init__(
        self, parts: Parts, transport: Transport, *, handshake: UpgradeInfo, connection_id: str
    ) -> None:
        """Take a socket after its upgrade.

        Args:
            parts: what it works with.
            transport: the socket.
            handshake: what the upgrade brought.
            connection_id: the one id of this connection, in every layer.
        """
        self.id = connection_id
        self.over = asyncio.Event()
        """Set once nothing of the connection is left."""
        self._parts = parts
        self._settings = limits = parts.settings
        self._transport = transport
        self._handshake = handshake
        self._connection = Connection(
            Bounds(
                early_message=limits.early_message_bytes,
                message=limits.message_bytes,
                waiting=limits.waiting_bytes,
                waiting_commands=limits.waiting_commands,
            )
        )
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._outbox = Outbox(self._wake.set, max_bytes=limits.outbox_bytes)
        self._commands: asyncio.Queue[Command | Malformed] = asyncio.Queue(COMMAND_QUEUE)
        self._performer: CommandHandler | None = None
        self._end: CloseCode | None = None
        self._sending = False
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer = self._loop.call_later(limits.connect_timeout, self.end, codes.STALE)

    async def serve(self) -> None:
        """Serve the connection until it is over."""
        reader = asyncio.create_task(self._watched(self._read), name=f"reader {self.id}")
        worker = asyncio.create_task(self._watched(self._work), name=f"worker {self.id}")
        writer = asyncio.create_task(self._watched(self._write), name=f"writer {self.id}")
        ended = asyncio.create_task(self._ended.wait(), name=f"end of {self.id}")
        try:
            # The reader ends when the peer is gone, the writer when the close frame is sent. A
            # peer that reads nothing any more holds the writer up; then the wait has an end.
            await asyncio.wait((reader, writer, ended), return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                await asyncio.wait((writer,), timeout=2 * self._settings.close_timeout)
        finally:
            self._let_go()
            for task in (reader, worker, writer, ended):
                task.cancel()
            await asyncio.gather(reader, worker, writer, ended, return_exceptions=True)
            self.over.set()

    def end(self, code: CloseCode) -> None:
        """End the connection with a code; the first one wins."""
        if self._end is None:
            self._end = code
            self._connection.close(code)
            if code in AT_ONCE:
                self._outbox.clear()
            self._outbox.close()
            self._wake.set()
            self._ended.set()

    def drain(self) -> None:
        """Note that the connection will be told to move elsewhere; it goes on until `end`."""
        if self._connection.state is State.OPEN:
            self._connection.drain()

    async def _watched(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do one of the connection's tasks; a fault of ours in it ends the connection."""
        try:
            await work()
        except Exception as error:  # The outermost edge of a connection.
            self._parts.telemetry.emit(telemetry.InternalError(where="connection", error=error))
            self.end(codes.SERVER_FAULT)

    async def _read(self) -> None:
        while (message := await self._transport.receive()) is not None:
            for event in self._connection.receive_data(message):
                match event:
                    case Closed(code, _):
                        self.end(code)
                    case Pong():
                        self._pong()
                    case command:
                        await self._commands.put(command)

    async def _work(self) -> None:
        while True:
            await self._handle(await self._commands.get())

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (message := self._outbox.take()) or await self._catch_up():
                if message:
                    await self._send(message)
            if self._end is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.close_timeout):
                        await self._transport.close(self._end.number, self._end.reason)
                return

    async def _send(self, message: bytes) -> None:
        """Send a message; a peer that takes nothing for too long is let go."""
        self._sending = True
        try:
            async with asyncio.timeout(self._settings.slow_timeout):
                await self._transport.send(message)
        except TimeoutError:
            self.end(codes.SLOW)
        finally:
            self._sending = False

    async def _catch_up(self) -> bool:
        """Give the reader what it fell behind with; False where there is nothing."""
        if self._performer is None or self._end is not None:
            return False
        return await catch_up(self._parts, self._performer.member)

    def _let_go(self) -> None:
        """Leave nothing of this connection behind, and say how it ended."""
        self._timer.cancel()
        self._connection.close(codes.FORCED)
        self._outbox.clear()
        who = None
        if self._performer is not None:
            who = self._performer.member.principal
            self._parts.hub.disconnect(self._performer.member)
        self._parts.telemetry.emit(
            telemetry.ConnectionClosed(
                connection=self.id,
                tenant=who.tenant if who else None,
                user=who.user if who else None,
                code=self._end.number if self._end else 1005,
                reason=self._end.reason if self._end else "the peer left",
                seconds=self._loop.time() - self._began,
            )
        )

    async def _handle(self, command: Command | Malformed) -> None:
        if self._connection.closed:
            return
        if isinstance(command, Command) and isinstance(command.request, frames.ConnectRequest):
            await self._connect(command.id, command.request)
        elif self._performer is not None:
            await self._performer.perform(command)

    async def _connect(self, number: int, request: frames.ConnectRequest) -> None:
        """Find out who it is; only a valid verdict lets anybody in."""
        self._timer.cancel()  # The client has done its part in time; now it is our turn.
        limit = self._settings.auth_timeout + self._settings.connect_timeout
        self._timer = self._loop.call_later(limit, self.end, codes.CONNECT_FAILED)
        made = await self._parts.auth.authenticate_websocket_connection(
            request.token, self._handshake, connection=self.id
        )
        match made:
            case Authenticated():
                try:
                    await self._open(number, request, made)
                except StorageError:
                    self._refuse(number, codes.TEMPORARY)
            case Refused(code):
                self._refuse(number, code)

    def _refuse(self, number: int, code: ErrorCode | CloseCode) -> None:
        """Answer connect with an error and close, or close with the code that says it all."""
        if isinstance(code, CloseCode):
            self.end(code)
        elif self._connection.state is State.AUTHENTICATING:
            self._outbox.put(self._connection.refuse(number, code))
            self.end(codes.CONNECT_FAILED)

    async def _open(self, number: int, request: frames.ConnectRequest, made: Authenticated) -> None:
        """Let a verified person in: their place in the hub, their channels, their reply."""
        limits, principal = self._settings, made.principal
        now = self._loop.time()
        if self._connection.closed:
            return  # It ended while the verdict was found out.
        member = Subscriber(self.id, principal, self._outbox, self.end)
        if (full := self._parts.hub.connect(member)) is not None:
            self._refuse(number, full)
            return
        session = Session(
            principal,
            self._parts.may_read,
            SessionLimits(
                subscriptions=limits.subscriptions,
                errors=limits.errors,
                commands=Rate(per_second=limits.commands_per_second, burst=limits.commands_burst),
            ),
            now=now,
        )
        member.on_unsubscribed = session.on_unsubscribed
        performer = self._performer = CommandHandler(
            self._parts,
            self._connection,
            member,
            session,
            KeepAlive(now, ping_interval=limits.ping_interval, pong_timeout=limits.pong_timeout),
            handshake=self._handshake,
            renewable=made.renewable,
            reschedule=self._reschedule,
        )
        subs = await performer.server_subscriptions(request.subs)
        if self._connection.state is not State.AUTHENTICATING:
            return
        expires, ttl = performer.lifetime()
        result = frames.ConnectResult(
            client=self.id,
            version=self._parts.version,
            ping=max(1, round(limits.ping_interval)),
            pong=True,
            expires=expires,
            ttl=ttl,
            subs=subs or UNSET,
        )
        reply, waiting = self._connection.accept(number, result)
        self._outbox.put(reply)
        performer.go_live(subs)
        performer.watch_expiry()
        self._parts.telemetry.emit(
            telemetry.ConnectionOpened(
                connection=self.id, tenant=principal.tenant, user=principal.user
            )
        )
        for command in waiting:
            await self._handle(command)

    def _reschedule(self) -> None:
        """Set the connection's one timer to whatever is due next."""
        self._timer.cancel()
        if self._performer is not None and self._end is None:
            when = self._performer.keepalive.next_deadline
            self._timer = self._loop.call_at(when, self._elapse)

    def _elapse(self) -> None:
        if self._performer is None:
            return
        match self._performer.keepalive.elapse(self._loop.time()):
            case Due.PING:
                self._outbox.put(codec.PING)
            case Due.NO_PONG if self._sending or self._outbox.level:
                self._performer.keepalive.pong()  # It is slow: `slow_timeout` decides.
            case Due.NO_PONG:
                self.end(codes.NO_PONG)
            case Due.LAPSED:
                self._performer.lapsed()
            case Due.EXPIRED if self._performer.expired():
                self.end(codes.EXPIRED)
        self._reschedule()

    def _pong(self) -> None:
        if self._performer is None or not self._performer.keepalive.pong():
            self.end(codes.BAD_MESSAGE)
        else:
            self._reschedule()
