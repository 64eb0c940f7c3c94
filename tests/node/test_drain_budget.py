"""The budget of a drain is counted from its beginning, and ends what takes longer."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from towpath.node import drain_budget
from towpath.node.drain_budget import CLOSING, ENDINGS, DrainBudget


async def test_a_budget_begins_with_the_first_question() -> None:
    """The parts are those of the whole, and what is used is gone for all of them."""
    budget = DrainBudget(1000.0)
    assert budget.left() == pytest.approx(1000.0)
    assert 0 < budget.left(ENDINGS) <= 500.0
    assert budget.left(ENDINGS) < budget.left(CLOSING) < budget.left() < 1000.0


async def test_a_budget_that_is_used_leaves_nothing() -> None:
    """Nothing is left, and not less."""
    budget = DrainBudget(0.001)
    budget.left()
    await asyncio.sleep(0.01)
    assert [budget.left(), budget.left(CLOSING)] == [0.0, 0.0]


@contextlib.asynccontextmanager
async def closing(seen: list[str], *, forever: bool = False) -> AsyncGenerator[str, None]:
    """A context whose exit notes how it goes."""
    try:
        yield "entered"
    except KeyError:
        seen.append("told of the error")
    seen.append("left")
    try:
        if forever:
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise


async def test_an_exit_in_time_is_not_disturbed() -> None:
    """The context is entered and left once, and is not told of the error of the body."""
    seen: list[str] = []

    async def raising() -> None:
        async with DrainBudget(60).bound(closing(seen)) as entered:
            seen.append(entered)
            raise KeyError

    with pytest.raises(KeyError):
        await raising()
    assert seen == ["entered", "left"]


async def test_an_exit_that_takes_too_long_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps after it have the rest of the budget."""
    monkeypatch.setattr(drain_budget, "CLOSING", 0.0001)
    budget, seen = DrainBudget(600.0), list[str]()
    async with budget.bound(closing(seen, forever=True)):
        pass
    assert seen == ["left", "cancelled"]
    assert budget.left() > 0
