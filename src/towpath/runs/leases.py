"""Leases: who holds a run in progress, and what becomes of one that nobody holds any more.

Whoever begins a run holds it for a while and says so again and again. Where that stops, because
its process died or hangs, the lease runs out, and whoever notices gives the run its one ending. A
holder that comes to life again finds that it has lost the run, and lets its agent go.

What a dead producer says late cannot stand in the log. Two things fence it off. In the channel,
each write of a run names the hold it belongs to, which is the offset of the run's first event, and
the ending that somebody else wrote has released that. And a log is open in one place at a time:
each opening raises its number, and who has an older one can write nothing
(`towpath.log.log_file`).

A run that waits, for its turn or for a person, has no lease: nobody holds it, and nobody can find
that it was abandoned.
"""

import asyncio
from collections.abc import Callable, Collection

from towpath import telemetry
from towpath.errors import Conflict, OffsetConflict, StorageError, WriteFailed
from towpath.log.broker import Write, write
from towpath.runs.executor import (
    BEATS,
    LogRange,
    RunDeps,
    RunExecutor,
    RunRecord,
    read_back,
    run_fault,
    without_content,
)
from towpath.runs.model import LeasesInherited, LeasesRenewed, RunKey
from towpath.runs.run_states import Status


class Leases:
    """Renews the leases of one bridge, and ends the runs that nobody holds."""

    def __init__(
        self,
        deps: RunDeps,
        live: Callable[[], Collection[RunExecutor]],
        opening: Callable[[], Collection[RunKey]],
        ended: Callable[[RunKey], None],
    ) -> None:
        """Take charge of leases.

        Args:
            around: what runs work with.
            live: the runs in progress here.
            opening: the runs whose first event is on its way to the log.
            ended: hears of each run that was ended because nobody held it.
        """
        self._deps = deps
        self._live = live
        self._opening = opening
        self._ended = ended

    async def take_over(self) -> None:
        """Hold whatever was held when the log was last open, and end it: nobody works on it.

        What cannot be ended now, because the log refuses it, is ended as its lease runs out.
        """
        deps = self._deps
        everything = LeasesInherited(holder=deps.holder, expires=deps.clock())
        try:
            await write(deps.broker, Write(facts=(everything,)))
            await self._end(await deps.conversations.unfinished())
        except StorageError as error:
            deps.telemetry.emit(telemetry.InternalError(where="leases", error=error))

    async def watch(self) -> None:
        """Beat, `BEATS` times in a lease; does not end."""
        while True:
            await asyncio.sleep(self._deps.limits.lease_seconds / BEATS)
            try:
                await self.beat()
            except StorageError as error:
                self._deps.telemetry.emit(telemetry.InternalError(where="leases", error=error))

    async def beat(self) -> None:
        """Renew what is held here, and end what nobody holds any more.

        Raises:
            StorageError: the log cannot be used now.
        """
        await self._renew()
        now = self._deps.clock()
        await self._end(await self._deps.conversations.abandoned(now))

    def _in_hand(self) -> tuple[RunKey, ...]:
        """Return the runs that are worked on here, whatever their leases say."""
        return (*(live.run.key for live in self._live()), *self._opening())

    async def _renew(self) -> None:
        """Go on holding what is in progress here; let go of what somebody else has ended."""
        deps, lives, keys = self._deps, list(self._live()), self._in_hand()
        if not keys:
            return
        renewed = LeasesRenewed(holder=deps.holder, keys=keys, expires=deps.lease_end())
        await write(deps.broker, Write(facts=(renewed,)))
        held = await deps.conversations.held(deps.holder)
        for live in lives:
            if live.run.key not in held:
                live.abandon()

    async def _end(self, records: list[RunRecord]) -> None:
        """Give runs that nobody works on their one ending.

        Raises:
            StorageError: the log cannot be used now.
        """
        for record in records:
            if record.key in self._in_hand():
                continue  # The log was slow to say that it is held.
            try:
                await self._end_one(record)
            except (Conflict, OffsetConflict):
                continue  # Somebody was faster, or its holder has come back.
            self._ended(record.key)

    async def _end_one(self, record: RunRecord) -> None:
        """End a run with what its events amount to, or without, where that cannot be written.

        Raises:
            Conflict, OffsetConflict: it has ended, or somebody holds it.
            StorageError: the log cannot be used now.
        """
        deps = self._deps
        try:
            run, log_range = await read_back(record.key, deps)
            made = run.begin({"messages": []}) if run.status is Status.PENDING else []
            await RunExecutor(run, log_range, record.started_at, deps).close([*made, *run.lose()])
        except Exception as error:
            if isinstance(error, Conflict | StorageError) and not isinstance(error, WriteFailed):
                raise
            deps.telemetry.emit(run_fault("leases", record.key, error))
            run, top = await without_content(record.key, None, deps)
            lost = RunExecutor(run, LogRange(None, top), record.started_at, deps)
            await lost.close(run.lose())
