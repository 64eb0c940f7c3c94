"""The default executor of `towpath serve`: the threads in which agents block.

A call of `asyncio.to_thread` cannot be cancelled: its thread goes on after the agent has ended, and
Python waits for it without a bound when a process ends. So the executor knows the run of each call,
and `towpath serve` waits a bounded time, names what is left, and ends.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from towpath.runs.executor import CURRENT_RUN
from towpath.runs.model import RunKey

P = ParamSpec("P")
T = TypeVar("T")


class AgentThreads(ThreadPoolExecutor):
    """A thread pool that knows for which run each of its calls was made."""

    def __init__(self) -> None:
        """Make a pool of the size that asyncio gives its own."""
        super().__init__(thread_name_prefix="towpath-agents")
        self._calls: dict[Future[Any], RunKey | None] = {}
        """The calls that have not returned."""

    @property
    def busy(self) -> bool:
        """Whether a call has not returned."""
        return bool(self._calls)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule a call."""
        future = super().submit(fn, *args, **kwargs)
        self._calls[future] = CURRENT_RUN.get(None)
        future.add_done_callback(self._calls.pop)
        return future

    async def join(self, within: float) -> list[RunKey]:
        """Begin no more calls, and wait until those in progress have returned.

        Args:
            within: how many seconds to wait.

        Returns:
            The runs of the calls that have not returned.
        """
        self.shutdown(wait=False, cancel_futures=True)
        if calls := [asyncio.wrap_future(call) for call in list(self._calls)]:
            done, _ = await asyncio.wait(calls, timeout=within)
            for call in done:  # Retrieves the error: no task awaits the call any more.
                call.cancelled() or call.exception()
        return [key for key in list(self._calls.values()) if key is not None]
