"""An AG-UI client's reducer, written apart from `Fold`: a list, no brackets, nothing postponed."""

import copy
import json
from collections.abc import Iterable
from typing import Any

import jsonpatch
from ag_ui_validate import EVENT_TYPES, Report, create_validator

Event = dict[str, Any]


class Client:
    """What a screen shows: `messages` in order, and `state`."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.state: Any = None

    def find(self, key: str | None) -> dict[str, Any] | None:
        return next((message for message in self.messages if message["id"] == key), None)

    def take(self, event: Event) -> None:
        event = copy.deepcopy(event)
        kind = event["type"]
        if kind == "RUN_STARTED":
            for message in event.get("input", {}).get("messages", []):
                if self.find(message["id"]) is None:
                    self.messages.append(message)
        elif kind in ("TEXT_MESSAGE_START", "REASONING_MESSAGE_START"):
            if self.find(event["messageId"]) is None:
                role = event.get("role", "assistant")
                self.messages.append({"id": event["messageId"], "role": role, **owner(event)})
        elif kind in ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"):
            if (message := self.find(event["messageId"])) is not None:
                message["content"] = message.get("content", "") + event["delta"]
        elif kind == "TOOL_CALL_START":
            self.start_call(event)
        elif kind == "TOOL_CALL_ARGS":
            for message in self.messages:
                for call in message.get("toolCalls", []):
                    if call["id"] == event["toolCallId"]:
                        call["function"]["arguments"] += event["delta"]
        elif kind == "TOOL_CALL_RESULT":
            names = ("toolCallId", "content")
            kept = {name: event[name] for name in names}
            self.put({"id": event["messageId"], "role": "tool", **kept, **owner(event)})
        elif kind == "STATE_SNAPSHOT":
            self.state = event["snapshot"]
        elif kind == "STATE_DELTA":
            before = {} if self.state is None else self.state
            self.state = jsonpatch.apply_patch(before, event["delta"])
        elif kind == "MESSAGES_SNAPSHOT":
            self.snapshot(event["messages"])
        elif kind == "ACTIVITY_SNAPSHOT":
            if self.find(event["messageId"]) is None or event.get("replace", True):
                kept = {name: event[name] for name in ("activityType", "content")}
                self.put({"id": event["messageId"], "role": "activity", **kept, **owner(event)})
        elif kind == "ACTIVITY_DELTA":
            message = self.find(event["messageId"])
            if message is not None and message["role"] == "activity":
                message["content"] = jsonpatch.apply_patch(message["content"], event["patch"])

    def start_call(self, event: Event) -> None:
        home = event.get("parentMessageId") or event["toolCallId"]
        message = self.find(home)
        if message is None:
            message = {"id": home, "role": "assistant", **owner(event)}
            self.messages.append(message)
        calls = message.setdefault("toolCalls", [])
        if event["toolCallId"] not in [call["id"] for call in calls]:
            function = {"name": event["toolCallName"], "arguments": ""}
            calls.append({"id": event["toolCallId"], "type": "function", "function": function})

    def put(self, message: dict[str, Any]) -> None:
        ids = [one["id"] for one in self.messages]
        if message["id"] in ids:
            self.messages[ids.index(message["id"])] = message
        else:
            self.messages.append(message)

    def snapshot(self, given: list[dict[str, Any]]) -> None:
        ids = [message["id"] for message in given]
        spared = {"activity", "reasoning"} - {message["role"] for message in given}
        self.messages = [
            message
            for message in self.messages
            if message["id"] in ids or message["role"] in spared
        ]
        for message in given:
            self.put(message)

    def shows(self) -> str:
        """Return everything on the screen, comparable."""
        shown = [{**message, "content": message.get("content", "")} for message in self.messages]
        return json.dumps([shown, self.state], sort_keys=True, indent=1)


def owner(event: Event) -> Event:
    return {"subagentRunId": event["subagentRunId"]} if event.get("subagentRunId") else {}


def screen(events: Iterable[Event]) -> str:
    """Return what a client shows after these events."""
    client = Client()
    for event in events:
        client.take(event)
    return client.shows()


def judged(events: Iterable[Event]) -> Report:
    """Return what AG-UI's validator says about a stream."""
    validator = create_validator()
    for event in events:
        validator.feed(copy.deepcopy(event))
    validator.finalize()
    return validator.report()


def errors_of(events: Iterable[Event]) -> list[str]:
    """Return the validator's errors, and whatever broke in it.

    It refuses types it does not know, which are legal, and arguments that are no JSON (AGUI204),
    which a run that broke off leaves behind.
    """
    report = judged(event for event in events if event["type"] in EVENT_TYPES)
    found = [
        f"{one.event_index} {one.message}"
        for one in report.diagnostics
        if one.severity == "error" and one.rule != "AGUI204"
    ]
    return found + report.internal_errors
