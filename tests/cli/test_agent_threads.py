"""The default executor of `towpath serve` knows for which run each of its calls was made."""

import asyncio
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from towpath.cli.agent_threads import AgentThreads
from towpath.runs.executor import CURRENT_RUN
from towpath.runs.model import RunKey

ALICES = RunKey(tenant="acme", user="alice", thread="t", run="r", agent="blocking")


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Lets the calls of a test return."""
    event = threading.Event()
    yield event
    event.set()


def call(threads: AgentThreads, key: RunKey | None, function: Any) -> Any:
    """Make a call in the context of a run."""
    context = copy_context()
    if key is not None:
        context.run(CURRENT_RUN.set, key)
    return context.run(threads.submit, function)


async def test_the_runs_of_calls_that_do_not_return_are_known(released: threading.Event) -> None:
    """Other calls and those that have returned are not; the pool waits for none at its end."""
    threads = AgentThreads()
    call(threads, ALICES, released.wait)
    call(threads, None, released.wait)
    await asyncio.wrap_future(call(threads, ALICES, lambda: None))
    assert await threads.join(0.01) == [ALICES]
    assert threads.busy


async def test_calls_that_return_are_awaited(released: threading.Event) -> None:
    """Nobody is named then, whatever the call raises."""
    threads = AgentThreads()

    def fail() -> None:
        released.wait()
        raise ValueError("broken")

    call(threads, ALICES, fail)
    asyncio.get_running_loop().call_later(0.01, released.set)
    assert await threads.join(60) == []
    assert not threads.busy


async def test_calls_that_wait_for_a_thread_are_not_begun(released: threading.Event) -> None:
    """Only those in progress are awaited."""
    threads, begun = AgentThreads(), list[int]()
    for _ in range(threads._max_workers):
        call(threads, ALICES, released.wait)
    late = call(threads, ALICES, lambda: begun.append(1))
    assert len(await threads.join(0.01)) == threads._max_workers
    assert late.cancelled()
    assert begun == []
