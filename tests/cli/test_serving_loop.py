"""The loop of `towpath serve` goes on where agents exit, and says whose exit it was."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest
import uvloop

from towpath.cli import serving_loop
from towpath.cli.serving_loop import ServingLoop
from towpath.runs.executor import CURRENT_RUN
from towpath.runs.model import RunKey

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
ALICES = RunKey(tenant="acme", user="alice", thread="t", run="r1", agent="clerk")
BOBS = RunKey(tenant="acme", user="bob", thread="t", run="r2", agent="grocer")
EXITS = [SystemExit(3), SystemExit(), KeyboardInterrupt()]


class Stage:
    """One loop, and the exits that it told of."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.reported: list[tuple[RunKey | None, BaseException]] = []
        self.exited = asyncio.Event()
        self.serving = ServingLoop(loop, self._hear)

    def _hear(self, key: RunKey | None, error: BaseException) -> None:
        asyncio.get_running_loop()  # Who hears of it may start tasks.
        self.reported.append((key, error))
        self.exited.set()

    async def until_reported(self, count: int) -> None:
        """Wait until so many exits were told."""
        while len(self.reported) < count:
            self.exited.clear()
            await self.exited.wait()


@pytest.fixture(params=LOOPS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A loop of each kind."""
    found = Stage(LOOPS[request.param]())
    yield found
    if not found.loop.is_closed():
        found.serving.close()


def within(key: RunKey, start: Callable[[], Any]) -> Any:
    """Start something as the agent of this run does."""
    token = CURRENT_RUN.set(key)
    try:
        return start()
    finally:
        CURRENT_RUN.reset(token)


async def exiting(error: BaseException) -> None:
    """Exit at once."""
    raise error


async def exiting_later(error: BaseException) -> None:
    """Exit after what wakes a task up: a timer and a future."""
    await asyncio.sleep(0.001)
    await asyncio.to_thread(int)
    raise error


async def exiting_grouped(error: BaseException) -> None:
    """Exit in a task of a task of this one."""
    async with asyncio.TaskGroup() as group:
        group.create_task(exiting(error))
        await asyncio.Event().wait()


def calls(error: BaseException) -> None:
    """Exit in a callback."""
    raise error


async def abandoned(error: BaseException) -> AsyncGenerator[int, None]:
    """Exit when it is closed."""
    try:
        yield 1
    finally:
        raise error


STARTS: dict[str, Callable[[asyncio.AbstractEventLoop, BaseException], object]] = {
    "task": lambda loop, error: loop.create_task(exiting(error)),
    "later": lambda loop, error: loop.create_task(exiting_later(error)),
    "group": lambda loop, error: loop.create_task(exiting_grouped(error)),
    "call_soon": lambda loop, error: loop.call_soon(calls, error),
    "call_soon_threadsafe": lambda loop, error: loop.call_soon_threadsafe(calls, error),
    "call_later": lambda loop, error: loop.call_later(0.001, calls, error),
    "call_at": lambda loop, error: loop.call_at(loop.time() + 0.001, calls, error),
    "done_callback": lambda loop, error: loop.create_task(asyncio.sleep(0)).add_done_callback(
        lambda _: calls(error)
    ),
}
"""The ways in which an agent's own code comes to run outside of what it yields."""


@pytest.mark.parametrize("error", EXITS, ids=repr)
@pytest.mark.parametrize("how", STARTS)
def test_r121_the_same_task_goes_on_on_the_same_loop(
    stage: Stage, how: str, error: BaseException
) -> None:
    """Tasks, timers and threads of others lose nothing, and the run that exited is named."""
    ticked: list[int] = []

    async def ticks() -> None:
        for n in range(20):
            await asyncio.sleep(0.0005)
            ticked.append(await asyncio.to_thread(int, n))

    async def main() -> str:
        ticking = asyncio.create_task(ticks())
        within(ALICES, lambda: STARTS[how](stage.loop, error))
        ready = [asyncio.create_task(asyncio.sleep(0, n)) for n in range(5)]
        await stage.exited.wait()
        assert asyncio.get_running_loop() is stage.loop
        assert [await one for one in ready] == list(range(5))
        await ticking
        return "done"

    assert stage.serving.run(main()) == "done"
    assert ticked == list(range(20))
    # Who awaits a task that exited exits too.
    assert stage.reported == [(ALICES, error)] * (2 if how == "group" else 1)


def test_r121_each_exit_is_told_with_its_own_run(stage: Stage) -> None:
    """Two agents that exit in the same turn of the loop are told apart."""
    first, second = SystemExit(1), SystemExit(2)

    async def main() -> None:
        within(ALICES, lambda: stage.loop.call_soon(calls, first))
        within(BOBS, lambda: stage.loop.create_task(exiting(second)))
        await stage.until_reported(2)

    stage.serving.run(main())
    assert stage.reported == [(ALICES, first), (BOBS, second)]


def test_r121_an_exit_of_nobody_is_told_without_a_name(stage: Stage) -> None:
    """A callback outside of every run ends nothing either."""
    error = SystemExit(3)

    async def main() -> None:
        stage.loop.call_soon(calls, error)
        await stage.exited.wait()

    stage.serving.run(main())
    assert stage.reported == [(None, error)]


def test_r121_an_exit_of_nobody_beside_one_of_an_agent_is_told_too(stage: Stage) -> None:
    """uvloop runs timers and what is ready in one go, and raises the last exit only."""
    first, second = SystemExit(1), SystemExit(2)

    async def main() -> None:
        within(ALICES, lambda: stage.loop.call_later(0.001, calls, first))
        time.sleep(0.01)  # noqa: ASYNC251 - the timer is to be due in the next turn.
        stage.loop.call_soon(calls, second)
        await stage.until_reported(2)

    stage.serving.run(main())
    assert sorted(stage.reported, key=lambda one: str(one[1])) == [(ALICES, first), (None, second)]


def test_r121_a_thousand_exits_are_a_thousand_lines(stage: Stage) -> None:
    """However often agents exit, nothing piles up and nobody waits."""

    async def main() -> None:
        for n in range(1_000):
            within(ALICES, partial(stage.loop.call_soon, calls, SystemExit(n)))
            await asyncio.sleep(0)
        await stage.until_reported(1_000)

    stage.serving.run(main())
    assert [error.code for _, error in stage.reported if isinstance(error, SystemExit)] == [
        *range(1_000)
    ]


def test_r121_whoever_awaits_the_task_still_gets_its_exit(stage: Stage) -> None:
    """A task that exited has its exception like any other."""
    error = SystemExit(3)

    async def main() -> BaseException | None:
        task = within(ALICES, lambda: asyncio.create_task(exiting(error)))
        await asyncio.wait((task,))
        found = task.exception()
        assert found is None or isinstance(found, BaseException)
        return found

    assert stage.serving.run(main()) is error


@pytest.mark.parametrize("exit_of", [exiting, exiting_later])
def test_r121_an_exit_that_nobody_awaits_is_told_once(
    stage: Stage,
    caplog: pytest.LogCaptureFixture,
    exit_of: Callable[[BaseException], Coroutine[Any, Any, None]],
) -> None:
    """asyncio has nothing to add about a task whose exit was told; of others it still has."""

    async def main() -> None:
        within(ALICES, lambda: stage.loop.create_task(exit_of(SystemExit(3))))
        within(ALICES, lambda: stage.loop.create_task(exit_of(ValueError("boom"))))
        await stage.until_reported(1)
        await asyncio.sleep(0.01)

    stage.serving.run(main())
    gc.collect()
    (line,) = [one for one in caplog.records if "never retrieved" in one.getMessage()]
    assert "boom" in line.getMessage()


def test_r121_a_loop_that_an_agent_stops_goes_on(stage: Stage) -> None:
    """`loop.stop()` is an exit too."""

    async def main() -> str:
        within(ALICES, lambda: stage.loop.call_soon(stage.loop.stop))
        await stage.exited.wait()
        return "done"

    assert stage.serving.run(main()) == "done"
    ((key, error),) = stage.reported
    assert (key, type(error)) == (None, RuntimeError)


@pytest.mark.parametrize(
    "error", [*EXITS, ValueError(), RuntimeError()], ids=lambda error: type(error).__name__
)
def test_what_the_main_task_raises_is_raised(stage: Stage, error: BaseException) -> None:
    """The server's own end is not an agent's exit."""
    with pytest.raises(type(error)) as raised:
        stage.serving.run(exiting(error))
    stage.serving.close()
    assert raised.value is error
    assert stage.reported == []


def test_a_main_task_that_is_cancelled_ends(stage: Stage) -> None:
    """So is its cancellation."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        stage.serving.run(main())


def test_r121_clean_up_that_exits_while_the_loop_closes_ends_nothing(stage: Stage) -> None:
    """Generators that agents left open are closed last, and may exit too."""
    error, kept = SystemExit(3), []

    async def main() -> str:
        kept.append(within(ALICES, lambda: abandoned(error)))
        await anext(kept[0])
        return "done"

    assert stage.serving.run(main()) == "done"
    stage.serving.close()
    assert stage.loop.is_closed()
    assert [one for _, one in stage.reported] == [error]


def test_a_generator_that_does_not_close_keeps_no_loop_open(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a moment, then the loop is closed."""
    monkeypatch.setattr(serving_loop, "GENERATORS_SECONDS", 0.01)
    kept = []

    async def endless() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.Event().wait()

    async def main() -> None:
        kept.append(endless())
        await anext(kept[0])

    stage.serving.run(main())
    stage.serving.close()
    assert stage.loop.is_closed()


def test_a_thread_that_does_not_return_keeps_no_loop_open(stage: Stage) -> None:
    """The default executor is shut down without waiting for its threads."""
    released = threading.Event()

    async def main() -> None:
        stage.loop.run_in_executor(None, released.wait)

    stage.serving.run(main())
    stage.serving.close()
    assert stage.loop.is_closed()
    assert not released.is_set()
    released.set()


def test_callbacks_keep_their_arguments_and_their_context(stage: Stage) -> None:
    """Whoever schedules something is answered as by any loop, by a handle that cancels."""
    seen: list[tuple[int, RunKey | None]] = []

    def look(number: int = 0) -> None:
        seen.append((number, CURRENT_RUN.get(None)))

    async def main() -> None:
        loop = stage.loop
        for key in (None, ALICES):
            schedule: Callable[[Callable[[], Any]], Any] = (
                (lambda start: start()) if key is None else (lambda start: within(ALICES, start))
            )
            schedule(lambda: loop.call_soon(look))
            schedule(lambda: loop.call_soon(look, 1))
            schedule(lambda: loop.call_soon(look, 9)).cancel()
            loop.call_soon(look, context=schedule(copy_context))
            schedule(lambda: loop.call_later(0, look, 2))
            schedule(lambda: loop.call_later(0.001, look, 9)).cancel()
            schedule(lambda: loop.call_at(loop.time(), look, 3))
            await asyncio.sleep(0.005)

    stage.serving.run(main())
    assert sorted(seen[:5], key=str) == [(n, None) for n in (0, 0, 1, 2, 3)]
    assert sorted(seen[5:], key=str) == [(n, ALICES) for n in (0, 0, 1, 2, 3)]


SIGNALLED = """
import asyncio, os, signal, sys
from tests.cli.test_serving_loop import LOOPS, calls
from towpath.cli.serving_loop import ServingLoop

stopped = []
loop = LOOPS[sys.argv[1]]()
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))


class Signalled(ServingLoop):
    def _report(self, error):
        os.kill(os.getpid(), signal.SIGTERM)
        super()._report(error)


async def main():
    loop.call_soon(calls, SystemExit(3))
    async with asyncio.timeout(5):
        while not stopped:
            await asyncio.sleep(0.01)

serving = Signalled(loop, lambda key, error: None)
serving.run(main())
serving.close()
print("stopped", stopped)
"""


@pytest.mark.servers
@pytest.mark.parametrize("kind", LOOPS)
def test_r121_a_signal_between_two_runs_of_the_loop_is_heard(kind: str) -> None:
    """A stop that comes in the moment in which an exit is caught is still a stop."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, kind],
        cwd=os.getcwd(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "stopped [1]\n"), done.stderr
