"""The executor of one run: runs its agent, publishes its events, writes its ending.

The agent runs in its own task, so that a run can end while its agent still cleans up. Ending a run
and stopping its agent are two steps. The ending is a transition of the run's table and takes effect
at once. The agent is then cancelled and has `cleanup_seconds` to return; the table refuses what the
agent yields after the ending.

Events are submitted in order and not awaited one by one: up to `in_flight` writes are in progress
while the agent continues. Each write names the offset that it follows, so no event is in the log
if an earlier one is missing. The terminal event is awaited, and written again while the log refuses
it, because every run has an ending.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Final

import msgspec

from towpath import codes, telemetry
from towpath.agents.agent import Agent, AgentError, AgentInput
from towpath.errors import Conflict, LogCorrupted, LogFenced, StorageError, WriteFailed
from towpath.events.types import IllegalEvent
from towpath.log.broker import Append, IdempotencyKey, Write, Written, failure
from towpath.runs.deps import RunDeps
from towpath.runs.encoding import RunEvent
from towpath.runs.model import OVER, AlreadyEnded, LogRange, RunIsOver, RunKey, Status
from towpath.runs.publications import items_of, notice
from towpath.runs.run import Run

ENDING_FAILURES: Final = 3
"""How many times an ending may fail to be applied before it is written without the content."""

PIECE: Final = 100
"""How many events are read back before other tasks have their turn."""

CURRENT_RUN: ContextVar[RunKey] = ContextVar("CURRENT_RUN")
"""The run of the current agent; tasks, callbacks and threads that the agent starts inherit it."""


class RunExecutor:
    """A run whose first event is in the log and whose terminal event may not be."""

    def __init__(self, run: Run, log_range: LogRange, began: float, deps: RunDeps) -> None:
        """Take over a run.

        Args:
            run: the run.
            log_range: the range of its events in the log of its thread.
            began: when it began, in Unix seconds.
            deps: the dependencies of runs.
        """
        self.run = run
        self._channel = run.key.channel
        self._fence, self._top = log_range
        self._began = began
        self._deps = deps
        self._over = asyncio.Event()
        self._in_flight: deque[asyncio.Future[Written]] = deque()
        self._size = 0
        self._ending: asyncio.Task[bool] | None = None
        self.overtaken = False
        """Whether another process wrote another ending of the run."""
        self._request: tuple[IdempotencyKey, bytes] | None = None
        self._cleaning_up = False
        """Whether the agent cleans up, because it ended the run itself or because the run is over.
        A cancellation now would interrupt the clean-up."""
        self._failure: BaseException | None = None
        """The agent's last error; the same error may be reported to `fail` twice."""

    async def run_to_end(self, agent: Agent, agent_input: AgentInput) -> None:
        """Run the agent until the run ends, then cancel it and wait for its clean-up."""
        key, limits = self.run.key, self._deps.limits
        work = asyncio.create_task(self._work(agent, agent_input), name=f"agent {key.run}")
        self._deps.agent_tasks[work] = key
        work.add_done_callback(self._deps.agent_tasks.pop)
        over = asyncio.create_task(self._over.wait(), name=f"over {key.run}")
        try:
            deadline = limits.deadline_seconds if agent.deadline is None else agent.deadline
            done, _ = await asyncio.wait(
                (work, over), timeout=deadline, return_when=asyncio.FIRST_COMPLETED
            )
            # If the agent's task is done and the run is not over, the agent cancelled itself.
            self.end(self.run.fail("run.failed" if work in done else "run.deadline"))
        finally:
            over.cancel()
            if self._cleaning_up:
                await asyncio.wait((work,), timeout=limits.cleanup_seconds)
            self._report_own_cancellation(work)
            work.cancel()
            await asyncio.wait((work,), timeout=limits.cleanup_seconds)
            await self.ended()

    def end(
        self, events: list[RunEvent], *, request: tuple[IdempotencyKey, bytes] | None = None
    ) -> bool:
        """Write the run's ending and stop its agent; return whether this call ended the run.

        Args:
            events: the ending; empty where the run had ended already, and its ending is written.
            request: the request for the ending, and its result, stored in the same transaction.
        """
        if not events:
            return False
        self._request = request
        self._over.set()
        self._ending = asyncio.create_task(
            self._write_ending(events), name=f"ending {self.run.key.run}"
        )
        return True

    def ends_for(self, key: IdempotencyKey | None) -> bool:
        """Whether the request with this key ended the run."""
        return self._request is not None and self._request[0] == key

    async def ended(self, *, within: float | None = None) -> bool:
        """Wait until the ending is in the log, if there is one.

        Returns:
            False if the attempts were stopped, or the ending is not in the log after `within`
            seconds.
        """
        if self._ending is None:
            return True
        await asyncio.wait((self._ending,), timeout=within)
        ending = self._ending
        return ending.done() and not ending.cancelled() and ending.result()

    def stop_retrying(self) -> None:
        """Stop trying to write the ending; the process that opens the log next writes it."""
        if self._ending is not None:
            self._ending.cancel()

    def fail(self, error: BaseException) -> None:
        """Report an error of the agent, and end the run if it is not over."""
        if error is not self._failure:
            self._failure = error
            self._deps.telemetry.emit(agent_fault(self.run.key, error))
        self.end(self.run.fail("run.failed"))

    async def _work(self, agent: Agent, agent_input: AgentInput) -> None:
        """Run the agent and publish what it yields; whatever it raises, the run ends once."""
        CURRENT_RUN.set(self.run.key)
        try:
            self.end(await self._ending_of(agent, agent_input))
        except asyncio.CancelledError:
            raise  # `run_to_end` checks whether the gateway cancelled the agent.
        except BaseException as error:  # The outermost edge of the application's code.
            # Includes SystemExit and KeyboardInterrupt: raised in a task they would end the server.
            self.fail(error)

    async def _ending_of(self, agent: Agent, agent_input: AgentInput) -> list[RunEvent]:
        """Publish what the agent yields, and return the ending that it gives the run."""
        try:
            await self._publish(agent.function(agent_input))
        except AgentError as error:
            return self.run.fail(codes.agent_code(error.code), error.message)
        return self.run.finish()

    def _report_own_cancellation(self, work: "asyncio.Task[None]") -> None:
        """Report an agent that raised CancelledError although the gateway has not cancelled it."""
        this = asyncio.current_task()
        if work.cancelled() and this is not None and not this.cancelling():
            try:
                work.result()
            except asyncio.CancelledError as error:
                self.fail(error)

    async def _publish(self, items: AsyncGenerator[object, None]) -> None:
        """Convert the items that the agent yields to events, and submit the events.

        Nothing is awaited between making events and submitting them, so another task that ends the
        run does so before or after both, never in between.
        """
        async with contextlib.aclosing(items):
            async for item in items:
                try:
                    await self.room()
                    self.publish(item)
                except RunIsOver:
                    self._cleaning_up = True
                    return
                except IllegalEvent as error:
                    self.end_from_within(self.run.fail(error.run_code, str(error)))
                    return
                except StorageError:
                    self.end_from_within(self.run.fail("run.storage"))
                    return
                if self._size > self._deps.limits.run_bytes:
                    return

    def publish(
        self, item: object, key: IdempotencyKey | None = None
    ) -> "asyncio.Future[Written] | None":
        """Convert an item to events, and submit the events; call `room` before.

        Args:
            item: see `Run.feed`.
            key: stored with the write.

        Returns:
            The write; None if the item makes no event, or its ending is being written.

        Raises:
            RunIsOver, IllegalEvent, EventTooLarge: see `Run.feed`; nothing is published.
        """
        events, written = self.run.feed(item), None
        if self.run.status in OVER:
            self.end_from_within(events)
        elif events:
            written = self._submit(events, key)
            self._in_flight.append(written)
        if self._size > self._deps.limits.run_bytes:
            self.end_from_within(self.run.fail("run.too_large"))
        return written

    def end_from_within(self, events: list[RunEvent]) -> None:
        """End the run; if its own agent does so, the agent may clean up before it returns."""
        self._cleaning_up |= CURRENT_RUN.get(None) == self.run.key
        self.end(events)

    async def room(self) -> None:
        """Wait while too many writes are in progress.

        Raises:
            StorageError: one of the run's earlier writes was refused.
        """
        waiting = self._in_flight
        while waiting and (waiting[0].done() or len(waiting) >= self._deps.limits.in_flight):
            oldest = waiting[0]
            await asyncio.shield(oldest)
            if waiting and waiting[0] is oldest:  # Several tasks may publish in one run.
                waiting.popleft()
        await self._deps.broker.room()

    def _submit(
        self, events: list[RunEvent], key: IdempotencyKey | None
    ) -> "asyncio.Future[Written]":
        items = items_of(events)
        append = Append(self._channel, items, after=self._top, fencing_offset=self._fence)
        self._top += len(items)
        self._size += sum(len(one.data) for one in items)
        future = self._deps.broker.submit(Write((append,), key=key))
        future.add_done_callback(failure)  # Retrieves the error: perhaps no task awaits the write.
        return future

    async def _write_ending(self, events: list[RunEvent]) -> bool:
        """Write the terminal event, again until it is written; False if it can never be written.

        If the log refused the terminal event or an earlier event, the run is read back from the log
        and ended from that state. If the ending cannot be written with the run's content, it is
        written without.
        """
        refused, failures = False, 0
        while events:
            try:
                if refused:
                    events = await self._make_again(failures)
                if events:
                    await self.close(events)
                return True
            except (LogCorrupted, LogFenced):
                return False  # Final: the process that opens the log next ends the run.
            except (StorageError, AlreadyEnded) as error:
                failures += isinstance(error, WriteFailed)
                reason: Exception = error
            except Conflict:
                self._request = None  # The key was used meanwhile; the run must end anyway.
                continue
            except Exception as error:  # The outermost edge of a run, which must end.
                failures += 1
                reason = error
            if not refused:
                fault = run_fault("ending of a run", self.run.key, reason)
                self._deps.telemetry.emit(fault)
            refused = True
            await asyncio.sleep(self._deps.limits.retry_seconds)
        return True

    async def close(self, events: list[RunEvent]) -> None:
        """Try once to write the terminal event, and report that the run has ended.

        Raises:
            StorageError: it could not be written, or an event before it is missing in the log.
            AlreadyEnded: another task or process has ended the run.
            Conflict: the request for the ending was answered already.
        """
        written = await self._deps.broker.submit(self._closing(events))
        if written.repeated:
            raise Conflict("the request was answered already")
        self._report_ended()

    def _report_ended(self) -> None:
        seconds = self._deps.now() - self._began
        self._deps.telemetry.emit(run_ended(self.run, seconds))

    def _closing(self, events: list[RunEvent]) -> Write:
        """Return the write of the terminal event and of the fact that the run has ended."""
        last = Append(
            self._channel,
            items_of(events),
            after=self._top,
            fencing_offset=self._fence,
            unfence=True,
        )
        now, limits = self._deps.now(), self._deps.limits
        closed = self.run.closed(now, expires=now + limits.interrupt_seconds)
        interrupted = self.run.status is Status.INTERRUPTED
        name = "towpath.run.interrupted" if interrupted else "towpath.run.ended"
        appends = (last, notice(self.run, name))
        key, result = self._request or (None, b"")
        return Write(appends, (closed,), key=key, result=result)

    async def _make_again(self, failures: int) -> list[RunEvent]:
        """Read the run back from the log and return a new ending; empty if it has ended there.

        After `ENDING_FAILURES` failures the run is not read: its ending has no content.
        """
        key, cancelled = self.run.key, self.run.status is Status.CANCELLED
        record = await self._deps.store.find_run(*key.run_id_key)
        if record is not None and record.ended_at is not None:
            if (record.status, record.code) == (self.run.status, self.run.code):
                self._report_ended()  # This ending was written; only the log's answer was lost.
            else:
                self.overtaken = True
            return []
        if failures >= ENDING_FAILURES:
            self.run, self._top = await without_content(key, self._fence, self._deps)
            return self.run.fail("run.storage")
        self.run, (self._fence, self._top) = await read_back(key, self._deps)
        return self.run.cancel() if cancelled else self.run.fail("run.storage")


async def without_content(key: RunKey, first: int | None, deps: RunDeps) -> tuple[Run, int]:
    """Return an unfinished run whose events are not read, and the top of its channel.

    Args:
        key: the run.
        first: the offset of its first event; None if it is unknown.
        deps: the dependencies of runs.

    Raises:
        StorageError: the log cannot be read now.
    """
    top = (await deps.broker.read(key.channel, None, limit=0)).top
    events = 1 if first is None else top - first + 1
    return Run.of_unknown_content(key, events=events, new_id=deps.new_id), top


async def read_back(key: RunKey, deps: RunDeps) -> tuple[Run, LogRange]:
    """Return an unfinished run as the log has it, and its range in the log.

    Raises:
        StorageError: the log cannot be read now.
    """
    past = await deps.store.conversation(*key.thread_key)
    run = Run(key, history=past.messages, state=past.state, new_id=deps.new_id)
    replay = await deps.broker.read(key.channel, past.offset)
    for number, publication in enumerate(replay.publications, 1):
        run.replay(msgspec.json.decode(publication.data))
        if number % PIECE == 0:
            await asyncio.sleep(0)
    first = replay.publications[0].offset if replay.publications else None
    return run, LogRange(first, replay.top)


def agent_fault(key: RunKey | None, error: BaseException) -> telemetry.InternalError:
    """Return the telemetry event of an agent's exception; `key` is None if the run is unknown."""
    if key is None:
        return telemetry.InternalError(where="agent (not known which)", error=error)
    return run_fault(f"agent {key.agent}", key, error)


def run_fault(where: str, key: RunKey, error: BaseException) -> telemetry.InternalError:
    """Return the telemetry event of a failure that concerns one run."""
    return telemetry.InternalError(where=where, error=error, thread=key.thread, run=key.run)


def run_ended(run: Run, seconds: float) -> telemetry.RunEnded:
    """Return the telemetry event of a run that ended `seconds` after it began."""
    key = run.key
    return telemetry.RunEnded(
        tenant=key.tenant,
        user=key.user,
        thread=key.thread,
        run=key.run,
        agent=key.agent,
        status=run.status.value,
        code=run.code,
        events=run.events,
        seconds=seconds,
    )
