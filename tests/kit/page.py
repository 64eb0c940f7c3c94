"""What a person would see of a thread's events, made from AG-UI's description alone.

It shares nothing with the gateway's own fold, so that one can be held against the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]

TERMINAL = frozenset({"RUN_FINISHED", "RUN_ERROR"})
ITEM = {
    "TEXT_MESSAGE_CONTENT": "messageId",
    "REASONING_MESSAGE_CONTENT": "messageId",
    "TOOL_CALL_ARGS": "toolCallId",
}
"""Events that carry a piece of text, and the field that names what it belongs to."""


class Page:
    """Texts of messages, thoughts and results, and the arguments of calls, by their ids."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._texts: dict[str, str] = {}
        self._thoughts: set[str] = set()
        self.faults: list[str] = []
        """What was not legal, one sentence each."""
        for event in events:
            self.feed(event)

    @property
    def texts(self) -> dict[str, str]:
        """All that is not empty."""
        return {key: text for key, text in self._texts.items() if text}

    def text(self, key: str) -> str:
        """Return the text of one item; empty where there is none."""
        return self._texts.get(key, "")

    def feed(self, event: Event) -> None:
        """Take one event."""
        kind = event["type"]
        if kind == "RUN_STARTED":
            self._show((event.get("input") or {}).get("messages", ()))
        elif kind == "MESSAGES_SNAPSHOT":
            self._replace(event["messages"])
        elif kind == "TOOL_CALL_RESULT":
            self._texts[event["messageId"]] = event["content"]
        elif kind in ("TEXT_MESSAGE_START", "REASONING_MESSAGE_START", "TOOL_CALL_START"):
            key = event["toolCallId" if kind == "TOOL_CALL_START" else "messageId"]
            if key in self._texts:
                self.faults.append(f"{kind} for {key}, which is there already")
            self._texts[key] = ""
            if kind == "REASONING_MESSAGE_START":
                self._thoughts.add(key)
        elif kind in ITEM:
            key = event[ITEM[kind]]
            if key not in self._texts:
                self.faults.append(f"{kind} for {key}, which nothing began")
            self._texts[key] = self._texts.get(key, "") + event["delta"]

    def _replace(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Show these messages only; thoughts stay where none is among them."""
        thinks = any(message.get("role") == "reasoning" for message in messages)
        kept = set() if thinks else self._thoughts
        self._texts = {key: text for key, text in self._texts.items() if key in kept}
        self._show(messages)

    def _show(self, messages: Iterable[Mapping[str, Any]]) -> None:
        for message in messages:
            if message.get("role") == "reasoning":
                self._thoughts.add(message["id"])
            if isinstance(message.get("content"), str):
                self._texts[message["id"]] = message["content"]
            for call in message.get("toolCalls") or ():
                self._texts[call["id"]] = call["function"]["arguments"]


def difference(shown: Mapping[str, str], due: Mapping[str, str]) -> str:
    """Return in one phrase where two pages differ; empty where they do not."""
    for key in (*due, *shown):
        one, other = shown.get(key, ""), due.get(key, "")
        if one != other:
            same = next(
                (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
                min(len(one), len(other)),
            )
            return f"{key} has {one[same : same + 20]!r} at {same} instead of {other[same:][:20]!r}"
    return ""
