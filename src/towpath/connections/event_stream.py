"""One event stream: a reader of one thread over HTTP, from its first event to the end of the run.

It is a member of the hub like any connection, with the same rights and bounds, and speaks another
dialect. What it gets first is what every subscriber gets; then it goes on live until the run it
follows has ended. A stream that follows one run by name shows that run and nothing before it, also
where the run waits for its turn. It belongs to whoever asked for it: when they leave, nothing of it
stays.

Source: WIRE section 10.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UnsetType

from towpath import codes, telemetry
from towpath.channels import Channel
from towpath.codes import CloseCode
from towpath.connections.client_connection import AT_ONCE
from towpath.connections.commands import Parts
from towpath.delivery.catch_up import catch_up
from towpath.delivery.hub import Encoding, Subscriber
from towpath.delivery.outbox import Outbox
from towpath.delivery.recovery import Recovered, RecoverFrom
from towpath.errors import TooManyRequests, UnknownChannel
from towpath.events.types import TERMINAL
from towpath.identity import Principal
from towpath.log.broker import Broker, Publication
from towpath.protocol import codec_sse as codec


def sse_encoding(broker: Broker) -> Encoding:
    """Return how publications are written for event streams over this log."""

    def encode(channel: Channel, publication: Publication) -> bytes:
        position = (broker.epoch(channel), publication.offset) if publication.offset else None
        return codec.encode_event(publication.data, position=position)

    return Encoding(encode, b"", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """What a stream reads, and from where."""

    channel: Channel
    asked: RecoverFrom
    run: str | None = None
    """The run it shows, all of which comes after `asked`; None shows the thread until the run that
    is active has ended."""


class EventStream:
    """Reads a thread for one HTTP response: `enter`, `begin`, iterate `chunks`, and it is over."""

    def __init__(self, parts: Parts, dialect: Encoding, principal: Principal, name: str) -> None:
        """Describe a reader; it has no place in the hub yet.

        Args:
            parts: what it works with.
            dialect: how publications are written.
            principal: who reads.
            name: the connection id of this reader.
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
        self._window = RunFilter(None)
        outbox = Outbox(self._wake.set, max_bytes=parts.settings.outbox_bytes, separator=b"")
        self._member = Subscriber(name, principal, outbox, self.end, dialect=dialect)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._expiry: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        """Take a place in the hub; from now on whatever ends this person's connections ends it.

        Raises:
            TooManyRequests: this person, or tenant, has as many connections as may be.
        """
        if self._parts.hub.connect(self._member) is not None:
            raise TooManyRequests("too many connections")
        self._watch_expiry()
        who = self.principal
        self._parts.telemetry.emit(
            telemetry.ConnectionOpened(connection=self._member.id, tenant=who.tenant, user=who.user)
        )

    async def begin(self, beginning: StreamRequest) -> None:
        """Begin to read, and make what the reader gets first.

        Raises:
            UnknownChannel: no such thread of theirs.
            StorageError: the log cannot be read now.
        """
        parts, channel, who = self._parts, beginning.channel, self.principal
        if not parts.may_read(who, channel):
            raise UnknownChannel
        subscription = parts.hub.subscribe(self._member, channel)
        # Asked before the answer is made: an empty one then means that nothing has changed.
        active = await parts.store.has_active_run(who.tenant, who.user, channel.thread or "")
        answer = await parts.recovery.answer(channel, who.user, beginning.asked)
        self._window = RunFilter(beginning.run)
        self._take(answer, active)
        parts.hub.go_live(subscription, answer.top)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the response, piece by piece, until the run has ended or nobody may read on."""
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
                self._member.outbox.clear()
            self._member.outbox.close()
            self._wake.set()
            self.hurry()

    def drain(self) -> None:
        """Go on until `end`: a client comes back with its position by itself."""

    async def _next(self) -> bytes:
        """Return what is shown next, or a sign of life if that takes long; nothing at the end."""
        _cancel(self._writing)
        due = self._loop.time() + self._parts.settings.ping_interval
        while (piece := self._member.outbox.take()) or self.ended is None:
            if shown := self._window.take(piece):
                self._active = not self._window.over
                return shown
            if not piece and await catch_up(self._parts, self._member):
                continue
            if self.ended is None and self._loop.time() >= due:
                return codec.KEEP_ALIVE  # Also where others talk, and nothing of it is shown.
            if not piece:
                await self._woken(due)
        return b""

    async def _woken(self, due: float) -> None:
        """Wait until there is something to look at, or a sign of life is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._wake.wait()
            self._wake.clear()

    def _take(self, answer: Recovered, active: bool) -> None:
        """Keep what the reader gets first; of a run that is named, what there is of it."""
        pieces = []
        for publication in answer.publications:
            offset, data = publication.offset, bytes(publication.data)
            position = None if isinstance(offset, UnsetType) else (answer.epoch, offset)
            pieces.append(codec.encode_event(data, position=position))
            active = not _is_end(pieces[-1])
        self._first = b"".join(pieces)
        if self._window.run is not None:
            self._first = self._window.take(self._first)
            active = not self._window.over
        self._active = active

    def _watch_writing(self) -> None:
        """End the stream when its client takes nothing of a piece for too long."""
        patience = self._parts.settings.slow_timeout
        self._writing = self._loop.call_later(patience, self.end, codes.SLOW)

    def _watch_expiry(self) -> None:
        """End the stream when its credential's grace ends: nobody can renew it here."""
        ends = self._parts.auth.expires_at(self.principal)
        if ends is not None:
            left = ends - self._parts.wall_clock()
            self._expiry = self._loop.call_later(max(0.0, left), self.end, codes.EXPIRED)

    def leave(self) -> None:
        """Leave nothing behind; idempotent."""
        if self.over.is_set():
            return
        _cancel(self._expiry)
        _cancel(self._writing)
        self._parts.hub.disconnect(self._member)
        who = self.principal
        self._parts.telemetry.emit(
            telemetry.ConnectionClosed(
                connection=self._member.id,
                tenant=who.tenant,
                user=who.user,
                code=self.ended.number if self.ended else 1005,
                reason=self.ended.reason if self.ended else "the stream is over",
                seconds=self._loop.time() - self._began,
            )
        )
        self.over.set()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class RunFilter:
    """What of a stream a reader is shown: up to the end of a run, and nothing before its start."""

    def __init__(self, run: str | None) -> None:
        """Look for a run; None shows what comes until a run ends."""
        self.over = False
        """Whether the end was shown; nothing is after it."""
        self.run = run
        self._open = run is None

    def take(self, piece: bytes) -> bytes:
        """Return what is shown of some events in the dialect; no event is cut."""
        if self.over or not _may_bound(piece):
            return piece if self._open and not self.over else b""
        events = piece.split(codec.END)
        return b"".join(event + codec.END for event in events if event and self._shows(event))

    def _shows(self, event: bytes) -> bool:
        if self.over:
            return False
        if not self._open:
            self._open = _started(event) == self.run
        self.over = self._open and _is_end(event)
        return self._open


_BOUNDS = tuple(kind.encode() for kind in ("RUN_STARTED", *sorted(TERMINAL)))


def _may_bound(piece: bytes) -> bool:
    """Whether a beginning or an end may be among these events; only such are read."""
    return any(kind in piece for kind in _BOUNDS)


def _read(event: bytes) -> dict[str, Any]:
    data = event.partition(codec.DATA)[2]  # A comment has none.
    decoded: dict[str, Any] = msgspec.json.decode(data or b"{}")
    return decoded


def _started(event: bytes) -> str | None:
    """Return the id of the run that begins with this event, if one does."""
    read = _read(event) if _may_bound(event) else {}
    return read["runId"] if read.get("type") == "RUN_STARTED" else None


def _is_end(event: bytes) -> bool:
    return _may_bound(event) and _read(event).get("type") in TERMINAL
