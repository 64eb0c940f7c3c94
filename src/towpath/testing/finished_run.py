"""The runs of a test: one that was started, and one that has ended."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from towpath.events.fold import Fold
from towpath.events.types import Event, Message
from towpath.identity import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHandle:
    """A run that was started; it may have ended since."""

    principal: Principal
    """The owner of the run."""
    thread: str
    """The id of its thread."""
    run: str
    """Its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallRecord:
    """A tool call as the events of a run show it."""

    id: str
    name: str
    arguments: Any
    """The arguments, decoded; the text as it is if it is not JSON."""
    result: Any
    """The result, decoded in the same way; None if the call has no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun(RunHandle):
    """A run that has ended."""

    events: list[Event]
    """All events of the run, RUN_STARTED first, the terminal event last."""
    earlier: list[Event] = field(repr=False)
    """The events of the thread before this run."""

    @property
    def ending(self) -> Event:
        """The terminal event."""
        return self.events[-1]

    @property
    def outcome(self) -> str:
        """`success`, `interrupt` or `cancelled`; `error` for a RUN_ERROR."""
        return str(self.ending["outcome"]["type"]) if "outcome" in self.ending else "error"

    @property
    def code(self) -> str | None:
        """The code of a RUN_ERROR; None for a run that succeeded."""
        code = self.ending.get("code")
        return str(code) if code is not None else None

    @property
    def text(self) -> str:
        """The text of the run's messages, one after the other."""
        fold = self._fold()
        started = [one["messageId"] for one in self._of_type("TEXT_MESSAGE_START")]
        return "".join(fold.text(message) for message in dict.fromkeys(started))

    @property
    def messages(self) -> list[Message]:
        """The messages of the thread at the end of the run, oldest first; AG-UI wire form."""
        return self._fold().messages

    @property
    def state(self) -> Any:
        """The shared state of the thread at the end of the run; None if it has none."""
        return self._fold().state

    @property
    def tool_calls(self) -> list[ToolCallRecord]:
        """The tool calls that the run made, in order."""
        deltas: dict[str, str] = {}
        for event in self._of_type("TOOL_CALL_ARGS"):
            deltas[event["toolCallId"]] = deltas.get(event["toolCallId"], "") + event["delta"]
        results = {one["toolCallId"]: one["content"] for one in self._of_type("TOOL_CALL_RESULT")}
        return [
            ToolCallRecord(
                id=one["toolCallId"],
                name=one["toolCallName"],
                arguments=_decoded(deltas.get(one["toolCallId"], "")),
                result=_decoded(results.get(one["toolCallId"])),
            )
            for one in self._of_type("TOOL_CALL_START")
        ]

    @property
    def interrupts(self) -> list[Event]:
        """The interrupts with which the run ended; empty if it ended in another way."""
        interrupts: list[Event] = self.ending.get("outcome", {}).get("interrupts", [])
        return interrupts

    def arguments(self, tool_call: str) -> str:
        """Return the arguments of a tool call of the thread, as a client shows them.

        Raises:
            KeyError: the thread has no such tool call.
        """
        calls = [call for message in self.messages for call in message.get("toolCalls") or ()]
        return {call["id"]: str(call["function"]["arguments"]) for call in calls}[tool_call]

    def _of_type(self, kind: str) -> Iterator[Event]:
        return (event for event in self.events if event["type"] == kind)

    def _fold(self) -> Fold:
        fold = Fold()
        for event in (*self.earlier, *self.events):
            fold.feed(event)
        return fold


def _decoded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
