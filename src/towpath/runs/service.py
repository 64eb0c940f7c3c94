"""The service of runs: starts agents for people, stops them, and finds the runs in progress.

The service knows no connections: a person starts a run, the run belongs to a thread, and it
continues whether or not a client reads it. A start is one transaction (the run's first event, the
fact that the run was opened, and the request id). It is completed even if the client disconnects.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Self, TypeVar

import msgspec

from towpath import telemetry
from towpath.agents.agent import Agent, AgentInput, AgentRegistry, DoubleTexting
from towpath.errors import BadRequest, Conflict, NotFound, StorageError, TooLarge, Unavailable
from towpath.identity import Principal
from towpath.log.broker import Broker, IdempotencyKey, Span, failure, write
from towpath.runs.active import ActiveRuns
from towpath.runs.approvals import Approvals, answer_options
from towpath.runs.deps import RunDeps, RunLimits
from towpath.runs.executor import RunExecutor, agent_fault
from towpath.runs.interrupts import DECISIONS, NotOpen
from towpath.runs.lost import LostRuns
from towpath.runs.model import OVER, LogRange, RunKey, Status, ThreadBusy, ThreadMoved
from towpath.runs.pushes import Pushes
from towpath.runs.queue import RunQueue
from towpath.runs.requests import (
    Accepted,
    Decided,
    Decision,
    R,
    RunRequest,
    Started,
    StartOptions,
    agent_input,
    opening,
    result_of,
)
from towpath.runs.run import Run
from towpath.runs.store import ThreadStore
from towpath.telemetry import Telemetry

T = TypeVar("T")

ATTEMPTS: Final = 20
"""How often a run is opened on a thread that changes meanwhile, or is busy."""
LOOKUPS: Final = 2
"""How often a run that is to be cancelled is looked up: it may begin between two lookups."""


class RunService:
    """Starts and stops runs; an async context manager whose exit ends them all."""

    def __init__(
        self,
        broker: Broker,
        store: ThreadStore,
        registry: AgentRegistry,
        *,
        telemetry: Telemetry,
        now: Callable[[], float],
        limits: RunLimits | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._registry = registry
        self._deps = RunDeps(
            broker=broker,
            store=store,
            telemetry=telemetry,
            limits=limits or RunLimits(),
            now=now,
            new_id=new_id,
        )
        self._active = ActiveRuns()
        self._commands: set[asyncio.Task[Any]] = set()
        """Starts and decisions in progress."""
        self._draining = False
        self._approvals = Approvals(self._deps, registry, self._start)
        self._group = asyncio.TaskGroup()
        self._queue = RunQueue(self._deps, self._open, self._group)
        self._lost = LostRuns(
            self._deps, self._active, lambda key: self._queue.wake(*key.thread_key)
        )
        self._expiring: asyncio.Task[None]
        self._ending_lost: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._ending_lost = self._group.create_task(self._lost.watch(), name="lost runs")
        self._expiring = self._group.create_task(
            self._approvals.watch(), name="expiring interrupts"
        )
        await self._queue.resume()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._expiring.cancel()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(self._group)  # It cancels its tasks if the exit is cancelled.
            stack.callback(self._ending_lost.cancel)
            stack.callback(self.stop_retrying)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deps.limits.drain_seconds):
                    await self.drain()

    def stop_retrying(self) -> None:
        """Stop trying to write endings; the process that opens the log next writes them."""
        for executor in self._active:
            executor.stop_retrying()

    @property
    def unreturned(self) -> list[RunKey]:
        """The runs whose agents have not returned, also of runs that are over."""
        return list(self._deps.agent_tasks.values())

    @property
    def active(self) -> int:
        """How many runs are in progress."""
        return len(self._active)

    def pushes(self, principal: Principal, run_id: str) -> Pushes | None:
        """Return how to push into a run of this person; None if it is not in progress here."""
        return self._active.pushes((principal.tenant, principal.user, run_id))

    async def start(
        self, principal: Principal, request: RunRequest, *, agent: Agent | None = None
    ) -> Started:
        """Start a run, which continues without readers; if its thread is busy, it may be queued.

        Args:
            principal: the person who requests the run.
            request: the request.
            agent: the agent; None takes the registered one that the request names.

        Returns:
            The result of `run.start`; the same for the same request again.

        Raises:
            NotFound: there is no such agent.
            TooLarge: the request is larger than `message_bytes`.
            BadRequest: its messages are invalid AG-UI, or its answers do not match the interrupts.
            Conflict: the thread has an active run, or the request id was used for another request.
            LimitExceeded: too many runs wait for the thread.
            Unavailable: the server drains, or the log cannot be written.
        """
        self._refuse_while_draining()
        agent = agent or self._registry.get(request.agent)
        bound = self._deps.limits.message_bytes
        if request.size > bound:
            raise TooLarge(f"a message may have {bound} bytes")
        # The key is made from the request as received, before the gateway chooses ids, so that a
        # repetition has the same key and creates no second thread.
        key = IdempotencyKey.of(principal, "run.start", request.request_id, request)
        options = StartOptions(key=key, result=Started, agent=agent)
        return await self._complete(self._start(principal, request, options))

    async def approve(self, principal: Principal, decision: Decision) -> Decided:
        """Apply a decision on an interrupt; the last decision of a run starts its continuation.

        Returns:
            The result of `run.approve`; with `accepted` and no other interrupt open, it names the
            continuation. The same for the same request again.

        Raises:
            BadRequest: no such decision, or the digest of the arguments is missing.
            NotFound: no such run or interrupt, or another person's.
            Conflict: other arguments were shown, or the request id was used for something else.
            Unavailable: the server drains, or the log cannot be used.
        """
        self._refuse_while_draining()
        if decision.decision not in DECISIONS:
            raise BadRequest("decision must be approve or refuse")
        try:
            return await self._complete(self._approvals.decide(principal, decision))
        except NotOpen as late:
            return Decided(status=late.status)

    async def cancel(
        self, principal: Principal, run_id: str, *, key: IdempotencyKey | None = None
    ) -> str:
        """End a run of this person at their request.

        With a key, `accepted` is stored under it in the transaction that ends the run: a client
        that did not receive the answer gets the same answer when it repeats the request.

        Returns:
            `accepted` once the ending is durable, or `too_late` for a run that is over. For a
            queued run, `accepted` once the cancellation is durable; its ending follows at its turn.

        Raises:
            NotFound: no such run, or another person's.
            Unavailable: the log cannot be used now.
        """
        accepted = msgspec.json.encode(Accepted(status="accepted"))
        request = None if key is None else (key, accepted)
        run_id_key = (principal.tenant, principal.user, run_id)
        for _ in range(LOOKUPS):
            executor = await self._active.find(run_id_key)
            if executor is not None:
                ends = executor.end(executor.run.cancel(), request=request)
                if not ends and not executor.ends_for(key):
                    break
                await self._wait_ended(executor)
                if executor.overtaken:
                    break
                return "accepted"
            with _log_needed():
                record = await self._deps.store.find_run(*run_id_key)
                if record is None:
                    raise NotFound("no such run")
                if record.status in OVER:
                    break
                waits = record.status is Status.PENDING
                if waits and await self._queue.withdraw(record.key, request):
                    return "accepted"
        return "too_late"

    def agent_exited(self, key: RunKey, error: BaseException) -> None:
        """End the run of an agent whose own task or callback exited, and report the error.

        The run may be over: what an agent starts can outlive its run.
        """
        executor = self._active.get(key.run_id_key)
        if executor is not None:
            executor.fail(error)
        else:
            self._deps.telemetry.emit(agent_fault(key, error))

    def stop(self, principal: Principal, run_id: str) -> None:
        """Schedule the end of a run of this person, if it is not over, and return at once."""
        if not self._draining:
            self._group.create_task(self._stop(principal, run_id), name=f"stop {run_id}")

    async def drain(self) -> None:
        """Accept no new runs; end each run in progress and wait until its ending is written.

        Queued runs stay queued, and begin when the log is opened next.
        """
        self._draining = True
        await self._queue.stop()
        await asyncio.gather(*self._commands, return_exceptions=True)
        executors = list(self._active)
        for executor in executors:
            executor.end(executor.run.fail("run.drained"))
        await asyncio.gather(*(executor.ended() for executor in executors))

    def _refuse_while_draining(self) -> None:
        if self._draining:
            raise Unavailable("the server is draining")

    async def _stop(self, principal: Principal, run_id: str) -> None:
        with contextlib.suppress(NotFound, Unavailable):
            await self.cancel(principal, run_id)

    async def _wait_ended(self, executor: RunExecutor) -> None:
        """Wait until the ending of a run that is over is in the log.

        Raises:
            Unavailable: the ending cannot be written now; it will be, so the caller may retry.
        """
        if not await executor.ended(within=self._deps.limits.ending_seconds):
            raise Unavailable("the run is stopped, and its ending cannot be written now")

    async def _complete(self, command: Coroutine[Any, Any, T]) -> T:
        """Run a command to its result, even if the client that sent it disconnects.

        Raises:
            Unavailable: the log cannot be used now.
        """
        task = asyncio.create_task(command)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        task.add_done_callback(failure)  # Retrieves the error: perhaps no task awaits the command.
        with _log_needed():
            return await asyncio.shield(task)

    async def _start(
        self, principal: Principal, request: RunRequest, options: StartOptions[R]
    ) -> R:
        """Open a run; if its thread is busy, apply the agent's `double_texting` policy."""
        request = request.with_ids(self._deps.new_id)
        for _ in range(ATTEMPTS):
            try:
                return await self._open(principal, request, options)
            except ThreadMoved:
                continue
            except ThreadBusy:
                if await self._lost.end_in_thread(request.run_key(principal).thread_key):
                    self._refuse_while_draining()
                    continue
                # A run that answers interrupts is never queued: the run before it would supersede
                # the interrupts.
                answers = options.parent is not None or bool(request.answers)
                policy = (options.agent or self._registry.get(request.agent)).double_texting
                if policy is DoubleTexting.REJECT or answers:
                    raise
                if policy is DoubleTexting.QUEUE:
                    return await self._queue.put(principal, request, options)
                await self._free_thread(request.run_key(principal).thread_key)
                self._refuse_while_draining()
        raise Conflict("the thread has too many writers")

    async def _open(self, principal: Principal, request: RunRequest, options: StartOptions[R]) -> R:
        """Write a run's first events to its thread, and launch the run.

        Raises:
            NotFound: there is no such agent.
            BadRequest: the messages are not AG-UI's, or the answers do not fit the interrupts.
            NotOpen: an interrupt that the request answers is not open.
            ThreadMoved: the thread changed while its conversation was read.
            Conflict: the thread is busy, or the ids were used before.
            StorageError: the log cannot be used now.
        """
        deps, agent = self._deps, options.agent or self._registry.get(request.agent)
        key = request.run_key(principal)
        past = await deps.store.conversation(*key.thread_key)
        if options.parent is None and request.answers:
            now = deps.now()
            interrupts = await self._approvals.last_interrupts(key, now)
            # This check must come after the lookup above. If the same request was written before
            # it, its result is found here; if after it, the write below returns that result.
            if options.key is not None and (
                earlier := await deps.broker.stored_result(options.key)
            ):
                return result_of(options.result, earlier)
            options = answer_options(options, interrupts, request, now)
        run = Run(
            key,
            history=past.messages,
            state=past.state,
            new_id=deps.new_id,
            keep_raw=deps.limits.keep_raw,
            event_bytes=deps.limits.event_bytes,
        )
        first_write = opening(run, request, options, offset=past.offset, deps=deps)
        with self._active.opening(key):
            written = await write(deps.broker, first_write)
            if not written.repeated:
                self._launch(run, written.spans[0], agent, agent_input(run, principal, request))
        return result_of(options.result, written)

    async def _free_thread(self, thread_key: tuple[str, str, str]) -> None:
        """End the active run and the queued runs of a thread, and wait for their endings.

        Raises:
            StorageError, Unavailable: the log cannot be used now.
        """
        await self._queue.clear(*thread_key)
        await self._active.opened(lambda key: key.thread_key == thread_key)
        executors = self._active.of_thread(thread_key)
        for executor in executors:
            executor.end(executor.run.cancel())
        for executor in executors:
            await self._wait_ended(executor)
        await self._queue.advance(*thread_key)

    def _launch(self, run: Run, span: Span, agent: Agent, agent_input: AgentInput) -> None:
        """Run the agent of a run that has begun, in a task of the service."""
        key, deps = run.key, self._deps
        executor = RunExecutor(run, LogRange(span.first, span.last), deps.now(), deps)
        self._active.add(executor, Pushes(executor, deps.broker))
        deps.telemetry.emit(
            telemetry.RunBegan(
                tenant=key.tenant, user=key.user, thread=key.thread, run=key.run, agent=key.agent
            )
        )
        self._group.create_task(
            self._run_to_end(executor, agent, agent_input), name=f"run {key.run}"
        )

    async def _run_to_end(
        self, executor: RunExecutor, agent: Agent, agent_input: AgentInput
    ) -> None:
        try:
            await executor.run_to_end(agent, agent_input)
        finally:
            self._active.remove(executor)
            self._approvals.wake()
        self._queue.wake(*executor.run.key.thread_key)


@contextlib.contextmanager
def _log_needed() -> Iterator[None]:
    """Raise Unavailable in place of a StorageError."""
    try:
        yield
    except StorageError as error:
        raise Unavailable(str(error)) from None
