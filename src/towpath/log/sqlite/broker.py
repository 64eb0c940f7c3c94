"""The embedded log: one file, one writer thread, one commit per batch of writes.

Writes wait in a bounded queue while a commit runs. The writer then takes all of them, commits once,
and passes the batch to the event loop, which delivers it in order and resolves the futures. So the
writer waits for the disk once per batch, and the event loop never does. A second thread runs reads;
in WAL mode it sees every commit and blocks none.

When the file cannot be written, the health of the log changes (`towpath.log.sqlite.health`). Then
the writer refuses at once the writes that this state does not allow, and probes the file about
every second until it can be written again.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from towpath import telemetry
from towpath.channels import Channel
from towpath.errors import ConfigurationError, StorageError, WriteFailed
from towpath.log.broker import (
    Append,
    Deliver,
    IdempotencyKey,
    Item,
    Projection,
    Publication,
    Replay,
    Retention,
    Span,
    Write,
    Written,
    channel_epoch,
    retention_of,
)
from towpath.log.sqlite import directory_lock, file_schema, replay
from towpath.log.sqlite.batch import Outcome
from towpath.log.sqlite.disk_reserve import DiskReserve, health_on_disk
from towpath.log.sqlite.health import ERRORS, FINAL, LogHealth, allows, health_of, refusal
from towpath.log.sqlite.integrity import checksums
from towpath.log.sqlite.integrity.background_check import Examination
from towpath.log.sqlite.log_file import LogFile
from towpath.log.sqlite.opening import Opening
from towpath.log.sqlite.replay import ReadRequest
from towpath.telemetry import Telemetry

T = TypeVar("T")

QUEUE_BOUND = 4096
"""How many writes wait for the disk before producers wait too: about one second's worth."""
SWEEP_SECONDS = 60.0
"""The seconds between two sweeps for expired publications."""
PROBE_SECONDS = 1.0
"""The seconds between two probes of a log that cannot be written."""


@dataclass(slots=True)
class _Pending:
    """A submitted write and its future."""

    write: Write
    future: "asyncio.Future[Written]"
    since: float


class SqliteBroker:
    """A `Broker` on one SQLite file; see `towpath.log.broker` for the contract."""

    def __init__(
        self,
        path: Path,
        deliver: Deliver,
        projection: Projection,
        *,
        telemetry: Telemetry | None = None,
        retention: Callable[[Channel], Retention | None] = retention_of,
        synchronous: str = "NORMAL",
        reserve_bytes: int = 0,
        lost_control: Callable[[], Item] | None = None,
        boot_id: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Describe the log; `start` opens it.

        Args:
            path: the database file; a lock file is created beside it.
            deliver: receives durable publications.
            projection: derives tables from facts.
            telemetry: is notified of commits, changes of health and internal errors.
            retention: returns the retention of a channel.
            synchronous: `NORMAL` survives a kill of the process, `FULL` a power cut too.
            reserve_bytes: disk space reserved for the endings of runs; 0 reserves none.
            lost_control: makes the publication for a control channel that damage cut short.
            boot_id: the machine's boot id; None reads it from the kernel.
            now: wall time in Unix seconds, for retention.
        """
        self._path = path
        self._deliver = deliver
        self._projection = projection
        self._telemetry = telemetry or Telemetry()
        self._retention = retention
        self._synchronous = synchronous
        self._life = directory_lock.kernel_boot_id() if boot_id is None else boot_id
        self._lost_control = lost_control
        self._now = now
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._waiting = 0
        self._has_room = asyncio.Event()
        self._stopped = False
        self._reserve = DiskReserve(path.with_suffix(".reserve"), reserve_bytes)
        self._condition = LogHealth.OK
        self._turning = threading.Lock()
        self._probed = 0.0
        self._unseen = False
        """Whether the file was opened without a full check, because it was closed cleanly."""
        self._examination: Examination | None = None

    @property
    def condition(self) -> LogHealth:
        """The health of the log."""
        return self._condition

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._open)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="towpath-reader")
        self._writer = threading.Thread(target=self._run, name="towpath-writer", daemon=True)
        self._writer.start()
        if self._unseen:
            self._examination = Examination(
                self._path, lambda reason: self._turn(LogHealth.DAMAGED, reason)
            )

    async def examined(self) -> None:
        """Wait until the file has been checked, if it was opened without a full check."""
        if self._examination is not None:
            await asyncio.to_thread(self._examination.wait)

    async def stop(self) -> None:
        self._stopped = True
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._close)

    async def room(self) -> None:
        while self._waiting >= QUEUE_BOUND:
            await self._has_room.wait()

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        future: asyncio.Future[Written] = self._loop.create_future()
        if self._stopped:
            future.set_exception(StorageError("the log is closed"))
            return future
        self._waiting += 1
        if self._waiting >= QUEUE_BOUND:
            self._has_room.clear()
        self._queue.put(_Pending(write, future, time.monotonic()))
        return future

    def epoch(self, channel: Channel) -> str:
        return channel_epoch(self._log.epoch, channel)

    async def read(
        self,
        channel: Channel,
        after: int | None,
        *,
        epoch: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Replay:
        here = channel_epoch(self._log.epoch, channel)
        request = ReadRequest(channel, here, after, epoch, limit, reverse)
        return await self.query(lambda db: replay.read(db, request))

    async def stored_result(self, key: IdempotencyKey) -> bytes | None:
        return await self.query(lambda db: replay.stored_result(db, key))

    async def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._stopped:
            raise StorageError("the log is closed")
        if self._condition is LogHealth.DAMAGED:
            raise refusal(self._condition)
        try:
            return await self._loop.run_in_executor(self._readers, _within, self._reader, question)
        except ERRORS as error:
            if health_of(error) is LogHealth.DAMAGED:
                self._turn(LogHealth.DAMAGED, str(error))
                raise refusal(self._condition) from error
            raise StorageError("the log cannot be read now") from error

    def _close(self) -> None:
        if self._examination is not None:
            self._examination.stop()
        self._readers.shutdown()
        self._reader.close()
        self._log.close(clean=self._condition not in FINAL)
        self._lock.close()

    def _open(self) -> None:
        self._lock = directory_lock.lock(self._path)
        opening = Opening(
            self._path,
            self._log_file,
            self._projection,
            self._reserve,
            boot_id=self._life,
            lost_control=self._lost_control,
            now=self._now,
            quarantined=self._emit,
        )
        try:
            self._log = opening.open(directory_lock.read_mark(self._lock))
            self._unseen = opening.unseen
            self._reader = file_schema.connect(self._path, self._synchronous)
            checksums.hide(self._reader)
            directory_lock.mark(self._lock, self._life)
            if not self._reserve.take():
                self._turn(LogHealth.FULL, "there is no room for the reserve")
        except (*ERRORS, OSError) as error:
            self._lock.close()
            raise ConfigurationError(f"cannot open {self._path}: {error}") from None
        except ConfigurationError:
            self._lock.close()
            raise

    def _log_file(self, path: Path) -> LogFile:
        return LogFile(
            path,
            self._projection,
            retention=self._retention,
            synchronous=self._synchronous,
            boot_id=self._life,
            now=self._now,
        )

    def _emit(self, event: telemetry.TelemetryEvent) -> None:
        """Emit an event on the loop, from any thread."""
        self._loop.call_soon_threadsafe(self._telemetry.emit, event)

    def _turn(self, after: LogHealth, reason: str = "") -> None:
        """Change the health of the log, and emit the change; called from any thread."""
        with self._turning:
            before = self._condition
            if before is after or before in FINAL:
                return
            self._condition = after
        change = telemetry.LogChanged(before=before.value, after=after.value, reason=reason)
        self._emit(change)

    # The methods below run in the writer thread, except `_hand_back`, which runs on the loop.

    def _run(self) -> None:
        going, sweep_at = True, 0.0
        while going:
            troubled = self._condition is not LogHealth.OK
            # The first sweep follows the first batch, so that it does not delay the start.
            until_sweep = max(0.0, sweep_at - time.monotonic()) if sweep_at else SWEEP_SECONDS
            wait = PROBE_SECONDS if troubled else until_sweep
            batch, going = self._gather(wait)
            if troubled:
                self._probe()
            if batch:
                outcomes = self._commit([pending.write for pending in batch])
                self._loop.call_soon_threadsafe(self._hand_back, batch, outcomes)
            if time.monotonic() >= sweep_at and self._condition is LogHealth.OK:
                sweep_at = time.monotonic() + self._sweep()

    def _gather(self, wait: float) -> tuple[list[_Pending], bool]:
        """Return the waiting writes, and False if the log was stopped after them.

        Args:
            wait: how long to wait for the first write, in seconds.
        """
        batch: list[_Pending] = []
        with contextlib.suppress(queue.Empty):
            item = self._queue.get(timeout=wait) if wait else self._queue.get_nowait()
            while item is not None:
                batch.append(item)
                item = self._queue.get_nowait()
            return batch, False
        return batch, True

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

    def _sweep(self) -> float:
        """Run one slice of a sweep; return the seconds until the next slice."""
        try:
            again = self._log.sweep()
        except ERRORS as error:
            again = None
            if health_of(error) is LogHealth.LOCKED:
                self._log.undo()
            else:
                self._refused("log retention", error)
        return SWEEP_SECONDS if again is None else again

    def _refused(self, where: str, error: Exception) -> None:
        """Roll back the transaction, and set the log's health from the error."""
        self._log.undo()
        told = health_on_disk(error, self._path)
        if told is None:
            fault = telemetry.InternalError(where=where, error=error)
            self._emit(fault)
            return
        self._probed = time.monotonic()
        if told is LogHealth.FULL:
            self._reserve.give_back()
            self._log.make_room()
        self._turn(told, str(error))

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
            self._turn(LogHealth.OK)

    def _hand_back(self, batch: list[_Pending], outcomes: list[Outcome]) -> None:
        """Deliver a committed batch in order, then resolve its futures. Runs on the loop."""
        count = 0
        self._waiting -= len(batch)
        if self._waiting < QUEUE_BOUND:
            self._has_room.set()
        for pending, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Written):
                for append, span in zip(pending.write.appends, outcome.spans, strict=False):
                    count += len(append.items)
                    self._deliver(append.channel, _published(append, span))
            elif isinstance(outcome, WriteFailed):
                fault = telemetry.InternalError(
                    where="log write", error=outcome.__cause__ or outcome
                )
                self._telemetry.emit(fault)
            if pending.future.cancelled():
                continue
            if isinstance(outcome, Written):
                pending.future.set_result(outcome)
            else:
                pending.future.set_exception(outcome)
        waited = time.monotonic() - batch[0].since
        self._telemetry.emit(telemetry.Appended(publications=count, seconds=waited))


def _published(append: Append, span: Span) -> list[Publication]:
    return [
        Publication(offset, item.data, item.tags)
        for offset, item in enumerate(append.items, span.first)
    ]


def _within(db: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
    """Run a query in one read transaction, so that it sees one consistent state."""
    db.execute("BEGIN")
    try:
        return question(db)
    finally:
        db.execute("COMMIT")
