"""Users who continue to work while their server is killed repeatedly.

Each has an SDK client, which reconnects by itself. A request without a reply is repeated with the
same request id until it has one. All publications and replies are kept, to be checked in the end.
"""

import asyncio
import itertools
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from tests.kit.history import Decided, Given, Reading, StartRequest, Stopped
from tests.kit.history import Joined as Answered
from tests.kit.page import TERMINAL, Page
from tests.recordings import NAMES
from tests.sdk.client import START, Delivery, Joined, Reader, RPCFailed, SdkClient
from towpath import codes
from towpath.runs.interrupts import shown_digest

AGAIN = frozenset({codes.TEMPORARY.number, codes.TOO_MANY_REQUESTS.number})
"""Errors of the server after which a request is repeated; those below 100 are the SDK's own."""
EVER = 3600.0
"""How long users wait, in seconds: the code that kills the servers has the real deadline."""

ACTIONS = ("tell", "retell", "stop", "queue", "withdraw", "interrupt", "buy", "hurry")
"""The actions of users."""


class Refused(Exception):
    """The server refused a request for good."""


class Conversation:
    """One thread, as its user's client reads it."""

    def __init__(self, thread: str, reader: Reader) -> None:
        self.thread = thread
        self.reader = reader
        self._ended: set[str] = set()
        self._begun: set[str] = set()
        self._looked = 0

    @property
    def channel(self) -> str:
        """The thread's channel."""
        return f"thread:{self.thread}"

    def ended(self, run: str) -> bool:
        """Whether the reader has received the end of a run."""
        self._look()
        return run in self._ended

    def speaks(self, run: str) -> bool:
        """Whether the reader has received text of a run, or its end."""
        self._look()
        return run in self._begun

    def at_work(self, since: int) -> bool:
        """Whether its reader is in the middle of a run, after this many publications."""
        given = self.reader.deliveries
        return len(given) > since and given[-1].event["type"] not in TERMINAL

    def _look(self) -> None:
        for one in itertools.islice(self.reader.deliveries, self._looked, None):
            self._looked += 1
            kind = one.event["type"]
            if kind in TERMINAL:
                self._ended.add(one.tags.get("run", ""))
            if kind in TERMINAL or kind == "TEXT_MESSAGE_CONTENT":
                self._begun.add(one.tags.get("run", ""))


class Person:
    """A user with a client, perhaps a second device, and some threads."""

    def __init__(self, name: str, client: SdkClient, chance: random.Random) -> None:
        self.name = name
        self.client = client
        self.conversations: list[Conversation] = []
        self.devices: list[tuple[str, SdkClient, list[Reader]]] = []
        """All devices: a name, the client and its readers."""
        self.starts: list[StartRequest] = []
        self.stopped: list[Stopped] = []
        self.decided: list[Decided] = []
        self.wanted: str | None = None
        """The preferred action, if any."""
        self._chance = chance
        self._numbers = itertools.count(1)

    async def settle_in(self, conversations: int, devices: Sequence[SdkClient]) -> None:
        """Connect, create threads, and read them on every device."""
        await self.client.connect()
        threads = [(await self._insist("thread.create"))["thread_id"] for _ in range(conversations)]
        readers = await self._read("main", self.client, threads)
        self.conversations = [Conversation(*pair) for pair in zip(threads, readers, strict=True)]
        for number, client in enumerate(devices):
            await client.connect()
            await self._read(f"device {number}", client, threads)

    async def join_in(self, name: str, client: SdkClient, delay: float) -> None:
        """Read everything on one more device, after a delay and to the end."""
        await asyncio.sleep(delay)
        await client.connect()
        await self._read(name, client, [conversation.thread for conversation in self.conversations])

    async def _read(self, name: str, client: SdkClient, threads: Sequence[str]) -> list[Reader]:
        """Subscribe to threads, from the start or without a position."""
        since = START if self._chance.random() < 0.5 else None
        readers = [await client.subscribe(f"thread:{thread}", since) for thread in threads]
        self.devices.append((f"{self.name}'s {name}", client, readers))
        return readers

    async def live(self, conversation: Conversation, until: asyncio.Event) -> None:
        """Run one request after the other in a thread; every started run is brought to its end."""
        while not until.is_set():
            what = self._chance.choice(ACTIONS)
            if self.wanted is not None and self._chance.random() < 0.8:
                what = self.wanted
            await getattr(self, f"_{what}")(conversation)

    def readings(self) -> list[Reading]:
        """Return what every device received."""
        found = []
        for name, client, readers in self.devices:
            for reader in readers:
                received = [_plain(one) for one in reader.received]
                found.append(self._reading(name, reader.channel, received))
            found.append(
                self._reading(name, "user", map(_plain, client.server_received.get("user", ())))
            )
        return found

    def _reading(self, name: str, channel: str, received: Any) -> Reading:
        return Reading(reader=name, owner=self.name, channel=channel, received=tuple(received))

    async def _insist(self, method: str, **data: Any) -> Any:
        """Send a request under one request id until it is answered.

        Raises:
            Refused: the answer is a permanent error.
        """
        request = {"request_id": uuid.uuid4().hex, **data}
        while True:
            try:
                return await self.client.rpc(method, request)
            except RPCFailed as error:
                if error.code >= 100 and error.code not in AGAIN:
                    raise Refused(str(error)) from None
            except TimeoutError:
                pass  # The JavaScript SDK's process had no answer either.
            await asyncio.sleep(0.02)

    async def _start(self, conversation: Conversation, agent: str, words: str) -> str | None:
        """Start a run with a new message; return the run, or None if it is refused."""
        message = f"{words} #{next(self._numbers)}"
        try:
            started = await self._insist(
                "run.start", agent=agent, thread_id=conversation.thread, message=message
            )
        except Refused:
            run = None
        else:
            run = str(started["run_id"])
        self.starts.append(
            StartRequest(
                owner=self.name,
                channel=conversation.channel,
                message=message,
                run=run,
                refused=run is None,
            )
        )
        return run

    async def _until(
        self, conversation: Conversation, holds: Callable[[str], bool], *runs: str | None
    ) -> None:
        await self.client.news.until(lambda: all(holds(run) for run in runs if run), seconds=EVER)

    async def _cancel(self, run: str | None) -> None:
        if run is None:
            return
        result = await self._insist("run.cancel", run_id=run)
        self.stopped.append(Stopped(owner=self.name, run=run, status=result["status"]))

    async def _tell(self, conversation: Conversation) -> None:
        run = await self._start(conversation, "reject", f"tell {self._chance.randrange(5, 120)}")
        await self._until(conversation, conversation.ended, run)

    async def _retell(self, conversation: Conversation) -> None:
        run = await self._start(conversation, self._chance.choice(NAMES), "again")
        await self._until(conversation, conversation.ended, run)

    async def _stop(self, conversation: Conversation) -> None:
        run = await self._start(conversation, "reject", "tell 300")
        await self._until(conversation, conversation.speaks, run)
        await self._cancel(run)
        await self._until(conversation, conversation.ended, run)

    async def _queue(self, conversation: Conversation) -> None:
        runs = [await self._start(conversation, "queue", "tell 15") for _ in range(3)]
        await self._until(conversation, conversation.ended, *runs)

    async def _withdraw(self, conversation: Conversation) -> None:
        runs = [await self._start(conversation, "queue", "tell 40") for _ in range(2)]
        await self._cancel(runs[-1])
        await self._until(conversation, conversation.ended, *runs)

    async def _interrupt(self, conversation: Conversation) -> None:
        first = await self._start(conversation, "interrupt", "tell 300")
        await self._until(conversation, conversation.speaks, first)
        second = await self._start(conversation, "interrupt", "tell 10")
        await self._until(conversation, conversation.ended, first, second)

    async def _buy(self, conversation: Conversation) -> None:
        await self._answer(
            conversation, await self._start(conversation, "tools", "buy tea"), wait=0
        )

    async def _hurry(self, conversation: Conversation) -> None:
        wait = self._chance.choice((0, 0.35))
        await self._answer(conversation, await self._start(conversation, "hasty", "now"), wait=wait)

    async def _answer(self, conversation: Conversation, run: str | None, *, wait: float) -> None:
        """Answer the interrupt of a run, if there is one, after a delay."""
        if run is None:
            return
        await self._until(conversation, conversation.ended, run)
        await asyncio.sleep(wait)
        for row in (await self._insist("run.get", run_id=run))["interrupts"]:
            call = row["asked"].get("toolCallId")
            shown = Page(conversation.reader.stream).text(call) if call is not None else None
            decision = {
                "run_id": run,
                "interrupt_id": row["interrupt_id"],
                "decision": self._chance.choice(("approve", "refuse")),
                **({"digest": shown_digest(shown)} if shown is not None else {}),
            }
            answer = await self._insist("run.approve", **decision)
            self.decided.append(
                Decided(
                    owner=self.name,
                    run=run,
                    interrupt=row["interrupt_id"],
                    decision=decision["decision"],
                    status=answer["status"],
                    continuation=answer.get("run_id"),
                )
            )
            await self._until(conversation, conversation.ended, answer.get("run_id"))


def _plain(received: Joined | Delivery) -> Answered | Given:
    """Return what an SDK reported as an entry of a history."""
    if isinstance(received, Joined):
        offset, epoch = received.position
        return Answered(recovered=received.recovered, epoch=epoch, offset=offset)
    return Given(event=received.event, offset=received.offset, tags=received.tags)
