"""The ring of a channel: its last publications, shared by all of its readers on this node.

A channel that has readers keeps its last publications in one ring. Each reader has a cursor, and
takes the publications after its cursor. So a reader that takes less than is published costs no
memory of its own, and readers with the same cursor get the same encoded bytes.

A ring is bounded in bytes, and so are all rings of a node together (`Rings`). A reader whose cursor
is before the ring reads the log instead.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from towpath.channels import Channel
from towpath.delivery.encoding import Encoding
from towpath.delivery.merging import merged
from towpath.log.broker import Publication

PIECE_BYTES: Final = 64 * 1024
"""How much of a ring a reader takes at once; a larger publication is taken whole."""
PIECES: Final = 8
"""How many encoded pieces a ring keeps: readers behind the same gap share them."""


class Piece(NamedTuple):
    """Consecutive publications of a channel, encoded."""

    data: bytes
    last: int
    """The offset of the last publication in it."""


class Ring:
    """The last publications of one channel, without a gap."""

    __slots__ = ("_max_bytes", "_pieces", "_publications", "channel", "level", "top")

    def __init__(self, channel: Channel, max_bytes: int) -> None:
        """Make an empty ring of at most this many bytes."""
        self.channel = channel
        self._max_bytes = max_bytes
        self._publications: list[Publication] = []
        self._pieces: dict[tuple[int, int, Encoding, bool], Piece] = {}
        self.level = 0
        """How many bytes it holds."""
        self.top = 0
        """The offset of the last publication that was put in; 0 if none was."""

    @property
    def base(self) -> int:
        """The offset before the oldest publication it holds; `top` if it holds none."""
        return self.top - len(self._publications)

    def append(self, publications: Sequence[Publication]) -> None:
        """Add publications that it does not hold yet, and drop older ones beyond the bound.

        The added ones are kept, whatever their size: readers at the top take them next. After a gap
        only the publications behind the gap are kept.
        """
        first = publications[0].offset
        if first > self.top + 1:
            self.forget()
        elif first <= self.top:
            publications = [one for one in publications if one.offset > self.top]
            if not publications:
                return
        self._publications.extend(publications)
        self.level += sum(map(_size, publications))
        self.top = publications[-1].offset
        if self.level > self._max_bytes:
            self._trim(len(self._publications) - len(publications))

    def forget(self) -> None:
        """Drop all publications; readers before `top` read the log."""
        self._publications.clear()
        self._pieces.clear()
        self.level = 0

    def after(self, cursor: int, *, merge: bool) -> Sequence[Publication] | None:
        """Return publications after a cursor: `PIECE_BYTES` of them, or one that is larger.

        Args:
            cursor: an offset below `top`.
            merge: whether consecutive text deltas are merged.

        Returns:
            At least one publication; None if the ring does not reach back to the cursor.
        """
        taken = self._taken(cursor)
        return list(merged(taken)) if taken and merge else taken

    def piece(self, cursor: int, encoding: Encoding, *, merge: bool) -> Piece | None:
        """Return publications after a cursor encoded: the same object for every reader.

        See `after`.
        """
        taken = self._taken(cursor)
        if taken is None:
            return None
        last = taken[-1].offset
        key = (cursor, last, encoding, merge)
        pieces = self._pieces
        piece = pieces.get(key)
        if piece is None:
            shown = merged(taken) if merge else taken
            piece = Piece(encoding.join(self.channel, shown), last)
            if len(pieces) >= PIECES:
                del pieces[next(iter(pieces))]
            pieces[key] = piece
        return piece

    def _taken(self, cursor: int) -> Sequence[Publication] | None:
        held, start = self._publications, cursor - self.base
        if start < 0:
            return None
        if start == len(held) - 1:
            return held[start:]
        end, size = start, 0
        while end < len(held) and (end == start or size + _size(held[end]) <= PIECE_BYTES):
            size += _size(held[end])
            end += 1
        return held[start:end]

    def _trim(self, older: int) -> None:
        """Drop some of the `older` publications, until a quarter of the bound is free."""
        count, held = 0, self._publications
        while self.level > self._max_bytes * 3 // 4 and count < older:
            self.level -= _size(held[count])
            count += 1
        del held[:count]


class Rings:
    """The rings of a node: one for each channel with readers, bounded together."""

    def __init__(self, *, ring_bytes: int, total_bytes: int) -> None:
        """Make no ring yet.

        Args:
            ring_bytes: how much one ring may hold.
            total_bytes: how much all rings together may hold.
        """
        self._ring_bytes = ring_bytes
        self._total_bytes = total_bytes
        self._filled: OrderedDict[Ring, None] = OrderedDict()
        """The rings that hold something, the least recently appended to first."""
        self.level = 0
        """How many bytes all rings hold."""

    def open(self, channel: Channel) -> Ring:
        """Return a new ring for a channel."""
        return Ring(channel, self._ring_bytes)

    def append(self, ring: Ring, publications: Sequence[Publication]) -> None:
        """Add publications to a ring; empty the least recently used rings beyond the bound."""
        before = ring.level
        ring.append(publications)
        self.level += ring.level - before
        self._filled[ring] = None
        self._filled.move_to_end(ring)
        while self.level > self._total_bytes and len(self._filled) > 1:
            self.forget(next(iter(self._filled)))

    def forget(self, ring: Ring) -> None:
        """Drop the publications of a ring; the next one continues them."""
        if ring in self._filled:
            del self._filled[ring]
            self.level -= ring.level
            ring.forget()

    def reset(self, ring: Ring) -> None:
        """Drop the publications of a ring, whose offsets may begin anew."""
        self.forget(ring)
        ring.top = 0


def slices(publications: Sequence[Publication], max_bytes: int) -> Iterable[Sequence[Publication]]:
    """Return publications in slices of at most `max_bytes`, or of one publication."""
    if len(publications) <= 1:
        return (publications,) if publications else ()
    parts, start, size = list[Sequence[Publication]](), 0, 0
    for at, one in enumerate(publications):
        if at > start and size + len(one.data) > max_bytes:
            parts.append(publications[start:at])
            start, size = at, 0
        size += len(one.data)
    parts.append(publications[start:])
    return parts


def _size(publication: Publication) -> int:
    return len(publication.data)
