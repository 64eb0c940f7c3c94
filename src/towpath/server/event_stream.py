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
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UnsetType

from towpath import codes, hooks
from towpath.channels import Channel
from towpath.codes import CloseCode
from towpath.context import Principal
from towpath.errors import TooManyRequests
from towpath.events.kinds import TERMINAL
from towpath.hub.hub import Dialect, Member
from towpath.hub.outbox import Outbox
from towpath.protocol import codec_sse as codec
from towpath.server.catching_up import catch_up
from towpath.server.performer import Parts
from towpath.streams.broker import Broker, Publication
from towpath.threads.recovery import Answer, Asked


def sse_dialect(broker: Broker) -> Dialect:
    """Return how publications are written for event streams over this log."""

    def encode(channel: Channel, publication: Publication) -> bytes:
        position = (broker.epoch(channel), publication.offset) if publication.offset else None
        return codec.encode_event(publication.data, position=position)

    return Dialect(encode, b"", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What a stream reads, and from where."""

    channel: Channel
    asked: Asked
    run: str | None = None
    """The run it shows, all of which comes after `asked`; None shows the thread until the run that
    is active has ended."""


class EventStream:
    """Reads a thread for one HTTP response: `begin`, iterate `chunks` once, and it is over."""

    def __init__(
        self, parts: Parts, dialect: Dialect, principal: Principal, beginning: Beginning, name: str
    ) -> None:
        """Describe a reader; it has no place in the hub yet.

        Args:
            parts: what it works with.
            dialect: how publications are written.
            principal: who reads.
            beginning: what, and from where.
            name: the connection id of this reader.
        """
        self.over = asyncio.Event()
        """Set once nothing of it is left."""
        self._parts = parts
        self._beginning = beginning
        self._wake = asyncio.Event()
        self._ended: CloseCode | None = None
        self._first = b""
        self._active = True
        self._window = Window(beginning.run)
        outbox = Outbox(self._wake.set, max_bytes=parts.settings.outbox_bytes, separator=b"")
        self._member = Member(name, principal, outbox, self.end, dialect=dialect)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Take a place in the hub and make what the reader gets first.

        Raises:
            TooManyRequests: this person, or tenant, has as many connections as may be.
            UnknownChannel: no such thread of theirs.
            StorageError: the log cannot be read now.
        """
        parts, channel, who = self._parts, self._beginning.channel, self._member.principal
        if parts.hub.connect(self._member) is not None:
            raise TooManyRequests("too many connections")
        try:
            self._watch_expiry()
            subscription = parts.hub.subscribe(self._member, channel)
            # Asked before the answer is made: an empty one then means that nothing has changed.
            active = await parts.store.has_active_run(who.tenant, who.user, channel.thread or "")
            answer = await parts.recovery.answer(channel, who.user, self._beginning.asked)
            self._take(answer, active)
            parts.hub.go_live(subscription, answer.top)
        except BaseException:
            self.leave()
            raise
        tell = parts.hooks.tell
        tell(hooks.ConnectionOpened(connection=self._member.id, tenant=who.tenant, user=who.user))

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the response, piece by piece, until the run has ended or nobody may read on."""
        outbox, interval = self._member.outbox, self._parts.settings.ping_interval
        try:
            yield self._first or codec.KEEP_ALIVE
            due = self._loop.time() + interval
            while self._active and self._ended is None:
                piece = outbox.take()
                if not piece and not await catch_up(self._parts, self._member):
                    piece = await self._next(due)
                shown = self._window.take(piece)
                self._active = not self._window.over
                if not shown and self._loop.time() >= due:
                    shown = codec.KEEP_ALIVE
                if shown:
                    yield shown
                    due = self._loop.time() + interval
        finally:
            self.leave()

    def end(self, code: CloseCode) -> None:
        """End the stream; the first code wins."""
        if self._ended is None:
            self._ended = code
            self._member.outbox.clear()
            self._wake.set()

    def drain(self) -> None:
        """Go on until `end`: a client comes back with its position by itself."""

    async def _next(self, due: float) -> bytes:
        """Wait for what comes next, until a sign of life is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._wake.wait()
            self._wake.clear()
        return self._member.outbox.take()

    def _take(self, answer: Answer, active: bool) -> None:
        """Keep what the reader gets first; of a run that is named, what there is of it."""
        pieces = []
        for publication in answer.publications:
            offset = publication.offset
            position = None if isinstance(offset, UnsetType) else (answer.epoch, offset)
            pieces.append(codec.encode_event(bytes(publication.data), position=position))
        if pieces:
            active = not _is_end(pieces[-1])
        self._first = b"".join(pieces)
        if self._beginning.run is not None:
            self._first = self._window.take(self._first)
            active = not self._window.over
        self._active = active

    def _watch_expiry(self) -> None:
        """End the stream when its credential's grace ends: nobody can renew it here."""
        ends = self._parts.auth.expires_at(self._member.principal)
        if ends is not None:
            left = ends - self._parts.wall_clock()
            self._timer = self._loop.call_later(max(0.0, left), self.end, codes.EXPIRED)

    def leave(self) -> None:
        """Leave nothing behind; idempotent."""
        if self.over.is_set():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._parts.hub.disconnect(self._member)
        who = self._member.principal
        self._parts.hooks.tell(
            hooks.ConnectionClosed(
                connection=self._member.id,
                tenant=who.tenant,
                user=who.user,
                code=self._ended.number if self._ended else 1005,
                reason=self._ended.reason if self._ended else "the stream is over",
                seconds=self._loop.time() - self._began,
            )
        )
        self.over.set()


class Window:
    """What of a stream a reader is shown: up to the end of a run, and nothing before its start."""

    def __init__(self, run: str | None) -> None:
        """Look for a run; None shows what comes until a run ends."""
        self.over = False
        """Whether the end was shown; nothing is after it."""
        self._run = run
        self._open = run is None

    def take(self, piece: bytes) -> bytes:
        """Return what is shown of some events in the dialect; no event is cut."""
        if self.over or not _may_bound(piece):
            return piece if self._open and not self.over else b""
        events = piece.split(_BETWEEN)
        return b"".join(event + _BETWEEN for event in events if event and self._shows(event))

    def _shows(self, event: bytes) -> bool:
        if self.over:
            return False
        if not self._open:
            self._open = _started(event) == self._run
        self.over = self._open and _is_end(event)
        return self._open


_BETWEEN = b"\n\n"
_BOUNDS = tuple(kind.encode() for kind in ("RUN_STARTED", *sorted(TERMINAL)))


def _may_bound(piece: bytes) -> bool:
    """Whether a beginning or an end may be among these events; only such are read."""
    return any(kind in piece for kind in _BOUNDS)


def _read(event: bytes) -> dict[str, Any]:
    data = next((line for line in event.split(b"\n") if line.startswith(b"data: ")), b"data: {}")
    decoded: dict[str, Any] = msgspec.json.decode(data[6:])
    return decoded


def _started(event: bytes) -> str | None:
    """Return the id of the run that begins with this event, if one does."""
    read = _read(event) if _may_bound(event) else {}
    return read["runId"] if read.get("type") == "RUN_STARTED" else None


def _is_end(event: bytes) -> bool:
    return _may_bound(event) and _read(event).get("type") in TERMINAL
