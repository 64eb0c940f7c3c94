"""The depth of a JSON text is what a parser would count."""

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
