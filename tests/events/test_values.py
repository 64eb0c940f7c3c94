"""The ids of a run's values: which object got which id, and what is refused."""

import itertools
from typing import Any

import pytest

from towpath.events import IllegalEvent, activity, ask_for_approval, tool_call, tool_result
from towpath.events.fold import Fold
from towpath.events.values import Ids


def fresh(*messages: dict[str, Any]) -> Ids:
    count = itertools.count(1)
    return Ids(lambda: f"id{next(count)}", Fold(messages))


def test_a_call_is_an_object() -> None:
    """Two calls that look the same are two calls, each with an id and a result of its own."""
    ids, one, other = fresh(), tool_call("price"), tool_call("price")
    assert one != other
    for call in (one, other):
        call.events(ids)
    (first,), (second,) = other.result(1).events(ids), one.result(2).events(ids)
    assert (first["toolCallId"], second["toolCallId"]) == ("id2", "id1")


def test_each_run_gives_its_own_ids() -> None:
    """One object may be published by several runs; a run knows only what it published itself."""
    call, ids, other = tool_call("price"), fresh(), fresh()
    call.events(ids)
    with pytest.raises(IllegalEvent, match="was not yielded in this run"):
        call.result(1).events(other)
    assert call.events(other) == call.events(fresh())


def test_a_reference_needs_what_it_refers_to() -> None:
    """A result, a question and a change are refused before their call and their activity."""
    call, plan = tool_call("price"), activity("PLAN", {})
    for value in (call.result(1), ask_for_approval(call), plan.changed({}), plan.patched([])):
        with pytest.raises(IllegalEvent, match="was not yielded in this run: yield it first"):
            value.events(fresh())


def test_a_call_a_result_and_an_activity_are_published_once() -> None:
    """The error says which one it is, and what to make instead."""
    ids, call, plan = fresh(), tool_call("price"), activity("PLAN", {})
    result = call.result(1)
    for value in (call, result, plan):
        value.events(ids)
    with pytest.raises(IllegalEvent, match="the tool call 'price' was yielded already: make"):
        call.events(ids)
    with pytest.raises(IllegalEvent, match="the tool call 'price' has a result already: make"):
        result.events(ids)
    with pytest.raises(IllegalEvent, match="has a result already"):
        call.result(2).events(ids)
    with pytest.raises(IllegalEvent, match="the activity 'PLAN' was yielded already: yield"):
        plan.events(ids)


def test_a_chosen_id_is_new_in_the_conversation() -> None:
    """The call has the id that the author chose, unless a message or a call has it already."""
    call = tool_call("price", id="mine")
    assert call.events(fresh())[0]["toolCallId"] == "mine"
    spoken = {"id": "mine", "role": "user", "content": "hi"}
    called = {"id": "other", "role": "assistant", "toolCalls": [{"id": "mine"}]}
    for message in (spoken, called):
        with pytest.raises(IllegalEvent, match="has the id 'mine' already"):
            call.events(fresh(message))


def test_the_result_of_an_earlier_call_names_a_call_of_the_conversation() -> None:
    """A result of a call that nobody made is refused."""
    called = {"id": "m", "role": "assistant", "toolCalls": [{"id": "c"}]}
    (result,) = tool_result("c", "done").events(fresh(called))
    assert result["toolCallId"] == "c"
    with pytest.raises(IllegalEvent, match="has no tool call with the id 'm'"):
        tool_result("m", "done").events(fresh(called))
