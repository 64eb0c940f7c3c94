"""Lost runs: the runs that another process left unfinished, and how each gets its one ending.

One process at a time has the log open. So a run that has begun, has no terminal event and is not in
progress in this process was left behind by a process that was killed or crashed. Its ending is
`run.lost`. Lost runs are looked for at the start, and again every `LOST_SECONDS`: the log may have
refused an ending, and an opening write may be durable although its caller got an error.

A start does not wait for the endings. A run that is started in a thread with a lost run waits for
the ending of that run only.

Runs that wait, for their turn or for a person, are not unfinished in this sense.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from towpath import telemetry
from towpath.errors import (
    CommandError,
    Conflict,
    OffsetConflict,
    StorageError,
    Unavailable,
    WriteFailed,
)
from towpath.runs.active import ActiveRuns
from towpath.runs.deps import RunDeps
from towpath.runs.encoding import RunEvent
from towpath.runs.executor import RunExecutor, read_back, run_fault, without_content
from towpath.runs.model import LogRange, RunKey, RunRecord, Status

T = TypeVar("T")

LOST_SECONDS: Final = 5.0
"""The time between two searches for lost runs, in seconds."""
AT_ONCE: Final = 16
"""How many lost runs are read back and ended together. Their endings share a commit; the bound is
on the memory for their conversations."""


class Ending(NamedTuple):
    """The ending of a lost run, before it is written."""

    executor: RunExecutor
    events: list[RunEvent]


class LostRuns:
    """Ends the runs that another process left unfinished."""

    def __init__(
        self, deps: RunDeps, active: ActiveRuns, on_ended: Callable[[RunKey], None]
    ) -> None:
        """End the lost runs of one log.

        Args:
            deps: the dependencies of runs.
            active: the runs of this process, which are not lost.
            on_ended: called with each lost run that was ended.
        """
        self._deps = deps
        self._active = active
        self._on_ended = on_ended
        self._reported: set[tuple[RunKey, type[Exception]]] = set()
        """Errors that were reported: a run that cannot be ended is tried again and again."""

    async def watch(self) -> None:
        """End lost runs at once, and again every `LOST_SECONDS`; does not end."""
        while True:
            try:
                await self.end()
            except (StorageError, CommandError) as error:
                fault = telemetry.InternalError(where="lost runs", error=error)
                self._deps.telemetry.emit(fault)
            await asyncio.sleep(LOST_SECONDS)

    async def end(self) -> None:
        """End the runs that are lost now.

        Raises:
            StorageError: the log cannot be used now.
        """
        lost = await self._find()
        keys = {record.key for record in lost}
        self._reported = {one for one in self._reported if one[0] in keys}
        for start in range(0, len(lost), AT_ONCE):
            await self._end_together(lost[start : start + AT_ONCE])

    async def end_in_thread(self, thread_key: tuple[str, str, str]) -> bool:
        """End the lost run of a thread, if the thread has one; return whether it has ended.

        Args:
            thread_key: the thread.

        Raises:
            Unavailable: the run has no ending after `ending_seconds`.
            StorageError: the log cannot be used now.
        """
        if any(key.thread_key == thread_key for key in self._active.keys):
            return False
        try:
            async with asyncio.timeout(self._deps.limits.ending_seconds):
                lost = [one for one in await self._find() if one.key.thread_key == thread_key]
                return any(await self._end_together(lost))
        except TimeoutError:
            raise Unavailable("the last run of the thread cannot be ended now") from None

    async def _find(self) -> list[RunRecord]:
        """Return the lost runs.

        A run that is active before the query may have ended when its answer arrives; a run that is
        active after the query may have begun meanwhile.
        """
        before = self._active.keys
        records = await self._deps.store.unfinished()
        active = {*before, *self._active.keys}
        return [record for record in records if record.key not in active]

    async def _end_together(self, records: Sequence[RunRecord]) -> list[bool]:
        """End runs; return for each of them whether it has ended.

        All runs are read back first, so that their endings are submitted together.

        Raises:
            StorageError: the log cannot be used now.
        """
        endings = await _all(self._read(record) for record in records)
        pairs = zip(records, endings, strict=True)
        return await _all(self._close(record, ending) for record, ending in pairs)

    async def _read(self, record: RunRecord) -> Ending | None:
        """Return the ending of a run with its content; None if the content cannot be read.

        Raises:
            StorageError: the log cannot be read now.
        """
        deps = self._deps
        try:
            run, log_range = await read_back(record.key, deps)
            events = run.begin({"messages": []}) if run.status is Status.PENDING else []
            events += run.lose()
        except Exception as error:  # Whatever the log holds of one run, the others are ended.
            if isinstance(error, StorageError):
                raise
            if not await self._has_ended(record.key):
                self._report(record.key, error)
            return None
        return Ending(RunExecutor(run, log_range, record.started_at, deps), events)

    async def _without_content(self, record: RunRecord) -> Ending:
        """Return the ending of a run whose content cannot be read, or cannot be stored.

        Raises:
            StorageError: the log cannot be read now.
        """
        deps = self._deps
        run, top = await without_content(record.key, None, deps)
        return Ending(RunExecutor(run, LogRange(None, top), record.started_at, deps), run.lose())

    async def _close(self, record: RunRecord, ending: Ending | None) -> bool:
        """Write the ending of a run, without its content if need be; return whether it has ended.

        Raises:
            StorageError: the log cannot be used now.
        """
        for attempt in (ending, None) if ending else (None,):
            try:
                executor, events = attempt or await self._without_content(record)
                await executor.close(events)
            except (Conflict, OffsetConflict):
                return True  # Another task has ended the run.
            except Exception as error:  # An ending that cannot be stored must not stop the others.
                if isinstance(error, StorageError) and not isinstance(error, WriteFailed):
                    raise
                self._report(record.key, error)
            else:
                self._on_ended(record.key)
                return True
        return False

    async def _has_ended(self, key: RunKey) -> bool:
        """Whether another task has ended a run: then a newer run may follow it in the log."""
        record = await self._deps.store.find_run(*key.run_id_key)
        return record is not None and record.ended_at is not None

    def _report(self, key: RunKey, error: Exception) -> None:
        """Emit an error that concerns one run, once."""
        if (key, type(error)) not in self._reported:
            self._reported.add((key, type(error)))
            self._deps.telemetry.emit(run_fault("lost runs", key, error))


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines concurrently; when all are over, raise the first error."""
    results: list[T] = []
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results
