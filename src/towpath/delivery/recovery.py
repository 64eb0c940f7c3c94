"""What a subscriber gets first: the tail since its position, or a prelude that brings it to now.

Every answer about a thread is whole. A position of this channel's past gets what came since,
deltas joined; anything else gets the prelude of the fold, and is told whether that was what it
asked for. Either way the answer ends at the offset it names, and what is published after that
offset continues it.

Source: WIRE section 5 (answers a to d), section 9 (prelude).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, Raw, UnsetType

from towpath.channels import Channel
from towpath.errors import UnknownChannel
from towpath.events.fold import Fold, merge_deltas
from towpath.events.types import Event
from towpath.log.broker import Broker, Position, Publication, Replay
from towpath.protocol import frames
from towpath.runs.store import StoredThread, ThreadStore

PIECE = 500
"""How many events are read before everybody else has a turn: about a millisecond's work."""


@dataclass(frozen=True, slots=True)
class RecoverFrom:
    """What a subscriber said about where it is."""

    recover: bool
    position: Position

    @property
    def from_start(self) -> bool:
        """Whether it asks for everything, having nothing."""
        return self.recover and self.position == Position("", 0)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a subscriber is told, up to and including `top`."""

    epoch: str
    top: int
    recovered: bool
    publications: list[frames.Publication]
    """Each with the offset of the position that it and those before it complete, if it completes
    one: nothing up to that offset is missing then, and nothing after it was told."""


class Recovery:
    """Answers subscribers from the log and the projection."""

    def __init__(self, broker: Broker, store: ThreadStore, *, snapshot_max_bytes: int) -> None:
        self._broker = broker
        self._store = store
        self._snapshot_max_bytes = snapshot_max_bytes

    async def answer(self, channel: Channel, user: str, recover_from: RecoverFrom) -> Recovered:
        """Return what a subscriber to this channel gets first.

        Raises:
            UnknownChannel: a thread that does not exist, or is not this user's.
            StorageError: the log cannot be read now.
        """
        if channel.is_thread:
            return await self._answer_thread(channel, user, recover_from)
        replay = await self._since(channel, recover_from)
        if not recover_from.recover:
            return Recovered(replay.epoch, replay.top, False, [])
        publications = [_whole(item) for item in replay.publications]
        return Recovered(replay.epoch, replay.top, not replay.gone, publications)

    async def tail(self, channel: Channel, after: int) -> Recovered | None:
        """Return what came after an offset of this very channel; None where it is gone.

        On a thread it is folded, elsewhere it is whole.

        Raises:
            StorageError: the log cannot be read now.
        """
        replay = await self._broker.read(channel, after)
        if replay.gone:
            return None
        if channel.is_thread:
            told = await _tail(replay)
        else:
            told = [_whole(item) for item in replay.publications]
        return Recovered(replay.epoch, replay.top, True, told)

    async def check(self, channel: Channel, user: str) -> None:
        """Refuse a thread that does not exist, exactly like one that is somebody else's.

        Raises:
            UnknownChannel: there is no such thread of this user's.
            StorageError: nobody can tell now.
        """
        if channel.thread is not None and not await self._store.exists(
            channel.tenant, user, channel.thread
        ):
            raise UnknownChannel

    async def fold(self, channel: Channel, user: str) -> Fold:
        """Return what a thread amounts to now.

        Raises:
            UnknownChannel: there is no such thread of this user's.
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
        events = [frames.Publication(data=Raw(msgspec.json.encode(event))) for event in snapshot]
        return Recovered(replay.epoch, replay.top, recover_from.from_start, events)

    async def _stored(self, channel: Channel, user: str) -> StoredThread:
        stored = await self._store.get(channel.tenant, user, channel.thread or "")
        if stored is None:
            raise UnknownChannel
        return stored

    async def _fold(self, channel: Channel, user: str, stored: StoredThread) -> tuple[Fold, Replay]:
        """Return what a thread amounts to now, and the part of the log that was read for it.

        Where the log does not reach back to what was stored, the thread may have gone on since it
        was looked at, and been trimmed; then it is looked at again.
        """
        while True:
            replay = await self._broker.read(channel, stored.offset)
            if not replay.gone:
                break
            before, stored = stored, await self._stored(channel, user)
            if stored.offset == before.offset:
                break  # Nothing came after it: a thread made anew, where an older one stood.
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


def _whole(item: Publication) -> frames.Publication:
    return frames.Publication(data=Raw(item.data), offset=item.offset, tags=item.tags or UNSET)


async def _in_turns(items: Sequence[Publication]) -> AsyncIterator[Sequence[Publication]]:
    """Yield publications in pieces: a long answer to one does not hold up all others."""
    for start in range(0, len(items), PIECE):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + PIECE]


def _decoded(items: Iterable[Publication]) -> Iterator[tuple[Event, Publication]]:
    return ((msgspec.json.decode(item.data), item) for item in items)


async def _tail(replay: Replay) -> list[frames.Publication]:
    """Join deltas; what completes a position carries its offset, the last one the top."""
    joined: list[tuple[Event, list[Publication]]] = []
    async for piece in _in_turns(replay.publications):
        joined += merge_deltas(_decoded(piece))
    told: list[frames.Publication] = []
    count = top = 0
    for event, parts in merge_deltas(joined):
        items = [item for part in parts for item in part]
        count += len(items)
        top = max(top, items[-1].offset)
        # Deltas of several items may have passed each other: then something earlier is to come.
        whole = top - replay.publications[0].offset + 1 == count
        told.append(_merged(event, items, top if whole else UNSET))
    return told


def _merged(event: Event, items: list[Publication], offset: int | UnsetType) -> frames.Publication:
    first, last = items[0], items[-1]
    if first is last:
        return frames.Publication(data=Raw(last.data), tags=last.tags, offset=offset)
    tags = {**last.tags, "from": first.tags.get("from", first.tags["seq"])}
    return frames.Publication(data=Raw(msgspec.json.encode(event)), tags=tags, offset=offset)
