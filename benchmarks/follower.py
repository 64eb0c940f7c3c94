"""Somebody who follows one run in one thread, however often the line is cut.

It does what an SDK and a page do: it takes over the offset of each publication, comes back with
the last one, and puts the text together. Beside that it counts the events of the run by their
numbers: a publication that was merged says `from` which to `seq` which it holds.

Source: WIRE sections 5 and 6.
"""

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from benchmarks.arrivals import Arrivals
from towpath.events.digest import digest

FRAME_EVENTS = 4
"""Events of a speech beside its words: run and message begin and end."""
_PUSH = b'{"push":{"channel":"thread:'
_REPLY = b'{"id":'


@dataclass(slots=True)
class Follower:
    """What came of one run."""

    thread: str
    arrivals: Arrivals
    epoch: str = ""
    offset: int = 0
    """The position it comes back with."""
    answered: int = 0
    """When the last answer to a subscribe came, in nanoseconds."""
    answers: int = 0
    merged: int = 0
    """Publications that held several events."""
    refused: int = 0
    """Positions it came back with, and got another answer than what followed them."""
    ended: int = 0
    """Subscriptions that the server ended."""
    mismatches: int = 0
    """Messages whose text does not have the digest their end came with."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the terminal event."""
    _texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def text(self) -> str:
        """All that was said so far."""
        return "".join(map("".join, self._texts.values()))

    @property
    def subscription(self) -> tuple[str, dict[str, Any]]:
        """The command that begins, or takes up again where it was."""
        position = {"recover": True, "offset": self.offset, "epoch": self.epoch}
        return "subscribe", {
            "channel": f"thread:{self.thread}",
            **(position if self.epoch else {}),
        }

    def receive(self, message: bytes, now: int) -> None:
        """Take one message."""
        for line in message.split(b"\n"):
            if line.startswith(_PUSH):
                push = json.loads(line)["push"]
                self.ended += "unsubscribe" in push
                if "pub" in push:
                    self._take(push["pub"])
            elif line.startswith(_REPLY) and b'"subscribe":' in line:
                self._begin(json.loads(line)["subscribe"], now)

    def _begin(self, result: dict[str, Any], now: int) -> None:
        self.answered = now
        self.answers += 1
        self.refused += bool(self.epoch) and not result["recovered"]
        for publication in result.get("publications", ()):
            self._take(publication)
        self.epoch, self.offset = result["epoch"], result["offset"]

    def _take(self, publication: dict[str, Any]) -> None:
        self.offset = publication.get("offset", self.offset)
        event, tags = publication["data"], publication.get("tags")
        if tags is None or "seq" not in tags:
            return
        self.merged += "from" in tags
        last = int(tags["seq"])
        for number in range(int(tags.get("from", last)), last + 1):
            self.arrivals.count(number)
        match event["type"]:
            case "TEXT_MESSAGE_CONTENT":
                self._texts[event["messageId"]].append(event["delta"])
            case "TEXT_MESSAGE_END":
                text = "".join(self._texts[event["messageId"]])
                self.mismatches += digest(text) != tags.get("digest")
            case "RUN_FINISHED" | "RUN_ERROR":
                self.over.set()
