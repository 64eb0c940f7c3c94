"""Calls from threads into a gateway: a coroutine runs on the event loop, and the thread waits.

A thread that waits holds a future. Each future is registered under the lock while the portal is
open, and closing the portal cancels every registered future. So no thread waits forever: this is
the reason not to use anyio's portal, which waits for calls without a bound when it closes.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Any, ParamSpec, TypeVar

from towpath.errors import CalledOnEventLoop, NotRunning, StoppedDuringCall

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """Runs coroutines on a gateway's event loop for threads."""

    def __init__(self) -> None:
        """Make a portal that is closed."""
        self._lock = threading.Lock()
        """Held by threads for each registration of a call, and by the loop to open and close."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        """The thread of the event loop, while the portal is open."""
        self._calls: set[Future[Any]] = set()
        """What threads wait for."""
        self._tasks: set[asyncio.Task[Any]] = set()
        """The tasks of the calls that have begun."""

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function on the gateway's event loop and wait for its result.

        Called from any thread but that of the event loop. The function is called on the event
        loop, in a copy of the thread's context variables.

        Args:
            function: a coroutine function, such as `gateway.drain`.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            What the coroutine returns.

        Raises:
            NotRunning: the gateway has not started, or has stopped.
            StoppedDuringCall: a NotRunning; the gateway stopped before the call ended, and has
                cancelled it. The call may have taken effect.
            CalledOnEventLoop: the thread is that of the event loop; await the coroutine there.
            concurrent.futures.CancelledError: the coroutine was cancelled by somebody else.
            Exception: what the coroutine raises.
        """
        with self._lock:
            loop = self._loop
            if loop is None or loop.is_closed():
                raise NotRunning
            if self._thread_id == threading.get_ident():
                raise CalledOnEventLoop(getattr(function, "__qualname__", repr(function)))
            future = asyncio.run_coroutine_threadsafe(self._run(function, *args, **kwargs), loop)
            self._calls.add(future)
        try:
            return future.result()
        except CancelledError:
            if self._loop is loop:
                raise
            raise StoppedDuringCall from None
        finally:
            self._calls.discard(future)

    @contextlib.asynccontextmanager
    async def open(self, *, close_seconds: float) -> AsyncGenerator[None, None]:
        """Accept calls until the context ends; then cancel those in progress.

        Args:
            close_seconds: how long a cancelled call may clean up; its thread does not wait for it.
        """
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._thread_id = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                self._loop = None
                calls = list(self._calls)
            for call in calls:
                call.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=close_seconds)

    async def _run(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        task = asyncio.current_task()
        assert task is not None, "a task runs the call"
        self._tasks.add(task)
        try:
            return await function(*args, **kwargs)
        finally:
            self._tasks.discard(task)
