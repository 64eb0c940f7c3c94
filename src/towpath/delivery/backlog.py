"""The backlog of a reader: publications that wait beside its outbox, bounded and later merged.

Publications wait here as they are, shared by all readers that wait for them, so a backlog costs
little until it is written. Two kinds of readers need a backlog: a reader that is joining, and a
reader that takes less than is published. When a backlog is taken, consecutive deltas of one item
become one publication with the last offset; the order is unchanged. A backlog that exceeds its
bound is given up: its publications are in the log, and the reader gets them from there, folded.

Source: WIRE section 5 (what may be merged), section 9 (a slow reader becomes a recovering one).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from towpath.events.types import DELTAS
from towpath.log.broker import Publication

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Backlog:
    """The publications one reader of one channel waits for."""

    __slots__ = ("_waiting", "given_up", "level")

    def __init__(self) -> None:
        self._waiting: list[Publication] = []
        self.level = 0
        """How many bytes wait."""
        self.given_up = False
        """Whether publications were dropped, so that the backlog is incomplete."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, publications: Sequence[Publication], room: int) -> None:
        """Add publications, or give up if they need more than `room` bytes."""
        if self.given_up:
            return
        size = sum(len(publication.data) for publication in publications)
        if size > room:
            self.give_up()
        else:
            self._waiting.extend(publications)
            self.level += size

    def give_up(self) -> None:
        """Drop all publications; they must be read from the log."""
        self._waiting.clear()
        self.level = 0
        self.given_up = True

    def take(self, after: int) -> list[Publication]:
        """Remove all publications and return those newer than an offset, merged."""
        waiting, self._waiting, self.level = self._waiting, [], 0
        return list(merged([one for one in waiting if one.offset > after]))


def merged(publications: Sequence[Publication]) -> Iterator[Publication]:
    """Yield publications; consecutive deltas of one item become one publication."""
    run: list[tuple[Publication, dict[str, Any]]] = []
    for publication in publications:
        event = _delta(publication)
        if run and (event is None or not _same_item(run[-1][1], event)):
            yield _joined(run)
            run = []
        if event is None:
            yield publication
        else:
            run.append((publication, event))
    if run:
        yield _joined(run)


def _delta(publication: Publication) -> dict[str, Any] | None:
    """Return the event of a publication if it is a delta of some item."""
    if b'"delta"' not in publication.data:
        return None
    event = _decode(publication.data)
    return event if isinstance(event, dict) and event.get("type") in DELTAS else None


def _same_item(one: dict[str, Any], other: dict[str, Any]) -> bool:
    field = DELTAS[one["type"]]
    return one["type"] == other["type"] and one.get(field) == other.get(field)


def _joined(run: list[tuple[Publication, dict[str, Any]]]) -> Publication:
    (first, event), (last, _) = run[0], run[-1]
    if first is last:
        return first
    text = "".join(str(one["delta"]) for _, one in run)
    tags = {**last.tags, "from": first.tags.get("from", first.tags.get("seq", ""))}
    return Publication(last.offset, _encode({**event, "delta": text}), tags)
