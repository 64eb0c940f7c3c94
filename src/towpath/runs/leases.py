"""Leases: who holds a run in progress, and how a run ends that nobody holds any more.

The process that begins a run holds its lease and renews it. Where the renewals stop, because the
process died or hangs, the lease expires, and another process gives the run its one ending. A holder
that continues after that finds that it has lost the lease, and stops its agent.

Late writes of a former holder are refused by two fences. In the channel, each write of a run names
the offset of the run's first event, and the ending that another process wrote has lifted that
fence. And a log is open in one place at a time: each opening raises its number, and a process with
an older number can write nothing (`towpath.log.log_file`).

A run that waits, for its turn or for a person, has no lease.
"""

import asyncio
from collections.abc import Callable

from towpath import telemetry
from towpath.errors import Conflict, OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import Write, write
from towpath.runs.active_runs import ActiveRuns
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


class Leases:
    """Renews the leases of one service, and ends the runs that nobody holds."""

    def __init__(
        self, deps: RunDeps, active: ActiveRuns, on_ended: Callable[[RunKey], None]
    ) -> None:
        """Take charge of leases.

        Args:
            deps: what runs work with.
            active: the runs that are worked on here.
            on_ended: called with each run that was ended because nobody held it.
        """
        self._deps = deps
        self._active = active
        self._on_ended = on_ended

    async def take_over(self) -> None:
        """Take over the leases of the process that had the log open last, and end their runs.

        A run that cannot be ended now, because the log refuses it, is ended as its lease expires.
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
        """Renew the leases held here, and end the runs that nobody holds any more.

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
        """End runs that nobody works on.

        Raises:
            StorageError: the log cannot be used now.
        """
        for record in records:
            if record.key in self._active.keys:
                continue  # The log was slow to renew its lease.
            try:
                await self._end_one(record)
            except (Conflict, OffsetConflict):
                continue  # Another process was faster, or the holder has renewed the lease.
            self._on_ended(record.key)

    async def _end_one(self, record: RunRecord) -> None:
        """End a run with its content, or without, where that cannot be written.

        Raises:
            Conflict, OffsetConflict: it has ended, or another process holds it.
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
