"""Whatever an agent raises, wherever it raises it, hurts its own run only and leaves a trace."""

import argparse
import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest

from tests.runs.stage import ALICE, QUICK, Stage, saying, staged, waiting
from towpath.agents.agent import AgentError, AgentFunction, AgentInput
from towpath.runs.encoding import EventEncoder
from towpath.runs.executor import CURRENT_RUN
from towpath.runs.model import RunKey
from towpath.telemetry import InternalError, RunEnded


class Odd(BaseException):
    """No Exception, and nothing that asyncio knows."""


RAISED: tuple[BaseException, ...] = (
    SystemExit(3),
    SystemExit(),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    Odd(),
    BaseExceptionGroup("both", [SystemExit(3), ValueError()]),
    BaseExceptionGroup("nested", [BaseExceptionGroup("in", [KeyboardInterrupt()])]),
    StopAsyncIteration(),
)


NOT_CANCELLED = [one for one in RAISED if not isinstance(one, asyncio.CancelledError)]
"""What a stopped agent may raise that is not how it is to leave."""


@pytest.fixture(params=RAISED, ids=lambda error: type(error).__name__)
def error(request: pytest.FixtureRequest) -> BaseException:
    """Something an agent may raise that is no plain Exception."""
    found = request.param
    assert isinstance(found, BaseException)
    return found


def faults(stage: Stage) -> list[InternalError]:
    return [one for one in stage.happened if isinstance(one, InternalError)]


def leaving(*items: object, error: BaseException) -> AgentFunction:
    """Return an agent that yields these, waits, and raises while it tidies up."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        """Say it, and go badly."""
        try:
            for item in items:
                yield item
            await asyncio.Event().wait()
        finally:
            raise error

    return agent


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_r121_an_agent_that_exits_has_failed(
    kind: str, tmp_path: Path, error: BaseException
) -> None:
    """The run ends with run.failed, one line tells of it, and the next run is served."""
    async with staged(kind, tmp_path) as stage:
        events = await stage.played(saying("half", raises=error))
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "run.failed")
        (fault,) = faults(stage)
        assert fault.where == "agent agent"
        if not isinstance(error, StopAsyncIteration):  # Python makes a RuntimeError of it.
            assert fault.error is error
        stage.cast(saying("fine"), "other")
        await stage.done(await stage.start("t2", agent="other"))
        assert (await stage.events("t2"))[-1]["type"] == "RUN_FINISHED"


async def test_r121_an_agent_may_exit_before_its_first_word(
    tmp_path: Path, error: BaseException
) -> None:
    """Nothing is said, the run ends, and why is told."""
    async with staged("memory", tmp_path) as stage:
        events = await stage.played(saying(raises=error))
        assert [event["type"] for event in events] == ["RUN_STARTED", "RUN_ERROR"]
        assert len(faults(stage)) == 1


async def test_r121_a_program_that_parses_its_arguments_exits_its_run_only(tmp_path: Path) -> None:
    """A command-line parser exits by itself: with 2 for a wrong option, with 0 for --help."""
    for options in (["--no-such-option"], ["--help"]):

        async def parses(
            request: AgentInput, options: list[str] = options
        ) -> AsyncGenerator[object, None]:
            yield "a"
            argparse.ArgumentParser(prog="tool").parse_args(options)

        async with staged("memory", tmp_path) as stage:
            events = await stage.played(parses)
            assert events[-1]["code"] == "run.failed"


async def test_r121_an_agent_may_handle_the_exit_of_a_tool(tmp_path: Path) -> None:
    """SystemExit that an agent catches is its own affair."""

    async def handles(request: AgentInput) -> AsyncGenerator[object, None]:
        with suppress(SystemExit):
            raise SystemExit(2)
        yield "it said no"

    async with staged("memory", tmp_path) as stage:
        assert (await stage.played(handles))[-1]["type"] == "RUN_FINISHED"
        assert faults(stage) == []


async def test_r121_an_agent_whose_call_raises_has_failed(
    tmp_path: Path, error: BaseException
) -> None:
    """So for what is called an agent and raises before it is one."""

    def raises(request: AgentInput) -> NoReturn:
        raise error

    async with staged("memory", tmp_path) as stage:
        stage.cast(saying())
        agents = stage.registry._agents
        agents["agent"] = replace(agents["agent"], function=raises)
        await stage.done(await stage.start())
        assert (await stage.events())[-1]["code"] == "run.failed"
        assert [one.error for one in faults(stage)] == [error]


async def test_r121_what_an_agent_yields_may_exit_when_it_is_read(tmp_path: Path) -> None:
    """A mapping of the agent's own making is code of the agent's too."""

    class Exits(dict[str, Any]):
        def get(self, *_: object) -> NoReturn:
            raise SystemExit(3)

    async with staged("memory", tmp_path) as stage:
        events = await stage.played(saying("a", Exits(type="CUSTOM")))
        assert events[-1]["code"] == "run.failed"
        assert len(faults(stage)) == 1


@pytest.mark.parametrize("error", NOT_CANCELLED, ids=lambda error: type(error).__name__)
async def test_r121_an_agent_that_exits_when_it_is_stopped_leaves_a_trace(
    tmp_path: Path, error: BaseException
) -> None:
    """The run stays cancelled, and what its agent raised while tidying up is told."""
    async with staged("memory", tmp_path) as stage:
        stage.cast(leaving("a", error=error))
        run = await stage.start()
        await stage.logged(3)
        await stage.service.cancel(ALICE, run)
        await stage.done(run)
        await stage.check()
        assert (await stage.events())[-1]["outcome"] == {"type": "cancelled"}
        assert len(faults(stage)) == 1


@pytest.mark.parametrize("error", NOT_CANCELLED, ids=lambda error: type(error).__name__)
async def test_r121_an_agent_that_exits_past_its_deadline_leaves_a_trace(
    tmp_path: Path, error: BaseException
) -> None:
    """So when it was late."""
    async with staged("memory", tmp_path) as stage:
        events = await stage.played(leaving("a", error=error), deadline=0.05)
        assert events[-1]["code"] == "run.deadline"
        assert len(faults(stage)) == 1


async def test_r121_an_agent_that_exits_after_its_own_ending_leaves_a_trace(
    tmp_path: Path, error: BaseException
) -> None:
    """The ending it gave the run stands; a CancelledError that nobody asked for is told too."""
    async with staged("memory", tmp_path) as stage:
        events = await stage.played(saying("a", {"type": "RUN_FINISHED"}, raises=error))
        assert events[-1]["type"] == "RUN_FINISHED"
        assert len(faults(stage)) == 1


async def test_r121_an_agent_that_exits_when_it_is_closed_leaves_a_trace(
    tmp_path: Path, error: BaseException
) -> None:
    """An agent that is closed where it yields may raise in its clean-up."""
    limits = replace(QUICK, run_bytes=100)
    async with staged("memory", tmp_path, limits=limits) as stage:
        events = await stage.played(leaving("a" * 200, "b", error=error))
        assert events[-1]["code"] == "run.too_large"
        traces = [one for one in faults(stage) if one.where == "agent agent"]
        assert len(traces) == (0 if isinstance(error, GeneratorExit) else 1)


async def test_r121_an_agent_that_is_stopped_and_leaves_is_no_fault(tmp_path: Path) -> None:
    """A CancelledError that answers a stop, a deadline or a drain says nothing new."""
    async with staged("memory", tmp_path) as stage:
        stage.cast(waiting("a")).cast(waiting("a"), "late", deadline=0.05)
        stopped, late = await stage.start("t1"), await stage.start("t2", agent="late")
        await stage.logged(3, "t1")
        await stage.service.cancel(ALICE, stopped)
        await stage.done(stopped)
        await stage.done(late)
        drained = await stage.start("t3")
        await stage.logged(3, "t3")
        await stage.service.drain()
        await stage.done(drained)
        ends = [one.code for one in stage.happened if isinstance(one, RunEnded)]
        assert sorted(map(str, ends)) == ["None", "run.deadline", "run.drained"]
        assert faults(stage) == []


async def test_r121_a_loop_that_cancels_everything_is_no_agents_fault(tmp_path: Path) -> None:
    """An application that ends without its lifespan's end cancels agent and run alike."""
    async with staged("memory", tmp_path) as stage:
        stage.cast(waiting("a"))
        await stage.start()
        await stage.logged(3)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        assert faults(stage) == []


async def test_r121_an_agent_that_cancels_its_own_task_has_failed(tmp_path: Path) -> None:
    """`current_task().cancel()` is the agent's doing, not a stop."""

    async def cancels(request: AgentInput) -> AsyncGenerator[object, None]:
        yield "a"
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with staged("memory", tmp_path) as stage:
        events = await stage.played(cancels)
        assert events[-1]["code"] == "run.failed"
        assert [type(one.error) for one in faults(stage)] == [asyncio.CancelledError]


async def test_r121_a_timeout_of_the_agents_own_is_no_fault(tmp_path: Path) -> None:
    """A cancel scope that ends inside the agent is none of the run's business."""

    async def patient(request: AgentInput) -> AsyncGenerator[object, None]:
        with anyio.move_on_after(0.01):
            yield "before "
            await anyio.sleep_forever()
        yield "after"

    async with staged("memory", tmp_path) as stage:
        assert (await stage.played(patient))[-1]["type"] == "RUN_FINISHED"
        assert faults(stage) == []


# -- codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["run.deadline", "run.mine", " RUN.lost"])
async def test_r121_an_agents_code_cannot_pose_as_the_gateways(tmp_path: Path, code: str) -> None:
    """A code of the gateway's name space becomes agent.failed, raised or yielded; words stay."""
    async with staged("memory", tmp_path) as stage:
        raised = await stage.played(saying("a", raises=AgentError("no", code=code)))
        stage.cast(saying("a", {"type": "RUN_ERROR", "message": "no", "code": code}), "yields")
        await stage.done(await stage.start("t2", agent="yields"))
        yielded = await stage.events("t2")
        for last in (raised[-1], yielded[-1]):
            assert (last["code"], last["message"]) == ("agent.failed", "no")
        ends = [one.code for one in stage.happened if isinstance(one, RunEnded)]
        assert ends == ["agent.failed", "agent.failed"]


async def test_r121_an_error_that_cannot_be_told_ends_the_run(tmp_path: Path) -> None:
    """An AgentError whose code or words are no text ends the run as any exception does."""

    class Exits(AgentError):
        @property
        def code(self) -> str:
            raise SystemExit(3)

        @code.setter
        def code(self, value: str) -> None:
            """Forget it."""

    wrong: Any = ValueError("no text")
    for error in (AgentError("a", code=wrong), AgentError(wrong), Exits("a")):
        async with staged("memory", tmp_path) as stage:
            events = await stage.played(saying("a", raises=error))
            assert events[-1]["code"] == "run.failed"
            assert len(faults(stage)) == 1


# -- what an agent starts -------------------------------------------------------------------------


async def test_r121_what_an_agent_starts_knows_its_run(tmp_path: Path) -> None:
    """Tasks, callbacks and threads of an agent carry its run; nothing else does."""
    seen: list[RunKey | None] = []

    def look() -> None:
        seen.append(CURRENT_RUN.get(None))

    async def task() -> None:
        look()

    async def starts(request: AgentInput) -> AsyncGenerator[object, None]:
        yield "a"
        await asyncio.create_task(task())
        asyncio.get_running_loop().call_soon(look)
        await asyncio.to_thread(look)

    async with staged("memory", tmp_path) as stage:
        await stage.played(starts)
        look()
        (ended,) = [one for one in stage.happened if isinstance(one, RunEnded)]
    assert [one and (one.agent, one.run) for one in seen] == [("agent", ended.run)] * 3 + [None]


async def test_r121_an_exit_of_what_an_agent_started_ends_its_run(tmp_path: Path) -> None:
    """Whoever runs the loop tells of it; the run that waits for something else has failed."""
    async with staged("memory", tmp_path) as stage:
        stage.cast(waiting("a"))
        run, other = await stage.start("t1"), await stage.start("t2")
        await stage.logged(3)
        exited = SystemExit(3)
        key = RunKey(tenant="acme", user="alice", thread="t1", run=run, agent="agent")
        stage.service.agent_exited(key, exited)
        await stage.done(run)
        assert (await stage.events())[-1]["code"] == "run.failed"
        assert [(one.where, one.error) for one in faults(stage)] == [("agent agent", exited)]
        stage.service.agent_exited(key, exited)  # The run is over by now.
        assert len(faults(stage)) == 2
        await stage.service.cancel(ALICE, other)
        await stage.done(other)
        assert (await stage.events("t2"))[-1]["outcome"] == {"type": "cancelled"}


async def test_r121_an_exit_that_comes_by_two_ways_is_told_once(tmp_path: Path) -> None:
    """An agent that awaits its task raises what the loop has told of already."""
    exited, reported = SystemExit(3), asyncio.Event()

    async def awaits(request: AgentInput) -> AsyncGenerator[object, None]:
        yield "a"
        try:
            await reported.wait()
        finally:
            raise exited

    async with staged("memory", tmp_path) as stage:
        stage.cast(awaits)
        run = await stage.start()
        await stage.logged(3)
        key = RunKey(tenant="acme", user="alice", thread="t1", run=run, agent="agent")
        stage.service.agent_exited(key, exited)
        await stage.done(run)
        await stage.check()
        assert [one.error for one in faults(stage)] == [exited]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_is_published_is_what_was_encoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log stores the very bytes of the one encoding of each event."""
    made, encode = list[bytes](), EventEncoder.encode

    def counted(self: EventEncoder, event: dict[str, Any]) -> bytes:
        made.append(encode(self, event))
        return made[-1]

    monkeypatch.setattr(EventEncoder, "encode", counted)
    items = ("text", {"type": "CUSTOM", "name": "x", "value": [1]}, "more")
    async with staged(kind, tmp_path) as stage:
        await stage.played(saying(*items))
        # The end of the run is encoded before what has to be closed for it.
        assert sorted(one.data for one in await stage.log()) == sorted(made)
