"""Giving a reader what it missed: all its channels, and nothing that is nobody's any more."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import msgspec

from towpath import codes
from towpath.auth.policy import may_read
from towpath.channels import Channel, thread_channel
from towpath.codes import CloseCode
from towpath.delivery.catch_up import catch_up
from towpath.delivery.hub import Hub
from towpath.delivery.outbox import Outbox
from towpath.delivery.recovery import Recovery
from towpath.delivery.subscriber import Subscriber
from towpath.errors import StorageError
from towpath.identity import Principal
from towpath.log.broker import Append, Item, Write, write
from towpath.runs.store import ThreadStore
from towpath.telemetry import Telemetry
from towpath.testing.memory_broker import MemoryBroker

MIA = Principal(tenant="acme", user="mia")
ONE, TWO = (thread_channel("acme", "mia", name) for name in ("one", "two"))


class SlowRecovery(Recovery):
    """Has something happen while it reads."""

    meanwhile: Callable[[Channel], Any] = staticmethod(lambda channel: None)
    fails = False

    async def tail(self, channel: Channel, after: int) -> Any:
        self.meanwhile(channel)
        await asyncio.sleep(0)
        if self.fails:
            raise StorageError("the disk is gone")
        return await super().tail(channel, after)


class SlowReader:
    """A node with one reader of two threads, which waits for both to be answered from the log."""

    def __init__(self) -> None:
        self.hub = Hub(may_read, max_connections=1, ring_bytes=1)
        self.broker = MemoryBroker(self.hub.deliver)
        self.hub.bind(self.broker)
        self.recovery = SlowRecovery(
            self.broker, ThreadStore(self.broker), snapshot_max_bytes=1 << 20
        )
        self.closed: list[CloseCode] = []
        self.unsubscribed_from: list[Channel] = []
        self.outbox = Outbox(lambda: None, max_bytes=2000)
        self.subscriber = Subscriber(
            "c1", MIA, self.outbox, self.closed.append, self.unsubscribed_from.append
        )
        self.hub.connect(self.subscriber)
        for channel in (ONE, TWO):
            self.hub.go_live(self.hub.subscribe(self.subscriber, channel), 0)

    def publish(self, channel: Channel, text: str = "x") -> None:
        data = msgspec.json.encode({"type": "CUSTOM", "name": "n", "value": text})
        append = Append(channel, (Item(data, {"seq": "1", "run": "r"}),))
        self.broker.submit(Write((append,))).result()

    async def behind(self) -> None:
        """Have it fall behind on both."""
        await self.broker.start()
        self.publish(ONE, "x" * 600)
        for channel in (ONE, TWO, ONE, TWO):
            self.publish(channel)
        self.drained()

    async def catch_up(self) -> bool:
        """Give the reader what it missed."""
        return await catch_up(
            self.subscriber, hub=self.hub, recovery=self.recovery, telemetry=Telemetry([])
        )

    def drained(self) -> list[tuple[str, int]]:
        """Take all that waits; return the channels and offsets."""
        found = []
        while piece := self.outbox.take():
            for line in piece.splitlines():
                push = msgspec.json.decode(line)["push"]
                found.append((push["channel"], push["pub"].get("offset", 0)))
        return found


async def test_r97_what_is_published_while_another_channel_is_answered_waits() -> None:
    """Both channels are answered from the log on the same connection, with nothing left out."""
    reader = SlowReader()
    await reader.behind()
    reader.recovery.meanwhile = lambda channel: reader.publish(TWO) if channel == ONE else None
    assert await reader.catch_up()
    sent = reader.drained()
    assert [offset for where, offset in sent if where == ONE.visible] == [2, 3]
    assert [offset for where, offset in sent if where == TWO.visible] == [1, 2, 3]
    assert (reader.closed, reader.unsubscribed_from) == ([], [])


async def test_r73_a_subscription_that_ended_meanwhile_gets_nothing() -> None:
    """Neither an answer nor a close is for who unsubscribed, or subscribed anew, meanwhile."""
    for fails in (False, True):
        reader = SlowReader()
        await reader.behind()
        reader.recovery.fails = fails
        reader.recovery.meanwhile = functools.partial(again, reader)
        assert not await reader.catch_up()
        assert reader.drained() == []
        assert reader.closed == []
        assert not reader.subscriber.subscriptions[ONE].live


def again(reader: SlowReader, channel: Channel) -> None:
    reader.hub.unsubscribe(reader.subscriber, channel)
    reader.hub.subscribe(reader.subscriber, channel)


async def test_r97_who_cannot_be_answered_comes_back() -> None:
    """Where the log cannot be read, the connection ends with 3008."""
    reader = SlowReader()
    await reader.behind()
    reader.recovery.fails = True
    await reader.catch_up()
    assert set(reader.closed) == {codes.SLOW}


async def test_r97_an_answer_larger_than_the_outbox_comes_in_parts() -> None:
    """What has no room follows when the outbox is empty; nothing is left out or comes twice."""
    reader = SlowReader()
    await reader.behind()
    for _ in range(9):
        await write(reader.broker, wide(ONE))
        await write(reader.broker, wide(TWO))
    sent, rounds = list[tuple[str, int]](), 0
    while await reader.catch_up():
        rounds += 1
        assert reader.outbox.level <= 2000
        sent += reader.drained()
        if rounds == 2:
            await write(reader.broker, wide(ONE))
    assert [offset for where, offset in sent if where == ONE.visible] == list(range(2, 14))
    assert [offset for where, offset in sent if where == TWO.visible] == list(range(1, 12))
    assert rounds > 3
    assert (reader.closed, reader.unsubscribed_from) == ([], [])
    await write(reader.broker, wide(ONE))
    assert reader.drained() == [(ONE.visible, 14)], "and then it goes on live"


def wide(channel: Channel) -> Write:
    """Return a publication that leaves little room."""
    data = msgspec.json.encode({"type": "CUSTOM", "name": "n", "value": "x" * 500})
    return Write((Append(channel, (Item(data, {"seq": "1"}),)),))
