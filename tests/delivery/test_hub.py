"""Delivery on this node: once each, in order, to whom may read it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath import codes
from towpath.auth.policy import may_read
from towpath.channels import Channel, tenant_channel, thread_channel, user_channel
from towpath.codes import CloseCode
from towpath.delivery.encoding import Encoding
from towpath.delivery.hub import Hub
from towpath.delivery.outbox import Outbox
from towpath.delivery.subscriber import Subscriber, Subscription
from towpath.identity import Principal
from towpath.log.broker import Publication
from towpath.protocol import codec_json

MIA = Principal(tenant="acme", user="mia")
THREAD = thread_channel("acme", "mia", "t1")


class Recorded(Outbox):
    """An outbox that remembers the very objects put into it."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(lambda: None, max_bytes=max_bytes)
        self.objects: list[bytes] = []

    def put(self, frame: bytes, *, answer: bool = False) -> bool:
        taken = super().put(frame, answer=answer)
        if taken:
            self.objects.append(frame)
        return taken


class Person:
    """A connection, what it was sent, and how it was closed."""

    def __init__(
        self, hub: Hub, principal: Principal = MIA, number: int = 1, max_bytes: int = 10**6
    ) -> None:
        self.hub = hub
        self.outbox = Recorded(max_bytes)
        self.closed: list[CloseCode] = []
        self.unsubscribed_from: list[Channel] = []
        self.subscriber = Subscriber(
            f"c{number}", principal, self.outbox, self.close, self.unsubscribed_from.append
        )
        self.answer = hub.connect(self.subscriber)
        """None for one who was let in, or what to answer."""

    def close(self, code: CloseCode) -> None:
        self.closed.append(code)
        self.outbox.clear()

    def reads(self, channel: Channel = THREAD, offset: int = 0) -> Subscription:
        """Read a channel live from an offset on."""
        subscription = self.hub.subscribe(self.subscriber, channel)
        self.hub.go_live(subscription, offset)
        return subscription

    def pushes(self) -> list[dict[str, Any]]:
        """Return every push sent so far."""
        lines = b"\n".join(self.outbox.objects).splitlines()
        return [json.loads(line)["push"] for line in lines]

    def offsets(self, channel: Channel = THREAD) -> list[int]:
        """Return the offsets a client of this channel has seen."""
        own = [push for push in self.pushes() if push["channel"] == channel.visible]
        return [push["pub"]["offset"] for push in own if "pub" in push]

    def unsubscribed(self) -> list[int]:
        """Return the codes with which subscriptions were ended."""
        return [push["unsubscribe"]["code"] for push in self.pushes() if "unsubscribe" in push]


def hub(max_connections: int = 20, max_tenant_connections: int = 10_000) -> Hub:
    return Hub(
        may_read,
        max_connections=max_connections,
        max_tenant_connections=max_tenant_connections,
    )


def publications(first: int, last: int, size: int = 1) -> list[Publication]:
    return [
        Publication(offset, json.dumps("x" * size).encode(), {"seq": str(offset)})
        for offset in range(first, last + 1)
    ]


# Delivery.


def test_every_reader_gets_the_same_bytes() -> None:
    """A batch is encoded once: all readers are handed one and the same object."""
    node = hub()
    people = [Person(node, number=number) for number in range(3)]
    for person in people:
        person.reads()
    node.deliver(THREAD, publications(1, 5))
    first, *others = [person.outbox.objects for person in people]
    assert len(first) == 1
    assert all(other[0] is first[0] for other in others)


def test_a_publication_is_encoded_once_for_all_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of encodings is that of publications, however many read; who joins needs none."""
    encoded: list[int] = []
    encode = codec_json.encode_publication

    def counted(channel: str, offset: int, data: bytes, tags: Mapping[str, str]) -> bytes:
        encoded.append(offset)
        return encode(channel, offset, data, tags)

    monkeypatch.setattr(codec_json, "encode_publication", counted)
    node = hub()
    node.deliver(THREAD, publications(1, 1))
    assert encoded == []
    one, other, joining = (Person(node, number=number) for number in range(3))
    one.reads(offset=1)
    other.reads(offset=1)
    node.subscribe(joining.subscriber, THREAD)
    node.deliver(THREAD, publications(2, 3))
    assert encoded == [2, 3]


def test_a_reader_sees_the_visible_name_and_the_tags() -> None:
    """Neither tenant nor user is part of what a client sees."""
    node = hub()
    mia = Person(node)
    mia.reads()
    node.deliver(THREAD, [Publication(1, b'{"a":1}', {"run": "r1"}), Publication(2, b"2", {})])
    assert mia.pushes() == [
        {"channel": "thread:t1", "pub": {"data": {"a": 1}, "offset": 1, "tags": {"run": "r1"}}},
        {"channel": "thread:t1", "pub": {"data": 2, "offset": 2}},
    ]


def test_r36_a_misrouted_publication_is_not_written() -> None:
    """A stranger who got among the readers by a fault of ours is sent nothing, and it counts."""
    node = hub()
    mia = Person(node)
    strangers = [
        Person(node, Principal(tenant="acme", user="leo"), 2),
        Person(node, Principal(tenant="other", user="mia"), 3),
    ]
    for person in (mia, *strangers):
        person.reads()
    node.deliver(THREAD, publications(1, 2))
    assert mia.offsets() == [1, 2]
    assert [person.outbox.objects for person in strangers] == [[], []]
    assert node.withheld == 2


def test_r36_what_was_misrouted_while_joining_is_not_written_either() -> None:
    """Going live lets nothing through that the policy refuses."""
    node = hub()
    leo = Person(node, Principal(tenant="acme", user="leo"))
    subscription = node.subscribe(leo.subscriber, THREAD)
    node.deliver(THREAD, publications(1, 2))
    node.go_live(subscription, 0)
    assert leo.outbox.objects == []
    assert node.withheld == 1


def test_r36_rights_that_end_while_reading_end_the_writing() -> None:
    """The policy is asked at each write, not only when subscribing."""
    allowed = True
    node = Hub(lambda *_: allowed, max_connections=20)
    mia = Person(node)
    mia.reads()
    node.deliver(THREAD, publications(1, 1))
    allowed = False
    node.deliver(THREAD, publications(2, 2))
    assert mia.offsets() == [1]


def test_r33_ten_people_of_two_tenants_get_their_own_and_nothing_else() -> None:
    """Same thread ids, same user names: every publication finds its one reader."""
    node = hub()
    people = [
        Person(
            node, Principal(tenant=tenant, user=f"user{number}"), number + 5 * (tenant == "other")
        )
        for tenant in ("acme", "other")
        for number in range(5)
    ]
    channels = [
        thread_channel(p.subscriber.principal.tenant, p.subscriber.principal.user, "t1")
        for p in people
    ]
    for person, channel in zip(people, channels, strict=True):
        person.reads(channel)
        person.reads(tenant_channel(channel.tenant))
    for number, channel in enumerate(channels):
        node.deliver(channel, [Publication(1, json.dumps(number).encode(), {})])
    for number, person in enumerate(people):
        assert [push["pub"]["data"] for push in person.pushes()] == [number]
    assert node.withheld == 0


def test_r38_announcements_stay_in_their_tenant() -> None:
    """Everybody of the tenant, nobody of another."""
    node = hub()
    mia, leo = Person(node), Person(node, Principal(tenant="acme", user="leo"), 2)
    other = Person(node, Principal(tenant="other", user="mia"), 3)
    for person in (mia, leo, other):
        person.reads(tenant_channel(person.subscriber.principal.tenant))
    node.deliver(tenant_channel("acme"), publications(1, 1))
    assert [len(person.pushes()) for person in (mia, leo, other)] == [1, 1, 0]


def test_what_a_reader_has_is_not_sent_again() -> None:
    """A batch that begins before a reader's offset gives only what is newer."""
    node = hub()
    mia = Person(node)
    mia.reads(offset=3)
    node.deliver(THREAD, publications(2, 5))
    node.deliver(THREAD, publications(4, 5))
    assert mia.offsets() == [4, 5]
    assert mia.unsubscribed() == []


# Joining.


@given(
    st.integers(0, 12),
    st.lists(st.integers(1, 4), max_size=6),
    st.integers(0, 6),
    st.integers(0, 30),
)
def test_r73_answer_and_live_stream_meet_without_gap_or_double(
    before: int, batches: list[int], live_after: int, read_at: int
) -> None:
    """Wherever the answer was read and whenever it goes live, each offset comes exactly once."""
    node = hub()
    mia = Person(node)
    subscription, top, answered = node.subscribe(mia.subscriber, THREAD), before, before
    for number, size in enumerate(batches):
        if number == live_after:
            node.go_live(subscription, answered)
        node.deliver(THREAD, publications(top + 1, top + size))
        top += size
        if number < live_after and number <= read_at:
            answered = top - (read_at % size if size else 0)
    if len(batches) <= live_after:
        node.go_live(subscription, answered)
    assert mia.offsets() == list(range(answered + 1, top + 1))
    assert mia.unsubscribed() == []


def test_nothing_is_sent_before_the_answer() -> None:
    """What is published while joining waits beside the subscription."""
    node = hub()
    mia = Person(node)
    node.subscribe(mia.subscriber, THREAD)
    node.deliver(THREAD, publications(1, 3))
    assert mia.outbox.objects == []


@pytest.mark.parametrize("answered", [0, 2, 3, 9])
def test_what_the_answer_held_is_not_sent_again(answered: int) -> None:
    """Only what is newer than the answer's offset follows it."""
    node = hub()
    mia = Person(node)
    subscription = node.subscribe(mia.subscriber, THREAD)
    node.deliver(THREAD, publications(1, 3))
    node.go_live(subscription, answered)
    assert mia.offsets() == list(range(answered + 1, 4))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("channel", [THREAD, user_channel("acme", "mia")])
def test_r73_a_reader_that_would_see_a_gap_reads_the_log(size: int, channel: Channel) -> None:
    """It is given nothing behind the gap until the log has told what is missing."""
    node = hub()
    mia = Person(node)
    subscription = mia.reads(channel, offset=1)
    node.deliver(channel, publications(3, 2 + size))
    node.deliver(channel, publications(3 + size, 9))
    assert mia.offsets(channel) == []
    assert node.catch_up(mia.subscriber) == [subscription]
    assert (mia.closed, mia.unsubscribed_from, subscription.cursor) == ([], [], 1)
    subscription.cursor = 2  # The log has told the missing publication.
    assert node.catch_up(mia.subscriber) == []
    assert mia.offsets(channel) == list(range(3, 10))


@pytest.mark.parametrize("missed", [1, 3])
def test_r73_a_gap_while_joining_is_found_too(missed: int) -> None:
    """What came behind a gap is not given to a reader that has not what came before."""
    node = hub()
    mia = Person(node)
    subscription = node.subscribe(mia.subscriber, THREAD)
    node.deliver(THREAD, publications(missed + 1, missed + 3))
    node.go_live(subscription, 0)
    assert mia.offsets() == []
    assert node.catch_up(mia.subscriber) == [subscription]


def test_r97_what_is_kept_for_joining_readers_is_bounded() -> None:
    """Beyond the bound the oldest publications go, and who needs them reads the log instead."""
    node = Hub(may_read, max_connections=20, ring_bytes=100)
    mia, leo = Person(node, number=1), Person(node, number=2)
    subscription = node.subscribe(mia.subscriber, THREAD)
    late = node.subscribe(leo.subscriber, THREAD)
    for offset in range(1, 41):
        node.deliver(THREAD, publications(offset, offset, size=3))
        assert node.ring_bytes <= 100
    node.go_live(subscription, 0)
    assert mia.offsets() == []
    assert node.catch_up(mia.subscriber) == [subscription]
    node.go_live(late, 36)
    assert leo.offsets() == [37, 38, 39, 40]
    node.disconnect(mia.subscriber)
    assert node.ring_bytes > 0
    node.disconnect(leo.subscriber)
    assert node.ring_bytes == 0


def test_r97_who_cannot_even_be_told_to_start_over_is_too_slow() -> None:
    """A reader is never left in the belief that it still reads a channel."""
    node = hub()
    mia = Person(node, max_bytes=10)
    mia.reads()
    node.reset(THREAD)
    assert mia.closed == [codes.SLOW]


def test_who_leaves_is_not_told_so_by_the_hub() -> None:
    """Only a subscription that the hub ends by itself is news to its session."""
    node = hub()
    mia = Person(node)
    mia.reads()
    node.unsubscribe(mia.subscriber, THREAD)
    assert mia.unsubscribed_from == []


def test_a_subscription_that_ended_meanwhile_stays_ended() -> None:
    """Unsubscribing while joining wins over the answer."""
    node = hub()
    mia = Person(node)
    subscription = node.subscribe(mia.subscriber, THREAD)
    node.deliver(THREAD, publications(1, 1))
    node.unsubscribe(mia.subscriber, THREAD)
    node.go_live(subscription, 0)
    node.deliver(THREAD, publications(2, 2))
    assert mia.outbox.objects == []


def test_an_old_subscription_does_not_speak_for_a_new_one() -> None:
    """Who left and came back gets each offset from the second answer on, once."""
    node = hub()
    mia = Person(node)
    old = node.subscribe(mia.subscriber, THREAD)
    node.deliver(THREAD, publications(1, 1))
    node.unsubscribe(mia.subscriber, THREAD)
    new = node.subscribe(mia.subscriber, THREAD)
    node.go_live(old, 0)
    node.deliver(THREAD, publications(2, 2))
    node.go_live(new, 1)
    assert mia.offsets() == [2]


# Slow readers.


def drained(person: Person) -> None:
    while person.outbox.take():
        pass


def test_r97_r99_a_slow_reader_costs_the_fast_ones_nothing_and_gets_everything() -> None:
    """Its outbox stays under its bound, and the rest leaves the ring once it takes something."""
    node = hub()
    fast = [Person(node, number=number) for number in range(5)]
    slow = Person(node, number=9, max_bytes=2000)
    for person in (*fast, slow):
        person.reads()
    for offset in range(1, 101):
        node.deliver(THREAD, publications(offset, offset, size=100))
    assert slow.closed == []
    assert slow.outbox.level < 2000
    seen = slow.offsets()
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) < 10
    assert node.ring_bytes == 102 * 100
    for person in fast:
        assert person.offsets() == list(range(1, 101))
        drained(person)
    assert node.catch_up(slow.subscriber) == []
    assert slow.offsets() == seen
    drained(slow)
    assert node.catch_up(slow.subscriber) == []
    assert slow.offsets() == list(range(1, 101))
    drained(slow)
    assert (node.waiting_bytes, slow.subscriber.behind) == (0, {})


def test_r97_readers_behind_the_same_gap_get_the_same_bytes() -> None:
    """What one of them is given, merged, is the very object that the others are given."""
    node = hub()
    slow = [Person(node, number=number, max_bytes=2000) for number in range(3)]
    for person in slow:
        person.reads()
    for offset in range(1, 31):
        node.deliver(THREAD, publications(offset, offset, size=100))
    for person in slow:
        drained(person)
        assert node.catch_up(person.subscriber) == []
    first, *others = [person.outbox.objects[-1] for person in slow]
    assert all(other is first for other in others)


def test_r97_channels_of_a_slow_reader_take_turns() -> None:
    """A channel in which much is published does not keep another one from its reader."""
    node = hub()
    slow = Person(node, max_bytes=2000)
    slow.reads()
    other = user_channel("acme", "mia")
    slow.reads(other)
    node.deliver(THREAD, publications(1, 200, size=1000))
    node.deliver(other, publications(1, 1))
    for _ in range(3):
        drained(slow)
        node.catch_up(slow.subscriber)
    assert slow.offsets(other) == [1]


def test_r97_what_comes_while_a_reader_is_behind_waits_its_turn() -> None:
    """Nothing overtakes what waits, though the outbox has room again."""
    node = hub()
    slow = Person(node, max_bytes=2000)
    slow.reads()
    node.deliver(THREAD, publications(1, 4, size=200))
    node.deliver(THREAD, publications(5, 5))
    drained(slow)
    node.deliver(THREAD, publications(6, 6))
    assert slow.offsets() == [1, 2, 3, 4]
    assert node.catch_up(slow.subscriber) == []
    assert slow.offsets() == [1, 2, 3, 4, 5, 6]
    node.deliver(THREAD, publications(7, 7))
    assert slow.offsets()[-1] == 7


def test_r97_who_is_behind_the_ring_wakes_who_empties_the_outbox() -> None:
    """Nothing may wait in the outbox by then, and no more be published: somebody has to look."""
    node = Hub(may_read, max_connections=20, ring_bytes=50)
    woken: list[int] = []
    outbox = Outbox(lambda: woken.append(len(woken)), max_bytes=2000)
    subscriber = Subscriber("c1", MIA, outbox, lambda _: None)
    node.connect(subscriber)
    subscription = node.subscribe(subscriber, THREAD)
    node.deliver(THREAD, publications(1, 9, size=100))
    assert woken == []
    node.go_live(subscription, 0)
    assert woken == [0]
    assert node.catch_up(subscriber) == [subscription]


def test_a_large_batch_reaches_those_who_keep_up_through_a_small_ring() -> None:
    """A batch is delivered in slices for which the ring has room."""
    node = Hub(may_read, max_connections=20, ring_bytes=1000)
    mia = Person(node)
    mia.reads()
    node.deliver(THREAD, publications(1, 100, size=100))
    assert mia.offsets() == list(range(1, 101))
    node.deliver(THREAD, publications(101, 101, size=5000))
    assert mia.offsets()[-1] == 101
    assert node.catch_up(mia.subscriber) == []


def test_p1_r39_who_may_not_read_any_more_is_not_answered_from_the_log() -> None:
    """A subscription may be written to while it is there and its right is: else it is withheld."""
    allowed = [True]
    node = Hub(lambda *_: allowed[0], max_connections=20)
    reader = Person(node)
    subscription = reader.reads()
    assert node.may_write(subscription)
    allowed[0] = False
    assert not node.may_write(subscription)
    assert node.withheld == 1
    allowed[0] = True
    node.unsubscribe(reader.subscriber, THREAD)
    assert not node.may_write(subscription)
    again = reader.reads()
    assert node.may_write(again)
    assert not node.may_write(subscription)
    assert node.withheld == 1


def test_p1_what_may_not_be_read_for_now_is_not_lost() -> None:
    """While the policy refuses nothing is given; afterwards the reader gets it, without a gap."""
    allowed = [True]
    node = Hub(lambda *_: allowed[0], max_connections=20)
    mia = Person(node)
    mia.reads()
    node.deliver(THREAD, publications(1, 1))
    allowed[0] = False
    node.deliver(THREAD, publications(2, 3))
    assert mia.offsets() == [1]
    assert node.catch_up(mia.subscriber) == []
    allowed[0] = True
    node.deliver(THREAD, publications(4, 4))
    assert mia.offsets() == [1, 2, 3, 4]


def test_a_reader_that_leaves_while_it_is_behind_leaves_nothing() -> None:
    """Neither a ring nor a place among those behind."""
    node = hub()
    slow = Person(node, max_bytes=2000)
    slow.reads()
    node.deliver(THREAD, publications(1, 4, size=200))
    node.deliver(THREAD, publications(5, 5))
    node.unsubscribe(slow.subscriber, THREAD)
    assert (slow.subscriber.behind, node.ring_bytes) == ({}, 0)
    assert node.catch_up(slow.subscriber) == []


@pytest.mark.parametrize("channel", [user_channel("acme", "mia"), tenant_channel("acme")])
def test_r97_a_slow_reader_of_notices_waits_too(channel: Channel) -> None:
    """A cursor costs nothing: every offset comes, unmerged, once there is room."""
    node = hub()
    fast, slow = Person(node), Person(node, number=9, max_bytes=2000)
    for person in (fast, slow):
        person.reads(channel)
    for offset in range(1, 101):
        node.deliver(channel, publications(offset, offset, size=100))
    assert fast.offsets(channel) == list(range(1, 101))
    assert len(slow.offsets(channel)) < 10
    while slow.subscriber.behind:
        drained(slow)
        node.catch_up(slow.subscriber)
    assert slow.offsets(channel) == list(range(1, 101))
    assert slow.closed == []


# Who is here.


def test_r37_a_user_has_so_many_connections_and_no_more() -> None:
    """The last allowed is let in, the next is 3504, and another person is not affected."""
    node = hub(max_connections=2)
    first, second, third = (Person(node, number=number) for number in range(3))
    leo = Person(node, Principal(tenant="acme", user="leo"), 7)
    namesake = Person(node, Principal(tenant="other", user="mia"), 8)
    assert [p.answer for p in (first, second, third, leo, namesake)] == [
        None,
        None,
        codes.CONNECTION_LIMIT,
        None,
        None,
    ]
    assert len(node) == 4
    assert third.subscriber not in node.subscribers("acme", "mia")


def test_r37_who_leaves_frees_the_place() -> None:
    """A disconnected subscriber does not count, and disconnecting twice frees one place only."""
    node = hub(max_connections=2)
    first, _ = Person(node, number=1), Person(node, number=2)
    node.disconnect(first.subscriber)
    node.disconnect(first.subscriber)
    assert Person(node, number=3).answer is None
    assert Person(node, number=4).answer is codes.CONNECTION_LIMIT


def test_r37_a_tenant_has_so_many_connections_and_no_more() -> None:
    """The next is told to come later, another tenant notices nothing, and who leaves makes room."""
    node = hub(max_connections=2, max_tenant_connections=3)
    people = [
        Person(node, Principal(tenant="acme", user=f"user {number}"), number) for number in range(4)
    ]
    other = Person(node, Principal(tenant="other", user="user 3"), 9)
    assert [p.answer for p in (*people, other)] == [None] * 3 + [codes.TOO_MANY_REQUESTS, None]
    assert len(node) == 4
    node.disconnect(people[3].subscriber)
    assert Person(node, number=5).answer is codes.TOO_MANY_REQUESTS
    node.disconnect(people[0].subscriber)
    node.disconnect(people[0].subscriber)
    assert Person(node, number=6).answer is None
    assert Person(node, number=7).answer is codes.TOO_MANY_REQUESTS


def test_r37_ones_own_bound_is_told_before_the_tenants() -> None:
    """Whoever has too many of their own gains nothing by coming later."""
    node = hub(max_connections=1, max_tenant_connections=1)
    Person(node, number=1)
    assert Person(node, number=2).answer is codes.CONNECTION_LIMIT


def test_r34_a_tenant_that_has_gone_leaves_nothing_behind() -> None:
    """No count is kept of tenants nobody of whom is here."""
    node = hub()
    for number in range(50):
        person = Person(node, Principal(tenant=f"tenant {number}", user="mia"), number)
        node.disconnect(person.subscriber)
    assert len(node._by_tenant) == len(node._by_user) == len(node._subscribers) == 0


def test_r84_ending_ends_whom_it_names_at_once_and_nobody_else() -> None:
    """Each of their connections is closed with the code, and how many there were is told."""
    node = hub()
    mine = [Person(node, number=number) for number in range(3)]
    leo = Person(node, Principal(tenant="acme", user="leo"), 7)
    namesake = Person(node, Principal(tenant="other", user="mia"), 8)
    ended = node.end(lambda principal: principal == MIA, codes.NOT_ALLOWED)
    assert ended == 3
    assert [p.closed for p in mine] == [[codes.NOT_ALLOWED]] * 3
    assert [leo.closed, namesake.closed] == [[], []]
    assert node.end(lambda _: False, codes.FORCED) == 0


def test_r84_ending_goes_by_who_they_are_now() -> None:
    """A connection whose credential was renewed is named by the new one."""
    node = hub()
    mia = Person(node)
    mia.subscriber.principal = Principal(tenant="acme", user="mia", token_id="new")
    assert node.end(lambda principal: principal.token_id == "old", codes.NOT_ALLOWED) == 0
    assert node.end(lambda principal: principal.token_id == "new", codes.NOT_ALLOWED) == 1


def test_r84_ending_survives_connections_that_leave_while_it_goes_on() -> None:
    """Closing may let go of a subscriber at once."""
    node = hub()
    people = [Person(node, number=number) for number in range(3)]
    for person in people:
        leaver = person.subscriber
        person.subscriber.close = lambda _, leaver=leaver: node.disconnect(leaver)  # type: ignore[misc]
    assert node.end(lambda _: True, codes.FORCED) == 3
    assert len(node) == 0


def test_r37_one_who_was_not_let_in_takes_nobody_with_them() -> None:
    """Letting go of a refused connection leaves the others."""
    node = hub(max_connections=1)
    first, refused = Person(node, number=1), Person(node, number=2)
    node.disconnect(refused.subscriber)
    assert node.subscribers("acme", "mia") == [first.subscriber]


def test_r34_who_leaves_leaves_nothing_behind() -> None:
    """No reader, no subscription, no subscriber is kept."""
    node = hub()
    mia, leo = Person(node), Person(node, Principal(tenant="acme", user="leo"), 2)
    for channel in (THREAD, user_channel("acme", "mia"), tenant_channel("acme")):
        mia.reads(channel)
    leo.reads(tenant_channel("acme"))
    assert node.subscriptions == 4
    node.disconnect(mia.subscriber)
    node.deliver(THREAD, publications(1, 1))
    assert mia.outbox.objects == []
    assert node.subscriptions == 1
    assert node.readers(tenant_channel("acme")) == [leo.subscriber]
    assert node.subscribers("acme", "mia") == []
    assert node.subscribers("acme", "leo") == [leo.subscriber]
    node.disconnect(leo.subscriber)
    assert (len(node), node.subscriptions, node.subscribers("acme", "leo")) == (0, 0, [])


def test_unsubscribing_says_whether_anything_was_read() -> None:
    """The second time there is nothing to end."""
    node = hub()
    mia = Person(node)
    mia.reads()
    assert node.unsubscribe(mia.subscriber, THREAD)
    assert not node.unsubscribe(mia.subscriber, THREAD)


@pytest.mark.parametrize("empty", [[], ()])
def test_nothing_published_is_nothing_sent(empty: Sequence[Publication]) -> None:
    """An empty batch wakes nobody."""
    node = hub()
    mia = Person(node)
    mia.reads()
    node.deliver(THREAD, empty)
    assert mia.outbox.objects == []


def test_live_readers_are_those_who_receive_a_channel_now() -> None:
    """Joining, closed, internal and disallowed readers do not count."""
    everywhere = hub()
    live, joining, closed, internal = (Person(everywhere, number=n) for n in range(1, 5))
    for person in (live, closed, internal):
        person.reads()
    everywhere.subscribe(joining.subscriber, THREAD)
    closed.close(codes.FORCED)
    internal.subscriber.internal = True
    stranger = Person(everywhere, Principal(tenant="acme", user="leo"), number=5)
    stranger.reads()
    assert everywhere.live_readers(THREAD) == [live.subscriber]
    assert everywhere.readers(THREAD) == [
        one.subscriber for one in (live, closed, joining, stranger)
    ]
    assert everywhere.find("c1") is live.subscriber
    assert everywhere.find("c3") is None
    assert set(everywhere.everyone()) == {
        one.subscriber for one in (live, joining, internal, stranger)
    }


# Attached channels, and positions that become invalid.


class Channels:
    """A log that records which channels are attached."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def attach(self, channel: Channel) -> None:
        self.calls.append(("attach", channel.visible))

    def detach(self, channel: Channel) -> None:
        self.calls.append(("detach", channel.visible))


def test_a_channel_is_attached_as_long_as_it_has_a_reader() -> None:
    """The first reader attaches it and the last one detaches it, each once."""
    log, node = Channels(), hub()
    node.bind(log)
    one, two = Person(node, number=1), Person(node, number=2)
    one.reads()
    two.reads()
    one.reads(user_channel("acme", "mia"))
    node.unsubscribe(one.subscriber, THREAD)
    node.unsubscribe(one.subscriber, THREAD)
    assert log.calls == [("attach", "thread:t1"), ("attach", "user")]
    node.disconnect(two.subscriber)
    node.disconnect(one.subscriber)
    assert log.calls[2:] == [("detach", "thread:t1"), ("detach", "user")]
    Person(node, number=3).reads()
    assert log.calls[4:] == [("attach", "thread:t1")]


def test_p3_readers_of_a_channel_whose_positions_are_invalid_start_over() -> None:
    """Each is told 2500, and readers of other channels read on."""
    node = hub()
    one, two, other = (Person(node, number=number) for number in range(3))
    one.reads(offset=7)
    two.reads(offset=5)
    elsewhere = thread_channel("acme", "mia", "t2")
    other.reads(elsewhere)
    node.reset(THREAD)
    assert [person.unsubscribed() for person in (one, two, other)] == [[2500], [2500], []]
    assert one.unsubscribed_from == [THREAD]
    assert node.readers(THREAD) == []
    node.deliver(elsewhere, publications(1, 1))
    assert other.offsets(elsewhere) == [1]
    one.reads(offset=0)
    node.deliver(THREAD, publications(1, 2))
    assert one.offsets() == [1, 2]


def test_p3_all_readers_start_over_if_all_positions_are_invalid() -> None:
    """A thread is unsubscribed; a channel that the server subscribed needs a new connection."""
    node = hub()
    mia, bob = Person(node, number=1), Person(node, number=2)
    mia.reads()
    mia.reads(thread_channel("acme", "mia", "t2"))
    bob.reads(user_channel("acme", "mia"))
    node.reset(None)
    assert mia.unsubscribed() == [2500, 2500]
    assert mia.closed == []
    assert bob.closed == [codes.SLOW]
    assert node.subscriptions == 0


def test_p3_a_stream_whose_positions_are_invalid_ends() -> None:
    """An event stream cannot be told to subscribe anew: it ends, and its client reconnects."""
    node = hub()
    mia = Person(node)
    mia.subscriber.encoding = Encoding(lambda channel, one: one.data, b"", None)
    mia.reads()
    node.reset(THREAD)
    assert mia.closed == [codes.SLOW]
    assert node.readers(THREAD) == []


def test_p3_a_joining_reader_gets_its_answer_before_it_starts_over() -> None:
    """Its client knows nothing of a subscription yet that could be ended."""
    node = hub()
    mia = Person(node)
    subscription = node.subscribe(mia.subscriber, THREAD)
    node.reset(THREAD)
    assert mia.unsubscribed() == []
    assert node.readers(THREAD) == [mia.subscriber]
    node.deliver(THREAD, publications(1, 1))
    node.go_live(subscription, 0)
    assert mia.unsubscribed() == [2500]
    assert mia.offsets() == []
    assert node.readers(THREAD) == []


def test_p3_a_reset_empties_the_ring() -> None:
    """What was published before is of another history: who joins now is not given it."""
    node = hub()
    mia, leo = Person(node, number=1), Person(node, number=2)
    mia.reads()
    joining = node.subscribe(leo.subscriber, THREAD)
    node.deliver(THREAD, publications(1, 5))
    node.reset(THREAD)
    assert node.ring_bytes == 0
    again = node.subscribe(mia.subscriber, THREAD)
    node.go_live(again, 0)
    node.deliver(THREAD, publications(1, 2))
    assert mia.offsets() == [1, 2, 3, 4, 5, 1, 2]
    node.go_live(joining, 0)
    assert leo.unsubscribed() == [2500]
