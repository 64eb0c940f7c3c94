"""The legal order of a run's events, as a table.

How to think about it
=====================

A run is a bracket expression. RUN_STARTED opens it, and a terminal event closes it. In between,
messages, tool calls, reasoning, steps and sub-agents open and close their own brackets, each named
by the id in one field. A *use* (a delta) is legal only while its bracket is open. RUN_FINISHED is
legal only when every bracket is closed. RUN_ERROR closes all brackets itself, because a failing
agent cannot close them. After a terminal event only a new RUN_STARTED or RUN_ERROR is legal.

Types that are not in the table (state, snapshots, custom and unknown types) are legal anywhere
inside a run.

Source: WIRE section 8; AG-UI 1.0, the rules its client verifies.
"""

from enum import Enum
from typing import Any, Final, NamedTuple

from towpath.events.types import TERMINAL, Event, IllegalEvent


class Act(Enum):
    """The effect of an event on its bracket."""

    OPEN = "opens"
    USE = "needs open"
    CLOSE = "closes"


class Rule(NamedTuple):
    """The effect of an event type, the kind of its bracket, and the field with the bracket's id."""

    act: Act
    bracket: str
    field: str


RULES: Final[dict[str, Rule]] = {
    "TEXT_MESSAGE_START": Rule(Act.OPEN, "text", "messageId"),
    "TEXT_MESSAGE_CONTENT": Rule(Act.USE, "text", "messageId"),
    "TEXT_MESSAGE_END": Rule(Act.CLOSE, "text", "messageId"),
    "TOOL_CALL_START": Rule(Act.OPEN, "tool", "toolCallId"),
    "TOOL_CALL_ARGS": Rule(Act.USE, "tool", "toolCallId"),
    "TOOL_CALL_END": Rule(Act.CLOSE, "tool", "toolCallId"),
    "REASONING_START": Rule(Act.OPEN, "reasoning", "messageId"),
    "REASONING_END": Rule(Act.CLOSE, "reasoning", "messageId"),
    "REASONING_MESSAGE_START": Rule(Act.OPEN, "thought", "messageId"),
    "REASONING_MESSAGE_CONTENT": Rule(Act.USE, "thought", "messageId"),
    "REASONING_MESSAGE_END": Rule(Act.CLOSE, "thought", "messageId"),
    "STEP_STARTED": Rule(Act.OPEN, "step", "stepName"),
    "STEP_FINISHED": Rule(Act.CLOSE, "step", "stepName"),
    "SUBAGENT_STARTED": Rule(Act.OPEN, "subagent", "subagentRunId"),
    "SUBAGENT_FINISHED": Rule(Act.CLOSE, "subagent", "subagentRunId"),
    "SUBAGENT_ERROR": Rule(Act.CLOSE, "subagent", "subagentRunId"),
}
"""Every type that opens, needs or closes a bracket."""

CLOSERS: Final[dict[str, tuple[str, str]]] = {
    rule.bracket: (kind, rule.field)
    for kind, rule in RULES.items()
    if rule.act is Act.CLOSE and kind != "SUBAGENT_ERROR"
}
"""The event that closes a bracket of each kind, and the field that names it."""


class Order:
    """The position in one thread's stream of events; call `check` first, `advance` after."""

    def __init__(self) -> None:
        self.running = False
        """Whether a run is open."""
        self.open: dict[tuple[str, str], Event] = {}
        """Open brackets by (kind, name), in order of opening, with the event that opened each."""

    def check(self, event: Event) -> None:
        """Raise IllegalEvent, with the reason, if an event is not legal here."""
        kind = event["type"]
        if kind == "RUN_STARTED":
            if self.running:
                raise IllegalEvent(kind, "a run is active")
            return
        if not self.running and kind != "RUN_ERROR":
            raise IllegalEvent(kind, "no run is active")
        if kind == "RUN_FINISHED" and self.open:
            bracket, name = next(iter(self.open))
            raise IllegalEvent(kind, f"{bracket} {name} is open")
        rule = RULES.get(kind)
        if rule is not None:
            self._check_bracket(kind, rule, event)

    def _check_bracket(self, kind: str, rule: Rule, event: Event) -> None:
        name = event.get(rule.field)
        if not isinstance(name, str) or not name:
            raise IllegalEvent(kind, f"has no {rule.field}")
        is_open = (rule.bracket, name) in self.open
        if is_open and rule.act is Act.OPEN:
            raise IllegalEvent(kind, f"{rule.bracket} {name} is open already")
        if not is_open and rule.act is not Act.OPEN:
            raise IllegalEvent(kind, f"{rule.bracket} {name} is not open")

    def advance(self, event: Event) -> None:
        """Update the open brackets with a checked event."""
        kind = event["type"]
        if kind == "RUN_STARTED":
            self.running = True
            self.open.clear()
        elif kind in TERMINAL:
            self.running = False
            self.open.clear()
        elif (rule := RULES.get(kind)) is not None:
            key = (rule.bracket, event[rule.field])
            if rule.act is Act.OPEN:
                self.open[key] = event
            elif rule.act is Act.CLOSE:
                self.open.pop(key, None)

    def closing(self) -> list[Event]:
        """Return the events that close every open bracket, last opened first."""
        return [_closer(bracket, name, self.open[bracket, name]) for bracket, name in _last(self)]


def _last(order: Order) -> list[tuple[str, str]]:
    return list(reversed(order.open))


def _closer(bracket: str, name: str, opener: Event) -> Event:
    kind, field = CLOSERS[bracket]
    event: dict[str, Any] = {"type": kind, field: name}
    if bracket != "subagent" and "subagentRunId" in opener:
        event["subagentRunId"] = opener["subagentRunId"]
    return event
