"""The readers on this node, and delivery to them.

A subscription is a cursor: the offset up to which its reader was given everything. The publications
of a channel with readers are kept in one ring (`towpath.delivery.ring`), and each reader takes what
follows its cursor. A reader that keeps up gets each batch at once, the same bytes as every other
reader. A reader that takes less than is published is *behind*: it takes the next piece, merged,
when its outbox is empty (`catch_up`). A reader whose cursor is before the ring reads the log
(`towpath.delivery.catch_up`).

A new subscription takes nothing until `go_live` names the offset of its first answer. The channel
is attached before that answer is made, so the ring has what the answer has not: the live stream
follows the answer without a gap, without a duplicate, and without a lock.

The right to read is checked twice: when subscribing, and here whenever a reader takes something.

The log delivers only the channels that have a reader: the hub attaches a channel with its first
reader and detaches it with its last one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from towpath import codes
from towpath.channels import Channel
from towpath.codes import CloseCode, ErrorCode
from towpath.delivery.encoding import Encoding
from towpath.delivery.ring import Piece, Ring, Rings, slices
from towpath.delivery.subscriber import Shows, Subscriber, Subscription
from towpath.identity import Principal
from towpath.log.broker import Publication
from towpath.settings import ALL_RINGS_BYTES, RING_BYTES

INSUFFICIENT_STATE = (2500, "insufficient state")
"""The unsubscribe code after which SDKs subscribe again by themselves."""

MayRead = Callable[[Principal, Channel], bool]


class Attachable(Protocol):
    """A log that delivers attached channels; see `towpath.log.broker.Broker`."""

    def attach(self, channel: Channel) -> None:
        """Deliver what is published in this channel from now on."""

    def detach(self, channel: Channel) -> None:
        """Deliver nothing of this channel any more."""


class Readers:
    """The readers of one channel, and the ring that they share."""

    __slots__ = ("ring", "subscriptions")

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.subscriptions: dict[str, Subscription] = {}
        """By the id of the subscriber."""


class Hub:
    """The connections of this node, and the channels they read."""

    def __init__(
        self,
        may_read: MayRead,
        *,
        max_connections: int,
        max_tenant_connections: int = 10_000,
        ring_bytes: int = RING_BYTES,
        all_rings_bytes: int = ALL_RINGS_BYTES,
    ) -> None:
        """Make an empty hub.

        Args:
            may_read: the access policy, called at each write.
            max_connections: how many connections one user may have.
            max_tenant_connections: how many all users of a tenant may have together.
            ring_bytes: how much of a channel with readers is kept for them.
            all_rings_bytes: how much is kept of all channels together.
        """
        self._may_read = may_read
        self._max_connections = max_connections
        self._max_tenant_connections = max_tenant_connections
        self._slice_bytes = ring_bytes // 2
        """How much of a batch is delivered at once: the ring has room for it."""
        self._rings = Rings(ring_bytes=ring_bytes, total_bytes=all_rings_bytes)
        self._log: Attachable | None = None
        self._by_tenant: Counter[str] = Counter()
        self._subscribers: dict[str, Subscriber] = {}
        self._by_user: dict[tuple[str, str], dict[str, Subscriber]] = {}
        self._channels: dict[Channel, Readers] = {}
        self._awaited: dict[tuple[str, str], set[asyncio.Future[None]]] = {}
        """The futures of `wait_for`, by person."""
        self.withheld = 0
        """How often the access policy kept publications from a reader: a fault of ours each time,
        never of the reader."""

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return sum(len(one.subscriptions) for one in self._channels.values())

    @property
    def waiting_bytes(self) -> int:
        """How much waits in all outboxes together."""
        return sum(one.outbox.level for one in self._subscribers.values())

    @property
    def ring_bytes(self) -> int:
        """How much all rings together hold."""
        return self._rings.level

    @property
    def largest_bytes(self) -> int:
        """How much waits in the outbox of the connection with the most."""
        return max((one.outbox.level for one in self._subscribers.values()), default=0)

    def bind(self, log: Attachable) -> None:
        """Attach channels in this log, which delivers to this hub; call it before the first reader.

        A hub without a log delivers whatever it is given.
        """
        self._log = log

    def connect(self, subscriber: Subscriber) -> ErrorCode | CloseCode | None:
        """Add a connection; return the code to answer where the limit of connections is reached."""
        tenant, user = subscriber.principal.tenant, subscriber.principal.user
        if len(self._by_user.get((tenant, user), ())) >= self._max_connections:
            return codes.CONNECTION_LIMIT
        if self._by_tenant[tenant] >= self._max_tenant_connections:
            return codes.TOO_MANY_REQUESTS
        self._by_tenant[tenant] += 1
        self._by_user.setdefault((tenant, user), {})[subscriber.id] = subscriber
        self._subscribers[subscriber.id] = subscriber
        self._notify(subscriber.principal)
        return None

    def disconnect(self, subscriber: Subscriber) -> None:
        """Remove a connection and all its subscriptions; idempotent."""
        if self._subscribers.pop(subscriber.id, None) is None:
            return
        key = (subscriber.principal.tenant, subscriber.principal.user)
        self._by_tenant[key[0]] -= 1
        if not self._by_tenant[key[0]]:
            del self._by_tenant[key[0]]
        self._by_user[key].pop(subscriber.id)
        if not self._by_user[key]:
            del self._by_user[key]
        for channel in list(subscriber.subscriptions):
            self.unsubscribe(subscriber, channel)

    def subscribers(self, tenant: str, user: str) -> list[Subscriber]:
        """Return the connections of one user on this node."""
        return list(self._by_user.get((tenant, user), {}).values())

    def find(self, connection_id: str) -> Subscriber | None:
        """Return a live connection of this node; None if there is none of this id."""
        found = self._subscribers.get(connection_id)
        return found if found is not None and found.alive else None

    def everyone(self) -> Iterator[Subscriber]:
        """Yield every live connection of this node."""
        return (one for one in self._subscribers.values() if one.alive)

    def live_readers(self, channel: Channel) -> list[Subscriber]:
        """Return the live connections that receive what is published in a channel now."""
        return [
            one.subscriber
            for one in self._of(channel)
            if one.live
            and one.subscriber.alive
            and not one.subscriber.internal
            and self._may_read(one.subscriber.principal, channel)
        ]

    async def wait_for(self, tenant: str, user: str, holds: Callable[[], bool]) -> None:
        """Wait until a condition on the connections of a person holds.

        The condition is checked at once, and each time that a connection of the person enters the
        hub or begins to receive a channel.
        """
        person = (tenant, user)
        while not holds():
            changed = asyncio.get_running_loop().create_future()
            waiting = self._awaited.setdefault(person, set())
            waiting.add(changed)
            try:
                await changed
            finally:
                waiting.discard(changed)
                if not waiting and self._awaited.get(person) is waiting:
                    del self._awaited[person]

    def _notify(self, principal: Principal) -> None:
        """Let `wait_for` check its condition again."""
        for changed in self._awaited.get((principal.tenant, principal.user), ()):
            if not changed.done():
                changed.set_result(None)

    def end(self, named: Callable[[Principal], bool], code: CloseCode) -> int:
        """End the connections of these principals, at once, and return how many there were."""
        ended = [one for one in self._subscribers.values() if named(one.principal)]
        for subscriber in ended:
            subscriber.close(code)
        return len(ended)

    def subscribe(
        self, subscriber: Subscriber, channel: Channel, *, shows: Shows | None = None
    ) -> Subscription:
        """Begin reading a channel: nothing is put into the outbox until `go_live`.

        Args:
            subscriber: the reader.
            channel: the channel.
            shows: what the reader is shown; None shows everything.
        """
        readers = self._channels.get(channel)
        if readers is None:
            readers = self._channels[channel] = Readers(self._rings.open(channel))
            if self._log is not None:
                self._log.attach(channel)
        subscription = Subscription(subscriber, channel, readers.ring, shows)
        subscriber.behind.pop(channel, None)
        subscriber.subscriptions[channel] = subscription
        readers.subscriptions[subscriber.id] = subscription
        return subscription

    def unsubscribe(self, subscriber: Subscriber, channel: Channel) -> bool:
        """Stop reading a channel; return whether the subscriber did read it."""
        subscriber.behind.pop(channel, None)
        if subscriber.subscriptions.pop(channel, None) is None:
            return False
        readers = self._channels[channel]
        readers.subscriptions.pop(subscriber.id, None)
        if not readers.subscriptions:
            del self._channels[channel]
            self._rings.forget(readers.ring)
            if self._log is not None:
                self._log.detach(channel)
        return True

    def go_live(self, subscription: Subscription, offset: int) -> None:
        """Deliver from now on what is published after this offset, that of the first answer.

        The answer must be in the outbox already. A subscription that ended meanwhile stays ended.
        """
        subscription.live = True
        subscription.cursor = offset
        if not subscription.is_current:
            return
        if subscription.invalid:
            self.restart(subscription)
            return
        self.give(subscription)
        self._notify(subscription.subscriber.principal)

    def deliver(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """Add publications to the ring of their channel, and give them to its readers."""
        readers = self._channels.get(channel)
        if readers is None:
            return
        for part in slices(publications, self._slice_bytes):
            self._rings.append(readers.ring, part)
            self._give_to_all(readers, part[0].offset - 1)

    def _give_to_all(self, readers: Readers, before: int) -> None:
        """Give the live readers of a channel what was published after an offset.

        This loop runs for each reader of each publication. Readers with the same cursor get the
        same piece, which is looked up once.
        """
        ring, pieces = readers.ring, dict[Encoding, Piece | None]()
        for subscription in list(readers.subscriptions.values()):
            subscriber = subscription.subscriber
            if not subscription.live or (subscriber.behind and subscription.is_behind):
                continue
            outbox, encoding = subscriber.outbox, subscriber.encoding
            if subscription.cursor != before or subscription.shows or outbox.behind:
                self.give(subscription, merge=False)
                continue
            if encoding not in pieces:
                pieces[encoding] = ring.piece(before, encoding, merge=False)
            piece = pieces[encoding]
            if piece is None or piece.last != ring.top:
                self.give(subscription, merge=False)
            elif not self._may_read(subscriber.principal, subscription.channel):
                self.withheld += 1
            elif outbox.put(piece.data, answer=True):
                subscription.cursor = piece.last

    def give(self, subscription: Subscription, *, merge: bool = True) -> None:
        """Give a live reader what follows its cursor; mark it as behind if something is left.

        Args:
            subscription: a current subscription.
            merge: whether consecutive text deltas of a thread are merged.
        """
        subscriber = subscription.subscriber
        while subscription.cursor < subscription.ring.top:
            if subscriber.outbox.behind:
                self.fall_behind(subscription)
                return
            if not self.may_write(subscription):
                break
            piece = subscription.piece(merge=merge)
            if piece is None:
                self.fall_behind(subscription)
                return
            if piece.data and not subscriber.outbox.put(piece.data, answer=True):
                break  # The connection has ended.
            subscription.cursor = piece.last
        subscriber.behind.pop(subscription.channel, None)

    def catch_up(self, subscriber: Subscriber) -> list[Subscription]:
        """Give a reader the next pieces of the channels where it is behind; its outbox is empty.

        Returns:
            The subscriptions whose cursor is before the ring: they read the log.
        """
        for subscription in list(subscriber.behind.values()):
            self.give(subscription)
            if subscriber.outbox.behind:
                return []
        behind = subscriber.behind.values()
        return [one for one in behind if one.cursor < one.ring.base]

    def fall_behind(self, subscription: Subscription) -> None:
        """Mark a reader as behind: it takes the next piece once its outbox is empty."""
        subscriber, channel = subscription.subscriber, subscription.channel
        # The last of those behind: the channels of one reader take turns.
        subscriber.behind.pop(channel, None)
        subscriber.behind[channel] = subscription
        if not subscriber.outbox.level:
            subscriber.outbox.wake()

    def may_write(self, subscription: Subscription) -> bool:
        """Whether a subscription is current, and its subscriber may still read the channel."""
        if not subscription.is_current:
            return False
        may = self._may_read(subscription.subscriber.principal, subscription.channel)
        self.withheld += not may
        return may

    def readers(self, channel: Channel) -> list[Subscriber]:
        """Return the readers of a channel on this node."""
        return [one.subscriber for one in self._of(channel) if not one.subscriber.internal]

    def reset(self, channel: Channel | None) -> None:
        """Let the readers of a channel subscribe anew: their positions are no longer valid.

        A reader that waits for its first answer gets the answer first, which may be older than the
        reset.

        Args:
            channel: the channel; None for every channel.
        """
        for one in list(self._channels) if channel is None else [channel]:
            readers = self._channels.get(one)
            if readers is None:
                continue
            self._rings.reset(readers.ring)
            for subscription in list(readers.subscriptions.values()):
                if subscription.live:
                    self.restart(subscription)
                else:
                    subscription.invalid = True

    def restart(self, subscription: Subscription) -> None:
        """End a subscription that cannot go on, so that the reader subscribes anew."""
        subscriber, channel = subscription.subscriber, subscription.channel
        if not self.unsubscribe(subscriber, channel):
            return
        subscriber.on_unsubscribed(channel)
        encode = subscriber.encoding.encode_unsubscribe
        # SDKs subscribe anew by themselves to channels they subscribed to. A channel that the
        # server subscribed them to when they connected returns only with the next connection.
        if (
            not channel.is_thread
            or encode is None
            or not subscriber.outbox.put(encode(channel.visible, *INSUFFICIENT_STATE))
        ):
            subscriber.close(codes.SLOW)

    def _of(self, channel: Channel) -> list[Subscription]:
        """Return the subscriptions to a channel on this node."""
        readers = self._channels.get(channel)
        return [] if readers is None else list(readers.subscriptions.values())
