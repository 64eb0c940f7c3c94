"""The depth of a JSON text is what a parser would count."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.json_bounds import too_deep


def test_r67_the_last_depth_allowed_passes_among_siblings() -> None:
    """Many brackets in all do not make the deepest of them deeper."""
    deepest = b"[" * 63 + b"]" * 63
    assert not too_deep(b"[" + deepest + b",[]," + deepest + b"]")
    assert too_deep(b"[" + deepest + b",[[" + deepest + b"]]]")


def test_siblings_do_not_count_as_depth() -> None:
    """Many brackets side by side are flat."""
    assert not too_deep(b"[" + b"[]," * 5000 + b"[]]")


@pytest.mark.parametrize("before", ['""', '"\\""', '"\\\\"', '"]]]"', '"}"', "[]"])
def test_r67_depth_is_seen_behind_any_string(before: str) -> None:
    """A string cannot hide what follows it, nor close what is open."""
    assert too_deep(b"[" + before.encode() + b"," + b"[" * 64 + b"]" * 64 + b"]")


@given(st.integers(0, 80), st.integers(1, 70), st.sampled_from(["[", '{"a":']))
def test_r67_depth_is_what_a_parser_would_count(depth: int, limit: int, opening: str) -> None:
    """The bound holds for arrays and objects at every limit."""
    text = opening * depth + "0" + ("]" if opening == "[" else "}") * depth
    assert too_deep(text.encode(), limit) is (depth > limit)


values = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a"\\[]{}é\n'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=40,
)


def levels(value: object) -> int:
    """Return how deep a value nests, by its definition."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(levels, inner), default=0)


@given(values, st.integers(0, 8), st.sampled_from([True, False]))
def test_r67_depth_is_that_of_the_parsed_value(value: object, limit: int, escape: object) -> None:
    """Whatever strings and keys hold, escaped or not, the bound is exact."""
    text = json.dumps(value, ensure_ascii=bool(escape)).encode()
    assert too_deep(text, limit) is (levels(value) > limit)


@pytest.mark.parametrize("count", [64, 65])
def test_r67_depth_is_counted_on_in_a_long_text(count: int) -> None:
    """What opens far from the beginning counts like what opens there."""
    text = b"[" + b"[]," * 20_000 + b"[" * (count - 1) + b"0" + b"]" * count
    assert too_deep(text) is (count > 64)


@pytest.mark.parametrize(
    "text", [b"[" * 100, b"[" * 100 + b'"', b"[1," * 65, b"[]" * 100 + b"[" * 65]
)
def test_r67_levels_that_are_never_closed_count(text: bytes) -> None:
    """A text that ends too early is refused before a decoder meets it."""
    assert too_deep(text)


@pytest.mark.parametrize("text", [b'"' + b"[" * 100, b'"\\"' + b"[" * 100, b"[]" * 100 + b"]"])
def test_r67_what_is_no_level_does_not_count(text: bytes) -> None:
    """Neither brackets in a string that never ends, nor closing ones without an opening one."""
    assert not too_deep(text)
