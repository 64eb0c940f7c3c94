"""One run in progress: its agent at work, its events on their way, its ending.

The agent works in a task of its own, so that a run can end while its agent still tidies up. Ending
a run and stopping its agent are two things: the ending is a move of the run's table and happens at
once; the agent is then cancelled and has `cleanup_seconds` to leave. What it yields after that is
refused by the table.

Events are submitted in order and not waited for one by one: up to `in_flight` writes are under way
while the agent goes on, each naming the offset it follows, so that none can stand in the log where
an earlier one is missing. The terminal event is waited for, and repeated while the log refuses it,
because a run without an ending is the one thing that may not be.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from towpath import codes, telemetry
from towpath.agents.agent import Agent, AgentError, AgentInput
from towpath.channels import Channel, thread_channel, user_channel
from towpath.errors import Conflict, LogCorrupted, LogFenced, StorageError, WriteFailed
from towpath.events.types import IllegalEvent, Message
from towpath.log.broker import Append, Broker, IdempotencyKey, Item, Write, Written, failure
from towpath.runs.interrupts import Interrupt
from towpath.runs.model import LeaseHeld, Queued, RunKey
from towpath.runs.run import Run, RunEvent, RunIsOver
from towpath.runs.run_states import OVER, Status
from towpath.telemetry import Telemetry

ENDING_FAILURES = 3
"""How often an ending may fail to be applied before it carries nothing of what the run has made."""
BEATS = 3
"""How often a lease is renewed in its time."""

CURRENT_RUN: ContextVar[RunKey] = ContextVar("CURRENT_RUN")
"""The run whose agent is at work; tasks, callbacks and threads that the agent starts inherit it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """The bounds of runs. Times in seconds, sizes in bytes."""

    deadline_seconds: float = 600.0
    """Until a run is ended with `run.deadline`, where its agent has no deadline of its own."""
    cleanup_seconds: float = 5.0
    """How long a stopped agent may tidy up before it is left behind."""
    in_flight: int = 64
    """How many writes of one run may be under way."""
    message_bytes: int = 256 * 1024
    """The input of one run."""
    run_bytes: int = 64 * 1024 * 1024
    """All events of one run together."""
    ending_seconds: float = 4.0
    """How long whoever stops a run waits for its ending in the log: clients wait for 5 s."""
    drain_seconds: float = 8.0
    """How long the endings of a drain may take; what is not written then is written as lost."""
    interrupt_seconds: float = 24 * 3600.0
    """How long a question waits for a person, where the agent does not say."""
    lease_seconds: float = 15.0
    """How long after its process fell silent a run is ended as lost, at the latest."""
    retry_seconds: float = 1.0
    """Between attempts to write an ending that the log refused."""
    keep_raw: bool = False
    """Whether RAW events and `rawEvent` fields are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is stored of a thread: everything up to its last terminal event."""

    messages: list[Message] = field(default_factory=list)
    state: Any = None
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What is stored of a run."""

    key: RunKey
    status: Status
    code: str | None
    started_at: float
    ended_at: float | None


class Conversations(Protocol):
    """What the bridge has to know of threads; the store of threads is handed in."""

    async def conversation(self, tenant: str, user: str, thread: str) -> Conversation:
        """Return what is stored of a thread; an empty one where there is none."""

    async def find_run(self, tenant: str, user: str, run: str) -> RunRecord | None:
        """Return what is stored of a run."""

    async def unfinished(self) -> list[RunRecord]:
        """Return every run that has begun and has no terminal event."""

    async def abandoned(self, at: float) -> list[RunRecord]:
        """Return those whose lease has run out by a time."""

    async def held(self, holder: str) -> set[RunKey]:
        """Return the runs that a holder holds."""

    async def queued(self, tenant: str, user: str, thread: str) -> list[Queued]:
        """Return the runs that wait for a thread, in the order of their turns."""

    async def waiting_threads(self) -> list[tuple[str, str, str]]:
        """Return the threads for which runs wait: tenant, user, thread."""

    async def questions(self, tenant: str, user: str, run: str) -> list[Interrupt]:
        """Return what a run asked, in its order."""

    async def asked_in(self, tenant: str, user: str, thread: str) -> list[Interrupt]:
        """Return what the run that ended last in a thread asked, if it ended with that."""

    async def expired(self, at: float) -> list[RunKey]:
        """Return the runs whose open questions have expired by a time."""

    async def next_expiry(self) -> float | None:
        """Return when the next open question expires, in Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDeps:
    """What every run of a bridge works with."""

    broker: Broker
    conversations: Conversations
    telemetry: Telemetry
    limits: RunLimits
    clock: Callable[[], float]
    """Unix seconds."""
    new_id: Callable[[], str]
    holder: str
    """The name under which leases are held."""
    left_behind: set["asyncio.Task[None]"] = field(default_factory=set)
    """Agents that ignore their cancellation; kept in sight until they go."""

    def lease_end(self) -> float:
        """Return until when a lease holds that is given or renewed now.

        That is a beat less than `lease_seconds`, since the last beat may be that long ago.
        """
        return self.clock() + self.limits.lease_seconds * (1 - 1 / BEATS)


class LogRange(NamedTuple):
    """Where a run stands in its thread's channel."""

    hold: int | None
    """The offset of its first event; None where the log has none of it."""
    top: int
    """The offset of its last event."""


class RunExecutor:
    """A run whose first event is in the log and whose terminal event may not be."""

    def __init__(self, run: Run, log_range: LogRange, began: float, deps: RunDeps) -> None:
        """Take over a run.

        Args:
            run: its state.
            place: where it stands in the thread's channel.
            began: when, in Unix seconds.
            around: what it works with.
        """
        self.run = run
        self._channel = channel_of(run.key)
        self._fence, self._top = log_range
        self._began = began
        self._deps = deps
        self._over = asyncio.Event()
        self._in_flight: deque[asyncio.Future[Written]] = deque()
        self._size = 0
        self._ending: asyncio.Task[bool] | None = None
        self.overtaken = False
        """Whether somebody else gave the run another ending than the one made here."""
        self._request: tuple[IdempotencyKey, bytes] | None = None
        self._leaving = False
        """Whether its agent ended the run itself, or heard that it is over, and is tidying up: to
        cancel it now would break that off."""
        self._failure: BaseException | None = None
        """What the agent raised last; one error may come by two ways, and is told once."""

    async def run_to_end(self, agent: Agent, given: AgentInput) -> None:
        """See the run to its end, and its agent out of the house."""
        key, limits = self.run.key, self._deps.limits
        work = asyncio.create_task(self._work(agent, given), name=f"agent {key.run}")
        self._deps.left_behind.add(work)
        work.add_done_callback(self._deps.left_behind.discard)
        over = asyncio.create_task(self._over.wait(), name=f"over {key.run}")
        try:
            deadline = limits.deadline_seconds if agent.deadline is None else agent.deadline
            done, _ = await asyncio.wait(
                (work, over), timeout=deadline, return_when=asyncio.FIRST_COMPLETED
            )
            # An agent that ends without ending its run has cancelled itself.
            self.end(self.run.fail("run.failed" if work in done else "run.deadline"))
        finally:
            over.cancel()
            if self._leaving:
                await asyncio.wait((work,), timeout=limits.cleanup_seconds)
            self._tell_own_cancellation(work)
            work.cancel()
            await asyncio.wait((work,), timeout=limits.cleanup_seconds)
            await self.ended()

    def end(
        self, made: list[RunEvent], *, request: tuple[IdempotencyKey, bytes] | None = None
    ) -> bool:
        """Write the run's ending and let its agent go; return whether this call ended it.

        `made` is empty where the run had ended already: then its ending is being written.
        `request` is what asked for the ending, and its result, to be remembered in the same act.
        """
        if not made:
            return False
        self._request = request
        self._over.set()
        self._ending = asyncio.create_task(
            self._write_ending(made), name=f"ending {self.run.key.run}"
        )
        return True

    def ends_for(self, key: IdempotencyKey | None) -> bool:
        """Whether it was this request that ended the run."""
        return self._request is not None and self._request[0] == key

    async def ended(self, *, within: float | None = None) -> bool:
        """Wait until the ending is in the log, if there is one.

        Returns:
            False where it was given up, or is not there within so many seconds.
        """
        if self._ending is None:
            return True
        await asyncio.wait((self._ending,), timeout=within)
        ending = self._ending
        return ending.done() and not ending.cancelled() and ending.result()

    def abandon(self) -> None:
        """Stop working on a run that is held no more: somebody else has ended it, or will."""
        if not self.run.over:
            self.run.lose()
            self._over.set()

    def give_up(self) -> None:
        """Stop trying to write the ending; whoever opens the log next writes it."""
        if self._ending is not None:
            self._ending.cancel()

    def fail(self, error: BaseException) -> None:
        """End the run, if it is not over, because of what its agent raised, and tell of it."""
        if error is not self._failure:
            self._failure = error
            self._deps.telemetry.emit(agent_fault(self.run.key, error))
        self.end(self.run.fail("run.failed"))

    async def _work(self, agent: Agent, given: AgentInput) -> None:
        """Ask the agent and carry what it says; whatever it raises, the run ends here once."""
        CURRENT_RUN.set(self.run.key)
        try:
            self.end(await self._answer(agent, given))
        except asyncio.CancelledError:
            raise  # Whether somebody asked for it is for `run_to_end` to say.
        except BaseException as error:  # The outermost edge of somebody else's code.
            # SystemExit and KeyboardInterrupt too: from a task they would end the server.
            self.fail(error)

    async def _answer(self, agent: Agent, given: AgentInput) -> list[RunEvent]:
        """Carry what the agent says, and return the ending that it gives the run."""
        try:
            await self._carry(agent.function(given))
        except AgentError as error:
            return self.run.fail(codes.agent_code(error.code), error.message)
        return self.run.finish()

    def _tell_own_cancellation(self, work: "asyncio.Task[None]") -> None:
        """Tell of an agent that raised CancelledError by itself: nobody has cancelled it yet."""
        this = asyncio.current_task()
        if work.cancelled() and this is not None and not this.cancelling():
            try:
                work.result()
            except asyncio.CancelledError as error:
                self.fail(error)

    async def _carry(self, items: AsyncGenerator[object, None]) -> None:
        """Take what the agent yields, one by one, and submit what it makes.

        Between making events and submitting them nothing is awaited: so whoever ends the run
        meanwhile can only come before or after, never between.
        """
        async with contextlib.aclosing(items):
            async for item in items:
                try:
                    await self._room()
                    made = self.run.feed(item)
                except RunIsOver:
                    self._leaving = True
                    return
                except IllegalEvent as error:
                    self._leave(self.run.fail("run.illegal_event", str(error)))
                    return
                except StorageError:
                    self._leave(self.run.fail("run.storage"))
                    return
                if self.run.status in OVER:
                    self._leave(made)
                elif made:
                    self._in_flight.append(self._submit(made))
                if self._size > self._deps.limits.run_bytes:
                    self._leave(self.run.fail("run.too_large"))
                    return

    def _leave(self, made: list[RunEvent]) -> None:
        """End the run from within its agent's work; what is left to the agent is to tidy up."""
        self._leaving = True
        self.end(made)

    async def _room(self) -> None:
        """Wait while too much is under way.

        Raises:
            StorageError: one of the run's earlier writes was refused.
        """
        waiting = self._in_flight
        while waiting and (waiting[0].done() or len(waiting) >= self._deps.limits.in_flight):
            await asyncio.shield(waiting[0])
            waiting.popleft()
        await self._deps.broker.room()

    def _submit(self, made: list[RunEvent]) -> "asyncio.Future[Written]":
        items = tuple(map(item, made))
        append = Append(self._channel, items, after=self._top, fencing_offset=self._fence)
        self._top += len(items)
        self._size += sum(len(one.data) for one in items)
        future = self._deps.broker.submit(Write((append,)))
        future.add_done_callback(failure)  # Whoever waits for it is told; nobody has to.
        return future

    async def _write_ending(self, made: list[RunEvent]) -> bool:
        """Write the terminal event, as often as it takes; False where it can never be written.

        Where the log refused it or anything before it, what the log holds is what counts: the run
        is read back and ended from there. Where it cannot be written with what the run has made,
        it is written without.
        """
        told, failures = False, 0
        while made:
            try:
                if told:
                    made = await self._make_again(failures)
                if made:
                    await self.close(made)
                return True
            except (LogCorrupted, LogFenced):
                return False  # For good: whoever opens the log says what became of the run.
            except (StorageError, LeaseHeld) as error:
                failures += isinstance(error, WriteFailed)
                reason: Exception = error
            except Conflict:
                self._request = None  # It was used meanwhile; the run ends all the same.
                continue
            except Exception as error:  # The outermost edge of a run: it has to end.
                failures += 1
                reason = error
            if not told:
                fault = run_fault("ending of a run", self.run.key, reason)
                self._deps.telemetry.emit(fault)
            told = True
            await asyncio.sleep(self._deps.limits.retry_seconds)
        return True

    async def close(self, made: list[RunEvent]) -> None:
        """Write the terminal event, once, and tell that the run has ended.

        Raises:
            StorageError: it could not be written, or does not follow on what the log holds.
            LeaseHeld: somebody else holds the run.
            Conflict: the request that asked for it was answered already.
        """
        written = await self._deps.broker.submit(self._closing(made))
        if written.repeated:
            raise Conflict("the request was answered already")
        self._tell_ended()

    def _tell_ended(self) -> None:
        seconds = self._deps.clock() - self._began
        self._deps.telemetry.emit(run_ended(self.run, seconds))

    def _closing(self, made: list[RunEvent]) -> Write:
        """Return the write of the terminal event, and that the run has ended, in one act."""
        items = tuple(map(item, made))
        last = Append(
            self._channel, items, after=self._top, fencing_offset=self._fence, unfence=True
        )
        now, limits = self._deps.clock(), self._deps.limits
        closed = self.run.closed(
            now, holder=self._deps.holder, expires=now + limits.interrupt_seconds
        )
        asks = self.run.status is Status.INTERRUPTED
        name = "towpath.run.interrupted" if asks else "towpath.run.ended"
        appends = (last, notice(self.run, name))
        key, result = self._request or (None, b"")
        return Write(appends, (closed,), key=key, result=lambda _: result)

    async def _make_again(self, failures: int) -> list[RunEvent]:
        """Read the run back from the log and end it there; nothing if its ending is there.

        After too many failures the run is not read: its ending carries nothing of it.
        """
        key, cancelled = self.run.key, self.run.status is Status.CANCELLED
        record = await self._deps.conversations.find_run(*key.run_id_key)
        if record is not None and record.ended_at is not None:
            if (record.status, record.code) == (self.run.status, self.run.code):
                self._tell_ended()  # It was this one, and only its answer was lost.
            else:
                self.overtaken = True
            return []
        if failures >= ENDING_FAILURES:
            self.run, self._top = await without_content(key, self._fence, self._deps)
            return self.run.fail("run.storage")
        self.run, (self._fence, self._top) = await read_back(key, self._deps)
        return self.run.cancel() if cancelled else self.run.fail("run.storage")


async def without_content(key: RunKey, hold: int | None, deps: RunDeps) -> tuple[Run, int]:
    """Return an unfinished run whose events are not looked at, and the top of its channel.

    Args:
        key: the run.
        hold: the offset of its first event; None where that is not known.
        around: what it works with.

    Raises:
        StorageError: the log cannot be read now.
    """
    top = (await deps.broker.read(channel_of(key), None, limit=0)).top
    events = 1 if hold is None else top - hold + 1
    return Run.of_unknown_content(key, events=events, new_id=deps.new_id), top


async def read_back(key: RunKey, deps: RunDeps) -> tuple[Run, LogRange]:
    """Return an unfinished run as the log knows it, and where it stands there.

    Raises:
        StorageError: the log cannot be read now.
    """
    past = await deps.conversations.conversation(*key.thread_key)
    run = Run(key, history=past.messages, state=past.state, new_id=deps.new_id)
    replay = await deps.broker.read(channel_of(key), past.offset)
    for publication in replay.publications:
        run.replay(msgspec.json.decode(publication.data))
    first = replay.publications[0].offset if replay.publications else None
    return run, LogRange(first, replay.top)


def agent_fault(key: RunKey | None, error: BaseException) -> telemetry.InternalError:
    """Return the telemetry event of an exception that an agent raised; None: not known which."""
    if key is None:
        return telemetry.InternalError(where="agent (not known which)", error=error)
    return run_fault(f"agent {key.agent}", key, error)


def run_fault(where: str, key: RunKey, error: BaseException) -> telemetry.InternalError:
    """Return the telemetry event of a failure that concerns one run."""
    return telemetry.InternalError(where=where, error=error, thread=key.thread, run=key.run)


def channel_of(key: RunKey) -> Channel:
    """Return the channel of a run's thread."""
    return thread_channel(*key.thread_key)


def item(made: RunEvent) -> Item:
    """Return an event as it is published."""
    return Item(msgspec.json.encode(made.event), made.tags)


def run_ended(run: Run, seconds: float) -> telemetry.RunEnded:
    """Return what watchers hear of a run that is over, so many seconds after it began."""
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


def notice(run: Run, name: str) -> Append:
    """Return the small event by which a person's other devices learn of a run."""
    key = run.key
    value = {
        "thread_id": key.thread,
        "run_id": key.run,
        "agent": key.agent,
        "status": run.status.value,
    }
    return custom(user_channel(key.tenant, key.user), name, value)


def custom(channel: Channel, name: str, value: object) -> Append:
    """Return what tells the readers of a channel something by AG-UI's CUSTOM event."""
    event = {"type": "CUSTOM", "name": name, "value": value}
    return Append(channel, (Item(msgspec.json.encode(event), {}),))
