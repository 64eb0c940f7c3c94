"""Work under way, by key: whoever asks for what is under way already shares its one outcome.

A flight belongs to nobody who asked for it. One of them may leave, and the others still get the
answer; when the last one has left, the work is cancelled and nothing of it stays. Work that nobody
waits for (`begin`) flies on alone.
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
    """Whether it goes on with nobody waiting for it."""


class SingleFlight(Generic[K, T]):
    """The work under way; an async context manager whose exit cancels it and waits for its end."""

    def __init__(self, lost: Callable[[Exception], None]) -> None:
        """Have nothing under way.

        Args:
            lost: hears of what work raised while nobody waited for it.
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
        # What went wrong in the body is no failure of a flight: it goes on as it is, in no group.
        await self._group.__aexit__(None, None, None)

    async def share(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """Return the outcome of the work of this key, beginning it where it is not under way.

        Raises:
            Whatever the work raises, to everybody who shares it.
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
        """Begin the work of this key where it is not under way, and wait for nothing.

        It goes on to its end, whoever else shares it and leaves.
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
        except Exception as error:  # It belongs to those who asked, not to the group.
            flight.outcome.set_exception(error)
            if not flight.waiters:
                flight.outcome.exception()  # Asyncio would call it never retrieved.
                self._lost(error)
        else:
            flight.outcome.set_result(made)
        finally:
            self._forget(key, flight)

    def _cancel(self, key: K, flight: _Flight[T]) -> None:
        """Cancel a flight nobody waits for; whoever asks from now on begins another one."""
        self._forget(key, flight)
        assert flight.task is not None, "a flight has its task from its beginning"
        flight.task.cancel()

    def _finish(self, key: K, flight: _Flight[T]) -> None:
        """Let everybody go; a task cancelled before its first step never comes to do so itself."""
        self._forget(key, flight)
        flight.outcome.cancel()

    def _forget(self, key: K, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
