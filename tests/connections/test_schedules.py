"""Readers under explored schedules: however they resume, they show the thread."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import detangle
import msgspec
import pytest

from tests.kit import reading_scenarios
from towpath.channels import Channel
from towpath.connections.answers import first_answer
from towpath.connections.commands import CommandHandler
from towpath.delivery import catch_up, outbox
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import Recovered, Recovery
from towpath.delivery.ring import Ring
from towpath.delivery.subscriber import Subscription
from towpath.log.broker import Publication, Replay
from towpath.protocol import frames
from towpath.runs.questions import StoredThread
from towpath.testing.memory_broker import MemoryBroker

RUNS = 150
SEEDED_RUNS = 2000
"""At most; a seeded race is found within a few hundred, most within ten."""
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def small_messages(monkeypatch: Patch) -> None:
    """Split the output into small messages: the line may break between any two."""
    monkeypatch.setattr(outbox, "MESSAGE_BYTES", 512)


def explored(scenario: Callable[[], Awaitable[None]], runs: int = RUNS) -> detangle.ExploreStats:
    """Explore a scenario under this many schedules, with a strategy of its own."""
    return detangle.explore(
        scenario,  # type: ignore[arg-type]
        runs=runs,
        strategy=detangle.RandomWalk(),
        database=False,
        shrink=False,
    )


def assert_found() -> None:
    """Assert that readers find the seeded race."""
    with pytest.raises(detangle.BugFound):
        explored(reading_scenarios.readers, SEEDED_RUNS)


def unchecked(self: Ring, cursor: int) -> list[Publication]:
    """Return what a ring holds without a check that it reaches back to the cursor."""
    return self._publications[max(0, cursor - self.base) :] or [Publication(self.top, b"", {})]


def test_p3_r73_r79_r80_readers_meet_a_thread_that_is_written_and_trimmed() -> None:
    """Two devices that resume while runs go on, end and are trimmed both show the thread."""
    assert explored(reading_scenarios.readers).distinct_schedules > RUNS / 2


def test_a_thread_that_moved_on_while_it_was_looked_at_is_found(monkeypatch: Patch) -> None:
    """Snapshot and log read at two moments: text is missing: found."""

    async def trusting(self: Any, channel: Channel, user: str, stored: StoredThread) -> Any:
        fold, replay = stored.fold(), await self._broker.read(channel, stored.offset)
        for publication in replay.publications:
            fold.feed(msgspec.json.decode(publication.data))
        return fold, replay

    monkeypatch.setattr(Recovery, "_fold", trusting)
    assert_found()


def test_an_answer_to_who_left_meanwhile_is_found(monkeypatch: Patch) -> None:
    """A tail written after its subscription ended is doubled by the next one: found."""
    monkeypatch.setattr(Hub, "may_write", lambda self, subscription: True)
    assert_found()


def test_a_tail_cut_where_no_position_is_complete_is_found(monkeypatch: Patch) -> None:
    """A tail with a position only at its end is doubled if the line breaks within: found."""

    def careless(subscription: Subscription, answer: Recovered) -> Iterator[tuple[bytes, int]]:
        encoding, channel = subscription.subscriber.encoding, subscription.channel
        *within, last = answer.publications
        for item in within:
            yield encoding.encode(channel, item._replace(offset=0)), item.offset
        yield encoding.encode(channel, last), last.offset

    monkeypatch.setattr(catch_up, "_frames", careless)
    assert_found()


def test_a_reader_that_is_answered_before_it_listens_is_found(monkeypatch: Patch) -> None:
    """Publications between the reply and the subscription are lost: found."""

    async def late(
        self: Any, number: int, channel: Channel, request: frames.SubscribeRequest
    ) -> None:
        user = self.session.principal.user
        result = await first_answer(self._parts.recovery, channel, user, request)
        subscription = self._parts.hub.subscribe(self.subscriber, channel)
        self._reply(number, result)
        self._parts.hub.go_live(subscription, result.offset)

    monkeypatch.setattr(CommandHandler, "_subscribe", late)
    monkeypatch.setattr(Ring, "_taken", unchecked)
    assert_found()


def test_a_ring_that_does_not_reach_back_and_says_nothing_is_found(monkeypatch: Patch) -> None:
    """A ring that is taken for whole where it was trimmed leaves a gap: found."""
    monkeypatch.setattr(Ring, "_taken", unchecked)
    assert_found()


def test_a_reader_that_overtakes_what_waits_is_found(monkeypatch: Patch) -> None:
    """Publications that are given past those that wait leave a gap: found."""

    def skip(self: Hub, subscription: Subscription) -> None:
        subscription.cursor = subscription.ring.top

    monkeypatch.setattr(Hub, "fall_behind", skip)
    assert_found()


def test_a_log_that_calls_a_part_the_whole_is_found(monkeypatch: Patch) -> None:
    """A log that does not report what it trimmed leaves a gap: found."""
    real = MemoryBroker.read

    async def partly(self: Any, channel: Channel, after: int, **given: Any) -> Replay:
        replay = await real(self, channel, after, **given)
        if replay.gone and channel.is_thread and after < replay.top:
            kept = [one for _, one in self._logs[channel].kept if one.offset > after]
            return Replay(replay.epoch, replay.top, kept)
        return replay

    monkeypatch.setattr(MemoryBroker, "read", partly)
    assert_found()
