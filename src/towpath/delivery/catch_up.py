"""Sends the missed publications to a reader that fell behind, once its outbox is empty.

The backlogs of its subscriptions come first, merged. A subscription whose backlog was given up is
answered from the log, as if the reader had reconnected with its position: one mechanism for both.

Source: WIRE section 9.
"""

from collections.abc import Iterator

from towpath import codes
from towpath.channels import Channel
from towpath.delivery.encoding import Encoding
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import Recovered, Recovery
from towpath.delivery.subscriber import Subscriber, Subscription
from towpath.errors import StorageError
from towpath.telemetry import CaughtUp, Telemetry


async def catch_up(
    subscriber: Subscriber, *, hub: Hub, recovery: Recovery, telemetry: Telemetry
) -> bool:
    """Fill a reader's empty outbox with missed publications; return False if there are none."""
    given_up = hub.catch_up(subscriber)
    for subscription in given_up:
        hub.rejoin(subscription)  # Rejoin all of them first: each answer takes time.
    for subscription in given_up:
        answer = await _tail(recovery, subscription)
        _answer(hub, telemetry, subscription, answer)
    return subscriber.outbox.level > 0


async def _tail(recovery: Recovery, subscription: Subscription) -> Recovered | None:
    """Return the publications after the reader's last offset; None if they are unavailable."""
    try:
        return await recovery.tail(subscription.channel, subscription.offset)
    except StorageError:
        return None


def _answer(
    hub: Hub, telemetry: Telemetry, subscription: Subscription, answer: Recovered | None
) -> None:
    """Put an answer into the outbox, as far as it has room; the next catch-up sends the rest."""
    subscriber = subscription.subscriber
    if not hub.may_write(subscription):
        return  # The subscription, or the right to read, ended meanwhile.
    if answer is None:
        # The log cannot answer: the reader reconnects with its position, and is answered then.
        subscriber.close(codes.SLOW)
        return
    given = subscription.offset
    for frame, offset in _frames(subscriber.encoding, subscription.channel, answer):
        if not subscriber.outbox.put(frame, answer=True):
            hub.fall_behind(subscription, given)
            return
        given = offset
    hub.go_live(subscription, answer.top)
    telemetry.emit(CaughtUp(connection=subscriber.id, publications=len(answer.publications)))


def _frames(encoding: Encoding, channel: Channel, answer: Recovered) -> Iterator[tuple[bytes, int]]:
    """Yield an answer in frames that each complete a position, with the offset of that position.

    A connection may break between any two frames. The reader reconnects with the last offset it
    received, and must not have received any publication after that offset.
    """
    held: list[bytes] = []
    for publication in answer.publications:
        held.append(encoding.encode(channel, publication))
        if publication.offset:
            yield encoding.separator.join(held), publication.offset
            held = []
