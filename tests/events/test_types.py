"""The vocabulary: what comes in, and the five-name view."""

from typing import Any

import pytest
from ag_ui.core import EventType, TextMessageContentEvent, ToolCallStartEvent

from towpath.events import golden_name
from towpath.events.types import TYPES, IllegalEvent, parse

THINKING = (
    *("REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"),
    *("REASONING_MESSAGE_END", "REASONING_MESSAGE_CHUNK", "REASONING_END"),
    *("REASONING_ENCRYPTED_VALUE", "STEP_STARTED"),
)
GOLDEN = {
    "RUN_STARTED": "agent_started",
    **dict.fromkeys(THINKING, "agent_thinking"),
    "TOOL_CALL_START": "tool_executing",
    "TOOL_CALL_ARGS": "tool_executing",
    "TOOL_CALL_CHUNK": "tool_executing",
    "TOOL_CALL_END": "tool_executing",
    "TOOL_CALL_RESULT": "tool_completed",
    "RUN_FINISHED": "agent_completed",
    "RUN_ERROR": "agent_completed",
}


def test_there_are_31_types() -> None:
    """The vocabulary is AG-UI 1.0, whole."""
    assert len(TYPES) == 31
    assert set(GOLDEN) < TYPES


@pytest.mark.parametrize("kind", [kind.value for kind in EventType])
def test_every_type_has_its_golden_name_or_none(kind: str) -> None:
    """The five golden-path names are the table of WIRE section 8."""
    assert golden_name({"type": kind}) == GOLDEN.get(kind)


def test_what_is_no_event_has_no_golden_name() -> None:
    """Unknown and missing types are no part of the view."""
    assert golden_name({"type": "META_EVENT"}) is None
    assert golden_name({}) is None


def test_a_model_becomes_wire_form() -> None:
    """Models come out camelCase, without what is None, their type a string."""
    event = parse(ToolCallStartEvent(tool_call_id="c", tool_call_name="f"))
    assert event == {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "f"}
    assert type(event["type"]) is str


def test_a_mapping_becomes_wire_form() -> None:
    """Mappings are validated, may spell fields either way, and lose what is None."""
    wire = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}
    assert parse({**wire, "timestamp": None}) == wire
    assert parse({"type": EventType.TEXT_MESSAGE_CONTENT, "message_id": "m", "delta": "x"}) == wire
    assert parse(TextMessageContentEvent(message_id="m", delta="x")) == wire


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("THINKING_START", {"type": "REASONING_START", "messageId": "thinking"}),
        (
            "THINKING_TEXT_MESSAGE_START",
            {"type": "REASONING_MESSAGE_START", "messageId": "thinking", "role": "reasoning"},
        ),
        (
            "THINKING_TEXT_MESSAGE_CONTENT",
            {"type": "REASONING_MESSAGE_CONTENT", "messageId": "thinking", "delta": "hm"},
        ),
        ("THINKING_TEXT_MESSAGE_END", {"type": "REASONING_MESSAGE_END", "messageId": "thinking"}),
        ("THINKING_END", {"type": "REASONING_END", "messageId": "thinking"}),
    ],
)
def test_older_names_become_the_present_ones(old: str, new: dict[str, Any]) -> None:
    """What older agents call thinking is reasoning, with an id."""
    fields = {"delta": new["delta"]} if "delta" in new else {}
    assert parse({"type": old, **fields}) == new
    assert parse({"type": old, **fields, "messageId": "own"})["messageId"] == "own"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "STATE_SNAPSHOT", "snapshot": None},
        {"type": "STATE_SNAPSHOT", "snapshot": {"a": None}},
        {"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/a", "value": None}]},
        {
            "type": "ACTIVITY_DELTA",
            "messageId": "a",
            "activityType": "P",
            "patch": [
                {"op": "replace", "path": "/a", "value": None},
                {"op": "remove", "path": "/b"},
            ],
        },
        {"type": "CUSTOM", "name": "x", "value": None},
        {"type": "RAW", "event": None},
    ],
)
def test_a_null_that_is_a_value_stays(event: dict[str, Any]) -> None:
    """Setting something to null is not leaving it out."""
    assert parse(event) == event


def test_unknown_types_pass_as_they_are() -> None:
    """A type of a later AG-UI goes through unchanged."""
    event = {"type": "META_EVENT", "payload": {"a": [1, None]}}
    assert parse(event) == event


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"type": "TEXT_MESSAGE_START"}, "messageId|message_id"),
        ({"type": "TEXT_MESSAGE_CONTENT", "messageId": 3, "delta": "x"}, "messageId|message_id"),
        ({"type": "TOOL_CALL_START", "toolCallId": "c"}, "toolCallName|tool_call_name"),
        ({"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "tool"}, "role"),
        ({"type": "STATE_DELTA", "delta": "x"}, "delta"),
        (
            {"type": "RUN_FINISHED", "threadId": "t", "runId": "r", "outcome": {"type": "x"}},
            "outcome",
        ),
        ({"type": "CUSTOM", "name": "x", "value": object()}, "CUSTOM"),
        ({"delta": "x"}, "has no type"),
        ({"type": 7}, "has no type"),
        (42, "int"),
        (None, "NoneType"),
        (["TEXT_MESSAGE_START"], "list"),
    ],
)
def test_what_is_malformed_is_refused_by_name(value: object, named: str) -> None:
    """The refusal says which field of which event is wrong."""
    with pytest.raises(IllegalEvent, match=named):
        parse(value)
