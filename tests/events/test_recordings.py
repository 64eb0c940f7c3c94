"""What real frameworks send is taken whole, and shows the same from every cut."""

import copy
import itertools
from typing import Any

import pytest

from tests.events.client import Event, errors_of, screen
from tests.kit.recordings import read, told_in
from tests.recordings import FOLDER, NAMES
from towpath.agents.agent import AgentInput
from towpath.events.fold import Fold, merge_deltas
from towpath.events.order import Order
from towpath.events.types import DELTAS
from towpath.identity import Principal, UserExecutionContext
from towpath.runs.model import RunKey, Status
from towpath.runs.run import Run

ALICE = Principal(tenant="acme", user="alice")
INTERRUPTED = "langgraph-interrupt"


class Told:
    """A thread in which runs are told again, as the gateway would publish it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.messages: list[dict[str, Any]] = []
        self.state: Any = None
        self._ids = itertools.count()

    def emit(self, name: str) -> Run:
        """Tell a recording once more, and return its run."""
        key = RunKey(tenant="acme", user="alice", thread="t", run=f"r{next(self._ids)}", agent=name)
        run = Run(
            key, history=self.messages, state=self.state, new_id=lambda: f"n{next(self._ids)}"
        )
        said = {"id": f"{key.run}-said", "role": "user", "content": "again"}
        self._take(run.begin({"messages": [said]}))
        asked = AgentInput(
            context=UserExecutionContext.of(ALICE, thread="t", run=key.run),
            message="again",
            messages=copy.deepcopy(run.messages),
        )
        for one in read(FOLDER / f"{name}.jsonl"):
            self._take(run.feed(told_in(asked, one.event)))
        self.messages, self.state = copy.deepcopy((run.messages, run.state))
        return run

    def _take(self, made: list[Any]) -> None:
        self.events += [copy.deepcopy(one.event) for one in made]


@pytest.fixture(scope="module", params=NAMES)
def thread(request: pytest.FixtureRequest) -> list[Event]:
    """A recording told twice in one thread."""
    told = Told()
    for _ in range(2):
        told.emit(request.param)
    return told.events


def test_there_are_recordings() -> None:
    """Of three frameworks and of the agent that comes with the gateway."""
    assert len({name.partition("-")[0] for name in NAMES}) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_nothing_a_framework_sends_is_refused(name: str) -> None:
    """Its text, its calls and its results all arrive, and its ending is the run's."""
    told = Told()
    run = told.emit(name)
    sent = [one.event for one in read(FOLDER / f"{name}.jsonl")]
    assert run.status is (Status.INTERRUPTED if name == INTERRUPTED else Status.FINISHED)
    for kind in (*DELTAS, "TOOL_CALL_START", "TOOL_CALL_RESULT", "STATE_SNAPSHOT", "STATE_DELTA"):
        came, went = ([one for one in some if one["type"] == kind] for some in (sent, told.events))
        assert len(went) == len(came), kind
        assert [one.get("delta") for one in went] == [one.get("delta") for one in came], kind
    assert errors_of(told.events) == []


def test_r73_r74_every_cut_of_a_recording_renders_like_the_uncut_run(thread: list[Event]) -> None:
    """Prelude and tail show the same messages in the same order and the same state."""
    uncut = screen(thread)
    fold = Fold()
    for cut, event in enumerate(thread, 1):
        fold.feed(copy.deepcopy(event))
        assert screen([*fold.snapshot(), *thread[cut:]]) == uncut, cut


def test_r75_every_cut_of_a_recording_is_a_legal_stream(thread: list[Event]) -> None:
    """Prelude and tail pass our own order from a fresh start, and AG-UI's validator."""
    fold = Fold()
    for cut, event in enumerate(thread, 1):
        fold.feed(copy.deepcopy(event))
        stream = [*fold.snapshot(), *thread[cut:]]
        order = Order()
        for one in stream:
            order.check(one)
            order.advance(one)
        assert errors_of(stream) == [], cut


def test_r73_tails_of_a_recording_show_the_same_joined(thread: list[Event]) -> None:
    """From every cut, deltas that come joined make the same screen."""
    uncut = screen(thread)
    for cut in range(0, len(thread), 3):
        marked = [(copy.deepcopy(event), None) for event in thread[cut:]]
        joined = [event for event, _ in merge_deltas(marked)]
        assert screen([*thread[:cut], *joined]) == uncut, cut
