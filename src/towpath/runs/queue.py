"""The queue of runs that wait for their thread; they are stored, and begin one after the other.

A queued run is in the store before its client gets the answer, so it survives a restart. It gets
one ending even if it never starts (it was cancelled, or its agent is not registered any more). The
next run begins when the active run ends, and when a run is queued on a thread that is free by then.
Several tasks may try this at once: the log accepts only the first run of the queue, once, and only
if its row has not changed since it was read.
"""

import asyncio
import contextlib

import msgspec

from towpath import telemetry
from towpath.errors import (
    BadRequest,
    CommandError,
    Conflict,
    NotFound,
    RowDamaged,
    StorageError,
)
from towpath.identity import Principal
from towpath.log.broker import Append, IdempotencyKey, Position, Write, write
from towpath.log.idempotency import storing
from towpath.runs.deps import RunDeps
from towpath.runs.executor import run_ended
from towpath.runs.model import (
    Queued,
    RunKey,
    RunOpened,
    RunQueued,
    RunWithdrawn,
    ThreadBusy,
    ThreadMoved,
    TurnMoved,
)
from towpath.runs.publications import items_of, notice
from towpath.runs.requests import (
    QueuedRequest,
    R,
    RunRequest,
    Start,
    Started,
    StartOptions,
    result_of,
)
from towpath.runs.run import Run


def _read(head: Queued) -> QueuedRequest | None:
    """Return a stored request; None if it cannot be decoded: then its run ends unbegun."""
    try:
        return msgspec.json.decode(head.request, type=QueuedRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, BadRequest):
        return None


class RunQueue:
    """Queues runs and begins them."""

    def __init__(self, deps: RunDeps, open_run: Start, group: asyncio.TaskGroup) -> None:
        self._deps = deps
        self._open_run = open_run
        self._group = group
        self._resumed = False
        self._stopped = asyncio.Event()
        self._advancing: set[asyncio.Task[None]] = set()

    async def put(self, principal: Principal, request: RunRequest, options: StartOptions[R]) -> R:
        """Queue a run on a busy thread and return the result of its `run.start`.

        Raises:
            Conflict: a run with this id exists.
            LimitExceeded: too many runs wait already.
        """
        key = request.run_key(principal)
        top = await self._deps.broker.read(key.channel, None, limit=0)
        stored = QueuedRequest(
            request=request, messages=request.messages, roles=sorted(principal.roles)
        )
        fact = RunQueued(key=key, request=msgspec.json.encode(stored), at=self._deps.now())
        run = Run(key, history=[], new_id=self._deps.new_id)
        change = Write((notice(run, "towpath.run.queued"),), (fact,))
        # A reader of the run starts at this position and reads everything published after it.
        result = options.result.at(key, Position(top.epoch, top.top))
        written = await write(self._deps.broker, storing(result, options.key, change))
        self.wake(*key.thread_key)
        return result_of(options.result, written)

    async def withdraw(
        self, key: RunKey, request: tuple[IdempotencyKey, bytes] | None = None
    ) -> bool:
        """Cancel a queued run; its ending is written when its turn comes.

        Args:
            key: the run.
            request: the key and the result of the request, stored in the same transaction.

        Returns:
            False if the run is no longer queued.
        """
        request_key, result = request or (None, b"")
        change = Write(facts=(RunWithdrawn(key=key),), key=request_key, result=result)
        try:
            await write(self._deps.broker, change)
        except NotFound:
            return False
        return True

    async def clear(self, tenant: str, user: str, thread: str) -> None:
        """Cancel all runs that wait for a thread."""
        for waiting in await self._deps.store.queued(tenant, user, thread):
            await self.withdraw(waiting.key)

    async def resume(self) -> None:
        """Begin the runs that were queued when the last process ended.

        No run begins earlier: its agent may use the gateway, which is complete right after this
        call. So nothing is awaited once the first run is scheduled.
        """
        waiting = await self._deps.store.waiting_threads()
        self._resumed = True
        for tenant, user, thread in waiting:
            self.wake(tenant, user, thread)

    async def stop(self) -> None:
        """Begin no more runs, and wait for the runs that are being begun."""
        self._stopped.set()
        if self._advancing:
            await asyncio.wait(self._advancing)

    def wake(self, tenant: str, user: str, thread: str) -> None:
        """Schedule `advance` for a thread, and return at once; `resume` schedules all of them."""
        if self._stopped.is_set() or not self._resumed:
            return
        advancing = self._group.create_task(
            self._advance(tenant, user, thread), name=f"queue of {thread}"
        )
        self._advancing.add(advancing)
        advancing.add_done_callback(self._advancing.discard)

    async def advance(self, tenant: str, user: str, thread: str) -> None:
        """Begin the next run of a thread, if the thread is free.

        Raises:
            StorageError: the log cannot be used now.
        """
        while not self._stopped.is_set():
            waiting = await self._deps.store.queued(tenant, user, thread)
            if not waiting or await self._take_next(waiting[0]):
                return

    async def _advance(self, tenant: str, user: str, thread: str) -> None:
        """Begin the next run of a thread; retry while the log cannot be used."""
        while not self._stopped.is_set():
            try:
                await self.advance(tenant, user, thread)
                return
            except RowDamaged as error:  # The thread begins no run until it is deleted.
                self._deps.telemetry.emit(telemetry.InternalError(where="queue", error=error))
                return
            except StorageError as error:
                self._deps.telemetry.emit(telemetry.InternalError(where="queue", error=error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deps.limits.retry_seconds):
                    await self._stopped.wait()

    async def _take_next(self, head: Queued) -> bool:
        """Begin a run, or end it if it cannot begin; return whether its thread is busy now."""
        stored = _read(head)
        try:
            if await self._begin(head, stored):
                return True
            await self._end_unbegun(head, stored)
        except ThreadBusy:
            return True
        except (ThreadMoved, TurnMoved):
            pass  # Another task was faster, or the run was cancelled at the last moment.
        return False

    async def _begin(self, head: Queued, stored: QueuedRequest | None) -> bool:
        """Open the next run; return False if it cannot begin."""
        if head.withdrawn or stored is None:
            return False
        principal = Principal(
            tenant=head.key.tenant, user=head.key.user, roles=frozenset(stored.roles)
        )
        # Earlier versions stored the text of a message, not a message with an id.
        request = stored.request.with_ids(self._deps.new_id)
        options = StartOptions(key=None, result=Started, queued=head)
        try:
            await self._open_run(principal, request, options)
        except Conflict:
            raise
        except CommandError:
            return False  # Its agent is gone, or the request is not valid any more.
        return True

    async def _end_unbegun(self, head: Queued, stored: QueuedRequest | None) -> None:
        """Write the beginning and the ending of a run that cannot begin, in one transaction.

        Raises:
            ThreadBusy, ThreadMoved, TurnMoved: it is not the run's turn now.
        """
        deps, key = self._deps, head.key
        past = await deps.store.conversation(*key.thread_key)
        run = Run(key, history=past.messages, state=past.state, new_id=deps.new_id)
        events = run.begin({"messages": stored.messages if stored else []})
        events += run.cancel() if head.withdrawn else run.fail("run.failed", "it could not begin")
        now = deps.now()
        opened = RunOpened(key=key, title="", thread_offset=past.offset, at=now, queued=head)
        append = Append(key.channel, items_of(events))
        facts = (opened, run.closed(now, expires=now))
        await write(deps.broker, Write((append, notice(run, "towpath.run.ended")), facts))
        deps.telemetry.emit(run_ended(run, 0.0))
