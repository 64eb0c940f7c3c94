"""What coming back into a long answer that is still going on costs: folded, and as it was said.

The answer to a subscribe is folded. What it spares is read by `history`, which gives the events of
the same stretch as they were published, a thousand at a time.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop

from benchmarks import servers
from benchmarks.figures import Measure, Sample
from benchmarks.load import Client, Command, open_client, undisturbed
from benchmarks.workload import TOKEN_BYTES, Speech
from towpath.testing.server import ServerProcess

THREAD = "6f1c3a0e5b7d49828a64d0f3b92e7c15"
"""As long as the ids that are made up for people's threads, since every raw event carries it."""
PAGE = 1_000
"""Publications in one answer of `history`, at the most."""
TIMES_FEWER = 50
"""How many times fewer bytes the folded answer of plain text must have."""
SAY_SECONDS = 120.0
"""How long saying it all may take."""

WRONG = Measure("texts that differ from what was said", "texts", zero=True)
SEVERAL = Measure("folded answers of more than one frame", "answers", zero=True)
UNFIT = Measure("answers that are not what the position asks for", "answers", zero=True)
BULKY = Measure(f"folded answers of text not {TIMES_FEWER} x smaller", "answers", zero=True)

Event = dict[str, Any]


@dataclass(slots=True)
class Listener:
    """Counts what comes on one connection."""

    frames: int = 0
    size: int = 0
    last: int = 0
    """When the last message came, in nanoseconds."""

    def receive(self, message: bytes, now: int) -> None:
        """Take one message."""
        self.frames += 1
        self.size += len(message)
        self.last = now


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One way of getting a stretch of a thread, and what it took."""

    size: int
    frames: int
    publications: Sequence[Event]
    seconds: float
    texts: Mapping[str, str]
    """Of each message and each tool call's arguments."""
    recovered: bool = True

    def sample(self, title: str) -> Sample:
        """Return the figures."""
        return {
            Measure(f"{title}: bytes", "B"): self.size,
            Measure(f"{title}: WebSocket frames", "frames"): self.frames,
            Measure(f"{title}: publications", "publications"): len(self.publications),
            Measure(f"{title}: command to last byte", "ms"): self.seconds * 1e3,
        }


@dataclass(slots=True)
class Returns:
    """What all returns into one server came to."""

    sample: Sample = field(default_factory=dict)
    wrong: int = 0
    several: int = 0
    unfit: int = 0
    bulky: int = 0

    def add(self, title: str, *, folded: Taken, raw: Taken, text: str, plain: bool) -> None:
        """Judge one return against the raw events of the same stretch."""
        times = raw.size / folded.size
        self.sample |= folded.sample(f"{title}, folded") | raw.sample(f"{title}, raw")
        self.sample[Measure(f"{title}: ratio, bytes", "raw ÷ folded")] = times
        self.sample[Measure(f"{title}: ratio, time", "raw ÷ folded")] = raw.seconds / folded.seconds
        spoken = (text for key, text in raw.texts.items() if not key.startswith("call-"))
        self.wrong += folded.texts != raw.texts or "".join(spoken) != text
        self.several += folded.frames != 1
        self.unfit += not folded.recovered
        self.bulky += plain and times < TIMES_FEWER


@dataclass(frozen=True, slots=True)
class Resume:
    """A run that is going on, and readers who come from the start and from its middle."""

    name = "resume"
    words: int
    calls: int
    """Of tools, in the run that is not plain text."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""
        return (
            f"a run that has said {self.words} words of {TOKEN_BYTES} bytes and goes on, and one "
            f"that called {self.calls} tools meanwhile; one reader of each comes without a "
            "position, one with a position in the middle"
        )

    def sample(self) -> Sample:
        """Measure once."""
        with servers.gateway() as (running, process):
            return uvloop.run(self._load(running, process))

    async def _load(self, running: servers.Running, process: ServerProcess) -> Sample:
        returns = Returns()
        await self._measure(running, process, Speech(words=100, stays=True), Returns(), "warm")
        with undisturbed():
            for title, calls in (("text", 0), ("text and tools", self.calls)):
                workload = Speech(words=self.words, calls=calls, stays=True)
                await self._measure(running, process, workload, returns, title)
        return {
            WRONG: returns.wrong,
            SEVERAL: returns.several,
            UNFIT: returns.unfit,
            BULKY: returns.bulky,
            **returns.sample,
        }

    async def _measure(
        self,
        running: servers.Running,
        process: ServerProcess,
        workload: Speech,
        returns: Returns,
        title: str,
    ) -> None:
        """Have it said, then come back into it, each time on a connection of its own."""
        token = process.token(title.replace(" ", "-"))
        async with asyncio.timeout(SAY_SECONDS):
            await _say(running.port, token, workload)
        whole = await _raw(running.port, token, "", 0)
        middle = _offset_of(whole.publications, workload.word(workload.words // 2))
        epoch = (await _folded(running.port, token, "", 0))[0]
        for where, offset, text in (
            ("from the start", 0, workload.text),
            ("from the middle", middle, workload.text[workload.words // 2 * workload.size :]),
        ):
            _, folded = await _folded(running.port, token, epoch if offset else "", offset)
            raw = await _raw(running.port, token, epoch, offset)
            returns.add(
                f"{title}, {where}", folded=folded, raw=raw, text=text, plain=not workload.calls
            )


async def _say(port: int, token: str, workload: Speech) -> None:
    """Have an agent say it, and wait until the last word has come."""
    complete = asyncio.Event()
    last = workload.word(workload.words).encode() + b'"'

    def receive(message: bytes, now: int) -> None:
        if last in message:
            complete.set()

    client = await open_client(port, token, receive)
    await client.create(THREAD)
    await client.read(THREAD)
    await client.start("speech", THREAD, workload.message)
    await complete.wait()
    await client.close()


async def _folded(port: int, token: str, epoch: str, offset: int) -> tuple[str, Taken]:
    """Come back with a position, and return the epoch and what the answer took."""
    listener = Listener()
    client = await open_client(port, token, listener.receive)
    before, began = (listener.frames, listener.size), time.monotonic_ns()
    position = {"recover": True, "offset": offset, "epoch": epoch}
    (answer,) = await client.ask(("subscribe", {"channel": f"thread:{THREAD}", **position}))
    result = answer["subscribe"]
    publications = result.get("publications", [])
    taken = Taken(
        size=listener.size - before[1],
        frames=listener.frames - before[0],
        publications=publications,
        seconds=(listener.last - began) / 1e9,
        texts=texts_of(publications),
        recovered=result["recovered"],
    )
    await client.close()
    return result["epoch"], taken


async def _raw(port: int, token: str, epoch: str, offset: int) -> Taken:
    """Read what came after a position as it was published."""
    listener = Listener()
    client = await open_client(port, token, listener.receive)
    publications: list[Event] = []
    before, began = (listener.frames, listener.size), time.monotonic_ns()
    while len(page := await _page(client, epoch, offset)) > 0:
        publications += page
        offset = page[-1]["offset"]
        if len(page) < PAGE:
            break
    taken = Taken(
        size=listener.size - before[1],
        frames=listener.frames - before[0],
        publications=publications,
        seconds=(listener.last - began) / 1e9,
        texts=texts_of(publications),
    )
    await client.close()
    return taken


async def _page(client: Client, epoch: str, offset: int) -> list[Event]:
    since = {"offset": offset, "epoch": epoch}
    request: Command = ("history", {"channel": f"thread:{THREAD}", "limit": PAGE, "since": since})
    (answer,) = await client.ask(request)
    page: list[Event] = answer["history"]["publications"]
    return page


def _offset_of(publications: Sequence[Event], word: str) -> int:
    """Return where a word was said."""
    return next(
        int(publication["offset"])
        for publication in publications
        if publication["data"].get("delta") == word
    )


def texts_of(publications: Sequence[Event]) -> dict[str, str]:
    """Return the text of each message, and of each tool call's arguments, in their order."""
    texts: dict[str, str] = defaultdict(str)
    for publication in publications:
        event = publication["data"]
        match event["type"]:
            case "MESSAGES_SNAPSHOT":
                for message in event["messages"]:
                    if message["role"] != "assistant":
                        continue
                    if message.get("content"):
                        texts[message["id"]] = message["content"]
                    for call in message.get("toolCalls", ()):
                        texts[call["id"]] = call["function"]["arguments"]
            case "TEXT_MESSAGE_CONTENT":
                texts[event["messageId"]] += event["delta"]
            case "TOOL_CALL_ARGS":
                texts[event["toolCallId"]] += event["delta"]
    return dict(texts)


FULL = Resume(words=20_000, calls=20)
QUICK = Resume(words=5_000, calls=2)
