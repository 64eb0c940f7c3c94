"""The AG-UI 1.0 event types, their conversion to plain dicts, and the five golden-path names.

Inside Towpath an event is a `dict` in wire form: camelCase keys, `type` a string. All events from
agent code go through `parse`, which validates them once with the models of `ag-ui-protocol`; later
code relies on that.

Source: AG-UI 1.0 (PyPI `ag-ui-protocol`); WIRE section 8.
"""

from collections.abc import Mapping
from typing import Any, Final

from ag_ui.core import Event as AnyEvent
from ag_ui.core.events import BaseEvent, EventType
from pydantic import BaseModel, TypeAdapter, ValidationError

from towpath.errors import TowpathError

Event = dict[str, Any]
"""One AG-UI event in wire form."""

Message = dict[str, Any]
"""One AG-UI message in wire form."""

TYPES: Final = frozenset(kind.value for kind in EventType)
"""The 31 types of AG-UI 1.0. Other types are passed on unchanged."""

TERMINAL: Final = frozenset({"RUN_FINISHED", "RUN_ERROR"})
"""The types that end a run."""

DELTAS: Final[Mapping[str, str]] = {
    "TEXT_MESSAGE_CONTENT": "messageId",
    "REASONING_MESSAGE_CONTENT": "messageId",
    "TOOL_CALL_ARGS": "toolCallId",
}
"""Types whose `delta` is appended to an item, and the field with its id; deltas can be merged."""

CHUNKS: Final[Mapping[str, tuple[str, str]]] = {
    "TEXT_MESSAGE_CHUNK": ("TEXT_MESSAGE", "messageId"),
    "REASONING_MESSAGE_CHUNK": ("REASONING_MESSAGE", "messageId"),
    "TOOL_CALL_CHUNK": ("TOOL_CALL", "toolCallId"),
}
"""Types that a run expands: the prefix of the types that they become, and the field with the id."""

RENAMED: Final[Mapping[str, str]] = {
    "THINKING_START": "REASONING_START",
    "THINKING_END": "REASONING_END",
    "THINKING_TEXT_MESSAGE_START": "REASONING_MESSAGE_START",
    "THINKING_TEXT_MESSAGE_CONTENT": "REASONING_MESSAGE_CONTENT",
    "THINKING_TEXT_MESSAGE_END": "REASONING_MESSAGE_END",
}
"""Types that older agents emit, and their new names. They carry no id; `parse` adds one."""

LEGACY_REASONING_ID: Final = "thinking"
"""The id of a renamed event: older agents have one reasoning at a time."""

GOLDEN: Final[Mapping[str, str]] = {
    "RUN_STARTED": "agent_started",
    "REASONING_START": "agent_thinking",
    "REASONING_MESSAGE_START": "agent_thinking",
    "REASONING_MESSAGE_CONTENT": "agent_thinking",
    "REASONING_MESSAGE_END": "agent_thinking",
    "REASONING_MESSAGE_CHUNK": "agent_thinking",
    "REASONING_END": "agent_thinking",
    "REASONING_ENCRYPTED_VALUE": "agent_thinking",
    "STEP_STARTED": "agent_thinking",
    "TOOL_CALL_START": "tool_executing",
    "TOOL_CALL_ARGS": "tool_executing",
    "TOOL_CALL_CHUNK": "tool_executing",
    "TOOL_CALL_END": "tool_executing",
    "TOOL_CALL_RESULT": "tool_completed",
    "RUN_FINISHED": "agent_completed",
    "RUN_ERROR": "agent_completed",
}
"""The five golden-path names as a view of AG-UI types; never published in addition."""

_adapter: TypeAdapter[Any] = TypeAdapter(AnyEvent)


class IllegalEvent(TowpathError):
    """An event is malformed, or not legal at its place. The agent's fault."""

    run_code = "run.illegal_event"
    """The code of the RUN_ERROR that ends the run of an agent that yields the event."""

    def __init__(self, event_type: str, reason: str) -> None:
        super().__init__(event_type, reason)
        self.event_type = event_type
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.event_type}: {self.reason}"


def golden_name(event: Mapping[str, Any]) -> str | None:
    """Return the golden-path name of an event; None if it has none."""
    return GOLDEN.get(str(event.get("type")))


def parse(value: object) -> Event:
    """Return an item of agent code as an event in wire form.

    Takes an `ag_ui.core` event or a mapping in wire form. Optional fields that are None are left
    out, as the protocol requires. Unknown types are not validated.

    Raises:
        IllegalEvent: the item is neither, or its fields do not fit its type.
    """
    if isinstance(value, BaseEvent):
        return _dumped(value)
    if not isinstance(value, Mapping):
        raise IllegalEvent(type(value).__name__, "neither an AG-UI event, nor a mapping, nor text")
    raw = dict(value)
    name = raw.get("type")
    if not isinstance(name, str):
        raise IllegalEvent("event", "has no type")
    name = str(name.value) if isinstance(name, EventType) else name
    raw["type"] = RENAMED.get(name, name)
    if name in RENAMED:
        raw.setdefault("messageId", LEGACY_REASONING_ID)
        if raw["type"] == "REASONING_MESSAGE_START":
            raw.setdefault("role", "reasoning")
    if raw["type"] not in TYPES:
        return raw
    try:
        model = _adapter.validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "event"
        raise IllegalEvent(name, f"{where}: {first['msg']}") from None
    return _dumped(model)


def _dumped(model: BaseEvent) -> Event:
    try:
        event: Event = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    except ValueError as error:  # From the serializer, or from its bound on depth.
        raise IllegalEvent(str(model.type.value), f"is not JSON: {error}") from None
    _restore_nulls(model, event)
    for name in ("delta", "patch"):
        operations = getattr(model, name, None)
        if isinstance(operations, list):
            for operation, wire in zip(operations, event[name], strict=True):
                _restore_nulls(operation, wire)
    return event


def _restore_nulls(model: BaseModel, wire: Event) -> None:
    """Restore None in required fields, where it is a value, such as a state set to null."""
    for name, field in type(model).model_fields.items():
        if field.is_required() and getattr(model, name) is None:
            wire[field.alias or name] = None
