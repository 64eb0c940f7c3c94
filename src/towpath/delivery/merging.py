"""Merges the text deltas of consecutive publications.

Deltas of one item and one run that follow each other become one publication with the last offset.
The order is unchanged, so each merged publication completes the position of its offset. All other
publications keep their bytes.

Source: WIRE section 5 (what may be merged), section 6 (the tags `from` and `seq`).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from towpath.events.types import DELTAS
from towpath.log.broker import Publication

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

Delta = tuple[Publication, dict[str, Any]]
"""A publication with a text delta, and its decoded event."""


def merged(publications: Iterable[Publication]) -> Iterator[Publication]:
    """Yield publications; consecutive deltas of one item become one publication."""
    run: list[Delta] = []
    for publication in publications:
        event = delta_of(publication)
        if run and (event is None or item_of(*run[-1]) != item_of(publication, event)):
            yield joined(run)
            run = []
        if event is None:
            yield publication
        else:
            run.append((publication, event))
    if run:
        yield joined(run)


def delta_of(publication: Publication) -> dict[str, Any] | None:
    """Return the event of a publication if it is a text delta of an item."""
    if b'"delta"' not in publication.data:
        return None
    event = _decode(publication.data)
    return event if isinstance(event, dict) and event.get("type") in DELTAS else None


def item_of(publication: Publication, event: dict[str, Any]) -> tuple[object, ...]:
    """Return what identifies the item of a delta: its run, its type and its id."""
    kind = event["type"]
    return publication.tags.get("run"), kind, event.get(DELTAS[kind])


def joined(deltas: list[Delta]) -> Publication:
    """Return the deltas of one item as one publication with the offset of the last one."""
    (first, event), (last, _) = deltas[0], deltas[-1]
    if first is last:
        return first
    text = "".join(str(one["delta"]) for _, one in deltas)
    tags = {**last.tags, "from": first.tags.get("from", first.tags.get("seq", ""))}
    return Publication(last.offset, _encode({**event, "delta": text}), tags)
