"""Giving a reader that fell behind what it missed, once it takes something again.

The backlogs of its subscriptions come first, merged. A subscription whose backlog was given up is
answered from the log, as if the reader had come back with its position: one mechanism serves both.

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
    """Fill a reader's empty outbox with what it missed; False where it missed nothing."""
    given_up = hub.catch_up(subscriber)
    for subscription in given_up:
        hub.rejoin(subscription)  # All of them first: answering one takes its time.
    for subscription in given_up:
        answer = await _tail(recovery, subscription)
        _answer(hub, telemetry, subscription, answer)
    return subscriber.outbox.level > 0


async def _tail(recovery: Recovery, subscription: Subscription) -> Recovered | None:
    """Return what was published after the last offset the reader was given; None if unavailable."""
    try:
        return await recovery.tail(subscription.channel, subscription.offset)
    except StorageError:
        return None


def _answer(
    hub: Hub, telemetry: Telemetry, subscription: Subscription, answer: Recovered | None
) -> None:
    """Put an answer into the outbox, as far as there is room; the rest follows the next time."""
    subscriber = subscription.subscriber
    if not hub.may_write(subscription):
        return  # It ended meanwhile, or the right to it did; another one may have begun.
    if answer is None:
        # What it missed cannot be had here: it reconnects with its position, and learns more.
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

    A connection may break between any two frames. The reader comes back with the last offset it
    was given, and must not have been given anything that comes after that offset.
    """
    held: list[bytes] = []
    for publication in answer.publications:
        held.append(encoding.encode(channel, publication))
        if publication.offset:
            yield encoding.separator.join(held), publication.offset
            held = []
