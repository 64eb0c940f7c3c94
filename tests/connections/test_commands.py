"""Commands of an open connection over a real hub, session and log: each gets its one reply."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from towpath import codes
from towpath.auth.connection_auth import Authenticated, Refused
from towpath.auth.handshake import UpgradeInfo
from towpath.auth.policy import may_read
from towpath.channels import Channel, thread_channel, user_channel
from towpath.codes import CloseCode
from towpath.connections.commands import CommandHandler
from towpath.connections.expiry import Expiry
from towpath.connections.keepalive import KeepAlive
from towpath.connections.parts import Parts
from towpath.connections.session import Session, SessionLimits
from towpath.delivery.hub import Hub
from towpath.delivery.outbox import Outbox
from towpath.delivery.recovery import Recovered, Recovery
from towpath.delivery.subscriber import Subscriber
from towpath.errors import NotFound, StorageError
from towpath.identity import Principal
from towpath.log.broker import Append, Item, Write, write
from towpath.methods.method import Caller
from towpath.protocol import frames
from towpath.protocol.connection import Closed, Connection
from towpath.protocol.frames import Pong
from towpath.rate_limits import Rate
from towpath.runs.model import ThreadCreated, ThreadKey
from towpath.runs.store import ThreadStore
from towpath.settings import Settings
from towpath.telemetry import CommandAnswered, Telemetry, TelemetryEvent
from towpath.testing.memory_broker import MemoryBroker

MIA = Principal(tenant="acme", user="mia")
USER = user_channel("acme", "mia")
THREAD = thread_channel("acme", "mia", "t1")


class Open:
    """One open connection without a socket."""

    def __init__(self, limits: SessionLimits) -> None:
        self.hub = Hub(may_read, max_connections=3)
        self.broker = MemoryBroker(self.hub.deliver)
        self.hub.bind(self.broker)
        self.recovery = Recovery(self.broker, ThreadStore(self.broker), snapshot_max_bytes=1 << 20)
        self.called: list[tuple[str, bytes, Caller]] = []
        self.verdict: Authenticated | Refused = Refused(codes.TEMPORARY, "unknown")
        self.events: list[TelemetryEvent] = []
        self.closed: list[CloseCode] = []
        self.protocol = Connection()
        self.parts = parts = cast(
            Parts,
            SimpleNamespace(
                settings=Settings(),
                hub=self.hub,
                broker=self.broker,
                recovery=self.recovery,
                methods=SimpleNamespace(call=self._call),
                connection_auth=SimpleNamespace(refresh=self._refresh, expires_at=lambda who: None),
                telemetry=Telemetry([self.events.append]),
                version="towpath",
                now=lambda: 0.0,
            ),
        )
        self.subscriber = Subscriber(
            "c1", MIA, Outbox(lambda: None, max_bytes=10**6), self._end, lambda _: None
        )
        self.session = Session(MIA, may_read, limits)
        keepalive = KeepAlive(0.0, ping_interval=25.0, pong_timeout=10.0)
        self.commands = CommandHandler(
            parts,
            self.protocol,
            self.subscriber,
            self.session,
            keepalive=keepalive,
            expiry=Expiry(parts, MIA, keepalive, renewable=True, reschedule=lambda: None),
            upgrade=UpgradeInfo(origin="https://page"),
        )
        self.hub.connect(self.subscriber)
        self.protocol.receive_data('{"id":1,"connect":{}}')
        self.protocol.accept(1, frames.ConnectResult(client="c1", version="", ping=25, pong=True))

    def limit(self, **limits: Any) -> None:
        """Give the node other limits."""
        cast(Any, self.parts).settings = Settings(**limits)

    async def say(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        """Send one command; return the frames written in response."""
        [event] = self.protocol.receive_data(json.dumps(command))
        assert not isinstance(event, Closed | Pong)
        await self.commands.handle(event)
        return [json.loads(line) for line in self.subscriber.outbox.take().splitlines()]

    async def publish(self, channel: Channel, *values: object) -> None:
        """Publish values in a channel."""
        items = tuple(Item(msgspec.json.encode(value), {}) for value in values)
        await write(self.broker, Write((Append(channel, items),)))

    @property
    def answered(self) -> list[tuple[str, int]]:
        """The commands that were answered, with the error codes of their replies."""
        happened = [one for one in self.events if isinstance(one, CommandAnswered)]
        return [(one.command, one.error) for one in happened]

    async def _call(self, method: str, data: bytes, caller: Caller) -> bytes:
        self.called.append((method, data, caller))
        if method == "run.get":
            raise NotFound("no such run")
        if method == "thread.list":
            raise StorageError("the disk is gone")
        return b'{"done":true}'

    async def _refresh(self, *given: Any, **more: Any) -> Authenticated | Refused:
        return self.verdict

    def _end(self, code: CloseCode) -> None:
        self.closed.append(code)
        self.protocol.close(code)


@asynccontextmanager
async def opened(limits: SessionLimits | None = None) -> AsyncIterator[Open]:
    """Open a connection of mia, who has one thread."""
    made = Open(limits or SessionLimits())
    await made.broker.start()
    key = ThreadKey(tenant="acme", user="mia", id="t1")
    await write(made.broker, Write(facts=(ThreadCreated(key=key, title="", at=1.0),)))
    yield made
    await made.broker.stop()


async def test_r66_a_method_is_called_with_what_the_client_said_and_who_it_is() -> None:
    """Name and parameters as sent, the verified principal, and the page's origin."""
    async with opened() as mia:
        request = {"id": 7, "rpc": {"method": "whoami", "data": {"a": 1}}}
        assert await mia.say(request) == [{"id": 7, "rpc": {"data": {"done": True}}}]
        caller = Caller(principal=MIA, connection="c1", origin="https://page")
        assert mia.called == [("whoami", b'{"a": 1}', caller)]
        assert mia.answered == [("rpc.whoami", 0)]


@pytest.mark.parametrize(
    ("command", "name", "error"),
    [
        ({"rpc": {"method": "run.get"}}, "rpc.run.get", 404),
        ({"rpc": {"method": "thread.list"}}, "rpc.thread.list", 100),
        ({"subscribe": {"channel": "doc:1"}}, "subscribe", 102),
        ({"subscribe": {"channel": "thread:x"}}, "subscribe", 102),
        ({"history": {"channel": "thread:x"}}, "history", 102),
        ({"presence": {"channel": "thread:x"}}, "presence", 102),
        ({"unheard_of": {}}, "unknown", 104),
        ({"unsubscribe": {"channel": 5}}, "unknown", 107),
    ],
)
async def test_r66_a_command_that_fails_gets_its_one_error(
    command: dict[str, Any], name: str, error: int
) -> None:
    """Denied, or failed while it was executed: one reply, counted under its code."""
    async with opened() as mia:
        [reply] = await mia.say({"id": 7, **command})
        assert (reply["id"], reply["error"]["code"]) == (7, error)
        assert mia.answered == [(name, error)]
        assert mia.hub.subscriptions == 0
        assert mia.session.channels == frozenset()


async def test_r17_a_method_that_does_not_exist_is_not_counted_by_name() -> None:
    """An unknown method name of a client reaches neither logs nor metrics."""
    async with opened() as mia:
        await mia.say({"id": 7, "rpc": {"method": "secret"}})
        assert mia.answered == [("rpc.unknown", 0)]


async def test_r64_one_way_messages_are_answered_with_nothing_whatever_becomes_of_them() -> None:
    """Allowed or over the rate a send has no reply; a flood of them ends the connection."""
    limits = SessionLimits(errors=3, commands=Rate(per_second=1e-6, burst=2))
    async with opened(limits) as mia:
        for _ in range(5):
            assert await mia.say({"send": {"data": 1}}) == []
        assert (mia.closed, mia.answered) == ([], [("send", 0)] * 5)
        assert await mia.say({"send": {"data": 1}}) == []
        assert mia.closed == [codes.TOO_MANY_ERRORS]


async def test_r73_what_is_published_while_the_answer_is_made_follows_the_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reply comes first, then each publication that is not in it, once."""
    async with opened() as mia:
        await mia.publish(USER, 1)
        answer = mia.recovery.answer

        async def slowly(*given: Any) -> Recovered:
            await mia.publish(USER, 2)
            made = await answer(*given)
            await mia.publish(USER, 3)
            return made

        monkeypatch.setattr(mia.recovery, "answer", slowly)
        reply, *pushes = await mia.say({"id": 7, "subscribe": {"channel": "user", "recover": True}})
        publications = reply["subscribe"]["publications"]
        assert [(one["data"], one["offset"]) for one in publications] == [(1, 1), (2, 2)]
        assert [push["push"]["pub"] for push in pushes] == [{"data": 3, "offset": 3}]


async def test_a_subscription_ends_when_its_reader_unsubscribes() -> None:
    """Nothing is delivered after the reply; a second unsubscribe is answered too."""
    async with opened() as mia:
        await mia.say({"id": 7, "subscribe": {"channel": "thread:t1"}})
        for number in (8, 9):
            leave = {"id": number, "unsubscribe": {"channel": "thread:t1"}}
            assert await mia.say(leave) == [{"id": number, "unsubscribe": {}}]
        await mia.publish(THREAD, 1)
        assert mia.subscriber.outbox.take() == b""
        assert mia.hub.subscriptions == 0


@pytest.mark.parametrize(
    ("parameters", "offsets"),
    [
        ({"limit": -1}, [1, 2, 3]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 0}, []),
        ({"limit": 2, "since": {"offset": 1}}, [2, 3]),
        ({"limit": 9, "since": {"offset": 3}, "reverse": True}, [2, 1]),
    ],
)
async def test_history_reads_what_it_is_asked_for(
    parameters: dict[str, Any], offsets: list[int]
) -> None:
    """Bounded, from a position, in either direction; the reply has the top offset."""
    async with opened() as mia:
        await mia.publish(USER, 1, 2, 3)
        [reply] = await mia.say({"id": 7, "history": {"channel": "user", **parameters}})
        assert [one["offset"] for one in reply["history"]["publications"]] == offsets
        assert reply["history"]["offset"] == 3


@pytest.mark.parametrize("reverse", [False, True])
async def test_p7_history_is_bounded_in_bytes_and_goes_on_from_its_last(*, reverse: bool) -> None:
    """An answer has `answer_bytes` at most, or one publication; the next one follows it."""
    async with opened() as mia:
        mia.limit(answer_bytes=100)
        await mia.publish(USER, *("x" * size for size in (30, 30, 30, 500, 30)))
        since: dict[str, Any] = {"since": {"offset": 6}} if reverse else {}
        pages: list[list[int]] = []
        while sum(map(len, pages)) < 5:
            command = {"channel": "user", "limit": -1, "reverse": reverse, **since}
            [reply] = await mia.say({"id": 7 + len(pages), "history": command})
            pages.append([one["offset"] for one in reply["history"]["publications"]])
            since = {"since": {"offset": pages[-1][-1]}}
        assert pages == ([[5], [4], [3, 2, 1]] if reverse else [[1, 2, 3], [4], [5]])


async def test_presence_shows_the_readers_of_a_channel() -> None:
    """Each connection with its user, or how many of both there are."""
    async with opened() as mia:
        await mia.say({"id": 7, "subscribe": {"channel": "thread:t1"}})
        [who] = await mia.say({"id": 8, "presence": {"channel": "thread:t1"}})
        assert who["presence"]["presence"] == {"c1": {"user": "mia", "client": "c1"}}
        [count] = await mia.say({"id": 9, "presence_stats": {"channel": "thread:t1"}})
        assert count["presence_stats"] == {"num_clients": 1, "num_users": 1}


async def test_r86_a_refresh_that_cannot_be_judged_now_says_try_again() -> None:
    """Every error on refresh is temporary: SDKs would give up otherwise."""
    async with opened() as mia:
        for code in (codes.TEMPORARY, codes.TOKEN_EXPIRED):
            mia.verdict = Refused(code, "unknown")
            [reply] = await mia.say({"id": 7, "refresh": {"token": "x"}})
            assert (reply["error"]["code"], reply["error"]["temporary"]) == (code.number, True)
        assert mia.closed == []


async def test_r86_a_refresh_renews_the_principal_or_ends_the_connection() -> None:
    """A valid credential counts from its reply on, an invalid one closes without a reply."""
    async with opened() as mia:
        renewed = Principal(tenant="acme", user="mia", token_id="new", expires_at=90.0)
        mia.verdict = Authenticated(renewed, renewable=True)
        [reply] = await mia.say({"id": 7, "refresh": {"token": "x"}})
        assert reply["refresh"] == {
            "client": "c1",
            "version": "towpath",
            "expires": True,
            "ttl": 90,
        }
        assert mia.session.principal is mia.subscriber.principal is renewed
        mia.verdict = Refused(codes.INVALID_TOKEN, "invalid")
        assert await mia.say({"id": 8, "refresh": {"token": "x"}}) == []
        assert mia.closed == [codes.INVALID_TOKEN]
