"""Merges the text deltas of consecutive publications.

Deltas of one item and one run that follow each other become one publication with the last offset.
The order is unchanged, so each merged publication completes the position of its offset. All other
publications keep their bytes.

Source: WIRE section 5 (what may be merged), section 6 (the tags `from` and `seq`).
"""

from collections.abc import Iterable, Iterator
from itertools import starmap

import msgspec

from towpath.events.fold import WaitingDeltas
from towpath.events.types import DELTAS, Event
from towpath.log.broker import Publication

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def merged(publications: Iterable[Publication]) -> Iterator[Publication]:
    """Yield publications; consecutive deltas of one item become one publication."""
    waiting, item = WaitingDeltas(), None
    for publication in publications:
        event = delta_of(publication)
        here = None if event is None else item_of(publication, event)
        if here != item:
            yield from starmap(joined, waiting.take())
        item = here
        if event is None:
            yield publication
        else:
            waiting.add(event, publication)
    yield from starmap(joined, waiting.take())


def delta_of(publication: Publication) -> Event | None:
    """Return the event of a publication if it is a text delta of an item."""
    if b'"delta"' not in publication.data:
        return None
    event = _decode(publication.data)
    return event if isinstance(event, dict) and event.get("type") in DELTAS else None


def item_of(publication: Publication, event: Event) -> tuple[object, ...]:
    """Return what identifies the item of a delta: its run, its type and its id."""
    kind = event["type"]
    return publication.tags.get("run"), kind, event.get(DELTAS[kind])


def joined(event: Event, publications: list[Publication]) -> Publication:
    """Return the deltas of one item as one publication with the offset of the last one.

    Args:
        event: the joined event.
        publications: the publications that it was joined from.
    """
    first, last = publications[0], publications[-1]
    if first is last:
        return first
    tags = {**last.tags, "from": first.tags.get("from", first.tags.get("seq", ""))}
    return Publication(last.offset, _encode(event), tags)
