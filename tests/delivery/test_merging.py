"""Merged publications mean what the publications mean that they were merged from."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.events.client import Client
from tests.events.legal import threads
from towpath.delivery.merging import merged
from towpath.log.broker import Publication


def delta(offset: int, text: str, message: str = "m", kind: str = "TEXT_MESSAGE") -> Publication:
    event = {"type": f"{kind}_CONTENT", "messageId": message, "delta": text}
    return published(offset, event)


def published(offset: int, event: dict[str, Any]) -> Publication:
    return Publication(offset, json.dumps(event).encode(), {"run": "r", "seq": str(offset)})


def events(publications: list[Publication]) -> list[dict[str, Any]]:
    return [json.loads(one.data) for one in publications]


def test_deltas_that_follow_each_other_leave_as_one() -> None:
    """The text is joined, the offset is the last one's, and the tags say what it was made of."""
    [one] = merged([delta(5, "a"), delta(6, "b"), delta(7, "c")])
    assert json.loads(one.data)["delta"] == "abc"
    assert one.offset == 7
    assert one.tags == {"run": "r", "seq": "7", "from": "5"}


def test_what_was_merged_already_may_be_merged_again() -> None:
    """`from` stays that of the first of all."""
    [first] = merged([delta(5, "a"), delta(6, "b")])
    [whole] = merged([first, delta(7, "c")])
    assert (whole.tags["from"], whole.tags["seq"]) == ("5", "7")


@pytest.mark.parametrize(
    "between",
    [
        {"type": "TEXT_MESSAGE_END", "messageId": "m"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "other", "delta": "x"},
        {"type": "REASONING_MESSAGE_CONTENT", "messageId": "m", "delta": "x"},
        {"type": "CUSTOM", "name": "n", "value": {"delta": "x"}},
        {"type": "STATE_DELTA", "delta": []},
    ],
    ids=lambda event: event["type"],
)
def test_no_delta_passes_anything_else(between: dict[str, Any]) -> None:
    """Only neighbours are joined: an offset a reader has means that it has all before it."""
    left = list(merged([delta(1, "a"), published(2, between), delta(3, "b")]))
    assert [one.offset for one in left] == [1, 2, 3]


def test_deltas_of_two_runs_are_not_joined() -> None:
    """A client resumes within one run: an id may come again in the next."""
    other = delta(2, "b")._replace(tags={"run": "s", "seq": "1"})
    assert [one.offset for one in merged([delta(1, "a"), other])] == [1, 2]


def test_what_is_no_event_stays_as_it_is() -> None:
    """Payloads of other channels are not looked into further than it takes."""
    odd = [
        Publication(number, data, {})
        for number, data in enumerate((b'"delta"', b'{"delta":1}', b"7", b'["delta"]'), 1)
    ]
    assert list(merged(odd)) == odd


@given(threads(), st.data())
def test_p3_r99_a_merged_piece_renders_like_every_event(
    thread: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Wherever a reader fell behind and however often: the same screen, and rising offsets."""
    publications = [published(offset, event) for offset, event in enumerate(thread, 1)]
    seen, plain = Client(), Client()
    offsets = []
    while publications:
        cut = data.draw(st.integers(1, len(publications)))
        batch, publications = publications[:cut], publications[cut:]
        for one in merged(batch):
            seen.take(json.loads(one.data))
            offsets.append(one.offset)
        assert offsets[-1] == batch[-1].offset
    for event in thread:
        plain.take(event)
    assert (seen.messages, seen.state) == (plain.messages, plain.state)
    assert offsets == sorted(set(offsets))
