"""The embedded log: one SQLite file, one thread that writes it, one that reads it.

The writer commits the waiting writes in batches (`towpath.log.sqlite.writer`) and passes each batch
to the event loop, which delivers it in order and resolves the futures. A second thread runs reads;
in WAL mode it sees every commit and blocks none.

Damage is confined to what it hit. A damaged row of a projection's table is an error of the question
that reads it. A channel whose publications are damaged is reset: it loses them, gets another epoch,
and its readers start anew. If a page of the file is damaged, the log is not used any more, and the
next opening carries over what can be read.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from towpath import telemetry
from towpath.channels import Channel
from towpath.errors import (
    CommandError,
    ConfigurationError,
    RowDamaged,
    StorageError,
    WriteFailed,
)
from towpath.log.broker import (
    Append,
    Deliver,
    IdempotencyKey,
    Item,
    OnEpoch,
    Question,
    Read,
    Replay,
    Retention,
    Span,
    Write,
    Written,
    channel_epoch,
    failure,
    publications_of,
    retention_of,
)
from towpath.log.sqlite import directory_lock, file_schema, replay
from towpath.log.sqlite.batch import Outcome
from towpath.log.sqlite.continuity import Continuity
from towpath.log.sqlite.disk_reserve import DiskReserve
from towpath.log.sqlite.heads import ChannelDamaged
from towpath.log.sqlite.health import ERRORS, FINAL, LogHealth, health_of, refusal
from towpath.log.sqlite.integrity.background_check import BackgroundCheck, Findings
from towpath.log.sqlite.log_file import LogFile
from towpath.log.sqlite.opening import Opening
from towpath.log.sqlite.projection import SqliteProjection
from towpath.log.sqlite.threads import in_thread
from towpath.log.sqlite.writer import Pending, Writer
from towpath.telemetry import Telemetry

R = TypeVar("R")
T = TypeVar("T")

QUEUE_BOUND = 4096
"""How many writes wait for the disk before producers wait too: about one second's worth."""
QUEUE_BYTES = 32 * 1024 * 1024
"""How many bytes of payload wait for the disk before producers wait too."""


class SqliteBroker:
    """A `Broker` on one SQLite file; see `towpath.log.broker` for the contract."""

    def __init__(
        self,
        path: Path,
        deliver: Deliver,
        projection: SqliteProjection,
        *,
        on_epoch: OnEpoch = lambda _: None,
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
            projection: derives tables from facts, and answers questions from them.
            on_epoch: is notified of positions that are no longer valid.
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
        self._on_epoch = on_epoch
        self._attached: set[Channel] = set()
        self._telemetry = telemetry or Telemetry()
        self._retention = retention
        self._synchronous = synchronous
        self._boot_id = directory_lock.kernel_boot_id() if boot_id is None else boot_id
        self._lost_control = lost_control
        self._now = now
        self._waiting = self._waiting_bytes = 0
        self._has_room = asyncio.Event()
        self._stopped = False
        self._given_up = False
        self._opening = threading.Lock()
        self._reserve = DiskReserve(path.with_suffix(".reserve"), reserve_bytes)
        self._resets: dict[Channel, asyncio.Future[None]] = {}
        self._is_open = False

    @property
    def condition(self) -> LogHealth:
        """The health of the log."""
        return self._writer.condition if self._is_open else LogHealth.OK

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await in_thread("towpath-open", self._open)
        except asyncio.CancelledError:
            await in_thread("towpath-close", self._give_up)
            raise
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="towpath-reader")
        self._writer.start()
        self._check = BackgroundCheck(
            self._path,
            self._projection,
            Findings(row=self._found_row, channel=self._found_channel, file=self._found_damage),
        )

    async def checked(self) -> None:
        """Wait until the background check has read all rows, and what it found is reset."""
        await in_thread("towpath-wait", self._check.wait)
        await asyncio.sleep(0)  # What the check found last is scheduled on the loop.
        while self._resets:
            await asyncio.wait(self._resets.values())

    async def stop(self) -> None:
        self._stopped = True
        await in_thread("towpath-close", self._stop)

    async def room(self) -> None:
        while self._waiting >= QUEUE_BOUND or self._waiting_bytes >= QUEUE_BYTES:
            self._has_room.clear()
            await self._has_room.wait()

    def attach(self, channel: Channel) -> None:
        self._attached.add(channel)

    def detach(self, channel: Channel) -> None:
        self._attached.discard(channel)

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        future: asyncio.Future[Written] = self._loop.create_future()
        if self._stopped:
            future.set_exception(StorageError("the log is closed"))
            return future
        size = sum(len(item.data) for append in write.appends for item in append.items)
        self._waiting += 1
        self._waiting_bytes += size
        self._writer.put(Pending(write, future, time.monotonic(), size))
        return future

    def epoch(self, channel: Channel) -> str:
        return channel_epoch(self._log.epoch, channel, self._log.salts.get(channel, 0))

    async def read(
        self,
        channel: Channel,
        after: int | None,
        *,
        epoch: str | None = None,
        limit: int | None = None,
        max_bytes: int | None = None,
        reverse: bool = False,
    ) -> Replay:
        return await self.ask(Read(channel, after, epoch, limit, max_bytes, reverse))

    async def stored_result(self, key: IdempotencyKey) -> Written | None:
        return await self._query(lambda db: replay.stored_result(db, key))

    async def ask(self, question: Question[R]) -> R:
        try:
            return await self._query(lambda db: self._answer(db, question))
        except ChannelDamaged as damaged:
            await self._reset(damaged.channel)
        return await self._query(lambda db: self._answer(db, question))

    async def ask_together(self, questions: Sequence[Question[Any]]) -> list[Any]:
        answers = await self._query(lambda db: [self._outcome(db, one) for one in questions])
        for answer in answers:
            if isinstance(answer, ChannelDamaged):
                self._reset(answer.channel)
            elif isinstance(answer, RowDamaged):
                self._telemetry.emit(telemetry.RowDamaged(table=answer.table, key=""))
        return answers

    def _answer(self, db: sqlite3.Connection, question: Question[R]) -> R:
        if isinstance(question, Read):
            return cast(R, replay.read(db, question, self._log.epoch))
        return self._projection.answer(db, question)

    def _outcome(self, db: sqlite3.Connection, question: Question[Any]) -> Any:
        """Return the answer, or the exception that concerns this question alone.

        An error of the database is raised: it concerns all questions of the transaction.
        """
        try:
            return self._answer(db, question)
        except ERRORS:
            raise
        except (CommandError, StorageError, TypeError) as error:
            return error

    async def _query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        if self._stopped:
            raise StorageError("the log is closed")
        if self.condition is LogHealth.DAMAGED:
            raise refusal(self.condition)
        try:
            return await self._loop.run_in_executor(
                self._readers, replay.in_transaction, self._reader, read
            )
        except RowDamaged as damaged:
            self._telemetry.emit(telemetry.RowDamaged(table=damaged.table, key=""))
            raise
        except ERRORS as error:
            if health_of(error) is LogHealth.DAMAGED:
                self._found_damage(str(error))
                raise refusal(self.condition) from error
            raise StorageError("the log cannot be read now") from error

    def _open(self) -> None:
        with self._opening:
            if self._given_up:
                return
            self._open_files()

    def _give_up(self) -> None:
        """Close what a cancelled start opened, or prevent it from opening."""
        self._given_up = True
        with self._opening:
            if self._is_open:
                self._reader.close()
                self._log.close()
                self._lock.close()

    def _open_files(self) -> None:
        self._lock = directory_lock.lock(self._path)
        try:
            self._continuity = Continuity(self._path, boot_id=self._boot_id)
            opening = Opening(
                self._path,
                self._log_file,
                self._projection,
                self._reserve,
                self._continuity,
                quarantined=self.emit,
            )
            self._log = opening.open(directory_lock.read_mark(self._lock))
            if self._log.renewed is not None:
                self.emit(telemetry.LogEpochRenewed(reason=self._log.renewed))
            self._reader = file_schema.connect(self._path, self._synchronous)
            directory_lock.mark(self._lock, self._boot_id)
            self._writer = Writer(self._path, self._log, self._reserve, self, self._continuity)
            if not self._reserve.take():
                self._writer.turn(LogHealth.FULL, "there is no room for the reserve")
        except (*ERRORS, OSError) as error:
            self._lock.close()
            raise ConfigurationError(f"cannot open {self._path}: {error}") from None
        except ConfigurationError:
            self._lock.close()
            raise
        self._is_open = True

    def _stop(self) -> None:
        self._check.stop()
        self._writer.stop()
        self._readers.shutdown()
        self._reader.close()
        self._log.close(clean=self.condition not in FINAL)
        self._lock.close()

    def _log_file(self, path: Path) -> LogFile:
        return LogFile(
            path,
            self._projection,
            retention=self._retention,
            synchronous=self._synchronous,
            now=self._now,
            continuity=self._continuity if path == self._path else None,
            lost_control=self._lost_control,
        )

    # The methods below are called from the other threads.

    def emit(self, event: telemetry.TelemetryEvent) -> None:
        """Emit an event on the loop."""
        self._loop.call_soon_threadsafe(self._telemetry.emit, event)

    def committed(self, batch: list[Pending], outcomes: list[Outcome]) -> None:
        """See `WriterEvents`."""
        self._loop.call_soon_threadsafe(self._hand_back, batch, outcomes)

    def reset(self, channel: Channel, outcome: tuple[Append, Span] | Exception | None) -> None:
        """See `WriterEvents`."""
        self._loop.call_soon_threadsafe(self._was_reset, channel, outcome)

    def _found_row(self, table: str, key: tuple[object, ...]) -> None:
        self.emit(telemetry.RowDamaged(table=table, key="/".join(map(str, key))))

    def _found_channel(self, channel: Channel) -> None:
        self._loop.call_soon_threadsafe(self._reset, channel)

    def _found_damage(self, reason: str) -> None:
        self._writer.turn(LogHealth.DAMAGED, reason)

    # The methods below run on the loop.

    def _reset(self, channel: Channel) -> "asyncio.Future[None]":
        """Let the writer reset a channel, unless it does so already; the future may fail."""
        if channel not in self._resets:
            self._resets[channel] = self._loop.create_future()
            self._resets[channel].add_done_callback(failure)
            self._writer.put(channel)
        return self._resets[channel]

    def _was_reset(self, channel: Channel, outcome: tuple[Append, Span] | Exception | None) -> None:
        future = self._resets.pop(channel, None)
        if isinstance(outcome, tuple):
            event = telemetry.ChannelReset(tenant=channel.tenant, name=channel.name)
            self._telemetry.emit(event)
            self._on_epoch(channel)
            self._give(*outcome)
        if future is not None and isinstance(outcome, Exception):
            future.set_exception(outcome)
        elif future is not None:
            future.set_result(None)

    def _hand_back(self, batch: list[Pending], outcomes: list[Outcome]) -> None:
        """Deliver a committed batch in order, then resolve its futures."""
        count = 0
        self._waiting -= len(batch)
        self._waiting_bytes -= sum(pending.size for pending in batch)
        self._has_room.set()
        for pending, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Written):
                count += self._publish(pending.write, outcome)
            elif isinstance(outcome, ChannelDamaged):
                self._reset(outcome.channel)
            elif isinstance(outcome, RowDamaged):
                self._telemetry.emit(telemetry.RowDamaged(table=outcome.table, key=""))
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

    def _publish(self, write: Write, written: Written) -> int:
        """Deliver what a write published; return how many publications those are."""
        if written.repeated:
            return 0
        for channel in write.truncate:
            self._on_epoch(channel)
        for append, span in zip(write.appends, written.spans, strict=True):
            self._give(append, span)
        return sum(len(append.items) for append in write.appends)

    def _give(self, append: Append, span: Span) -> None:
        """Deliver publications, if this node attached their channel."""
        if append.items and append.channel in self._attached:
            self._deliver(append.channel, publications_of(append, span))
