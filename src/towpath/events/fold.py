"""The state that a list of events produces: messages, shared state, and open items.

A fold applies a thread's events one by one, exactly as an AG-UI client does. At any point it can
return a *snapshot*: the events that bring a new reader to the current state.

`merge_deltas` folds a *tail*, with which a reader continues: it joins the deltas of one item and
keeps all other events.

Source: WIRE sections 5 and 9; the reducer of AG-UI's own client for what each event means.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Final

from towpath.events.order import Order
from towpath.events.patch import patched
from towpath.events.snapshot import attribution, compose
from towpath.events.types import DELTAS, Event, IllegalEvent, Message


class Fold:
    """The state that a thread's events produce. Feed it every event once, in order."""

    def __init__(
        self,
        messages: Iterable[Message] = (),
        *,
        state: Any = None,
        last_run: tuple[Event, Event] | None = None,
    ) -> None:
        """Start from the stored state.

        Args:
            messages: the conversation so far, oldest first.
            state: the shared state so far; None without a state.
            last_run: the last finished run's RUN_STARTED and terminal event.
        """
        self.order = Order()
        self.bound = False
        """Whether a patch is refused whose result is too deep or too large: set where events are
        made, not where they are read."""
        self.state = state
        self.started: Event | None = last_run[0] if last_run else None
        """The latest RUN_STARTED."""
        self.ended: Event | None = last_run[1] if last_run else None
        """The terminal event of the latest run, None while it is active."""
        self._messages: dict[str, Message] = {message["id"]: message for message in messages}
        self._texts: dict[str, list[str]] = {}
        self._arguments: dict[str, list[str]] = {}
        self._tool_owner: dict[str, str] = {}
        self._run_texts: list[str] = []

    def feed(self, event: Event) -> None:
        """Check and apply one event.

        Raises:
            IllegalEvent: the event is not legal here; nothing has changed.
        """
        self.order.check(event)
        self.apply(event)

    def apply(self, event: Event) -> None:
        """Apply one event that `order.check` has just allowed.

        Raises:
            IllegalEvent: its content does not fit the current state; nothing has changed.
        """
        apply = _APPLY.get(event["type"])
        if apply is not None:
            apply(self, event)
        self.order.advance(event)

    @property
    def messages(self) -> list[Message]:
        """The conversation, oldest first, with the deltas of texts and arguments joined."""
        for key in list(self._texts):
            self._join_text(key)
        for key in list(self._arguments):
            self._join_arguments(key)
        return list(self._messages.values())

    def __contains__(self, message_id: str) -> bool:
        """Whether the conversation has such a message."""
        return message_id in self._messages

    def has_call(self, tool_call_id: str) -> bool:
        """Whether a message of the conversation has a tool call with this id."""
        calls = (call for one in self._messages.values() for call in one.get("toolCalls") or ())
        return any(call["id"] == tool_call_id for call in calls)

    def text(self, message_id: str) -> str:
        """Return the text of a message so far; empty if a snapshot dropped the message."""
        self._join_text(message_id)
        content = self._messages.get(message_id, {}).get("content", "")
        return content if isinstance(content, str) else ""

    def run_texts(self) -> list[tuple[str, str]]:
        """Return ids and texts of the last 32 text messages of the latest run, in order."""
        shown = [key for key in self._run_texts if key in self._messages]
        return [(key, self.text(key)) for key in shown[-32:]]

    def snapshot(self, *, max_bytes: int | None = None) -> list[Event]:
        """Return the events that bring a new reader to the current state; empty before any run.

        Args:
            max_bytes: bound on the text of the messages in the snapshot; the oldest are left out.
        """
        if self.started is None:
            return []
        return compose(
            started=self.started,
            ended=self.ended,
            state=self.state,
            messages=self.messages,
            brackets=self.order.open,
            tool_owner=self._tool_owner,
            max_bytes=max_bytes,
        )

    def _on_run_started(self, event: Event) -> None:
        self.started, self.ended = event, None
        self._run_texts = []
        for message in (event.get("input") or {}).get("messages", ()):
            self._messages.setdefault(message["id"], copy.deepcopy(message))

    def _on_run_ended(self, event: Event) -> None:
        self.ended = event

    def _on_text_start(self, event: Event) -> None:
        key = event["messageId"]
        self._refuse_another_kind(event, thought=False)
        message = self._messages.setdefault(
            key, {"id": key, "role": event.get("role", "assistant"), **attribution(event)}
        )
        if "name" in event:
            message["name"] = event["name"]
        message.setdefault("content", "")
        self._run_texts.append(key)

    def _on_thought_start(self, event: Event) -> None:
        key = event["messageId"]
        self._refuse_another_kind(event, thought=True)
        fresh = {"id": key, "role": "reasoning", "content": "", **attribution(event)}
        self._messages.setdefault(key, fresh)

    def _refuse_another_kind(self, event: Event, *, thought: bool) -> None:
        """Raise IllegalEvent if a message cannot hold streamed text, or not text of this kind."""
        message = self._messages.get(event["messageId"], {})
        role = message.get("role", "reasoning" if thought else "assistant")
        fits = (role == "reasoning") is thought and role not in ("tool", "activity")
        if not fits or not isinstance(message.get("content", ""), str):
            raise IllegalEvent(event["type"], f"message {event['messageId']} is of another kind")

    def _on_text(self, event: Event) -> None:
        self._texts.setdefault(event["messageId"], []).append(event["delta"])

    def _on_tool_start(self, event: Event) -> None:
        key = event["toolCallId"]
        owner = event.get("parentMessageId") or key
        self._tool_owner[key] = owner
        message = self._messages.setdefault(
            owner, {"id": owner, "role": "assistant", **attribution(event)}
        )
        calls: list[Any] = message.setdefault("toolCalls", [])
        if all(call["id"] != key for call in calls):
            function = {"name": event["toolCallName"], "arguments": ""}
            calls.append({"id": key, "type": "function", "function": function})

    def _on_tool_args(self, event: Event) -> None:
        self._arguments.setdefault(event["toolCallId"], []).append(event["delta"])

    def _on_tool_result(self, event: Event) -> None:
        key = event["messageId"]
        self._messages[key] = {
            "id": key,
            "role": "tool",
            "toolCallId": event["toolCallId"],
            "content": event["content"],
            **attribution(event),
        }

    def _on_state_snapshot(self, event: Event) -> None:
        self.state = event["snapshot"]

    def _on_state_delta(self, event: Event) -> None:
        before = {} if self.state is None else self.state
        self.state = patched(event["type"], before, event["delta"], bound=self.bound)

    def _on_messages_snapshot(self, event: Event) -> None:
        given = {message["id"]: message for message in copy.deepcopy(event["messages"])}
        roles = {message.get("role") for message in given.values()}
        kept = {"activity", "reasoning"} - roles
        for key, message in zip(list(self._messages), self.messages, strict=True):
            if key not in given and message.get("role") not in kept:
                del self._messages[key]
        self._messages.update(given)

    def _on_activity_snapshot(self, event: Event) -> None:
        key = event["messageId"]
        if key in self._messages and event.get("replace") is False:
            return
        self._messages[key] = {
            "id": key,
            "role": "activity",
            "activityType": event["activityType"],
            "content": event["content"],
            **attribution(event),
        }

    def _on_activity_delta(self, event: Event) -> None:
        message = self._messages.get(event["messageId"])
        if message is None or message.get("role") != "activity":
            return
        content, patch = message["content"], event["patch"]
        message["content"] = patched(event["type"], content, patch, bound=self.bound)

    def _join_text(self, key: str) -> None:
        pieces = self._texts.pop(key, None)
        if pieces and key in self._messages:
            message = self._messages[key]
            message["content"] = (message.get("content") or "") + "".join(pieces)

    def _join_arguments(self, key: str) -> None:
        pieces = self._arguments.pop(key, None)
        owner = self._messages.get(self._tool_owner.get(key, ""))
        for call in (owner or {}).get("toolCalls", ()) if pieces else ():
            if call["id"] == key:
                call["function"]["arguments"] += "".join(pieces or ())


_APPLY: Final = {
    "RUN_STARTED": Fold._on_run_started,
    "RUN_FINISHED": Fold._on_run_ended,
    "RUN_ERROR": Fold._on_run_ended,
    "TEXT_MESSAGE_START": Fold._on_text_start,
    "TEXT_MESSAGE_CONTENT": Fold._on_text,
    "REASONING_MESSAGE_START": Fold._on_thought_start,
    "REASONING_MESSAGE_CONTENT": Fold._on_text,
    "TOOL_CALL_START": Fold._on_tool_start,
    "TOOL_CALL_ARGS": Fold._on_tool_args,
    "TOOL_CALL_RESULT": Fold._on_tool_result,
    "STATE_SNAPSHOT": Fold._on_state_snapshot,
    "STATE_DELTA": Fold._on_state_delta,
    "MESSAGES_SNAPSHOT": Fold._on_messages_snapshot,
    "ACTIVITY_SNAPSHOT": Fold._on_activity_snapshot,
    "ACTIVITY_DELTA": Fold._on_activity_delta,
}
"""The method that applies each type; other types do not change the fold."""


class WaitingDeltas:
    """Deltas that wait to be joined, by item, with the marks of their events."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], tuple[Event, list[str], list[Any]]] = {}

    def add(self, event: Event, mark: Any) -> None:
        """Add an event of one of the types in `DELTAS`."""
        key = (event["type"], event[DELTAS[event["type"]]])
        _, deltas, marks = self._items.setdefault(key, (event, [], []))
        deltas.append(event["delta"])
        marks.append(mark)

    def take(self) -> list[tuple[Event, list[Any]]]:
        """Remove all; return one event for each item, with its marks, in order of their begin."""
        items, self._items = self._items, {}
        return [
            ((event if len(marks) == 1 else {**event, "delta": "".join(deltas)}), marks)
            for event, deltas, marks in items.values()
        ]


def merge_deltas(events: Iterable[tuple[Event, Any]]) -> Iterator[tuple[Event, list[Any]]]:
    """Join the deltas of one item; yield each event with the marks of its source events, in order.

    Deltas of different items may change places, which no reader can notice. All other events keep
    their order, and no delta is moved past another kind of event.
    """
    waiting = WaitingDeltas()
    for event, mark in events:
        if event["type"] in DELTAS:
            waiting.add(event, mark)
        else:
            yield from waiting.take()
            yield event, [mark]
    yield from waiting.take()
