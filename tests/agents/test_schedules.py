"""The bridge under explored schedules: whoever comes first, the promises hold."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import detangle
import pytest

from towpath.agents import bridge
from towpath.agents.live import LiveRun
from towpath.agents.run import OVER, RunKey
from towpath.context import Principal
from towpath.testing import scenarios

RUNS = 150


def explored(scenario: Callable[[], Awaitable[None]]) -> detangle.ExploreStats:
    """Run a scenario under so many schedules, with a strategy of its own."""
    return detangle.explore(
        scenario,  # type: ignore[arg-type]
        runs=RUNS,
        strategy=detangle.RandomWalk(),
        database=False,
        shrink=False,
    )


def test_p5_r88_stop_end_and_deadline_leave_one_ending() -> None:
    """However stop, end and deadline of a run meet, one ending stands, and everybody agrees."""
    assert explored(scenarios.endings).distinct_schedules > RUNS / 2


def test_p5_a_log_that_refuses_leaves_no_gap() -> None:
    """Whichever writes of a run are refused, its log has no gap and one ending."""
    assert explored(scenarios.refusals).distinct_schedules > RUNS / 2


def test_p1_r34_two_peoples_runs_never_mix() -> None:
    """Two people's runs at once, on threads of one name, stay each their own."""
    assert explored(scenarios.strangers).distinct_schedules > RUNS / 2


def test_r81_the_same_request_at_once_is_one_run() -> None:
    """Two identical requests at once start one run, however they interleave."""
    assert explored(scenarios.twins).distinct_schedules > RUNS / 2


def test_a_pause_between_making_and_submitting_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exploration is worth its name: awaiting where nothing may be awaited is found."""

    async def carry(self: LiveRun, items: AsyncGenerator[object, None]) -> None:
        async for item in items:
            await self._room()
            made = self.run.feed(item)
            await asyncio.sleep(0)
            if self.run.status in OVER:
                self.end(made)
            elif made:
                self._in_flight.append(self._submit(made))

    monkeypatch.setattr(LiveRun, "_carry", carry)
    with pytest.raises(detangle.BugFound):
        explored(scenarios.endings)


def test_a_person_left_out_of_the_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is not keyed by its user mixes two people, and is seen to."""

    def careless(**fields: Any) -> RunKey:
        return RunKey(**{**fields, "user": "anybody"})

    monkeypatch.setattr(bridge, "RunKey", careless)
    with pytest.raises(detangle.BugFound):
        explored(scenarios.strangers)


def test_a_request_without_its_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the request id is not part of the write, twins become two runs, and it is seen."""
    real = bridge.AgentWebSocketBridge.start

    async def forgetful(self: Any, who: Principal, asked: bridge.StartRun) -> bytes:
        again = bridge.StartRun(
            request_id=self._around.new_id(),
            agent=asked.agent,
            thread_id=asked.thread_id,
            message=asked.message,
        )
        return await real(self, who, again)

    monkeypatch.setattr(bridge.AgentWebSocketBridge, "start", forgetful)
    with pytest.raises(detangle.BugFound):
        explored(scenarios.twins)
