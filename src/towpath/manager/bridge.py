"""Agents that push: their events become runs like those of agents that are generators.

An agent that is driven by callbacks, a queue or another process has no generator to yield from. It
pushes what happens with an `AgentWebSocketBridge`. A pushed run goes the way of every run: the same
order, checks, log, readers, deadline and one ending.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from towpath.agents.agent import Agent, AgentInput
from towpath.channels import is_id
from towpath.errors import BadRequest, Unavailable
from towpath.log.broker import Position
from towpath.manager import outgoing
from towpath.manager.results import Refused, SendResult, StartedRun
from towpath.manager.view import View
from towpath.node.node import Phase
from towpath.runs.requests import Decided, Decision, RunRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run, as it was when it was looked up."""

    run: str
    thread: str
    agent: str
    status: str
    """`pending`, `running`, `finished`, `cancelled`, `failed`, `lost` or `interrupted`."""
    code: str | None
    """The code of its RUN_ERROR, if it ended with one."""
    active_here: bool
    """Whether it is in progress on this node, so that events can be pushed into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeHealth:
    """Whether runs can be started and pushed into, as it was when it was looked up."""

    phase: str
    """The phase of the gateway: `ready` accepts runs."""
    active_runs: int
    """How many runs are in progress on this node, of everybody."""

    @property
    def healthy(self) -> bool:
        """Whether runs can be started now."""
        return self.phase == Phase.READY


class AgentWebSocketBridge(View):
    """Carries the events of agents that push, for one person or the people of a tenant.

    Bound like a `WebSocketManager`. Where a method takes `user_id`, None takes the person of the
    context; a bridge that is bound to a tenant needs it.
    """

    __slots__ = ()

    # Runs.

    async def notify_agent_started(
        self,
        run_id: str | None,
        agent_name: str,
        message: str,
        *,
        thread_id: str | None = None,
        user_id: str | None = None,
    ) -> StartedRun | Refused:
        """Begin a run whose events are pushed: RUN_STARTED, with the message of the person.

        Args:
            run_id: the id of the run; None makes one. The same id with the same message begins one
                run, however often it is called.
            agent_name: the name of the agent, as clients see it; it need not be registered.
            message: what the person said.
            thread_id: the thread; None makes a new one.
            user_id: the person.

        Returns:
            The run; `Refused("unavailable")` if the gateway starts no runs now, or its log cannot
            be written.

        Raises:
            BadRequest: an id or the message is invalid.
            Conflict: the thread has an active run, or the id was used for another run.
            ForeignUser, NotRunning, WrongLoop: see `WebSocketManager.send_to_user`.
        """
        if not is_id(agent_name):
            raise BadRequest("the name of an agent has 1 to 128 printable characters")
        agent = Agent(name=agent_name, function=_pushed, description="pushes its events")
        run = uuid.uuid4().hex if run_id is None else run_id
        request = RunRequest(
            request_id=run, agent=agent_name, thread_id=thread_id, message=message, run_id=run
        )
        return await self._start(request, user_id, agent)

    async def start_run(
        self,
        agent: str,
        message: str | None = None,
        *,
        thread_id: str | None = None,
        input: Mapping[str, Any] | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> StartedRun | Refused:
        """Start a run of a registered agent for a person, as `run.start` does.

        Args:
            agent: the name of the agent.
            message: what the person says; or else `input`.
            thread_id: the thread; None makes a new one.
            input: AG-UI `messages`, `state`, `context`, `tools`, `forwardedProps`, `resume`.
            key: the same key with the same request starts one run, for a day.
            user_id: the person.

        Raises:
            NotFound: no such agent is registered.
            The errors of `notify_agent_started`.
        """
        request = RunRequest(
            request_id=uuid.uuid4().hex if key is None else key,
            agent=agent,
            thread_id=thread_id,
            message=message,
            input=None if input is None else dict(input),
        )
        return await self._start(request, user_id, None)

    async def cancel_run(self, run_id: str, *, user_id: str | None = None) -> str:
        """End a run at the request of its person.

        Returns:
            `accepted` once the ending is durable, or `too_late` for a run that is over.

        Raises:
            NotFound: this person has no such run.
            Unavailable: the log cannot be used now.
        """
        principal = self._principal(self._user(user_id))
        return await self._node().runs.cancel(principal, run_id)

    async def approve(
        self,
        run_id: str,
        interrupt_id: str,
        decision: str,
        *,
        payload: Any = None,
        digest: str | None = None,
        arguments: str | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> Decided:
        """Decide an interrupt of a run, as `run.approve` does.

        Args:
            run_id: the interrupted run.
            interrupt_id: the interrupt.
            decision: `approve` or `refuse`.
            payload: for the agent, beside the decision.
            digest: the SHA-256 (hex) of the arguments that the person saw.
            arguments: the text of these arguments; a tool call needs this or the digest.
            key: the same key with the same decision takes effect once, for a day.
            user_id: the person.

        Raises:
            The errors of `run.approve`: BadRequest, NotFound, Conflict, Unavailable.
        """
        request = Decision(
            request_id=uuid.uuid4().hex if key is None else key,
            run_id=run_id,
            interrupt_id=interrupt_id,
            decision=decision,
            payload=payload,
            digest=digest,
            arguments=UNSET if arguments is None else arguments,
        )
        principal = self._principal(self._user(user_id))
        return await self._node().runs.approve(principal, request)

    # Events.

    async def emit_agent_event(
        self,
        run_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        user_id: str | None = None,
    ) -> SendResult:
        """Push an event into a run; see `WebSocketManager.send_agent_event`."""
        principal = self._principal(self._user(user_id))
        return await outgoing.publish_in_run(
            self._node(), principal, run_id, event_type, data or {}, key=key
        )

    async def notify_agent_thinking(
        self, run_id: str, text: str, *, user_id: str | None = None
    ) -> SendResult:
        """Push a reasoning message."""
        return await self.emit_agent_event(
            run_id, "agent_thinking", {"text": text}, user_id=user_id
        )

    async def notify_tool_executing(
        self,
        run_id: str,
        tool_name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        tool_call_id: str | None = None,
        user_id: str | None = None,
    ) -> SendResult:
        """Push a tool call with its arguments."""
        fields = _given(tool_name=tool_name, arguments=arguments, tool_call_id=tool_call_id)
        return await self.emit_agent_event(run_id, "tool_executing", fields, user_id=user_id)

    async def notify_tool_completed(
        self,
        run_id: str,
        tool_name: str,
        result: object = "",
        *,
        tool_call_id: str | None = None,
        user_id: str | None = None,
    ) -> SendResult:
        """Push the result of a tool call: of this id, or the oldest open one of the tool."""
        fields = _given(tool_name=tool_name, tool_call_id=tool_call_id) | {"result": result}
        return await self.emit_agent_event(run_id, "tool_completed", fields, user_id=user_id)

    async def notify_agent_text(
        self, run_id: str, text: str, *, user_id: str | None = None
    ) -> SendResult:
        """Push a piece of the answer; pieces that follow each other are one message."""
        return await self.emit_agent_event(
            run_id, "TEXT_MESSAGE_CHUNK", {"delta": text}, user_id=user_id
        )

    async def notify_progress_update(
        self,
        run_id: str,
        progress: float | None = None,
        message: str | None = None,
        *,
        user_id: str | None = None,
    ) -> SendResult:
        """Push a CUSTOM event `progress_update`.

        Args:
            run_id: the run.
            progress: the part that is done, from 0 to 1.
            message: what is being done.
            user_id: the person.

        Raises:
            BadRequest: the progress is not 0 to 1.
        """
        if progress is not None and not 0 <= progress <= 1:
            raise BadRequest("progress is a number from 0 to 1")
        fields = _given(progress=progress, message=message)
        return await self.emit_agent_event(run_id, "progress_update", fields, user_id=user_id)

    async def notify_custom(
        self, run_id: str, name: str, value: object, *, user_id: str | None = None
    ) -> SendResult:
        """Push a CUSTOM event of this name."""
        outgoing.check_name(name)
        return await self.emit_agent_event(
            run_id, "CUSTOM", {"name": name, "value": value}, user_id=user_id
        )

    async def notify_agent_completed(
        self, run_id: str, result: object = None, *, user_id: str | None = None
    ) -> SendResult:
        """End a run with success: RUN_FINISHED, with a result."""
        return await self.emit_agent_event(
            run_id, "agent_completed", _given(result=result), user_id=user_id
        )

    async def notify_agent_error(
        self, run_id: str, message: str, *, code: str | None = None, user_id: str | None = None
    ) -> SendResult:
        """End a run with an error whose message a person may read: RUN_ERROR."""
        return await self.emit_agent_event(
            run_id, "agent_error", _given(message=message, code=code), user_id=user_id
        )

    # Lookups.

    async def get_run_status(self, run_id: str, *, user_id: str | None = None) -> RunStatus | None:
        """Return a run of a person as it is now; None if this person has no such run.

        Raises:
            StorageError: the store cannot be read now.
        """
        user, node = self._user(user_id), self._node()
        record = await node.parts.store.find_run(self.tenant, user, run_id)
        if record is None:
            return None
        pushes = node.runs.pushes(self._principal(user), run_id)
        return RunStatus(
            run=run_id,
            thread=record.key.thread,
            agent=record.key.agent,
            status=record.status.value,
            code=record.code,
            active_here=pushes is not None and not pushes.over,
        )

    async def get_thread_id(self, run_id: str, *, user_id: str | None = None) -> str | None:
        """Return the thread of a run of a person; None if this person has no such run."""
        status = await self.get_run_status(run_id, user_id=user_id)
        return None if status is None else status.thread

    def get_health(self) -> BridgeHealth:
        """Return whether runs can be started now."""
        node = self._node()
        return BridgeHealth(phase=node.phase.value, active_runs=node.runs.active)

    async def _start(
        self, request: RunRequest, user_id: str | None, agent: Agent | None
    ) -> StartedRun | Refused:
        principal = self._principal(self._user(user_id))
        try:
            started = await self._node().runs.start(principal, request, agent=agent)
        except Unavailable:
            return Refused("unavailable")
        position = Position(started.position.epoch, started.position.offset)
        return StartedRun(thread=started.thread_id, run=started.run_id, position=position)


async def _pushed(_: AgentInput) -> AsyncGenerator[object, None]:
    """Yield nothing until the run has ended: the events of the run are pushed."""
    await asyncio.get_running_loop().create_future()
    yield ""


def _given(**fields: object) -> dict[str, object]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
