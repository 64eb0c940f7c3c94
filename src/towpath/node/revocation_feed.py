"""Applies what the control channel says: today that credentials are revoked.

A revocation reaches every node as a publication of the log, in the log's order, and the node that
announced it in the same way. So a revocation is durable before it has an effect, and a node that
starts finds all earlier ones.

The log drops nothing of the control channel by itself, so the feed compacts the channel: the write
that announces a revocation drops all publications before it and states what still counts, in one
act. A compacted channel begins with `Compacted`. So a node that starts can tell whether it finds
every revocation; where it cannot be sure, it revokes everything issued before.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from towpath import codes
from towpath.auth.revocations import (
    EVERYBODY,
    Compacted,
    Revocation,
    announce,
    control_item,
)
from towpath.auth.service import AuthService
from towpath.channels import CONTROL
from towpath.delivery.hub import Hub
from towpath.errors import OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import (
    Append,
    Broker,
    Publication,
    Replay,
    Write,
    Written,
    write,
)
from towpath.telemetry import InternalError, RevocationsIncomplete, SessionsRevoked, Telemetry

COMPACT_AFTER = 1_000
"""How many revocations at least are announced before the channel is compacted."""
PART = 500
"""How many revocations stand in one publication of a compacted channel."""
SLICE = 1_000
"""How many revocations are heard at the start before others have a turn: about a millisecond."""
ATTEMPTS = 2
"""How often it is tried to compact; what was on its way before the first try is there after it."""
OLD_TOP = 8_000
"""How far a channel that versions before compaction trimmed may have come and be whole.

They kept 100,000 publications and 64 MiB, each for 30 days. One was a `jti` of 1,024 characters at
most and a tenant of 255, in JSON up to 6 bytes each: below 7,900 bytes. So the first 8,000 of a
channel were within both bounds, and what is missing of them was dropped for its age.
"""

_decode = msgspec.json.Decoder(Revocation | Compacted).decode


class RevocationFeed:
    """Applies the control channel's revocations on this node, and announces new ones."""

    def __init__(self, service: AuthService, hub: Hub, telemetry: Telemetry) -> None:
        self._service = service
        self._hub = hub
        self._telemetry = telemetry
        self._top = 0
        """The offset of the last publication that was heard."""
        self._announced = 0
        """How many revocations were announced since the channel was compacted."""
        self._unread = False
        """Whether there is one that could not be read: then compacting would lose it."""
        self._compacting = asyncio.Lock()

    async def catch_up(self, broker: Broker, now: float) -> None:
        """Hear of everything that was said before this node started.

        Where that may not be all, everything issued before now is revoked, once for all: what is
        written then makes the channel whole.

        Args:
            broker: the log.
            now: Unix seconds.

        Raises:
            StorageError: the log cannot be read.
        """
        replay = await broker.read(CONTROL, None)
        await self._learn(replay.publications)
        self._top = replay.top
        trimmed = replay.begins > 1 and not _is_compacted(replay)
        if self._unread:
            await self._revoke_everybody(broker, now, "a revocation in the log cannot be read")
        elif trimmed and replay.top > OLD_TOP:
            reason = f"the log has lost the oldest {replay.begins - 1} revocations"
            await self._revoke_everybody(broker, now, reason)
        elif trimmed:
            await self._make_whole(broker)

    def apply(self, publications: Sequence[Publication]) -> None:
        """Carry out what was published; one that cannot be read is a fault and stops no other."""
        for publication in publications:
            follows = publication.offset == self._top + 1
            said = self._read(publication)
            if isinstance(said, Revocation):
                self._revoke(said)
            elif not follows:  # Else it repeats what was heard up to here.
                for revocation in _revocations(said):
                    self._revoke(revocation)

    async def publish(self, broker: Broker, revocation: Revocation, request: Write) -> Written:
        """Tell every node of a revocation, and compact the channel where it has grown.

        A revocation that takes back nothing new is not published.

        Args:
            broker: the log.
            revocation: what is taken back.
            request: what is remembered of the request, in the same act.

        Raises:
            CommandError, StorageError: it was not written; see `Broker.submit`.
        """
        if self._service.revocations.covers(revocation):
            return await write(broker, request)
        if self._has_grown() and (written := await self._compact(broker, revocation, request)):
            return written
        return await write(broker, replace(request, appends=(announce(revocation),)))

    def _has_grown(self) -> bool:
        bound = max(COMPACT_AFTER, 2 * len(self._service.revocations))
        return self._announced > bound and not self._unread

    async def _compact(
        self, broker: Broker, revocation: Revocation, request: Write
    ) -> Written | None:
        """Announce a revocation in a write that compacts the channel; None where that failed.

        Whoever revokes meanwhile waits for it: the write is refused where it does not follow on
        what was heard, and they would always be in between.
        """
        async with self._compacting:
            for _ in range(ATTEMPTS):
                if not self._has_grown():
                    break
                made = self._compaction(revocation)
                keyed = replace(made, key=request.key, result=request.result)
                try:
                    return await write(broker, keyed)
                except OffsetConflict:
                    continue
                except WriteFailed:
                    self._announced = 0  # It is tried again after as many more.
        return None

    def _compaction(self, *announced: Revocation) -> Write:
        """Return a write that drops what the channel holds, and says what counts."""
        kept = list(self._service.revocations)
        said: list[Revocation | Compacted] = [
            Compacted(part=part, revocations=tuple(kept[start : start + PART]))
            for part, start in enumerate(range(0, max(1, len(kept)), PART))
        ]
        items = tuple(map(control_item, [*said, *announced]))
        return Write((Append(CONTROL, items, after=self._top),), truncate=(CONTROL,))

    async def _revoke_everybody(self, broker: Broker, now: float, reason: str) -> None:
        """Revoke everything issued before, here at once and in the log."""
        everybody = Revocation(tenant=EVERYBODY, at=now)
        self._telemetry.emit(RevocationsIncomplete(reason=reason))
        self._revoke(everybody)
        self._unread = False
        await self._make_whole(broker, everybody)

    async def _make_whole(self, broker: Broker, *announced: Revocation) -> None:
        """Compact the channel; where the log does not take it, the next start does it."""
        try:
            await write(broker, self._compaction(*announced))
        except StorageError as error:
            self._telemetry.emit(InternalError(where="control", error=error))

    async def _learn(self, publications: Sequence[Publication]) -> None:
        """Take note of what was carried out already."""
        heard = 0
        for publication in publications:
            for revocation in _revocations(self._read(publication)):
                self._service.revocations.add(revocation)
                heard += 1
            if heard >= SLICE:
                heard = 0
                await asyncio.sleep(0)

    def _read(self, publication: Publication) -> Revocation | Compacted | None:
        """Return what a publication says; None where it cannot be read, which is a fault."""
        self._top = publication.offset
        try:
            said: Revocation | Compacted = _decode(publication.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._unread = True
            self._telemetry.emit(InternalError(where="control", error=error))
            return None
        self._announced = 0 if isinstance(said, Compacted) else self._announced + 1
        return said

    def _revoke(self, revocation: Revocation) -> None:
        """Carry out a revocation; nobody is told of one that takes back nothing new."""
        if not self._service.apply(revocation):
            return
        closed = self._hub.end(revocation.names, codes.NOT_ALLOWED)
        self._telemetry.emit(
            SessionsRevoked(tenant=revocation.tenant, what=revocation.what, closed=closed)
        )


def _revocations(said: Revocation | Compacted | None) -> Sequence[Revocation]:
    if isinstance(said, Compacted):
        return said.revocations
    return () if said is None else (said,)


def _is_compacted(replay: Replay) -> bool:
    """Whether what is kept begins with a statement of all that counts."""
    try:
        first = _decode(replay.publications[0].data)
    except (IndexError, msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(first, Compacted) and first.part == 0
