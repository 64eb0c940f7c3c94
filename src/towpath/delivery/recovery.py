"""What a subscriber gets first: the tail since its position, or a snapshot of the channel.

Every answer about a thread is complete. A position of this channel's past gets the publications
since that position, deltas joined. Any other position gets the snapshot of the fold, and the answer
says whether the subscriber requested that. Either way the answer ends at the offset it names, and
the publications after that offset continue it.

Answers are publications of the log; the sender encodes them.

Source: WIRE section 5 (answers a to d), section 9 (snapshot).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from towpath.channels import Channel
from towpath.delivery.merging import delta_of, joined
from towpath.errors import UnknownChannel
from towpath.events.fold import Fold, WaitingDeltas
from towpath.events.types import Event
from towpath.log.broker import Broker, Position, Publication, Replay, failure
from towpath.runs.questions import StoredThread
from towpath.runs.store import ThreadStore

SLICE_SECONDS: Final = 0.002
"""How long publications are folded before other tasks run."""
TAIL_BYTES: Final = 4 * 1024 * 1024
"""How much of the log is folded into one tail. A longer tail becomes a snapshot, where there is
one."""


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
    more: bool = False
    """Whether the log has publications after `top`, because the tail reached its bound."""


class Recovery:
    """Answers subscribers from the log and the projection."""

    def __init__(
        self,
        broker: Broker,
        store: ThreadStore,
        *,
        snapshot_max_bytes: int,
        tail_max_bytes: int = TAIL_BYTES,
        cpu_clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Answer from this log and this projection.

        Args:
            broker: the log.
            store: the projection.
            snapshot_max_bytes: bound on the text of the messages in a snapshot.
            tail_max_bytes: bound on what is read of the log for one tail.
            cpu_clock: seconds, by which long folds let other tasks run.
        """
        self._broker = broker
        self._store = store
        self._snapshot_max_bytes = snapshot_max_bytes
        self._tail_max_bytes = tail_max_bytes
        self._cpu_clock = cpu_clock
        self._tails: dict[tuple[Channel, int], asyncio.Task[Recovered | None]] = {}
        """The tails that are being read, by channel and cursor."""

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

        The publications of a thread are folded, those of other channels are not. A tail that
        reached its bound says that there is more. Readers behind the same gap share one read.

        Raises:
            StorageError: the log cannot be read now.
        """
        key = (channel, after)
        reading = self._tails.get(key)
        if reading is None:
            reading = self._tails[key] = asyncio.create_task(self._read_tail(channel, after))
            reading.add_done_callback(failure)  # Retrieves the error: perhaps no reader waits.
            reading.add_done_callback(lambda _: self._tails.pop(key))
        return await asyncio.shield(reading)

    async def _read_tail(self, channel: Channel, after: int) -> Recovered | None:
        replay = await self._broker.read(channel, after, max_bytes=self._tail_max_bytes)
        if replay.gone:
            return None
        top = replay.publications[-1].offset if replay.more else replay.top
        publications = replay.publications
        if channel.is_thread:
            publications = await self._folded(publications)
        return Recovered(replay.epoch, top, True, publications, replay.more)

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
        if recover_from.recover and not recover_from.from_start:
            await self.check(channel, user)
            replay = await self._since(channel, recover_from)
            if not replay.gone and not replay.more:
                folded = await self._folded(replay.publications)
                return Recovered(replay.epoch, replay.top, True, folded)
        fold, replay = await self._fold(channel, user, await self._stored(channel, user))
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
        async for publication in self._in_slices(replay.publications):
            fold.feed(msgspec.json.decode(publication.data))
        return fold, replay

    async def _since(self, channel: Channel, recover_from: RecoverFrom) -> Replay:
        if not recover_from.recover:
            return await self._broker.read(channel, None, limit=0)
        epoch, offset = recover_from.position
        return await self._broker.read(
            channel,
            offset,
            epoch=None if recover_from.from_start else epoch,
            max_bytes=self._tail_max_bytes if channel.is_thread else None,
        )

    async def _folded(self, publications: list[Publication]) -> list[Publication]:
        """Join the deltas of each item; no delta is moved past another kind of event.

        Deltas of several items may change places, which no reader can notice. A publication that
        completes a position has that position's offset, any other one has none.
        """
        folded: list[Publication] = []
        waiting = WaitingDeltas()
        async for publication in self._in_slices(publications):
            event = delta_of(publication)
            if event is None:
                folded.extend(_completing(waiting.take()))
                folded.append(publication)
            else:
                waiting.add(event, publication)
        folded.extend(_completing(waiting.take()))
        return folded

    async def _in_slices(self, publications: list[Publication]) -> AsyncIterator[Publication]:
        """Yield publications, and let other tasks run every `SLICE_SECONDS`."""
        until = self._cpu_clock() + SLICE_SECONDS
        for publication in publications:
            if self._cpu_clock() > until:
                await asyncio.sleep(0)
                until = self._cpu_clock() + SLICE_SECONDS
            yield publication


def _completing(items: list[tuple[Event, list[Publication]]]) -> list[Publication]:
    """Return one publication for the deltas of each item, and its offset if it completes one.

    Args:
        items: for each item the joined event and its publications; all of them together have no
            gap in their offsets.
    """
    first = min((parts[0].offset for _, parts in items), default=0)
    publications, count, top = list[Publication](), 0, 0
    for event, parts in items:
        count += len(parts)
        top = max(top, parts[-1].offset)
        complete = top - first + 1 == count
        publications.append(joined(event, parts)._replace(offset=top if complete else 0))
    return publications
