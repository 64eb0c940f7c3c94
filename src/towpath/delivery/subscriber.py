"""One reader on this node, and its cursors into the channels it reads."""

from collections.abc import Callable
from dataclasses import dataclass, field

from towpath.channels import Channel
from towpath.codes import CloseCode
from towpath.delivery.encoding import JSON, Encoding
from towpath.delivery.outbox import Outbox
from towpath.delivery.ring import Piece, Ring
from towpath.identity import Principal
from towpath.log.broker import Publication

Shows = Callable[[Publication], bool]
"""Whether a reader is shown a publication; called once for each publication, in order."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscriber reading one channel: a cursor into what is published there."""

    subscriber: "Subscriber"
    channel: Channel
    ring: Ring
    """The last publications of the channel, shared by all of its readers."""
    shows: Shows | None = None
    """What this reader is shown; None shows everything."""
    cursor: int = 0
    """The offset up to which everything was put into the outbox; meaningful once live."""
    live: bool = False
    """Whether it has had its first answer: until then nothing is put into the outbox."""
    invalid: bool = False
    """Whether positions became invalid before that; then it ends once it has the answer."""

    @property
    def is_current(self) -> bool:
        """Whether it is current: it has not ended, and no other subscription has replaced it."""
        return self.subscriber.subscriptions.get(self.channel) is self

    @property
    def is_behind(self) -> bool:
        """Whether publications after its cursor wait until the outbox is empty."""
        return self.channel in self.subscriber.behind

    def piece(self, *, merge: bool) -> Piece | None:
        """Return what follows the cursor, which is below the top of the ring.

        Args:
            merge: whether consecutive text deltas are merged.

        Returns:
            The next piece, perhaps without data; None if the ring does not reach back.
        """
        encoding, merge = self.subscriber.encoding, merge and self.channel.is_thread
        if self.shows is None:
            return self.ring.piece(self.cursor, encoding, merge=merge)
        taken = self.ring.after(self.cursor, merge=merge)
        if taken is None:
            return None
        shown = filter(self.shows, taken)
        return Piece(encoding.join(self.channel, shown), taken[-1].offset)


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
    """The live subscriptions with publications after their cursors, which wait until the outbox is
    empty."""

    @property
    def alive(self) -> bool:
        """Whether the connection has not ended; one that ends still leaves the hub."""
        return not self.outbox.closed
