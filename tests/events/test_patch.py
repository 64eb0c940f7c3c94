"""Patches: what they make can be encoded, and is no larger than it may be."""

import copy
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.events import patch
from towpath.events.patch import patched
from towpath.events.types import IllegalEvent
from towpath.json_bounds import MAX_EVENT_DEPTH, nests_deeper


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def depth_of(value: Any) -> int:
    """Return how deep a value nests, as the definition has it."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@given(values, st.integers(0, 8))
def test_depth_is_counted_as_it_is_defined(value: Any, limit: int) -> None:
    """A scalar is 0 deep, an empty list 1, and each level adds one."""
    assert nests_deeper(value, limit) == (depth_of(value) > limit)


def test_the_deepest_value_that_is_taken_can_be_copied_and_encoded() -> None:
    """The bound leaves room below what encoders, decoders and copies can do."""
    deepest = nested(MAX_EVENT_DEPTH)
    assert not nests_deeper(deepest, MAX_EVENT_DEPTH)
    assert sys.getrecursionlimit() > 3 * MAX_EVENT_DEPTH
    event = {"type": "STATE_SNAPSHOT", "snapshot": deepest}
    assert msgspec.json.decode(msgspec.json.encode(copy.deepcopy(event))) == event


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/a" * 5, "value": nested(MAX_EVENT_DEPTH - 4)},
        {"op": "replace", "path": "/a" * 5, "value": nested(MAX_EVENT_DEPTH - 4)},
        {"op": "copy", "from": "/deep", "path": "/a" * 5},
        {"op": "move", "from": "/deep", "path": "/a" * 5},
    ],
    ids=lambda operation: str(operation["op"]),
)
def test_r122_no_operation_nests_deeper_than_the_bound(operation: dict[str, Any]) -> None:
    """Each operation that can make a document deeper is refused where it would be too deep."""
    document = {**nested(6), "deep": nested(MAX_EVENT_DEPTH - 4)}
    before = copy.deepcopy(document)
    with pytest.raises(IllegalEvent, match="nests deeper"):
        patched("STATE_DELTA", document, [operation], bound=True)
    assert document == before
    assert patched("STATE_DELTA", document, [operation], bound=False)


def test_the_bound_itself_is_taken() -> None:
    """A document that is as deep as it may be is made."""
    operation = {"op": "add", "path": "/a/b", "value": nested(MAX_EVENT_DEPTH - 2)}
    made = patched("STATE_DELTA", {"a": {}}, [operation], bound=True)
    assert depth_of(made) == MAX_EVENT_DEPTH


def test_r122_copies_that_double_are_stopped_before_they_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty copies of forty bytes each would be a terabyte; the first ones are refused."""
    monkeypatch.setattr(patch, "MAX_BYTES", 10_000)
    doubling = [{"op": "copy", "from": "", "path": f"/n{n}"} for n in range(40)]
    with pytest.raises(IllegalEvent, match="larger than 10000 bytes"):
        patched("STATE_DELTA", {"text": "x" * 40}, doubling, bound=True)


def test_r122_values_that_add_up_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """One event after another may add to a document, up to the bound."""
    monkeypatch.setattr(patch, "MAX_BYTES", 1_000)
    document: Any = {}

    def add(n: int) -> None:
        nonlocal document
        adding = [{"op": "add", "path": f"/n{n}", "value": "x" * 50}]
        document = patched("STATE_DELTA", document, adding, bound=True)

    with pytest.raises(IllegalEvent, match="larger"):
        list(map(add, range(100)))
    assert 900 < len(msgspec.json.encode(document)) <= 1_000


@given(
    st.dictionaries(st.sampled_from("abc"), values, min_size=1),
    st.lists(
        st.one_of(
            st.fixed_dictionaries(
                {"op": st.just("add"), "path": st.sampled_from(["/a", "/b", "/d"]), "value": values}
            ),
            st.fixed_dictionaries(
                {
                    "op": st.sampled_from(["copy", "move"]),
                    "from": st.sampled_from(["/a", "/b"]),
                    "path": st.sampled_from(["/c", "/d"]),
                }
            ),
        ),
        max_size=5,
    ),
)
@settings(max_examples=100)
def test_step_by_step_is_all_at_once(document: Any, operations: list[dict[str, Any]]) -> None:
    """Looking at the result between operations changes nothing, nor the document."""
    before = copy.deepcopy(document)

    def outcome(*, bound: bool) -> Any:
        try:
            return patched("STATE_DELTA", document, operations, bound=bound)
        except IllegalEvent as error:
            return str(error)

    assert outcome(bound=True) == outcome(bound=False)
    assert document == before
