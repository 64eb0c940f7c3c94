"""The service under explored schedules: whoever comes first, the promises hold."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import detangle
import pytest

from tests.kit import run_scenarios
from towpath.identity import Principal
from towpath.log.broker import Append, IdempotencyKey, Span, Write
from towpath.runs import active, executor, queue, requests, service
from towpath.runs.approvals import Approvals
from towpath.runs.encoding import RunEvent
from towpath.runs.executor import RunExecutor
from towpath.runs.interrupts import Interrupt, InterruptDecided, InterruptStatus
from towpath.runs.model import OVER, RunClosed, RunKey, RunOpened, ThreadKey
from towpath.runs.pushes import Pushes
from towpath.runs.questions import InterruptsOfRun
from towpath.runs.requests import Decided, Decision, RunRequest, Started, result_of
from towpath.runs.tables.sqlite import interrupts as stored
from towpath.runs.tables.sqlite import projection
from towpath.runs.tables.sqlite import queue as queue_table

RUNS = 150
MANY = 500
"""For scenarios in which more than two things meet."""


def explored(scenario: Callable[[], Awaitable[None]], *, runs: int = RUNS) -> detangle.ExploreStats:
    """Run a scenario under so many schedules, with a strategy of its own."""
    return detangle.explore(
        scenario,  # type: ignore[arg-type]
        runs=runs,
        strategy=detangle.RandomWalk(),
        database=False,
        shrink=False,
    )


def test_p5_r88_stop_end_and_deadline_leave_one_ending() -> None:
    """However stop, end and deadline of a run meet, one ending stands, and everybody agrees."""
    assert explored(run_scenarios.endings).distinct_schedules > RUNS / 2


def test_p5_r92_a_run_that_is_taken_over_has_one_ending() -> None:
    """However those who end it as lost, a stop and the agent's own end meet: one ending."""
    assert explored(run_scenarios.taken_over, runs=MANY).distinct_schedules > MANY / 2


def test_p5_r92_a_run_left_behind_has_one_ending_and_no_other_is_lost() -> None:
    """However starts in its thread and those who look for lost runs meet."""
    assert explored(run_scenarios.left_behind, runs=MANY).distinct_schedules > MANY / 2


def test_p5_r92_the_store_tells_the_truth_at_any_time() -> None:
    """Whenever anybody looks, a run's status is what its events in the log amount to."""
    assert explored(run_scenarios.truths).distinct_schedules > RUNS / 2


def test_an_ending_that_is_stored_after_it_is_told_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the terminal event and the fact are two writes, somebody sees them differ: found."""
    real = RunExecutor._closing

    def apart(self: RunExecutor, made: list[RunEvent]) -> Write:
        whole = real(self, made)
        later = asyncio.get_running_loop().call_soon
        later(lambda: self._deps.broker.submit(Write(facts=whole.facts)))
        return Write(whole.appends)

    monkeypatch.setattr(RunExecutor, "_closing", apart)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.truths, runs=MANY)


def test_p5_a_log_that_refuses_leaves_no_gap() -> None:
    """Whichever writes of a run are refused, its log has no gap and one ending."""
    assert explored(run_scenarios.refusals).distinct_schedules > RUNS / 2


def test_p3_p5_pushes_meet_the_agent_a_stop_and_a_bad_log() -> None:
    """Pushes, the agent, a stop and refused writes meet: what was answered is in the log once."""
    assert explored(run_scenarios.pushes).distinct_schedules > RUNS / 2


def test_a_key_that_is_not_remembered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pushes with one key that do not know of each other break the run: found."""
    real = Pushes.push

    async def forgetful(self: Pushes, *given: Any) -> Any:
        self._keyed.clear()
        return await real(self, *given)

    monkeypatch.setattr(Pushes, "push", forgetful)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.pushes, runs=MANY)


def test_p1_r34_two_peoples_runs_never_mix() -> None:
    """Two people's runs at once, on threads of one name, stay each their own."""
    assert explored(run_scenarios.strangers).distinct_schedules > RUNS / 2


def test_r81_the_same_request_at_once_is_one_run() -> None:
    """Two identical requests at once start one run, however they interleave."""
    assert explored(run_scenarios.twins).distinct_schedules > RUNS / 2


def test_r91_queued_starts_meet_the_end_of_a_run() -> None:
    """However two queued starts meet the end of the active run, each has its turn, in order."""
    assert explored(run_scenarios.queueing, runs=MANY).distinct_schedules > MANY / 2


def test_p6_r91_queued_runs_have_their_turn_on_a_bad_log() -> None:
    """Whichever writes are refused, what was accepted begins and ends, in order."""
    assert explored(run_scenarios.queueing_on_a_bad_log, runs=MANY).distinct_schedules > MANY / 2


def test_r91_interrupting_meets_the_end_of_a_run() -> None:
    """However two interrupting starts meet the active run's end, one run is active at a time."""
    assert explored(run_scenarios.interrupting, runs=MANY).distinct_schedules > MANY / 2


def test_r88_a_stop_meets_the_turn_of_a_queued_run() -> None:
    """However a stop meets the beginning of a queued run, accepted means cancelled."""
    assert explored(run_scenarios.second_thoughts, runs=MANY).distinct_schedules > MANY / 2


def test_p5_r95_two_devices_expiry_and_a_new_run_leave_one_answer_each() -> None:
    """However decisions, expiry and a new run meet, each question has one answer, and all know."""
    assert explored(run_scenarios.decisions, runs=MANY).distinct_schedules > MANY / 2


def test_r81_answers_at_once_by_both_ways_begin_one_run() -> None:
    """However starts with answers and decisions meet, one run continues, and twins are one."""
    assert explored(run_scenarios.answers, runs=MANY).distinct_schedules > MANY / 2


def test_a_decision_on_what_was_decided_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a decision is checked before its write only, two of them count, and it is seen."""

    def careless(db: sqlite3.Connection, fact: InterruptDecided) -> None:
        for row in stored.INTERRUPTS.rows(db, stored._OF_RUN, fact.key.run_id_key):
            if row.id == fact.id:
                stored._set(db, row, fact.status, fact.at, fact.payload)

    monkeypatch.setattr(stored, "decide", careless)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.decisions, runs=MANY)


def test_a_last_answer_that_does_not_know_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody looks again at the other questions, no run goes on, and it is seen."""
    real = stored.decide

    def forgetful(db: sqlite3.Connection, fact: InterruptDecided) -> None:
        open_ones = {one.id for one in questions_of(db, fact) if one.status is InterruptStatus.OPEN}
        real(db, replace(fact, others=frozenset(open_ones - {fact.id})))

    monkeypatch.setattr(stored, "decide", forgetful)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.decisions, runs=MANY)


def test_an_expiry_that_is_told_before_it_is_written_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the clock alone says expired, a decision in flight undoes it, and it is seen."""

    async def unwritten(
        self: Approvals, interrupts: list[Interrupt], now: float
    ) -> list[Interrupt]:
        return [replace(one, status=one.now(now)) for one in interrupts]

    monkeypatch.setattr(Approvals, "_expired", unwritten)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.decisions, runs=MANY)


def test_a_twin_that_finds_its_question_answered_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a repeated request is looked for too early, its twin is told `already`: it is seen."""
    real = Approvals._decide

    async def early(
        self: Approvals, who: Principal, decision: Decision, key: IdempotencyKey
    ) -> Decided:
        broker = self._deps.broker
        if (earlier := await broker.stored_result(key)) is not None:
            return result_of(Decided, earlier)
        with monkeypatch.context() as patch:
            patch.setattr(type(broker), "stored_result", nothing)
            return await real(self, who, decision, key)

    async def nothing(self: object, key: IdempotencyKey) -> None:
        return None

    monkeypatch.setattr(Approvals, "_decide", early)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.decisions, runs=MANY)


def questions_of(db: sqlite3.Connection, fact: InterruptDecided) -> list[Interrupt]:
    """Return the questions of the run a decision is about."""
    return stored.of_run(db, InterruptsOfRun(*fact.key.run_id_key))


def test_a_pause_between_making_and_submitting_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exploration is worth its name: awaiting where nothing may be awaited is found."""

    async def publish(self: RunExecutor, items: AsyncGenerator[object, None]) -> None:
        async for item in items:
            await self.room()
            made = self.run.feed(item)
            await asyncio.sleep(0)
            if self.run.status in OVER:
                self.end(made)
            elif made:
                self._in_flight.append(self._submit(made, None))

    monkeypatch.setattr(RunExecutor, "_publish", publish)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.endings)


def test_a_producer_that_is_not_fenced_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where offsets alone keep a late producer out, they meet by chance, and it is seen."""

    def careless(*given: Any, **fields: Any) -> Append:
        return Append(*given, **{**fields, "fencing_offset": None})

    monkeypatch.setattr(executor, "Append", careless)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.taken_over, runs=4 * MANY)


def test_a_stop_that_boasts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a stop says accepted though the run was ended elsewhere, it is seen."""
    monkeypatch.setattr(
        RunExecutor, "overtaken", property(lambda _: False, lambda *_: None), raising=False
    )
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.taken_over, runs=4 * MANY)


def test_a_search_that_takes_active_runs_for_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody looks whether an unfinished run is in progress here, it is ended: found."""
    monkeypatch.setattr(active.ActiveRuns, "keys", ())
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.left_behind, runs=MANY)


def test_a_run_that_can_be_ended_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run that has ended can be ended again, a late search does so: found."""
    real = projection._close_run

    def careless(db: sqlite3.Connection, fact: RunClosed, span: Span) -> None:
        db.execute("UPDATE runs SET ended=NULL WHERE id=?", (fact.key.run,))
        real(db, fact, span)

    monkeypatch.setattr(projection, "_close_run", careless)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.left_behind, runs=4 * MANY)


def test_a_person_left_out_of_the_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is not keyed by its user mixes two people, and is seen to."""

    def careless(**fields: Any) -> RunKey:
        return RunKey(**{**fields, "user": "anybody"})

    monkeypatch.setattr(requests, "RunKey", careless)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.strangers)


def test_a_request_without_its_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the request id is not part of the write, twins become two runs, and it is seen."""
    real = service.RunService.start

    async def forgetful(self: Any, who: Principal, request: RunRequest) -> Started:
        again = RunRequest(
            request_id=self._deps.new_id(),
            agent=request.agent,
            thread_id=request.thread_id,
            message=request.message,
        )
        return await real(self, who, again)

    monkeypatch.setattr(service.RunService, "start", forgetful)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.twins)


def test_a_queued_run_nobody_looks_after_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where whoever queues does not look whether the thread is free, a run waits for ever."""
    real = queue.RunQueue.put

    async def careless(self: queue.RunQueue, *given: Any) -> Any:
        with pytest.MonkeyPatch.context() as blind:
            blind.setattr(self, "wake", lambda *thread: None)
            return await real(self, *given)

    monkeypatch.setattr(queue.RunQueue, "put", careless)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.queueing, runs=MANY)


def test_a_stop_blind_to_what_is_beginning_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a stop looks only at runs whose beginning was answered, one slips through: found."""

    async def blind(self: active.ActiveRuns, key: tuple[str, str, str]) -> RunExecutor | None:
        return self.get(key)

    monkeypatch.setattr(active.ActiveRuns, "find", blind)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.second_thoughts, runs=MANY)


def test_a_turn_that_overlooks_a_stop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run begins as it was when it was looked at, a stop since then is lost: found."""
    real = projection.ThreadProjection.apply

    def trusting(self: Any, db: Any, fact: object, spans: Any) -> None:
        if isinstance(fact, RunOpened) and fact.queued is not None:
            key = fact.key
            thread = ThreadKey(tenant=key.tenant, user=key.user, id=key.thread)
            fact = replace(fact, queued=queue_table.head(db, thread))
        real(self, db, fact, spans)

    monkeypatch.setattr(projection.ThreadProjection, "apply", trusting)
    with pytest.raises(detangle.BugFound):
        explored(run_scenarios.second_thoughts, runs=MANY)
