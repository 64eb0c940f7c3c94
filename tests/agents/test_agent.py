"""The registry: what cannot be asked is refused when it is registered."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.runs.stage import saying
from towpath.agents.agent import AgentInput, AgentRegistry, InvalidAgent
from towpath.errors import NotFound


async def fine(request: AgentInput) -> AsyncGenerator[object, None]:
    """Say so.

    And no more.
    """
    yield request.message


class Callable:
    """An object that can be called like an agent; the class itself cannot."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    async def __call__(self, request: AgentInput) -> AsyncGenerator[object, None]:
        yield request.message

    async def method(self, request: AgentInput) -> AsyncGenerator[object, None]:
        yield request.message


async def coroutine(request: AgentInput) -> str:
    return request.message


def plain(request: AgentInput) -> str:
    return request.message


def generator(request: AgentInput) -> Any:
    yield request.message


async def nothing() -> AsyncGenerator[object, None]:
    yield 1


async def two(request: AgentInput, more: int) -> AsyncGenerator[object, None]:
    yield more


async def named(*, request: AgentInput) -> AsyncGenerator[object, None]:
    yield request.message


@pytest.mark.parametrize(
    ("name", "function", "deadline", "fault"),
    [
        ("new", None, 1, "async generator"),
        ("new", "text", 1, "async generator"),
        ("new", plain, 1, "async generator"),
        ("new", generator, 1, "async generator"),
        ("new", coroutine, 1, "async generator"),
        ("new", Callable, 1, "async generator"),
        ("new", nothing, 1, "exactly one argument"),
        ("new", two, 1, "exactly one argument"),
        ("new", named, 1, "exactly one argument"),
        ("taken", fine, 1, "registered already"),
        ("", fine, 1, "name of 1 to 128"),
        ("x" * 129, fine, 1, "name of 1 to 128"),
        ("a\nb", fine, 1, "name of 1 to 128"),
        (None, fine, 1, "name of 1 to 128"),
        ("new", fine, 0, "deadline above 0"),
        ("new", fine, -1, "deadline above 0"),
    ],
)
def test_r50_a_wrong_agent_is_refused_by_its_fault(
    name: Any, function: Any, deadline: float, fault: str
) -> None:
    """Registration says what is wrong with it, and the agents that are there stay."""
    registry = AgentRegistry()
    there = saying("there")
    registry.register("taken", there, deadline=5)
    with pytest.raises(InvalidAgent, match=fault) as caught:
        registry.register(name, function, deadline=deadline)
    assert caught.value.name == name
    assert [agent.name for agent in registry] == ["taken"]
    agent = registry.get("taken")
    assert (agent.function, agent.deadline) == (there, 5)


def test_an_agent_may_be_a_function_a_method_or_an_object() -> None:
    """Whatever yields for one argument is an agent; its first line is what it does."""
    registry = AgentRegistry()
    registry.register("function", fine, deadline=1)
    registry.register("object", Callable(), deadline=1)
    registry.register("method", Callable().method, deadline=1, description="mine")
    assert len(registry) == 3
    assert registry.get("function").description == "Say so."
    assert registry.get("method").description == "mine"
    with pytest.raises(NotFound):
        registry.get("nobody")
