"""Who listens on this node, and delivery to them.

A publication is encoded once, when the first reader needs it, and the same bytes go into every
reader's outbox. A subscription is *joining* while its first answer is made: what is published
meanwhile waits beside it, and `go_live` lets through what the answer did not contain. So the
answer and the live stream meet without a gap and without a duplicate, and no lock is held.

A reader that takes less than comes *falls behind*: what is published for it waits beside its
subscription too, and `catch_up` gives it that, merged, once its outbox is empty. Where too much
waits it is thrown away, and the reader has to be answered from the log like one that joins
(`rejoin`, then `go_live`). A reader that keeps up never meets any of this.

The right to read is asked for twice: by whoever subscribes, and here again at each write.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET, Raw

from towpath import codes
from towpath.channels import Channel
from towpath.codes import CloseCode, ErrorCode
from towpath.delivery.backlog import Backlog
from towpath.delivery.outbox import Outbox
from towpath.identity import Principal
from towpath.log.broker import Publication
from towpath.protocol import codec_json as codec
from towpath.protocol import frames
from towpath.settings import BACKLOG_BYTES

INSUFFICIENT_STATE = (2500, "insufficient state")
"""The unsubscribe code after which SDKs subscribe again by themselves."""

MayRead = Callable[[Principal, Channel], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """How publications are written for a kind of reader; compared by identity."""

    encode: Callable[[Channel, Publication], bytes]
    separator: bytes
    """What stands between several of them."""
    encode_unsubscribe: Callable[[str, int, str], bytes] | None
    """How a reader is told to subscribe anew; None where it can only come back."""


def _encode(channel: Channel, publication: Publication) -> bytes:
    return codec.encode_publication(
        channel.visible,
        frames.Publication(
            data=Raw(publication.data),
            offset=publication.offset or UNSET,
            tags=publication.tags or UNSET,
        ),
    )


JSON = Encoding(_encode, codec.SEPARATOR, codec.encode_unsubscribe)
"""The Centrifuge protocol's JSON."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One member reading one channel."""

    member: "Subscriber"
    channel: Channel
    offset: int = 0
    """Of the last publication put into the outbox; meaningful once live."""
    live: bool = False
    """False while it is joining."""
    backlog: Backlog = field(default_factory=Backlog)
    """What came while it was joining, or fell behind."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection as the hub knows it."""

    id: str
    principal: Principal
    outbox: Outbox
    close: Callable[[CloseCode], None]
    """Ends the connection; idempotent, must not block."""
    on_unsubscribed: Callable[[Channel], None] = lambda _: None
    """Hears of a subscription that the hub ended by itself."""
    dialect: Encoding = JSON
    subscriptions: dict[Channel, Subscription] = field(default_factory=dict)
    behind: dict[Channel, Subscription] = field(default_factory=dict)
    """Those that are live and have a backlog."""


class Hub:
    """The connections of this node, and the channels they read."""

    def __init__(
        self,
        may_read: MayRead,
        *,
        max_connections: int,
        max_tenant_connections: int = 10_000,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        """Make an empty hub.

        Args:
            may_read: the policy, asked at each write.
            max_connections: how many connections one user may have.
            max_tenant_connections: how many all users of a tenant may have together.
            backlog_bytes: how much may wait beside the subscriptions of one connection.
        """
        self._may_read = may_read
        self._max_connections = max_connections
        self._max_tenant_connections = max_tenant_connections
        self._backlog_bytes = backlog_bytes
        self._by_tenant: Counter[str] = Counter()
        self._members: dict[str, Subscriber] = {}
        self._by_user: dict[tuple[str, str], dict[str, Subscriber]] = {}
        self._readers: dict[Channel, dict[str, Subscription]] = {}
        self.withheld = 0
        """How many writes the policy refused: a fault of ours each time, never of the reader."""

    def __len__(self) -> int:
        return len(self._members)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return sum(map(len, self._readers.values()))

    @property
    def waiting_bytes(self) -> int:
        """How much waits in all outboxes together."""
        return sum(member.outbox.level for member in self._members.values())

    @property
    def backlog_bytes(self) -> int:
        """How much waits beside all subscriptions together."""
        return sum(map(_backlog_level, self._members.values()))

    @property
    def largest_bytes(self) -> int:
        """How much waits for the one connection for which most does, outbox and backlogs."""
        levels = (one.outbox.level + _backlog_level(one) for one in self._members.values())
        return max(levels, default=0)

    def connect(self, member: Subscriber) -> ErrorCode | CloseCode | None:
        """Take a connection in, or return what to answer where there are as many as may be."""
        tenant, user = member.principal.tenant, member.principal.user
        if len(self._by_user.get((tenant, user), ())) >= self._max_connections:
            return codes.CONNECTION_LIMIT
        if self._by_tenant[tenant] >= self._max_tenant_connections:
            return codes.TOO_MANY_REQUESTS
        self._by_tenant[tenant] += 1
        self._by_user.setdefault((tenant, user), {})[member.id] = member
        self._members[member.id] = member
        return None

    def disconnect(self, member: Subscriber) -> None:
        """Let a connection go, and everything it read; idempotent."""
        if self._members.pop(member.id, None) is None:
            return
        key = (member.principal.tenant, member.principal.user)
        self._by_tenant[key[0]] -= 1
        if not self._by_tenant[key[0]]:
            del self._by_tenant[key[0]]
        self._by_user[key].pop(member.id)
        if not self._by_user[key]:
            del self._by_user[key]
        for channel in list(member.subscriptions):
            self.unsubscribe(member, channel)

    def members(self, tenant: str, user: str) -> list[Subscriber]:
        """Return the connections of one person on this node."""
        return list(self._by_user.get((tenant, user), {}).values())

    def end(self, named: Callable[[Principal], bool], code: CloseCode) -> int:
        """End the connections of these principals, at once, and return how many there were."""
        ended = [member for member in self._members.values() if named(member.principal)]
        for member in ended:
            member.close(code)
        return len(ended)

    def subscribe(self, member: Subscriber, channel: Channel) -> Subscription:
        """Begin joining a channel: from now on its publications wait beside the subscription."""
        subscription = Subscription(member, channel)
        member.subscriptions[channel] = subscription
        self._readers.setdefault(channel, {})[member.id] = subscription
        return subscription

    def unsubscribe(self, member: Subscriber, channel: Channel) -> bool:
        """Stop reading a channel; return whether the member did read it."""
        member.behind.pop(channel, None)
        if member.subscriptions.pop(channel, None) is None:
            return False
        readers = self._readers[channel]
        readers.pop(member.id, None)
        if not readers:
            del self._readers[channel]
        return True

    def go_live(self, subscription: Subscription, offset: int) -> None:
        """End joining: let through what waited and is newer than the answer's offset.

        The answer must be in the outbox already. A subscription that ended meanwhile stays ended.
        """
        subscription.live = True
        subscription.offset = offset
        if self._is_current(subscription):
            self._give(subscription)

    def rejoin(self, subscription: Subscription) -> None:
        """Begin joining anew one that `catch_up` returned: what is published from now on waits."""
        subscription.live = False
        subscription.backlog = Backlog()

    def catch_up(self, member: Subscriber) -> list[Subscription]:
        """Give a reader what it fell behind with; call it when the outbox is empty.

        Returns:
            The subscriptions whose backlog was given up, to be answered from the log.
        """
        behind, member.behind = member.behind, {}
        given_up = [one for one in behind.values() if one.backlog.given_up]
        for subscription in behind.values():
            if not subscription.backlog.given_up and subscription.live:
                self._give(subscription)
        return given_up

    def fall_behind(self, subscription: Subscription, offset: int) -> None:
        """Leave a reader behind once more, at an offset it was given, until `catch_up`."""
        subscription.live = True
        subscription.offset = offset
        subscription.backlog.give_up()
        subscription.member.behind[subscription.channel] = subscription

    def may_write(self, subscription: Subscription) -> bool:
        """Whether a subscription goes on, and its member may still read the channel."""
        if not self._is_current(subscription):
            return False
        may = self._may_read(subscription.member.principal, subscription.channel)
        self.withheld += not may
        return may

    def readers(self, channel: Channel) -> list[Subscriber]:
        """Return who reads a channel on this node."""
        return [subscription.member for subscription in self._readers.get(channel, {}).values()]

    def deliver(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """Put publications into the outbox of everyone who reads their channel."""
        readers = self._readers.get(channel)
        if not readers or not publications:
            return
        first, last = publications[0].offset, publications[-1].offset
        written: dict[Encoding, bytes] = {}
        for subscription in list(readers.values()):
            member = subscription.member
            if not self._may_read(member.principal, channel):
                self.withheld += 1
            elif not subscription.live or self._is_behind(subscription):
                self._wait(subscription, publications)
            elif first != subscription.offset + 1:
                self._give_each(subscription, publications)
            else:
                if (joined := written.get(member.dialect)) is None:
                    joined = written[member.dialect] = _encode_all(
                        member.dialect, channel, publications
                    )
                self._put(subscription, first, last, joined)

    def _is_behind(self, subscription: Subscription) -> bool:
        """Whether a reader takes less than comes, on a channel where it can be helped."""
        member, channel = subscription.member, subscription.channel
        return channel in member.behind or (channel.is_thread and member.outbox.behind)

    def _is_current(self, subscription: Subscription) -> bool:
        return subscription.member.subscriptions.get(subscription.channel) is subscription

    def _give(self, subscription: Subscription) -> None:
        """Give a live reader its backlog, merged; one that was given up waits for the log."""
        if subscription.backlog.given_up:
            subscription.member.behind[subscription.channel] = subscription
            subscription.member.outbox.wake()
            return
        after = subscription.offset
        for publication in subscription.backlog.take(after):
            frame = subscription.member.dialect.encode(subscription.channel, publication)
            first = subscription.offset + 1 if publication.tags.get("from") else publication.offset
            self._put(subscription, first, publication.offset, frame)

    def _give_each(self, subscription: Subscription, publications: Sequence[Publication]) -> None:
        """Give a reader those of a batch that are new to it."""
        for publication in publications:
            if publication.offset > subscription.offset:
                frame = subscription.member.dialect.encode(subscription.channel, publication)
                self._put(subscription, publication.offset, publication.offset, frame)

    def _put(self, subscription: Subscription, first: int, last: int, frame: bytes) -> None:
        """Give a reader what comes next; one that would see a gap subscribes anew instead."""
        if first != subscription.offset + 1:
            self._restart(subscription)
        elif subscription.member.outbox.put(frame):
            subscription.offset = last
        else:
            subscription.member.close(codes.SLOW)

    def _wait(self, subscription: Subscription, publications: Sequence[Publication]) -> None:
        """Let publications wait beside a subscription, as far as there is room."""
        member = subscription.member
        subscription.backlog.add(publications, self._backlog_bytes - _backlog_level(member))
        if subscription.live:
            member.behind[subscription.channel] = subscription

    def _restart(self, subscription: Subscription) -> None:
        """Have a reader start over on a channel it can no longer follow."""
        member, channel = subscription.member, subscription.channel
        if not self.unsubscribe(member, channel):
            return
        member.on_unsubscribed(channel)
        emit = member.dialect.encode_unsubscribe
        # SDKs take up again by themselves what they asked for; a channel that came with the
        # connection comes again with the next one.
        if (
            not channel.is_thread
            or emit is None
            or not member.outbox.put(emit(channel.visible, *INSUFFICIENT_STATE))
        ):
            member.close(codes.SLOW)


def _backlog_level(member: Subscriber) -> int:
    return sum(one.backlog.level for one in member.subscriptions.values())


def _encode_all(dialect: Encoding, channel: Channel, publications: Sequence[Publication]) -> bytes:
    made = [dialect.encode(channel, publication) for publication in publications]
    return made[0] if len(made) == 1 else dialect.separator.join(made)
