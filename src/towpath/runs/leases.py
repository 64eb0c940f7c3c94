"""Leases: which process holds a run in progress, and how abandoned runs are ended.

The process that begins a run holds its lease and renews it. If the process dies or hangs, the lease
expires, and another process writes the run's ending. A former holder that continues after that
notices that it has lost the lease, and stops its agent.

Late writes of a former holder are refused by two fences. In the channel, each write of a run names
the offset of the run's first event, and the ending by another process has removed that fence. In
the log's file, each opening increments a number, and a process with an older number can write
nothing (`towpath.log.sqlite.log_file`).

A run that waits, for its turn or for a person, has no lease. `ActiveRuns` are the runs that this
process holds.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from towpath import telemetry
from towpath.errors import Conflict, OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import Write, write
from towpath.runs.deps import RENEWALS, RunDeps
from towpath.runs.executor import RunExecutor, read_back, run_fault, without_content
from towpath.runs.model import (
    LeasesInherited,
    LeasesRenewed,
    LogRange,
    RunKey,
    RunRecord,
    Status,
)
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
        """The runs in progress or being opened here, whatever their leases say."""
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


class Leases:
    """Renews the leases of one service, and ends abandoned runs."""

    def __init__(
        self, deps: RunDeps, active: ActiveRuns, on_ended: Callable[[RunKey], None]
    ) -> None:
        """Manage the leases of one service.

        Args:
            deps: the dependencies of runs.
            active: the runs in progress here.
            on_ended: called with each abandoned run that was ended.
        """
        self._deps = deps
        self._active = active
        self._on_ended = on_ended

    async def take_over(self) -> None:
        """Take over the leases of the process that had the log open last, and end their runs.

        If the log refuses the ending of a run now, `watch` ends the run once its lease has expired.
        """
        deps = self._deps
        inherited = LeasesInherited(holder=deps.holder, expires=deps.now())
        try:
            await write(deps.broker, Write(facts=(inherited,)))
            await self._end(await deps.store.unfinished())
        except StorageError as error:
            deps.telemetry.emit(telemetry.InternalError(where="leases", error=error))

    async def watch(self) -> None:
        """Renew leases and end abandoned runs, `RENEWALS` times in a lease; does not end."""
        while True:
            await asyncio.sleep(self._deps.limits.lease_seconds / RENEWALS)
            try:
                await self.renew()
            except StorageError as error:
                self._deps.telemetry.emit(telemetry.InternalError(where="leases", error=error))

    async def renew(self) -> None:
        """Renew the leases held here, and end abandoned runs.

        Raises:
            StorageError: the log cannot be used now.
        """
        await self._renew()
        now = self._deps.now()
        await self._end(await self._deps.store.abandoned(now))

    async def _renew(self) -> None:
        """Renew the leases of the runs here; abandon those that another process has ended."""
        deps, executors, keys = self._deps, list(self._active), self._active.keys
        if not keys:
            return
        renewed = LeasesRenewed(holder=deps.holder, keys=keys, expires=deps.lease_end())
        await write(deps.broker, Write(facts=(renewed,)))
        held = await deps.store.held(deps.holder)
        for executor in executors:
            if executor.run.key not in held:
                executor.abandon()

    async def _end(self, records: list[RunRecord]) -> None:
        """End runs, except those in progress here.

        Raises:
            StorageError: the log cannot be used now.
        """
        for record in records:
            if record.key in self._active.keys:
                continue  # The run is in progress here; its lease was renewed late.
            try:
                await self._end_one(record)
            except (Conflict, OffsetConflict):
                continue  # Another process was faster, or the holder has renewed the lease.
            self._on_ended(record.key)

    async def _end_one(self, record: RunRecord) -> None:
        """End a run with its content; without, if the content cannot be read or written.

        Raises:
            Conflict, OffsetConflict: the run has ended, or another process holds it.
            StorageError: the log cannot be used now.
        """
        deps = self._deps
        try:
            run, log_range = await read_back(record.key, deps)
            events = run.begin({"messages": []}) if run.status is Status.PENDING else []
            await RunExecutor(run, log_range, record.started_at, deps).close([*events, *run.lose()])
        except Exception as error:
            if isinstance(error, Conflict | StorageError) and not isinstance(error, WriteFailed):
                raise
            deps.telemetry.emit(run_fault("leases", record.key, error))
            run, top = await without_content(record.key, None, deps)
            lost = RunExecutor(run, LogRange(None, top), record.started_at, deps)
            await lost.close(run.lose())
