"""One event stream: a reader of one thread over HTTP, from its first event to the end of the run.

An event stream is a subscriber of the hub like any connection, with the same rights and bounds, in
another encoding. It begins with what every subscriber gets first; then it goes on live until the
run it follows has ended. A stream that follows a named run shows that run and nothing before it,
also where the run is still queued. When the client leaves, nothing of the stream stays.

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
from towpath.connections.run_filter import RunFilter, is_end
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
    """Return how publications of this log are encoded for event streams."""

    def encode(channel: Channel, publication: Publication) -> bytes:
        return _encode(publication, broker.epoch(channel))

    return Encoding(encode, b"", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """What a stream reads, and from where."""

    channel: Channel
    recover_from: RecoverFrom
    run: str | None = None
    """The run it shows, all of which comes after `recover_from`; None shows the thread until the
    active run has ended."""


class EventStream:
    """Reads a thread for one HTTP response: `enter`, `begin`, iterate `chunks`, and it is over."""

    def __init__(
        self, parts: Parts, encoding: Encoding, principal: Principal, connection_id: str
    ) -> None:
        """Describe a reader; it has no place in the hub yet.

        Args:
            parts: what connections work with.
            encoding: how publications are encoded.
            principal: who reads.
            connection_id: the one id of this reader.
        """
        self.principal = principal
        self.over = asyncio.Event()
        """Set once nothing of it is left."""
        self.ended: CloseCode | None = None
        """Why we ended it, if we did."""
        self.hurry: Callable[[], None] = lambda: None
        """Called when we end it: a client that reads nothing may hold up its last write."""
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
        """Take a place in the hub; from now on whatever ends this user's connections ends it.

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
        """Join the thread, and make what the reader gets first.

        Raises:
            UnknownChannel: this user has no such thread.
            StorageError: the log cannot be read now.
        """
        parts, channel, who = self._parts, request.channel, self.principal
        if not parts.may_read(who, channel):
            raise UnknownChannel
        subscription = parts.hub.subscribe(self._subscriber, channel)
        # Asked before the answer is made: an empty answer then means that nothing has changed.
        active = await parts.store.has_active_run(who.tenant, who.user, channel.thread or "")
        answer = await parts.recovery.answer(channel, who.user, request.recover_from)
        self._filter = RunFilter(request.run)
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
        """Go on until `end`: a client comes back with its position by itself."""

    async def _next(self) -> bytes:
        """Return what is shown next, or a comment if that takes long; nothing at the end."""
        _cancel(self._writing)
        due = self._loop.time() + self._parts.settings.ping_interval
        while (piece := self._subscriber.outbox.take()) or self.ended is None:
            if shown := self._filter.take(piece):
                self._active = not self._filter.over
                return shown
            if not piece and await self._catch_up():
                continue
            if self.ended is None and self._loop.time() >= due:
                return codec.KEEP_ALIVE  # Also where other runs publish and none of it is shown.
            if not piece:
                await self._woken(due)
        return b""

    async def _catch_up(self) -> bool:
        """Give the reader what it fell behind with; False where there is nothing."""
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

    def _take(self, answer: Recovered, active: bool) -> None:
        """Keep what the reader gets first; of a named run, what there is of it."""
        pieces = [_encode(one, answer.epoch) for one in answer.publications]
        if pieces:
            active = not is_end(pieces[-1])
        self._first = b"".join(pieces)
        if self._filter.run is not None:
            self._first = self._filter.take(self._first)
            active = not self._filter.over
        self._active = active

    def _watch_writing(self) -> None:
        """End the stream when its client takes nothing of a piece for too long."""
        patience = self._parts.settings.slow_timeout
        self._writing = self._loop.call_later(patience, self.end, codes.SLOW)

    def _watch_expiry(self) -> None:
        """End the stream when its credential's grace ends: nobody can renew it here."""
        ends = self._parts.connection_auth.expires_at(self.principal)
        if ends is not None:
            left = ends - self._parts.now()
            self._expiry = self._loop.call_later(max(0.0, left), self.end, codes.EXPIRED)

    def leave(self) -> None:
        """Leave nothing behind; idempotent."""
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
    """Encode a publication; its position, if it completes one, is in this epoch."""
    position = (epoch, publication.offset) if publication.offset else None
    return codec.encode_event(publication.data, position=position)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
