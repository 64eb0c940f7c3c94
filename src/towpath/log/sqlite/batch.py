"""One batch of writes, applied in one transaction.

A write that cannot be applied is refused alone, whatever it raises, and changes nothing. An error
that ended the transaction, or that shows a fault of the file, is raised: the whole batch is rolled
back.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from towpath.channels import Channel
from towpath.errors import CommandError, OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import (
    Append,
    IdempotencyKey,
    Item,
    Projection,
    Retention,
    Span,
    Write,
    Written,
    channel_epoch,
    follows,
)
from towpath.log.sqlite import retention
from towpath.log.sqlite.heads import Head, Heads, save
from towpath.log.sqlite.health import health_of
from towpath.log.sqlite.integrity import checksums
from towpath.log.sqlite.replay import stored_result

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

    first: int
    """The offset of the first publication."""
    items: Items = field(default_factory=list)
    truncate: bool = False
    """Whether the publications of the channel in the file are dropped first."""


class Batch:
    """The writes of one transaction."""

    def __init__(
        self,
        db: sqlite3.Connection,
        heads: Heads,
        projection: Projection,
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
            sqlite3.Error, LogCorrupted: the error concerns the whole batch.
        """
        try:
            items = [list(map(_encode_item, append.items)) for append in write.appends]
            spans = self._spans(write.appends)
            for channel in write.truncate:
                self._head(channel)
            if write.key is None and not write.facts and write.result is None:
                self._check_follows(write.appends, spans)
                written = Written(spans=spans)
            else:
                written = self._write_facts(write, spans)
        except (CommandError, StorageError) as refusal:
            return refusal
        except Exception as error:  # An error of one write must not stop the other writes.
            if self._concerns_all(error):
                raise
            failed = WriteFailed("the log cannot take this write")
            failed.__cause__ = error
            return failed
        if not written.repeated:
            self._place(write, spans, items)
        return written

    def _concerns_all(self, error: Exception) -> bool:
        """Whether an error ended the transaction, or shows a fault of the file."""
        return not self._db.in_transaction or health_of(error) is not None

    def _write_facts(self, write: Write, spans: tuple[Span, ...]) -> Written:
        """Apply a write that has more than publications, in a savepoint."""
        self._db.execute("SAVEPOINT write")
        try:
            written = self._apply(write, spans)
        except Exception:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO write")
                self._db.execute("RELEASE write")
            raise
        self._db.execute("RELEASE write")
        return written

    def _apply(self, write: Write, spans: tuple[Span, ...]) -> Written:
        """Apply the key and the facts of a write.

        Raises:
            CommandError: the key or one of the facts is refused.
            StorageError: an append does not follow the offset or the fence that it names.
        """
        if (
            write.key is not None
            and (
                earlier := stored_result(self._db, write.key, table=f"{checksums.CHECKED}requests")
            )
            is not None
        ):
            return Written(result=earlier, repeated=True)
        self._check_follows(write.appends, spans)
        for fact in write.facts:
            self._projection.apply(self._db, fact, spans)
        result = write.result(spans) if write.result else b""
        if write.key is not None:
            self._remember(write.key, result)
        return Written(spans=spans, result=result)

    def _check_follows(self, appends: Sequence[Append], spans: Sequence[Span]) -> None:
        if not follows(appends, spans, self._fence):
            raise OffsetConflict("an earlier write is missing, or another producer has written")

    def _spans(self, appends: Sequence[Append]) -> tuple[Span, ...]:
        """Return the spans that appends will get; change no head."""
        tops: dict[Channel, int] = {}
        spans = []
        for append in appends:
            channel = append.channel
            top = tops.get(channel, self._head(channel).top)
            tops[channel] = top + len(append.items)
            epoch = channel_epoch(self._epoch, channel)
            spans.append(Span(channel, epoch, top + 1, tops[channel]))
        return tuple(spans)

    def _place(self, write: Write, spans: Sequence[Span], items: Sequence[Items]) -> None:
        """Add the publications of a write to the rows of this batch, at the offsets of `spans`."""
        for channel in write.truncate:
            head = self._head(channel)
            head.publications = head.bytes = 0
            head.fence = head.due = None
            self._rows[channel] = _Row(head.top + 1, truncate=True)
        for append, span, encoded in zip(write.appends, spans, items, strict=True):
            head = self._head(append.channel)
            head.top = span.last
            if append.fence:
                head.fence = span.first
            if append.unfence:
                head.fence = None
            self._rows.setdefault(append.channel, _Row(span.first)).items.extend(encoded)

    def _fence(self, channel: Channel) -> int | None:
        return self._head(channel).fence

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
        """Write the row and the head of one channel; a channel never published to gets no row."""
        head, keep = self._head(channel), self._keep(channel)
        if head.id is None and head.top == 0:
            return
        if head.id is None:
            save(self._db, channel, head, self._now)
        if row.truncate:
            self._db.execute("DELETE FROM log WHERE channel=?", (head.id,))
        if row.items:
            self._insert(head, row)
        if keep is not None:
            retention.drop_surplus(self._db, head, keep)
        head.due = retention.due(head, keep, self._now, added=len(row.items))
        save(self._db, channel, head, self._now)

    def _insert(self, head: Head, row: _Row) -> None:
        blob = _encode_items(row.items)
        values = (head.id, head.top, row.first, self._now, len(blob), blob)
        self._db.execute(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, checksums.seal(*values))
        )
        head.publications += len(row.items)
        head.bytes += len(blob)

    def _remember(self, key: IdempotencyKey, result: bytes) -> None:
        self._db.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (*key.scope, key.request_id, key.digest, result, self._now),
        )
