"""Sends the missed publications to a reader that fell behind, once its outbox is empty.

The rings of its channels come first. A subscription whose cursor is before the ring gets the folded
tail of the log, a legal continuation, on the same connection. A reader that missed more than a tail
may hold subscribes anew and gets a snapshot, if its encoding has a way to say so.

Source: WIRE section 9.
"""

from collections.abc import Iterator

from towpath import codes
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import Recovered, Recovery
from towpath.delivery.subscriber import Subscriber, Subscription
from towpath.errors import StorageError
from towpath.telemetry import CaughtUp, Telemetry


async def catch_up(
    subscriber: Subscriber, *, hub: Hub, recovery: Recovery, telemetry: Telemetry
) -> bool:
    """Fill a reader's empty outbox with missed publications; return False if there are none."""
    for subscription in hub.catch_up(subscriber):
        try:
            answer = await recovery.tail(subscription.channel, subscription.cursor)
        except StorageError:
            if subscription.is_current:
                subscriber.close(codes.SLOW)  # It comes back with its position.
            continue
        _give(hub, telemetry, subscription, answer)
    return subscriber.alive and bool(subscriber.outbox.level or subscriber.behind)


def _give(
    hub: Hub, telemetry: Telemetry, subscription: Subscription, answer: Recovered | None
) -> None:
    """Put a tail into the outbox, as far as it has room; the next catch-up sends the rest."""
    subscriber = subscription.subscriber
    if not hub.may_write(subscription):
        # If it ended while the log was read, another subscription may be behind now.
        if subscription.is_current:
            del subscriber.behind[subscription.channel]
        return
    can_restart = subscription.channel.is_thread and subscriber.encoding.encode_unsubscribe
    if answer is None or (answer.more and can_restart):
        hub.restart(subscription)
        return
    for frame, offset in _frames(subscription, answer):
        if frame and not subscriber.outbox.put(frame, answer=True):
            return
        subscription.cursor = offset
    subscription.cursor = answer.top
    telemetry.emit(CaughtUp(connection=subscriber.id, publications=len(answer.publications)))
    if not answer.more:
        hub.give(subscription)


def _frames(subscription: Subscription, answer: Recovered) -> Iterator[tuple[bytes, int]]:
    """Yield a tail in frames that each complete a position, with the offset of that position.

    A connection may break between any two frames. The reader reconnects with the last offset it
    received, and must not have received any publication after that offset.
    """
    encoding, shows = subscription.subscriber.encoding, subscription.shows
    held: list[bytes] = []
    for publication in answer.publications:
        if shows is None or shows(publication):
            held.append(encoding.encode(subscription.channel, publication))
        if publication.offset:
            yield encoding.separator.join(held), publication.offset
            held = []
