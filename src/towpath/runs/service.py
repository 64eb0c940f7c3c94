"""The service of runs: starts agents for people, stops them, and finds the runs in progress.

The service knows no connections: a person starts a run, the run belongs to a thread, and it
continues whether or not a client reads it. A start is one transaction (the run's first event, the
fact that the run was opened, and the request id). It is completed even if the client disconnects.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from towpath import telemetry
from towpath.agents.agent import Agent, AgentInput, AgentRegistry, DoubleTexting
from towpath.errors import BadRequest, Conflict, NotFound, StorageError, TooLarge, Unavailable
from towpath.identity import Principal
from towpath.log.broker import Broker, IdempotencyKey, failure
from towpath.runs.active_runs import ActiveRuns
from towpath.runs.approvals import Approvals
from towpath.runs.deps import RunDeps, RunLimits
from towpath.runs.executor import RunExecutor, agent_fault
from towpath.runs.interrupts import DECISIONS, NotOpen
from towpath.runs.leases import Leases
from towpath.runs.model import OVER, RunKey, RunRecord, Status, ThreadBusy
from towpath.runs.opener import ATTEMPTS, RunOpener
from towpath.runs.queue import RunQueue
from towpath.runs.requests import (
    Decision,
    RunRequest,
    StartOptions,
    cancel_result,
    request_key,
    start_result,
)
from towpath.runs.store import ThreadStore
from towpath.telemetry import Telemetry

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
            holder=uuid.uuid4().hex,
        )
        self._active = ActiveRuns()
        self._commands: set[asyncio.Task[bytes]] = set()
        """Starts and decisions in progress."""
        self._draining = False
        self._approvals = Approvals(self._deps, registry, self._start)
        self._group = asyncio.TaskGroup()
        self._opener = RunOpener(self._deps, registry, self._active, self._approvals, self._launch)
        self._queue = RunQueue(self._deps, self._opener.open, self._group)
        self._leases = Leases(
            self._deps, self._active, lambda key: self._queue.wake(*key.thread_key)
        )
        self._expiring: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self._leases.take_over()
        self._renewing = self._group.create_task(self._leases.watch(), name="leases")
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
            self.stop_retrying()
        if self._renewing is not None:
            self._renewing.cancel()
        await self._group.__aexit__(kind, error, traceback)

    def stop_retrying(self) -> None:
        """Stop trying to write endings; the process that opens the log next writes them."""
        for executor in self._active:
            executor.stop_retrying()

    @property
    def active(self) -> int:
        """How many runs are in progress."""
        return len(self._active)

    async def start(self, principal: Principal, request: RunRequest) -> bytes:
        """Start a run, which continues without readers; if its thread is busy, it may be queued.

        Returns:
            The JSON result of `run.start`: thread_id, run_id and a position before the run's
            first event. The same for the same request again.

        Raises:
            NotFound: there is no such agent.
            TooLarge: the request is larger than `message_bytes`.
            BadRequest: its messages are invalid AG-UI, or its answers do not match the interrupts.
            Conflict: the thread has an active run, or the request id was used for another request.
            LimitExceeded: too many runs wait for the thread.
            Unavailable: the server drains, or the log cannot be written.
        """
        self._refuse_while_draining()
        self._registry.named(request.agent)
        bound = self._deps.limits.message_bytes
        if request.size > bound:
            raise TooLarge(f"a message may have {bound} bytes")
        # The key is made from the request as received, before the gateway chooses ids, so that a
        # repetition has the same key and creates no second thread.
        key = request_key(principal, "run.start", request.request_id, request)
        options = StartOptions(key=key, result=start_result)
        return await self._complete(self._start(principal, request, options))

    async def approve(self, principal: Principal, decision: Decision) -> bytes:
        """Apply a decision on an interrupt; the last decision of a run starts its continuation.

        Returns:
            The JSON result of `run.approve`: `status` is `accepted`, `already`, `expired` or
            `gone`; with `accepted` and no other interrupt open, `run_id` and `position` of the
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
            return msgspec.json.encode({"status": late.status})

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
        request = None if key is None else (key, cancel_result("accepted"))
        for _ in range(LOOKUPS):
            executor = await self._find(principal, run_id)
            if executor is not None:
                ends = executor.end(executor.run.cancel(), request=request)
                if not ends and not executor.ends_for(key):
                    break
                await self._wait_ended(executor)
                if executor.overtaken:
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

    async def _find(self, principal: Principal, run_id: str) -> RunExecutor | None:
        """Return a run in progress; if it is being opened, wait for that write first."""
        mine = (principal.tenant, principal.user, run_id)
        await self._active.opened(lambda key: key.run_id_key == mine)
        return self._active.get(mine)

    async def _wait_ended(self, executor: RunExecutor) -> None:
        """Wait until the ending of a run that is over is in the log.

        Raises:
            Unavailable: the ending cannot be written now; it will be, so the caller may retry.
        """
        if not await executor.ended(within=self._deps.limits.ending_seconds):
            raise Unavailable("the run is stopped, and its ending cannot be written now")

    async def _withdraw(self, key: RunKey, request: tuple[IdempotencyKey, bytes] | None) -> bool:
        try:
            return await self._queue.withdraw(key, request)
        except StorageError:
            raise Unavailable("the log cannot be written now") from None

    async def _record(self, principal: Principal, run_id: str) -> RunRecord | None:
        try:
            return await self._deps.store.find_run(principal.tenant, principal.user, run_id)
        except StorageError:
            raise Unavailable("the store cannot be read now") from None

    async def _complete(self, command: Coroutine[Any, Any, bytes]) -> bytes:
        """Run a command to its result, even if the client that sent it disconnects.

        Raises:
            Unavailable: the log cannot be used now.
        """
        task = asyncio.create_task(command)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        task.add_done_callback(failure)  # Retrieves the error: perhaps no task awaits the command.
        try:
            return await asyncio.shield(task)
        except StorageError as error:
            raise Unavailable(str(error)) from None

    async def _start(
        self, principal: Principal, request: RunRequest, options: StartOptions
    ) -> bytes:
        """Open a run; if its thread is busy, apply the agent's `double_texting` policy."""
        request = request.with_ids(self._deps.new_id)
        for _ in range(ATTEMPTS):
            try:
                return await self._opener.open(principal, request, options)
            except ThreadBusy:
                # A run that answers interrupts is never queued: the run before it would supersede
                # the interrupts.
                answers = options.parent is not None or bool(request.answers)
                policy = self._registry.named(request.agent).double_texting
                if policy is DoubleTexting.REJECT or answers:
                    raise
                if policy is DoubleTexting.QUEUE:
                    return await self._queue.put(principal, request, options)
                await self._free_thread(request.run_key(principal).thread_key)
                self._refuse_while_draining()
        raise Conflict("the thread has too many writers")

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

    def _launch(self, executor: RunExecutor, agent: Agent, agent_input: AgentInput) -> None:
        key = executor.run.key
        self._active.add(executor)
        self._deps.telemetry.emit(
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
