"""Work in progress, by key: concurrent callers with the same key share one flight and its outcome.

If one caller is cancelled, the other callers still get the outcome. If the last caller is
cancelled, the work is cancelled and its flight is removed. Work started with `begin` runs to its
end without callers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Flight(Generic[T]):
    outcome: "asyncio.Future[T]"
    task: "asyncio.Task[None] | None" = None
    waiters: int = 0
    alone: bool = False
    """Whether it continues without callers."""


class SingleFlight(Generic[K, T]):
    """The work in progress; an async context manager whose exit cancels and awaits the work."""

    def __init__(self, lost: Callable[[Exception], None]) -> None:
        """Start with no work in progress.

        Args:
            lost: called with an exception of work that no caller waits for.
        """
        self._lost = lost
        self._group = asyncio.TaskGroup()
        self._flights: dict[K, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for flight in list(self._flights.values()):
            assert flight.task is not None, "a flight has its task from its beginning"
            flight.task.cancel()
        # An exception of the body is not a flight's: it propagates as it is, not as a group.
        await self._group.__aexit__(None, None, None)

    async def share(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """Return the outcome of the work of this key; begin the work if it is not in progress.

        Raises:
            Whatever the work raises, to every caller that shares it.
        """
        flight = self._flights.get(key) or self._begin(key, work)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.outcome)
        finally:
            flight.waiters -= 1
            if not (flight.waiters or flight.alone or flight.outcome.done()):
                self._cancel(key, flight)

    def begin(self, key: K, work: Callable[[], Awaitable[T]]) -> None:
        """Begin the work of this key if it is not in progress, and do not wait for it.

        The work runs to its end, even if all callers that share it are cancelled.
        """
        flight = self._flights.get(key) or self._begin(key, work)
        flight.alone = True

    def _begin(self, key: K, work: Callable[[], Awaitable[T]]) -> _Flight[T]:
        flight = self._flights[key] = _Flight[T](asyncio.get_running_loop().create_future())
        flight.task = self._group.create_task(self._fly(key, flight, work))
        flight.task.add_done_callback(lambda _: self._finish(key, flight))
        return flight

    async def _fly(self, key: K, flight: _Flight[T], work: Callable[[], Awaitable[T]]) -> None:
        try:
            made = await work()
        except Exception as error:  # It is for the callers, not for the task group.
            flight.outcome.set_exception(error)
            if not flight.waiters:
                flight.outcome.exception()  # Else asyncio logs it as never retrieved.
                self._lost(error)
        else:
            flight.outcome.set_result(made)
        finally:
            self._forget(key, flight)

    def _cancel(self, key: K, flight: _Flight[T]) -> None:
        """Cancel a flight without callers; the next caller begins another one."""
        self._forget(key, flight)
        assert flight.task is not None, "a flight has its task from its beginning"
        flight.task.cancel()

    def _finish(self, key: K, flight: _Flight[T]) -> None:
        """End the flight for all callers: a task cancelled before its first step does not."""
        self._forget(key, flight)
        flight.outcome.cancel()

    def _forget(self, key: K, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
