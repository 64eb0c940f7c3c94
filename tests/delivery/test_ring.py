"""A ring: the last publications of a channel, bounded, and never with a gap."""

import json

from hypothesis import given
from hypothesis import strategies as st

from towpath.channels import thread_channel
from towpath.delivery.encoding import JSON
from towpath.delivery.ring import PIECE_BYTES, PIECES, Ring, Rings
from towpath.log.broker import Publication

THREAD = thread_channel("acme", "mia", "t1")


def published(first: int, last: int, size: int = 10) -> list[Publication]:
    """Return publications of this size with these offsets."""
    return [Publication(offset, b"x" * size, {}) for offset in range(first, last + 1)]


def held(ring: Ring) -> list[int]:
    """Return the offsets that a ring holds."""
    if ring.top == ring.base:
        return []
    return [one.offset for one in ring.after(ring.base, merge=False) or ()]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 6)), max_size=30), st.integers(1, 200))
def test_p3_a_ring_holds_the_end_of_what_was_put_in_without_a_gap(
    batches: list[tuple[int, int]], max_bytes: int
) -> None:
    """Whatever comes twice or is left out, it holds consecutive offsets up to the newest one."""
    ring, top, newest = Ring(THREAD, max_bytes), 0, 0
    for skip, size in batches:
        first = max(1, top + 1 + skip)
        last = first + size - 1
        ring.append(published(first, last))
        new = last - max(top, first - 1)
        top = max(top, last)
        offsets = held(ring)
        assert ring.top == top
        assert offsets == list(range(ring.base + 1, top + 1))
        assert len(offsets) >= min(max(new, 0), 1)
        assert ring.level == 10 * len(offsets)
        newest = new if new > 0 else newest
        assert ring.level <= max(max_bytes, 10 * newest)
        if skip > 0 and new > 0:
            assert ring.base >= first - 1, "nothing from before a gap is kept"


@given(st.integers(0, 9))
def test_p3_a_cursor_before_the_ring_gets_nothing(cursor: int) -> None:
    """A part of what is missing is never taken for the whole."""
    ring = Ring(THREAD, 50)
    for offset in range(1, 11):
        ring.append(published(offset, offset))
    taken = ring.after(cursor, merge=False)
    assert (taken is None) == (cursor < ring.base)
    assert (ring.piece(cursor, JSON, merge=False) is None) == (cursor < ring.base)
    if taken is not None:
        assert [one.offset for one in taken] == list(range(cursor + 1, 11))


def test_p7_what_is_taken_at_once_is_bounded() -> None:
    """A piece has `PIECE_BYTES` at most, except for one publication that is larger."""
    ring = Ring(THREAD, 10**7)
    ring.append(published(1, 200, size=1000))
    ring.append(published(201, 201, size=2 * PIECE_BYTES))
    cursor, pieces = 0, []
    while cursor < ring.top:
        taken = ring.after(cursor, merge=False)
        assert taken
        pieces.append(sum(len(one.data) for one in taken))
        cursor = taken[-1].offset
    assert max(pieces[:-1]) <= PIECE_BYTES
    assert pieces[-1] == 2 * PIECE_BYTES
    assert len(pieces) == 5


def test_readers_behind_the_same_gap_share_a_merged_piece() -> None:
    """A piece is merged and encoded once, for as long as the ring has room for it."""
    ring = Ring(THREAD, 10**6)
    for offset in range(1, 30):
        event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": f"{offset} "}
        tags = {"run": "r", "seq": str(offset)}
        ring.append([Publication(offset, json.dumps(event).encode(), tags)])
    merged, plain = (ring.piece(3, JSON, merge=merge) for merge in (True, False))
    assert merged is not None
    assert plain is not None
    assert len(merged.data) < len(plain.data)
    assert ring.piece(3, JSON, merge=True) is merged
    for cursor in range(4, 4 + PIECES):
        ring.piece(cursor, JSON, merge=True)
    assert len(ring._pieces) == PIECES
    assert ring.piece(3, JSON, merge=True) == merged


def test_p7_all_rings_together_are_bounded() -> None:
    """The ring that was written to longest ago is emptied first; its readers read the log."""
    rings = Rings(ring_bytes=1000, total_bytes=250)
    made = [rings.open(thread_channel("acme", "mia", f"t{number}")) for number in range(4)]
    for ring in made[:2]:
        rings.append(ring, published(1, 10))
    rings.append(made[0], published(11, 11))
    rings.append(made[2], published(1, 10))
    assert [ring.level for ring in made] == [110, 0, 100, 0]
    assert rings.level == 210
    assert made[1].after(9, merge=False) is None
    rings.append(made[1], published(11, 11))
    assert held(made[1]) == [11]
    rings.append(made[3], published(1, 60))
    assert [ring.level for ring in made] == [0, 0, 0, 600], "the newest batch is never dropped"
    rings.forget(made[3])
    assert (rings.level, made[3].top, made[3].base) == (0, 60, 60)
    rings.reset(made[3])
    assert (made[3].top, made[3].base) == (0, 0)
