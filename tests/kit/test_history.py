"""The verdict on a history: a legal one has no violation, and whatever may be wrong is named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.kit.history import (
    Decided,
    Given,
    History,
    Joined,
    Kind,
    Log,
    Reading,
    RunState,
    StartRequest,
    Stopped,
)
from tests.kit.verdict import check
from towpath.events.fold import Fold, merge_deltas
from towpath.runs.encoding import RunEvent
from towpath.runs.model import RunKey
from towpath.runs.run import Run

EPOCH = "e"
CALL = [
    {"type": "TOOL_CALL_START", "toolCallId": "call", "toolCallName": "look"},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "call", "delta": '{"a"'},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "call", "delta": ": 1}"},
    {"type": "TOOL_CALL_END", "toolCallId": "call"},
    {"type": "TOOL_CALL_RESULT", "messageId": "result", "toolCallId": "call", "content": "one"},
]
BOTH = [
    {"type": "TEXT_MESSAGE_START", "messageId": "left", "role": "assistant"},
    {"type": "TEXT_MESSAGE_START", "messageId": "right", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "left", "delta": "to "},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "right", "delta": "fro "},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "left", "delta": "left"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "right", "delta": "right"},
    {"type": "TEXT_MESSAGE_END", "messageId": "left"},
    {"type": "TEXT_MESSAGE_END", "messageId": "right"},
]
"""Two messages at once, whose deltas may pass each other."""


@dataclass(frozen=True)
class Plan:
    """One run: what its agent yields, and how it ends."""

    says: tuple[str, ...]
    calls: bool
    both: bool
    ending: str


PLANS = st.builds(
    Plan,
    says=st.lists(st.text("ab 🚣", min_size=1, max_size=3), max_size=5).map(tuple),
    calls=st.booleans(),
    both=st.booleans(),
    ending=st.sampled_from(("finish", "cancel", "lose", "fail")),
)


def make_run(
    owner: str, thread: str, name: str, plan: Plan, past: Fold
) -> tuple[list[RunEvent], Run]:
    """Return all that a run makes, and the run."""
    ids = (f"{name}-{number}" for number in range(100))
    key = RunKey(tenant="t", user=owner, thread=thread, run=name, agent="agent")
    run = Run(key, history=past.messages, state=past.state, new_id=lambda: next(ids))
    said = {"id": f"{name}-said", "role": "user", "content": f"ask {name}"}
    made = run.begin({"messages": [said]})
    for item in (*plan.says, *(CALL if plan.calls else ()), *(BOTH if plan.both else ())):
        if isinstance(item, dict):
            names = {k: f"{name}-{v}" for k, v in item.items() if k in ("messageId", "toolCallId")}
            item = {**item, **names}
        made += run.feed(item)
    match plan.ending:
        case "fail":
            made += run.fail("run.failed")
        case "finish" | "cancel" | "lose":
            made += getattr(run, plan.ending)()
    return made, run


@st.composite
def logs(
    draw: st.DrawFn, owner: str, thread: str
) -> tuple[Log, list[RunState], list[StartRequest]]:
    """Draw a thread's log, the states of its runs and how they were asked for."""
    fold, states, request = Fold([]), [], []
    publications: list[Given] = []
    channel = f"thread:{thread}"
    for number, plan in enumerate(draw(st.lists(PLANS, min_size=1, max_size=3))):
        name = f"{thread}-run{number}"
        made, run = make_run(owner, thread, name, plan, fold)
        for event, tags, _ in made:
            fold.feed(event)
            publications.append(Given(event=event, offset=len(publications) + 1, tags=tags))
        states.append(RunState(owner=owner, run=name, status=run.status.value, code=run.code))
        request.append(StartRequest(owner=owner, channel=channel, message=f"ask {name}", run=name))
    log = Log(
        owner=owner,
        channel=channel,
        epoch=EPOCH,
        publications=publications,
        messages=fold.messages,
    )
    return log, states, request


def merged(publications: Sequence[Given], *, live: bool) -> list[Given]:
    """Return publications with deltas joined, as a slow reader or one that comes back gets them."""
    found = []
    for event, items in merge_deltas((dict(one.event), one) for one in publications):
        first, last = items[0], items[-1]
        tags = dict(last.tags)
        if first is not last:
            tags["from"] = first.tags["seq"]
        found.append(Given(event=event, offset=last.offset if live else 0, tags=tags))
    if found and not live:
        found[-1] = replace(found[-1], offset=publications[-1].offset)
    return found


@st.composite
def readings(draw: st.DrawFn, log: Log, reader: str) -> Reading:
    """Draw how somebody read a log: joined anywhere, was cut off at times, and came back."""
    top = len(log.publications)
    places = sorted(draw(st.lists(st.integers(0, top), min_size=1, max_size=6)))
    places = [*places, *([top] if len(places) % 2 else []), top]
    received: list[Joined | Given] = []
    position = None
    for joins, leaves in zip(places[::2], places[1::2], strict=False):
        recovered = position is not None or draw(st.booleans())
        received.append(Joined(recovered=recovered, epoch=EPOCH, offset=joins))
        if position is None:
            fold = Fold([])
            for one in log.publications[:joins]:
                fold.feed(dict(one.event))
            snapshot = fold.snapshot(max_bytes=None) if joins else []
            received += [Given(event=event) for event in snapshot]
        else:
            received += merged(log.publications[position:joins], live=False)
        received += log.publications[joins:leaves]
        position = leaves
    if position is not None and position < top:
        received.append(Joined(recovered=True, epoch=EPOCH, offset=top))
        received += merged(log.publications[position:], live=False)
    return Reading(reader=reader, owner=log.owner, channel=log.channel, received=tuple(received))


def notices(owner: str) -> tuple[Log, Reading]:
    """Return a person's own channel and somebody who read it, with a cut in the middle."""
    given = [
        Given(event={"type": "CUSTOM", "name": "n", "value": number}, offset=number)
        for number in range(1, 5)
    ]
    received: tuple[Joined | Given, ...] = (
        Joined(recovered=False, epoch=EPOCH, offset=1),
        given[1],
        Joined(recovered=True, epoch=EPOCH, offset=3),
        *given[2:],
    )
    log = Log(owner=owner, channel="user", epoch=EPOCH, publications=given)
    return log, Reading(reader="device", owner=owner, channel="user", received=received)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Draw a history in which everything is as it should be."""
    one, states, request = draw(logs("alice", "a"))
    other, more, also = draw(logs("bob", "b"))
    own, received = notices("alice")
    return History(
        logs=[one, other, own],
        readings=[draw(readings(one, "first")), draw(readings(other, "second")), received],
        runs=states + more,
        starts=request + also,
        stopped=[
            Stopped(owner=state.owner, run=state.run, status="accepted")
            for state in states
            if state.status == "cancelled"
        ],
    )


def kinds(history: History) -> set[Kind]:
    """Return what is wrong with a history."""
    return {one.kind for one in check(history)}


def tagged(history: History) -> list[int]:
    """Return where in the first reading's told there are publications of the log."""
    received = history.readings[0].received
    return [at for at, one in enumerate(received) if isinstance(one, Given) and one.tags]


def joins(received: Sequence[Joined | Given]) -> list[tuple[int, Joined]]:
    """Return the subscriptions, and where they are."""
    return [(at, one) for at, one in enumerate(received) if isinstance(one, Joined)]


def retold(history: History, received: Sequence[Joined | Given]) -> History:
    """Return the history with something else told to its first reader."""
    first = replace(history.readings[0], received=tuple(received))
    return replace(history, readings=[first, *history.readings[1:]])


def relogged(history: History, publications: Sequence[Given], **changes: Any) -> History:
    """Return the history with another first log, its offsets counted anew."""
    counted = [replace(one, offset=at) for at, one in enumerate(publications, 1)]
    log = replace(history.logs[0], publications=counted, **changes)
    return replace(history, logs=[log, *history.logs[1:]])


@given(histories())
def test_a_legal_history_has_no_violation(history: History) -> None:
    """Whatever was said, cut off, merged and recovered: nothing is found where nothing is wrong."""
    assert [str(one) for one in check(history)] == []


@given(histories(), st.data())
def test_p3_a_publication_that_was_dropped_is_a_gap(history: History, data: st.DataObject) -> None:
    """Whichever a reader was not given, it is missed."""
    assume(places := tagged(history))
    received = list(history.readings[0].received)
    del received[data.draw(st.sampled_from(places))]
    assert Kind.GAP in kinds(retold(history, received))


@given(histories(), st.data())
def test_p3_a_publication_that_came_twice_is_a_duplicate(
    history: History, data: st.DataObject
) -> None:
    """Whichever came again, at once or later, it is noticed."""
    assume(places := tagged(history))
    received = list(history.readings[0].received)
    place = data.draw(st.sampled_from(places))
    received.insert(
        data.draw(st.sampled_from([one for one in places if one >= place])) + 1, received[place]
    )
    assert Kind.DUPLICATE in kinds(retold(history, received))


@given(histories(), st.data())
def test_p2_publications_that_changed_places_are_out_of_order(
    history: History, data: st.DataObject
) -> None:
    """Two neighbours the other way round are an offset that falls, or a gap and a late comer."""
    received = list(history.readings[0].received)
    pairs = [at for at in tagged(history) if at + 1 in tagged(history)]
    pairs = [at for at in pairs if not _may_pass(received[at], received[at + 1])]
    assume(pairs)
    at = data.draw(st.sampled_from(pairs))
    received[at : at + 2] = received[at + 1], received[at]
    assert kinds(retold(history, received)) & {Kind.ORDER, Kind.GAP}


def _may_pass(one: Any, other: Any) -> bool:
    """Whether two neighbours are deltas of different items in an answer, which nobody can tell."""
    deltas = "delta" in one.event and "delta" in other.event
    return deltas and not one.offset and not other.offset


@given(histories(), st.data())
def test_p1_a_publication_of_another_person_is_foreign(
    history: History, data: st.DataObject
) -> None:
    """Whatever of somebody else's thread is given, wherever, it is noticed."""
    received = list(history.readings[0].received)
    received.insert(
        data.draw(st.integers(1, len(received))),
        data.draw(st.sampled_from(list(history.logs[1].publications))),
    )
    assert Kind.FOREIGN in kinds(retold(history, received))


@given(histories(), st.data())
def test_p4_what_somebody_saw_and_the_log_lost_is_a_loss(
    history: History, data: st.DataObject
) -> None:
    """A log that ends before what a reader was given has lost something."""
    publications = history.logs[0].publications
    left = data.draw(st.integers(0, len(publications) - 1))
    assert Kind.LOSS in kinds(relogged(history, publications[:left]))


@given(histories(), st.data())
def test_p5_a_second_ending_is_noticed(history: History, data: st.DataObject) -> None:
    """A run that ends again, with the same ending or another, has two."""
    publications = list(history.logs[0].publications)
    last = publications[-1]
    again = {**last.tags, "seq": str(int(last.tags["seq"]) + 1)}
    publications.append(replace(last, tags=again))
    assert Kind.ENDING in kinds(relogged(history, publications))


@given(histories())
def test_p5_a_run_that_never_ends_is_noticed(history: History) -> None:
    """A run without a terminal event is open for ever."""
    assert Kind.ENDING in kinds(relogged(history, history.logs[0].publications[:-1]))


@given(histories(), st.data())
def test_p5_a_status_that_the_log_contradicts_is_noticed(
    history: History, data: st.DataObject
) -> None:
    """`run.get` says what the terminal event says."""
    index = data.draw(st.integers(0, len(history.runs) - 1))
    status = data.draw(st.sampled_from(("running", "pending", "finished", "lost", "cancelled")))
    runs = list(history.runs)
    assume(runs[index].status != status)
    runs[index] = replace(runs[index], status=status)
    assert Kind.ENDING in kinds(replace(history, runs=runs, stopped=[]))


@given(histories(), st.data())
def test_p3_a_text_that_was_altered_is_noticed(history: History, data: st.DataObject) -> None:
    """One character more in any delta, merged or in a prelude, is another text."""
    received = list(history.readings[0].received)
    places = [
        at for at, one in enumerate(received) if isinstance(one, Given) and "delta" in one.event
    ]
    assume(places)
    at = data.draw(st.sampled_from(places))
    one = received[at]
    assert isinstance(one, Given)
    received[at] = replace(one, event={**one.event, "delta": f"{one.event['delta']}!"})
    assert Kind.TEXT in kinds(retold(history, received))


@given(histories())
def test_a_digest_of_another_text_is_noticed(history: History) -> None:
    """What a digest vouches for is what the log says and what the reader shows."""
    publications = [
        replace(one, tags={**one.tags, "digest": "00000000"})
        if one.event["type"] == "TEXT_MESSAGE_END"
        else one
        for one in history.logs[0].publications
    ]
    assume(publications != list(history.logs[0].publications))
    assert Kind.DIGEST in kinds(relogged(history, publications))


@given(histories(), st.data())
def test_r78_another_epoch_after_a_mere_kill_is_noticed(
    history: History, data: st.DataObject
) -> None:
    """An answer in another epoch than the log's says that something was lost."""
    received = list(history.readings[0].received)
    at, joined = data.draw(st.sampled_from(joins(received)))
    received[at] = replace(joined, epoch="another")
    assert Kind.EPOCH in kinds(retold(history, received))


@given(histories(), st.data())
def test_p3_a_position_that_was_not_recovered_is_noticed(
    history: History, data: st.DataObject
) -> None:
    """Nobody is told to start over while the log holds what they missed."""
    received = list(history.readings[0].received)
    assume(later := joins(received)[1:])
    at, joined = data.draw(st.sampled_from(later))
    received[at] = replace(joined, recovered=False)
    assert Kind.POSITION in kinds(retold(history, received))


@given(histories())
def test_p3_a_reader_that_stays_behind_is_noticed(history: History) -> None:
    """Whoever was subscribed to the end has everything, and nobody else has to."""
    cut: list[Joined | Given] = [Joined(recovered=False, epoch=EPOCH, offset=0)]
    cut.append(history.logs[0].publications[0])
    behind = retold(history, cut)
    assert kinds(behind) == {Kind.GAP}
    gone = replace(behind.readings[0], whole=False)
    assert kinds(replace(behind, readings=[gone, *behind.readings[1:]])) == set()
    assert kinds(retold(history, [])) == {Kind.GAP}


def _without_run(history: History) -> History:
    return replace(history, runs=history.runs[1:], stopped=[])


def _asked(history: History, **changes: Any) -> History:
    return replace(history, starts=[replace(history.starts[0], **changes), *history.starts[1:]])


def _asked_once_too_often(history: History) -> History:
    log = history.logs[0]
    (first, *_), twin = log.publications, "twin"
    begun = {**first.event, "runId": twin}
    ended = {"type": "RUN_ERROR", "code": "run.lost", "message": "lost"}
    tags = {**first.tags, "run": twin}
    more = [Given(event=begun, tags=tags), Given(event=ended, tags={**tags, "seq": "2"})]
    return relogged(history, [*log.publications, *more])


def _stopped_in_vain(history: History) -> History:
    run = RunState(owner="alice", run=history.runs[0].run, status="finished")
    stop = Stopped(owner="alice", run=run.run, status="accepted")
    return replace(history, runs=[run, *history.runs[1:]], stopped=[stop])


def _decided(standing: str, continuation: str | None) -> Callable[[History], History]:
    def change(history: History) -> History:
        run = replace(history.runs[0], answers={"i": standing})
        said = Decided(
            owner="alice",
            run=run.run,
            interrupt="i",
            decision="approve",
            status="accepted",
            continuation=continuation,
        )
        return replace(history, runs=[run, *history.runs[1:]], decided=[said])

    return change


def _notice_lost(history: History) -> History:
    received = list(history.readings[2].received)
    del received[1]
    last = replace(history.readings[2], received=tuple(received))
    return replace(history, readings=[*history.readings[:2], last])


def _tagged_anew(**tags: str) -> Callable[[History], History]:
    def change(history: History) -> History:
        publications = list(history.logs[0].publications)
        second = publications[1]
        publications[1] = replace(second, tags={**second.tags, **tags})
        return relogged(history, publications)

    return change


def _with_a_hole(history: History) -> History:
    log = replace(history.logs[0], publications=history.logs[0].publications[1:])
    return replace(history, logs=[log, *history.logs[1:]])


def _begun_inside(history: History) -> History:
    publications = history.logs[0].publications
    return relogged(history, [publications[0], publications[0], *publications[1:]])


def _continued_twice(history: History) -> History:
    def continued(log: Log) -> Log:
        first = log.publications[0]
        parent = {**first.event, "parentRunId": "asked"}
        return replace(log, publications=[replace(first, event=parent), *log.publications[1:]])

    return replace(history, logs=[*map(continued, history.logs[:2]), *history.logs[2:]])


def _content_of_nothing(history: History) -> History:
    first, *rest = history.logs[0].publications
    stray = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "nothing", "delta": "stray"}
    return relogged(history, [first, replace(first, event=stray), *rest])


@settings(max_examples=20)
@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (_with_a_hole, Kind.GAP, "offset 1 is 2"),
        (_tagged_anew(thread="b"), Kind.FOREIGN, "offset 2 is of thread b"),
        (_tagged_anew(run="b-run0"), Kind.FOREIGN, "it is in 2 threads"),
        (_tagged_anew(seq="7"), Kind.ORDER, "it is numbered"),
        (_begun_inside, Kind.ORDER, "is active"),
        (_content_of_nothing, Kind.ORDER, "which nothing began"),
        (_continued_twice, Kind.TWICE, "2 runs continue it"),
    ],
    ids=lambda value: value.value if isinstance(value, Kind) else None,
)
@given(history=histories())
def test_a_log_that_breaks_its_own_rules_is_noticed(
    history: History, change: Callable[[History], History], kind: Kind, sentence: str
) -> None:
    """The log is the truth about what happened, as far as it keeps its own order."""
    found = check(replace(change(history), readings=[]))
    assert any(one.kind is kind and sentence in one.sentence for one in found)


@settings(max_examples=20)
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_without_run, Kind.LOSS),
        (lambda one: _asked(one, run="never-begun"), Kind.LOSS),
        (lambda one: _asked(one, run=one.runs[-1].run, owner="alice"), Kind.LOSS),
        (lambda one: _asked(one, run=None, refused=True), Kind.ANSWER),
        (_asked_once_too_often, Kind.TWICE),
        (_stopped_in_vain, Kind.ANSWER),
        (_decided("expired", None), Kind.ANSWER),
        (_decided("approved", "nobody-knows-it"), Kind.LOSS),
        (_notice_lost, Kind.GAP),
        (lambda one: relogged(one, one.logs[0].publications, messages=[]), Kind.TEXT),
        (lambda one: replace(one, logs=one.logs[1:]), Kind.LOSS),
    ],
    ids=lambda value: value.value if isinstance(value, Kind) else None,
)
@given(history=histories())
def test_p8_an_answer_that_is_not_so_is_noticed(
    history: History, change: Callable[[History], History], kind: Kind
) -> None:
    """What was acknowledged is there, once, and what was refused is not."""
    assert kind in kinds(change(history))
