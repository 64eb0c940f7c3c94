"""Placeholders stand for one value each, and a comparison finds whatever else differs."""

from typing import Any

import pytest

from tests.kit.transcripts import Comparison, Names, merged, merged_with, stream_of

ID, OTHER = "a" * 32, "b" * 32
EPOCH = "0123456789abcdef"


def compared(expected: Any, actual: Any, *added: str) -> list[str]:
    """Return the problems of one frame."""
    return list(Comparison(added).problems(expected, actual))


def test_what_differs_from_server_to_server_gets_a_placeholder() -> None:
    """Each value has one, in keys, in the middle of a text, and in what the client sends."""
    frame = {
        "client": ID,
        "version": "towpath 0.1.0",
        "ttl": 3599,
        "presence": {ID: {"epoch": EPOCH, "digest": f"{OTHER}:19861e8d"}},
        "created_at": 1796052990.5,
        "decided_at": None,
        "ticket": "tkt_abc-1",
        "error": {"code": 107, "message": "Expected `str`", "temporary": True},
    }
    assert Names().replace(frame) == {
        "client": "<id 1>",
        "version": "<version>",
        "ttl": "<seconds>",
        "presence": {"<id 1>": {"epoch": "<epoch 1>", "digest": "<id 2>:19861e8d"}},
        "created_at": "<time>",
        "decided_at": None,
        "ticket": "<ticket 1>",
        "error": {"code": 107, "message": "<text>", "temporary": True},
    }


def test_a_placeholder_stands_for_one_value_everywhere() -> None:
    """Two ids that were the same are the same, and two that were not are not."""
    pair = {"run": "<id 1>", "thread": "<id 2>"}
    assert compared(pair, {"run": ID, "thread": OTHER}) == []
    assert compared(pair, {"run": ID, "thread": ID}) != []
    twice = {"run": "<id 1>", "tags": {"run": "<id 1>"}}
    assert compared(twice, {"run": ID, "tags": {"run": ID}}) == []
    assert compared(twice, {"run": ID, "tags": {"run": OTHER}}) != []
    assert compared({"run": "<id 1>"}, {"run": "short"}) != []


@pytest.mark.parametrize(
    ("expected", "actual", "problem"),
    [
        ({"a": 1}, {}, "a: missing"),
        ({}, {"a": 1}, "a: a new field"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b: 2 instead of 1"),
        ({"a": 1}, {"a": True}, "a: True instead of 1"),
        ({"a": None}, {"a": 0}, "a: 0 instead of None"),
        ({"a": [1]}, {"a": [1, 1]}, "a: [1, 1] instead of [1]"),
        ({"a": [{"b": 1}]}, {"a": [{"c": 1}]}, "a.b: missing"),
        ({"a": "<time>"}, {"a": "soon"}, "a: 'soon' instead of '<time>'"),
        ({"a": "<time>"}, {"a": 3.0}, "a: 3.0 instead of '<time>'"),
        ({"a": "<seconds>"}, {"a": 0}, "a: 0 instead of '<seconds>'"),
        ({"a": "<text>"}, {"a": ""}, "a: '' instead of '<text>'"),
        ({"a": "<version>"}, {"a": "0.1.0"}, "a: '0.1.0' instead of '<version>'"),
        ({"<id 1>": 1}, {"alice": 1}, "<id 1>: missing"),
    ],
)
def test_what_differs_is_named(expected: Any, actual: Any, problem: str) -> None:
    """The path of the field, and both values."""
    assert problem in compared(expected, actual)


def test_a_declared_field_may_be_new() -> None:
    """Only that one, at that place."""
    assert compared({"a": {}}, {"a": {"b": 1}}, "a.b") == []
    assert compared({"a": {}}, {"a": {"b": 1, "c": 1}}, "a.b") == ["a.c: a new field"]
    assert compared({"a": {}, "d": {}}, {"a": {}, "d": {"b": 1}}, "a.b") == ["d.b: a new field"]


def push(delta: str, offset: int, **tags: str) -> dict[str, Any]:
    """Return the push of a text delta."""
    data = {"type": "TEXT_MESSAGE_CONTENT", "delta": delta}
    return {"push": {"channel": "thread:t", "pub": {"data": data, "offset": offset, "tags": tags}}}


def test_deltas_may_be_merged_on_the_way() -> None:
    """The one push has the whole text, the last offset and number, and the first number."""
    three = [push("a", 4, seq="3"), push("b", 5, seq="4"), push("c", 6, seq="5")]
    one = push("abc", 6, seq="5", **{"from": "3"})
    assert merged_with(one) == 3
    assert merged(three) == one
    assert [merged_with(single) for single in three] == [1, 1, 1]


def test_the_wire_has_an_order_in_each_stream_only() -> None:
    """Each reply, each channel, and the pings."""
    frames: list[dict[str, Any]] = [{"id": 3, "rpc": {}}, push("a", 1, seq="1"), {}]
    assert [stream_of(frame) for frame in frames] == ["reply 3", "push thread:t", "ping"]
