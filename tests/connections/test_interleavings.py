"""One person's connections and everything that can happen to them, in any order.

`ClientConnection`, `CommandHandler`, a broker and a clock are played here by plain values: the
machine calls Connection, Session, Hub, Outbox and KeepAlive as the server does, but it decides what
happens next. An answer that needs the log stays pending until a rule completes it, so
publications, other commands, the verdict, timers and closes come before, between and after.

What is checked is what a client can check: the bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import UNSET, Raw

from towpath import codes
from towpath.auth.policy import may_read
from towpath.channels import Channel, named, tenant_channel, thread_channel, user_channel
from towpath.codes import CloseCode, ErrorCode
from towpath.connections.keepalive import Due, KeepAlive
from towpath.connections.session import Denied, Session, SessionLimits
from towpath.delivery.hub import Hub
from towpath.delivery.outbox import Outbox
from towpath.delivery.subscriber import Subscriber, Subscription
from towpath.identity import Principal
from towpath.log.broker import Publication
from towpath.protocol import codec_json, frames
from towpath.protocol.connection import Closed, Connection
from towpath.protocol.frames import Command, Malformed, Pong
from towpath.protocol.states import State
from towpath.rate_limits import Rate

PEOPLE = [
    Principal(tenant="acme", user="mia"),
    Principal(tenant="acme", user="leo"),
    Principal(tenant="other", user="mia"),
]
THREADS = ["t1", "t2", "mia:t1"]
CHANNELS = [
    *(thread_channel(who.tenant, who.user, thread) for who in PEOPLE for thread in THREADS),
    *(user_channel(who.tenant, who.user) for who in PEOPLE),
    *(tenant_channel(tenant) for tenant in ("acme", "other")),
]
NAMES = ["user", "tenant", *(f"thread:{thread}" for thread in THREADS)]
WRONG = [
    "nonsense",
    '{"id":1',
    '{"ping":{}}',
    '{"id":999,"connect":{}}\n{"id":998,"connect":{}}',
    b"x",
]
LIMITS = SessionLimits(subscriptions=4, errors=5, commands=Rate(per_second=1, burst=12))
OUTBOX_BYTES = 2500
PING_INTERVAL, PONG_TIMEOUT = 25.0, 10.0


AT_ONCE = (codes.SLOW, codes.EXPIRED, codes.NOT_ALLOWED, codes.INVALID_TOKEN)
"""After these nothing that still waits is written."""


class Log:
    """The broker's contract in a few lines: a list of publications per channel."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._kept: dict[Channel, list[Publication]] = {}

    def top(self, channel: Channel) -> int:
        return len(self._kept.get(channel, []))

    def append(self, channel: Channel, count: int) -> None:
        """Publish a value that names its owner."""
        kept = self._kept.setdefault(channel, [])
        data = json.dumps([channel.tenant, channel.name]).encode()
        new = [Publication(len(kept) + n, data, {}) for n in range(1, count + 1)]
        kept += new
        self._hub.deliver(channel, new)

    def since(self, channel: Channel, offset: int) -> list[Publication]:
        return self._kept.get(channel, [])[offset:]


@dataclass
class Pending:
    """A subscribe whose reply is pending."""

    number: int
    subscription: Subscription
    top: int | None = None
    """What the log held when it was read; None until then."""


@dataclass
class ReadPosition:
    """The offset up to which a client has received its current subscription."""

    offset: int


@dataclass(eq=False)
class Peer:
    """A client with its connection, and its state by the bytes it received."""

    who: Principal
    id: str
    connection: Connection = field(default_factory=Connection)
    session: Session | None = None
    subscriber: Subscriber | None = None
    keepalive: KeepAlive | None = None
    closed_with: list[CloseCode] = field(default_factory=list)
    sent_ids: list[int] = field(default_factory=list)
    """Ids of well-addressed commands, in the order they were sent."""
    sent: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Name and channel of those commands, by id."""
    answered: list[int] = field(default_factory=list)
    reading: dict[str, ReadPosition] = field(default_factory=dict)
    seen: int = 0
    """How many messages came."""
    frozen_at: int | None = None
    """How many had come when the close frame was written."""
    verdict: bool = False
    lapsed: int = 0
    """How often its current credential was reported as lapsed."""
    awaits_pong: bool = False

    def __post_init__(self) -> None:
        self.outbox = Outbox(lambda: None, max_bytes=OUTBOX_BYTES)

    def __repr__(self) -> str:
        return self.id

    def end(self, code: CloseCode) -> None:
        """Close as `ClientConnection.end` does."""
        if self.closed_with:
            self.closed_with.append(code)
            return
        self.closed_with.append(code)
        self.connection.close(code)
        if code in AT_ONCE:
            self.outbox.clear()
        self.outbox.close()


class Interleavings(RuleBasedStateMachine):
    """See the module's docstring."""

    peers = Bundle("peers")

    @initialize(target=peers, batch=st.lists(st.sampled_from(NAMES), max_size=3))
    def begin(self, batch: list[str]) -> Any:
        """Connect one user of each kind, whose verdict is pending."""
        self.now = 0.0
        self.hub = Hub(may_read, max_connections=3, max_tenant_connections=5)
        self.log = Log(self.hub)
        self.everyone: list[Peer] = []
        self.joins: list[Pending] = []
        self.ends = 0
        peers = [self.upgrade(who) for who in PEOPLE]
        for peer in peers:
            self.connects(peer, batch)
        return multiple(*peers)

    @rule(target=peers, who=st.sampled_from(PEOPLE))
    @precondition(lambda self: len(self.everyone) < 8)
    def arrives(self, who: Principal) -> Any:
        """One more connection of a user."""
        return self.upgrade(who)

    def upgrade(self, who: Principal) -> Peer:
        peer = Peer(who, f"c{len(self.everyone)}")
        self.everyone.append(peer)
        return peer

    # What a client does.

    @rule(peer=peers, batch=st.lists(st.sampled_from(NAMES), max_size=3))
    def connects(self, peer: Peer, batch: list[str]) -> None:
        """Connect and subscribe in one frame, as SDKs do."""
        if peer.connection.state is not State.OPENING:
            return
        subscribes: list[dict[str, Any]] = [{"subscribe": {"channel": name}} for name in batch]
        commands = [{"connect": {}}, *subscribes]
        self.send(peer, [self.numbered(peer, command) for command in commands])

    @rule(
        peer=peers,
        batch=st.lists(
            st.sampled_from(
                [
                    *({"subscribe": {"channel": name}} for name in NAMES),
                    *({"subscribe": {"channel": name}} for name in NAMES[2:]),
                    *({"unsubscribe": {"channel": name}} for name in NAMES),
                    {"subscribe": {"channel": "thread:leo:t1"}},
                    {"subscribe": {"channel": "user:leo"}},
                    {"subscribe": {"channel": 5}},
                    {"publish": {"channel": "tenant", "data": 1}},
                    {"history": {"channel": "thread:t1"}},
                    {"presence": {"channel": "user"}},
                    {"rpc": {"method": "whoami", "data": {}}},
                    {"ping": {}},
                    {"send": {"data": 1}},
                    {"zzz": {}},
                ]
            ),
            min_size=1,
            max_size=4,
        ),
        separate=st.booleans(),
    )
    def asks(self, peer: Peer, batch: list[dict[str, Any]], separate: bool) -> None:
        """Any commands, in one frame or in one each."""
        if peer.connection.state is State.OPENING:
            return
        lines = [self.numbered(peer, command) for command in batch]
        for frame in [[line] for line in lines] if separate else [lines]:
            self.send(peer, frame)

    @rule(peer=peers, message=st.sampled_from(WRONG))
    @precondition(lambda self: self.ends < 3)
    def misbehaves(self, peer: Peer, message: str | bytes) -> None:
        """Something that no correct client sends."""
        self.ends += 1
        self.receive(peer, message)
        assert peer.connection.closed

    @rule(peer=peers)
    def repeats_an_id(self, peer: Peer) -> None:
        """A command id that is in flight is used again."""
        if peer.connection.owed and self.ends < 3:
            self.ends += 1
            number = min(peer.connection.owed)
            self.receive(peer, f'{{"id":{number},"ping":{{}}}}')
            assert peer.connection.closed

    @rule(peer=peers)
    def pongs(self, peer: Peer) -> None:
        """The client answers a ping, if it has seen one."""
        self.reads(peer)
        if peer.awaits_pong:
            peer.awaits_pong = False
            self.receive(peer, "{}")

    @rule(peer=peers)
    def reads(self, peer: Peer) -> None:
        """The socket takes the waiting bytes; the close frame is written after them."""
        while message := peer.outbox.take() or self.catches_up(peer):
            assert peer.frozen_at is None, "a message followed the close frame"
            peer.seen += 1
            for line in message.split(b"\n"):
                self.hears(peer, json.loads(line))
        if peer.closed_with and peer.frozen_at is None:
            peer.frozen_at = peer.seen
            if peer.subscriber is not None:
                self.hub.disconnect(peer.subscriber)

    def catches_up(self, peer: Peer) -> bytes:
        """What a slow reader missed comes after everything else was taken."""
        if peer.subscriber is None or peer.closed_with:
            return b""
        assert self.hub.catch_up(peer.subscriber) == [], "no ring here is too small"
        return peer.outbox.take()

    # What happens to it.

    @rule(peer=peers, verdict=st.sampled_from(["valid"] * 6 + ["invalid", "unknown"]))
    def verdict(self, peer: Peer, verdict: str) -> None:
        """The verifier returns, at any moment."""
        if peer.connection.state is not State.AUTHENTICATING:
            return
        number = peer.sent_ids[0]
        assert peer.seen == 0
        assert peer.outbox.level == 0
        if verdict == "invalid":
            peer.end(codes.INVALID_TOKEN)
        elif verdict == "unknown":
            peer.outbox.put(peer.connection.refuse(number, codes.TEMPORARY))
            peer.end(codes.CONNECT_FAILED)
        else:
            self.admit(peer, number)

    def admit(self, peer: Peer, number: int) -> None:
        session = Session(peer.who, may_read, LIMITS, now=self.now)
        subscriber = Subscriber(peer.id, peer.who, peer.outbox, peer.end, session.on_unsubscribed)
        full = self.hub.connect(subscriber)
        if isinstance(full, ErrorCode):
            peer.outbox.put(peer.connection.refuse(number, full))
            peer.end(codes.CONNECT_FAILED)
            return
        if full is not None:
            peer.end(full)
            return
        peer.session, peer.subscriber = session, subscriber
        peer.keepalive = KeepAlive(self.now, ping_interval=PING_INTERVAL, pong_timeout=PONG_TIMEOUT)
        peer.verdict = True
        channel = user_channel(peer.who.tenant, peer.who.user)
        session.joined(channel)
        subscription = self.hub.subscribe(subscriber, channel)
        top = self.log.top(channel)
        result = frames.ConnectResult(
            client=peer.id,
            version="model",
            ping=25,
            pong=True,
            subs={"user": frames.SubscribeResult(offset=top)},
        )
        reply, waiting = peer.connection.accept(number, result)
        peer.outbox.put(reply)
        self.hub.go_live(subscription, top)
        for command in waiting:
            self.perform(peer, command)

    @rule(channel=st.sampled_from(CHANNELS), count=st.integers(1, 3))
    def publishes(self, channel: Channel, count: int) -> None:
        """Publish in a channel."""
        self.log.append(channel, count)

    @rule(count=st.integers(1, 3), data=st.data())
    @precondition(lambda self: self.hub.subscriptions > 0)
    def publishes_where_somebody_reads(self, count: int, data: st.DataObject) -> None:
        """Publish in a channel that has a subscriber."""
        read = sorted(
            {
                channel
                for peer in self.everyone
                if peer.session
                for channel in peer.session.channels
            },
            key=repr,
        )
        if read:
            self.log.append(data.draw(st.sampled_from(read)), count)

    @rule(data=st.data())
    @precondition(lambda self: self.joins)
    def the_log_is_read(self, data: st.DataObject) -> None:
        """A pending reply reads the current log."""
        pending = data.draw(st.sampled_from(self.joins))
        if pending.top is None:
            pending.top = self.log.top(pending.subscription.channel)

    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    @precondition(lambda self: self.joins)
    def a_join_completes(self, data: st.DataObject, fails: bool) -> None:
        """A pending reply is sent, in any order and however late."""
        pending = data.draw(st.sampled_from(self.joins))
        self.joins.remove(pending)
        self.complete(pending, fails=fails)

    @rule(
        seconds=st.sampled_from([1.0, 9.0, 10.0, 25.0]), answer=st.sampled_from([True, True, False])
    )
    def time_passes(self, seconds: float, answer: bool) -> None:
        """The clock moves, and every timer that is due fires; most clients answer pings."""
        if answer:
            for peer in self.everyone:
                self.pongs(peer)
        self.now += seconds
        for peer in self.everyone:
            if peer.keepalive is None or peer.closed_with:
                continue
            while (
                not peer.closed_with
                and peer.keepalive.next_deadline(self.now, self.now) <= self.now
            ):
                match peer.keepalive.elapse(self.now, self.now):
                    case Due.PING:
                        self.put(peer, codec_json.PING)
                    case Due.NO_PONG:
                        peer.end(codes.NO_PONG)
                    case Due.LAPSED:
                        peer.lapsed += 1
                    case Due.EXPIRED:
                        peer.end(codes.EXPIRED)

    @rule(peer=peers)
    def expires(self, peer: Peer) -> None:
        """The credential's grace ends soon."""
        if peer.keepalive is not None and self.ends < 3:
            self.ends += 1
            peer.lapsed = 0
            peer.keepalive.expire_at(self.now + 9, lapse=self.now + 4)

    @rule(peer=peers)
    def drains(self, peer: Peer) -> None:
        """The server drains; commands are still answered."""
        if peer.connection.state in (State.OPEN, State.DRAINING):
            peer.connection.drain()

    @rule(peer=peers, code=st.sampled_from([codes.MOVE_ELSEWHERE, codes.FORCED, codes.NOT_ALLOWED]))
    @precondition(lambda self: self.ends < 3)
    def is_closed(self, peer: Peer, code: CloseCode) -> None:
        """The connection is closed, perhaps for the second time."""
        self.ends += 1
        peer.end(code)

    @rule(who=st.sampled_from(PEOPLE))
    @precondition(lambda self: self.ends < 3)
    def is_revoked(self, who: Principal) -> None:
        """All connections of a user end at once, and nothing more is written to them."""
        self.ends += 1
        here = self.hub.subscribers(who.tenant, who.user)
        assert self.hub.end(lambda principal: principal == who, codes.NOT_ALLOWED) == len(here)
        for subscriber in here:
            peer = self.peer_of(subscriber)
            assert peer.connection.closed
            if peer.closed_with[0] is codes.NOT_ALLOWED:
                assert peer.outbox.level == 0

    @rule(peer=peers, channel=st.sampled_from(CHANNELS), count=st.integers(1, 2))
    def is_misrouted(self, peer: Peer, channel: Channel, count: int) -> None:
        """A simulated fault subscribes another user; publications follow."""
        if peer.subscriber is None or peer.connection.closed or may_read(peer.who, channel):
            return
        before = self.hub.withheld
        self.hub.go_live(self.hub.subscribe(peer.subscriber, channel), self.log.top(channel))
        self.log.append(channel, count)
        assert self.hub.withheld > before
        self.hub.unsubscribe(peer.subscriber, channel)

    # The server's part, as ClientConnection and CommandHandler play it.

    def numbered(self, peer: Peer, command: dict[str, Any]) -> str:
        """Return a command's text under a new id; a one-way send has none."""
        if "send" in command:
            return json.dumps(command)
        number = len(peer.sent_ids) + 1
        [kind] = command
        peer.sent_ids.append(number)
        peer.sent[number] = (kind, str(command[kind].get("channel")))
        return json.dumps({"id": peer.sent_ids[-1], **command})

    def send(self, peer: Peer, lines: Sequence[str]) -> None:
        self.receive(peer, "\n".join(lines))

    def receive(self, peer: Peer, message: str | bytes) -> None:
        was_closed = peer.connection.closed
        before = peer.outbox.level
        events = peer.connection.receive_data(message)
        assert not (was_closed and events)
        for event in events:
            match event:
                case Closed(code, _):
                    peer.end(code)
                case Pong():
                    if peer.keepalive is None or not peer.keepalive.pong():
                        peer.end(codes.BAD_MESSAGE)
                case command:
                    self.perform(peer, command)
        if not peer.verdict:
            assert peer.outbox.level == before, "something was said before the verdict"

    def perform(self, peer: Peer, command: Command | Malformed) -> None:
        if peer.connection.closed:
            return
        if isinstance(command, Command) and command.name == "connect":
            assert peer.connection.state is State.AUTHENTICATING
            return
        assert peer.verdict, "a command came out before the verdict"
        assert peer.session is not None
        answer = peer.session.authorize(command, self.now)
        if isinstance(answer, Denied):
            self.deny(peer, command.id, answer)
        else:
            assert isinstance(command, Command)
            self.dispatch(peer, command, answer.channel)

    def deny(self, peer: Peer, number: int, denied: Denied) -> None:
        if isinstance(denied.code, CloseCode):
            peer.end(denied.code)
        elif number:
            self.put(peer, peer.connection.fail(number, denied.code, denied.message))

    def dispatch(self, peer: Peer, command: Command, channel: Channel | None) -> None:
        result: frames.Result | None = None
        match command.request:
            case frames.SubscribeRequest():
                self.join(peer, command.id, channel)
            case frames.UnsubscribeRequest():
                result = self.leave(peer, channel)
            case frames.RPCRequest(data=data):
                result = frames.RPCResult(data=data)
            case frames.HistoryRequest():
                result = self.history(peer, channel)
            case frames.PresenceRequest():
                result = self.presence(peer, channel)
            case frames.Empty():
                result = frames.Empty()
            case frames.SendRequest():
                pass
            case other:
                raise AssertionError(f"no rule sends {other}")
        if result is not None:
            self.put(peer, peer.connection.reply(command.id, result))

    def join(self, peer: Peer, number: int, channel: Channel | None) -> None:
        assert channel is not None
        assert may_read(peer.who, channel)
        assert peer.subscriber is not None
        self.joins.append(Pending(number, self.hub.subscribe(peer.subscriber, channel)))

    def leave(self, peer: Peer, channel: Channel | None) -> frames.Empty:
        assert peer.subscriber is not None
        if channel is not None:
            self.hub.unsubscribe(peer.subscriber, channel)
        return frames.Empty()

    def history(self, peer: Peer, channel: Channel | None) -> frames.HistoryResult:
        assert channel is not None
        assert may_read(peer.who, channel)
        kept = [frames.Publication(data=Raw(one.data)) for one in self.log.since(channel, 0)[:3]]
        return frames.HistoryResult(publications=kept, epoch="", offset=self.log.top(channel))

    def presence(self, peer: Peer, channel: Channel | None) -> frames.PresenceResult:
        assert channel is not None
        assert may_read(peer.who, channel)
        clients = {
            reader.id: frames.ClientInfo(user=reader.principal.user, client=reader.id)
            for reader in self.hub.readers(channel)
        }
        return frames.PresenceResult(presence=clients)

    def complete(self, pending: Pending, *, fails: bool = False) -> None:
        """Send the reply to a join, unless its connection has ended."""
        peer = self.peer_of(pending.subscription.subscriber)
        if peer.connection.closed:
            return
        number, channel = pending.number, pending.subscription.channel
        if fails:
            assert peer.session is not None
            if (
                peer.subscriber
                and peer.subscriber.subscriptions.get(channel) is pending.subscription
            ):
                peer.session.on_unsubscribed(channel)
                self.hub.unsubscribe(peer.subscriber, channel)
            self.deny(peer, number, peer.session.failed(codes.TEMPORARY))
            return
        top = self.log.top(channel) if pending.top is None else pending.top
        publications = [
            frames.Publication(data=Raw(item.data), offset=item.offset)
            for item in self.log.since(channel, 0)[:top][-1:]
        ]
        result = frames.SubscribeResult(offset=top, publications=publications or UNSET)
        self.put(peer, peer.connection.reply(number, result))
        self.hub.go_live(pending.subscription, top)

    def put(self, peer: Peer, frame: bytes) -> None:
        if not peer.outbox.put(frame):
            peer.end(codes.SLOW)

    def peer_of(self, subscriber: Subscriber) -> Peer:
        return next(peer for peer in self.everyone if peer.id == subscriber.id)

    # The client's part: what the bytes say.

    def hears(self, peer: Peer, value: dict[str, Any]) -> None:
        assert peer.verdict or list(value) == ["id", "error"], "said before the verdict"
        if not value:
            peer.awaits_pong = True
        elif "push" in value:
            self.hears_push(peer, value["push"])
        else:
            assert value["id"] in peer.sent_ids, "an answer to nothing"
            assert value["id"] not in peer.answered, "a second answer"
            assert peer.answered or value["id"] == peer.sent_ids[0], "not connect is answered first"
            peer.answered.append(value["id"])
            self.hears_result(peer, value)

    def hears_push(self, peer: Peer, push: dict[str, Any]) -> None:
        name = push["channel"]
        assert name in peer.reading, "a push of a channel that is not read"
        if "unsubscribe" in push:
            assert name != "user"
            del peer.reading[name]
            return
        self.owns(peer, name, push["pub"]["data"])
        position = peer.reading[name]
        assert push["pub"]["offset"] == position.offset + 1, "a gap or a double"
        position.offset += 1

    def hears_result(self, peer: Peer, value: dict[str, Any]) -> None:
        if "connect" in value:
            assert value["connect"]["client"] == peer.id
            peer.reading["user"] = ReadPosition(value["connect"]["subs"]["user"]["offset"])
        elif "subscribe" in value:
            name = peer.sent[value["id"]][1]
            for item in value["subscribe"].get("publications", []):
                self.owns(peer, name, item["data"])
            if not self.left_since(peer, value["id"], name):
                peer.reading[name] = ReadPosition(value["subscribe"]["offset"])
        elif "unsubscribe" in value:
            peer.reading.pop(peer.sent[value["id"]][1], None)
        elif "history" in value:
            for item in value["history"]["publications"]:
                self.owns(peer, "thread:t1", item["data"])
        elif "presence" in value:
            users = {client["user"] for client in value["presence"]["presence"].values()}
            assert users <= {peer.who.user}

    def owns(self, peer: Peer, name: str, data: Any) -> None:
        """A channel name means the channel of the client's own user."""
        channel = named(name, peer.who)
        assert channel is not None
        assert data == [channel.tenant, channel.name], "something foreign was written"

    def left_since(self, peer: Peer, number: int, name: str) -> bool:
        """Whether an unsubscribe sent after this subscribe was answered before it."""
        later = (peer.sent[other] for other in peer.answered if other > number)
        return ("unsubscribe", name) in later

    # What must hold at any moment, and at the end.

    @invariant()
    def the_first_close_wins(self) -> None:
        for peer in self.everyone:
            assert peer.connection.closed is bool(peer.closed_with)
            if peer.closed_with:
                assert peer.connection.close_code is peer.closed_with[0]

    @invariant()
    def everything_is_bounded(self) -> None:
        for peer in self.everyone:
            assert 0 <= peer.outbox.level <= OUTBOX_BYTES
            assert peer.session is None or len(peer.session.channels) <= LIMITS.subscriptions
            assert peer.lapsed <= 1
        for who in PEOPLE:
            assert len(self.hub.subscribers(who.tenant, who.user)) <= 3
        for tenant in ("acme", "other"):
            here = {who.user for who in PEOPLE if who.tenant == tenant}
            assert sum(len(self.hub.subscribers(tenant, user)) for user in here) <= 5

    @invariant()
    def what_is_owed_is_what_was_not_answered(self) -> None:
        for peer in self.everyone:
            assert peer.connection.owed <= set(peer.sent_ids) - set(peer.answered)

    @invariant()
    def session_and_hub_agree(self) -> None:
        for peer in self.everyone:
            if peer.session and peer.subscriber and not peer.closed_with:
                assert peer.session.channels == peer.subscriber.subscriptions.keys()

    def teardown(self) -> None:
        """Complete everything; then each command has its reply and no publication is missing."""
        if not hasattr(self, "everyone"):
            return
        for pending in self.joins:
            self.complete(pending)
        for peer in self.everyone:
            self.reads(peer)
            if peer.connection.state in (State.OPEN, State.DRAINING):
                assert sorted(peer.answered) == peer.sent_ids, "a command without its one reply"
                assert peer.reading.keys() == {
                    channel.visible
                    for channel in peer.session.channels  # type: ignore[union-attr]
                }
                for name, position in peer.reading.items():
                    channel = named(name, peer.who)
                    assert channel is not None
                    assert position.offset == self.log.top(channel), "publications are missing"
            if peer.closed_with:
                assert peer.outbox.level == 0
                assert peer.connection.owed == frozenset()
        assert self.hub.waiting_bytes == 0


def test_r02_r06_r36_r38_r39_no_order_of_things_breaks_a_promise() -> None:
    """Nothing before the verdict or after the close, one reply each, no gap, no foreign channel."""
    run_state_machine_as_test(Interleavings, settings=settings(stateful_step_count=40))
