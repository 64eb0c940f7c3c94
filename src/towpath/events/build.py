"""Events in one line: functions that make the values that an agent yields.

    call = tool_call("price", {"of": "pear"})
    yield call
    yield call.result({"price": 0.6})

`towpath.events.values` explains how a run publishes a value. A function raises IllegalEvent at the
author's line if an argument is invalid. What only the run can know, such as a result without its
call, is refused when the value is yielded.

No I/O, no time, no ids.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec
from ag_ui.core.events import BaseEvent

from towpath.events import content as checked
from towpath.events.types import Event, IllegalEvent, parse
from towpath.events.values import (
    Activity,
    EventValue,
    Interrupt,
    Interrupts,
    Reasoning,
    Step,
    TextMessage,
    ToolCall,
    ToolResult,
    WireEvent,
)

AgentItem = str | EventValue | BaseEvent | Mapping[str, Any]
"""What an agent may yield: text, a value, an event of `ag_ui.core`, or a mapping in wire form."""

MessageRole = Literal["assistant", "developer", "system", "user"]
"""The roles of a text message."""


def tool_call(
    name: str, arguments: Mapping[str, object] | str | None = None, *, id: str | None = None
) -> ToolCall:
    """Return a whole tool call: TOOL_CALL_START, TOOL_CALL_ARGS, TOOL_CALL_END.

    Args:
        name: the name of the tool.
        arguments: the arguments by name, or JSON text, which is published unchanged.
        id: the id of the call, 1 to 128 printable characters, which nothing in the conversation
            has; None lets the run choose.

    Raises:
        IllegalEvent: the name is empty, the id is malformed, or the arguments are not JSON.
    """
    kind, what = "TOOL_CALL_ARGS", "arguments"
    if isinstance(arguments, str):
        text = _json(checked.text(kind, what, arguments))
    else:
        given = {} if arguments is None else arguments
        text = checked.json_text(kind, what, checked.plain_mapping(kind, what, given))
    start = "TOOL_CALL_START"
    return ToolCall(checked.name(start, "name", name), text, checked.chosen_id(start, id))


def tool_result(tool_call_id: str, content: object) -> ToolResult:
    """Return the result of a tool call of an earlier run: TOOL_CALL_RESULT.

    A call that the same run yields has the method `result` instead.

    Args:
        tool_call_id: the id of the call in the conversation.
        content: text, or a value that is published as JSON text.

    Raises:
        IllegalEvent: the id is empty, or the content has no JSON encoding.
    """
    key = checked.name("TOOL_CALL_RESULT", "tool_call_id", tool_call_id)
    return ToolResult.of(key, content)


def thinking(text: str) -> EventValue:
    """Return a whole reasoning message: all events from REASONING_START to REASONING_END.

    Args:
        text: the reasoning; an empty text makes no content event.

    Raises:
        IllegalEvent: the text is not a string, or contains a lone surrogate.
    """
    return Reasoning(checked.text("REASONING_MESSAGE_CONTENT", "text", text))


def message(text: str, *, role: MessageRole = "assistant") -> EventValue:
    """Return a whole text message: all events from TEXT_MESSAGE_START to TEXT_MESSAGE_END.

    A string that is yielded is a piece of a message instead, and the next string continues it.

    Args:
        text: the text; an empty text makes no content event.
        role: the role of the message.

    Raises:
        IllegalEvent: the text is not a string, or contains a lone surrogate; the role is unknown.
    """
    if role not in get_args(MessageRole):
        roles = ", ".join(get_args(MessageRole))
        raise IllegalEvent("TEXT_MESSAGE_START", f"role must be one of {roles}")
    return TextMessage(checked.text("TEXT_MESSAGE_CONTENT", "text", text), role)


def state(snapshot: object) -> EventValue:
    """Return a new shared state of the thread: STATE_SNAPSHOT.

    Args:
        snapshot: the whole state; it is copied.

    Raises:
        IllegalEvent: the state has no JSON encoding.
    """
    kind = "STATE_SNAPSHOT"
    return WireEvent({"type": kind, "snapshot": checked.plain(kind, "snapshot", snapshot)})


def state_delta(operations: Sequence[Mapping[str, object]]) -> EventValue:
    """Return a change of the shared state of the thread: STATE_DELTA.

    Args:
        operations: a JSON Patch (RFC 6902).

    Raises:
        IllegalEvent: the operations are not a patch. Whether the patch applies to the state is
            checked when the value is yielded.
    """
    kind = "STATE_DELTA"
    delta = checked.plain(kind, "operations", operations)
    return WireEvent(parse({"type": kind, "delta": delta}))


def step(name: str) -> Step:
    """Return the start of a step: STEP_STARTED; yield its `finished()` where the step ends.

    The run finishes the steps that are open when it ends, unless it ends with an error.

    Args:
        name: the name of the step; two steps of one name cannot be open at a time.

    Raises:
        IllegalEvent: the name is empty.
    """
    return Step(checked.name("STEP_STARTED", "name", name))


def custom(name: str, value: object = None) -> EventValue:
    """Return an event that AG-UI does not define: CUSTOM.

    Args:
        name: the name of the event.
        value: its content.

    Raises:
        IllegalEvent: the name is empty, or the value has no JSON encoding.
    """
    kind = "CUSTOM"
    fields = {
        "name": checked.name(kind, "name", name),
        "value": checked.plain(kind, "value", value),
    }
    return WireEvent({"type": kind, **fields})


def activity(kind: str, content: Mapping[str, object]) -> Activity:
    """Return structured progress that is not text, such as a plan: ACTIVITY_SNAPSHOT.

    Args:
        kind: the `activityType`, from which a client knows how to show the content.
        content: the content by name.

    Raises:
        IllegalEvent: the kind is empty; the content is not a mapping, or has no JSON encoding.
    """
    event_type = "ACTIVITY_SNAPSHOT"
    return Activity(
        checked.name(event_type, "kind", kind),
        checked.plain_mapping(event_type, "content", content),
    )


def ask_for_approval(
    call: ToolCall | str,
    *,
    message: str | None = None,
    reason: str = "tool_call",
    expires: datetime | None = None,
    response_schema: Mapping[str, object] | None = None,
    id: str | None = None,
) -> Interrupts:
    """Return the end of the run with the question whether a tool may be called: RUN_FINISHED.

    Args:
        call: the call, which was yielded before; or the id of a call in the conversation.
        message: the question, for people.
        reason: the kind of the question, for programs.
        expires: when the question expires, with a time zone; None takes `interrupt_timeout`.
        response_schema: a JSON Schema of the payload that an answer should have.
        id: the id of the interrupt, 1 to 128 printable characters, which no other question of the
            run has; None lets the run choose.

    Raises:
        IllegalEvent: a text is empty, the id is malformed, or `expires` has no time zone.
    """
    kind = "RUN_FINISHED"
    about = call if isinstance(call, ToolCall) else checked.name(kind, "call", call)
    fields = _fields(message, reason, expires, response_schema)
    return Interrupts((Interrupt(about, checked.chosen_id(kind, id), fields),))


def ask(
    message: str,
    *,
    reason: str = "question",
    expires: datetime | None = None,
    response_schema: Mapping[str, object] | None = None,
    id: str | None = None,
) -> Interrupts:
    """Return the end of the run with a question that is not about a tool call: RUN_FINISHED.

    Args:
        message: the question, for people.
        reason: the kind of the question, for programs.
        expires: when the question expires, with a time zone; None takes `interrupt_timeout`.
        response_schema: a JSON Schema of the payload that an answer should have.
        id: the id of the interrupt, 1 to 128 printable characters, which no other question of the
            run has; None lets the run choose.

    Raises:
        IllegalEvent: a text is empty, the id is malformed, or `expires` has no time zone.
    """
    checked.name("RUN_FINISHED", "message", message)
    fields = _fields(message, reason, expires, response_schema)
    return Interrupts((Interrupt(None, checked.chosen_id("RUN_FINISHED", id), fields),))


def ask_all(*interrupts: Interrupts) -> Interrupts:
    """Return the end of the run with several questions; the next run has all answers.

    Args:
        interrupts: the values of `ask_for_approval` and `ask`, in order; at least one.

    Raises:
        IllegalEvent: there is no question.
    """
    if not interrupts:
        raise IllegalEvent("RUN_FINISHED", "ask_all needs a question")
    return Interrupts(tuple(one for several in interrupts for one in several.interrupts))


def _json(text: str) -> str:
    """Return JSON text unchanged."""
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise IllegalEvent(
            "TOOL_CALL_ARGS", f"arguments must be a mapping or JSON text: {error}"
        ) from None
    return text


def _fields(
    message: str | None,
    reason: str,
    expires: datetime | None,
    response_schema: Mapping[str, object] | None,
) -> Event:
    """Return fields of AG-UI's Interrupt."""
    kind = "RUN_FINISHED"
    fields: Event = {"reason": checked.name(kind, "reason", reason)}
    if message is not None:
        fields["message"] = checked.name(kind, "message", message)
    if expires is not None:
        if not isinstance(expires, datetime) or expires.utcoffset() is None:
            raise IllegalEvent(kind, "expires must be a datetime with a time zone")
        fields["expiresAt"] = expires.isoformat()
    if response_schema is not None:
        schema = checked.plain_mapping(kind, "response_schema", response_schema)
        fields["responseSchema"] = schema
    return fields
