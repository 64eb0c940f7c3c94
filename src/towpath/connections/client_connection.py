"""One live connection: its socket, its tasks, its deadlines and its end.

Three tasks serve a connection. The reader receives messages, decodes them with the protocol,
handles pongs at once and queues commands. The queue is bounded; while it is full, the socket is not
read. The worker takes commands from the queue and handles them in order. The writer sends the
content of the outbox, all of it in one message. Only the reader reads the socket, and only the
writer writes to it. A connection ends once: `end` stores the code, the writer sends what remains in
the outbox and the close frame, and the tasks are cancelled.

Source: WIRE sections 2 to 4.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from towpath import codes, telemetry
from towpath.auth.handshake import UpgradeInfo
from towpath.codes import CloseCode
from towpath.connections.commands import CommandHandler
from towpath.connections.handshake import ConnectHandler
from towpath.connections.keepalive import Due
from towpath.connections.parts import Parts
from towpath.connections.send_deadline import SendDeadline
from towpath.connections.transport import Transport
from towpath.delivery.catch_up import catch_up
from towpath.delivery.outbox import Outbox
from towpath.delivery.subscriber import Subscriber
from towpath.identity import Principal
from towpath.protocol import codec_json as codec
from towpath.protocol import frames
from towpath.protocol.connection import Bounds, Closed, Connection
from towpath.protocol.frames import Command, Malformed, Pong
from towpath.protocol.states import State
from towpath.settings import Settings

COMMAND_QUEUE = 256
"""How many commands may be read and not yet handled; at this bound the socket is not read."""
AT_ONCE = frozenset(
    {
        codes.SLOW,
        codes.EXPIRED,
        codes.NOT_ALLOWED,
        codes.INVALID_TOKEN,
        codes.NO_CREDENTIAL,
    }
)
"""After these codes the outbox is dropped: the client is too slow, or may not receive it."""


class ClientConnection:
    """Serves one connection from its upgrade to its end."""

    def __init__(
        self,
        parts: Parts,
        transport: Transport,
        *,
        upgrade: UpgradeInfo,
        connection_id: str,
        principal: Principal | None = None,
    ) -> None:
        """Take a socket after its upgrade.

        Args:
            parts: the shared parts of the node.
            transport: the socket.
            upgrade: the data of the upgrade request.
            connection_id: the id of this connection, the same in every layer.
            principal: the person, if the application authenticated the socket itself; then no
                credential of the client is used. None authenticates by the client's credential.
        """
        self.id = connection_id
        self.transport = transport
        self.over = asyncio.Event()
        """Set when the connection is cleaned up."""
        self._parts = parts
        self._settings = parts.settings
        self._protocol = Connection(_bounds(parts.settings))
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._outbox = Outbox(self._wake.set, max_bytes=parts.settings.outbox_bytes)
        self._queue: asyncio.Queue[Command | Malformed] = asyncio.Queue(COMMAND_QUEUE)
        self._principal = principal
        self._connect_handler = ConnectHandler(
            parts,
            self._protocol,
            self._outbox,
            connection_id=connection_id,
            upgrade=upgrade,
            principal=principal,
            end=self.end,
            reschedule=self._reschedule,
        )
        self._commands: CommandHandler | None = None
        self._end: CloseCode | None = None
        self._loop = asyncio.get_running_loop()
        self._send_deadline = SendDeadline(parts.settings.slow_timeout)
        self._began = self._loop.time()
        self._timer = self._loop.call_later(self._settings.connect_timeout, self.end, codes.STALE)

    async def serve(self) -> None:
        """Serve the connection until it is over."""
        reader = asyncio.create_task(self._watched(self._read), name=f"reader {self.id}")
        worker = asyncio.create_task(self._watched(self._work), name=f"worker {self.id}")
        writer = asyncio.create_task(self._watched(self._write), name=f"writer {self.id}")
        ended = asyncio.create_task(self._ended.wait(), name=f"end of {self.id}")
        try:
            # The reader ends when the peer has disconnected, the writer when it has sent the close
            # frame. A peer that no longer reads blocks the writer, so this wait is bounded.
            await asyncio.wait((reader, writer, ended), return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                await asyncio.wait((writer,), timeout=2 * self._settings.close_timeout)
        finally:
            self._clean_up()
            for task in (reader, worker, writer, ended):
                task.cancel()
            await asyncio.gather(reader, worker, writer, ended, return_exceptions=True)
            self.over.set()

    @property
    def subscriber(self) -> Subscriber | None:
        """The connection in the hub; None before its verdict."""
        return self._commands.subscriber if self._commands is not None else None

    @property
    def principal(self) -> Principal | None:
        """The person of the connection; None before the verdict on the client's credential."""
        found = self.subscriber
        return found.principal if found is not None else self._principal

    @property
    def ended(self) -> CloseCode | None:
        """The code with which the server ended the connection; None if it did not."""
        return self._end

    @property
    def seconds(self) -> float:
        """How long ago the upgrade was, in seconds."""
        return self._loop.time() - self._began

    def end(self, code: CloseCode) -> None:
        """End the connection with a code; the first one wins."""
        if self._end is None:
            self._end = code
            self._protocol.close(code)
            if code in AT_ONCE:
                self._outbox.clear()
            self._outbox.close()
            self._wake.set()
            self._ended.set()

    def drain(self) -> None:
        """Note that the node drains: the code in `end` tells the client to reconnect elsewhere."""
        if self._protocol.state is State.OPEN:
            self._protocol.drain()

    async def _watched(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one of the connection's tasks; an exception in it ends the connection."""
        try:
            await work()
        except Exception as error:  # The outermost edge of a connection.
            self._parts.telemetry.emit(telemetry.InternalError(where="connection", error=error))
            self.end(codes.SERVER_FAULT)

    # The reader.

    async def _read(self) -> None:
        while (message := await self.transport.receive()) is not None:
            for event in self._protocol.receive_data(message):
                match event:
                    case Closed(code, _):
                        self.end(code)
                    case Pong():
                        self._pong()
                    case command:
                        await self._queue.put(command)

    def _pong(self) -> None:
        if self._commands is None or not self._commands.keepalive.pong():
            self.end(codes.BAD_MESSAGE)
        else:
            self._reschedule()

    # The worker.

    async def _work(self) -> None:
        while True:
            await self._handle(await self._queue.get())

    async def _handle(self, command: Command | Malformed) -> None:
        if self._protocol.closed:
            return
        if isinstance(command, Command) and isinstance(command.request, frames.ConnectRequest):
            await self._connect(command.id, command.request)
        elif self._commands is not None:
            if self._commands.keepalive.is_expired(self._parts.now()):
                self._elapse()  # The timer is late: the wall clock was set, or the machine slept.
            if not self._protocol.closed:
                await self._commands.handle(command)

    async def _connect(self, number: int, request: frames.ConnectRequest) -> None:
        """Handle connect, and then the commands that waited for the verdict."""
        self._timer.cancel()  # The client sent connect in time; now the server has a deadline.
        limit = self._settings.auth_timeout + self._settings.connect_timeout
        self._timer = self._loop.call_later(limit, self.end, codes.CONNECT_FAILED)
        self._commands = await self._connect_handler.authenticate(number, request)
        if self._commands is not None:
            for command in await self._connect_handler.accept(self._commands, number, request):
                await self._handle(command)

    # The writer.

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (message := self._outbox.take()) or await self._catch_up():
                if message:
                    await self._send(message)
            if self._end is not None:
                await self._close(self._end)
                return

    async def _send(self, message: bytes) -> None:
        """Send a message; end the connection if that takes longer than `slow_timeout`."""
        try:
            await self._send_deadline.limit(self.transport.send(message))
        except TimeoutError:
            self.end(codes.SLOW)

    async def _close(self, code: CloseCode) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.close_timeout):
                await self.transport.close(code.number, code.reason)

    async def _catch_up(self) -> bool:
        """Send missed publications to a slow reader; return False if there are none."""
        if self._commands is None or self._end is not None:
            return False
        parts = self._parts
        return await catch_up(
            self._commands.subscriber,
            hub=parts.hub,
            recovery=parts.recovery,
            telemetry=parts.telemetry,
        )

    # Deadlines and the end.

    def _reschedule(self) -> None:
        """Set the connection's one timer to the next deadline."""
        self._timer.cancel()
        if self._commands is not None and self._end is None:
            now, date = self._loop.time(), self._parts.now()
            when = self._commands.keepalive.next_deadline(now, date)
            self._timer = self._loop.call_at(when, self._elapse)

    def _elapse(self) -> None:
        if (commands := self._commands) is None:
            return
        match commands.keepalive.elapse(self._loop.time(), self._parts.now()):
            case Due.PING:
                self._outbox.put(codec.PING)
            case Due.NO_PONG if self._send_deadline.is_sending or self._outbox.level:
                commands.keepalive.pong()  # The client is slow to read: `slow_timeout` applies.
            case Due.NO_PONG:
                self.end(codes.NO_PONG)
            case Due.LAPSED:
                commands.expiry.lapsed()
            case Due.EXPIRED if commands.expiry.is_over():
                self.end(codes.EXPIRED)
        self._reschedule()

    def _clean_up(self) -> None:
        """Cancel the timer, leave the hub, and report how the connection ended."""
        self._timer.cancel()
        self._send_deadline.close()
        self._protocol.close(codes.FORCED)
        self._outbox.clear()
        who = None
        if self._commands is not None:
            who = self._commands.subscriber.principal
            self._parts.hub.disconnect(self._commands.subscriber)
        self._parts.telemetry.emit(
            telemetry.ConnectionClosed(
                connection=self.id,
                tenant=who.tenant if who else None,
                user=who.user if who else None,
                code=self._end.number if self._end else 1005,
                reason=self._end.reason if self._end else "the peer left",
                seconds=self.seconds,
            )
        )


def _bounds(limits: Settings) -> Bounds:
    return Bounds(
        early_message=limits.early_message_bytes,
        message=limits.message_bytes,
        waiting=limits.waiting_bytes,
        waiting_commands=limits.waiting_commands,
    )
