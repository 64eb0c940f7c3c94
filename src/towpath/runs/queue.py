"""Runs that wait for their thread: accepted, stored, and begun one after the other.

A queued run is a promise like any other: it is in the store before anybody is told, survives a
restart, and gets its one ending also when it never starts (it was cancelled meanwhile, or its agent
is gone). Whoever frees a thread begins the next one; whoever queues one looks whether the thread is
free already. Any number may look at once: the log lets only the first in line begin, once, and as
it was when it was looked at.
"""

import asyncio
import contextlib
from dataclasses import replace

import msgspec

from towpath import telemetry
from towpath.agents.agent import AgentRegistry
from towpath.errors import CommandError, Conflict, NotFound, StorageError
from towpath.events.types import Message
from towpath.identity import Principal
from towpath.log.broker import Append, IdempotencyKey, Span, Write, write
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
from towpath.runs.publications import channel_of, items_of, notice
from towpath.runs.requests import Begin, Opening, StartRun, Wanted, start_result
from towpath.runs.run import Run, RunEvent


class _Request(msgspec.Struct, frozen=True):
    """What is stored of what was asked."""

    asked: StartRun
    messages: list[Message]
    roles: list[str]


def _read(head: Queued) -> _Request | None:
    """Return what was asked; None where it cannot be read, which is no reason to stop the rest."""
    try:
        return msgspec.json.decode(head.request, type=_Request)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class RunQueue:
    """Queues runs and begins them."""

    def __init__(
        self,
        deps: RunDeps,
        registry: AgentRegistry,
        begin: Begin,
        group: asyncio.TaskGroup,
    ) -> None:
        self._deps = deps
        self._registry = registry
        self._begin = begin
        self._group = group
        self._stopped = asyncio.Event()
        self._looking: set[asyncio.Task[None]] = set()

    async def put(self, wanted: Wanted, opening: Opening) -> bytes:
        """Queue a run on a busy thread and return the result of its `run.start`.

        Raises:
            Conflict: there is a run of this id.
            LimitExceeded: too many wait already.
        """
        principal, asked = wanted.principal, wanted.request
        assert asked.thread_id is not None, "a busy thread has a name"
        key = RunKey(
            tenant=principal.tenant,
            user=principal.user,
            thread=asked.thread_id,
            run=asked.run_id or self._deps.new_id(),
            agent=wanted.agent.name,
        )
        top = await self._deps.broker.read(channel_of(key), None, limit=0)
        request = _Request(replace(asked, run_id=key.run), wanted.messages, sorted(principal.roles))
        fact = RunQueued(
            key=key,
            request=msgspec.json.encode(request),
            at=self._deps.now(),
        )
        # What its reader has to read from: all that is published from now on.
        span = Span(channel_of(key), top.epoch, top.top + 1, top.top)
        run = Run(key, history=[], new_id=self._deps.new_id)
        change = Write(
            (notice(run, "towpath.run.queued"),),
            (fact,),
            key=opening.key,
            result=lambda _: start_result(key, span),
        )
        result = (await write(self._deps.broker, change)).result
        self.look(*key.thread_key)
        return result

    async def withdraw(
        self, key: RunKey, request: tuple[IdempotencyKey, bytes] | None = None
    ) -> bool:
        """Cancel a run that waits; its ending follows when its turn comes.

        `request` is what asked for it, and its result, to be remembered in the same act.

        Returns:
            False where it does not wait any more.
        """
        asked, result = request or (None, b"")
        change = Write(facts=(RunWithdrawn(key=key),), key=asked, result=lambda _: result)
        try:
            await write(self._deps.broker, change)
        except NotFound:
            return False
        return True

    async def clear(self, tenant: str, user: str, thread: str) -> None:
        """Cancel all that waits for a thread."""
        for waiting in await self._deps.store.queued(tenant, user, thread):
            await self.withdraw(waiting.key)

    async def resume(self) -> None:
        """Begin what the last process left waiting."""
        for tenant, user, thread in await self._deps.store.waiting_threads():
            self.look(tenant, user, thread)

    async def stop(self) -> None:
        """Begin nothing more; what is being begun is begun when this returns."""
        self._stopped.set()
        if self._looking:
            await asyncio.wait(self._looking)

    def look(self, tenant: str, user: str, thread: str) -> None:
        """See to it that what is next in a thread begins if it is free, and wait for nothing."""
        if self._stopped.is_set():
            return
        looking = self._group.create_task(
            self._look(tenant, user, thread), name=f"queue of {thread}"
        )
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def advance(self, tenant: str, user: str, thread: str) -> None:
        """Begin what is next in a thread, if it is free.

        Raises:
            StorageError: the log cannot be used now.
        """
        while not self._stopped.is_set():
            waiting = await self._deps.store.queued(tenant, user, thread)
            if not waiting or await self._begin_next(waiting[0]):
                return

    async def _look(self, tenant: str, user: str, thread: str) -> None:
        """Ask the log until it answers."""
        while not self._stopped.is_set():
            try:
                await self.advance(tenant, user, thread)
                return
            except StorageError as error:
                self._deps.telemetry.emit(telemetry.InternalError(where="queue", error=error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deps.limits.retry_seconds):
                    await self._stopped.wait()

    async def _begin_next(self, head: Queued) -> bool:
        """Begin a run, or end it where it cannot begin; return whether its thread is busy now."""
        request = _read(head)
        try:
            if await self._set_going(head, request):
                return True
            await self._end_unbegun(head, request)
        except ThreadBusy:
            return True
        except (ThreadMoved, TurnMoved):
            pass  # Somebody else was faster, or it was cancelled at the last moment.
        return False

    async def _set_going(self, head: Queued, request: _Request | None) -> bool:
        """Open a run whose turn it is; return False where it cannot begin."""
        agent = self._registry.get(head.key.agent)
        if head.withdrawn or agent is None or request is None:
            return False
        principal = Principal(
            tenant=head.key.tenant, user=head.key.user, roles=frozenset(request.roles)
        )
        opening = Opening(key=None, result=start_result, queued=head)
        try:
            await self._begin(Wanted(principal, agent, request.asked, request.messages), opening)
        except Conflict:
            raise
        except CommandError:
            return False  # What it was asked is not possible any more.
        return True

    async def _end_unbegun(self, head: Queued, request: _Request | None) -> None:
        """Write the beginning and the ending of a run that never works, in one act.

        Raises:
            ThreadBusy, ThreadMoved, TurnMoved: it is not its turn now.
        """
        deps, key = self._deps, head.key
        past = await deps.store.conversation(*key.thread_key)
        run = Run(key, history=past.messages, state=past.state, new_id=deps.new_id)
        made: list[RunEvent] = run.begin({"messages": request.messages if request else []})
        first = made[0]
        made += run.cancel() if head.withdrawn else run.fail("run.failed", "it could not begin")
        now = deps.now()
        opened = RunOpened(
            key=key,
            started=first.event,
            title="",
            thread_offset=past.offset,
            at=now,
            holder=deps.holder,
            lease=now,
            queued=head,
        )
        append = Append(channel_of(key), items_of(made))
        facts = (opened, run.closed(now, holder=deps.holder, expires=now))
        await write(deps.broker, Write((append, notice(run, "towpath.run.ended")), facts))
        deps.telemetry.emit(run_ended(run, 0.0))
