"""Agents that exit in every way code can, behind a gateway for `--app`."""

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from towpath.agents import demo
from towpath.agents.adapters.pydantic_ai import from_pydantic_ai
from towpath.agents.agent import AgentInput
from towpath.gateway import Gateway
from towpath.telemetry import RunBegan, TelemetryEvent

gateway = Gateway()
gateway.agent("tools")(demo.tools)
gateway.agent("echo")(demo.echo)

forever: list[Any] = []
"""What agents leave behind, so that nothing of it is collected early."""


def exits(status: int = 3) -> None:
    sys.exit(status)


async def exits_later(seconds: float = 0.01) -> None:
    await asyncio.sleep(seconds)
    sys.exit(3)


@gateway.agent("exits")
async def exits_itself(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "a "
    exits()


@gateway.agent("interrupts")
async def interrupts(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "a "
    raise KeyboardInterrupt


@gateway.agent("parses")
async def parses(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "a "
    argparse.ArgumentParser(prog="tool").parse_args(["--no-such-option"])


@gateway.agent("task")
async def task(request: AgentInput) -> AsyncGenerator[object, None]:
    forever.append(asyncio.create_task(exits_later()))
    yield "a "
    await asyncio.Event().wait()


@gateway.agent("awaited")
async def awaited(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "a "
    await asyncio.create_task(exits_later())


@gateway.agent("group")
async def group(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "a "
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(exits_later())
        await asyncio.Event().wait()


@gateway.agent("anyio_group")
async def anyio_group(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "a "
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exits_later)
        await anyio.sleep_forever()


def called(schedule: Callable[[asyncio.AbstractEventLoop], object]) -> None:
    """Register an agent that waits for ever, and has something called that exits."""

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        yield "a "
        schedule(asyncio.get_running_loop())
        await asyncio.Event().wait()

    gateway.agent(f"called_{len(list(gateway.agents))}")(agent)


called(lambda loop: loop.call_soon(exits))
called(lambda loop: loop.call_later(0.01, exits))
called(lambda loop: loop.call_soon_threadsafe(exits))
called(lambda loop: loop.create_task(asyncio.sleep(0)).add_done_callback(lambda _: exits()))

CALLED = [agent.name for agent in gateway.agents if agent.name.startswith("called_")]


@gateway.agent("thread")
async def thread(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "a "
    await asyncio.to_thread(exits)


clerk = Agent(TestModel(), description="Has a tool that exits.")


@clerk.tool_plain
def leave() -> str:
    exits()
    return "left"


gateway.agent("pydantic")(from_pydantic_ai(clerk))


@gateway.agent("outlived")
async def outlived(request: AgentInput) -> AsyncGenerator[object, None]:
    """Its task exits when the run is over."""
    forever.append(asyncio.create_task(exits_later(0.2)))
    yield "a "


@gateway.agent("stops_the_loop")
async def stops_the_loop(request: AgentInput) -> AsyncGenerator[object, None]:
    asyncio.get_running_loop().stop()
    yield "a "


async def numbers() -> AsyncGenerator[int, None]:
    try:
        yield 1
        yield 2
    finally:
        exits()


@gateway.agent("leaves_open")
async def leaves_open(request: AgentInput) -> AsyncGenerator[object, None]:
    """Leaves a generator open that exits when it is closed, with the loop."""
    forever.append(numbers())
    yield str(await anext(forever[-1]))


@gateway.agent("exits_when_stopped")
async def exits_when_stopped(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "a "
    try:
        await asyncio.Event().wait()
    finally:
        exits()


def watcher_that_exits(happening: TelemetryEvent) -> None:
    if isinstance(happening, RunBegan):
        exits()


gateway.add_observer(watcher_that_exits)
