"""AG-UI events: their types, their legal order, and the state that they produce.

For agent authors: the functions that make the values that an agent yields.
"""

from towpath.events.build import (
    AgentItem,
    activity,
    ask,
    ask_all,
    ask_for_approval,
    custom,
    message,
    state,
    state_delta,
    step,
    thinking,
    tool_call,
    tool_result,
)
from towpath.events.types import IllegalEvent, golden_name
from towpath.events.values import Activity, EventValue, Interrupts, Step, ToolCall, ToolResult

__all__ = [
    "Activity",
    "AgentItem",
    "EventValue",
    "IllegalEvent",
    "Interrupts",
    "Step",
    "ToolCall",
    "ToolResult",
    "activity",
    "ask",
    "ask_all",
    "ask_for_approval",
    "custom",
    "golden_name",
    "message",
    "state",
    "state_delta",
    "step",
    "thinking",
    "tool_call",
    "tool_result",
]
