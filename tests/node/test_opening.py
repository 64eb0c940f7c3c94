"""A context is entered, held and left by a task of its own."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from towpath.node.opening import Opening


@dataclass
class Stage:
    """A context that waits, fails or breaks down, and what was told of it."""

    enter: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[object] = field(default_factory=list)
    failure: Exception | None = None

    @contextlib.asynccontextmanager
    async def context(self) -> AsyncGenerator[None, None]:
        task = asyncio.current_task()
        try:
            await self.enter.wait()
            if self.failure is not None:
                raise self.failure
            yield
        finally:
            assert asyncio.current_task() is task
            self.told.append("left")

    def begin(self) -> Opening:
        return Opening(
            self.context(),
            opened=lambda: self.told.append("opened"),
            failed=self.told.append,
        )

    async def until_told(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.told) < count:  # noqa: ASYNC110 - a plain list
                await asyncio.sleep(0)


async def test_a_context_is_entered_and_left_in_one_task() -> None:
    """Nobody waits for the entry; whoever closes waits for the exit."""
    stage = Stage()
    opening = stage.begin()
    await asyncio.sleep(0)
    assert stage.told == []
    stage.enter.set()
    await stage.until_told(1)
    await opening.close()
    assert stage.told == ["opened", "left"]


async def test_an_entry_in_progress_is_cancelled() -> None:
    """That is no failure."""
    stage = Stage()
    opening = stage.begin()
    await asyncio.sleep(0)
    await opening.close()
    assert stage.told == ["left"]


async def test_an_entry_that_fails_is_told_once() -> None:
    """Closing raises nothing then."""
    stage = Stage(failure=ValueError("broken"))
    opening = stage.begin()
    stage.enter.set()
    await stage.until_told(2)
    await opening.close()
    assert stage.told == ["left", stage.failure]


async def test_a_context_that_breaks_down_is_told() -> None:
    """A task group cancels the task that holds it open, and raises at its exit."""
    stage = Stage()
    stage.enter.set()

    @contextlib.asynccontextmanager
    async def breaking() -> AsyncGenerator[None, None]:
        async with stage.context(), asyncio.TaskGroup() as group:
            group.create_task(_raise())
            yield

    Opening(breaking(), opened=lambda: None, failed=stage.told.append)
    await stage.until_told(2)
    left, error = stage.told
    assert left == "left"
    assert isinstance(error, ExceptionGroup)
    assert [str(one) for one in error.exceptions] == ["broken"]


async def _raise() -> None:
    await asyncio.sleep(0)
    raise ValueError("broken")


async def test_closing_may_be_bounded() -> None:
    """An exit that hangs keeps nobody who does not want to wait for it."""
    released = asyncio.Event()

    @contextlib.asynccontextmanager
    async def hanging() -> AsyncGenerator[None, None]:
        yield
        await released.wait()

    told: list[object] = []
    opening = Opening(hanging(), opened=lambda: told.append("opened"), failed=told.append)
    await asyncio.sleep(0)
    await opening.close(within=0.01)
    released.set()
    await opening.close()
    assert told == ["opened"]


async def test_a_cancellation_that_nobody_asked_for_is_told() -> None:
    """Then there is nothing left to serve."""
    stage = Stage()
    stage.enter.set()
    stage.begin()
    await stage.until_told(1)
    (task,) = [one for one in asyncio.all_tasks() if one.get_name() == "gateway"]
    task.cancel()
    await stage.until_told(3)
    assert isinstance(stage.told[2], asyncio.CancelledError)


@pytest.mark.parametrize("failure", [ValueError("while closing"), None])
async def test_an_exit_that_fails_is_told(failure: Exception | None) -> None:
    """Also when it was asked for."""

    @contextlib.asynccontextmanager
    async def failing() -> AsyncGenerator[None, None]:
        yield
        if failure is not None:
            raise failure

    told: list[object] = []
    opening = Opening(failing(), opened=lambda: None, failed=told.append)
    await asyncio.sleep(0)
    await opening.close()
    assert told == [one for one in (failure,) if one is not None]
