"""A run that is fed values: whole or not at all, legal, and what is shown is what is stored."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.client import errors_of, screen
from tests.events.legal import pieces
from towpath.events import (
    EventValue,
    IllegalEvent,
    activity,
    ask,
    ask_all,
    ask_for_approval,
    custom,
    message,
    state,
    state_delta,
    step,
    thinking,
    tool_call,
    tool_result,
)
from towpath.events.fold import Fold
from towpath.events.order import Order
from towpath.events.values import Ids
from towpath.runs.encoding import RunEvent
from towpath.runs.model import OVER, RunKey, Status
from towpath.runs.run import Run

QUESTION = {"id": "u", "role": "user", "content": "hi"}
texts = st.just("") | pieces
ENDINGS: list[Callable[[Run], list[RunEvent]]] = [Run.finish, Run.cancel, Run.lose]


def begun(**options: Any) -> Run:
    count = itertools.count(1)
    key = RunKey(tenant="acme", user="alice", thread="t", run="r", agent="a")
    run = Run(key, history=[], new_id=lambda: f"id{next(count)}", **options)
    run.begin({"messages": [QUESTION]})
    return run


def kinds(made: list[RunEvent]) -> list[str]:
    return [one.event["type"] for one in made]


def test_values_are_published_with_ids_of_the_run() -> None:
    """A call, its result and a thought become events; text that streams is closed before them."""
    run, call = begun(), tool_call("price", {"of": "pear"})
    made = [
        one
        for item in ("One ", call, call.result({"price": 0.6}), thinking("Hm."), "pear.")
        for one in run.feed(item)
    ]
    assert kinds(made) == [
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"),
        *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"),
        *("REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"),
        *("REASONING_MESSAGE_END", "REASONING_END"),
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"),
    ]
    assert [int(one.tags["seq"]) for one in made] == list(range(2, len(made) + 2))
    _, said, called, result, thought, more = run.messages
    assert [said["content"], thought["content"], more["content"]] == ["One ", "Hm.", "pear."]
    assert called["toolCalls"][0]["function"]["arguments"] == '{"of": "pear"}'
    assert (result["toolCallId"], result["content"]) == (called["id"], '{"price": 0.6}')


def test_a_question_about_a_call_ends_the_run() -> None:
    """The run is interrupted, with the call's id in the interrupt, and open steps are closed."""
    run, call = begun(), tool_call("pay")
    run.feed(step("payment"))
    run.feed(call)
    made = run.feed(ask_for_approval(call, message="Pay?"))
    assert kinds(made) == ["STEP_FINISHED", "RUN_FINISHED"]
    assert run.status is Status.INTERRUPTED
    (interrupt,) = made[-1].event["outcome"]["interrupts"]
    assert interrupt["toolCallId"] == run.messages[-1]["toolCalls"][0]["id"]


def test_a_chosen_id_of_another_call_is_refused() -> None:
    """Clients would join the arguments of both calls; it does not matter who made the other one."""
    run, call = begun(), tool_call("price", id="mine")
    opened = {"type": "TOOL_CALL_START", "toolCallName": "f", "toolCallId": "mine"}
    run.feed({**opened, "parentMessageId": "other"})
    run.feed({"type": "TOOL_CALL_END", "toolCallId": "mine"})
    with pytest.raises(IllegalEvent, match="has the id 'mine' already"):
        run.feed(call)
    with pytest.raises(IllegalEvent, match="was not yielded in this run"):
        run.feed(call.result(1))


@pytest.mark.parametrize("events", [["STEP_FINISHED"], ["STEP_STARTED", "STEP_STARTED"]])
def test_an_event_that_was_made_is_never_lost(events: list[str]) -> None:
    """If a value breaks its promise, what was made before the refusal is published after it."""

    class Broken(EventValue):
        def events(self, ids: Ids) -> list[dict[str, Any]]:
            return [{"type": kind, "stepName": "s"} for kind in events]

    run = begun()
    with pytest.raises(IllegalEvent):
        run.feed(Broken())
    made = run.finish()
    assert [int(one.tags["seq"]) for one in made] == list(range(2, run.events + 1))


def test_a_malformed_event_of_a_value_stops_the_others() -> None:
    """All events of a value are validated before the first one is applied."""

    class Broken(EventValue):
        def events(self, ids: Ids) -> list[dict[str, Any]]:
            return [{"type": "STEP_STARTED", "stepName": "s"}, {"type": "STEP_FINISHED"}]

    run = begun()
    with pytest.raises(IllegalEvent, match="stepName"):
        run.feed(Broken())
    assert kinds(run.finish()) == ["RUN_FINISHED"]


class Author:
    """An agent that yields values in any order, and checks what becomes of each."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.calls = [tool_call("price"), tool_call("pay", {"n": 1}), tool_call("x", id="x")]
        self.results = [call.result(self.draw(texts)) for call in self.calls]
        self.steps = [step("one"), step("two")]
        self.plans = [activity("PLAN", {"at": 0}), activity("MAP", {})]

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def pick(self, values: list[Any]) -> Any:
        return self.draw(st.sampled_from(values))

    def item(self) -> object:
        """Return the next item: mostly a value, sometimes text or an event in wire form."""
        return self.pick(
            [
                *(lambda: self.pick(self.calls), lambda: self.pick(self.calls)),
                *(lambda: self.pick(self.results), lambda: self.pick(self.calls).result(1)),
                lambda: tool_call("other", id=self.pick(["x", "y", "u"])),
                lambda: tool_result(self.pick(["x", "y"]), self.draw(texts)),
                *(lambda: self.draw(texts), lambda: thinking(self.draw(texts))),
                lambda: message(self.draw(texts), role=self.pick(["assistant", "system"])),
                lambda: state({"a": self.draw(texts)}),
                lambda: state_delta([{"op": "remove", "path": self.pick(["/a", "/b"])}]),
                *(lambda: self.pick(self.steps), lambda: self.pick(self.steps).finished()),
                *(lambda: self.pick(self.plans), lambda: self.pick(self.plans).changed({"b": 1})),
                lambda: self.pick(self.plans).patched([{"op": "remove", "path": "/at"}]),
                *(lambda: custom("app.ping", self.draw(texts)), self.chunk),
            ]
        )()

    def chunk(self) -> object:
        """Return a chunk in wire form, of a call whose id a value may want as well."""
        key = self.pick(["x", "y"])
        return {"type": "TOOL_CALL_CHUNK", "toolCallId": key, "toolCallName": "f", "delta": "{}"}

    def question(self) -> EventValue:
        call = self.pick(self.calls)
        asked = [ask("Which?"), ask_for_approval(call), ask_all(ask("A?"), ask_for_approval(call))]
        value: EventValue = self.pick(asked)
        return value


class Stage:
    """One thread: each item is fed to a run, and what comes out is checked at once."""

    def __init__(self) -> None:
        self.count = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self.fold, self.order = Fold(), Order()
        self.called: set[str] = set()

    def begin(self, name: str, history: list[dict[str, Any]], state: Any) -> None:
        key = RunKey(tenant="acme", user="alice", thread="t", run=name, agent="a")
        self.run = Run(key, history=history, state=state, new_id=lambda: f"id{next(self.count)}")
        self.seq = 0
        self.take(self.run.begin({"messages": [{**QUESTION, "id": f"u{name}"}]}))

    def feed(self, item: object) -> None:
        """Feed an item; a refused one changes nothing, except that text that streams may end."""
        before = copy.deepcopy((self.run.messages, self.run.state))
        try:
            self.take(self.run.feed(item))
        except IllegalEvent:
            assert (self.run.messages, self.run.state) == before
            made = self.run.feed({"type": "CUSTOM", "name": "next", "value": None})
            self.take(made)
            assert kinds(made)[-1] == "CUSTOM"
            assert set(kinds(made)[:-1]) <= {"TEXT_MESSAGE_END", "TOOL_CALL_END"}

    def take(self, made: list[RunEvent]) -> None:
        for one in made:
            self.seq += 1
            assert one.tags["seq"] == str(self.seq)
            self.order.check(one.event)
            self.order.advance(one.event)
            self.fold.feed(one.event)
            if one.event["type"] == "TOOL_CALL_START":
                self.called.add(one.event["toolCallId"])
            assert one.event["type"] != "TOOL_CALL_RESULT" or one.event["toolCallId"] in self.called
        self.events += [one.event for one in made]


@settings(deadline=None)
@given(st.data())
def test_values_in_any_order_are_whole_and_legal(data: st.DataObject) -> None:
    """Two runs of a thread that yield values in any order publish a stream that AG-UI accepts.

    A value that is refused is not published in part. A reader of the stream, a fold of it, and what
    the run stores show the same.
    """
    author, stage = Author(data), Stage()
    history: list[dict[str, Any]] = []
    stored: Any = None
    for name in ("r1", "r2"):
        stage.begin(name, history, stored)
        for _ in range(data.draw(st.integers(0, 12))):
            item = author.item()
            if isinstance(item, dict) and item["toolCallId"] in stage.called:
                continue  # The legal order allows another call of that id; clients do not.
            stage.feed(item)
        if data.draw(st.booleans()):
            stage.feed(author.question())
        if stage.run.status not in OVER:
            stage.take(data.draw(st.sampled_from(ENDINGS))(stage.run))
        closed = stage.run.closed(0.0, expires=9.0)
        assert closed.messages is not None
        history, stored = closed.messages, closed.state
        assert (stage.fold.messages, stage.fold.state) == (history, stored)
    # The validator knows the calls of one run only; AG-UI allows results of earlier ones.
    errors = [one for one in errors_of(stage.events) if "which was never started" not in one]
    assert errors == []
    assert screen(stage.fold.snapshot()) == screen(stage.events)
