"""The functions for agent authors: the events of each value, and the arguments that are refused."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from towpath import events
from towpath.events import EventValue, IllegalEvent
from towpath.events.fold import Fold
from towpath.events.values import Ids

AWARE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
NAIVE = datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001 - what the test refuses
YESTERDAY = {"id": "m", "role": "assistant", "toolCalls": [{"id": "of yesterday"}]}
unchecked: Any = events
"""The functions as an author without a type checker has them."""


def published(*values: EventValue) -> list[dict[str, Any]]:
    """Return the events of values that one run publishes, with the ids id1, id2, …"""
    count = itertools.count(1)
    ids = Ids(lambda: f"id{next(count)}", Fold([YESTERDAY]))
    return [event for value in values for event in value.events(ids)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (None, "{}"),
        ({}, "{}"),
        ({"of": "pear"}, '{"of": "pear"}'),
        ('{"of":"pear"}', '{"of":"pear"}'),
        ("[1]", "[1]"),
    ],
)
def test_a_tool_call_is_three_events(arguments: Any, text: str) -> None:
    """Start, arguments and end; JSON text is published unchanged."""
    assert published(events.tool_call("price", arguments)) == [
        {"type": "TOOL_CALL_START", "toolCallId": "id1", "toolCallName": "price"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "id1", "delta": text},
        {"type": "TOOL_CALL_END", "toolCallId": "id1"},
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [("plain", "plain"), ("", ""), ({"price": 0.6}, '{"price": 0.6}'), (None, "null")],
)
def test_a_result_names_its_call(content: object, text: str) -> None:
    """The result has the id that the run gave to the call; text is published unchanged."""
    call = events.tool_call("price")
    expected = {"type": "TOOL_CALL_RESULT", "role": "tool", "content": text, "messageId": "id2"}
    assert published(call, call.result(content))[-1] == {**expected, "toolCallId": "id1"}
    earlier = {**expected, "messageId": "id1", "toolCallId": "of yesterday"}
    assert published(events.tool_result("of yesterday", content)) == [earlier]


@pytest.mark.parametrize("text", ["Which fruit?", ""])
def test_thinking_is_a_whole_reasoning(text: str) -> None:
    """All five events with one id; an empty text makes no content event."""
    made = published(events.thinking(text))
    assert {one["messageId"] for one in made} == {"id1"}
    assert [one["type"] for one in made] == [
        *("REASONING_START", "REASONING_MESSAGE_START"),
        *(["REASONING_MESSAGE_CONTENT"] if text else []),
        *("REASONING_MESSAGE_END", "REASONING_END"),
    ]
    assert "".join(one.get("delta", "") for one in made) == text


@pytest.mark.parametrize("text", ["Good morning.", ""])
def test_a_message_is_a_whole_message(text: str) -> None:
    """Three events with one id and the role; an empty text makes no content event."""
    made = published(events.message(text, role="system"))
    content = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "id1", "delta": text}
    assert made == [
        {"type": "TEXT_MESSAGE_START", "messageId": "id1", "role": "system"},
        *([content] if text else []),
        {"type": "TEXT_MESSAGE_END", "messageId": "id1"},
    ]
    assert published(events.message(text))[0]["role"] == "assistant"


def test_values_without_ids_are_one_event_each() -> None:
    """State, its changes, steps and custom events."""
    packing = events.step("pack")
    patch = [{"op": "add", "path": "/cart/-", "value": "pear"}]
    made = published(
        events.state({"cart": []}),
        events.state_delta(patch),
        packing,
        packing.finished(),
        events.custom("shop.bell", {"times": 2}),
        events.custom("shop.closed"),
    )
    assert made == [
        {"type": "STATE_SNAPSHOT", "snapshot": {"cart": []}},
        {"type": "STATE_DELTA", "delta": patch},
        {"type": "STEP_STARTED", "stepName": "pack"},
        {"type": "STEP_FINISHED", "stepName": "pack"},
        {"type": "CUSTOM", "name": "shop.bell", "value": {"times": 2}},
        {"type": "CUSTOM", "name": "shop.closed", "value": None},
    ]


def test_an_activity_keeps_its_id() -> None:
    """Its changes name the message that the run made of it."""
    plan = events.activity("PLAN", {"done": 0})
    patch = [{"op": "replace", "path": "/done", "value": 1}]
    named = {"messageId": "id1", "activityType": "PLAN"}
    assert published(plan, plan.patched(patch), plan.changed({"done": 2})) == [
        {"type": "ACTIVITY_SNAPSHOT", **named, "content": {"done": 0}},
        {"type": "ACTIVITY_DELTA", **named, "patch": patch},
        {"type": "ACTIVITY_SNAPSHOT", **named, "content": {"done": 2}},
    ]


def test_questions_end_the_run() -> None:
    """One interrupt for each question, in order, with AG-UI's fields."""
    call = events.tool_call("pay")
    approval = events.ask_for_approval(
        call, message="Pay?", expires=AWARE, response_schema={"type": "object"}
    )
    size = events.ask("Which size?", reason="size", id="size")
    ended = published(call, events.ask_all(approval, size))[-1]
    assert ended == {
        "type": "RUN_FINISHED",
        "outcome": {
            "type": "interrupt",
            "interrupts": [
                {
                    "id": "id2",
                    "reason": "tool_call",
                    "message": "Pay?",
                    "expiresAt": "2026-01-02T03:04:00+00:00",
                    "responseSchema": {"type": "object"},
                    "toolCallId": "id1",
                },
                {"id": "size", "reason": "size", "message": "Which size?"},
            ],
        },
    }
    (earlier,) = published(events.ask_for_approval("of yesterday"))
    (interrupt,) = earlier["outcome"]["interrupts"]
    assert interrupt == {"id": "id1", "reason": "tool_call", "toolCallId": "of yesterday"}


@pytest.mark.parametrize(
    ("make", "event_type"),
    [
        (lambda: unchecked.tool_call(""), "TOOL_CALL_START"),
        (lambda: unchecked.tool_call("f", id=""), "TOOL_CALL_START"),
        (lambda: unchecked.tool_call("f", "{"), "TOOL_CALL_ARGS"),
        (lambda: unchecked.tool_call("f", ""), "TOOL_CALL_ARGS"),
        (lambda: unchecked.tool_call("f", '"\ud83d"'), "TOOL_CALL_ARGS"),
        (lambda: unchecked.tool_call("f", [1]), "TOOL_CALL_ARGS"),
        (lambda: unchecked.tool_call("f", []), "TOOL_CALL_ARGS"),
        (lambda: unchecked.tool_call("f", {"a": object()}), "TOOL_CALL_ARGS"),
        (lambda: unchecked.tool_call("f").result(object()), "TOOL_CALL_RESULT"),
        (lambda: unchecked.tool_call("f").result("\ud83d"), "TOOL_CALL_RESULT"),
        (lambda: unchecked.tool_result("", 1), "TOOL_CALL_RESULT"),
        (lambda: unchecked.thinking("\ud83d"), "REASONING_MESSAGE_CONTENT"),
        (lambda: unchecked.thinking(7), "REASONING_MESSAGE_CONTENT"),
        (lambda: unchecked.message("\ud83d"), "TEXT_MESSAGE_CONTENT"),
        (lambda: unchecked.message("x", role="pirate"), "TEXT_MESSAGE_START"),
        (lambda: unchecked.state({"a": object()}), "STATE_SNAPSHOT"),
        (lambda: unchecked.state_delta([{"op": "increase", "path": "/a"}]), "STATE_DELTA"),
        (lambda: unchecked.state_delta({"op": "remove", "path": "/a"}), "STATE_DELTA"),
        (lambda: unchecked.step(" "), "STEP_STARTED"),
        (lambda: unchecked.custom(""), "CUSTOM"),
        (lambda: unchecked.custom("x", object()), "CUSTOM"),
        (lambda: unchecked.activity("", {}), "ACTIVITY_SNAPSHOT"),
        (lambda: unchecked.activity("PLAN", [1]), "ACTIVITY_SNAPSHOT"),
        (lambda: unchecked.activity("PLAN", {}).changed(None), "ACTIVITY_SNAPSHOT"),
        (lambda: unchecked.activity("PLAN", {}).patched([{"op": "add"}]), "ACTIVITY_DELTA"),
        (lambda: unchecked.ask(""), "RUN_FINISHED"),
        (lambda: unchecked.ask("?", reason=""), "RUN_FINISHED"),
        (lambda: unchecked.ask("?", expires=NAIVE), "RUN_FINISHED"),
        (lambda: unchecked.ask("?", expires=3600), "RUN_FINISHED"),
        (lambda: unchecked.ask("?", id="\n"), "RUN_FINISHED"),
        (lambda: unchecked.ask("?", response_schema=True), "RUN_FINISHED"),
        (lambda: unchecked.ask_for_approval(None), "RUN_FINISHED"),
        (lambda: unchecked.ask_for_approval("c", message=""), "RUN_FINISHED"),
        (lambda: unchecked.ask_all(), "RUN_FINISHED"),
    ],
)
def test_an_invalid_argument_is_refused_where_the_value_is_made(
    make: Callable[[], object], event_type: str
) -> None:
    """The error is raised at the author's line, and names the event."""
    with pytest.raises(IllegalEvent) as refused:
        make()
    assert refused.value.event_type == event_type


def test_content_is_copied_where_the_value_is_made() -> None:
    """A change of the author's object after that line is not published."""
    cart: dict[str, Any] = {"cart": ["pear"]}
    values = [
        *(events.state(cart), events.custom("x", cart), events.activity("PLAN", cart)),
        *(
            events.tool_call("f", cart),
            events.state_delta([{"op": "test", "path": "", "value": cart}]),
        ),
    ]
    before = published(*values)
    cart["cart"].append("plum")
    assert published(*values) == before
    assert "plum" not in str(before)


def test_a_repr_shows_no_content() -> None:
    """Arguments, results and texts may be secrets; a log that shows a value does not show them."""
    call = events.tool_call("pay", {"card": "secret"})
    shown = [call, call.result("secret"), events.thinking("secret"), events.message("secret")]
    shown += [events.state("secret"), events.custom("x", "secret"), events.ask("secret")]
    assert "secret" not in repr(shown)
    assert "pay" in repr(call)
