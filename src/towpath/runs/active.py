"""The runs of one process: those in progress, and those whose first event is being written.

A run is added before its first event can be in the log, and removed once its ending is there. So
an unfinished run that is in the log and not here has no executor in this process
(`towpath.runs.lost`).
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from towpath.runs.executor import RunExecutor
from towpath.runs.model import RunKey
from towpath.runs.pushes import Pushes


class ActiveRuns:
    """The runs of one service that are in progress or being opened."""

    def __init__(self) -> None:
        self._executors: dict[tuple[str, str, str], RunExecutor] = {}
        self._pushes: dict[tuple[str, str, str], Pushes] = {}
        self._opening: dict[asyncio.Event, RunKey] = {}
        """Runs whose first event is being written; the `Event` is set when that write is over."""

    def __len__(self) -> int:
        """Return how many runs are in progress."""
        return len(self._executors)

    def __iter__(self) -> Iterator[RunExecutor]:
        """Yield the runs in progress as they are now."""
        return iter(list(self._executors.values()))

    def get(self, run_id_key: tuple[str, str, str]) -> RunExecutor | None:
        """Return a run in progress."""
        return self._executors.get(run_id_key)

    def pushes(self, run_id_key: tuple[str, str, str]) -> Pushes | None:
        """Return how to push into a run in progress."""
        return self._pushes.get(run_id_key)

    async def find(self, run_id_key: tuple[str, str, str]) -> RunExecutor | None:
        """Return a run in progress; if it is being opened, wait for that write first."""
        await self.opened(lambda key: key.run_id_key == run_id_key)
        return self.get(run_id_key)

    def of_thread(self, thread_key: tuple[str, str, str]) -> list[RunExecutor]:
        """Return the runs in progress of a thread."""
        return [one for one in self if one.run.key.thread_key == thread_key]

    @property
    def keys(self) -> tuple[RunKey, ...]:
        """The runs in progress or being opened here."""
        return (*(one.run.key for one in self), *self._opening.values())

    def add(self, executor: RunExecutor, pushes: Pushes) -> None:
        """Add a run that is in progress."""
        self._executors[executor.run.key.run_id_key] = executor
        self._pushes[executor.run.key.run_id_key] = pushes

    def remove(self, executor: RunExecutor) -> None:
        """Remove a run that has ended and whose agent is no longer waited for."""
        del self._executors[executor.run.key.run_id_key]
        del self._pushes[executor.run.key.run_id_key]

    @contextlib.contextmanager
    def opening(self, key: RunKey) -> Iterator[None]:
        """Record that a run's first event is being written, as long as the context is open."""
        answered = asyncio.Event()
        self._opening[answered] = key
        try:
            yield
        finally:
            del self._opening[answered]
            answered.set()

    async def opened(self, matches: Callable[[RunKey], bool]) -> None:
        """Wait until the opening writes of matching runs are over."""
        for answered, key in list(self._opening.items()):
            if matches(key):
                await answered.wait()
