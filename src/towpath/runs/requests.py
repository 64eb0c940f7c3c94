"""Requests to runs and their results: a request to an agent, a decision on an interrupt.

A `RunRequest` is validated when it is created, so code that receives one does not check it again.
Only its size is compared with a bound of the settings, when the service accepts it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, Self, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from towpath.agents.agent import Agent, AgentInput
from towpath.channels import is_id, is_thread_id
from towpath.errors import BadRequest
from towpath.events.types import Event, IllegalEvent, Message
from towpath.identity import Principal, UserExecutionContext
from towpath.log.broker import Append, IdempotencyKey, Position, Write, Written
from towpath.runs.deps import RunDeps
from towpath.runs.model import Queued, RunKey, RunOpened
from towpath.runs.publications import items_of, notice
from towpath.runs.run import Run

TITLE_LENGTH: Final = 60
"""The maximum length of a thread's title, in characters; it is cut from the newest message."""
WIRE_PARTS: Final = ("state", "tools", "context", "forwardedProps", "resume")
"""The parts of an input, beside its messages, that RUN_STARTED carries."""


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A person's request to an agent.

    Its JSON form is stored in the queue, and is part of idempotency keys: the names and the order
    of its fields must not change.

    Raises:
        BadRequest: an id is malformed, or the content is not one message or one AG-UI input.
    """

    request_id: str
    agent: str
    thread_id: str | None = None
    message: str | None = None
    input: dict[str, Any] | None = None
    """Instead of `message`: AG-UI `messages`, `state`, `context`, `tools`, `forwardedProps`."""
    run_id: str | None = None
    """The id of the run; None lets the gateway choose. An id that this person has used already is
    refused with Conflict."""

    def __post_init__(self) -> None:
        if self.run_id is not None and not is_id(self.run_id):
            raise BadRequest("run_id (AG-UI: runId) must be 1 to 128 printable characters")
        if not is_id(self.request_id):
            raise BadRequest("request_id must be 1 to 128 printable characters")
        if self.thread_id is not None and not is_thread_id(self.thread_id):
            raise BadRequest(
                "thread_id (AG-UI: threadId) must be 1 to 128 printable characters, "
                "248 bytes at most"
            )
        if (self.message is None) == (self.input is None):
            raise BadRequest("give either message or input")
        if self.message is not None and not self.message.strip():
            raise BadRequest("the message is empty")
        if self.input is not None and not _are_messages(self.input.get("messages")):
            raise BadRequest("input.messages must be a list of AG-UI messages")

    @property
    def size(self) -> int:
        """The size of its message or input, in bytes."""
        return len(msgspec.json.encode((self.message, self.input)))

    @property
    def messages(self) -> list[Message]:
        """The messages of its input; a `message` becomes one by `with_ids`."""
        messages: list[Message] = (self.input or {}).get("messages", [])
        return messages

    @property
    def answers(self) -> list[Event]:
        """Its answers to the interrupts of an earlier run: AG-UI's `resume`."""
        answers = (self.input or {}).get("resume")
        return answers if isinstance(answers, list) else []

    @property
    def run_input(self) -> dict[str, Any]:
        """The input that the run's RUN_STARTED carries."""
        parts = {name: (self.input or {}).get(name) for name in WIRE_PARTS}
        present = {name: part for name, part in parts.items() if part is not None}
        return {**present, "messages": self.messages}

    def with_ids(self, new_id: Callable[[], str]) -> "RunRequest":
        """Return the same request with every id; missing ids are made with `new_id`."""
        run_input = self.input
        if self.message is not None:
            message = {"id": new_id(), "role": "user", "content": self.message}
            run_input = {"messages": [message]}
        elif self.thread_id is not None and self.run_id is not None:
            return self
        return RunRequest(
            request_id=self.request_id,
            agent=self.agent,
            thread_id=self.thread_id or new_id(),
            input=run_input,
            run_id=self.run_id or new_id(),
        )

    def run_key(self, principal: Principal) -> RunKey:
        """Return the key of the requested run; call `with_ids` first."""
        assert self.thread_id is not None, "with_ids was called"
        assert self.run_id is not None, "with_ids was called"
        return RunKey(
            tenant=principal.tenant,
            user=principal.user,
            thread=self.thread_id,
            run=self.run_id,
            agent=self.agent,
        )


def _are_messages(items: object) -> bool:
    return isinstance(items, list) and all(
        isinstance(item, dict) and isinstance(item.get("id"), str) and "role" in item
        for item in items
    )


class QueuedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits for its thread, as the column `queued.request` holds it.

    The names of the fields must not change: existing data directories contain them.
    """

    request: RunRequest = msgspec.field(name="asked")
    messages: list[Message]
    """The messages of the request."""
    roles: list[str]
    """The roles of the person who sent the request."""


class ThreadPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Where to subscribe from."""

    epoch: str
    offset: int


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A run that began, and the position before its first event."""

    thread_id: str
    run_id: str
    position: ThreadPosition

    @classmethod
    def at(cls, key: RunKey, before: Position) -> Self:
        """Return the result of `run.start` for a run whose events are after a position."""
        position = ThreadPosition(epoch=before.epoch, offset=before.offset)
        return cls(thread_id=key.thread, run_id=key.run, position=position)

    @classmethod
    def to_store(cls, key: RunKey) -> bytes:
        """Return the result without its position, which is that of the write; see `result_of`."""
        return msgspec.json.encode({"thread_id": key.thread, "run_id": key.run})


class Decided(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a decision: `accepted`, `already`, `expired` or `gone`; the continuing run."""

    status: str
    run_id: str | None = None
    thread_id: str | None = None
    position: ThreadPosition | None = None

    @classmethod
    def at(cls, key: RunKey, before: Position) -> Self:
        """Return the result of the decision that starts a run whose events are after a position."""
        position = ThreadPosition(epoch=before.epoch, offset=before.offset)
        return cls(status="accepted", thread_id=key.thread, run_id=key.run, position=position)

    @classmethod
    def to_store(cls, key: RunKey) -> bytes:
        """Return the result without its position, which is that of the write; see `result_of`."""
        return msgspec.json.encode(cls(status="accepted", thread_id=key.thread, run_id=key.run))


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a cancel: `accepted` or `too_late`."""

    status: str


R = TypeVar("R", Started, Decided)
"""The result of the request that opens a run."""


def result_of(kind: type[R], written: Written) -> R:
    """Return the result of a request that opens a run, from what is stored under its key.

    The position of a run that began with the write is that of the write. A queued run was stored
    with its position, and so was every run by earlier versions.

    Args:
        kind: the class of the result.
        written: the result of the write that stored it, or of its repetition.
    """
    stored: dict[str, Any] = msgspec.json.decode(written.result)
    if "run_id" in stored and "position" not in stored:
        epoch, offset = written.spans[0].before
        stored["position"] = {"epoch": epoch, "offset": offset}
    return msgspec.convert(stored, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions(Generic[R]):
    """How a run is opened: its idempotency key, its parent run, and facts to write with it."""

    key: IdempotencyKey | None
    result: type[R]
    """The class of the result, which is stored under the key."""
    parent: str | None = None
    """The run that this one continues."""
    facts: tuple[object, ...] = ()
    """Facts to write in the same transaction, before the run's own."""
    queued: Queued | None = None
    """The run as it was queued, if it was."""
    agent: Agent | None = None
    """The agent, if it is not the registered one of that name."""


class Start(Protocol):
    """Opens a run."""

    async def __call__(
        self, principal: Principal, request: RunRequest, options: StartOptions[R]
    ) -> R:
        """Open a run; return its result, or the result that is stored under its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A person's decision on an interrupt.

    Its JSON form is part of idempotency keys: names and order of the fields must not change.
    """

    request_id: str
    run_id: str
    interrupt_id: str
    decision: str
    """`approve` or `refuse`."""
    payload: Any = None
    """A payload for the agent, beside the decision."""
    digest: str | None = None
    """The SHA-256 of the arguments shown; this or `arguments` is required about a tool call."""
    arguments: str | UnsetType = UNSET
    """The text of the arguments shown. Unset, not None, so that keys from before it stay valid."""


def opening(
    run: Run, request: RunRequest, options: StartOptions[R], *, offset: int, deps: RunDeps
) -> Write:
    """Begin a run; return the write of its first events and of the fact that it was opened.

    Args:
        run: the run, which has not begun.
        request: the request, with its ids.
        options: how the run is opened.
        offset: the offset of the thread when its conversation was read.
        deps: the dependencies of runs.

    Raises:
        BadRequest: the messages are not AG-UI's; the run has not begun.
    """
    try:
        events = run.begin(request.run_input, parent=options.parent)
    except IllegalEvent as error:
        raise BadRequest(error.reason) from None
    key = run.key
    opened = RunOpened(
        key=key,
        title=_title_of(events[0].event["input"]["messages"]),
        thread_offset=offset,
        at=deps.now(),
        queued=options.queued,
    )
    first = Append(key.channel, items_of(events), fence=True)
    return Write(
        (first, notice(run, "towpath.run.started")),
        (*options.facts, opened),
        key=options.key,
        result=options.result.to_store(key),
    )


def agent_input(run: Run, principal: Principal, request: RunRequest) -> AgentInput:
    """Return the input of the agent of a run that has begun."""
    run_input = request.input or {}
    # The agent gets copies: its changes to them must not change the run.
    messages, state = copy.deepcopy((_to_answer(run.messages, request.messages), run.state))
    newest = next((item for item in reversed(messages) if item["role"] == "user"), None)
    return AgentInput(
        context=UserExecutionContext.of(principal, thread=run.key.thread, run=run.key.run),
        message=_text_of(newest) if newest else "",
        messages=messages,
        state=state,
        tools=run_input.get("tools") or [],
        client_context=run_input.get("context") or [],
        forwarded_props=run_input.get("forwardedProps"),
        resume=run_input.get("resume") or [],
    )


def _to_answer(conversation: list[Message], messages: list[Message]) -> list[Message]:
    """Return the conversation up to the message to be answered.

    If the last message of a request is already in the thread, it is to be answered again. Then the
    messages after it are left out, because they were written without the new answer.
    """
    if not messages:
        return conversation
    ids = {message["id"] for message in messages}
    last = next(at for at, one in enumerate(conversation) if one["id"] == messages[-1]["id"])
    return [one for at, one in enumerate(conversation) if at <= last or one["id"] in ids]


def _title_of(messages: list[Message]) -> str:
    """Return the title of a thread whose first messages these are."""
    return " ".join(_text_of(messages[-1]).split())[:TITLE_LENGTH] if messages else ""


def _text_of(message: Message) -> str:
    content = message.get("content", "")
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content if isinstance(part, dict))
