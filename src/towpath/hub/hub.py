"""Who listens on this node, and delivery to them.

A publication is encoded once, when the first reader needs it, and the same bytes go into every
reader's outbox. A subscription is *joining* while its first answer is made: what is published
meanwhile waits beside it, and `go_live` lets through what the answer did not contain. So the
answer and the live stream meet without a gap and without a duplicate, and no lock is held.

The right to read is asked for twice: by whoever subscribes, and here again at each write.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET, Raw

from towpath import codes
from towpath.channels import Channel
from towpath.codes import CloseCode, ErrorCode
from towpath.context import Principal
from towpath.hub.outbox import Outbox
from towpath.protocol import codec_json as codec
from towpath.protocol import frames
from towpath.streams.broker import Publication

JOINING_BOUND = 10_000
"""How many publications may wait beside one subscription; past it the reader starts over."""
INSUFFICIENT_STATE = (2500, "insufficient state")
"""The unsubscribe code after which SDKs subscribe again by themselves."""

MayRead = Callable[[Principal, Channel], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
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
            offset=publication.offset,
            tags=publication.tags or UNSET,
        ),
    )


JSON = Dialect(_encode, codec.SEPARATOR, codec.encode_unsubscribe)
"""The Centrifuge protocol's JSON."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One member reading one channel."""

    member: "Member"
    channel: Channel
    offset: int = 0
    """Of the last publication put into the outbox; meaningful once live."""
    waiting: list[tuple[int, bytes]] | None = field(default_factory=list)
    """What came while joining, by offset; None once live."""


@dataclass(slots=True, eq=False)
class Member:
    """One connection as the hub knows it."""

    id: str
    principal: Principal
    outbox: Outbox
    close: Callable[[CloseCode], None]
    """Ends the connection; idempotent, must not block."""
    left: Callable[[Channel], None] = lambda _: None
    """Hears of a subscription that the hub ended by itself."""
    dialect: Dialect = JSON
    subscriptions: dict[Channel, Subscription] = field(default_factory=dict)


class Hub:
    """The connections of this node, and the channels they read."""

    def __init__(
        self, may_read: MayRead, *, max_connections: int, max_tenant_connections: int = 10_000
    ) -> None:
        """Make an empty hub.

        Args:
            may_read: the policy, asked at each write.
            max_connections: how many connections one user may have.
            max_tenant_connections: how many all users of a tenant may have together.
        """
        self._may_read = may_read
        self._max_connections = max_connections
        self._max_tenant_connections = max_tenant_connections
        self._by_tenant: Counter[str] = Counter()
        self._members: dict[str, Member] = {}
        self._by_user: dict[tuple[str, str], dict[str, Member]] = {}
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

    def connect(self, member: Member) -> ErrorCode | CloseCode | None:
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

    def disconnect(self, member: Member) -> None:
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

    def members(self, tenant: str, user: str) -> list[Member]:
        """Return the connections of one person on this node."""
        return list(self._by_user.get((tenant, user), {}).values())

    def end(self, named: Callable[[Principal], bool], code: CloseCode) -> int:
        """End the connections of these principals, at once, and return how many there were."""
        ended = [member for member in self._members.values() if named(member.principal)]
        for member in ended:
            member.close(code)
        return len(ended)

    def subscribe(self, member: Member, channel: Channel) -> Subscription:
        """Begin joining a channel: from now on its publications wait beside the subscription."""
        subscription = Subscription(member, channel)
        member.subscriptions[channel] = subscription
        self._readers.setdefault(channel, {})[member.id] = subscription
        return subscription

    def unsubscribe(self, member: Member, channel: Channel) -> bool:
        """Stop reading a channel; return whether the member did read it."""
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
        waiting, subscription.waiting = subscription.waiting or [], None
        subscription.offset = offset
        if subscription.member.subscriptions.get(subscription.channel) is not subscription:
            return
        for at, frame in waiting:
            if at > subscription.offset:
                self._put(subscription, at, at, frame)

    def readers(self, channel: Channel) -> list[Member]:
        """Return who reads a channel on this node."""
        return [subscription.member for subscription in self._readers.get(channel, {}).values()]

    def deliver(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """Put publications into the outbox of everyone who reads their channel."""
        readers = self._readers.get(channel)
        if not readers or not publications:
            return
        first, last = publications[0].offset, publications[-1].offset
        written: dict[Dialect, tuple[list[bytes], bytes]] = {}
        for subscription in list(readers.values()):
            dialect = subscription.member.dialect
            if dialect not in written:
                made = [dialect.encode(channel, publication) for publication in publications]
                written[dialect] = (made, dialect.separator.join(made))
            encoded, joined = written[dialect]
            if not self._may_read(subscription.member.principal, channel):
                self.withheld += 1
            elif subscription.waiting is not None:
                self._wait(subscription, publications, encoded)
            elif first == subscription.offset + 1:
                self._put(subscription, first, last, joined)
            else:
                for publication, frame in zip(publications, encoded, strict=True):
                    if publication.offset > subscription.offset:
                        self._put(subscription, publication.offset, publication.offset, frame)

    def _put(self, subscription: Subscription, first: int, last: int, frame: bytes) -> None:
        """Give a reader what comes next; one that would see a gap subscribes anew instead."""
        if first != subscription.offset + 1:
            self._restart(subscription)
        elif subscription.member.outbox.put(frame):
            subscription.offset = last
        else:
            subscription.member.close(codes.SLOW)

    def _wait(
        self, subscription: Subscription, publications: Sequence[Publication], encoded: list[bytes]
    ) -> None:
        waiting = subscription.waiting
        assert waiting is not None, "the subscription is joining"
        if len(waiting) + len(encoded) > JOINING_BOUND:
            # What is thrown away here shows as a gap when it goes live, and is answered there.
            waiting.clear()
        pairs = zip(publications, encoded, strict=True)
        waiting.extend((publication.offset, frame) for publication, frame in pairs)

    def _restart(self, subscription: Subscription) -> None:
        """Have a reader start over on a channel it can no longer follow."""
        member, channel = subscription.member, subscription.channel
        if not self.unsubscribe(member, channel):
            return
        member.left(channel)
        tell = member.dialect.encode_unsubscribe
        # SDKs take up again by themselves what they asked for; a channel that came with the
        # connection comes again with the next one.
        if (
            not channel.is_thread
            or tell is None
            or not member.outbox.put(tell(channel.visible, *INSUFFICIENT_STATE))
        ):
            member.close(codes.SLOW)
