"""One event stream: a reader of one thread over HTTP, from its first event to the end of the run.

An event stream is a subscriber of the hub like a connection, with the same rights and bounds, in
another encoding. It begins with the same recovery answer as a subscription, then delivers live
events until its run has ended. A stream for a named run shows that run and nothing before it, also
if the run is still queued. When the client disconnects, the stream is removed from the hub.

Source: WIRE section 10.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from towpath import codes, telemetry
from towpath.channels import Channel
from towpath.codes import CloseCode
from towpath.connections.client_connection import AT_ONCE
from towpath.connections.parts import Parts
from towpath.connections.run_filter import RunFilter
from towpath.delivery.catch_up import catch_up
from towpath.delivery.encoding import Encoding
from towpath.delivery.outbox import Outbox
from towpath.delivery.recovery import Recovered, RecoverFrom
from towpath.delivery.subscriber import Subscriber
from towpath.errors import TooManyRequests, UnknownChannel
from towpath.identity import Principal
from towpath.log.broker import Broker, Publication
from towpath.protocol import codec_sse as codec


def sse_encoding(broker: Broker) -> Encoding:
    """Return the encoding of this log's publications for event streams."""

    def encode(channel: Channel, publication: Publication) -> bytes:
        return _encode(publication, broker.epoch(channel))

    return Encoding(encode, b"", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """The channel that a stream reads, and its starting position."""

    channel: Channel
    recover_from: RecoverFrom
    run: str | None = None
    """The run to show, all of whose events are after `recover_from`; None shows the thread until
    the active run has ended."""


class EventStream:
    """Reads a thread for one HTTP response: call `enter`, then `begin`, then iterate `chunks`."""

    def __init__(
        self, parts: Parts, encoding: Encoding, principal: Principal, connection_id: str
    ) -> None:
        """Describe a reader; `enter` adds it to the hub.

        Args:
            parts: the shared parts of the node.
            encoding: encodes the publications.
            principal: the reader's principal.
            connection_id: the id of this reader, the same in every layer.
        """
        self.principal = principal
        self.over = asyncio.Event()
        """Set when the stream is cleaned up."""
        self.ended: CloseCode | None = None
        """The code with which the server ended the stream; None if it did not."""
        self.hurry: Callable[[], None] = lambda: None
        """Called when the server ends the stream: a client that does not read may block the last
        write."""
        self._parts = parts
        self._wake = asyncio.Event()
        self._first = b""
        self._active = True
        self._filter = RunFilter(None)
        outbox = Outbox(self._wake.set, max_bytes=parts.settings.outbox_bytes, separator=b"")
        self._subscriber = Subscriber(connection_id, principal, outbox, self.end, encoding=encoding)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._expiry: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        """Join the hub; from now on whatever ends this user's connections ends the stream too.

        Raises:
            TooManyRequests: the user or the tenant has reached the limit of connections.
        """
        if self._parts.hub.connect(self._subscriber) is not None:
            raise TooManyRequests("too many connections")
        self._watch_expiry()
        who = self.principal
        self._parts.telemetry.emit(
            telemetry.ConnectionOpened(
                connection=self._subscriber.id, tenant=who.tenant, user=who.user
            )
        )

    async def begin(self, request: StreamRequest) -> None:
        """Subscribe to the thread, and prepare the first chunk.

        Raises:
            UnknownChannel: this user has no such thread.
            StorageError: the log cannot be read now.
        """
        parts, channel, who = self._parts, request.channel, self.principal
        if not parts.may_read(who, channel):
            raise UnknownChannel
        run_filter = self._filter = RunFilter(request.run)
        subscription = parts.hub.subscribe(self._subscriber, channel, shows=run_filter.shows)
        # Read before the answer: if the answer is empty, nothing has changed since this read.
        active = await parts.store.has_active_run(who.tenant, who.user, channel.thread or "")
        answer = await parts.recovery.answer(channel, who.user, request.recover_from)
        self._take(answer, active)
        parts.hub.go_live(subscription, answer.top)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the response, piece by piece, until the run has ended or the stream is ended."""
        try:
            if self.ended is None:
                self._watch_writing()
                yield self._first or codec.KEEP_ALIVE
            while self._active and (piece := await self._next()):
                self._watch_writing()
                yield piece
        finally:
            self.leave()

    def end(self, code: CloseCode) -> None:
        """End the stream; the first code wins."""
        if self.ended is None:
            self.ended = code
            if code in AT_ONCE:
                self._subscriber.outbox.clear()
            self._subscriber.outbox.close()
            self._wake.set()
            self.hurry()

    def drain(self) -> None:
        """Continue until `end`: the client reconnects with its position by itself."""

    async def _next(self) -> bytes:
        """Return the next chunk; a comment after `ping_interval` without one; empty at the end."""
        _cancel(self._writing)
        self._end_if_expired()
        due = self._loop.time() + self._parts.settings.ping_interval
        outbox = self._subscriber.outbox
        while not (piece := outbox.take()) and self.ended is None and not self._filter.over:
            if await self._catch_up():
                continue
            if self.ended is None and self._loop.time() >= due:
                return codec.KEEP_ALIVE
            await self._woken(due)
        self._active = bool(outbox.level) or not self._filter.over
        return piece

    async def _catch_up(self) -> bool:
        """Send missed publications to a slow reader; return False if there are none."""
        parts = self._parts
        return await catch_up(
            self._subscriber, hub=parts.hub, recovery=parts.recovery, telemetry=parts.telemetry
        )

    async def _woken(self, due: float) -> None:
        """Wait until there is something in the outbox, or a comment is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._wake.wait()
            self._wake.clear()
        self._end_if_expired()

    def _take(self, answer: Recovered, active: bool) -> None:
        """Store the first chunk; for a named run, only the events of that run."""
        shown = self._filter.of_answer(answer.publications)
        self._first = b"".join(_encode(one, answer.epoch) for one in shown)
        if answer.publications or self._filter.run is not None:
            active = not self._filter.over
        self._active = active

    def _watch_writing(self) -> None:
        """End the stream if its client does not read a chunk within `slow_timeout`."""
        patience = self._parts.settings.slow_timeout
        self._writing = self._loop.call_later(patience, self.end, codes.SLOW)

    def _watch_expiry(self) -> None:
        """End the stream when its credential's grace ends: a stream cannot renew it.

        The end is a date, so it is compared with the date again when the timer is due.
        """
        ends = self._parts.connection_auth.expires_at(self.principal)
        if ends is not None and not self._end_if_expired():
            left = ends - self._parts.now()
            self._expiry = self._loop.call_later(left, self._watch_expiry)

    def _end_if_expired(self) -> bool:
        """End the stream if its credential's grace has ended; return whether it has.

        The timer is late if the wall clock was set, or the machine slept.
        """
        ends = self._parts.connection_auth.expires_at(self.principal)
        expired = ends is not None and self._parts.now() >= ends
        if expired:
            self.end(codes.EXPIRED)
        return expired

    def leave(self) -> None:
        """Cancel the timers, leave the hub, and report how the stream ended; idempotent."""
        if self.over.is_set():
            return
        _cancel(self._expiry)
        _cancel(self._writing)
        self._parts.hub.disconnect(self._subscriber)
        who = self.principal
        self._parts.telemetry.emit(
            telemetry.ConnectionClosed(
                connection=self._subscriber.id,
                tenant=who.tenant,
                user=who.user,
                code=self.ended.number if self.ended else 1005,
                reason=self.ended.reason if self.ended else "the stream is over",
                seconds=self._loop.time() - self._began,
            )
        )
        self.over.set()


def _encode(publication: Publication, epoch: str) -> bytes:
    """Encode a publication; its position, if it has an offset, is in this epoch."""
    position = (epoch, publication.offset) if publication.offset else None
    return codec.encode_event(publication.data, position=position)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
