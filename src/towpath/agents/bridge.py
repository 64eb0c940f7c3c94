"""The bridge: runs agents and carries their events into the log. It knows no connection.

Each run is a task in the bridge's task group; the agent works in a second task below it, so that
a run can end while its agent still tidies up. Ending a run and stopping its agent are two things:
the ending is a move of the run's table and happens at once; the agent is then cancelled and has
`cleanup_seconds` to leave. What it yields after that is refused by the table.

Events are submitted in order and not waited for one by one: up to `in_flight` writes of a run are
under way while the agent goes on, each naming the offset it follows, so that none can stand in the
log where an earlier one is missing. The terminal event is waited for, and repeated while the log
refuses it, because a run without an ending is the one thing that may not be.
"""

import asyncio
import contextlib
import hashlib
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from towpath import hooks
from towpath.agents.registry import Agent, AgentInput, AgentRegistry
from towpath.agents.run import (
    OVER,
    AgentError,
    Made,
    Run,
    RunIsOver,
    RunKey,
    RunOpened,
    Status,
    ThreadMoved,
)
from towpath.channels import Channel, is_id, thread_channel, user_channel
from towpath.context import Principal, UserExecutionContext
from towpath.errors import (
    BadRequest,
    Conflict,
    NotFound,
    StorageError,
    TooLarge,
    Unavailable,
)
from towpath.events.fold import Message
from towpath.events.kinds import IllegalEvent
from towpath.hooks import Hooks
from towpath.streams.broker import (
    Append,
    Broker,
    Item,
    Key,
    Span,
    Write,
    Written,
    failure,
    write,
)

TITLE_LENGTH = 60
"""How much of the first message becomes a thread's title, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeLimits:
    """The bounds of runs. Times in seconds, sizes in bytes."""

    cleanup_seconds: float = 5.0
    """How long a stopped agent may tidy up before it is left behind."""
    in_flight: int = 64
    """How many writes of one run may be under way."""
    message_bytes: int = 256 * 1024
    """The input of one run."""
    run_bytes: int = 64 * 1024 * 1024
    """All events of one run together."""
    retry_seconds: float = 1.0
    """Between attempts to write an ending that the log refused."""
    keep_raw: bool = False
    """Whether RAW events and `rawEvent` fields are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """What a person asks of an agent."""

    request_id: str
    agent: str
    thread_id: str | None = None
    message: str | None = None
    input: dict[str, Any] | None = None
    """Instead of `message`: AG-UI `messages`, `state`, `context`, `tools`, `forwardedProps`."""


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
        """Return every run without a terminal event."""


@dataclass(slots=True, eq=False)
class _Live:
    """A run in progress."""

    run: Run
    channel: Channel
    top: int
    """The offset of the last event submitted."""
    began: float
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the run is over and its agent has to leave."""
    in_flight: "deque[asyncio.Future[Written]]" = field(default_factory=deque)
    size: int = 0
    ending: "asyncio.Task[None] | None" = None
    """Writes the terminal event, once the run is over."""


class AgentWebSocketBridge:
    """Starts, watches and stops runs; an async context manager whose exit stops them all."""

    def __init__(
        self,
        broker: Broker,
        conversations: Conversations,
        registry: AgentRegistry,
        *,
        watchers: Hooks,
        clock: Callable[[], float],
        limits: BridgeLimits | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._broker = broker
        self._conversations = conversations
        self._registry = registry
        self._hooks = watchers
        self._clock = clock
        self._limits = limits or BridgeLimits()
        self._new_id = new_id
        self._live: dict[tuple[str, str, str], _Live] = {}
        self._draining = False
        self._left_behind: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self._end_lost_runs()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.drain()
        await self._group.__aexit__(kind, error, traceback)

    @property
    def active(self) -> int:
        """How many runs are in progress."""
        return len(self._live)

    async def start(self, principal: Principal, asked: StartRun) -> bytes:
        """Begin a run; it goes on whoever listens.

        Returns:
            The JSON result of `run.start`: thread_id, run_id and the position before the run's
            first event. The same for the same request again.

        Raises:
            BadRequest, TooLarge, NotFound: the request is none that can be carried out.
            Conflict: the thread has an active run, or the request id was used for another request.
            Unavailable: the server drains, or the log cannot be written.
        """
        agent, messages = self._check(asked)
        try:
            for _ in range(3):
                with contextlib.suppress(ThreadMoved):
                    return await self._start(principal, agent, asked, messages)
        except StorageError:
            raise Unavailable("the log cannot be used now") from None
        raise Conflict("the thread has too many writers")

    async def cancel(self, principal: Principal, run_id: str) -> str:
        """End a run of this person because they said stop.

        Returns:
            `accepted` once the ending is durable, or `too_late` for a run that is over.

        Raises:
            NotFound: no such run, or somebody else's.
            Unavailable: the store cannot be read.
        """
        live = self._live.get((principal.tenant, principal.user, run_id))
        if live is not None and (made := live.run.cancel()):
            await asyncio.shield(self._write_off(live, made))
            return "accepted"
        if live is None and await self._record(principal, run_id) is None:
            raise NotFound("no such run")
        return "too_late"

    async def drain(self) -> None:
        """Take no new runs; give each one in progress its ending and wait until it is written."""
        self._draining = True
        for live in [*self._live.values()]:
            self._end(live, live.run.fail("run.drained"))
        await asyncio.gather(*(live.ending for live in self._live.values() if live.ending))

    def _check(self, asked: StartRun) -> tuple[Agent, list[Message]]:
        if self._draining:
            raise Unavailable("the server is being taken out of service")
        if not is_id(asked.request_id):
            raise BadRequest("request_id must be 1 to 128 printable characters")
        if asked.thread_id is not None and not is_id(asked.thread_id):
            raise BadRequest("thread_id must be 1 to 128 printable characters")
        agent = self._registry.get(asked.agent)
        if agent is None:
            raise NotFound("no such agent")
        if (asked.message is None) == (asked.input is None):
            raise BadRequest("give either message or input")
        if len(msgspec.json.encode((asked.message, asked.input))) > self._limits.message_bytes:
            raise TooLarge(f"a message may have {self._limits.message_bytes} bytes")
        if asked.message is not None:
            if not asked.message.strip():
                raise BadRequest("the message is empty")
            message = {"id": self._new_id(), "role": "user", "content": asked.message}
            return agent, [message]
        messages = (asked.input or {}).get("messages")
        if not isinstance(messages, list) or not all(_is_message(item) for item in messages):
            raise BadRequest("input.messages must be a list of AG-UI messages")
        return agent, messages

    async def _record(self, principal: Principal, run_id: str) -> RunRecord | None:
        try:
            return await self._conversations.find_run(principal.tenant, principal.user, run_id)
        except StorageError:
            raise Unavailable("the store cannot be read now") from None

    async def _start(
        self, principal: Principal, agent: Agent, asked: StartRun, messages: list[Message]
    ) -> bytes:
        """Write the run's first event, and that there is a run, in one act; then set it going."""
        key = RunKey(
            tenant=principal.tenant,
            user=principal.user,
            thread=asked.thread_id or self._new_id(),
            run=self._new_id(),
            agent=agent.name,
        )
        past = await self._conversations.conversation(key.tenant, key.user, key.thread)
        run = Run(
            key,
            history=past.messages,
            state=(asked.input or {}).get("state", past.state),
            new_id=self._new_id,
            keep_raw=self._limits.keep_raw,
        )
        made = run.begin({**_wire(asked.input), "messages": messages})
        opened = RunOpened(
            key=key,
            started=made[0].event,
            title=_title(messages),
            thread_offset=past.offset,
            at=self._clock(),
        )
        channel = thread_channel(key.tenant, key.user, key.thread)
        first = Append(channel, tuple(map(_item, made)), hold=True)
        # A new thread's id is not part of what was asked: a repetition must not make another one.
        digest = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
        written = await write(
            self._broker,
            Write(
                (first, _notice(run, "towpath.run.started")),
                (opened,),
                key=Key((key.tenant, key.user, "run.start"), asked.request_id, digest),
                result=lambda spans: _start_result(key, spans[0]),
            ),
        )
        if not written.repeated:
            live = _Live(run, channel, written.spans[0].last, self._clock())
            self._launch(live, agent, _agent_input(run, principal, asked))
        return written.result

    def _launch(self, live: _Live, agent: Agent, given: AgentInput) -> None:
        key = live.run.key
        self._live[key.tenant, key.user, key.run] = live
        self._hooks.tell(
            hooks.RunBegan(
                tenant=key.tenant, user=key.user, thread=key.thread, run=key.run, agent=key.agent
            )
        )
        self._group.create_task(self._supervise(live, agent, given), name=f"run {key.run}")
        if self._draining:
            self._end(live, live.run.fail("run.drained"))

    async def _supervise(self, live: _Live, agent: Agent, given: AgentInput) -> None:
        """See one run to its end, and its agent out of the house."""
        key = live.run.key
        work = asyncio.create_task(self._work(live, agent, given), name=f"agent {key.run}")
        # An agent that ignores its cancellation is left behind, not waited for; so it cannot
        # stand in a task group. It is kept here until it goes.
        self._left_behind.add(work)
        work.add_done_callback(self._left_behind.discard)
        stopped = asyncio.create_task(live.stop.wait(), name=f"stop {key.run}")
        try:
            await asyncio.wait(
                (work, stopped), timeout=agent.deadline, return_when=asyncio.FIRST_COMPLETED
            )
            self._end(live, live.run.fail("run.deadline"))
        finally:
            stopped.cancel()
            work.cancel()
            await asyncio.wait((work,), timeout=self._limits.cleanup_seconds)
            if live.ending is not None:
                await live.ending
            self._live.pop((key.tenant, key.user, key.run), None)

    async def _work(self, live: _Live, agent: Agent, given: AgentInput) -> None:
        """Ask the agent and carry what it says; whatever happens, the run ends here once."""
        try:
            await self._carry(live, agent.function(given))
            made = live.run.finish()
        except RunIsOver:
            return
        except AgentError as error:
            made = live.run.fail(error.code, error.message)
        except IllegalEvent as error:
            made = live.run.fail("run.illegal_event", str(error))
        except StorageError:
            made = live.run.fail("run.storage")
        except Exception as error:  # The outermost edge of somebody else's code.
            self._hooks.tell(hooks.Fault(where=f"agent {agent.name}", error=error))
            made = live.run.fail("run.failed")
        self._end(live, made)

    async def _carry(self, live: _Live, items: AsyncGenerator[object, None]) -> None:
        """Take what the agent yields, one by one, and submit what it makes.

        Between making events and submitting them nothing is awaited: so whoever ends the run
        meanwhile can only come before or after, never between.
        """
        async with contextlib.aclosing(items):
            async for item in items:
                await self._room(live)
                made = live.run.feed(item)
                if live.run.status in OVER:
                    self._end(live, made)
                elif made:
                    live.in_flight.append(self._submit(live, made))
                if live.size > self._limits.run_bytes:
                    self._end(live, live.run.fail("run.too_large"))

    async def _room(self, live: _Live) -> None:
        """Wait while too much is under way.

        Raises:
            StorageError: one of the run's earlier writes was refused.
        """
        while live.in_flight and (
            live.in_flight[0].done() or len(live.in_flight) >= self._limits.in_flight
        ):
            await asyncio.shield(live.in_flight[0])
            live.in_flight.popleft()
        await self._broker.room()

    def _submit(self, live: _Live, made: list[Made]) -> "asyncio.Future[Written]":
        items = tuple(map(_item, made))
        append = Append(live.channel, items, after=live.top)
        live.top += len(items)
        live.size += sum(len(item.data) for item in items)
        future = self._broker.submit(Write((append,)))
        future.add_done_callback(failure)  # Whoever waits for it is told; nobody has to.
        return future

    def _end(self, live: _Live, made: list[Made]) -> None:
        """Write a run's ending and let its agent go.

        `made` is empty where the run had ended already: then its ending is being written.
        """
        if made:
            self._write_off(live, made)

    def _write_off(self, live: _Live, made: list[Made]) -> "asyncio.Task[None]":
        live.stop.set()
        ending = self._write_ending(live, made)
        live.ending = self._group.create_task(ending, name=f"ending {live.run.key.run}")
        return live.ending

    async def _write_ending(self, live: _Live, made: list[Made]) -> None:
        """Write the terminal event, as often as it takes.

        Where the log refused it or anything before it, what the log holds is what counts: the
        run is read back and ended from there.
        """
        while made:
            try:
                await self._broker.submit(self._ending(live, made))
                break
            except StorageError as error:
                self._hooks.tell(hooks.Fault(where="ending of a run", error=error))
                await asyncio.sleep(self._limits.retry_seconds)
                with contextlib.suppress(StorageError):
                    made = await self._made_again(live)
        run, key = live.run, live.run.key
        self._hooks.tell(
            hooks.RunEnded(
                tenant=key.tenant,
                user=key.user,
                thread=key.thread,
                run=key.run,
                agent=key.agent,
                status=run.status.value,
                code=run.code,
                events=run.events,
                seconds=self._clock() - live.began,
            )
        )

    def _ending(self, live: _Live, made: list[Made]) -> Write:
        items = tuple(map(_item, made))
        last = Append(live.channel, items, after=live.top, release=True)
        notice = _notice(live.run, "towpath.run.ended")
        return Write((last, notice), (live.run.closed(self._clock()),))

    async def _made_again(self, live: _Live) -> list[Made]:
        """Read the run back from the log and end it there; nothing if its ending is there."""
        cancelled = live.run.status is Status.CANCELLED
        live.run, live.top = await self._read_back(live.run.key)
        if live.run.over:
            return []
        return live.run.cancel() if cancelled else live.run.fail("run.storage")

    async def _read_back(self, key: RunKey) -> tuple[Run, int]:
        """Return an unfinished run as the log knows it, and the offset of its last event."""
        past = await self._conversations.conversation(key.tenant, key.user, key.thread)
        run = Run(key, history=past.messages, state=past.state, new_id=self._new_id)
        channel = thread_channel(key.tenant, key.user, key.thread)
        replay = await self._broker.read(channel, past.offset)
        for publication in replay.publications:
            run.replay(msgspec.json.decode(publication.data))
        return run, replay.top

    async def _end_lost_runs(self) -> None:
        """Give every run that the last process left behind its one ending."""
        for record in await self._conversations.unfinished():
            run, top = await self._read_back(record.key)
            made: list[Made] = []
            if run.status is Status.PENDING:
                made += run.begin({"messages": []})
            channel = thread_channel(record.key.tenant, record.key.user, record.key.thread)
            live = _Live(run, channel, top, record.started_at)
            await self._write_ending(live, [*made, *run.lose()])


def _item(made: Made) -> Item:
    return Item(msgspec.json.encode(made.event), made.tags)


def _notice(run: Run, name: str) -> Append:
    """Return the small event by which a person's other devices learn of a run."""
    key = run.key
    value = {
        "thread_id": key.thread,
        "run_id": key.run,
        "agent": key.agent,
        "status": run.status.value,
    }
    event = {"type": "CUSTOM", "name": name, "value": value}
    return Append(user_channel(key.tenant, key.user), (Item(msgspec.json.encode(event), {}),))


def _start_result(key: RunKey, span: Span) -> bytes:
    position = {"epoch": span.before.epoch, "offset": span.before.offset}
    result = {"thread_id": key.thread, "run_id": key.run, "position": position}
    return msgspec.json.encode(result)


def _agent_input(run: Run, principal: Principal, asked: StartRun) -> AgentInput:
    given = asked.input or {}
    messages = run.messages
    newest = next((item for item in reversed(messages) if item["role"] == "user"), None)
    return AgentInput(
        context=UserExecutionContext.of(principal, thread=run.key.thread, run=run.key.run),
        message=_text_of(newest) if newest else "",
        messages=messages,
        state=run.state,
        tools=given.get("tools") or [],
        client_context=given.get("context") or [],
        forwarded_props=given.get("forwardedProps"),
        resume=given.get("resume") or [],
    )


def _wire(given: dict[str, Any] | None) -> dict[str, Any]:
    """Return the parts of a run's input that stand in its RUN_STARTED."""
    names = ("state", "tools", "context", "forwardedProps")
    return {name: given[name] for name in names if given and given.get(name) is not None}


def _is_message(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), str) and "role" in item


def _title(messages: list[Message]) -> str:
    return " ".join(_text_of(messages[-1]).split())[:TITLE_LENGTH] if messages else ""


def _text_of(message: Message) -> str:
    content = message.get("content", "")
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content if isinstance(part, dict))
