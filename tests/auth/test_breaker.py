"""The breaker counts failures of a dependency, probes once, and ignores outdated results."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.auth.stage import Clock
from towpath.auth import breaker as room
from towpath.auth.breaker import (
    PROBE_SECONDS,
    TRANSITIONS,
    BreakerOpen,
    CircuitBreaker,
    Permit,
    State,
    Transition,
)

THRESHOLD, RESET = 3, 15.0


class Watched:
    """A breaker, its clock, and the changes of state it reported."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.moves: list[tuple[State, State]] = []
        self.breaker = CircuitBreaker(
            "keys", failure_threshold=THRESHOLD, reset_timeout=RESET, clock=self.clock, watch=self
        )

    def __call__(self, name: str, before: State, after: State) -> None:
        assert name == "keys"
        self.moves.append((before, after))

    def state(self) -> State:
        return self.breaker.state

    def succeed(self) -> None:
        with self.breaker.admit():
            pass

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            with self.breaker.admit() as permit:
                permit.failed()

    def abandon(self) -> None:
        with contextlib.suppress(asyncio.CancelledError), self.breaker.admit():
            raise asyncio.CancelledError

    def fail_elsewhere(self) -> None:
        self.breaker.record_failure()

    def trip(self) -> None:
        self.fail(THRESHOLD)

    def trip_elsewhere(self) -> None:
        self.fail(THRESHOLD - 1)
        self.fail_elsewhere()

    def probe(self) -> None:
        self.breaker.admit()

    def opened(self) -> "Watched":
        self.trip()
        return self

    def refused(self) -> float:
        """Return the `retry_after` of a refused call."""
        with pytest.raises(BreakerOpen) as refused:
            self.breaker.admit()
        assert refused.value.name == "keys"
        return refused.value.retry_after


@pytest.fixture
def watched() -> Watched:
    return Watched()


# The table.


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[State, Transition]]]:
    """All transitions that any breaker makes or tries to make."""
    moves: list[tuple[State, Transition]] = []

    class Recorded(dict[tuple[State, Transition], State]):
        def __getitem__(self, move: tuple[State, Transition]) -> State:
            moves.append(move)
            return super().__getitem__(move)

    monkeypatch.setattr(room, "TRANSITIONS", Recorded(TRANSITIONS))
    yield moves
    assert set(moves) <= TRANSITIONS.keys()


ROWS: dict[tuple[State, Transition], list[Callable[[Watched], None]]] = {
    (State.CLOSED, Transition.SUCCEED): [Watched.succeed],
    (State.CLOSED, Transition.FAIL): [Watched.fail, Watched.fail_elsewhere],
    (State.CLOSED, Transition.ABANDON): [Watched.abandon],
    (State.CLOSED, Transition.TRIP): [Watched.trip, Watched.trip_elsewhere],
    (State.OPEN, Transition.PROBE): [Watched.probe],
    (State.HALF_OPEN, Transition.SUCCEED): [Watched.succeed],
    (State.HALF_OPEN, Transition.FAIL): [Watched.fail],
    (State.HALF_OPEN, Transition.ABANDON): [Watched.abandon],
}


def test_r24_the_tests_below_know_every_move() -> None:
    """A new row of the table needs a test."""
    assert ROWS.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize(("row", "deed"), [(row, deed) for row in ROWS for deed in ROWS[row]])
def test_r24_every_move_of_the_table_is_made(
    row: tuple[State, Transition],
    deed: Callable[[Watched], None],
    watched: Watched,
    made: list[tuple[State, Transition]],
) -> None:
    """Each row is reachable, ends in the state of the table, and is reported as a change."""
    if row[0] is not State.CLOSED:
        watched.opened()
        watched.clock.now += RESET
    before = len(watched.moves)
    deed(watched)
    assert made[-1] == row
    assert watched.state() is TRANSITIONS[row]
    entered = [TRANSITIONS[move] for move in made if TRANSITIONS[move] is not move[0]]
    assert [after for _, after in watched.moves] == entered
    if row in {(State.CLOSED, Transition.SUCCEED), (State.CLOSED, Transition.FAIL)}:
        assert len(watched.moves) == before


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("deed", [Watched.succeed, Watched.fail, Watched.abandon])
def test_r25_nothing_anybody_does_makes_a_move_that_is_not_in_the_table(
    state: State, deed: Callable[[Watched], None], watched: Watched, made: list[Any]
) -> None:
    """A transition without a row is never tried: also with late results and outside failures."""
    late = [watched.breaker.admit() for _ in range(3)]
    if state is not State.CLOSED:
        watched.opened()
    if state is State.HALF_OPEN:
        watched.clock.now += RESET
        late.append(watched.breaker.admit())
    assert watched.state() is state
    watched.breaker.record_failure()
    with contextlib.suppress(BreakerOpen):
        deed(watched)
    for permit in late:
        permit.failed()
        with permit:
            pass
    with contextlib.suppress(BreakerOpen):
        deed(watched)
    assert made


# What it counts.


def test_r23_three_failed_calls_in_a_row_open_it(watched: Watched) -> None:
    """Not two, and not three with a success between them."""
    watched.fail(2)
    watched.succeed()
    assert watched.breaker.failure_count == 0
    watched.fail(2)
    assert watched.state() is State.CLOSED
    watched.fail()
    assert watched.state() is State.OPEN
    assert watched.moves == [(State.CLOSED, State.OPEN)]


def test_the_defaults_are_those_of_the_documentation() -> None:
    """Three failures, fifteen seconds, a monotonic clock."""
    made = CircuitBreaker("keys")
    assert (made.failure_threshold, made.reset_timeout) == (3, 15.0)
    assert (made.state, made.failure_count, made.last_failure_time) == (State.CLOSED, 0, None)
    assert made.retry_after == 0


def test_r23_what_nobody_called_a_failure_is_none(watched: Watched) -> None:
    """A cancelled call, or a bug of ours, says nothing about the dependency."""
    watched.fail(2)
    for error in (asyncio.CancelledError, KeyError, KeyboardInterrupt):
        with contextlib.suppress(error), watched.breaker.admit():
            raise error
    assert (watched.state(), watched.breaker.failure_count) == (State.CLOSED, 2)


def test_a_failure_counts_though_an_exception_follows(watched: Watched) -> None:
    """The usual case: the caller reports the failure and raises."""
    for _ in range(THRESHOLD):
        with contextlib.suppress(OSError), watched.breaker.admit() as permit:
            permit.failed()
            raise OSError
    assert watched.state() is State.OPEN


def test_a_failure_of_a_call_made_elsewhere_counts_while_closed(watched: Watched) -> None:
    """In open or half-open it changes nothing: only the result of the probe does."""
    watched.fail(2)
    watched.breaker.record_failure()
    assert watched.state() is State.OPEN
    watched.breaker.record_failure()
    assert watched.breaker.failure_count == 3
    watched.clock.now += RESET
    watched.breaker.admit()
    watched.breaker.record_failure()
    assert (watched.state(), watched.breaker.failure_count) == (State.HALF_OPEN, 3)


def test_the_last_failure_is_on_the_breakers_clock(watched: Watched) -> None:
    """Successes do not change it."""
    watched.clock.now = 50.0
    watched.fail()
    watched.clock.now = 60.0
    watched.succeed()
    assert watched.breaker.last_failure_time == 50.0


# Open.


def test_r26_open_refuses_at_once_and_says_for_how_long(watched: Watched) -> None:
    """Until reset_timeout has passed every call is refused; then one is allowed."""
    watched.opened()
    assert watched.refused() == RESET
    watched.clock.now += 14.0
    assert watched.refused() == watched.breaker.retry_after == 1.0
    watched.clock.now += 0.999
    assert watched.refused() == pytest.approx(0.001)
    watched.clock.now = 1000.0 + RESET
    assert watched.breaker.retry_after == 0
    watched.breaker.admit()
    assert watched.state() is State.HALF_OPEN


def test_r17_the_refusal_names_the_dependency_alone(watched: Watched) -> None:
    """The text that a log shows."""
    watched.opened()
    with pytest.raises(BreakerOpen, match=r"^keys is considered down$"):
        watched.breaker.admit()


def test_r24_exactly_one_probe_is_let_through(watched: Watched) -> None:
    """While the probe is pending, every other call is refused."""
    watched.opened()
    watched.clock.now += RESET
    watched.breaker.admit()
    for wait in (0.0, 1.0, RESET, 3600.0):
        watched.clock.now += wait
        assert watched.refused() == PROBE_SECONDS == watched.breaker.retry_after


def test_r24_the_probes_failure_opens_it_for_a_full_reset_timeout(watched: Watched) -> None:
    """One failure is enough, and reset_timeout counts from it."""
    watched.opened()
    watched.clock.now += RESET
    probe = watched.breaker.admit()
    watched.clock.now += 4.0
    probe.failed()
    with probe:
        pass
    assert watched.breaker.failure_count == THRESHOLD + 1
    assert watched.refused() == RESET
    watched.clock.now += RESET - 0.001
    assert watched.refused() > 0
    watched.clock.now += 0.001
    watched.succeed()
    assert watched.moves[1:] == [
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]


def test_r24_the_probes_success_closes_it_and_starts_the_count_anew(watched: Watched) -> None:
    """After that it takes the whole threshold to open it again."""
    watched.opened()
    watched.clock.now += RESET
    watched.succeed()
    assert (watched.state(), watched.breaker.failure_count) == (State.CLOSED, 0)
    watched.fail(THRESHOLD - 1)
    assert watched.state() is State.CLOSED


def test_r24_an_abandoned_probe_frees_its_place_at_once(watched: Watched) -> None:
    """It proves nothing: the next caller may probe at once, and only one."""
    watched.opened()
    watched.clock.now += RESET
    watched.abandon()
    assert watched.state() is State.OPEN
    assert watched.breaker.retry_after == 0
    assert watched.breaker.failure_count == THRESHOLD
    watched.breaker.admit()
    assert watched.state() is State.HALF_OPEN
    watched.refused()


# Generations.


@pytest.mark.parametrize("failed", [False, True])
def test_r25_what_began_before_the_reset_is_ignored_after_it(
    failed: bool, watched: Watched
) -> None:
    """A slow call of an older generation has no effect in any later state."""
    late = [watched.breaker.admit() for _ in range(3)]

    def ends() -> tuple[State, int]:
        permit = late.pop()
        if failed:
            permit.failed()
        with permit:
            pass
        return watched.state(), watched.breaker.failure_count

    watched.opened()
    assert ends() == (State.OPEN, THRESHOLD)
    watched.clock.now += RESET
    probe = watched.breaker.admit()
    assert ends() == (State.HALF_OPEN, THRESHOLD)
    with probe:
        pass
    watched.fail()
    assert ends() == (State.CLOSED, 1)


def test_r25_an_old_probe_does_not_speak_for_a_new_one(watched: Watched) -> None:
    """Two half-open states are two generations."""
    watched.opened()
    watched.clock.now += RESET
    old = watched.breaker.admit()
    with contextlib.suppress(asyncio.CancelledError), old:
        raise asyncio.CancelledError
    new = watched.breaker.admit()
    with old:
        pass
    assert watched.state() is State.HALF_OPEN
    new.failed()
    with new:
        pass
    assert watched.state() is State.OPEN


# Many at once.


async def test_r24_fifty_callers_in_half_open_reach_the_dependency_once() -> None:
    """One calls, 49 are refused, and after its success all are allowed."""
    watched = Watched().opened()
    watched.clock.now += RESET
    answer, calls = asyncio.Event(), 0

    async def call() -> str:
        nonlocal calls
        try:
            with watched.breaker.admit():
                calls += 1
                await answer.wait()
        except BreakerOpen as refused:
            return f"refused {refused.retry_after}"
        return "answered"

    async with asyncio.TaskGroup() as group:
        first = [group.create_task(call()) for _ in range(50)]
        while sum(task.done() for task in first) < 49:  # noqa: ASYNC110 - they need turns only
            await asyncio.sleep(0)
        assert calls == 1
        answer.set()
    outcomes = [task.result() for task in first]
    assert outcomes.count("answered") == 1
    assert outcomes.count(f"refused {PROBE_SECONDS}") == 49
    assert [await call() for _ in range(50)] == ["answered"] * 50
    assert calls == 51


async def test_r24_a_cancelled_probe_frees_its_place() -> None:
    """Its caller is cancelled during the call; the next one probes at once."""
    watched = Watched().opened()
    watched.clock.now += RESET

    async def call() -> None:
        with watched.breaker.admit():
            await asyncio.Event().wait()

    probe = asyncio.create_task(call())
    await asyncio.sleep(0)
    assert watched.state() is State.HALF_OPEN
    probe.cancel()
    await asyncio.wait([probe])
    watched.succeed()
    assert watched.state() is State.CLOSED


# Anything in any order.


@dataclass
class Model:
    """The expected breaker, written as flat rules."""

    state: str = "closed"
    failures: int = 0
    probe_from: float = 0.0
    epoch: int = 0

    def admits(self, now: float) -> bool:
        if self.state == "closed":
            return True
        if self.state == "open" and now >= self.probe_from:
            self.enter("half-open")
            return True
        return False

    def enter(self, state: str) -> None:
        self.state = state
        self.epoch += 1

    def record(self, outcome: str, epoch: int, now: float) -> None:
        if epoch != self.epoch:
            return
        self.failures = {"ok": 0, "failed": self.failures + 1, "left": self.failures}[outcome]
        if self.state == "half-open":
            self.enter("closed" if outcome == "ok" else "open")
            self.probe_from = now + (RESET if outcome == "failed" else 0)
        elif self.failures >= THRESHOLD and outcome == "failed":
            self.enter("open")
            self.probe_from = now + RESET


class Breakers(RuleBasedStateMachine):
    """Calls begin, end, fail and are abandoned, while the clock moves."""

    def __init__(self) -> None:
        super().__init__()
        self.watched, self.model = Watched(), Model()
        self.pending: list[tuple[Permit, int]] = []

    @rule()
    def calls(self) -> None:
        """Begin a call, if the breaker allows it."""
        admitted = self.model.admits(self.watched.clock.now)
        if admitted:
            self.pending.append((self.watched.breaker.admit(), self.model.epoch))
        else:
            assert self.watched.refused() >= 0

    @rule(data=st.data(), outcome=st.sampled_from(["ok", "failed", "failed", "left"]))
    @precondition(lambda self: self.pending)
    def ends(self, data: st.DataObject, outcome: str) -> None:
        """End any pending call, however old it is."""
        permit, epoch = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        self.model.record(outcome, epoch, self.watched.clock.now)
        if outcome == "failed":
            permit.failed()
        with contextlib.suppress(KeyError), permit:
            if outcome == "left":
                raise KeyError

    @rule()
    def fails_elsewhere(self) -> None:
        """Record a failure without a permit."""
        if self.model.state == "closed":
            self.model.record("failed", self.model.epoch, self.watched.clock.now)
        self.watched.breaker.record_failure()

    @rule(seconds=st.sampled_from([0.001, 1.0, RESET - 1, RESET, RESET + 1, 3600.0, -3600.0]))
    def the_clock_jumps(self, seconds: float) -> None:
        """Forward, and backward, as a broken monotonic clock might."""
        self.watched.clock.now += seconds

    @invariant()
    def it_is_what_it_should_be(self) -> None:
        breaker, model = self.watched.breaker, self.model
        assert breaker.state.value == model.state
        assert breaker.failure_count == model.failures
        if model.state == "open":
            assert breaker.retry_after == max(0.0, model.probe_from - self.watched.clock.now)

    @invariant()
    def at_most_one_probe_is_under_way(self) -> None:
        now = [epoch for _, epoch in self.pending if epoch == self.model.epoch]
        if self.model.state == "half-open":
            assert len(now) == 1
        if self.model.state == "open":
            assert now == []

    @invariant()
    def every_change_is_told_and_follows_the_one_before(self) -> None:
        moves = self.watched.moves
        states = [State.CLOSED, *(after for _, after in moves)]
        assert [before for before, _ in moves] == states[:-1]
        assert states[-1] is self.watched.breaker.state
        legal = {
            (before, after) for (before, _), after in TRANSITIONS.items() if before is not after
        }
        assert set(moves) <= legal


def test_r24_r25_no_order_of_calls_and_times_breaks_the_breaker() -> None:
    """At most one probe, results of older generations ignored, and only legal transitions."""
    run_state_machine_as_test(Breakers, settings=settings(stateful_step_count=60))


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5))
def test_r23_it_opens_at_the_first_run_of_failures_that_is_long_enough(
    outcomes: list[bool], threshold: int
) -> None:
    """At any threshold: a closed breaker opens after that many failures in a row."""
    breaker = CircuitBreaker("keys", failure_threshold=threshold, clock=Clock())
    run = 0
    for failed in outcomes:
        with breaker.admit() as permit:
            if failed:
                permit.failed()
        run = run + 1 if failed else 0
        assert (breaker.state is State.OPEN) is (run >= threshold)
        if breaker.state is State.OPEN:
            return


def test_whoever_is_refused_beside_a_probe_may_ask_again_in_a_second() -> None:
    """Probes are short, or fail."""
    assert PROBE_SECONDS == 1.0
