"""One run as a table, with plain values: no loop, no log."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.events.client import errors_of, screen
from tests.events.legal import threads
from towpath.events import message, tool_call
from towpath.events.digest import crc32, digest
from towpath.events.order import Order
from towpath.events.types import TERMINAL, IllegalEvent
from towpath.runs.encoding import EventTooLarge, RunEvent, as_unicode
from towpath.runs.model import OVER, TRANSITIONS, RunIsOver, RunKey, Status, Transition
from towpath.runs.run import Run

KEY = RunKey(tenant="acme", user="alice", thread="t", run="r", agent="a")
IDS = {"threadId": "t", "runId": "r"}
QUESTION = {"id": "u", "role": "user", "content": "hi"}


def begun(**options: Any) -> Run:
    ids = itertools.count(1)
    run = Run(KEY, history=[], new_id=lambda: f"id{next(ids)}", **options)
    run.begin({"messages": [QUESTION]})
    return run


def kinds(made: list[RunEvent]) -> list[str]:
    return [one.event["type"] for one in made]


def fed(run: Run, *items: object) -> list[RunEvent]:
    return [made for item in items for made in run.feed(item)]


def text_of(made: list[RunEvent]) -> str:
    return "".join(one.event.get("delta", "") for one in made)


def test_the_table_leaves_running_once() -> None:
    """From RUNNING each move but EVENT ends the run; from an ending there is no move."""
    assert {status for status, _ in TRANSITIONS} == {Status.PENDING, Status.RUNNING}
    assert set(Status) - {Status.PENDING, Status.RUNNING} == OVER
    assert {
        move: TRANSITIONS[Status.RUNNING, move]
        for move in Transition
        if move is not Transition.BEGIN
    } == {
        Transition.EVENT: Status.RUNNING,
        Transition.FINISH: Status.FINISHED,
        Transition.INTERRUPT: Status.INTERRUPTED,
        Transition.CANCEL: Status.CANCELLED,
        Transition.FAIL: Status.FAILED,
        Transition.LOSE: Status.LOST,
    }


def test_a_run_begins_once_with_what_was_said() -> None:
    """RUN_STARTED carries the ids and the input, and the state that was given follows."""
    run = Run(KEY, history=[], new_id=lambda: "x")
    with pytest.raises(RunIsOver):
        run.feed("too early")
    assert run.finish() == run.cancel() == run.fail("x") == run.lose() == []
    made = run.begin({"messages": [QUESTION], "state": {"n": 1}}, parent="p")
    named = {"type": "RUN_STARTED", **IDS, "parentRunId": "p"}
    assert named.items() <= made[0].event.items()
    assert made[0].event["input"]["messages"] == [QUESTION]
    assert made[0].tags == {"thread": "t", "run": "r", "agent": "a", "seq": "1"}
    assert made[1].event == {"type": "STATE_SNAPSHOT", "snapshot": {"n": 1}}
    with pytest.raises(RunIsOver):
        run.begin({"messages": []})


def test_an_input_that_is_none_begins_nothing() -> None:
    """A message AG-UI does not know is refused, and the run may begin with a better one."""
    run = Run(KEY, history=[], new_id=lambda: "x")
    with pytest.raises(IllegalEvent):
        run.begin({"messages": [{"id": "u", "role": "pirate"}]})
    assert run.status is Status.PENDING
    assert len(run.begin({"messages": [QUESTION]})) == 1


@pytest.mark.parametrize(
    ("end", "status", "terminal"),
    [
        (Run.finish, Status.FINISHED, {"outcome": {"type": "success"}}),
        (Run.cancel, Status.CANCELLED, {"outcome": {"type": "cancelled"}}),
        (lambda run: run.fail("run.deadline"), Status.FAILED, {"code": "run.deadline"}),
        (lambda run: run.fail("x", "words"), Status.FAILED, {"code": "x", "message": "words"}),
        (Run.lose, Status.LOST, {"code": "run.lost"}),
    ],
)
def test_each_end_is_told_as_it_was(end: Any, status: Status, terminal: dict[str, Any]) -> None:
    """The terminal event says how the run ended, once, and whoever is late gets nothing."""
    run = begun()
    fed(run, "text", {"type": "STEP_STARTED", "stepName": "s"})
    made = end(run)
    assert terminal.items() <= made[-1].event.items()
    assert run.status is status
    assert run.over
    if "code" not in terminal:
        assert kinds(made) == ["STEP_FINISHED", "RUN_FINISHED"]
    else:
        assert kinds(made) == ["RUN_ERROR"]
    assert run.finish() == run.cancel() == run.fail("x") == run.lose() == []
    with pytest.raises(RunIsOver):
        run.feed("late")


@pytest.mark.parametrize("code", ["run.lost", " Run.Failed", "run.mine", ""])
def test_r121_an_agents_error_never_carries_a_code_of_the_gateway(code: str) -> None:
    """So for the run's own RUN_ERROR, and for those of its sub-agents."""
    run = begun()
    made = fed(
        run,
        {"type": "SUBAGENT_STARTED", "subagentRunId": "sub", "name": "helper"},
        {"type": "SUBAGENT_ERROR", "subagentRunId": "sub", "message": "no", "code": code},
        {"type": "RUN_ERROR", "message": "no", "code": code},
    )
    assert [one.event["code"] for one in made[1:]] == ["agent.failed", "agent.failed"]
    assert run.code == "agent.failed"


def test_r121_an_agents_own_code_is_told_as_it_is() -> None:
    """Codes outside the gateway's name space are the agent's to choose."""
    made = fed(begun(), {"type": "RUN_ERROR", "message": "no", "code": "canal.closed"})
    assert made[-1].event["code"] == "canal.closed"


@pytest.mark.parametrize(("code", "message"), [(42, "words"), ("x", ValueError("no text"))])
def test_r121_an_ending_that_cannot_be_written_changes_nothing(code: Any, message: Any) -> None:
    """A run whose error is no text goes on, and can still end."""
    run = begun()
    with pytest.raises((AttributeError, TypeError)):
        run.fail(code, message)
    assert (run.status, run.code) == (Status.RUNNING, None)
    assert kinds(run.fail("run.failed")) == ["RUN_ERROR"]


def test_text_opens_and_closes_by_itself() -> None:
    """Text in a row is one message; anything else closes it, more text is a new one."""
    run = begun()
    made = fed(run, "a", "b", {"type": "CUSTOM", "name": "x", "value": 1}, "c") + run.finish()
    assert kinds(made) == [
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT"),
        *("TEXT_MESSAGE_END", "CUSTOM"),
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED"),
    ]
    assert made[0].event["messageId"] != made[5].event["messageId"]
    assert [one["content"] for one in run.messages] == ["hi", "ab", "c"]


ONE_OF_EACH: list[object] = [
    "text ",
    "and more",
    {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "toolCallName": "f", "delta": "{}"},
    {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "a\ud83d"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "\ude00"},
    {"type": "TEXT_MESSAGE_END", "messageId": "m"},
    {"type": "STATE_SNAPSHOT", "snapshot": {"a": 1}},
    {"type": "STATE_DELTA", "delta": [{"op": "remove", "path": "/a"}]},
    {"type": "STEP_STARTED", "stepName": "s"},
    {"type": "REASONING_START", "messageId": "th"},
    {"type": "UNKNOWN", "x": 1},
    message("whole"),
    tool_call("f", {"a": 1}),
]


@pytest.mark.parametrize("ending", ["finish", "fail"])
def test_each_event_is_encoded_once_and_checked_once(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published is the bytes that showed that it is JSON; nothing is made in vain."""
    encoded: list[bytes] = []
    checked: list[str] = []
    check, encode, encoder = Order.check, msgspec.json.encode, msgspec.json.Encoder()

    class Counting:
        def encode(self, event: dict[str, Any]) -> bytes:
            encoded.append(encoder.encode(event))
            return encoded[-1]

    def encoded_elsewhere(value: Any) -> bytes:
        assert not (isinstance(value, dict) and "type" in value)
        return encode(value)

    def counted(self: Order, event: dict[str, Any]) -> None:
        checked.append(event["type"])
        check(self, event)

    monkeypatch.setattr("towpath.runs.encoding._ENCODER", Counting())
    monkeypatch.setattr(msgspec.json, "encode", encoded_elsewhere)
    monkeypatch.setattr(Order, "check", counted)
    ids = itertools.count(1)
    run = Run(KEY, history=[], new_id=lambda: f"id{next(ids)}")
    made = run.begin({"messages": [QUESTION], "state": {"n": 1}}) + fed(run, *ONE_OF_EACH)
    made += run.finish() if ending == "finish" else run.fail("x")
    assert sorted(one.data for one in made) == sorted(encoded)
    assert sorted(kinds(made)) == sorted(checked)
    assert [msgspec.json.decode(one.data) for one in made] == [one.event for one in made]


@pytest.mark.parametrize(
    "refused",
    [
        {"type": "CUSTOM", "name": "x", "value": "\ud83d"},
        {"type": "STEP_STARTED", "stepName": "\ud83d"},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "toolCallName": "\ud83d", "delta": "{}"},
        {"type": "TEXT_MESSAGE_START", "messageId": "streamed", "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "streamed", "delta": "no"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "another", "delta": "no"},
        {"type": "TEXT_MESSAGE_END", "messageId": "streamed"},
        {"type": "RUN_FINISHED", "result": "\ud83d"},
    ],
)
def test_a_refused_event_has_no_effect(refused: dict[str, Any]) -> None:
    """It neither closes the text that streams nor takes a number; the run can go on and end."""
    run = begun()
    chunk = {"type": "TEXT_MESSAGE_CHUNK", "messageId": "streamed", "delta": "half \ud83d"}
    assert len(fed(run, chunk)) == 2
    with pytest.raises(IllegalEvent):
        run.feed(refused)
    made = fed(run, "\ude00") + run.finish()
    assert kinds(made) == ["TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED"]
    assert run.messages[-1]["content"] == "half 😀"
    assert [one.tags["seq"] for one in made] == ["4", "5", "6"]


def test_digests_are_of_the_whole_text() -> None:
    """At a text's end its hash, at the run's end those of all texts, nowhere else one."""
    made = fed(begun(), "a", "é", {"type": "CUSTOM", "name": "x", "value": 1})
    assert made[3].tags["digest"] == digest("aé")
    assert [one for one in made if "digest" in one.tags] == [made[3]]
    run = begun()
    fed(run, "a", {"type": "CUSTOM", "name": "x", "value": 1}, "b")
    assert run.finish()[-1].tags["digest"] == f"id1:{digest('a')} id2:{digest('b')}"
    broken = begun()
    fed(broken, "half")
    assert broken.fail("x")[-1].tags["digest"] == f"id1:{digest('half')}"


def test_r98_an_end_does_not_hold_up_everybody_for_its_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is hashed is what came: no ending of a long text goes through all of it again."""
    hashed: list[int] = []

    def counted(text: str, state: int = 0) -> int:
        hashed.append(len(text))
        return crc32(text, state)

    monkeypatch.setattr("towpath.events.digest.crc32", counted)
    run = begun()
    fed(run, *["word "] * 1_000)
    assert run.finish()[-1].tags["digest"] == f"id1:{digest('word ' * 1_000)}"
    assert max(hashed[:-1]) == len("word ")


def test_a_snapshot_in_a_message_changes_its_digest() -> None:
    """The digest is that of what is shown: the snapshot's text, and what came after it."""
    run = begun()
    start = {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}
    shown = {"id": "m", "role": "assistant", "content": "new"}
    fed(run, start, {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "old"})
    fed(run, {"type": "MESSAGES_SNAPSHOT", "messages": [shown]})
    (ended,) = fed(run, {"type": "TEXT_MESSAGE_END", "messageId": "m"})
    assert ended.tags["digest"] == digest("new")
    assert run.finish()[-1].tags["digest"] == f"m:{digest('new')}"


def test_chunks_become_what_they_stand_for() -> None:
    """Start, content and end come out of chunks; another id or kind begins another item."""
    run = begun()
    made = fed(
        run,
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "role": "assistant", "delta": "a"},
        {"type": "TEXT_MESSAGE_CHUNK", "delta": "b"},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "toolCallName": "f", "delta": "{"},
        {"type": "TOOL_CALL_CHUNK", "delta": "}"},
        {"type": "REASONING_MESSAGE_CHUNK", "messageId": "th", "delta": "hm"},
        {"type": "REASONING_MESSAGE_CHUNK", "messageId": "th2", "delta": "hm"},
    )
    made += run.finish()
    assert kinds(made) == [
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT"),
        *("TEXT_MESSAGE_END", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_ARGS"),
        *("TOOL_CALL_END", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"),
        *("REASONING_MESSAGE_END", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"),
        *("REASONING_MESSAGE_END", "RUN_FINISHED"),
    ]
    assert made[4].event["toolCallName"] == "f"


@pytest.mark.parametrize(
    "chunk",
    [
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "delta": "x"},
        {"type": "TOOL_CALL_CHUNK", "toolCallName": "f", "delta": "x"},
        {"type": "REASONING_MESSAGE_CHUNK", "delta": "x"},
    ],
)
def test_a_first_chunk_says_what_it_begins(chunk: dict[str, Any]) -> None:
    """A chunk that continues nothing and does not say what it is has no effect."""
    run = begun()
    with pytest.raises(IllegalEvent, match="the first one needs"):
        run.feed(chunk)
    assert run.messages == [QUESTION]
    assert kinds(run.finish()) == ["RUN_FINISHED"]


@pytest.mark.parametrize("field", ["threadId", "runId"])
@pytest.mark.parametrize("kind", ["RUN_STARTED", "RUN_FINISHED"])
def test_another_runs_lifecycle_is_refused(field: str, kind: str) -> None:
    """An agent cannot begin or end a run that is not its own."""
    run = begun()
    with pytest.raises(IllegalEvent, match=field):
        run.feed({"type": kind, **IDS, field: "other"})
    assert run.status is Status.RUNNING


def test_an_agents_own_lifecycle_is_absorbed() -> None:
    """Its RUN_STARTED is ours already; its ending is the ending, with its outcome."""
    run = begun()
    assert run.feed({"type": "RUN_STARTED", **IDS}) == []
    assert kinds(fed(run, "a", {"type": "RUN_FINISHED", **IDS}))[-1] == "RUN_FINISHED"
    assert run.status is Status.FINISHED
    failing = begun()
    made = failing.feed({"type": "RUN_ERROR", "message": "no", "code": "c"})
    assert (made[0].event["message"], failing.code, failing.status) == ("no", "c", Status.FAILED)
    asking = begun()
    outcome = {"type": "interrupt", "interrupts": [{"id": "i", "reason": "approve"}]}
    asking.feed({"type": "RUN_FINISHED", **IDS, "outcome": outcome})
    assert asking.status is Status.INTERRUPTED


def test_raw_is_dropped_unless_kept() -> None:
    """RAW events and rawEvent fields go no further, unless a setting keeps them."""
    raw = {"type": "RAW", "event": {"a": 1}}
    custom = {"type": "CUSTOM", "name": "x", "value": 1, "rawEvent": {"a": 1}}
    made = fed(begun(), raw, custom)
    assert [one.event for one in made] == [{"type": "CUSTOM", "name": "x", "value": 1}]
    assert kinds(fed(begun(keep_raw=True), raw, custom)) == ["RAW", "CUSTOM"]


@given(st.text(st.sampled_from("a😀𝄞é"), max_size=8), st.data())
def test_r43_a_pair_that_deltas_split_is_joined(text: str, data: st.DataObject) -> None:
    """However UTF-16 text was cut, what is published is whole characters, and all of them."""
    units = text.encode("utf-16-le")
    halves = [
        units[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2)
    ]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(halves)))))
    ends = [0, *cuts, len(halves)]
    deltas = ["".join(halves[a:b]) for a, b in itertools.pairwise(ends)]
    run = begun()
    assert text_of(fed(run, *deltas)) == text
    named = begun()
    start = {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}
    content = [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": d} for d in deltas]
    made = fed(named, start, *content)
    assert text_of(made) == text
    for one in made:
        str(one.event).encode()


def test_a_half_that_stays_alone_is_replaced() -> None:
    """A half with no other half is a replacement character, never invalid UTF-8."""
    assert text_of(fed(begun(), "\ud83dx", "\udc00y")) == "\ufffdx\ufffdy"


LARGE = "x" * 5_000
TOO_LARGE: list[object] = [
    {"type": "CUSTOM", "name": "n", "value": LARGE},
    {"type": "TOOL_CALL_START", "toolCallId": LARGE, "toolCallName": "f"},
    {"type": "TEXT_MESSAGE_CHUNK", "messageId": LARGE[:2_500], "delta": LARGE},
    {"type": "MESSAGES_SNAPSHOT", "messages": [{"id": "m", "role": "user", "content": LARGE}]},
    {"type": "RUN_FINISHED", "result": LARGE},
    {"type": "RUN_ERROR", "message": LARGE},
    tool_call(LARGE, {}),
]
"""Items of which an event is larger than 4,096 bytes."""


@pytest.mark.parametrize("item", TOO_LARGE, ids=lambda item: str(item)[:40])
def test_p7_an_event_that_is_too_large_has_no_effect(item: object) -> None:
    """It is refused, and the run goes on as if the agent had not yielded it."""
    run, twin = begun(event_bytes=4_096), begun(event_bytes=4_096)
    assert fed(run, "before") == fed(twin, "before")
    with pytest.raises(EventTooLarge) as refused:
        run.feed(item)
    assert refused.value.run_code == "run.too_large"
    after = [one.event for one in (*fed(run, "after"), *run.finish())]
    assert after == [one.event for one in (*fed(twin, "after"), *twin.finish())]


def test_p7_the_last_allowed_byte_of_an_event_passes() -> None:
    """The bound is exact."""
    event = {"type": "CUSTOM", "name": "n", "value": LARGE}
    size = len(msgspec.json.encode(event))
    assert kinds(begun(event_bytes=size).feed(event)) == ["CUSTOM"]
    with pytest.raises(EventTooLarge):
        begun(event_bytes=size - 1).feed(event)


def test_p7_an_error_with_a_large_message_ends_the_run_all_the_same() -> None:
    """The run must end, so the message is replaced."""
    (ended,) = begun(event_bytes=4_096).fail("agent.own", LARGE)
    assert ended.event["code"] == "run.too_large"


@given(
    st.lists(st.text(st.sampled_from("a\x00é😀\ud83d\ude00\n"), max_size=40), max_size=4),
    st.sampled_from(["text", "value", "content", "chunk", "arguments", "thoughts"]),
)
def test_p7_long_text_is_split_and_reads_the_same(texts: list[str], kind: str) -> None:
    """Each event keeps the bound; a reader renders what it renders of a run without a bound."""
    texts = [text * 20 for text in texts]
    items: dict[str, list[object]] = {
        "text": [*texts],
        "value": [message(as_unicode(text)) for text in texts],
        "content": [
            {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
            *({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": text} for text in texts),
            {"type": "TEXT_MESSAGE_END", "messageId": "m"},
        ],
        "chunk": [
            {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "delta": text} for text in texts
        ],
        "arguments": [
            {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "f"},
            *({"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": text} for text in texts),
            {"type": "TOOL_CALL_END", "toolCallId": "c"},
        ],
        "thoughts": [
            {"type": "REASONING_MESSAGE_CHUNK", "messageId": "m", "delta": text} for text in texts
        ],
    }
    split, whole = begun(event_bytes=400), begun()
    made = [*fed(split, *items[kind]), *split.finish()]
    reference = [*fed(whole, *items[kind]), *whole.finish()]
    assert all(len(one.data) <= 400 for one in made)
    assert all(msgspec.json.decode(one.data) == one.event for one in made)
    assert [int(one.tags["seq"]) for one in made] == list(range(2, len(made) + 2))
    assert text_of(made) == text_of(reference)
    assert split.messages == whole.messages
    digests = [one.tags["digest"] for one in made if "digest" in one.tags]
    assert digests == [one.tags["digest"] for one in reference if "digest" in one.tags]
    reloaded = Run(KEY, history=[], new_id=lambda: "new")
    start = {"type": "RUN_STARTED", **IDS, "input": {**IDS, "messages": [QUESTION]}}
    for event in (start, *(one.event for one in made)):
        reloaded.replay(event)
    assert reloaded.messages == whole.messages


@given(threads(runs=1))
def test_a_legal_run_comes_out_as_it_went_in(events: list[dict[str, Any]]) -> None:
    """What a well-behaved agent says is published unchanged, numbered, and legal."""
    run = begun()
    made: list[RunEvent] = []
    for event in events[1:-1]:
        made += run.feed(event)
    assert [one.event for one in made] == events[1:-1]
    made += run.finish()
    assert [int(one.tags["seq"]) for one in made] == list(range(2, len(made) + 2))
    start = {"type": "RUN_STARTED", **IDS, "input": {**IDS, "messages": [QUESTION]}}
    assert errors_of([start, *(one.event for one in made)]) == []


CHUNK = frozenset({"type", "messageId", "delta"})
STEP = frozenset({"type", "stepName"})
FIELDS: dict[str, frozenset[str]] = {
    "TOOL_CALL_START": frozenset({"type", "toolCallId", "toolCallName"}),
    "TEXT_MESSAGE_CHUNK": CHUNK,
    "REASONING_MESSAGE_CHUNK": CHUNK,
    "STEP_STARTED": STEP,
    "STEP_FINISHED": STEP,
}
"""Fields of generated events, where not all may stand."""
ITEMS = st.one_of(
    st.text("ab😀", max_size=3),
    st.sampled_from(["\ud83d", "\ude00"]),
    st.builds(
        lambda kind, key, delta: {
            "type": kind,
            "messageId": key,
            "toolCallId": key,
            "toolCallName": "f",
            "stepName": key,
            "delta": delta,
        },
        st.sampled_from(
            [
                *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"),
                *("TEXT_MESSAGE_CHUNK", "TOOL_CALL_CHUNK", "REASONING_MESSAGE_CHUNK"),
                *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"),
                *("REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END"),
                *("STEP_STARTED", "STEP_FINISHED", "RAW", "CUSTOM", "META_EVENT"),
            ]
        ),
        st.sampled_from(["x", "y"]),
        st.text("ab", max_size=2),
    ).map(lambda event: {k: v for k, v in event.items() if k in FIELDS.get(event["type"], event)}),
    st.sampled_from(
        [
            {"type": "RUN_STARTED", **IDS},
            {"type": "RUN_FINISHED", **IDS},
            {"type": "RUN_FINISHED", "threadId": "t", "runId": "foreign"},
            {"type": "RUN_ERROR", "message": "own"},
            {"type": "MESSAGES_SNAPSHOT", "messages": []},
            {"type": "STATE_SNAPSHOT", "snapshot": {"a": 1}},
            {"type": "STATE_DELTA", "delta": [{"op": "remove", "path": "/a"}]},
        ]
    ),
    st.sampled_from([None, 42, object()]),
)


class AnyOrder(RuleBasedStateMachine):
    """A run that is fed and ended in any order by anybody."""

    @initialize()
    def begin(self) -> None:
        ids = itertools.count(1)
        self.twin_of_log = Order()
        self.made: list[RunEvent] = []
        self.endings = 0
        self.run = Run(KEY, history=[], new_id=lambda: f"id{next(ids)}")
        self.take(self.run.begin({"messages": [QUESTION]}))

    def take(self, made: list[RunEvent]) -> None:
        for one in made:
            self.twin_of_log.check(one.event)
            self.twin_of_log.advance(one.event)
        self.made += made

    @rule(item=ITEMS)
    def feed(self, item: object) -> None:
        over = self.run.status in OVER
        try:
            self.take(self.run.feed(item))
        except IllegalEvent:
            assert not over
        except RunIsOver:
            assert over

    @rule(how=st.sampled_from([Run.finish, Run.cancel, Run.lose, lambda run: run.fail("x")]))
    def end(self, how: Any) -> None:
        over = self.run.status in OVER
        made = how(self.run)
        assert bool(made) != over
        self.take(made)

    @invariant()
    def one_ending_and_it_is_last(self) -> None:
        if not hasattr(self, "run"):
            return
        terminal = [one.event["type"] in TERMINAL for one in self.made]
        over = self.run.status in OVER
        assert terminal.count(True) == int(over)
        assert terminal[-1] == over == self.run.over

    @invariant()
    def numbered_and_true(self) -> None:
        if not hasattr(self, "run"):
            return
        if self.run.over:
            assert [one.tags["seq"] for one in self.made] == [
                str(n) for n in range(1, len(self.made) + 1)
            ]
            events = [one.event for one in self.made]
            shown = screen(events)
            closed = self.run.closed(0.0, expires=9.0)
            assert closed.messages is not None
            snapshot = {"type": "MESSAGES_SNAPSHOT", "messages": closed.messages}
            state = [{"type": "STATE_SNAPSHOT", "snapshot": closed.state}]
            assert screen([snapshot, *(state if closed.state is not None else [])]) == shown
            texts = {one["id"]: one.get("content", "") for one in closed.messages}
            pairs = [pair.split(":") for pair in self.made[-1].tags["digest"].split()]
            assert all(digest(texts[key]) == value for key, value in pairs)


def test_p5_r88_ends_in_any_order_leave_one() -> None:
    """Fed, finished, cancelled, failed and lost in any order, a run has one ending, and it is last.

    Its numbers have no gap, its digests are those of its texts, and what it says it became is what
    its events show.
    """
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=150, deadline=None))


def test_a_lost_run_is_read_back_from_its_log() -> None:
    """Replayed, a run knows what was open, counts on, and ends once."""
    run = begun()
    log = [{"type": "RUN_STARTED", **IDS, "input": {**IDS, "messages": [QUESTION]}}]
    log += [one.event for one in fed(run, "half")]
    again = Run(KEY, history=[], new_id=lambda: "x")
    for event in log:
        again.replay(event)
    assert not again.over
    (made,) = again.lose()
    assert made.tags["seq"] == str(len(log) + 1)
    assert made.tags["digest"] == f"id1:{digest('half')}"
    assert again.messages[-1]["content"] == "half"


def test_a_sub_agents_chunks_stay_its_own() -> None:
    """A message that a sub-agent streams in chunks is its message, on a legal stream."""
    run = begun()
    started = {"type": "SUBAGENT_STARTED", "subagentRunId": "s", "name": "x"}
    chunk = {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "delta": "a", "subagentRunId": "s"}
    made = fed(run, started, chunk) + run.finish()
    start = {"type": "RUN_STARTED", **IDS}
    assert errors_of([start, *(one.event for one in made)]) == []
    assert run.messages[-1]["subagentRunId"] == "s"


def test_older_agents_thoughts_are_messages_of_their_own() -> None:
    """Each time an older agent begins to think, in whichever run, it is a new thought."""
    ids = (f"id-{number}" for number in range(100))
    key = RunKey(tenant="acme", user="alice", thread="t1", run="r1", agent="old")
    run = Run(key, history=[], new_id=lambda: next(ids))
    run.begin({"messages": []})
    for text in ("one", "two"):
        for item in (
            {"type": "THINKING_START"},
            {"type": "THINKING_TEXT_MESSAGE_START"},
            {"type": "THINKING_TEXT_MESSAGE_CONTENT", "delta": text},
            {"type": "THINKING_TEXT_MESSAGE_END"},
            {"type": "THINKING_END"},
        ):
            run.feed(item)
    run.finish()
    assert [message["content"] for message in run.messages] == ["one", "two"]


def test_a_text_cannot_stream_into_a_thought() -> None:
    """A message id names one message: text under the id of a thought is refused, with no effect."""
    key = RunKey(tenant="acme", user="alice", thread="t1", run="r1", agent="odd")
    run = Run(key, history=[], new_id=lambda: "new")
    run.begin({"messages": []})
    run.feed({"type": "REASONING_MESSAGE_START", "messageId": "m", "role": "reasoning"})
    run.feed({"type": "REASONING_MESSAGE_END", "messageId": "m"})
    with pytest.raises(IllegalEvent, match="another kind"):
        run.feed({"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"})
    assert [message["role"] for message in run.messages] == ["reasoning"]
