"""Reads the publications of a channel, and the stored results of requests, from the file."""

import sqlite3
from dataclasses import dataclass

import msgspec

from towpath.channels import Channel
from towpath.errors import Conflict, LogCorrupted
from towpath.log.broker import IdempotencyKey, Publication, Replay, span_of

decode_items = msgspec.msgpack.Decoder(list[tuple[bytes, dict[str, str]]]).decode
_MISSING = "publications are missing"


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """The arguments of `Broker.read`, and the channel's current epoch (`here`)."""

    channel: Channel
    here: str
    after: int | None
    epoch: str | None
    limit: int | None
    reverse: bool


def read(db: sqlite3.Connection, request: ReadRequest) -> Replay:
    """Return the result of `Broker.read` from the file.

    Raises:
        LogCorrupted: publications are missing.
    """
    head = db.execute(
        "SELECT id, top, publications FROM channels WHERE tenant=? AND name=?",
        (request.channel.tenant, request.channel.name),
    ).fetchone()
    channel_id, top, kept = head or (None, 0, 0)
    begins = top - kept + 1
    span = span_of(request.after, top, begins, reverse=request.reverse)
    if (request.epoch is not None and request.epoch != request.here) or span is None:
        return Replay(request.here, top, [], gone=True, begins=begins)
    found = _publications(db, channel_id, span, request)
    return Replay(request.here, top, found, begins=begins)


def _publications(
    db: sqlite3.Connection, channel_id: int | None, span: range, request: ReadRequest
) -> list[Publication]:
    """Return the publications with these offsets, in the requested order and up to the limit."""
    found: list[Publication] = []
    limit = len(span) if request.limit is None else min(request.limit, len(span))
    order, step = ("DESC", -1) if request.reverse else ("", 1)
    # The last row is the first one that reaches the end of `span`; it may go beyond `span`.
    rows = db.execute(
        "SELECT first, items FROM log WHERE channel=?1 AND last>=?2 AND last<=COALESCE((SELECT"
        f" MIN(last) FROM log WHERE channel=?1 AND last>=?3), ?3) ORDER BY last {order}",
        (channel_id, span.start, span.stop - 1),
    )
    while len(found) < limit:
        row = rows.fetchone()
        if row is None:
            raise LogCorrupted(_MISSING)
        publications = [
            Publication(offset, data, tags)
            for offset, (data, tags) in enumerate(decode_items(row[1]), row[0])
            if offset in span
        ]
        found.extend(publications[::step])
    offsets = [one.offset for one in found[:limit]]
    if offsets != list(span[::step][:limit]):
        raise LogCorrupted(_MISSING)
    return found[:limit]


def stored_result(
    db: sqlite3.Connection, key: IdempotencyKey, *, table: str = "requests"
) -> bytes | None:
    """Return the result of `Broker.stored_result` from the file.

    Raises:
        Conflict: the request id was used with other parameters.
    """
    row = db.execute(
        f"SELECT digest, result FROM {table} WHERE tenant=? AND user=? AND method=?"
        " AND request_id=?",
        (*key.scope, key.request_id),
    ).fetchone()
    if row is None:
        return None
    if row[0] != key.digest:
        raise Conflict("request_id was used for something else")
    return bytes(row[1])
