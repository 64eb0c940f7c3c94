"""The snapshot: the events that bring a new reader to the current state, also during a run.

A snapshot starts a new legal stream. It has RUN_STARTED, then the state and the settled messages as
snapshot events. From the first message with an open item on, it has the events that rebuild each
message, with every text in one delta. The following events of the log continue that stream. A
message is either in MESSAGES_SNAPSHOT or rebuilt by events, and keeps its place in the
conversation. If the agent's own MESSAGES_SNAPSHOT dropped an open item, the item is opened before
ours, which drops it again.

Source: WIRE section 9.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from towpath.events.types import Event, Message

Brackets = Mapping[tuple[str, str], Event]
"""The open brackets: (kind, name) to the event that opened each, in order."""


def compose(
    *,
    started: Event,
    ended: Event | None,
    state: Any,
    messages: list[Message],
    brackets: Brackets,
    tool_owner: Mapping[str, str],
    max_bytes: int | None,
) -> list[Event]:
    """Return the snapshot of a fold's state.

    Args:
        started: the latest RUN_STARTED.
        ended: its terminal event; None while the run is active.
        state: the shared state; None without a state.
        messages: the conversation, oldest first.
        brackets: the open brackets.
        tool_owner: the message of each tool call.
        max_bytes: bound on the text of the messages in MESSAGES_SNAPSHOT; None for no bound.
    """
    fluid = _first_open(messages, brackets, tool_owner)
    events: list[Event] = [{key: value for key, value in started.items() if key != "input"}]
    if state is not None:
        events.append({"type": "STATE_SNAPSHOT", "snapshot": state})
    events.extend(
        opener
        for (bracket, _), opener in brackets.items()
        if bracket in ("subagent", "step", "reasoning")
    )
    dropped = _dropped(messages, brackets)
    events.extend(dropped)
    settled = _newest(messages[:fluid], max_bytes)
    if settled or dropped:
        events.append({"type": "MESSAGES_SNAPSHOT", "messages": settled})
    for message in messages[fluid:]:
        events.extend(_rebuild(message, brackets))
    if ended is not None:
        events.append(ended)
    return events


def attribution(source: Mapping[str, Any]) -> Event:
    """Return the sub-agent attribution of an event or message, if it has one."""
    return {"subagentRunId": source["subagentRunId"]} if source.get("subagentRunId") else {}


def _first_open(messages: list[Message], brackets: Brackets, tool_owner: Mapping[str, str]) -> int:
    """Return the index of the first message with an open item."""
    touched = {name for bracket, name in brackets if bracket in ("text", "thought")}
    touched |= {tool_owner[name] for bracket, name in brackets if bracket == "tool"}
    for index, message in enumerate(messages):
        if message["id"] in touched:
            return index
    return len(messages)


def _dropped(messages: list[Message], brackets: Brackets) -> list[Event]:
    """Return the openers of open items whose messages an agent's snapshot dropped."""
    shown = {message["id"] for message in messages}
    calls = {call["id"] for message in messages for call in message.get("toolCalls") or ()}
    here = {"text": shown, "thought": shown, "tool": calls}
    return [
        opener
        for (bracket, name), opener in brackets.items()
        if bracket in here and name not in here[bracket]
    ]


def _rebuild(message: Message, brackets: Brackets) -> Iterator[Event]:
    """Yield the events that rebuild this message, with joined deltas; open items stay open."""
    key, owner = message["id"], attribution(message)
    match message.get("role"):
        case "tool":
            yield {
                "type": "TOOL_CALL_RESULT",
                "messageId": key,
                "toolCallId": message["toolCallId"],
                "content": message["content"],
                "role": "tool",
                **owner,
            }
        case "activity":
            yield {
                "type": "ACTIVITY_SNAPSHOT",
                "messageId": key,
                "activityType": message["activityType"],
                "content": message["content"],
                **owner,
            }
        case "reasoning":
            yield from _rebuild_text(message, brackets, "thought", "REASONING_MESSAGE")
        case _:
            calls = message.get("toolCalls") or ()
            if "content" in message or ("text", key) in brackets or not calls:
                yield from _rebuild_text(message, brackets, "text", "TEXT_MESSAGE")
            for call in calls:
                yield from _rebuild_call(call, message, brackets)


def _rebuild_text(
    message: Message, brackets: Brackets, bracket: str, prefix: str
) -> Iterator[Event]:
    key, owner = message["id"], attribution(message)
    opener = brackets.get((bracket, key))
    name = {"name": message["name"]} if "name" in message else {}
    start = {"type": f"{prefix}_START", "messageId": key, "role": message["role"], **name, **owner}
    yield opener or start
    if message.get("content"):
        delta = message["content"]
        yield {"type": f"{prefix}_CONTENT", "messageId": key, "delta": delta, **owner}
    if opener is None:
        yield {"type": f"{prefix}_END", "messageId": key, **owner}


def _rebuild_call(call: Mapping[str, Any], message: Message, brackets: Brackets) -> Iterator[Event]:
    key, function, owner = call["id"], call["function"], attribution(message)
    opener = brackets.get(("tool", key))
    yield opener or {
        "type": "TOOL_CALL_START",
        "toolCallId": key,
        "toolCallName": function["name"],
        "parentMessageId": message["id"],
        **owner,
    }
    if function["arguments"]:
        delta = function["arguments"]
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": key, "delta": delta, **owner}
    if opener is None:
        yield {"type": "TOOL_CALL_END", "toolCallId": key, **owner}


def _newest(messages: list[Message], max_bytes: int | None) -> list[Message]:
    """Return the newest messages whose text fits into `max_bytes`, at least one, oldest first."""
    size = 0
    for index in range(len(messages) - 1, -1, -1):
        size += _size(messages[index])
        if max_bytes is not None and size > max_bytes and index < len(messages) - 1:
            return messages[index + 1 :]
    return messages


def _size(message: Message) -> int:
    calls = message.get("toolCalls", ())
    texts = [str(message.get("content", "")), *(call["function"]["arguments"] for call in calls)]
    return sum(len(text.encode(errors="replace")) for text in texts)
