"""The writer of the embedded log: one thread, one commit per batch of writes.

Writes wait in a queue while a commit runs. The writer then takes all of them, commits once, and
passes the batch to the event loop. So the writer waits for the disk once per batch, and the event
loop never does.

When the file cannot be written, the health of the log changes (`towpath.log.sqlite.health`). Then
the writer refuses at once the writes that this state does not allow, and probes the file about
every second until it can be written again.
"""

import asyncio
import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from towpath import telemetry
from towpath.channels import Channel
from towpath.log.broker import Append, Span, Write, Written
from towpath.log.sqlite.batch import Outcome
from towpath.log.sqlite.continuity import Continuity
from towpath.log.sqlite.disk_reserve import DiskReserve, health_on_disk
from towpath.log.sqlite.heads import ChannelDamaged
from towpath.log.sqlite.health import ERRORS, FINAL, LogHealth, allows, health_of, refusal
from towpath.log.sqlite.log_file import LogFile

SWEEP_SECONDS = 60.0
"""The seconds between two sweeps for expired publications."""
PROBE_SECONDS = 1.0
"""The seconds between two probes of a log that cannot be written."""


@dataclass(slots=True)
class Pending:
    """A submitted write and its future."""

    write: Write
    future: "asyncio.Future[Written]"
    since: float
    """When it was submitted, in seconds of a monotonic clock."""
    size: int
    """The bytes of its payloads."""


class WriterEvents(Protocol):
    """What the writer notifies, in its own thread."""

    def committed(self, batch: list[Pending], outcomes: list[Outcome]) -> None:
        """A batch was committed, or refused."""

    def reset(self, channel: Channel, outcome: tuple[Append, Span] | Exception | None) -> None:
        """A channel was reset, was found intact (None), or could not be reset."""

    def emit(self, event: telemetry.TelemetryEvent) -> None:
        """Something happened that telemetry reports."""


class Writer:
    """Writes one open log file."""

    def __init__(
        self,
        path: Path,
        log: LogFile,
        reserve: DiskReserve,
        events: WriterEvents,
        continuity: Continuity,
    ) -> None:
        """Describe a writer; `start` starts its thread.

        Args:
            path: of the file.
            log: the file, open; used by the writer only until `stop` returns.
            reserve: the disk space for endings.
            events: is notified of results.
            continuity: is notified if the file is damaged, for the next opening.
        """
        self._path = path
        self._log = log
        self._reserve = reserve
        self._events = events
        self._continuity = continuity
        self._queue: queue.SimpleQueue[Pending | Channel | None] = queue.SimpleQueue()
        self._condition = LogHealth.OK
        self._turning = threading.Lock()
        self._probed = 0.0
        self._thread = threading.Thread(target=self._run, name="towpath-writer", daemon=True)

    @property
    def condition(self) -> LogHealth:
        """The health of the log."""
        return self._condition

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, work: Pending | Channel) -> None:
        """Queue a write, or the reset of a damaged channel."""
        self._queue.put(work)

    def stop(self) -> None:
        """Commit what is queued, and end the thread; blocks until then."""
        self._queue.put(None)
        self._thread.join()

    def turn(self, after: LogHealth, reason: str = "") -> None:
        """Change the health of the log, and emit the change; called from any thread."""
        with self._turning:
            before = self._condition
            if before is after or before in FINAL:
                return
            self._condition = after
        if after is LogHealth.DAMAGED:
            with contextlib.suppress(OSError):  # On a disk that fails, the next use finds it.
                self._continuity.mark_damaged(reason)
        self._events.emit(
            telemetry.LogChanged(before=before.value, after=after.value, reason=reason)
        )

    # The methods below run in the writer's thread.

    def _run(self) -> None:
        going, sweep_at = True, 0.0
        while going:
            troubled = self._condition is not LogHealth.OK
            # The first sweep follows the first batch, so that it does not delay the start.
            until_sweep = max(0.0, sweep_at - time.monotonic()) if sweep_at else SWEEP_SECONDS
            wait = PROBE_SECONDS if troubled else until_sweep
            batch, resets, going = self._gather(wait)
            if troubled:
                self._probe()
            for channel in resets:
                self._reset(channel)
            if batch:
                outcomes = self._commit([pending.write for pending in batch])
                self._events.committed(batch, outcomes)
                self._log.bound_wal()
            if time.monotonic() >= sweep_at and self._condition is LogHealth.OK:
                sweep_at = time.monotonic() + self._sweep()

    def _gather(self, wait: float) -> tuple[list[Pending], list[Channel], bool]:
        """Return the waiting writes and resets, and False if the log was stopped after them.

        Args:
            wait: how long to wait for the first one, in seconds.
        """
        batch: list[Pending] = []
        resets: list[Channel] = []
        with contextlib.suppress(queue.Empty):
            item = self._queue.get(timeout=wait) if wait else self._queue.get_nowait()
            while item is not None:
                if isinstance(item, Channel):
                    resets.append(item)
                else:
                    batch.append(item)
                item = self._queue.get_nowait()
            return batch, resets, False
        return batch, resets, True

    def _commit(self, writes: list[Write]) -> list[Outcome]:
        """Commit the writes that the log's health allows, and refuse the others."""
        before = self._condition
        admitted = [allows(before, write) for write in writes]
        written = self._attempt([one for one, may in zip(writes, admitted, strict=True) if may])
        if written is None and before is LogHealth.OK and self._condition is LogHealth.FULL:
            return self._commit(writes)  # Endings fit into the room that the reserve just freed.
        outcomes = iter(written or ())
        return [
            next(outcomes) if may and written is not None else refusal(self._condition)
            for may in admitted
        ]

    def _attempt(self, writes: list[Write]) -> list[Outcome] | None:
        """Commit in one transaction; None if the transaction failed."""
        if not writes:
            return []
        try:
            return self._log.commit(writes)
        except Exception as error:  # The outermost edge of the writer, which must not stop.
            self._refused("log write", error)
            return None

    def _reset(self, channel: Channel) -> None:
        """Drop the publications of a channel, if it is damaged, and give it another epoch."""
        outcome: tuple[Append, Span] | Exception | None
        try:
            if self._condition is not LogHealth.OK:
                raise refusal(self._condition)
            outcome = self._log.reset(channel)
        except Exception as error:  # The outermost edge of the writer, which must not stop.
            self._refused("log repair", error)
            outcome = refusal(self._condition)
        self._events.reset(channel, outcome)

    def _sweep(self) -> float:
        """Run one slice of a sweep; return the seconds until the next slice."""
        again: float | None = None
        try:
            again = self._log.sweep()
        except ChannelDamaged as damaged:
            self._log.undo()
            self._reset(damaged.channel)
        except ERRORS as error:
            if health_of(error) is LogHealth.LOCKED:
                self._log.undo()
            else:
                self._refused("log retention", error)
        return SWEEP_SECONDS if again is None else again

    def _refused(self, where: str, error: Exception) -> None:
        """Roll back the transaction, and set the log's health from the error."""
        self._log.undo()
        health = health_on_disk(error, self._path)
        if health is None:
            self._events.emit(telemetry.InternalError(where=where, error=error))
            return
        self._probed = time.monotonic()
        if health is LogHealth.FULL:
            self._reserve.give_back()
            self._log.make_room()
        self.turn(health, str(error))

    def _probe(self) -> None:
        """Test whether the log can be written again, at most once in `PROBE_SECONDS`."""
        condition = self._condition
        now = time.monotonic()
        if condition is LogHealth.OK or condition in FINAL or now - self._probed < PROBE_SECONDS:
            return
        self._probed = now
        try:
            if condition is LogHealth.FULL and not self._reserve.take():
                return
            self._log.probe()
        except (*ERRORS, OSError) as error:
            self._refused("log probe", error)
        else:
            self.turn(LogHealth.OK)
