"""The broker's contract: what every log of publications promises, whatever keeps it.

One act
    A `Write` is atomic: its publications, its facts for the projection and its idempotency key
    are all there or none is. It is published, and its future resolved, only after it is durable.
One order
    Per channel offsets are 1, 2, 3 … without a gap, in the order `submit` was called. `deliver`
    is called on the event loop in that order, before the write's future is resolved.
One answer about the past
    `read` gives everything after an offset up to the top, or says that it cannot (`gone`). It
    never gives a part and calls it the whole. Without an offset it gives what is kept, and says
    where that begins.
Each write for itself
    A write that cannot be applied is refused alone, whatever it raises; the writes that are
    committed together with it are applied.

A position is an epoch and an offset. The epoch is another one whenever the log may have lost or
reset anything, and another one for every channel, so a position counts in its own channel only.

The broker does not know what bytes mean. Facts are opaque to it: it hands them to the projection,
inside the transaction of the write they came with.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from towpath.channels import CONTROL, Channel

T = TypeVar("T")

KEY_SECONDS = 24 * 3600.0
"""How long a request id is remembered, at least."""


class Position(NamedTuple):
    """Where in a channel: after the publication with this offset, in this epoch."""

    epoch: str
    offset: int


class Item(NamedTuple):
    """What is to be published: payload and metadata."""

    data: bytes
    tags: Mapping[str, str]


class Publication(NamedTuple):
    """What was published, and where."""

    offset: int
    data: bytes
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Append:
    """Publications for one channel.

    `fence` marks the first of them as the start of something unfinished, which retention must not
    drop; `unfence` marks its end. With `after` the write is refused unless the channel's top is
    this offset: so a producer's later writes cannot stand where an earlier one failed. With
    `fencing_offset` the write is refused unless the channel is fenced from this offset on. Fences
    begin at rising offsets, so a producer whose fence somebody else ended writes no more, whatever
    the channel's top has become.
    """

    channel: Channel
    items: tuple[Item, ...]
    after: int | None = None
    fencing_offset: int | None = None
    fence: bool = False
    unfence: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Where the publications of one append stand."""

    channel: Channel
    epoch: str
    first: int
    last: int

    @property
    def before(self) -> Position:
        """The position from which a reader gets all of them."""
        return Position(self.epoch, self.first - 1)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What makes a repeated request the same request."""

    scope: tuple[str, str, str]
    """Tenant, user, method."""
    request_id: str
    digest: str
    """Of the request's parameters; the same id with another digest is a conflict."""


@dataclass(frozen=True, slots=True)
class Write:
    """One atomic write."""

    appends: tuple[Append, ...] = ()
    facts: tuple[object, ...] = ()
    """For the projection, in order."""
    key: IdempotencyKey | None = None
    result: Callable[[Sequence[Span]], bytes] | None = None
    """Makes what is remembered under `key`. Called by the writer; must not block."""
    truncate: tuple[Channel, ...] = ()
    """Channels whose publications are dropped; their offsets go on from where they were."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write."""

    spans: tuple[Span, ...] = ()
    result: bytes = b""
    repeated: bool = False
    """True where the key had been used before: nothing was written, `result` is the old one."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a channel holds after a position."""

    epoch: str
    top: int
    """The offset of the last publication; 0 for an empty channel."""
    publications: list[Publication]
    gone: bool = False
    """True where the position is not of this channel's past, or too far back; no publications."""
    begins: int = 1
    """The offset of the oldest publication that is kept; `top + 1` where none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of a channel is kept: whichever bound is reached first."""

    publications: int
    bytes: int
    seconds: float
    since_last: bool
    """Whether `seconds` count from the channel's last publication instead of each one's own."""


THREAD_RETENTION = Retention(
    publications=100_000, bytes=64 * 1024 * 1024, seconds=24 * 3600, since_last=True
)
"""A thread's log: what it amounts to outlives it in the projection."""
NOTICE_RETENTION = Retention(
    publications=1_000, bytes=16 * 1024 * 1024, seconds=24 * 3600, since_last=False
)
"""What a person or tenant is told."""


def retention_of(channel: Channel) -> Retention | None:
    """Return the default retention of a channel; None where the log drops nothing by itself.

    That is the control channel: a revocation that still counts is never dropped, and only the
    control channel's reader can tell which do. It compacts the channel (`Write.forget`).
    """
    if channel == CONTROL:
        return None
    return THREAD_RETENTION if channel.is_thread else NOTICE_RETENTION


Deliver = Callable[[Channel, Sequence[Publication]], None]
"""Hears of durable publications, on the event loop, in order per channel. Must not raise."""


class Projection(Protocol):
    """What is derived from facts, kept in the same database, in the same transactions."""

    def create(self, db: sqlite3.Connection, version: int) -> None:
        """Bring the tables from schema `version` (0: none) to the present one."""

    def apply(self, db: sqlite3.Connection, fact: object, spans: Sequence[Span]) -> None:
        """Take one fact of a write whose publications stand at `spans`.

        Raises:
            CommandError: the fact contradicts what is known; the whole write is refused.
        """

    def carry_over(
        self, old: sqlite3.Connection, new: sqlite3.Connection, at: float
    ) -> Mapping[str, int]:
        """Take what is certain of a damaged database into a new one, whose tables are there.

        Args:
            old: the damaged one; `towpath.log.integrity.quarantine.readable` reads it.
            new: the new one, in a transaction.
            at: now, in Unix seconds.

        Returns:
            How much of what; what could not be taken counts as `left_out`.
        """


class Broker(Protocol):
    """Stores and spreads publications; the module's docstring is its contract."""

    async def start(self) -> None:
        """Open the log.

        Raises:
            ConfigurationError: it cannot be opened; the sentence says why.
        """

    async def stop(self) -> None:
        """Finish what was submitted and close the log."""

    async def room(self) -> None:
        """Wait until the bounded queue has room. Producers of many writes ask before each."""

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        """Hand a write over, now; the order of calls is the order of publications.

        The future's exception is a CommandError where the projection or the key refused the
        write, OffsetConflict where it did not stand where it says, WriteFailed where it cannot be
        applied, another StorageError where it could not be made durable; either way it left no
        trace.
        """

    async def read(
        self,
        channel: Channel,
        after: int | None,
        *,
        epoch: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Replay:
        """Return the publications after an offset, oldest first, or before it, newest first.

        Args:
            channel: which.
            after: the offset to read on from, which is not returned itself. Upwards from an offset
                that is not kept any more the answer is `gone`, also from 0. None reads all that is
                kept and is never `gone`.
            epoch: what the reader believes the epoch to be; None to not check it.
            limit: at most so many publications, those that come first.
            reverse: read downwards, towards the oldest publication that is kept.

        Raises:
            StorageError: the log cannot be read now.
        """

    def epoch(self, channel: Channel) -> str:
        """Return the channel's present epoch; the log is open."""

    async def stored_result(self, key: IdempotencyKey) -> bytes | None:
        """Return what a request was answered under this key; None where it has not been used.

        Raises:
            Conflict: it was used for something else.
            StorageError: nobody can tell now.
        """

    async def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the projection's tables something; sees every write whose future is resolved.

        Raises:
            StorageError: they cannot be read now.
        """


def follows(
    appends: Sequence[Append], spans: Sequence[Span], fence: Callable[[Channel], int | None]
) -> bool:
    """Whether appends come after what they name, and within it; `fence` knows a channel's."""
    return all(
        append.after in (None, span.first - 1)
        and (append.fencing_offset is None or append.fencing_offset == fence(append.channel))
        for append, span in zip(appends, spans, strict=True)
    )


def span_of(after: int | None, top: int, begins: int, *, reverse: bool) -> range | None:
    """Return the offsets that a read gives, in rising order; None where it is `gone`.

    Args:
        after: what the reader says; see `Broker.read`.
        top: the offset of the channel's last publication.
        begins: the offset of the oldest one that is kept.
        reverse: whether it reads downwards.
    """
    if after is None:
        return range(begins, top + 1)
    if reverse:
        return range(begins, max(after, begins)) if after <= top + 1 else None
    return range(after + 1, top + 1) if begins - 1 <= after <= top else None


def channel_epoch(log_epoch: str, channel: Channel) -> str:
    """Return a channel's epoch: a short hash, so nothing need be stored for an empty channel."""
    parts = (log_epoch, channel.tenant, channel.name)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()


async def write(broker: Broker, what: Write) -> Written:
    """Submit a write and wait until it is durable and published."""
    await broker.room()
    return await broker.submit(what)


def failure(future: "asyncio.Future[Any]") -> BaseException | None:
    """Return a finished future's exception, None for success or cancellation."""
    return None if future.cancelled() else future.exception()
