"""Applies the messages of the control channel, which are revocations of credentials.

A revocation reaches every node as a publication of the log, in the log's order; also the node that
announced it. So a revocation is durable before it has an effect, and a node that starts reads all
earlier ones.

The log drops no publications of the control channel by itself, so the feed compacts the channel.
The write that announces a revocation then drops all earlier publications and writes the revocations
still in force, in one transaction. A compacted channel begins with `Compacted`, so a node that
starts can tell whether the channel is complete. If it may be incomplete, the node revokes
everything issued before.
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
"""How many revocations are announced at least before the channel is compacted again."""
PART = 500
"""How many revocations one publication of a compacted channel holds."""
SLICE = 1_000
"""How many revocations are read at startup before other tasks run: about a millisecond."""
ATTEMPTS = 2
"""How often compacting is tried; writes in progress at the first try are done at the second."""
OLD_TOP = 8_000
"""A channel without `Compacted` whose top is at most this offset lacks no revocation in force.

Versions before compaction kept 100,000 publications and 64 MiB, each for 30 days. A publication was
a `jti` of at most 1,024 characters and a tenant of 255, in JSON up to 6 bytes per character: below
7,900 bytes. So the first 8,000 publications were within both bounds, and missing ones had expired.
"""

_decode = msgspec.json.Decoder(Revocation | Compacted).decode


class RevocationFeed:
    """Applies the control channel's revocations on this node, and announces new ones."""

    def __init__(self, service: AuthService, hub: Hub, telemetry: Telemetry) -> None:
        self._service = service
        self._hub = hub
        self._telemetry = telemetry
        self._top = 0
        """The offset of the last publication that was read."""
        self._announced = 0
        """How many revocations were announced since the channel was compacted."""
        self._unread = False
        """Whether a publication could not be decoded: compacting the channel would lose it."""
        self._compacting = asyncio.Lock()

    async def catch_up(self, broker: Broker, now: float) -> None:
        """Attach the control channel, and read all revocations announced before this node started.

        If revocations may be missing, everything issued before now is revoked. The write that does
        so compacts the channel, so it is complete at the next start.

        Args:
            broker: the log.
            now: Unix seconds.

        Raises:
            StorageError: the log cannot be read.
        """
        broker.attach(CONTROL)
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
        """Apply publications; one that cannot be decoded is reported and skipped."""
        for publication in publications:
            follows = publication.offset == self._top + 1
            statement = self._read(publication)
            if isinstance(statement, Revocation):
                self._revoke(statement)
            elif not follows:  # If it follows, its revocations were all applied before.
                for revocation in _revocations(statement):
                    self._revoke(revocation)

    async def publish(self, broker: Broker, revocation: Revocation, request: Write) -> Written:
        """Announce a revocation to every node, and compact the channel if it has grown.

        A revocation that revokes nothing new is not published.

        Args:
            broker: the log.
            revocation: the revocation.
            request: the idempotency key and the result to store in the same transaction.

        Raises:
            CommandError, StorageError: the write failed; see `Broker.submit`.
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
        """Announce a revocation in a write that compacts the channel; None if that failed.

        Only one task compacts at a time: the write is refused unless it follows the last
        publication that was read, and concurrent announcements would come in between.
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
                    self._announced = 0  # Compacting is tried again after as many announcements.
        return None

    def _compaction(self, *announced: Revocation) -> Write:
        """Return a write that replaces the channel's content by the revocations still in force."""
        kept = list(self._service.revocations)
        statements: list[Revocation | Compacted] = [
            Compacted(part=part, revocations=tuple(kept[start : start + PART]))
            for part, start in enumerate(range(0, max(1, len(kept)), PART))
        ]
        items = tuple(map(control_item, [*statements, *announced]))
        return Write((Append(CONTROL, items, after=self._top),), truncate=(CONTROL,))

    async def _revoke_everybody(self, broker: Broker, now: float, reason: str) -> None:
        """Revoke everything issued before `now`: on this node at once, then in the log."""
        everybody = Revocation(tenant=EVERYBODY, at=now)
        self._telemetry.emit(RevocationsIncomplete(reason=reason))
        self._revoke(everybody)
        self._unread = False
        await self._make_whole(broker, everybody)

    async def _make_whole(self, broker: Broker, *announced: Revocation) -> None:
        """Compact the channel; if the write fails, the next start does it."""
        try:
            await write(broker, self._compaction(*announced))
        except StorageError as error:
            self._telemetry.emit(InternalError(where="control", error=error))

    async def _learn(self, publications: Sequence[Publication]) -> None:
        """Add the revocations of earlier publications; they end no session here."""
        count = 0
        for publication in publications:
            for revocation in _revocations(self._read(publication)):
                self._service.revocations.add(revocation)
                count += 1
            if count >= SLICE:
                count = 0
                await asyncio.sleep(0)

    def _read(self, publication: Publication) -> Revocation | Compacted | None:
        """Decode a publication; report an internal error and return None if that is impossible."""
        self._top = publication.offset
        try:
            statement: Revocation | Compacted = _decode(publication.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._unread = True
            self._telemetry.emit(InternalError(where="control", error=error))
            return None
        self._announced = 0 if isinstance(statement, Compacted) else self._announced + 1
        return statement

    def _revoke(self, revocation: Revocation) -> None:
        """Apply a revocation and end the sessions it names, unless it revokes nothing new."""
        if not self._service.apply(revocation):
            return
        closed = self._hub.end(revocation.names, codes.NOT_ALLOWED)
        self._telemetry.emit(
            SessionsRevoked(tenant=revocation.tenant, what=revocation.what, closed=closed)
        )


def _revocations(statement: Revocation | Compacted | None) -> Sequence[Revocation]:
    if isinstance(statement, Compacted):
        return statement.revocations
    return () if statement is None else (statement,)


def _is_compacted(replay: Replay) -> bool:
    """Whether the channel begins with all revocations still in force."""
    try:
        first = _decode(replay.publications[0].data)
    except (IndexError, msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(first, Compacted) and first.part == 0
