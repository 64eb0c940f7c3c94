"""Reads the publications of a channel, and the stored results of requests, from the file."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from towpath.channels import Channel
from towpath.errors import Conflict, RowDamaged
from towpath.log.broker import (
    IdempotencyKey,
    Publication,
    Read,
    Replay,
    Span,
    Written,
    channel_epoch,
)
from towpath.log.reading import span_of, take
from towpath.log.sqlite.file_schema import LOG, REQUESTS
from towpath.log.sqlite.heads import ChannelDamaged, base_of, floor_of, row_of

T = TypeVar("T")

decode_items = msgspec.msgpack.Decoder(list[tuple[bytes, dict[str, str]]]).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_spans = msgspec.msgpack.Decoder(list[tuple[str, str, str, int, int]]).decode


def in_transaction(db: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """Read in one read transaction, so that it sees one consistent state."""
    db.execute("BEGIN")
    try:
        return read(db)
    finally:
        db.execute("COMMIT")


def read(db: sqlite3.Connection, request: Read, log_epoch: str) -> Replay:
    """Return the answer to a `Read` from the file.

    Args:
        db: the database, in a read transaction.
        request: what is read.
        log_epoch: the epoch of the log.

    Raises:
        ChannelDamaged: publications are missing, or are not what was written.
    """
    row = row_of(db, request.channel)
    base = base_of(request.channel, floor_of(db)) if row is None else row.base or 0
    top, kept = (row.top, row.publications) if row else (base, 0)
    here = channel_epoch(log_epoch, request.channel, (row and row.salt) or 0)
    begins = top - kept + 1
    # A reader that has seen nothing has seen all that is below the base.
    after = base if request.after == 0 and not request.reverse else request.after
    span = span_of(after, top, begins, reverse=request.reverse)
    if request.epoch not in (None, here) or span is None:
        return Replay(here, top, [], gone=True, begins=begins)
    if row is None or row.id is None:
        return Replay(here, top, [], begins=begins)
    found = _publications(db, row.id, span, request)
    return Replay(here, top, found, begins=begins, more=len(found) < len(span))


def _publications(
    db: sqlite3.Connection, channel_id: int, span: range, request: Read
) -> list[Publication]:
    """Return the publications with these offsets, in the requested order and within the bounds."""
    step = -1 if request.reverse else 1
    try:
        found, bounded = take(
            _decoded(db, channel_id, span, step), request.limit, request.max_bytes
        )
    except (RowDamaged, msgspec.DecodeError):
        raise ChannelDamaged(request.channel) from None
    expected = list(span[::step][: len(found)] if bounded else span[::step])
    if [one.offset for one in found] != expected:
        raise ChannelDamaged(request.channel)
    return found


def _decoded(
    db: sqlite3.Connection, channel_id: int, span: range, step: int
) -> Iterator[Publication]:
    """Yield the publications with these offsets; a row is read when its first one is taken."""
    order = "DESC" if step < 0 else ""
    # The last row is the first one that reaches the end of `span`; it may go beyond `span`.
    rows = LOG.rows(
        db,
        "WHERE channel=?1 AND last>=?2 AND last<=COALESCE((SELECT MIN(last) FROM log"
        f" WHERE channel=?1 AND last>=?3), ?3) ORDER BY last {order}",
        (channel_id, span.start, span.stop - 1),
    )
    for row in rows:
        publications = [
            Publication(offset, data, tags)
            for offset, (data, tags) in enumerate(decode_items(row.items), row.first)
            if offset in span
        ]
        yield from publications[::step]


def stored_result(db: sqlite3.Connection, key: IdempotencyKey) -> Written | None:
    """Return the result of `Broker.stored_result` from the file.

    Raises:
        Conflict: the request id was used with other parameters.
        RowDamaged: the result is not what was written.
    """
    row = REQUESTS.get(db, *key.scope, key.request_id)
    if row is None:
        return None
    if row.digest != key.digest:
        raise Conflict("request_id was used for something else")
    return Written(spans=_spans(row.spans), result=row.result, repeated=True)


def encode_spans(spans: Sequence[Span]) -> bytes:
    """Return the spans of a write as the column `requests.spans` holds them."""
    return _encode(
        [(one.channel.tenant, one.channel.name, one.epoch, one.first, one.last) for one in spans]
    )


def _spans(stored: bytes | None) -> tuple[Span, ...]:
    """Return stored spans; none if an older version stored the result."""
    return tuple(
        Span(Channel(tenant, name), epoch, first, last)
        for tenant, name, epoch, first, last in (_decode_spans(stored) if stored else ())
    )
