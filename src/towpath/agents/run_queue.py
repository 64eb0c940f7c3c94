"""Runs that wait for their thread: accepted, stored, and begun one after the other.

A queued run is a promise like any other: it is in the store before anybody is told, survives a
restart, and gets its one ending also when it never starts (it was cancelled meanwhile, or its agent
is gone). Whoever frees a thread begins the next one; whoever queues one looks whether the thread is
free already.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from towpath import hooks
from towpath.agents.asked import Opening, StartRun, start_result
from towpath.agents.live import Surroundings, channel_of, item, notice
from towpath.agents.registry import Agent, AgentRegistry
from towpath.agents.run import Made, Queued, Run, RunKey, RunOpened, RunQueued, RunWithdrawn
from towpath.context import Principal
from towpath.errors import CommandError, Conflict, StorageError
from towpath.events.kinds import Message
from towpath.streams.broker import Append, Span, Write, write

Begin = Callable[[Principal, Agent, StartRun, list[Message], Opening], Awaitable[bytes]]
"""Opens a run on a free thread.

Raises:
    ThreadBusy: it is not free.
"""


class _Request(msgspec.Struct, frozen=True):
    """What is stored of what was asked."""

    asked: StartRun
    messages: list[Message]
    roles: list[str]


class RunQueue:
    """Queues runs and begins them."""

    def __init__(self, around: Surroundings, registry: AgentRegistry, begin: Begin) -> None:
        self._around = around
        self._registry = registry
        self._begin = begin

    async def put(
        self,
        principal: Principal,
        agent: Agent,
        asked: StartRun,
        messages: list[Message],
        opening: Opening,
    ) -> bytes:
        """Queue a run on a busy thread and return the result of its `run.start`.

        Raises:
            LimitExceeded: too many wait already.
        """
        assert asked.thread_id is not None, "a busy thread has a name"
        key = RunKey(
            tenant=principal.tenant,
            user=principal.user,
            thread=asked.thread_id,
            run=asked.run_id or self._around.new_id(),
            agent=agent.name,
        )
        top = await self._around.broker.read(channel_of(key), 0, limit=0)
        request = _Request(replace(asked, run_id=key.run), messages, sorted(principal.roles))
        fact = RunQueued(
            key=key,
            request=msgspec.json.encode(request),
            at=self._around.clock(),
        )
        # What its reader has to read from: all that is published from now on.
        span = Span(channel_of(key), top.epoch, top.top + 1, top.top)
        run = Run(key, history=[], new_id=self._around.new_id)
        change = Write(
            (notice(run, "towpath.run.queued"),),
            (fact,),
            key=opening.key,
            result=lambda _: start_result(key, span),
        )
        result = (await write(self._around.broker, change)).result
        await self.advance(key.tenant, key.user, key.thread)
        return result

    async def withdraw(self, key: RunKey) -> None:
        """Cancel a run that waits; its ending follows when its turn comes.

        Raises:
            NotFound: it does not wait.
        """
        await write(self._around.broker, Write(facts=(RunWithdrawn(key=key),)))
        await self.advance(key.tenant, key.user, key.thread)

    async def advance(self, tenant: str, user: str, thread: str) -> None:
        """Begin what is next in a thread, if it is free; the log is asked until it answers."""
        while True:
            try:
                head = await self._around.conversations.next_queued(tenant, user, thread)
                if head is None or await self._begin_next(head):
                    return
            except StorageError as error:
                self._around.hooks.tell(hooks.Fault(where="queue", error=error))
                await asyncio.sleep(self._around.limits.retry_seconds)

    async def resume(self) -> None:
        """Begin what the last process left waiting."""
        for tenant, user, thread in await self._around.conversations.waiting_threads():
            await self.advance(tenant, user, thread)

    async def _begin_next(self, head: Queued) -> bool:
        """Begin a run, or end it where it cannot begin; whether the thread has one now."""
        request = msgspec.json.decode(head.request, type=_Request)
        principal = Principal(
            tenant=head.key.tenant, user=head.key.user, roles=frozenset(request.roles)
        )
        agent = self._registry.get(head.key.agent)
        opening = Opening(key=None, result=start_result)
        try:
            if head.withdrawn or agent is None:
                await self._end_unbegun(head, request)
                return False
            await self._begin(principal, agent, request.asked, request.messages, opening)
        except Conflict:
            return True  # The thread is busy again, or somebody else began this one.
        except CommandError:
            await self._end_unbegun(head, request)  # What it wanted to go on with is gone.
            return False
        return True

    async def _end_unbegun(self, head: Queued, request: _Request) -> None:
        """Write the beginning and the ending of a run that never works, in one act.

        Raises:
            Conflict: the thread is not free.
        """
        around, key = self._around, head.key
        past = await around.conversations.conversation(key.tenant, key.user, key.thread)
        run = Run(key, history=past.messages, state=past.state, new_id=around.new_id)
        made: list[Made] = run.begin({"messages": request.messages})
        first = made[0]
        made += run.cancel() if head.withdrawn else run.fail("run.failed", "it could not begin")
        now = around.clock()
        opened = RunOpened(
            key=key, started=first.event, title="", thread_offset=past.offset, at=now
        )
        append = Append(channel_of(key), tuple(map(item, made)))
        facts = (opened, run.closed(now, expires=now))
        await write(around.broker, Write((append, notice(run, "towpath.run.ended")), facts))
        around.hooks.tell(
            hooks.RunEnded(
                tenant=key.tenant,
                user=key.user,
                thread=key.thread,
                run=key.run,
                agent=key.agent,
                status=run.status.value,
                code=run.code,
                events=run.events,
                seconds=0.0,
            )
        )
