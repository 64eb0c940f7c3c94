"""Application values become JSON: each common type has one form, and the rest is refused."""

import collections
import datetime
import enum
import json
import math
import pathlib
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.errors import TooLarge
from towpath.manager.payloads import Unserialisable, encode, plain


class Colour(enum.Enum):
    RED = "red"


class Text(enum.StrEnum):
    A = "a"


@dataclass
class Point:
    x: int
    label: object = None


class Row(msgspec.Struct):
    when: datetime.date


class Order(pydantic.BaseModel):
    number: int
    placed: datetime.datetime


Pair = collections.namedtuple("Pair", "left right")
NOON = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (NOON, "2026-11-30T12:00:00Z"),
        (NOON.date(), "2026-11-30"),
        (NOON.time(), "12:00:00"),
        (datetime.timedelta(minutes=1), "PT60S"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("1.20"), "1.20"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        (Text.A, "a"),
        (b"hi", "aGk="),
        (bytearray(b"hi"), "aGk="),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ((1, [2]), [1, [2]]),
        (collections.deque([1]), [1]),
        (Pair(1, 2), [1, 2]),
        (Point(1, Row(NOON.date())), {"x": 1, "label": {"when": "2026-11-30"}}),
        (Order(number=1, placed=NOON), {"number": 1, "placed": "2026-11-30T12:00:00Z"}),
        (math.nan, None),
        (-math.inf, None),
        (True, True),
        (10**30, 10**30),
        (
            {1: "a", None: "b", 1.5: "c", False: "d"},
            {"1": "a", "null": "b", "1.5": "c", "false": "d"},
        ),
        ({Colour.RED: 1, NOON.date(): 2}, {"red": 1, "2026-11-30": 2}),
        (collections.OrderedDict(a=1), {"a": 1}),
    ],
)
def test_each_common_type_has_its_form(value: object, form: object) -> None:
    """What clients read is the documented form of the value."""
    assert json.loads(encode(value, 1000)) == form


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"items": [1, object()]}, "$.items[1]"),
        ({"a": {"b": lambda: 1}}, "$.a.b"),
        (Point(1, iter(())), "$.label"),
        ({(1, 2): "pair"}, "$"),
        ({"x": {Point: 1}}, "$.x"),
        ({1: "a", "1": "b"}, "$"),
        (["\ud800"], "$[0]"),
        ({"\udc00": 1}, "$"),
        (Point, "$"),
        (1j, "$"),
    ],
    ids=[
        "object",
        "function",
        "iterator",
        "tuple-key",
        "class-key",
        "two-keys",
        "half-pair",
        "key-half-pair",
        "class",
        "complex",
    ],
)
def test_what_has_no_form_is_refused_with_its_place(value: object, place: str) -> None:
    """The error names where the value is and never shows the value."""
    with pytest.raises(Unserialisable) as caught:
        plain(value)
    assert caught.value.path == place
    assert isinstance(caught.value, TypeError)


def test_a_value_that_contains_itself_is_refused() -> None:
    """A cycle ends with an error instead of a hang or an exhausted stack."""
    items: list[Any] = []
    items.append({"again": items})
    with pytest.raises(Unserialisable, match="contains itself"):
        plain(items)


def test_no_secret_of_the_value_is_in_the_error() -> None:
    """The message of an error shows types and names, not contents."""

    class Secret:
        def __repr__(self) -> str:
            return "hunter2"

    with pytest.raises(Unserialisable) as caught:
        plain({"password": Secret()})
    assert "hunter2" not in str(caught.value)


def test_a_payload_over_the_bound_is_refused() -> None:
    """The bound counts the bytes of the JSON."""
    assert encode("a" * 98, 100) == b'"' + b"a" * 98 + b'"'
    with pytest.raises(TooLarge, match="101"):
        encode("a" * 99, 100)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(VALUES)
def test_plain_values_are_their_own_form(value: Any) -> None:
    """The form of a form is the form: a value is converted once and for all."""
    try:
        once = plain(value)
    except Unserialisable:
        return  # Half of a surrogate pair.
    assert plain(once) == once
    assert json.loads(encode(value, 10**9)) == once
