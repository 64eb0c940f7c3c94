"""One batch of writes, applied in one transaction.

A write that cannot be applied is refused alone, whatever it raises, and changes nothing. An error
that ended the transaction, or that shows a fault of the file, is raised: the whole batch is rolled
back.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from towpath.channels import Channel
from towpath.errors import CommandError, OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import (
    Append,
    IdempotencyKey,
    Item,
    Retention,
    Span,
    Write,
    Written,
    channel_epoch,
    follows,
)
from towpath.log.sqlite import retention
from towpath.log.sqlite.file_schema import LOG, REQUESTS, LogRow, RequestRow
from towpath.log.sqlite.heads import Head, Heads, save
from towpath.log.sqlite.health import health_of
from towpath.log.sqlite.projection import SqliteProjection
from towpath.log.sqlite.replay import encode_spans, stored_result

_encode_items = msgspec.msgpack.Encoder().encode


def _encode_item(item: Item) -> msgspec.Raw:
    return msgspec.Raw(_encode_items(item))


Outcome = Written | CommandError | StorageError
"""The outcome of one write of a batch."""

Items = list[msgspec.Raw]
"""Encoded publications."""


@dataclass(slots=True)
class _Row:
    """The row that a batch adds to one channel, while the batch is applied."""

    head: Head
    first: int
    """The offset of the first publication."""
    items: Items = field(default_factory=list)
    truncate: bool = False
    """Whether the publications of the channel in the file are dropped first."""


class _Place(NamedTuple):
    """Where an append of a write goes."""

    append: Append
    head: Head
    before: int
    """The top of the channel before the append, without the offset that forgetting takes."""
    span: Span
    items: Items


class Batch:
    """The writes of one transaction."""

    def __init__(
        self,
        db: sqlite3.Connection,
        heads: Heads,
        projection: SqliteProjection,
        *,
        epoch: str,
        retention: Callable[[Channel], Retention | None],
        now: float,
    ) -> None:
        """Begin a batch, in a transaction of `db`.

        Args:
            db: the connection that writes.
            heads: the heads of channels; `store` saves those that the batch changes.
            projection: applies the facts.
            epoch: the log's epoch.
            retention: returns the retention of a channel.
            now: Unix seconds.
        """
        self._db = db
        self._heads = heads
        self._projection = projection
        self._epoch = epoch
        self._keep = retention
        self._now = now
        self._rows: dict[Channel, _Row] = {}

    def write(self, write: Write) -> Outcome:
        """Apply one write of a batch; an error of this write alone is returned as its outcome.

        All steps that may raise run before anything outside the savepoint changes.

        Raises:
            sqlite3.Error: the error concerns the whole batch.
        """
        try:
            places = self._places(write)
            if write.key is None and not write.facts:
                _check(places)
                written = Written(spans=_spans(places), result=write.result)
            else:
                written = self._write_facts(write, places)
        except (CommandError, StorageError) as refusal:
            return refusal
        except Exception as error:  # An error of one write must not stop the other writes.
            if self._concerns_all(error):
                raise
            failed = WriteFailed("the log cannot take this write")
            failed.__cause__ = error
            return failed
        if not written.repeated:
            self._place(write, places)
        return written

    def _concerns_all(self, error: Exception) -> bool:
        """Whether an error ended the transaction, or shows a fault of the file."""
        return not self._db.in_transaction or health_of(error) is not None

    def _write_facts(self, write: Write, places: list[_Place]) -> Written:
        """Apply a write that has more than publications, in a savepoint."""
        self._db.execute("SAVEPOINT write")
        try:
            written = self._apply(write, places)
        except Exception:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO write")
                self._db.execute("RELEASE write")
            raise
        self._db.execute("RELEASE write")
        return written

    def _apply(self, write: Write, places: list[_Place]) -> Written:
        """Apply the key and the facts of a write.

        Raises:
            CommandError: the key or one of the facts is refused.
            StorageError: an append does not follow the offset or the fence that it names.
        """
        if write.key is not None and (earlier := stored_result(self._db, write.key)) is not None:
            return earlier
        _check(places)
        spans = _spans(places)
        for fact in write.facts:
            self._projection.apply(self._db, fact, spans)
        written = Written(spans=spans, result=write.result)
        if write.key is not None:
            self._remember(write.key, written)
        return written

    def _places(self, write: Write) -> list[_Place]:
        """Return where the appends of a write go; change no head."""
        tops: dict[Channel, tuple[int, int]] = {}
        for channel in write.truncate:
            head = self._head(channel)
            tops[channel] = (head.top, self._forgetting(head))
        places = []
        for append in write.appends:
            channel, head = append.channel, self._head(append.channel)
            before, top = tops.get(channel, (head.top, head.top))
            last = top + len(append.items)
            tops[channel] = (last, last)
            if head.epoch is None:
                head.epoch = channel_epoch(self._epoch, channel, head.salt or 0)
            span = Span(channel, head.epoch, top + 1, last)
            items = list(map(_encode_item, append.items))
            places.append(_Place(append, head, before, span, items))
        return places

    def _forgetting(self, head: Head) -> int:
        """Return the offset that forgetting a channel takes: no position before it stays valid."""
        return head.top + 1 if self._exists(head) else head.top

    def _exists(self, head: Head) -> bool:
        """Whether a channel has ever been written to, so that it has a row or gets one."""
        return head.id is not None or head.top > head.base or head.fence is not None

    def _place(self, write: Write, places: list[_Place]) -> None:
        """Add the publications of a write to the rows of this batch."""
        for channel in write.truncate:
            head = self._head(channel)
            head.top = self._forgetting(head)
            head.publications = head.bytes = 0
            head.fence = head.due = None
            self._rows[channel] = _Row(head, head.top + 1, truncate=True)
        for append, head, _, span, items in places:
            head.top = span.last
            if append.fence:
                head.fence = span.first
            if append.unfence:
                head.fence = None
            row = self._rows.get(append.channel)
            if row is None:
                row = self._rows[append.channel] = _Row(head, span.first)
            row.items.extend(items)

    def _head(self, channel: Channel) -> Head:
        return self._heads.get(self._db, channel)

    def store(self) -> None:
        """Write the rows and the heads of all channels that the batch changed.

        Raises:
            sqlite3.Error: the batch has to be rolled back.
        """
        for channel, row in self._rows.items():
            self._store(channel, row)

    def _store(self, channel: Channel, row: _Row) -> None:
        """Write the row and the head of one channel; a channel never written to gets no row."""
        head, keep = row.head, self._keep(channel)
        if not self._exists(head):
            return
        head.updated = self._now
        if head.id is None:
            save(self._db, channel, head)
        assert head.id is not None, "it was saved"
        if row.truncate:
            self._db.execute("DELETE FROM log WHERE channel=?", (head.id,))
        if row.items:
            self._insert(head, head.id, row)
        if keep is not None:
            retention.drop_surplus(self._db, head, keep)
        head.due = retention.due(head, keep, self._now, added=len(row.items))
        if row.truncate and not row.items:
            head.due = self._now + retention.FORGOTTEN_SECONDS
        save(self._db, channel, head)

    def _insert(self, head: Head, channel: int, row: _Row) -> None:
        blob = _encode_items(row.items)
        LOG.insert(self._db, LogRow(channel, head.top, row.first, self._now, len(blob), blob))
        head.publications += len(row.items)
        head.bytes += len(blob)

    def _remember(self, key: IdempotencyKey, written: Written) -> None:
        spans = encode_spans(written.spans)
        row = RequestRow(*key.scope, key.request_id, key.digest, written.result, self._now, spans)
        REQUESTS.insert(self._db, row)


def _spans(places: list[_Place]) -> tuple[Span, ...]:
    return tuple(place.span for place in places)


def _check(places: list[_Place]) -> None:
    """Check that each append follows what it names.

    Raises:
        OffsetConflict: one does not.
    """
    for append, head, before, _, _ in places:
        if not follows(append, before, head.fence):
            raise OffsetConflict("an earlier write is missing, or another producer has written")
