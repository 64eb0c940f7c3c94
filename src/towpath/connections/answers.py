"""Converts values of recovery, log and hub to the results of commands on channels.

Source: WIRE sections 5 and 6.
"""

from collections.abc import Sequence

from msgspec import UNSET, Raw

from towpath.channels import Channel
from towpath.delivery.recovery import Recovered, RecoverFrom, Recovery
from towpath.delivery.subscriber import Subscriber
from towpath.errors import UnrecoverablePosition
from towpath.log.broker import Position, Publication, Replay
from towpath.protocol import frames


async def first_answer(
    recovery: Recovery, channel: Channel, user: str, request: frames.SubscribeRequest
) -> frames.SubscribeResult:
    """Return the result of a subscribe, with the first publications for a new reader.

    Raises:
        UnknownChannel: this user has no such thread.
        UnrecoverablePosition: the position is gone, and the client wants an error in that case.
        StorageError: the log cannot be read now.
    """
    recover_from = RecoverFrom(request.recover, Position(request.epoch, request.offset))
    answer = await recovery.answer(channel, user, recover_from)
    if request.recover and not answer.recovered and request.flag & frames.REJECT_UNRECOVERED:
        raise UnrecoverablePosition
    publications = answer.publications
    if channel.is_thread:
        publications = _only_last_offset(publications)
    return _subscribe_result(answer, publications, was_recovering=request.recover)


def _subscribe_result(
    answer: Recovered, publications: Sequence[Publication], *, was_recovering: bool
) -> frames.SubscribeResult:
    return frames.SubscribeResult(
        epoch=answer.epoch,
        offset=answer.top,
        recovered=answer.recovered,
        was_recovering=was_recovering,
        publications=[_frame(one) for one in publications] or UNSET,
    )


def _only_last_offset(publications: list[Publication]) -> list[Publication]:
    """Return the publications of one reply, of which only the last has an offset.

    A reply arrives as a whole or not at all, so no client resumes from a position inside it.
    """
    return [one._replace(offset=0) for one in publications[:-1]] + publications[-1:]


def history_result(replay: Replay) -> frames.HistoryResult:
    """Return the answer to history."""
    publications = [_frame(one) for one in replay.publications]
    return frames.HistoryResult(publications=publications, epoch=replay.epoch, offset=replay.top)


def presence_result(readers: Sequence[Subscriber]) -> frames.PresenceResult:
    """Return the answer to presence: every connection that reads the channel."""
    clients = {one.id: frames.ClientInfo(user=one.principal.user, client=one.id) for one in readers}
    return frames.PresenceResult(presence=clients)


def presence_stats_result(readers: Sequence[Subscriber]) -> frames.PresenceStatsResult:
    """Return the answer to presence_stats: how many connections and users read the channel."""
    users = {one.principal.user for one in readers}
    return frames.PresenceStatsResult(num_clients=len(readers), num_users=len(users))


def _frame(one: Publication) -> frames.Publication:
    return frames.Publication(
        data=Raw(one.data), offset=one.offset or UNSET, tags=one.tags or UNSET
    )
