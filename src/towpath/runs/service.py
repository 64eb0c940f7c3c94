"""The bridge: starts agents for people, stops them, and knows which runs are in progress.

It knows no connection: a run is started by a person and belongs to a thread, and goes on whoever
listens. Starting one is a single write (the run's first event, the fact that there is a run, and
the request id), carried through even when whoever asked for it leaves meanwhile.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import msgspec

from towpath import telemetry
from towpath.agents.agent import Agent, AgentInput, AgentRegistry, DoubleTexting
from towpath.errors import BadRequest, Conflict, NotFound, StorageError, Unavailable
from towpath.events.types import IllegalEvent
from towpath.identity import Principal
from towpath.log.broker import Append, Broker, IdempotencyKey, Write, failure, write
from towpath.runs.approvals import Approvals, answering
from towpath.runs.executor import (
    Conversations,
    LogRange,
    RunDeps,
    RunExecutor,
    RunLimits,
    RunRecord,
    agent_fault,
    channel_of,
    item,
    notice,
)
from towpath.runs.interrupts import DECISIONS, NotOpen
from towpath.runs.leases import Leases
from towpath.runs.model import RunKey, RunOpened, ThreadBusy, ThreadMoved
from towpath.runs.queue import RunQueue
from towpath.runs.requests import (
    Decision,
    Opening,
    StartRun,
    Wanted,
    agent_input,
    cancel_result,
    check_ids,
    new_messages,
    request_key,
    start_result,
    title_of,
    wire_parts,
)
from towpath.runs.run import Run, RunEvent
from towpath.runs.run_states import OVER, Status
from towpath.telemetry import Telemetry

ATTEMPTS = 10
"""How often something is tried on a thread that moves on meanwhile."""
LOOKS = 2
"""How often a run that is to be cancelled is looked for: it may begin between two looks."""


class AgentWebSocketBridge:
    """Starts, watches and stops runs; an async context manager whose exit stops them all."""

    def __init__(
        self,
        broker: Broker,
        conversations: Conversations,
        registry: AgentRegistry,
        *,
        telemetry: Telemetry,
        clock: Callable[[], float],
        limits: RunLimits | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._registry = registry
        self._deps = RunDeps(
            broker=broker,
            conversations=conversations,
            telemetry=telemetry,
            limits=limits or RunLimits(),
            clock=clock,
            new_id=new_id,
            holder=uuid.uuid4().hex,
        )
        self._live: dict[tuple[str, str, str], RunExecutor] = {}
        self._opening: dict[asyncio.Event, RunKey] = {}
        """Runs whose first event is on its way to the log; the event says that it has an answer."""
        self._starting: set[asyncio.Task[bytes]] = set()
        self._draining = False
        self._approvals = Approvals(self._deps, registry, self._start)
        self._group = asyncio.TaskGroup()
        self._queue = RunQueue(self._deps, registry, self._open_settled, self._group)
        self._leases = Leases(
            self._deps,
            self._live.values,
            self._opening.values,
            lambda key: self._queue.look(*key.thread_key),
        )
        self._expiring: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self._leases.take_over()
        self._beating = self._group.create_task(self._leases.watch(), name="leases")
        self._expiring = self._group.create_task(
            self._approvals.watch(), name="expiring interrupts"
        )
        await self._queue.resume()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._expiring is not None:
            self._expiring.cancel()
        try:
            async with asyncio.timeout(self._deps.limits.drain_seconds):
                await self.drain()
        except TimeoutError:
            self.give_up()
        if self._beating is not None:
            self._beating.cancel()
        await self._group.__aexit__(kind, error, traceback)

    def give_up(self) -> None:
        """Stop trying to write endings; whoever opens the log next writes them."""
        for live in self._live.values():
            live.give_up()

    @property
    def active(self) -> int:
        """How many runs are in progress."""
        return len(self._live)

    async def start(self, principal: Principal, request: StartRun) -> bytes:
        """Begin a run, or let it wait for its turn; it goes on whoever listens.

        Returns:
            The JSON result of `run.start`: thread_id, run_id and a position before the run's
            first event. The same for the same request again.

        Raises:
            BadRequest, TooLarge, NotFound: the request is none that can be carried out.
            Conflict: the thread has an active run, or the request id was used for another request.
            LimitExceeded: too many runs wait for the thread.
            Unavailable: the server drains, or the log cannot be written.
        """
        wanted = self._wanted(principal, request)
        # A new thread's id is not part of what was asked: a repetition must not make another one.
        opening = Opening(
            key=request_key(principal, "run.start", request.request_id, request),
            result=start_result,
        )
        return await self._carry_through(self._start(wanted, opening))

    async def approve(self, principal: Principal, said: Decision) -> bytes:
        """Answer something a run asked; the last answer begins the run that continues it.

        Returns:
            The JSON result of `run.approve`: `status` is `accepted`, `already`, `expired` or
            `gone`; with `accepted` and no other question open, `run_id` and `position` of the
            continuation. The same for the same request again.

        Raises:
            BadRequest: no such decision, or the digest of the arguments is missing.
            NotFound: no such run or question, or somebody else's.
            Conflict: other arguments were shown, or the request id was used for something else.
            Unavailable: the server drains, or the log cannot be used.
        """
        if self._draining:
            raise Unavailable("the server is being taken out of service")
        if said.decision not in DECISIONS:
            raise BadRequest("decision must be approve or refuse")
        try:
            return await self._carry_through(self._approvals.decide(principal, said))
        except NotOpen as late:
            return msgspec.json.encode({"status": late.status})

    async def cancel(
        self, principal: Principal, run_id: str, *, key: IdempotencyKey | None = None
    ) -> str:
        """End a run of this person because they said stop.

        With a key, `accepted` is remembered under it in the act that ends the run: so whoever did
        not get the answer gets the same one when they ask again.

        Returns:
            `accepted` once the ending is durable, or `too_late` for a run that is over. For a run
            that waits, `accepted` once it is durable that it ends when its turn comes.

        Raises:
            NotFound: no such run, or somebody else's.
            Unavailable: the log cannot be used now.
        """
        request = None if key is None else (key, cancel_result("accepted"))
        for _ in range(LOOKS):
            live = await self._begun(principal, run_id)
            if live is not None:
                if not live.end(live.run.cancel(), request=request) and not live.ends_for(key):
                    break
                await self._until_ended(live)
                if live.overtaken:
                    break
                return "accepted"
            record = await self._record(principal, run_id)
            if record is None:
                raise NotFound("no such run")
            if record.status in OVER:
                break
            if record.status is Status.PENDING and await self._withdraw(record.key, request):
                return "accepted"
        return "too_late"

    def agent_exited(self, key: RunKey, error: BaseException) -> None:
        """End the run of an agent whose own task or callback exited, and tell of it.

        The run may be over: what an agent starts can outlive its run.
        """
        live = self._live.get(key.run_id_key)
        if live is not None:
            live.fail(error)
        else:
            self._deps.telemetry.emit(agent_fault(key, error))

    def stop(self, principal: Principal, run_id: str) -> None:
        """End a run of this person, if it is not over, and wait for nothing."""
        if not self._draining:
            self._group.create_task(self._stop(principal, run_id), name=f"stop {run_id}")

    async def _stop(self, principal: Principal, run_id: str) -> None:
        with contextlib.suppress(NotFound, Unavailable):
            await self.cancel(principal, run_id)

    async def _begun(self, principal: Principal, run_id: str) -> RunExecutor | None:
        """Return a run in progress; where its beginning is being written, once that is done."""
        mine = (principal.tenant, principal.user, run_id)
        await self._opened(lambda key: key.run_id_key == mine)
        return self._live.get(mine)

    async def _opened(self, wanted: Callable[[RunKey], bool]) -> None:
        """Wait until the log has answered the beginnings of such runs that are on their way."""
        for answered, key in list(self._opening.items()):
            if wanted(key):
                await answered.wait()

    async def _until_ended(self, live: RunExecutor) -> None:
        """Wait until the ending of a run that is over is in the log.

        Raises:
            Unavailable: it cannot be written now. It will be, and asking again is right.
        """
        if not await live.ended(within=self._deps.limits.ending_seconds):
            raise Unavailable("the run is stopped, and its ending cannot be written now")

    async def _withdraw(self, key: RunKey, request: tuple[IdempotencyKey, bytes] | None) -> bool:
        try:
            return await self._queue.withdraw(key, request)
        except StorageError:
            raise Unavailable("the log cannot be written now") from None

    async def drain(self) -> None:
        """Take no new runs; give each one in progress its ending and wait until it is written.

        Runs that wait for their turn go on waiting, and begin when the log is opened next.
        """
        self._draining = True
        await self._queue.stop()
        await asyncio.gather(*self._starting, return_exceptions=True)
        lives = list(self._live.values())
        for live in lives:
            live.end(live.run.fail("run.drained"))
        await asyncio.gather(*(live.ended() for live in lives))

    def _wanted(self, principal: Principal, request: StartRun) -> Wanted:
        """Return what a request wants, where it can be wanted now."""
        if self._draining:
            raise Unavailable("the server is being taken out of service")
        check_ids(request)
        agent = self._registry.get(request.agent)
        if agent is None:
            raise NotFound("no such agent")
        deps = self._deps
        bound = deps.limits.message_bytes
        messages = new_messages(request, bound=bound, new_id=deps.new_id)
        return Wanted(principal, agent, request, messages)

    async def _record(self, principal: Principal, run_id: str) -> RunRecord | None:
        try:
            return await self._deps.conversations.find_run(principal.tenant, principal.user, run_id)
        except StorageError:
            raise Unavailable("the store cannot be read now") from None

    async def _carry_through(self, work: Coroutine[Any, Any, bytes]) -> bytes:
        """See something through to its answer, also when whoever asked for it leaves meanwhile.

        Raises:
            Unavailable: the log cannot be used now.
        """
        starting = asyncio.create_task(work)
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        starting.add_done_callback(failure)  # Nobody may be there to be told.
        try:
            return await asyncio.shield(starting)
        except StorageError as error:
            raise Unavailable(str(error)) from None

    async def _start(self, wanted: Wanted, opening: Opening) -> bytes:
        """Open a run; where its thread is busy, do what its agent's policy says."""
        for _ in range(ATTEMPTS):
            try:
                return await self._open_settled(wanted, opening)
            except ThreadBusy:
                # What answers a run's questions goes on at once or not at all: a thread that goes
                # on without it leaves them behind.
                answers = opening.parent is not None or bool(wanted.request.answers)
                policy = wanted.agent.double_texting
                if policy is DoubleTexting.REJECT or answers:
                    raise
                if policy is DoubleTexting.QUEUE:
                    return await self._queue.put(wanted, opening)
                assert wanted.request.thread_id is not None, "a busy thread has a name"
                await self._make_way(wanted.principal, wanted.request.thread_id)
                if self._draining:
                    raise Unavailable("the server is being taken out of service") from None
        raise Conflict("the thread has too many writers")

    async def _open_settled(self, wanted: Wanted, opening: Opening) -> bytes:
        """Open a run on what its thread is now; where that moves on meanwhile, look again."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(ThreadMoved):
                return await self._open(wanted, opening)
        raise ThreadMoved("the thread has too many writers")

    async def _make_way(self, principal: Principal, thread: str) -> None:
        """End what is active on a thread and what waits for it; their endings are in the log then.

        Raises:
            StorageError, Unavailable: the log cannot be used now.
        """
        mine = (principal.tenant, principal.user, thread)

        def is_there(key: RunKey) -> bool:
            return key.thread_key == mine

        await self._queue.clear(*mine)
        await self._opened(is_there)
        lives = [live for live in self._live.values() if is_there(live.run.key)]
        for live in lives:
            live.end(live.run.cancel())
        for live in lives:
            await self._until_ended(live)
        await self._queue.advance(*mine)

    async def _open(self, wanted: Wanted, opening: Opening) -> bytes:
        """Write the run's first event, and that there is a run, in one act; then set it going."""
        deps, principal, request = self._deps, wanted.principal, wanted.request
        key = RunKey(
            tenant=principal.tenant,
            user=principal.user,
            thread=request.thread_id or deps.new_id(),
            run=request.run_id or deps.new_id(),
            agent=wanted.agent.name,
        )
        past = await deps.conversations.conversation(*key.thread_key)
        if opening.parent is None and request.answers:
            now = deps.clock()
            waiting = await self._approvals.asked_in(key, now)
            # After that look: a twin of this request shows in it, or is met at the write.
            earlier = await deps.broker.stored_result(opening.key) if opening.key else None
            if earlier is not None:
                return earlier
            opening = answering(opening, waiting, request, now)
        run = Run(
            key,
            history=past.messages,
            state=past.state,
            new_id=deps.new_id,
            keep_raw=deps.limits.keep_raw,
        )
        try:
            given = {**wire_parts(request.input), "messages": wanted.messages}
            made = run.begin(given, parent=opening.parent)
        except IllegalEvent as error:
            raise BadRequest(error.reason) from None
        answered = asyncio.Event()
        self._opening[answered] = key
        try:
            written = await write(deps.broker, self._beginning(run, made, past.offset, opening))
            if not written.repeated:
                first, last = written.spans[0].first, written.spans[0].last
                live = RunExecutor(run, LogRange(first, last), deps.clock(), deps)
                self._launch(live, wanted.agent, agent_input(run, wanted))
        finally:
            del self._opening[answered]
            answered.set()
        return written.result

    def _beginning(self, run: Run, made: list[RunEvent], offset: int, opening: Opening) -> Write:
        key = run.key
        opened = RunOpened(
            key=key,
            started=made[0].event,
            title=title_of(made[0].event["input"]["messages"]),
            thread_offset=offset,
            at=self._deps.clock(),
            holder=self._deps.holder,
            lease=self._deps.lease_end(),
            queued=opening.queued,
        )
        first = Append(channel_of(key), tuple(map(item, made)), fence=True)
        return Write(
            (first, notice(run, "towpath.run.started")),
            (*opening.facts, opened),
            key=opening.key,
            result=lambda spans: opening.result(key, spans[0]),
        )

    def _launch(self, live: RunExecutor, agent: Agent, given: AgentInput) -> None:
        key = live.run.key
        self._live[key.run_id_key] = live
        self._deps.telemetry.emit(
            telemetry.RunBegan(
                tenant=key.tenant, user=key.user, thread=key.thread, run=key.run, agent=key.agent
            )
        )
        self._group.create_task(self._run_to_end(live, agent, given), name=f"run {key.run}")

    async def _run_to_end(self, live: RunExecutor, agent: Agent, given: AgentInput) -> None:
        key = live.run.key
        try:
            await live.run_to_end(agent, given)
        finally:
            del self._live[key.run_id_key]
            self._approvals.look_again()
        self._queue.look(*key.thread_key)
