"""The readers on this node, and delivery to them.

A publication is encoded once per encoding, when the first reader needs it, and the same bytes go
into every reader's outbox. A subscription is *joining* while its first answer is made. What is
published meanwhile waits in its backlog, and `go_live` delivers what the answer did not contain. So
the live stream follows the answer without a gap, without a duplicate, and without a lock.

A reader that takes less than is published *falls behind*: publications for it wait in its backlog
too, and `catch_up` puts them into the outbox, merged, once the outbox is empty. A backlog that
grows too large is dropped, and the reader has to be answered from the log like one that joins
(`rejoin`, then `go_live`). A reader that keeps up needs none of this.

The right to read is checked twice: when subscribing, and here again at each write.

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
from towpath.delivery.backlog import Backlog
from towpath.delivery.encoding import Batch
from towpath.delivery.subscriber import Subscriber, Subscription
from towpath.identity import Principal
from towpath.log.broker import Publication
from towpath.settings import BACKLOG_BYTES

INSUFFICIENT_STATE = (2500, "insufficient state")
"""The unsubscribe code after which SDKs subscribe again by themselves."""

MayRead = Callable[[Principal, Channel], bool]


class Attachable(Protocol):
    """A log that delivers attached channels; see `towpath.log.broker.Broker`."""

    def attach(self, channel: Channel) -> None:
        """Deliver what is published in this channel from now on."""

    def detach(self, channel: Channel) -> None:
        """Deliver nothing of this channel any more."""


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
            may_read: the access policy, called at each write.
            max_connections: how many connections one user may have.
            max_tenant_connections: how many all users of a tenant may have together.
            backlog_bytes: how much may wait in the backlogs of one connection.
        """
        self._may_read = may_read
        self._max_connections = max_connections
        self._max_tenant_connections = max_tenant_connections
        self._backlog_bytes = backlog_bytes
        self._log: Attachable | None = None
        self._by_tenant: Counter[str] = Counter()
        self._subscribers: dict[str, Subscriber] = {}
        self._by_user: dict[tuple[str, str], dict[str, Subscriber]] = {}
        self._readers: dict[Channel, dict[str, Subscription]] = {}
        self._awaited: dict[tuple[str, str], set[asyncio.Future[None]]] = {}
        """The futures of `wait_for`, by person."""
        self.withheld = 0
        """Publications dropped by the access policy: a fault of ours each time, never of the
        reader."""

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return sum(map(len, self._readers.values()))

    @property
    def waiting_bytes(self) -> int:
        """How much waits in all outboxes together."""
        return sum(one.outbox.level for one in self._subscribers.values())

    @property
    def backlog_bytes(self) -> int:
        """How much waits in all backlogs together."""
        return sum(one.backlog_bytes for one in self._subscribers.values())

    @property
    def largest_bytes(self) -> int:
        """How much waits for the connection with the most: its outbox and its backlogs."""
        levels = (one.outbox.level + one.backlog_bytes for one in self._subscribers.values())
        return max(levels, default=0)

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
        subscriptions = self._readers.get(channel, {}).values()
        return [
            one.subscriber
            for one in subscriptions
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

    def subscribe(self, subscriber: Subscriber, channel: Channel) -> Subscription:
        """Begin joining a channel: its publications wait in the backlog until `go_live`."""
        subscription = Subscription(subscriber, channel)
        subscriber.subscriptions[channel] = subscription
        readers = self._readers.setdefault(channel, {})
        if not readers and self._log is not None:
            self._log.attach(channel)
        readers[subscriber.id] = subscription
        return subscription

    def unsubscribe(self, subscriber: Subscriber, channel: Channel) -> bool:
        """Stop reading a channel; return whether the subscriber did read it."""
        subscriber.behind.pop(channel, None)
        if subscriber.subscriptions.pop(channel, None) is None:
            return False
        readers = self._readers[channel]
        readers.pop(subscriber.id, None)
        if not readers:
            del self._readers[channel]
            if self._log is not None:
                self._log.detach(channel)
        return True

    def go_live(self, subscription: Subscription, offset: int) -> None:
        """End joining: deliver the part of the backlog that is newer than the answer's offset.

        The answer must be in the outbox already. A subscription that ended meanwhile stays ended.
        """
        subscription.live = subscription.answered = True
        subscription.offset = offset
        if not subscription.is_current:
            return
        if subscription.invalid:
            self._restart(subscription)
            return
        self._give(subscription)
        self._notify(subscription.subscriber.principal)

    def rejoin(self, subscription: Subscription) -> None:
        """Begin joining anew after `catch_up` returned it: publications wait from now on."""
        subscription.live = False
        subscription.backlog = Backlog()

    def catch_up(self, subscriber: Subscriber) -> list[Subscription]:
        """Put a reader's backlogs into its outbox; call this when the outbox is empty.

        Returns:
            The subscriptions whose backlog was given up, to be answered from the log.
        """
        behind, subscriber.behind = subscriber.behind, {}
        given_up = [one for one in behind.values() if one.backlog.given_up]
        for subscription in behind.values():
            if not subscription.backlog.given_up and subscription.live:
                self._give(subscription)
        return given_up

    def fall_behind(self, subscription: Subscription, offset: int) -> None:
        """Mark a reader as behind again, at the last offset it was sent, until `catch_up`."""
        subscription.live = True
        subscription.offset = offset
        subscription.backlog.give_up()
        subscription.subscriber.behind[subscription.channel] = subscription

    def may_write(self, subscription: Subscription) -> bool:
        """Whether a subscription is current, and its subscriber may still read the channel."""
        if not subscription.is_current:
            return False
        may = self._may_read(subscription.subscriber.principal, subscription.channel)
        self.withheld += not may
        return may

    def readers(self, channel: Channel) -> list[Subscriber]:
        """Return the readers of a channel on this node."""
        subscribers = [one.subscriber for one in self._readers.get(channel, {}).values()]
        return [one for one in subscribers if not one.internal]

    def deliver(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """Put publications into the outbox of every reader of their channel."""
        readers = self._readers.get(channel)
        if not readers or not publications:
            return
        first, last = publications[0].offset, publications[-1].offset
        batch = Batch(channel, publications)
        for subscription in list(readers.values()):
            subscriber = subscription.subscriber
            if not self._may_read(subscriber.principal, channel):
                self.withheld += 1
            elif not subscription.live or subscription.is_behind:
                self._wait(subscription, publications)
            elif first != subscription.offset + 1:
                self._give_rest(subscription, batch)
            else:
                self._put(subscription, first, last, batch.joined(subscriber.encoding))

    def reset(self, channel: Channel | None) -> None:
        """Let the readers of a channel subscribe anew: their positions are no longer valid.

        A reader that is joining gets its answer first, which may be older than the reset.

        Args:
            channel: the channel; None for every channel.
        """
        for one in list(self._readers) if channel is None else [channel]:
            for subscription in list(self._readers.get(one, {}).values()):
                if subscription.answered:
                    self._restart(subscription)
                else:
                    subscription.invalid = True

    def _give(self, subscription: Subscription) -> None:
        """Send a live reader its backlog, merged; a given-up backlog waits for `catch_up`."""
        subscriber = subscription.subscriber
        if subscription.backlog.given_up:
            subscriber.behind[subscription.channel] = subscription
            subscriber.outbox.wake()
            return
        for publication in subscription.backlog.take(subscription.offset):
            frame = subscriber.encoding.encode(subscription.channel, publication)
            first = subscription.offset + 1 if publication.tags.get("from") else publication.offset
            self._put(subscription, first, publication.offset, frame)

    def _give_rest(self, subscription: Subscription, batch: Batch) -> None:
        """Send a reader those publications of a batch that it was not sent yet."""
        frames = batch.frames(subscription.subscriber.encoding)
        for publication, frame in zip(batch.publications, frames, strict=True):
            if publication.offset > subscription.offset:
                self._put(subscription, publication.offset, publication.offset, frame)

    def _put(self, subscription: Subscription, first: int, last: int, frame: bytes) -> None:
        """Send a reader the next frame; a reader that would see a gap subscribes anew instead."""
        if first != subscription.offset + 1:
            self._restart(subscription)
        elif subscription.subscriber.outbox.put(frame):
            subscription.offset = last
        else:
            subscription.subscriber.close(codes.SLOW)

    def _wait(self, subscription: Subscription, publications: Sequence[Publication]) -> None:
        """Add publications to the backlog, as far as there is room."""
        subscriber = subscription.subscriber
        subscription.backlog.add(publications, self._backlog_bytes - subscriber.backlog_bytes)
        if subscription.live:
            subscriber.behind[subscription.channel] = subscription

    def _restart(self, subscription: Subscription) -> None:
        """End a subscription that would have a gap, so that the reader subscribes anew."""
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
