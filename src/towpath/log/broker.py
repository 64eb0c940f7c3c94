"""The broker's contract: what every log of publications guarantees, whatever stores it.

Atomicity
    A `Write` is atomic: its publications, its facts for the projection, and its idempotency key
    with the result and the spans of the write are all stored, or none is. It is published, and its
    future resolved, only after it is durable.
Order
    The offsets of a channel are 1, 2, 3 … without a gap. A producer orders its writes by `after`
    and `fencing_offset`; two writes without `after` may be stored in any order.
Delivery
    `deliver` is called on the event loop with publications that are durable. It is called only for
    channels that this node has attached (`attach`). In one channel the offsets rise, except that a
    publication may be delivered twice; some may be left out. A receiver that finds a gap reads the
    log. What becomes durable after `attach` has returned is delivered, or a later publication is.
Complete reads
    `read` returns every publication after an offset up to the top, or reports that it cannot
    (`gone`). It never returns a part as if it were complete. Without an offset it returns the
    publications that are kept, and the offset of the first one.
Isolation
    A write that cannot be applied is refused alone, whatever it raises; the writes that are
    committed together with it are applied.
Time
    The times of idempotency keys and of retention come from the clock of the engine.

A position is an epoch and an offset. The epoch changes whenever the log may have lost or reset
anything, also while the log is open (`OnEpoch`). Each channel has its own epoch, so a position is
valid only in its own channel.

The broker does not interpret payloads, facts or questions. It passes the facts of a write to the
projection inside the transaction of that write, and questions in one read transaction each.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import msgspec

from towpath.channels import CONTROL, Channel
from towpath.identity import Principal

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")
"""The answer to a question."""

KEY_SECONDS = 24 * 3600.0
"""How long the result of a request id is stored at least, in seconds."""


class Position(NamedTuple):
    """A position in a channel: after the publication with this offset, in this epoch."""

    epoch: str
    offset: int


class Item(NamedTuple):
    """A payload and its metadata, to be published."""

    data: bytes
    tags: Mapping[str, str]


class Publication(NamedTuple):
    """A published payload, its metadata and its offset."""

    offset: int
    data: bytes
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Append:
    """Publications for one channel.

    `fence` marks the first publication as the start of unfinished work, which retention must not
    drop; `unfence` removes the fence. With `after` the write is refused unless the channel's top is
    this offset: a producer's later writes cannot take the offsets of an earlier write that failed.
    With `fencing_offset` the write is refused unless the channel is fenced from this offset on.
    Fences begin at rising offsets. So a producer whose fence another producer removed can write no
    more, whatever the channel's top is now.
    """

    channel: Channel
    items: tuple[Item, ...]
    after: int | None = None
    fencing_offset: int | None = None
    fence: bool = False
    unfence: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """The epoch and the offsets of the publications of one append."""

    channel: Channel
    epoch: str
    first: int
    last: int

    @property
    def before(self) -> Position:
        """The position after which a reader receives all these publications."""
        return Position(self.epoch, self.first - 1)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Identifies a request, so that a repetition gets the stored result."""

    scope: tuple[str, str, str]
    """Tenant, user, method."""
    request_id: str
    digest: str
    """The digest of the request's parameters; the same id with another digest is a conflict."""

    @classmethod
    def of(cls, who: Principal, method: str, request_id: str, request: object) -> Self:
        """Return the key of a person's request with these parameters."""
        digest = hashlib.sha256(msgspec.json.encode(request)).hexdigest()
        return cls((who.tenant, who.user, method), request_id, digest)


@dataclass(frozen=True, slots=True)
class Write:
    """One atomic write."""

    appends: tuple[Append, ...] = ()
    facts: tuple[object, ...] = ()
    """For the projection, in order."""
    key: IdempotencyKey | None = None
    result: bytes = b""
    """What is stored under `key`, beside the spans of the write."""
    truncate: tuple[Channel, ...] = ()
    """Channels whose publications are dropped, before the appends. Forgetting takes an offset of a
    channel that was ever written to: every earlier position is gone, also that at the top."""


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a write."""

    spans: tuple[Span, ...] = ()
    """The span of each append, in order."""
    result: bytes = b""
    repeated: bool = False
    """True if the key was used before: nothing was written, `spans` and `result` are those of the
    first write. An older version stored no spans, but a result that contains its position."""


class Question(Generic[R_co]):
    """A question to the log, whose answer is an `R_co`; a subclass holds what it is about.

    It is a value. The engine itself answers a `Read`; the projection of each engine knows the other
    questions that it answers.
    """

    __slots__ = ()

    @property
    def person(self) -> tuple[str, str] | None:
        """The tenant and the user who ask; None if the gateway itself asks."""
        return None


@dataclass(frozen=True, slots=True)
class Replay:
    """The publications of a channel after a position."""

    epoch: str
    top: int
    """The offset of the last publication; 0 for an empty channel."""
    publications: list[Publication]
    gone: bool = False
    """True if the position is of another epoch, or its publications are not all kept; then
    `publications` is empty."""
    begins: int = 1
    """The offset of the oldest publication that is kept; `top + 1` if none is kept."""
    more: bool = False
    """True if publications were left out because of `limit` or `max_bytes`."""


@dataclass(frozen=True, slots=True)
class Read(Question[Replay]):
    """The publications of a channel after an offset, oldest first, or before it, newest first."""

    channel: Channel
    after: int | None
    """The offset to start from; its own publication is not returned. Upwards, the answer is `gone`
    if publications after this offset have been dropped, also from 0. None reads all publications
    that are kept and is never `gone`."""
    epoch: str | None = None
    """The epoch that the reader has stored; None skips the check."""
    limit: int | None = None
    """The maximum number of publications, counted in reading order."""
    max_bytes: int | None = None
    """The maximum number of payload bytes. The first publication is returned whatever its size."""
    reverse: bool = False
    """Read downwards, towards the oldest publication that is kept."""
    person: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The bounds on the publications of a channel; the bound that is reached first applies."""

    publications: int
    bytes: int
    seconds: float
    since_last: bool
    """Whether `seconds` count from the channel's last publication, not from each publication."""


THREAD_RETENTION = Retention(
    publications=100_000, bytes=64 * 1024 * 1024, seconds=24 * 3600, since_last=True
)
"""For a thread's channel; the projection keeps the conversation after its log is dropped."""
NOTICE_RETENTION = Retention(
    publications=1_000, bytes=16 * 1024 * 1024, seconds=24 * 3600, since_last=False
)
"""For the notices to a person or a tenant."""


def retention_of(channel: Channel) -> Retention | None:
    """Return the default retention of a channel; None if the log drops nothing by itself.

    None is for the control channel: a revocation that is still in force is never dropped, and only
    the reader of the control channel knows which are. It compacts the channel (`Write.truncate`).
    """
    if channel == CONTROL:
        return None
    return THREAD_RETENTION if channel.is_thread else NOTICE_RETENTION


Deliver = Callable[[Channel, Sequence[Publication]], None]
"""Receives durable publications of a channel, on the event loop; see "Delivery". Must not raise."""

OnEpoch = Callable[[Channel | None], None]
"""Called on the event loop once positions of a channel are no longer valid, for None those of every
channel: the epoch has changed, or the channel was forgotten. Must not raise."""


class Broker(Protocol):
    """Stores and delivers publications; the module's docstring is its contract."""

    async def start(self) -> None:
        """Open the log.

        Raises:
            ConfigurationError: the log cannot be opened; the message gives the reason.
        """

    async def stop(self) -> None:
        """Finish the submitted writes and close the log."""

    async def room(self) -> None:
        """Wait until the bounded queue has room. Producers of many writes await it before each."""

    def attach(self, channel: Channel) -> None:
        """Deliver what is published in this channel from now on; idempotent.

        A reader attaches before it reads, so that it misses nothing in between.
        """

    def detach(self, channel: Channel) -> None:
        """Deliver nothing of this channel any more; idempotent."""

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        """Queue a write and return at once.

        The future's exception is a CommandError if the projection or the key refused the write,
        OffsetConflict if it does not follow the offset or the fence that it names, WriteFailed if
        it cannot be applied, another StorageError if it could not be made durable. In each case
        nothing was written.
        """

    async def read(
        self,
        channel: Channel,
        after: int | None,
        *,
        epoch: str | None = None,
        limit: int | None = None,
        max_bytes: int | None = None,
        reverse: bool = False,
    ) -> Replay:
        """Return the answer to a `Read` of the gateway itself; see there for the arguments.

        Raises:
            StorageError: the log cannot be read now.
        """

    def epoch(self, channel: Channel) -> str:
        """Return the channel's current epoch; the log must be open."""

    async def stored_result(self, key: IdempotencyKey) -> Written | None:
        """Return what is stored under this key, `repeated`; None if the key has not been used.

        Raises:
            Conflict: the request id was used with other parameters.
            StorageError: the log cannot be read now.
        """

    async def ask(self, question: Question[R]) -> R:
        """Return the answer; it contains every write whose future is resolved.

        Raises:
            RowDamaged: what the question is about is damaged.
            StorageError: the log cannot be read now.
        """

    async def ask_together(self, questions: Sequence[Question[Any]]) -> list[Any]:
        """Return the answers to several questions, read in one transaction, in their order.

        An element is the answer, or the exception that this question alone raised. A `Read` of a
        channel whose publications are damaged yields a StorageError; the channel is then reset, and
        the asker asks again.

        Raises:
            StorageError: the log cannot be read now.
        """


def publications_of(append: Append, span: Span) -> list[Publication]:
    """Return what a written append published.

    Args:
        append: the append.
        span: its offsets.
    """
    return [
        Publication(offset, item.data, item.tags)
        for offset, item in enumerate(append.items, span.first)
    ]


def follows(append: Append, top: int, fence: int | None) -> bool:
    """Whether an append follows the offset, and has the fence, that it names.

    Args:
        append: the append.
        top: the top of its channel before the write, earlier appends of the write included.
        fence: the offset from which its channel is fenced before the write.
    """
    return append.after in (None, top) and append.fencing_offset in (None, fence)


def channel_epoch(log_epoch: str, channel: Channel, salt: int = 0) -> str:
    """Return a channel's epoch: a short hash, so an empty channel needs no stored row.

    Args:
        log_epoch: the epoch of the log.
        channel: the channel.
        salt: another one gives the channel another epoch; 0 for a channel that was never damaged.
    """
    parts = (log_epoch, str(salt), channel.tenant, channel.name)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()


async def write(broker: Broker, what: Write) -> Written:
    """Submit a write and wait until it is durable and published."""
    await broker.room()
    return await broker.submit(what)


def failure(future: "asyncio.Future[Any]") -> BaseException | None:
    """Return a finished future's exception, None for success or cancellation."""
    return None if future.cancelled() else future.exception()
