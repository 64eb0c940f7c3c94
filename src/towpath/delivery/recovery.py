"""What a subscriber gets first: the tail since its position, or a snapshot of the channel.

Every answer about a thread is complete. A position of this channel's past gets the publications
since that position, deltas joined. Any other position gets the snapshot of the fold, and the answer
says whether the subscriber requested that. Either way the answer ends at the offset it names, and
the publications after that offset continue it.

Answers are publications of the log; the sender encodes them.

Source: WIRE section 5 (answers a to d), section 9 (snapshot).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from towpath.channels import Channel
from towpath.errors import UnknownChannel
from towpath.events.fold import Fold, merge_deltas
from towpath.events.types import Event
from towpath.log.broker import Broker, Position, Publication, Replay
from towpath.runs.questions import StoredThread
from towpath.runs.store import ThreadStore

PIECE = 500
"""How many events are decoded before other tasks run: about a millisecond's work."""


@dataclass(frozen=True, slots=True)
class RecoverFrom:
    """The position from which a subscriber recovers."""

    recover: bool
    position: Position

    @property
    def from_start(self) -> bool:
        """Whether the subscriber has no publications yet and requests all of them."""
        return self.recover and self.position == Position("", 0)


@dataclass(frozen=True, slots=True)
class Recovered:
    """The answer to a subscriber, up to and including the offset `top`."""

    epoch: str
    top: int
    recovered: bool
    publications: list[Publication]
    """A publication has an offset if it completes a position: it and those before it contain
    everything up to that offset, and nothing after it. Otherwise its offset is 0."""


class Recovery:
    """Answers subscribers from the log and the projection."""

    def __init__(self, broker: Broker, store: ThreadStore, *, snapshot_max_bytes: int) -> None:
        self._broker = broker
        self._store = store
        self._snapshot_max_bytes = snapshot_max_bytes

    async def answer(self, channel: Channel, user: str, recover_from: RecoverFrom) -> Recovered:
        """Return what a subscriber to this channel gets first.

        Raises:
            UnknownChannel: this user has no such thread.
            StorageError: the log cannot be read now.
        """
        if channel.is_thread:
            return await self._answer_thread(channel, user, recover_from)
        replay = await self._since(channel, recover_from)
        if not recover_from.recover:
            return Recovered(replay.epoch, replay.top, False, [])
        return Recovered(replay.epoch, replay.top, not replay.gone, replay.publications)

    async def tail(self, channel: Channel, after: int) -> Recovered | None:
        """Return the publications after an offset of this channel; None if the log lacks some.

        The publications of a thread are folded, those of other channels are not.

        Raises:
            StorageError: the log cannot be read now.
        """
        replay = await self._broker.read(channel, after)
        if replay.gone:
            return None
        publications = await _tail(replay) if channel.is_thread else replay.publications
        return Recovered(replay.epoch, replay.top, True, publications)

    async def check(self, channel: Channel, user: str) -> None:
        """Check that a thread exists; another user's thread counts as missing.

        Raises:
            UnknownChannel: this user has no such thread.
            StorageError: the log cannot be read now.
        """
        if channel.thread is not None and not await self._store.exists(
            channel.tenant, user, channel.thread
        ):
            raise UnknownChannel

    async def fold(self, channel: Channel, user: str) -> Fold:
        """Return the fold of a thread as it is now.

        Raises:
            UnknownChannel: this user has no such thread.
            StorageError: the log cannot be read now.
        """
        fold, _ = await self._fold(channel, user, await self._stored(channel, user))
        return fold

    async def _answer_thread(
        self, channel: Channel, user: str, recover_from: RecoverFrom
    ) -> Recovered:
        stored = await self._stored(channel, user)
        if recover_from.recover and not recover_from.from_start:
            replay = await self._since(channel, recover_from)
            if not replay.gone:
                return Recovered(replay.epoch, replay.top, True, await _tail(replay))
        fold, replay = await self._fold(channel, user, stored)
        snapshot = fold.snapshot(max_bytes=self._snapshot_max_bytes)
        publications = [Publication(0, msgspec.json.encode(event), {}) for event in snapshot]
        return Recovered(replay.epoch, replay.top, recover_from.from_start, publications)

    async def _stored(self, channel: Channel, user: str) -> StoredThread:
        stored = await self._store.get(channel.tenant, user, channel.thread or "")
        if stored is None:
            raise UnknownChannel
        return stored

    async def _fold(self, channel: Channel, user: str, stored: StoredThread) -> tuple[Fold, Replay]:
        """Return the fold of a thread as it is now, and the part of the log that was read for it.

        Where the log does not reach back to the stored fold, the thread may have continued and been
        trimmed since that fold was read; then the fold is read again.
        """
        while True:
            replay = await self._broker.read(channel, stored.offset)
            if not replay.gone:
                break
            before, stored = stored, await self._stored(channel, user)
            if stored.offset == before.offset:
                break  # The thread was deleted and created again; nothing followed that fold.
        fold = stored.fold()
        async for piece in _in_turns(replay.publications):
            for event, _ in _decoded(piece):
                fold.feed(event)
        return fold, replay

    async def _since(self, channel: Channel, recover_from: RecoverFrom) -> Replay:
        if not recover_from.recover:
            return await self._broker.read(channel, None, limit=0)
        epoch, offset = recover_from.position
        return await self._broker.read(
            channel, offset, epoch=None if recover_from.from_start else epoch
        )


async def _in_turns(items: Sequence[Publication]) -> AsyncIterator[Sequence[Publication]]:
    """Yield publications in pieces, so that a long answer does not hold up other tasks."""
    for start in range(0, len(items), PIECE):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + PIECE]


def _decoded(items: Iterable[Publication]) -> Iterator[tuple[Event, Publication]]:
    return ((msgspec.json.decode(item.data), item) for item in items)


async def _tail(replay: Replay) -> list[Publication]:
    """Join deltas; a publication that completes a position has that position's offset."""
    joined: list[tuple[Event, list[Publication]]] = []
    async for piece in _in_turns(replay.publications):
        joined += merge_deltas(_decoded(piece))
    tail: list[Publication] = []
    count = top = 0
    for event, parts in merge_deltas(joined):
        items = [item for part in parts for item in part]
        count += len(items)
        top = max(top, items[-1].offset)
        # Merging may reorder deltas of several items: then an earlier one still follows.
        complete = top - replay.publications[0].offset + 1 == count
        tail.append(_merged(event, items, top if complete else 0))
    return tail


def _merged(event: Event, items: list[Publication], offset: int) -> Publication:
    first, last = items[0], items[-1]
    if first is last:
        return last._replace(offset=offset)
    tags = {**last.tags, "from": first.tags.get("from", first.tags["seq"])}
    return Publication(offset, msgspec.json.encode(event), tags)
