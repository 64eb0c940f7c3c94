"""Agents of pydantic-ai behind a gateway: `gateway.agent("helper")(from_pydantic_ai(agent))`.

pydantic-ai emits AG-UI events itself: text, reasoning, tool calls and requests for approval. The
adapter passes it the conversation, names its failures, and closes the connection to the model when
a run is cancelled.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

import anyio

from towpath import codes
from towpath.agents.agent import AgentError, AgentFunction, AgentInput
from towpath.errors import MissingExtra

try:
    from ag_ui.core import BaseEvent, RunAgentInput
    from pydantic_ai import exceptions as failures
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.ui.ag_ui import AGUIAdapter, AGUIEventStream
except ImportError as error:
    raise MissingExtra(
        "towpath.agents.adapters.pydantic_ai needs pydantic-ai: "
        f"pip install 'towpath[pydantic-ai]' ({error})"
    ) from error

Deps = TypeVar("Deps")

CODES: tuple[tuple[type[failures.AgentRunError], str], ...] = (
    (failures.ModelRateLimitError, "model.rate_limited"),
    (failures.ModelQuotaExceededError, "model.quota_exceeded"),
    (failures.ModelUnavailableError, "model.overloaded"),
    (failures.ModelContextWindowExceededError, "model.context_too_long"),
    (failures.ModelAuthenticationError, "model.key_refused"),
    (failures.ModelNotFoundError, "model.unknown"),
    (failures.ModelRequestRejectedError, "model.refused"),
    (failures.ContentFilterError, "model.refused"),
    (failures.ModelRequestTimeout, "model.unreachable"),
    (failures.ModelConnectionError, "model.unreachable"),
    (failures.AgentRunError, "model.failed"),
)
"""The code of each failure; the first class that fits counts."""

TOO_LONG = "exceed_context_size_error"
"""llama.cpp's code for a conversation that is too long; pydantic-ai has no class for it."""


def from_pydantic_ai(
    agent: AbstractAgent[Deps, Any], *, deps: Callable[[AgentInput], Deps] | None = None
) -> AgentFunction:
    """Make an agent of a gateway out of one of pydantic-ai.

    The conversation is the thread's. Its system messages are left out: the agent's own instructions
    apply. Tools that the client offers are offered to the model too.

    Args:
        agent: any agent of pydantic-ai. It keeps its own timeouts and retries.
        deps: returns its dependencies for one run. If they have a `state`, it is the thread's.

    Returns:
        a function for `gateway.agent(name)`. A failing model ends the run with one of
        `codes.MODEL_CODES`; any other exception ends it as that of any agent does.
    """

    async def answer(request: AgentInput) -> AsyncGenerator[object, None]:
        adapter = _Adapter(agent, run_input(request, state=deps is not None))
        run_deps: Any = deps(request) if deps is not None else None
        async with contextlib.aclosing(_from_a_task(adapter.run_stream(deps=run_deps))) as events:
            async for event in events:
                yield event

    answer.__doc__ = str(agent.description or agent.name or "An agent of pydantic-ai.")
    return answer


def run_input(request: AgentInput, *, state: bool = True) -> RunAgentInput:
    """Return the input of an agent as AG-UI has it, with the thread's state or without."""
    return RunAgentInput.model_validate(
        {
            "threadId": request.context.thread,
            "runId": request.context.run,
            "protocolVersion": "1.0",
            "state": request.state if state else None,
            "messages": request.messages,
            "tools": request.tools,
            "context": request.client_context,
            "forwardedProps": request.forwarded_props,
            "resume": request.resume or None,
        }
    )


def model_error(error: BaseException) -> AgentError:
    """Return a model's failure with our own message: the service's message may hold secrets."""
    if isinstance(error, failures.FallbackExceptionGroup) and error.exceptions:
        return model_error(error.exceptions[-1])
    code = _code(error)
    return AgentError(codes.MODEL_CODES[code], code=code)


def _code(error: BaseException) -> str:
    if isinstance(error, failures.ModelAPIError) and error.provider_error_type == TOO_LONG:
        return "model.context_too_long"
    code = next((code for kind, code in CODES if isinstance(error, kind)), "model.failed")
    if isinstance(error, failures.ModelConnectionError) and error.phase == "read":
        timed_out = isinstance(error, failures.ModelTimeoutError)
        return code if timed_out else "model.cut_off"
    return code


async def _from_a_task(events: Any) -> AsyncGenerator[BaseEvent, None]:
    """Yield the events of a stream that runs in its own task, which is cancelled only once.

    If a stream of pydantic-ai is cancelled while it is closed, its connection stays open and the
    model continues. Stopping a run can both cancel and close its agent.

    The stream's exception is raised here: a SystemExit that leaves a task ends the event loop.
    """
    send, receive = anyio.create_memory_object_stream[BaseEvent](0)
    raised: list[BaseException] = []

    async def carry() -> None:
        try:
            async with send, contextlib.aclosing(events):
                async for event in events:
                    await send.send(event)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raised.append(error)

    task = asyncio.create_task(carry(), name="agent of pydantic-ai")
    try:
        async for event in receive:
            yield event
        await task
    finally:
        task.cancel()  # Before the stream is closed: to send into a closed one is an error.
        receive.close()
        await asyncio.wait((task,))
        if raised:
            raise raised[0]


class _Events(AGUIEventStream[Deps, Any]):
    """The events of pydantic-ai; a failure is raised, without the message of the service."""

    async def on_error(self, error: Exception) -> AsyncIterator[BaseEvent]:
        if isinstance(error, failures.AgentRunError | failures.FallbackExceptionGroup):
            raise model_error(error) from None
        raise error
        yield  # type: ignore[unreachable]  # It is an iterator.


class _Adapter(AGUIAdapter[Deps, Any]):
    def build_event_stream(self) -> _Events[Deps]:
        return _Events(self.run_input, ag_ui_version=self.ag_ui_version)
