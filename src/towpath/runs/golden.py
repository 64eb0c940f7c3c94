"""The names of the golden path as input: what an application pushes becomes AG-UI events.

| name | fields | AG-UI |
|---|---|---|
| `agent_started` | none | nothing: each run has its RUN_STARTED |
| `agent_thinking` | `text` | a reasoning message |
| `tool_executing` | `tool_name`, `arguments`?, `tool_call_id`? | TOOL_CALL_START, ARGS, END |
| `tool_completed` | `tool_name` or `tool_call_id`, `result`? | TOOL_CALL_RESULT |
| `agent_completed` | `result`? | RUN_FINISHED |
| `agent_error` | `message`, `code`? | RUN_ERROR |

An event of AG-UI is passed on with its fields. Every other name becomes a CUSTOM event of that
name, and its fields are the value. Source: WIRE section 8.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from towpath.events.build import custom, thinking, tool_call, tool_result
from towpath.events.types import RENAMED, TYPES, IllegalEvent
from towpath.events.values import ToolCall, ToolResult

Fields = Mapping[str, Any]


class GoldenPath:
    """The items of one run; it knows which tool calls wait for their results."""

    def __init__(self) -> None:
        self._waiting: list[ToolCall] = []
        """The calls without a result, oldest first."""

    def item(self, name: str, fields: Fields) -> object:
        """Return what a run takes for an event; see `Run.feed`.

        Raises:
            IllegalEvent: a field is missing, unknown or invalid, or no such call waits.
        """
        make = _NAMES.get(name)
        if make is not None:
            known, required, convert = make
            _check(name, fields, known, required)
            return convert(self, fields)
        if name in TYPES or name in RENAMED:
            return {**fields, "type": name}
        return custom(name, dict(fields))

    def published(self, item: object) -> None:
        """Note that the run took an item; one that the run refused is not noted."""
        if isinstance(item, ToolCall):
            self._waiting.append(item)
        elif isinstance(item, ToolResult) and item.call in self._waiting:
            self._waiting.remove(item.call)

    def _call(self, fields: Fields) -> ToolCall:
        key = fields.get("tool_call_id")
        return tool_call(fields["tool_name"], fields.get("arguments"), id=key)

    def _result(self, fields: Fields) -> object:
        name, key = fields.get("tool_name"), fields.get("tool_call_id")
        named = (
            one for one in self._waiting if (one.name == name if key is None else one.id == key)
        )
        found = next(named, None)
        if found is not None:
            return found.result(fields.get("result", ""))
        if key is not None:
            return tool_result(key, fields.get("result", ""))
        raise IllegalEvent("tool_completed", f"no call of the tool {name!r} waits for a result")


def _check(name: str, fields: Fields, known: set[str], required: set[str]) -> None:
    if unknown := fields.keys() - known:
        raise IllegalEvent(name, f"has no field {min(unknown)!r}; it has {_list(known)}")
    if missing := required - fields.keys():
        raise IllegalEvent(name, f"needs the field {min(missing)!r}")


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "no fields"


_Row = tuple[set[str], set[str], Callable[[GoldenPath, Fields], object]]
_NAMES: Final[dict[str, _Row]] = {
    "agent_started": (set(), set(), lambda _path, _fields: {"type": "RUN_STARTED"}),
    "agent_thinking": ({"text"}, {"text"}, lambda _path, fields: thinking(fields["text"])),
    "tool_executing": (
        {"tool_name", "arguments", "tool_call_id"},
        {"tool_name"},
        GoldenPath._call,
    ),
    "tool_completed": ({"tool_name", "tool_call_id", "result"}, set(), GoldenPath._result),
    "agent_completed": (
        {"result"},
        set(),
        lambda _path, fields: {"type": "RUN_FINISHED", **fields},
    ),
    "agent_error": (
        {"message", "code"},
        {"message"},
        lambda _path, fields: {"type": "RUN_ERROR", **fields},
    ),
}
"""For each name: its fields, those it needs, and what it becomes."""
