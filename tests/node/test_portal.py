"""Threads call into a gateway: they get results and errors, and never wait for a stopped one."""

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from towpath.agents.agent import AgentInput
from towpath.errors import CalledOnEventLoop, NotFound, NotRunning, StoppedDuringCall
from towpath.gateway import Gateway
from towpath.identity import Principal, UserExecutionContext
from towpath.manager.results import StartedRun
from towpath.node.node import Node, Phase
from towpath.node.portal import Portal
from towpath.settings import Settings

ALICE = Principal(tenant="acme", user="alice")
THREADS, CALLS = 6, 40
TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="none")


def make_gateway(data: Path, **settings: Any) -> Gateway:
    """Return a gateway with an issuer."""
    key = SecretStr("a shared secret of more than 32 bytes")
    return Gateway(Settings(data=data, jwt_key=key, tenant="acme", **settings))


def node_of(gateway: Gateway) -> Node:
    """Return the running parts of a gateway."""
    assert gateway.node is not None
    return gateway.node


async def pause(seconds: float = 0.0) -> str:
    """Wait, and say that it was waited."""
    await asyncio.sleep(seconds)
    return "waited"


class Waiting:
    """A coroutine function that waits until it is released, and records how that ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.released = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> str:
        self.began.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "released"


class Stubborn(Waiting):
    """Waits on when it is cancelled."""

    async def __call__(self) -> str:
        try:
            return await super().__call__()
        except asyncio.CancelledError:
            await self.released.wait()
            return "released"


def in_thread(gateway: Gateway, function: Callable[[], Awaitable[Any]]) -> "asyncio.Future[Any]":
    """Call a coroutine function from a thread of its own; return what the thread gets."""
    got = asyncio.get_running_loop().run_in_executor(None, gateway.portal.call, function)
    got.add_done_callback(lambda future: future.cancelled() or future.exception())
    return got


async def test_a_thread_runs_a_coroutine_of_the_gateway_and_gets_its_result(tmp_path: Path) -> None:
    """A run that a thread starts is the person's run: the gateway knows it under the same id."""
    gateway = make_gateway(tmp_path)

    @gateway.agent("echo")
    async def echo(request: AgentInput) -> AsyncGenerator[str, None]:
        yield request.message

    context = UserExecutionContext(tenant="acme", user="alice")
    async with gateway.lifespan():
        call = functools.partial(gateway.portal.call, gateway.start_run, context, "echo", "hello")
        started = await asyncio.to_thread(call)
        assert isinstance(started, StartedRun)
        record = await node_of(gateway).parts.store.find_run("acme", "alice", started.run)
    assert record is not None
    assert record.key.agent == "echo"


async def test_the_coroutine_runs_on_the_event_loop_in_the_context_of_the_thread(
    tmp_path: Path,
) -> None:
    """It runs in the loop's thread, with the arguments and the context variables of the caller."""
    gateway = make_gateway(tmp_path)

    async def look(name: str, *, mark: str) -> tuple[int, str, str, str]:
        return threading.get_ident(), name, mark, TRACE.get()

    def worker() -> tuple[int, str, str, str]:
        TRACE.set("trace-1")
        return gateway.portal.call(look, "pears", mark="ripe")

    async with gateway.lifespan():
        seen = await asyncio.to_thread(worker)
    assert seen == (threading.get_ident(), "pears", "ripe", "trace-1")


async def test_an_error_passes_to_the_thread(tmp_path: Path) -> None:
    """What the coroutine raises is raised in the thread, with its type."""
    gateway = make_gateway(tmp_path)
    async with gateway.lifespan():
        with pytest.raises(NotFound, match="no such run"):
            await in_thread(gateway, lambda: node_of(gateway).runs.cancel(ALICE, "missing"))


async def test_a_cancellation_passes_to_the_thread(tmp_path: Path) -> None:
    """A call that is cancelled while the gateway runs ends as cancelled, not as NotRunning."""
    gateway = make_gateway(tmp_path)

    async def cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    def worker() -> None:
        with pytest.raises(concurrent.futures.CancelledError):
            gateway.portal.call(cancelled)

    async with gateway.lifespan():
        await asyncio.to_thread(worker)
        assert await in_thread(gateway, pause) == "waited"


async def test_before_the_start_and_after_the_stop_the_gateway_is_not_running(
    tmp_path: Path,
) -> None:
    """Both raise NotRunning at once, which says what to do; a new lifespan accepts calls again."""
    gateway = make_gateway(tmp_path)
    for _ in range(2):
        with pytest.raises(NotRunning, match=r"gateway\.mount"):
            await in_thread(gateway, pause)
        async with gateway.lifespan():
            assert await in_thread(gateway, pause) == "waited"
    with pytest.raises(NotRunning):
        await in_thread(gateway, pause)


async def test_the_thread_of_the_event_loop_is_refused(tmp_path: Path) -> None:
    """There a blocking call would wait for itself: the error says to await the coroutine."""
    gateway = make_gateway(tmp_path)
    async with gateway.lifespan():
        with pytest.raises(CalledOnEventLoop, match=r"await Gateway\.drain\(\.\.\.\) instead"):
            gateway.portal.call(gateway.drain)
        assert gateway.phase is Phase.READY


async def test_another_event_loop_may_call(tmp_path: Path) -> None:
    """A thread that runs a loop of its own is a thread like any other."""
    gateway = make_gateway(tmp_path)

    async def other() -> str:
        return gateway.portal.call(pause)

    async with gateway.lifespan():
        assert await asyncio.to_thread(asyncio.run, other()) == "waited"


async def test_a_call_in_flight_when_the_gateway_stops_ends_with_an_error(tmp_path: Path) -> None:
    """The stop cancels the call; the thread learns that it may have taken effect."""
    gateway, waiting = make_gateway(tmp_path), Waiting()
    async with gateway.lifespan():
        call = in_thread(gateway, waiting)
        await waiting.began.wait()
    with pytest.raises(StoppedDuringCall, match="may have taken effect"):
        await call
    assert waiting.cancelled


async def test_a_call_that_ignores_its_cancellation_does_not_keep_the_gateway(
    tmp_path: Path,
) -> None:
    """The thread gets its error before the coroutine ends, and the stop waits a bounded time."""
    gateway, stubborn = make_gateway(tmp_path, close_timeout=0.1), Stubborn()
    async with gateway.lifespan():
        call = in_thread(gateway, stubborn)
        await stubborn.began.wait()
    assert gateway.phase is Phase.STOPPED
    with pytest.raises(NotRunning):
        await call
    stubborn.released.set()


async def test_a_call_that_cleans_up_is_waited_for_while_the_log_is_open(tmp_path: Path) -> None:
    """A cancelled call may still use the gateway in its clean-up."""
    gateway, waiting = make_gateway(tmp_path), Waiting()
    seen: list[bool] = []

    async def cleans_up() -> None:
        try:
            await waiting()
        finally:
            store = node_of(gateway).parts.store
            seen.extend([await store.exists("acme", "alice", "none") for _ in range(50)])

    async with gateway.lifespan():
        call = in_thread(gateway, cleans_up)
        await waiting.began.wait()
    with pytest.raises(NotRunning):
        await call
    assert seen == [False] * 50


async def test_calls_are_answered_while_the_gateway_drains(tmp_path: Path) -> None:
    """The portal closes after the drain: a thread that the drain depends on gets its result."""

    answers = []

    class CallsWhileDraining(Gateway):
        async def drain(self) -> None:
            answers.append(await in_thread(self, pause))
            await super().drain()
            answers.append(await in_thread(self, pause))

    gateway = CallsWhileDraining(make_gateway(tmp_path).settings)
    async with gateway.lifespan():
        pass
    assert answers == ["waited", "waited"]
    with pytest.raises(NotRunning):
        await in_thread(gateway, pause)


async def test_a_thread_may_drain_the_gateway(tmp_path: Path) -> None:
    """`gateway.portal.call(gateway.drain)` returns when the drain has ended."""
    gateway = make_gateway(tmp_path)
    async with gateway.lifespan():
        await asyncio.to_thread(gateway.portal.call, gateway.drain)
        assert gateway.phase is Phase.DRAINING


async def test_no_thread_is_left_waiting_whenever_the_gateway_stops(tmp_path: Path) -> None:
    """Threads call without a pause while the gateway stops: each call has a result or an error."""
    gateway = make_gateway(tmp_path)
    under_way = threading.Semaphore(0)

    def worker() -> list[str]:
        results = []
        while "not running" not in results:
            try:
                results.append(gateway.portal.call(pause))
            except NotRunning:
                results.append("not running")
            under_way.release()
        return results

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        async with gateway.lifespan():
            workers = [pool.submit(worker) for _ in range(THREADS)]
            for _ in range(THREADS * CALLS):
                await asyncio.to_thread(under_way.acquire)
        done = await asyncio.to_thread(concurrent.futures.wait, workers, 30)
    assert not done.not_done
    assert all(set(one.result()) <= {"waited", "not running"} for one in workers)


async def test_a_call_that_is_registered_while_the_portal_closes_is_ended_too() -> None:
    """The thread is held between its look at the portal and its registration; it does not wait."""
    portal, loop = Portal(), asyncio.get_running_loop()
    schedule, waiting = loop.call_soon_threadsafe, Waiting()
    between, closed = threading.Event(), threading.Event()

    def held(*arguments: Any, **options: Any) -> asyncio.Handle:
        if threading.current_thread().name == "held" and not between.is_set():
            between.set()
            closed.wait(0.3)  # Shorter than the close, which waits for this registration.
        return schedule(*arguments, **options)

    def worker() -> None:
        with pytest.raises(NotRunning):
            portal.call(waiting)
        ended.set()

    loop.call_soon_threadsafe = held  # type: ignore[assignment,method-assign]
    ended = threading.Event()
    async with portal.open(close_seconds=1):
        threading.Thread(target=worker, name="held", daemon=True).start()
        await asyncio.to_thread(between.wait)
    closed.set()
    assert await asyncio.to_thread(ended.wait, 10)


def test_a_loop_that_was_closed_without_the_lifespans_end_is_not_running() -> None:
    """A host that abandons the lifespan leaves no call waiting on its closed loop."""
    portal = Portal()
    loop = asyncio.new_event_loop()
    opened = portal.open(close_seconds=1)
    loop.run_until_complete(opened.__aenter__())
    loop.close()
    with pytest.raises(NotRunning):
        portal.call(pause)
