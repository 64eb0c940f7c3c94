"""The legal order, as its table says it, against plain and generated runs."""

import copy

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.events.legal import Event, threads
from towpath.events.order import RULES, Act, Order
from towpath.events.types import IllegalEvent

START = {"type": "RUN_STARTED", "threadId": "t", "runId": "r"}
FINISH = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}
ERROR = {"type": "RUN_ERROR", "message": "x"}
BRACKETS = sorted({(rule.bracket, rule.field) for rule in RULES.values()})


def of(bracket: str, act: Act) -> list[str]:
    return [kind for kind, rule in RULES.items() if rule.bracket == bracket and rule.act is act]


def after(*events: Event) -> Order:
    order = Order()
    for event in events:
        order.check(event)
        order.advance(event)
    return order


def refused(order: Order, event: Event) -> str:
    before = (order.running, copy.deepcopy(order.open))
    with pytest.raises(IllegalEvent) as caught:
        order.check(event)
    assert (order.running, order.open) == before
    return caught.value.reason


@pytest.mark.parametrize(("bracket", "field"), BRACKETS)
def test_a_bracket_opens_is_used_and_closes(bracket: str, field: str) -> None:
    """Nothing is used or closed before it is open, opened twice, or used after it is closed."""
    (opener,) = of(bracket, Act.OPEN)
    named: Event = {field: "x"}
    later = [*of(bracket, Act.USE), *of(bracket, Act.CLOSE)]
    for kind in later:
        assert "is not open" in refused(after(START), {"type": kind, **named})
    opened = {"type": opener, **named}
    assert "is open already" in refused(after(START, opened), opened)
    assert f"{bracket} x is open" in refused(after(START, opened), FINISH)
    for kind in of(bracket, Act.USE):
        after(START, opened, {"type": kind, **named}, {"type": kind, **named})
    for kind in of(bracket, Act.CLOSE):
        closed = after(START, opened, {"type": kind, **named})
        assert closed.open == {}
        for again in later:
            refused(closed, {"type": again, **named})
        closed.check(FINISH)
        closed.check(opened)


@pytest.mark.parametrize("kind", list(RULES))
@pytest.mark.parametrize("name", [None, "", 3])
def test_a_bracket_needs_a_name(kind: str, name: object) -> None:
    """An event that does not say which item it means is refused."""
    assert "has no" in refused(after(START), {"type": kind, RULES[kind].field: name})


def test_names_of_different_kinds_do_not_meet() -> None:
    """A text and a thought may have the same id, and close one by one."""
    both = [{"type": f"{kind}_MESSAGE_START", "messageId": "x"} for kind in ("TEXT", "REASONING")]
    order = after(START, *both, {"type": "TEXT_MESSAGE_END", "messageId": "x"})
    assert list(order.open) == [("thought", "x")]


def test_a_run_begins_and_ends_once() -> None:
    """First RUN_STARTED, one active run, and after its end only a new one."""
    assert refused(Order(), FINISH) == "no run is active"
    assert refused(Order(), {"type": "CUSTOM", "name": "x"}) == "no run is active"
    assert refused(after(START), START) == "a run is active"
    for ending in (FINISH, ERROR):
        assert refused(after(START, ending), {"type": "STATE_SNAPSHOT"}) == "no run is active"
        assert refused(after(START, ending), FINISH) == "no run is active"
        after(START, ending, START, ending)


def test_an_error_needs_no_tidiness() -> None:
    """RUN_ERROR closes whatever is open, and may come where no run began."""
    opened = {"type": "TEXT_MESSAGE_START", "messageId": "m"}
    assert after(START, opened, ERROR).open == {}
    assert not after(ERROR).running


@given(threads())
def test_generated_runs_are_legal_and_closing_makes_any_prefix_finish(events: list[Event]) -> None:
    """Every legal run passes; cut anywhere, its closing events make RUN_FINISHED legal."""
    order = Order()
    for event in events:
        order.check(event)
        order.advance(event)
        if order.running:
            cut = copy.deepcopy(order)
            for closer in order.closing():
                cut.check(closer)
                cut.advance(closer)
            cut.check(FINISH)


def test_closing_is_inside_out_and_keeps_attribution() -> None:
    """What was opened last is closed first; a sub-agent's items stay its own."""
    order = after(
        START,
        {"type": "SUBAGENT_STARTED", "subagentRunId": "s", "name": "x"},
        {"type": "STEP_STARTED", "stepName": "one"},
        {"type": "TEXT_MESSAGE_START", "messageId": "m", "subagentRunId": "s"},
    )
    assert order.closing() == [
        {"type": "TEXT_MESSAGE_END", "messageId": "m", "subagentRunId": "s"},
        {"type": "STEP_FINISHED", "stepName": "one"},
        {"type": "SUBAGENT_FINISHED", "subagentRunId": "s"},
    ]


@given(threads(runs=1), st.data())
def test_a_dropped_opener_or_a_doubled_event_is_refused(
    events: list[Event], data: st.DataObject
) -> None:
    """Take an opener away, or say an opener or closer twice, and the order says so."""
    bracketed = [at for at, event in enumerate(events) if event["type"] in RULES]
    assume(bracketed)
    at = data.draw(st.sampled_from(bracketed))
    rule = RULES[events[at]["type"]]
    order = after(*events[:at])
    if rule.act is Act.OPEN:
        name = events[at][rule.field]
        same = [
            event
            for event in events[at + 1 :]
            if event["type"] in RULES
            and (RULES[event["type"]].bracket, event.get(RULES[event["type"]].field))
            == (rule.bracket, name)
        ]
        for event in same[:1]:
            refused(order, event)
    order.advance(events[at])
    if rule.act is not Act.USE:
        refused(order, events[at])
