"""One reader on this node, and the channels it reads."""

from collections.abc import Callable
from dataclasses import dataclass, field

from towpath.channels import Channel
from towpath.codes import CloseCode
from towpath.delivery.backlog import Backlog
from towpath.delivery.encoding import JSON, Encoding
from towpath.delivery.outbox import Outbox
from towpath.identity import Principal


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscriber reading one channel."""

    subscriber: "Subscriber"
    channel: Channel
    offset: int = 0
    """The offset of the last publication put into the outbox; meaningful once live."""
    live: bool = False
    """False while it is joining."""
    answered: bool = False
    """Whether it has had its first answer."""
    invalid: bool = False
    """Whether positions became invalid before that; then it ends once it has the answer."""
    backlog: Backlog = field(default_factory=Backlog)
    """The publications since it began to join, or since it fell behind."""

    @property
    def is_current(self) -> bool:
        """Whether it is current: it has not ended, and no other subscription has replaced it."""
        return self.subscriber.subscriptions.get(self.channel) is self

    @property
    def is_behind(self) -> bool:
        """Whether the reader takes less than is published, on a channel that can be folded."""
        subscriber, channel = self.subscriber, self.channel
        return channel in subscriber.behind or (channel.is_thread and subscriber.outbox.behind)


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection as the hub knows it."""

    id: str
    principal: Principal
    outbox: Outbox
    close: Callable[[CloseCode], None]
    """Ends the connection; idempotent, must not block."""
    on_unsubscribed: Callable[[Channel], None] = lambda _: None
    """Called when the hub itself ended a subscription."""
    encoding: Encoding = JSON
    internal: bool = False
    """Whether the application itself reads: an internal reader is no connection of the person."""
    thread: str | None = None
    """The thread that the application noted for the connection."""
    subscriptions: dict[Channel, Subscription] = field(default_factory=dict)
    behind: dict[Channel, Subscription] = field(default_factory=dict)
    """The subscriptions that are live and have a backlog."""

    @property
    def alive(self) -> bool:
        """Whether the connection has not ended; one that ends still leaves the hub."""
        return not self.outbox.closed

    @property
    def backlog_bytes(self) -> int:
        """How much waits in the backlogs of all its subscriptions."""
        return sum(one.backlog.level for one in self.subscriptions.values())
