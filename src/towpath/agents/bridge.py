"""The bridge: starts agents for people, stops them, and knows which runs are in progress.

It knows no connection: a run is started by a person and belongs to a thread, and goes on whoever
listens. Starting one is a single write (the run's first event, the fact that there is a run, and
the request id), carried through even when whoever asked for it leaves meanwhile.
"""

import asyncio
import contextlib
import copy
import uuid
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import msgspec

from towpath import hooks
from towpath.agents.approvals import Approvals, answering
from towpath.agents.asked import Decide, Opening, StartRun, request_key, start_result
from towpath.agents.interrupts import DECISIONS, NotOpen
from towpath.agents.live import (
    Conversations,
    LiveRun,
    RunLimits,
    RunRecord,
    Surroundings,
    channel_of,
    item,
    notice,
    read_back,
)
from towpath.agents.registry import Agent, AgentInput, AgentRegistry, DoubleTexting
from towpath.agents.run import (
    OVER,
    Made,
    Run,
    RunKey,
    RunOpened,
    Status,
    ThreadBusy,
    ThreadMoved,
)
from towpath.agents.run_queue import RunQueue
from towpath.channels import is_id, is_thread_id
from towpath.context import Principal, UserExecutionContext
from towpath.errors import BadRequest, Conflict, NotFound, StorageError, TooLarge, Unavailable
from towpath.events.kinds import IllegalEvent, Message
from towpath.hooks import Hooks
from towpath.streams.broker import Append, Broker, Write, failure, write

ATTEMPTS = 10
"""How often something is tried on a thread that moves on meanwhile."""
LOOKS = 2
"""How often a run that is to be cancelled is looked for: it may begin between two looks."""
TITLE_LENGTH = 60
"""How much of the first message becomes a thread's title, in characters."""


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
        limits: RunLimits | None = None,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._registry = registry
        self._around = Surroundings(
            broker=broker,
            conversations=conversations,
            hooks=watchers,
            limits=limits or RunLimits(),
            clock=clock,
            new_id=new_id,
        )
        self._live: dict[tuple[str, str, str], LiveRun] = {}
        self._opening: dict[asyncio.Event, RunKey] = {}
        """Runs whose first event is on its way to the log; the event says that it has an answer."""
        self._starting: set[asyncio.Task[bytes]] = set()
        self._draining = False
        self._approvals = Approvals(self._around, registry, self._start)
        self._group = asyncio.TaskGroup()
        self._queue = RunQueue(self._around, registry, self._open_settled, self._group)
        self._expiring: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        await self._end_lost_runs()
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
            async with asyncio.timeout(self._around.limits.drain_seconds):
                await self.drain()
        except TimeoutError:
            self.give_up()
        await self._group.__aexit__(kind, error, traceback)

    def give_up(self) -> None:
        """Stop trying to write endings; whoever opens the log next writes them."""
        for live in self._live.values():
            live.give_up()

    @property
    def active(self) -> int:
        """How many runs are in progress."""
        return len(self._live)

    async def start(self, principal: Principal, asked: StartRun) -> bytes:
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
        agent, messages = self._check(asked)
        # A new thread's id is not part of what was asked: a repetition must not make another one.
        opening = Opening(
            key=request_key(principal, "run.start", asked.request_id, asked), result=start_result
        )
        return await self._carry_through(self._start(principal, agent, asked, messages, opening))

    async def approve(self, principal: Principal, said: Decide) -> bytes:
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

    async def cancel(self, principal: Principal, run_id: str) -> str:
        """End a run of this person because they said stop.

        Returns:
            `accepted` once the ending is durable, or `too_late` for a run that is over. For a run
            that waits, `accepted` once it is durable that it ends when its turn comes.

        Raises:
            NotFound: no such run, or somebody else's.
            Unavailable: the log cannot be used now.
        """
        for _ in range(LOOKS):
            live = await self._begun(principal, run_id)
            if live is not None:
                if not live.end(live.run.cancel()):
                    break
                if not await live.ended():
                    raise Unavailable("the run is stopped, and its ending cannot be written now")
                return "accepted"
            record = await self._record(principal, run_id)
            if record is None:
                raise NotFound("no such run")
            if record.status in OVER:
                break
            if record.status is Status.PENDING and await self._withdraw(record.key):
                return "accepted"
        return "too_late"

    def stop(self, principal: Principal, run_id: str) -> None:
        """End a run of this person, if it is not over, and wait for nothing."""
        if not self._draining:
            self._group.create_task(self._stop(principal, run_id), name=f"stop {run_id}")

    async def _stop(self, principal: Principal, run_id: str) -> None:
        with contextlib.suppress(NotFound, Unavailable):
            await self.cancel(principal, run_id)

    async def _begun(self, principal: Principal, run_id: str) -> LiveRun | None:
        """Return a run in progress; where its beginning is being written, once that is done."""
        mine = (principal.tenant, principal.user, run_id)
        for answered, key in list(self._opening.items()):
            if (key.tenant, key.user, key.run) == mine:
                await answered.wait()
        return self._live.get(mine)

    async def _withdraw(self, key: RunKey) -> bool:
        try:
            return await self._queue.withdraw(key)
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

    def _check(self, asked: StartRun) -> tuple[Agent, list[Message]]:
        if self._draining:
            raise Unavailable("the server is being taken out of service")
        if not is_id(asked.request_id):
            raise BadRequest("request_id must be 1 to 128 printable characters")
        if asked.run_id is not None and not is_id(asked.run_id):
            raise BadRequest("run_id must be 1 to 128 printable characters")
        if asked.thread_id is not None and not is_thread_id(asked.thread_id):
            raise BadRequest("thread_id must be 1 to 128 printable characters, 248 bytes at most")
        agent = self._registry.get(asked.agent)
        if agent is None:
            raise NotFound("no such agent")
        if (asked.message is None) == (asked.input is None):
            raise BadRequest("give either message or input")
        bound = self._around.limits.message_bytes
        if len(msgspec.json.encode((asked.message, asked.input))) > bound:
            raise TooLarge(f"a message may have {bound} bytes")
        if asked.message is not None:
            if not asked.message.strip():
                raise BadRequest("the message is empty")
            message = {"id": self._around.new_id(), "role": "user", "content": asked.message}
            return agent, [message]
        messages = (asked.input or {}).get("messages")
        if not isinstance(messages, list) or not all(_is_message(item) for item in messages):
            raise BadRequest("input.messages must be a list of AG-UI messages")
        return agent, messages

    async def _record(self, principal: Principal, run_id: str) -> RunRecord | None:
        try:
            return await self._around.conversations.find_run(
                principal.tenant, principal.user, run_id
            )
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

    async def _start(
        self,
        principal: Principal,
        agent: Agent,
        asked: StartRun,
        messages: list[Message],
        opening: Opening,
    ) -> bytes:
        """Open a run; where its thread is busy, do what its agent's policy says."""
        for _ in range(ATTEMPTS):
            try:
                return await self._open_settled(principal, agent, asked, messages, opening)
            except ThreadBusy:
                # What answers a run's questions goes on at once or not at all: a thread that goes
                # on without it leaves them behind.
                answers = opening.parent is not None or bool(asked.answers)
                if agent.double_texting is DoubleTexting.REJECT or answers:
                    raise
                if agent.double_texting is DoubleTexting.QUEUE:
                    return await self._queue.put(principal, agent, asked, messages, opening)
                assert asked.thread_id is not None, "a busy thread has a name"
                await self._make_way(principal, asked.thread_id)
                if self._draining:
                    raise Unavailable("the server is being taken out of service") from None
        raise Conflict("the thread has too many writers")

    async def _open_settled(
        self,
        principal: Principal,
        agent: Agent,
        asked: StartRun,
        messages: list[Message],
        opening: Opening,
    ) -> bytes:
        """Open a run on what its thread is now; where that moves on meanwhile, look again."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(ThreadMoved):
                return await self._open(principal, agent, asked, messages, opening)
        raise ThreadMoved("the thread has too many writers")

    async def _make_way(self, principal: Principal, thread: str) -> None:
        """End what is active on a thread and what waits for it; their endings are in the log then.

        Raises:
            StorageError: the log cannot be used now.
        """
        mine = (principal.tenant, principal.user, thread)
        await self._queue.clear(*mine)
        for answered, key in list(self._opening.items()):
            if (key.tenant, key.user, key.thread) == mine:
                await answered.wait()
        keys = [(live, live.run.key) for live in self._live.values()]
        lives = [live for live, key in keys if (key.tenant, key.user, key.thread) == mine]
        for live in lives:
            live.end(live.run.cancel())
        for live in lives:
            await live.ended()
        await self._queue.advance(*mine)

    async def _open(
        self,
        principal: Principal,
        agent: Agent,
        asked: StartRun,
        messages: list[Message],
        opening: Opening,
    ) -> bytes:
        """Write the run's first event, and that there is a run, in one act; then set it going."""
        around = self._around
        key = RunKey(
            tenant=principal.tenant,
            user=principal.user,
            thread=asked.thread_id or around.new_id(),
            run=asked.run_id or around.new_id(),
            agent=agent.name,
        )
        past = await around.conversations.conversation(key.tenant, key.user, key.thread)
        if opening.parent is None and asked.answers:
            now = around.clock()
            waiting = await self._approvals.asked_in(key, now)
            # After that look: a twin of this request shows in it, or is met at the write.
            earlier = await around.broker.remembered(opening.key) if opening.key else None
            if earlier is not None:
                return earlier
            opening = answering(opening, waiting, asked, now)
        run = Run(
            key,
            history=past.messages,
            state=past.state,
            new_id=around.new_id,
            keep_raw=around.limits.keep_raw,
        )
        try:
            given = {**_wire(asked.input), "messages": messages}
            made = run.begin(given, parent=opening.parent)
        except IllegalEvent as error:
            raise BadRequest(error.reason) from None
        answered = asyncio.Event()
        self._opening[answered] = key
        try:
            written = await write(around.broker, self._beginning(run, made, past.offset, opening))
            if not written.repeated:
                live = LiveRun(run, written.spans[0].last, around.clock(), around)
                self._launch(live, agent, _agent_input(run, principal, asked))
        finally:
            del self._opening[answered]
            answered.set()
        return written.result

    def _beginning(self, run: Run, made: list[Made], offset: int, opening: Opening) -> Write:
        key = run.key
        opened = RunOpened(
            key=key,
            started=made[0].event,
            title=_title(made[0].event["input"]["messages"]),
            thread_offset=offset,
            at=self._around.clock(),
            queued=opening.queued,
        )
        first = Append(channel_of(key), tuple(map(item, made)), hold=True)
        return Write(
            (first, notice(run, "towpath.run.started")),
            (*opening.facts, opened),
            key=opening.key,
            result=lambda spans: opening.result(key, spans[0]),
        )

    def _launch(self, live: LiveRun, agent: Agent, given: AgentInput) -> None:
        key = live.run.key
        self._live[key.tenant, key.user, key.run] = live
        self._around.hooks.tell(
            hooks.RunBegan(
                tenant=key.tenant, user=key.user, thread=key.thread, run=key.run, agent=key.agent
            )
        )
        self._group.create_task(self._see_through(live, agent, given), name=f"run {key.run}")

    async def _see_through(self, live: LiveRun, agent: Agent, given: AgentInput) -> None:
        key = live.run.key
        try:
            await live.see_through(agent, given)
        finally:
            del self._live[key.tenant, key.user, key.run]
            self._approvals.look_again()
        self._queue.look(key.tenant, key.user, key.thread)

    async def _end_lost_runs(self) -> None:
        """Give every run that the last process left behind its one ending."""
        for record in await self._around.conversations.unfinished():
            run, top = await read_back(record.key, self._around)
            made: list[Made] = []
            if run.status is Status.PENDING:
                made += run.begin({"messages": []})
            live = LiveRun(run, top, record.started_at, self._around)
            live.end([*made, *run.lose()])
            await live.ended()


def _agent_input(run: Run, principal: Principal, asked: StartRun) -> AgentInput:
    given = asked.input or {}
    # The agent's own copies: what it does to them is no event.
    messages, state = copy.deepcopy((run.messages, run.state))
    newest = next((item for item in reversed(messages) if item["role"] == "user"), None)
    return AgentInput(
        context=UserExecutionContext.of(principal, thread=run.key.thread, run=run.key.run),
        message=_text_of(newest) if newest else "",
        messages=messages,
        state=state,
        tools=given.get("tools") or [],
        client_context=given.get("context") or [],
        forwarded_props=given.get("forwardedProps"),
        resume=given.get("resume") or [],
    )


def _wire(given: dict[str, Any] | None) -> dict[str, Any]:
    """Return the parts of a run's input that stand in its RUN_STARTED."""
    names = ("state", "tools", "context", "forwardedProps", "resume")
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
