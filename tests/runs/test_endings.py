"""The ending of a run whose own cannot be stored: there is one, whatever the run has made (P5)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.runs.stage import Stage, saying, staged, waiting
from towpath.json_bounds import MAX_EVENT_DEPTH
from towpath.runs.executor import ENDING_FAILURES
from towpath.runs.model import RunClosed
from towpath.runs.tables.sqlite import projection
from towpath.telemetry import InternalError, RunEnded

pytestmark = pytest.mark.parametrize("kind", ["memory", "sqlite"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for the log."""
    return tmp_path


@contextmanager
def unstorable(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[list[RunClosed]]:
    """Let no conversation be stored that is longer than the question; yield what was tried."""
    tried: list[RunClosed] = []
    real = projection._close_run

    def close(db: Any, fact: RunClosed, span: Any) -> None:
        tried.append(fact)
        if fact.messages is not None and len(fact.messages) > 1:
            raise error
        real(db, fact, span)

    with monkeypatch.context() as patch:
        patch.setattr(projection, "_close_run", close)
        yield tried


def faults(stage: Stage, where: str) -> list[str]:
    return [
        type(one.error).__name__
        for one in stage.happened
        if isinstance(one, InternalError) and one.where == where
    ]


@pytest.mark.parametrize("error", [RecursionError("too deep"), TypeError("no such column")])
async def test_p5_r124_an_ending_that_cannot_be_applied_carries_nothing(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """After some tries the run ends with an error and no content; the thread goes on."""
    async with staged(kind, directory) as stage:
        stage.cast(saying("an answer"))
        with unstorable(monkeypatch, error) as tried:
            run = await stage.start()
            await stage.done(run)
        assert len(tried) == ENDING_FAILURES + 1
        events = await stage.events()
        assert events[-1] == {
            "type": "RUN_ERROR",
            "code": "run.storage",
            "message": "the log refused the run's events",
        }
        assert [event["type"] for event in events].count("RUN_ERROR") == 1
        record = await stage.store.find_run("acme", "alice", run)
        assert record is not None
        assert (record.status.value, record.code) == ("failed", "run.storage")
        assert faults(stage, "ending of a run") == ["WriteFailed"]
        (ended,) = [one for one in stage.happened if isinstance(one, RunEnded)]
        assert (ended.status, ended.code) == ("failed", "run.storage")
        last = (await stage.log())[-1]
        assert last.tags["seq"] == str(len(events))
        again = await stage.start()
        await stage.done(again)
        assert (await stage.events())[-1]["type"] == "RUN_FINISHED"


async def test_p5_others_are_written_while_an_ending_is_tried(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that cannot end costs nobody else anything."""
    async with staged(kind, directory) as stage:
        stage.cast(saying("an answer")).cast(saying(), "silent")
        with unstorable(monkeypatch, RecursionError()):
            stuck = await stage.start("t1")
            others = [await stage.start(f"o{n}", agent="silent") for n in range(10)]
            await asyncio.gather(*map(stage.done, (stuck, *others)))
        for n in range(10):
            assert (await stage.events(f"o{n}"))[-1]["type"] == "RUN_FINISHED"


async def test_p5_r92_a_lost_run_that_cannot_be_stored_is_ended_and_so_are_the_others(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lost run gets its ending, also beside one that cannot be closed as it is."""
    if kind == "memory":
        return  # What is in memory is not lost by a process, but with it.
    async with staged(kind, directory) as stage:
        stage.cast(waiting("a ", "b"))
        runs = {thread: await stage.start(thread) for thread in ("t1", "t2", "t3")}
        for thread in runs:
            await stage.logged(4, thread)
        stage.broker.broken = True
        await _abandon(stage)
    with unstorable(monkeypatch, RecursionError()):
        async with staged(kind, directory) as stage:
            for thread, run in runs.items():
                await stage.done(run)
                record = await stage.store.find_run("acme", "alice", run)
                assert record is not None
                assert (record.status.value, record.code) == ("lost", "run.lost")
                assert (await stage.events(thread))[-1]["code"] == "run.lost"
            assert len(faults(stage, "lost runs")) == 3


async def _abandon(stage: Stage) -> None:
    """Let runs go without an ending, as a process does that dies."""
    for live in list(stage.service._active):
        live.run.lose()
        live._over.set()
    await asyncio.sleep(0.1)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


async def test_r122_state_that_adds_up_to_too_deep_ends_the_run_when_it_is_made(
    kind: str, directory: Path
) -> None:
    """Each delta is legal, what they add up to is not: the run ends there, and can be stored."""
    step = MAX_EVENT_DEPTH - 10

    async def deep(_: Any) -> Any:
        yield {"type": "STATE_SNAPSHOT", "snapshot": nested(step)}
        yield "so far "
        at = "/a" * step
        yield {"type": "STATE_DELTA", "delta": [{"op": "replace", "path": at, "value": nested(9)}]}
        yield "and on"
        at = "/a" * (step + 9)
        yield {"type": "STATE_DELTA", "delta": [{"op": "replace", "path": at, "value": nested(2)}]}
        yield "never"

    async with staged(kind, directory) as stage:
        events = await stage.played(deep)
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "run.illegal_event")
        assert "nests deeper" in events[-1]["message"]
        stored = await stage.store.get("acme", "alice", "t1")
        assert stored is not None
        assert stored.state == nested(step + 9)
        assert [one["content"] for one in stored.messages] == ["hello", "so far ", "and on"]


DEEP = nested(300)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "STATE_SNAPSHOT", "snapshot": nested(MAX_EVENT_DEPTH)},
        {"type": "CUSTOM", "name": "n", "value": nested(5_000)},
        {"type": "SOMETHING_NEW", "value": nested(MAX_EVENT_DEPTH)},
        {
            "type": "ACTIVITY_SNAPSHOT",
            "messageId": "m",
            "activityType": "t",
            "content": nested(300),
        },
    ],
    ids=["state", "custom", "unknown", "activity"],
)
async def test_r122_an_event_that_nests_too_deep_is_refused_by_name(
    kind: str, directory: Path, event: dict[str, Any]
) -> None:
    """It ends its own run as an event that is not legal, never as a fault of the gateway."""

    async def deep(_: Any) -> Any:
        yield event

    async with staged(kind, directory) as stage:
        events = await stage.played(deep)
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "run.illegal_event")
        assert [one for one in stage.happened if isinstance(one, InternalError)] == []
