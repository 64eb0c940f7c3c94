"""What people ask of the bridge: its shape, its bounds, and how a run comes of it."""

import copy
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from towpath.agents.agent import Agent, AgentInput
from towpath.channels import is_id, is_thread_id
from towpath.errors import BadRequest, TooLarge
from towpath.events.types import Event, Message
from towpath.identity import Principal, UserExecutionContext
from towpath.log.broker import IdempotencyKey, Span
from towpath.runs.model import Queued, RunKey
from towpath.runs.run import Run

TITLE_LENGTH = 60
"""How much of the first message becomes a thread's title, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """What a person asks of an agent."""

    request_id: str
    agent: str
    thread_id: str | None = None
    message: str | None = None
    input: dict[str, Any] | None = None
    """Instead of `message`: AG-UI `messages`, `state`, `context`, `tools`, `forwardedProps`."""
    run_id: str | None = None
    """What the run is to be called; None lets the gateway choose. One of this person's that is
    there already is refused with Conflict."""

    @property
    def answers(self) -> list[Event]:
        """The answers to what an earlier run asked: AG-UI's `resume`."""
        given = (self.input or {}).get("resume")
        return given if isinstance(given, list) else []


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that somebody wants: of which agent, what they asked, and the messages that brings."""

    principal: Principal
    agent: Agent
    request: StartRun
    messages: list[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person says to something a run asked."""

    request_id: str
    run_id: str
    interrupt_id: str
    decision: str
    """`approve` or `refuse`."""
    payload: Any = None
    """What the agent is told beside it."""
    digest: str | None = None
    """Of the arguments the person was shown; needed where the question is about a tool call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a run is opened beside what was asked: by whom, after what, and what is remembered."""

    key: IdempotencyKey | None
    result: Callable[[RunKey, Span], bytes]
    parent: str | None = None
    facts: tuple[object, ...] = ()
    """Told in the same write, before the run's own."""
    queued: Queued | None = None
    """The run as it waited, if it did."""


Begin = Callable[[Wanted, Opening], Awaitable[bytes]]
"""Opens a run and returns the result that its opening makes."""


def request_key(who: Principal, method: str, request_id: str, request: object) -> IdempotencyKey:
    """Return what makes a repeated request the same: who, what, which id, and its parameters."""
    digest = hashlib.sha256(msgspec.json.encode(request)).hexdigest()
    return IdempotencyKey((who.tenant, who.user, method), request_id, digest)


def start_result(key: RunKey, span: Span) -> bytes:
    """Return the result of `run.start`."""
    return msgspec.json.encode(_where(key, span))


def approve_result(key: RunKey, span: Span) -> bytes:
    """Return the result of the decision that a run continues with."""
    return msgspec.json.encode({"status": "accepted", **_where(key, span)})


def cancel_result(status: str) -> bytes:
    """Return the result of `run.cancel`."""
    return msgspec.json.encode({"status": status})


def _where(key: RunKey, span: Span) -> dict[str, Any]:
    position = {"epoch": span.before.epoch, "offset": span.before.offset}
    return {"thread_id": key.thread, "run_id": key.run, "position": position}


def check_ids(request: StartRun) -> None:
    """Refuse ids that are none.

    Raises:
        BadRequest: one is.
    """
    if not is_id(request.request_id):
        raise BadRequest("request_id must be 1 to 128 printable characters")
    if request.run_id is not None and not is_id(request.run_id):
        raise BadRequest("run_id must be 1 to 128 printable characters")
    if request.thread_id is not None and not is_thread_id(request.thread_id):
        raise BadRequest("thread_id must be 1 to 128 printable characters, 248 bytes at most")


def new_messages(request: StartRun, *, bound: int, new_id: Callable[[], str]) -> list[Message]:
    """Return the messages that a request brings.

    Args:
        asked: the request.
        bound: how large its message or input may be, in bytes.
        new_id: makes the id of a message that is given as text.

    Raises:
        BadRequest: it is not what a request may be.
        TooLarge: it is larger than the bound.
    """
    if (request.message is None) == (request.input is None):
        raise BadRequest("give either message or input")
    if len(msgspec.json.encode((request.message, request.input))) > bound:
        raise TooLarge(f"a message may have {bound} bytes")
    if request.message is not None:
        if not request.message.strip():
            raise BadRequest("the message is empty")
        return [{"id": new_id(), "role": "user", "content": request.message}]
    messages = (request.input or {}).get("messages")
    if not isinstance(messages, list) or not all(_is_message(item) for item in messages):
        raise BadRequest("input.messages must be a list of AG-UI messages")
    return messages


def agent_input(run: Run, wanted: Wanted) -> AgentInput:
    """Return what an agent is given."""
    given = wanted.request.input or {}
    # The agent's own copies: what it does to them is no event.
    messages, state = copy.deepcopy((_to_answer(run.messages, wanted.messages), run.state))
    newest = next((item for item in reversed(messages) if item["role"] == "user"), None)
    return AgentInput(
        context=UserExecutionContext.of(wanted.principal, thread=run.key.thread, run=run.key.run),
        message=_text_of(newest) if newest else "",
        messages=messages,
        state=state,
        tools=given.get("tools") or [],
        client_context=given.get("context") or [],
        forwarded_props=given.get("forwardedProps"),
        resume=given.get("resume") or [],
    )


def _to_answer(conversation: list[Message], given: list[Message]) -> list[Message]:
    """Return the conversation up to what is to be answered.

    Where the last message of a request is one the thread has already, it is to be answered once
    more: what came after it is left out, because it was said without that answer in mind.
    """
    if not given:
        return conversation
    ids = {message["id"] for message in given}
    last = next(at for at, one in enumerate(conversation) if one["id"] == given[-1]["id"])
    return [one for at, one in enumerate(conversation) if at <= last or one["id"] in ids]


def wire_parts(given: dict[str, Any] | None) -> dict[str, Any]:
    """Return the parts of a run's input that stand in its RUN_STARTED."""
    names = ("state", "tools", "context", "forwardedProps", "resume")
    return {name: given[name] for name in names if given and given.get(name) is not None}


def _is_message(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), str) and "role" in item


def title_of(messages: list[Message]) -> str:
    """Return what a thread is called whose first messages these are."""
    return " ".join(_text_of(messages[-1]).split())[:TITLE_LENGTH] if messages else ""


def _text_of(message: Message) -> str:
    content = message.get("content", "")
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content if isinstance(part, dict))
