"""The content of values: what is taken, what it becomes, and what is refused."""

import dataclasses
import enum
import json
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from pydantic import BaseModel

from tests.events.legal import values
from towpath.events import content
from towpath.events.types import IllegalEvent
from towpath.json_bounds import MAX_EVENT_DEPTH
from towpath.runs.encoding import check_depth


class Colour(enum.Enum):
    GREEN = "green"


@dataclasses.dataclass
class Pear:
    colour: Colour


class Crate(BaseModel):
    since: datetime
    pears: list[int]


class Label(msgspec.Struct):
    text: str


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@given(values)
def test_json_stays_what_it_is(value: Any) -> None:
    """A value of JSON types is copied unchanged, and its text says the same."""
    assert content.plain("CUSTOM", "value", value) == value
    text = content.json_text("CUSTOM", "value", value)
    assert json.loads(text) == value
    assert "\n" not in text


def test_json_text_is_readable() -> None:
    """People read arguments before they approve them: there are spaces, and letters are letters."""
    assert content.json_text("CUSTOM", "value", {"of": "Äpfel", "n": [1, 2]}) == (
        '{"of": "Äpfel", "n": [1, 2]}'
    )


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Pear(Colour.GREEN), {"colour": "green"}),
        (Label("ripe"), {"text": "ripe"}),
        ({Colour.GREEN}, ["green"]),
        ({1: (2,)}, {"1": [2]}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (
            [Crate(since=datetime(2026, 1, 2, tzinfo=UTC), pears=[1])],
            [{"since": "2026-01-02T00:00:00Z", "pears": [1]}],
        ),
        ({"inner": MappingProxyType({"a": 1})}, {"inner": {"a": 1}}),
    ],
)
def test_values_of_an_application_become_json(value: object, plain: object) -> None:
    """Dataclasses, structures, models, dates, enumerations, sets and mappings are taken."""
    assert content.plain("CUSTOM", "value", value) == plain


@pytest.mark.parametrize(
    "value",
    [object(), {"a": [object()]}, "\ud83d", {"\udc00": 1}, CYCLE, {(1, 2): 3}, Crate, len],
)
def test_what_has_no_json_is_refused(value: object) -> None:
    """The error names the event, the argument, and what is wrong."""
    with pytest.raises(IllegalEvent, match=r"STATE_SNAPSHOT: snapshot must be JSON: ."):
        content.plain("STATE_SNAPSHOT", "snapshot", value)
    with pytest.raises(IllegalEvent, match=r"TOOL_CALL_RESULT: content must be JSON: ."):
        content.json_text("TOOL_CALL_RESULT", "content", value)


def test_the_depth_of_a_copy_is_bounded() -> None:
    """A value that fits into an event is taken; one level more is refused."""
    value: Any = 1
    for _ in range(MAX_EVENT_DEPTH - 1):
        value = [value]
    check_depth({"type": "CUSTOM", "value": content.plain("CUSTOM", "value", value)})
    with pytest.raises(IllegalEvent, match="value nests deeper than 199 levels"):
        content.plain("CUSTOM", "value", [value])


def test_a_copy_is_a_copy() -> None:
    """A later change of the author's object does not change the copy."""
    cart = {"fruit": ["pear"]}
    copied = content.plain_mapping("STATE_SNAPSHOT", "snapshot", cart)
    cart["fruit"].append("plum")
    assert copied == {"fruit": ["pear"]}


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"]])
def test_only_text_is_text(value: object) -> None:
    """Another type is refused by name."""
    with pytest.raises(IllegalEvent, match=f"name must be a string, not {type(value).__name__}"):
        content.name("CUSTOM", "name", value)
    with pytest.raises(IllegalEvent, match=f"must be a mapping, not {type(value).__name__}"):
        content.plain_mapping("CUSTOM", "value", value)


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
def test_a_name_is_not_blank(value: str) -> None:
    """A blank text is a text, but not a name."""
    assert content.text("CUSTOM", "name", value) == value
    with pytest.raises(IllegalEvent, match="CUSTOM: name must not be empty"):
        content.name("CUSTOM", "name", value)


def test_a_lone_surrogate_is_no_text() -> None:
    """Text that no client could decode is refused."""
    with pytest.raises(IllegalEvent, match="text must be Unicode text"):
        content.text("CUSTOM", "text", "half \ud83d")


@pytest.mark.parametrize("value", ["", " ", "x" * 129, "a\nb", "\ud83d", 7])
def test_a_chosen_id_is_an_id(value: object) -> None:
    """An id has 1 to 128 printable characters; None is no choice."""
    assert content.chosen_id("TOOL_CALL_START", "x" * 128) == "x" * 128
    assert content.chosen_id("TOOL_CALL_START", None) is None
    with pytest.raises(IllegalEvent, match="1 to 128 printable"):
        content.chosen_id("TOOL_CALL_START", value)
