"""Giving a reader that fell behind what it missed, once it takes something again.

What waits beside its subscriptions comes first, merged. A subscription whose backlog was given up
is answered from the log, as if the reader had come back with its position: one mechanism serves
both.

Source: WIRE section 9.
"""

from collections.abc import Iterator

from towpath import codes
from towpath.channels import Channel
from towpath.connections.commands import Parts
from towpath.delivery.hub import Subscriber, Subscription
from towpath.delivery.recovery import Recovered
from towpath.errors import StorageError
from towpath.log.broker import Publication
from towpath.telemetry import CaughtUp


async def catch_up(parts: Parts, member: Subscriber) -> bool:
    """Fill a reader's empty outbox with what it fell behind with; False where there is nothing."""
    given_up = parts.hub.catch_up(member)
    for subscription in given_up:
        parts.hub.rejoin(subscription)  # All of them first: answering one takes its time.
    for subscription in given_up:
        await _answer(parts, subscription)
    return member.outbox.level > 0


async def _answer(parts: Parts, subscription: Subscription) -> None:
    """Answer a subscription from the log, from the last offset the reader was given.

    What the outbox has no room for now follows when that is empty again.
    """
    member, channel = subscription.member, subscription.channel
    try:
        answer = await parts.recovery.tail(channel, subscription.offset)
    except StorageError:
        answer = None
    if not parts.hub.may_write(subscription):
        return  # It ended meanwhile, or the right to it did; another one may have begun.
    if answer is None:
        # What it missed cannot be had here: it comes back with its position, and learns more.
        member.close(codes.SLOW)
        return
    given = subscription.offset
    for frame, offset in _frames(member, channel, answer):
        if not member.outbox.put(frame, answer=True):
            parts.hub.fall_behind(subscription, given)
            return
        given = offset
    parts.hub.go_live(subscription, answer.top)
    parts.telemetry.emit(CaughtUp(connection=member.id, publications=len(answer.publications)))


def _frames(member: Subscriber, channel: Channel, answer: Recovered) -> Iterator[tuple[bytes, int]]:
    """Yield an answer in the reader's dialect, cut only where a position is complete, and that.

    A line may break between any two frames. Whoever comes back then says the last offset it was
    given, and must not have been told anything that comes after that.
    """
    held: list[bytes] = []
    for item in answer.publications:
        offset = item.offset if isinstance(item.offset, int) else 0
        tags = item.tags if isinstance(item.tags, dict) else {}
        publication = Publication(offset, bytes(item.data), tags)
        held.append(member.dialect.encode(channel, publication))
        if offset:
            yield member.dialect.separator.join(held), offset
            held = []
