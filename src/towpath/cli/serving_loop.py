"""The event loop of `towpath serve`, which continues if agent code exits.

SystemExit and KeyboardInterrupt that leave a task or a callback leave the event loop too: asyncio
and uvloop raise them out of `run_until_complete`. The run executor catches what an agent function
raises, but not what a task, timer or callback raises that the agent started. So `ServingLoop`
catches it outside of the loop, and runs the same main task on the same loop again; callbacks that
were ready still run. A mounted gateway does not run the loop, and cannot do this.

The context of the callback identifies the agent, but is lost once the loop has ended. So
callbacks that are scheduled in the context of a run carry the run's key. All other callbacks cost
one lookup in their context.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from towpath.runs.executor import CURRENT_RUN
from towpath.runs.model import RunKey

T = TypeVar("T")

GENERATORS_SECONDS = 1.0
"""How long the generators that agents left open may take to close."""

Exited = Callable[[RunKey | None, BaseException], None]
"""Called with an exit, within the loop; the key is None if the run is not known."""


class ServingLoop:
    """Runs one main task to its end, even if agents exit meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, exited: Exited) -> None:
        """Take over a loop that has not run yet.

        Args:
            loop: of asyncio or uvloop.
            exited: called with each exit.
        """
        self._loop = loop
        self._exited = exited
        self._seen: list[tuple[RunKey | None, BaseException]] = []
        """Exits that are about to leave the loop."""
        for name in ("call_soon", "call_soon_threadsafe"):
            setattr(loop, name, self._soon(getattr(loop, name)))
        for name in ("call_later", "call_at"):
            setattr(loop, name, self._timed(getattr(loop, name)))

    def run(self, main: "Coroutine[Any, Any, T] | asyncio.Task[T]") -> T:
        """Run one task to its end and return its result, or raise what it raises."""
        task = asyncio.ensure_future(main, loop=self._loop)
        while not task.done():
            try:
                self._loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if not _raised_by(task, error):
                    self._report(error)
            except RuntimeError as error:  # Some code called `loop.stop()`.
                if task.done() or self._loop.is_closed():
                    break
                self._report(error)
        return task.result()

    def close(self) -> None:
        """Close the loop and what it still holds; the clean-up of agents may exit here too.

        Neither generators that do not close nor threads of the default executor are waited for.
        """
        try:
            self.run(self._close_generators())
        finally:
            self._loop.close()

    async def _close_generators(self) -> None:
        closing = asyncio.ensure_future(self._loop.shutdown_asyncgens())
        await asyncio.wait((closing,), timeout=GENERATORS_SECONDS)

    def _report(self, error: BaseException) -> None:
        """Report what left the loop, once the loop runs again."""
        seen, self._seen = self._seen, []
        if all(error is not one for _, one in seen):
            seen.append((None, error))
        for key, one in seen:
            self._loop.call_soon(self._exited, key, one)

    def _soon(self, schedule: Callable[..., Any]) -> Callable[..., Any]:
        def call(callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
            callback = self._with_key(callback, context)
            if args:
                return schedule(callback, *args, context=context)
            return schedule(callback, context=context)

        return call

    def _timed(self, schedule: Callable[..., Any]) -> Callable[..., Any]:
        def call(
            when: float,
            callback: Callable[..., Any],
            *args: Any,
            context: Context | None = None,
        ) -> Any:
            return schedule(when, self._with_key(callback, context), *args, context=context)

        return call

    def _with_key(
        self, callback: Callable[..., Any], context: Context | None
    ) -> Callable[..., Any]:
        """Attach the key of the run in whose context a callback is scheduled, if any."""
        key = CURRENT_RUN.get(None) if context is None else context.get(CURRENT_RUN)
        return callback if key is None else functools.partial(self._step, key, callback)

    def _step(self, key: RunKey, callback: Callable[..., Any], *args: Any) -> None:
        """Run a callback of an agent, and record the run if the callback exits."""
        try:
            callback(*args)
        except (SystemExit, KeyboardInterrupt) as error:
            if all(error is not one for _, one in self._seen):
                self._seen.append((key, error))
            _retrieve(getattr(callback, "__self__", None))
            raise


def _retrieve(owner: object) -> None:
    """Mark the exception of a task as retrieved, so that asyncio does not log it too."""
    if isinstance(owner, asyncio.Task) and owner.done() and not owner.cancelled():
        owner.exception()


def _raised_by(task: "asyncio.Task[Any]", error: BaseException) -> bool:
    return task.done() and not task.cancelled() and task.exception() is error
