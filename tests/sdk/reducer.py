"""What a page makes of AG-UI events: the conversation, and proof that it is the one that was said.

It is written from the protocol's description alone, apart from the gateway's own fold, and takes
nothing on trust: content of a message that is not open is an error, not a guess.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Event = Mapping[str, Any]

TERMINAL = frozenset({"RUN_FINISHED", "RUN_ERROR"})


def crc32(text: str) -> str:
    """Return the CRC-32 of a text's UTF-8 bytes, 8 hex digits; bit by bit, without zlib."""
    state = 0xFFFFFFFF
    for byte in text.encode():
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0xEDB88320 if state & 1 else 0)
    return f"{state ^ 0xFFFFFFFF:08x}"


class Conversation:
    """Messages by id, in order, with the text a person would see."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        """Text of every message that has one."""
        self.roles: dict[str, str] = {}
        """Who says it."""
        self.open: set[str] = set()
        """Messages that were started and not ended."""
        self.active = False
        """Whether a run is going on."""

    def said(self, role: str) -> list[str]:
        """Return the texts of one role, oldest first."""
        return [text for key, text in self.texts.items() if self.roles[key] == role]

    def feed(self, event: Event) -> None:
        """Take one event.

        Raises:
            AssertionError: it is not legal here.
        """
        kind = event["type"]
        if kind == "RUN_STARTED":
            assert not self.active, "a run starts inside a run"
            self.active = True
            self._add((event.get("input") or {}).get("messages", ()))
            return
        assert self.active, f"{kind} outside a run"
        if kind in TERMINAL:
            assert kind == "RUN_ERROR" or not self.open, "the run ends with messages open"
            self.active = False
            self.open.clear()
        elif kind == "MESSAGES_SNAPSHOT":
            self.texts.clear()
            self.roles.clear()
            self._add(event["messages"])
        elif kind == "TEXT_MESSAGE_START":
            assert event["messageId"] not in self.texts, "a message starts twice"
            self.open.add(event["messageId"])
            self.texts[event["messageId"]] = ""
            self.roles[event["messageId"]] = event["role"]
        elif kind == "TEXT_MESSAGE_CONTENT":
            assert event["messageId"] in self.open, "content of a message that is not open"
            self.texts[event["messageId"]] += event["delta"]
        elif kind == "TEXT_MESSAGE_END":
            self.open.remove(event["messageId"])

    def _add(self, messages: Iterable[Mapping[str, Any]]) -> None:
        for message in messages:
            if isinstance(message.get("content"), str):
                self.texts[message["id"]] = message["content"]
                self.roles[message["id"]] = message["role"]


def reduce(events: Iterable[Event]) -> Conversation:
    """Return the conversation that a stream of events amounts to."""
    conversation = Conversation()
    for event in events:
        conversation.feed(event)
    return conversation
