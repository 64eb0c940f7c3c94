"""A follower takes what an SDK takes, and notices whatever a server must not do to it."""

import json
from typing import Any

import pytest

from benchmarks.arrivals import Arrivals
from benchmarks.follower import FRAME_EVENTS, Follower
from towpath.events.digest import digest

WORDS = ("one ", "two ", "three ")
NOW = 5
TEXT = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m"}
ENDS = {"type": "TEXT_MESSAGE_END", "messageId": "m"}


def publication(seq: int, event: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one event as it is published; its offset is its number and ten."""
    tags = {"seq": str(seq), **more.pop("tags", {})}
    return {"data": event, "offset": seq + 10, "tags": tags, **more}


def run() -> list[dict[str, Any]]:
    """Return a whole run of three words."""
    return [
        publication(1, {"type": "RUN_STARTED"}),
        publication(2, {"type": "TEXT_MESSAGE_START", "messageId": "m"}),
        *(publication(3 + at, {**TEXT, "delta": word}) for at, word in enumerate(WORDS)),
        publication(6, ENDS, tags={"digest": digest("".join(WORDS))}),
        publication(7, {"type": "RUN_FINISHED"}),
    ]


def pushed(*publications: dict[str, Any]) -> bytes:
    """Return publications as they are pushed, in one message."""
    pushes = ({"push": {"channel": "thread:t", "pub": one}} for one in publications)
    return b"\n".join(json.dumps(one, separators=(",", ":")).encode() for one in pushes)


def answered(*publications: dict[str, Any], offset: int, recovered: bool = True) -> bytes:
    """Return the answer to a subscribe."""
    result = {"epoch": "e", "offset": offset, "recovered": recovered, "publications": publications}
    return json.dumps({"id": 2, "subscribe": result}, separators=(",", ":")).encode()


@pytest.fixture
def follower() -> Follower:
    """Return one that has subscribed to an empty thread."""
    follower = Follower("t", Arrivals(len(WORDS) + FRAME_EVENTS))
    follower.receive(answered(offset=10, recovered=False), NOW)
    return follower


def faults(follower: Follower) -> tuple[int, ...]:
    """Return everything that must be 0."""
    came = follower.arrivals
    return (
        *(came.lost, came.duplicated, came.reordered),
        *(follower.refused, follower.ended, follower.mismatches),
    )


def test_a_run_that_comes_whole_has_no_fault(follower: Follower) -> None:
    """Text, position and end are those of the run."""
    follower.receive(pushed(*run()), NOW)
    assert faults(follower) == (0,) * 6
    assert follower.text == "one two three "
    assert follower.offset == 17
    assert follower.over.is_set()


def test_it_comes_back_with_the_last_position_it_saw(follower: Follower) -> None:
    """The first subscribe names none, the next the offset of the last publication."""
    assert "recover" not in Follower("t", Arrivals(1)).subscription[1]
    follower.receive(pushed(*run()[:4]), NOW)
    assert follower.subscription == (
        "subscribe",
        {"channel": "thread:t", "recover": True, "offset": 14, "epoch": "e"},
    )


def test_a_merged_tail_counts_as_what_it_holds(follower: Follower) -> None:
    """A publication from 3 to 5 is three events, and its answer's offset is the position."""
    whole = run()
    follower.receive(pushed(*whole[:2]), NOW)
    merged = publication(5, {**TEXT, "delta": "one two three "}, tags={"from": "3"})
    del merged["offset"]
    follower.receive(answered(merged, offset=15), NOW)
    assert follower.offset == 15
    follower.receive(pushed(*whole[5:]), NOW)
    assert faults(follower) == (0,) * 6
    assert follower.text == "one two three "
    assert follower.merged == 1


def test_a_word_that_did_not_come_is_lost_and_shows(follower: Follower) -> None:
    """The count and the digest both tell."""
    whole = run()
    follower.receive(pushed(*whole[:3], *whole[4:]), NOW)
    assert faults(follower) == (1, 0, 0, 0, 0, 1)


def test_a_tail_that_overlaps_is_doubled(follower: Follower) -> None:
    """What was seen before and is in the tail again counts, event by event."""
    whole = run()
    follower.receive(pushed(*whole[:4]), NOW)
    tail = publication(5, {**TEXT, "delta": "one two three "}, tags={"from": "3"})
    follower.receive(answered(tail, offset=15), NOW)
    follower.receive(pushed(*whole[5:]), NOW)
    assert faults(follower) == (0, 2, 0, 0, 0, 1)


def test_a_position_that_was_not_honoured_is_told(follower: Follower) -> None:
    """An answer that starts over, to a position that was good, is a fault."""
    follower.receive(answered(offset=10, recovered=False), NOW)
    assert follower.refused == 1


def test_a_subscription_that_the_server_ended_is_told(follower: Follower) -> None:
    """An unsubscribe push is counted."""
    follower.receive(
        b'{"push":{"channel":"thread:t","unsubscribe":{"code":2500,"reason":"insufficient"}}}', NOW
    )
    assert follower.ended == 1
