"""What the tests ask of an SDK, and what they keep of what it tells: the same for each SDK."""

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from tests.sdk.reducer import TERMINAL, Conversation, Event, crc32, reduce


class Position(NamedTuple):
    """A place in a channel."""

    offset: int
    epoch: str


START = Position(0, "")
"""Asks for everything."""

GetToken = Callable[[], Awaitable[str]]
GetState = Callable[[], Awaitable[Position]]


class Ended(NamedTuple):
    """A code of the protocol and its sentence."""

    code: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What an SDK said when it was subscribed."""

    recoverable: bool
    positioned: bool
    recovered: bool
    was_recovering: bool
    position: Position


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One publication as the SDK handed it over."""

    event: Event
    offset: int
    """0 where it has none."""
    tags: dict[str, str] = field(default_factory=dict)


class RPCFailed(Exception):
    """The server answered an RPC with an error; below 100 the SDK's own, that no answer came."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class News:
    """Wakes those who wait for something that came."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def emit(self) -> None:
        """Say that something came."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool], *, seconds: float = 15.0) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: it does not come to hold.
        """
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Reader:
    """One subscription to a thread: all that its SDK told, and what a page would show of it."""

    def __init__(self, channel: str, news: News) -> None:
        self.channel = channel
        self.joins: list[Joined] = []
        """One for each time it was subscribed."""
        self.deliveries: list[Delivery] = []
        """Every publication that ever came."""
        self.stream: list[Event] = []
        """The events of the stream that is shown: those since it was last begun anew."""
        self.received: list[Joined | Delivery] = []
        """Subscriptions and publications in the order in which they came."""
        self.ends: list[Ended] = []
        """How it was unsubscribed."""
        self.errors: list[Ended] = []
        self._news = news

    def take_join(self, joined: Joined) -> None:
        """Note a subscription; an answer that continues nothing begins a new stream."""
        self.joins.append(joined)
        self.received.append(joined)
        if not joined.recovered:
            self.begin_anew()
        self._news.emit()

    def begin_anew(self) -> None:
        """Forget what is shown, because it is about to be told again."""
        self.stream.clear()

    def take(self, delivery: Delivery) -> None:
        """Note a publication."""
        self.deliveries.append(delivery)
        self.received.append(delivery)
        self.stream.append(delivery.event)
        self._news.emit()

    def take_end(self, ended: Ended) -> None:
        """Note that it is unsubscribed."""
        self.ends.append(ended)
        self._news.emit()

    @property
    def types(self) -> list[str]:
        """The types of the stream's events; content of one message counts once."""
        types: list[str] = []
        for event in self.stream:
            if event["type"] != "TEXT_MESSAGE_CONTENT" or types[-1:] != [event["type"]]:
                types.append(event["type"])
        return types

    @property
    def conversation(self) -> Conversation:
        """What the stream amounts to."""
        return reduce(self.stream)

    @property
    def answer(self) -> str:
        """The last thing the agent said."""
        return self.conversation.said("assistant")[-1]

    @property
    def offsets(self) -> list[int]:
        """The offsets that came, in order."""
        return [delivery.offset for delivery in self.deliveries if delivery.offset]

    @property
    def over(self) -> bool:
        """Whether the stream is at the end of a run."""
        return bool(self.stream) and self.stream[-1]["type"] in TERMINAL

    def length(self) -> int:
        """Return how many characters of content came so far, in all."""
        return sum(len(d.event.get("delta", "")) for d in self.deliveries)

    async def until_over(self, *, runs: int = 1) -> None:
        """Wait until the stream is at the end of so many runs."""
        await self._news.until(lambda: sum(e["type"] in TERMINAL for e in self.stream) >= runs)

    async def until_joined(self, times: int = 1) -> Joined:
        """Wait until it was subscribed so many times; return the last one."""
        await self._news.until(lambda: len(self.joins) >= times)
        return self.joins[-1]

    async def until_words(self, more: int = 1) -> None:
        """Wait for so many more words."""
        due = self._words() + more
        await self._news.until(lambda: self._words() >= due)

    async def until_ended(self) -> Ended:
        """Wait until it is unsubscribed."""
        await self._news.until(lambda: bool(self.ends))
        return self.ends[-1]

    def _words(self) -> int:
        return sum(d.event.get("delta", "").count(" ") for d in self.deliveries)

    def check_sequence(self, *, first: int | None = None) -> None:
        """Check by the gateway's numbers that nothing is missing and nothing came twice.

        Raises:
            AssertionError: something is missing, or came twice.
        """
        assert self.offsets == sorted(set(self.offsets)), "each offset comes once, and they rise"
        expected: dict[str, int] = {}
        for delivery in self.deliveries:
            if not delivery.tags:
                continue
            run, last = delivery.tags["run"], int(delivery.tags["seq"])
            begin = int(delivery.tags.get("from", last))
            assert begin == expected.get(run, first or begin), f"{run} goes on at {begin}"
            expected[run] = last + 1

    def check_digests(self) -> None:
        """Check that every digest that came is that of the text shown.

        Raises:
            AssertionError: one is not, or none came.
        """
        texts = self.conversation.texts
        checked = 0
        for delivery in self.deliveries:
            digest = delivery.tags.get("digest", "")
            if delivery.event["type"] == "TEXT_MESSAGE_END":
                assert digest == crc32(texts[delivery.event["messageId"]])
                checked += 1
            elif delivery.event["type"] in TERMINAL:
                for pair in digest.split():
                    key, _, value = pair.rpartition(":")
                    assert value == crc32(texts[key])
                    checked += 1
        assert checked, "no digest came"


class SdkClient(ABC):
    """One client of an SDK. Its actions are the SDK's own; nothing is mended on the way."""

    def __init__(self) -> None:
        self.news = News()
        self.connected: list[str] = []
        """The connection id of each time it was connected."""
        self.connecting: list[Ended] = []
        """Why it is connecting, each time."""
        self.disconnected: list[Ended] = []
        """Why it gave up, if it did."""
        self.errors: list[Ended] = []
        self.server_joins: dict[str, list[Joined]] = {}
        """Server-side subscriptions by name."""
        self.notices: list[tuple[str, Delivery]] = []
        """Publications on server-side subscriptions, with the channel."""
        self.server_received: dict[str, list[Joined | Delivery]] = {}
        """By server-side subscription, both in the order in which they came."""

    def take_join(self, channel: str, joined: Joined) -> None:
        """Note a server-side subscription."""
        self.server_joins.setdefault(channel, []).append(joined)
        self.server_received.setdefault(channel, []).append(joined)

    def take_notice(self, channel: str, delivery: Delivery) -> None:
        """Note a publication on a server-side subscription."""
        self.notices.append((channel, delivery))
        self.server_received.setdefault(channel, []).append(delivery)

    @property
    def closes(self) -> list[Ended]:
        """The close codes of the server that the SDK told of."""
        return [e for e in (*self.connecting, *self.disconnected) if e.code >= 3000]

    async def until_connected(self, times: int = 1) -> None:
        """Wait until it was connected so many times."""
        await self.news.until(lambda: len(self.connected) >= times)

    async def until_connecting(self, times: int = 1) -> None:
        """Wait until it began to connect so many times."""
        await self.news.until(lambda: len(self.connecting) >= times)

    async def until_disconnected(self) -> Ended:
        """Wait until it gave up."""
        await self.news.until(lambda: bool(self.disconnected))
        return self.disconnected[-1]

    async def start_run(
        self, message: str, *, agent: str = "tools", thread: str | None = None
    ) -> tuple[str, Position]:
        """Ask an agent; return the thread's channel and the position before the run."""
        given: dict[str, Any] = {"request_id": uuid.uuid4().hex, "agent": agent}
        if thread is not None:
            given["thread_id"] = thread
        started = await self.rpc("run.start", {**given, "message": message})
        position = started["position"]
        return f"thread:{started['thread_id']}", Position(position["offset"], position["epoch"])

    @abstractmethod
    async def connect(self) -> None:
        """Connect, or begin to."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Disconnect for good."""

    @abstractmethod
    async def set_token(self, token: str) -> None:
        """Use another token from the next attempt on."""

    @abstractmethod
    async def rpc(self, method: str, data: Any = None) -> Any:
        """Call a method and return its result.

        Raises:
            RPCFailed: the server answered with an error, or not at all.
        """

    @abstractmethod
    async def subscribe(
        self, channel: str, since: Position | None = None, *, get_state: GetState | None = None
    ) -> Reader:
        """Subscribe, from a position or from what the application's `get_state` says."""

    @abstractmethod
    async def unsubscribe(self, reader: Reader) -> None:
        """Unsubscribe."""

    @abstractmethod
    async def resubscribe(self, reader: Reader) -> None:
        """Subscribe again after `unsubscribe`."""


class OpenClient(Protocol):
    """Makes a client that is not connected yet, and ends it afterwards."""

    def __call__(
        self, url: str, token: str = "", *, get_token: GetToken | None = None
    ) -> AbstractAsyncContextManager[SdkClient]: ...
