"""The fold, for every cut point: what a newcomer gets shows what everybody else sees."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.client import Client, Event, errors_of, screen
from tests.events.legal import threads
from towpath.events.fold import Fold, merge_deltas
from towpath.events.order import Order
from towpath.events.types import IllegalEvent


def folded(events: list[Event], *, fold: Fold | None = None) -> Fold:
    fold = fold or Fold()
    for event in copy.deepcopy(events):
        fold.feed(event)
    return fold


def started(**more: Any) -> Event:
    return {"type": "RUN_STARTED", "threadId": "t", "runId": "r", **more}


def text(key: str, *deltas: str, end: bool = True) -> list[Event]:
    content = [{"type": "TEXT_MESSAGE_CONTENT", "messageId": key, "delta": d} for d in deltas]
    ending = [{"type": "TEXT_MESSAGE_END", "messageId": key}] if end else []
    return [
        {"type": "TEXT_MESSAGE_START", "messageId": key, "role": "assistant"},
        *content,
        *ending,
    ]


@given(threads())
def test_the_fold_shows_what_a_client_shows(events: list[Event]) -> None:
    """Messages, their order and the state are those an AG-UI client arrives at."""
    fold, client = Fold(), Client()
    for event in events:
        fold.feed(copy.deepcopy(event))
        client.take(event)
        mine = Client()
        mine.messages, mine.state = fold.messages, fold.state
        assert mine.shows() == client.shows()


@given(threads(runs=2, length=18))
@settings(max_examples=150)
def test_r73_r74_every_cut_renders_like_the_uncut_run(events: list[Event]) -> None:
    """Prelude and tail show the same messages in the same order and the same state."""
    uncut = screen(events)
    fold = Fold()
    for cut, event in enumerate(events, 1):
        fold.feed(copy.deepcopy(event))
        assert screen([*fold.snapshot(), *events[cut:]]) == uncut, cut


@given(threads(runs=2, length=18))
@settings(max_examples=150)
def test_r75_every_cut_is_a_legal_stream(events: list[Event]) -> None:
    """Prelude and tail pass our own order from a fresh start, and AG-UI's validator."""
    assert errors_of(events) == []
    fold = Fold()
    for cut, event in enumerate(events, 1):
        fold.feed(copy.deepcopy(event))
        stream = [*fold.snapshot(), *events[cut:]]
        order = Order()
        for one in stream:
            order.check(one)
            order.advance(one)
        assert errors_of(stream) == [], (cut, stream)


@given(threads(runs=1), st.data())
def test_r73_tails_show_the_same_folded_or_not(events: list[Event], data: st.DataObject) -> None:
    """A reader that continues sees the same whether deltas came one by one or joined."""
    cut = data.draw(st.integers(0, len(events)))
    end = data.draw(st.integers(cut, len(events)))
    marked = [(copy.deepcopy(event), at) for at, event in enumerate(events[cut:end], cut)]
    merged = [event for event, _ in merge_deltas(marked)]
    assert screen([*events[:cut], *merged, *events[end:]]) == screen(events)
    order = Order()
    for one in [*events[:cut], *merged, *events[end:]]:
        order.check(one)
        order.advance(one)


@given(threads(runs=1))
def test_merging_keeps_everything_and_moves_only_deltas(events: list[Event]) -> None:
    """Every mark comes out once, items keep their text, and no delta passes another event."""
    merged = list(merge_deltas((copy.deepcopy(event), at) for at, event in enumerate(events)))
    marks = [mark for _, made_of in merged for mark in made_of]
    assert sorted(marks) == list(range(len(events)))
    for event, made_of in merged:
        assert made_of == sorted(made_of)
        parts = [events[mark] for mark in made_of]
        assert {json.dumps({**part, "delta": ""}) for part in parts} == {
            json.dumps({**event, "delta": ""})
        }
        if len(parts) > 1:
            assert event["delta"] == "".join(part["delta"] for part in parts)
    deltas = {"TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT", "TOOL_CALL_ARGS"}
    seen: list[int] = []
    for event, made_of in merged:
        if event["type"] not in deltas:
            assert sorted(seen) == list(range(made_of[0])), "everything before it came before it"
        seen += made_of


def test_deltas_of_interleaved_items_are_joined() -> None:
    """Two texts that stream at once become one delta each, in the order they began."""
    deltas = [
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": key, "delta": delta}
        for key, delta in (("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"))
    ]
    merged = [
        (event["messageId"], event["delta"], marks)
        for event, marks in merge_deltas((event, at) for at, event in enumerate(deltas))
    ]
    assert merged == [("a", "13", [0, 2]), ("b", "24", [1, 3])]


def test_merging_leaves_what_it_was_given_alone() -> None:
    """The events in the log are not changed by reading them folded."""
    events = [(event, None) for event in text("m", "a", "b")]
    before = copy.deepcopy(events)
    list(merge_deltas(events))
    assert events == before


def test_r77_a_prelude_is_bounded_by_what_it_describes() -> None:
    """Ten thousand tokens or ten: the same events, open or closed."""
    for end in (True, False):
        short = folded([started(), *text("m", *"x" * 10, end=end)]).snapshot()
        long = folded([started(), *text("m", *"x" * 10_000, end=end)]).snapshot()
        assert [event["type"] for event in short] == [event["type"] for event in long]
        assert len(json.dumps(long)) < 11_000


def test_r77_a_snapshot_keeps_the_newest_messages_that_fit() -> None:
    """Over the bound the oldest messages are left out, the newest one never."""
    events = [started()]
    for n in range(10):
        events += text(f"m{n}", str(n) * 100)
    fold = folded(events)
    kept = fold.snapshot(max_bytes=350)[1]["messages"]
    assert [message["id"] for message in kept] == ["m7", "m8", "m9"]
    assert [message["id"] for message in fold.snapshot(max_bytes=1)[1]["messages"]] == ["m9"]
    assert len(fold.snapshot()[1]["messages"]) == 10


def test_r77_the_bound_counts_bytes() -> None:
    """Text that takes several bytes a character counts as many."""
    events = [started(), *text("a", "é" * 100), *text("b", "é" * 100)]
    kept = folded(events).snapshot(max_bytes=250)[1]["messages"]
    assert [message["id"] for message in kept] == ["b"]


def test_nothing_has_no_prelude() -> None:
    """A thread without a run is brought to now by nothing."""
    assert Fold().snapshot() == []


def test_an_idle_threads_prelude_is_its_conversation_and_the_last_ending() -> None:
    """RUN_STARTED without its input, the messages once, and the terminal event."""
    said = {"id": "u", "role": "user", "content": "hi"}
    ended = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}
    run = started(input={"threadId": "t", "runId": "r", "messages": [said]})
    snapshot = folded([run, *text("m", "yes"), ended]).snapshot()
    answer = {"id": "m", "role": "assistant", "content": "yes"}
    assert snapshot == [
        started(),
        {"type": "MESSAGES_SNAPSHOT", "messages": [said, answer]},
        ended,
    ]


def test_r75_an_open_message_is_in_the_events_only() -> None:
    """What streams is re-opened with its text in one piece, and not in the snapshot too."""
    snapshot = folded([started(), *text("a", "x"), *text("b", "1", "2", end=False)]).snapshot()
    assert [event["type"] for event in snapshot] == [
        "RUN_STARTED",
        "MESSAGES_SNAPSHOT",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
    ]
    assert [message["id"] for message in snapshot[1]["messages"]] == ["a"]
    assert snapshot[3]["delta"] == "12"


@given(threads(runs=2), st.data())
def test_a_fold_goes_on_from_what_was_stored(events: list[Event], data: st.DataObject) -> None:
    """Stored after a run and continued, it is the fold that was never interrupted."""
    ends = [
        at for at, event in enumerate(events, 1) if event["type"] in ("RUN_FINISHED", "RUN_ERROR")
    ]
    cut = data.draw(st.sampled_from(ends))
    first = folded(events[:cut])
    assert first.started is not None
    assert first.ended is not None
    stored = json.loads(json.dumps([first.messages, first.state, first.started, first.ended]))
    second = Fold(stored[0], state=stored[1], last_run=(stored[2], stored[3]))
    assert second.snapshot() == first.snapshot()
    assert folded(events[cut:], fold=second).snapshot() == folded(events).snapshot()


operations = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "odd"]),
        "path": st.sampled_from(["", "/", "/a", "/a/b", "/b/0", "/b/-", "/b/x", "/n/1", "a"]),
    },
    optional={"value": st.none() | st.integers() | st.just({"b": 1}), "from": st.just("/a")},
)


@given(st.none() | st.just({"a": {"b": 1}, "b": [1], "n": 3}), st.lists(operations, max_size=3))
@settings(max_examples=300)
def test_a_patch_applies_or_is_illegal_and_changes_nothing(
    state: Any, operations: list[dict[str, Any]]
) -> None:
    """Whatever an agent sends as a patch, the state is the patched one or the one before."""
    fold = Fold(state=state)
    fold.feed(started())
    before = copy.deepcopy(fold.state)
    activity = {"type": "ACTIVITY_SNAPSHOT", "messageId": "a", "activityType": "P"}
    if isinstance(state, dict):
        fold.feed({**activity, "content": copy.deepcopy(state)})
    shown = copy.deepcopy(fold.messages)
    for event in (
        {"type": "STATE_DELTA", "delta": operations},
        {"type": "ACTIVITY_DELTA", "messageId": "a", "activityType": "P", "patch": operations},
    ):
        try:
            fold.feed(event)
        except IllegalEvent:
            assert fold.state == before
            assert fold.messages == shown


def test_a_delta_makes_a_state_where_there_was_none() -> None:
    """As in AG-UI's client, the first delta of a thread without state starts from nothing."""
    delta = [{"op": "add", "path": "/a", "value": 1}]
    fold = folded([started(), {"type": "STATE_DELTA", "delta": delta}])
    assert fold.state == {"a": 1}


def test_a_snapshot_that_drops_a_text_of_the_run_loses_no_ending() -> None:
    """Agents that say the conversation anew with other ids can still end."""
    dropped = [started(), *text("m", "a"), {"type": "MESSAGES_SNAPSHOT", "messages": []}]
    fold = folded(dropped)
    assert fold.text("m") == ""
    assert fold.run_texts() == []


@pytest.mark.parametrize("left", [[], [{"id": "u", "role": "user", "content": "q"}]])
def test_r75_a_snapshot_that_drops_what_is_open_leaves_a_legal_stream(
    left: list[dict[str, Any]],
) -> None:
    """A newcomer after it can follow the rest, and shows what everybody shows."""
    head = [
        started(),
        *text("m", "a", end=False),
        {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "f"},
        {"type": "MESSAGES_SNAPSHOT", "messages": left},
    ]
    tail = [
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "b"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "[]"},
        {"type": "TEXT_MESSAGE_END", "messageId": "m"},
        {"type": "TOOL_CALL_END", "toolCallId": "c"},
        {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"},
    ]
    stream = [*folded(head).snapshot(), *tail]
    folded(stream)
    assert errors_of(stream) == []
    assert screen(stream) == screen([*head, *tail])


def test_texts_of_a_run_stand_in_the_order_they_began() -> None:
    """What the terminal event has digests of are this run's texts, the last 32, by start."""
    events = [started(), *text("old", "x"), {"type": "RUN_ERROR", "message": "x"}, started()]
    for n in range(40):
        events += text(f"m{n}", "a", str(n))
    assert folded(events).run_texts() == [(f"m{n}", f"a{n}") for n in range(8, 40)]
    assert folded(events[:10]).run_texts() == [("m0", "a0")]


def test_an_illegal_event_changes_nothing() -> None:
    """What the order refuses leaves messages, state and brackets as they were."""
    fold = folded([started(), *text("m", "a", end=False)])
    before = copy.deepcopy((fold.messages, fold.state, fold.order.open, fold.snapshot()))
    for event in (started(), *text("m"), {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}):
        if event["type"] != "TEXT_MESSAGE_END":
            with pytest.raises(IllegalEvent):
                fold.feed(event)
    assert (fold.messages, fold.state, fold.order.open, fold.snapshot()) == before


def test_what_is_open_is_reopened_by_the_event_that_opened_it() -> None:
    """A newcomer hears the opener itself, with whatever the agent said in it."""
    opener = {**text("m")[0], "name": "poet", "metadata": {"mood": "blue"}, "timestamp": 7}
    call = {
        "type": "TOOL_CALL_START",
        "toolCallId": "c",
        "toolCallName": "f",
        "metadata": {"n": 1},
    }
    snapshot = folded([started(), opener, call]).snapshot()
    assert opener in snapshot
    assert call in snapshot
