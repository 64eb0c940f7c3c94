"""Delivery to readers of several encodings: each publication is encoded once for each of them."""

from towpath import codes
from towpath.auth.policy import may_read
from towpath.channels import Channel, thread_channel
from towpath.codes import CloseCode
from towpath.delivery.encoding import JSON, Encoding
from towpath.delivery.hub import Hub
from towpath.delivery.outbox import Outbox
from towpath.delivery.subscriber import Subscriber
from towpath.identity import Principal
from towpath.log.broker import Publication

MIA = Principal(tenant="acme", user="mia")
THREAD = thread_channel("acme", "mia", "t1")


class Counted:
    """An encoding of plain offsets, and what was encoded in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.written: list[int] = []
        self.encoding = Encoding(self.encode, b"|", None)

    def encode(self, channel: Channel, publication: Publication) -> bytes:
        self.written.append(publication.offset)
        return f"{self.name}{publication.offset}".encode()


class Reader:
    """A subscriber that reads a thread, and how it was closed."""

    def __init__(self, hub: Hub, name: str, encoding: Encoding, *, max_bytes: int = 10**6) -> None:
        self.hub = hub
        self.closed: list[CloseCode] = []
        self.unsubscribed_from: list[Channel] = []
        self.outbox = Outbox(lambda: None, max_bytes=max_bytes, separator=encoding.separator)
        self.subscriber = Subscriber(
            name,
            MIA,
            self.outbox,
            self.closed.append,
            self.unsubscribed_from.append,
            encoding=encoding,
        )
        assert hub.connect(self.subscriber) is None
        self.subscription = hub.subscribe(self.subscriber, THREAD)

    def live(self, offset: int = 0) -> "Reader":
        self.hub.go_live(self.subscription, offset)
        return self


def publications(first: int, last: int) -> list[Publication]:
    return [Publication(offset, b'"x"', {}) for offset in range(first, last + 1)]


def node() -> Hub:
    return Hub(may_read, max_connections=20)


def test_a_publication_is_written_once_for_each_encoding() -> None:
    """However many read live: one writing per publication and encoding, and its own separator."""
    hub, a, b = node(), Counted("a"), Counted("b")
    live, twin = (Reader(hub, name, a.encoding).live() for name in ("1", "2"))
    other = Reader(hub, "3", b.encoding).live()
    hub.deliver(THREAD, publications(1, 3))
    assert (a.written, b.written) == ([1, 2, 3], [1, 2, 3])
    assert [reader.outbox.take() for reader in (live, twin)] == [b"a1|a2|a3"] * 2
    assert other.outbox.take() == b"b1|b2|b3"


def test_r73_who_joins_or_has_some_already_gets_the_rest_in_its_encoding() -> None:
    """What waited and what is new to a reader is written in the encoding it reads."""
    hub, a, b = node(), Counted("a"), Counted("b")
    ahead, joining = Reader(hub, "1", a.encoding).live(1), Reader(hub, "2", b.encoding)
    hub.deliver(THREAD, publications(1, 3))
    joining.live(2)
    assert ahead.outbox.take() == b"a2|a3"
    assert joining.outbox.take() == b"b3"


def test_readers_with_the_same_cursor_share_what_follows_it() -> None:
    """Readers that get only some of a batch get the same bytes as those with the same cursor."""
    hub, a = node(), Counted("a")
    whole = Reader(hub, "1", a.encoding).live()
    ahead, beside = (Reader(hub, str(2 + n), a.encoding).live(1) for n in range(2))
    hub.deliver(THREAD, publications(1, 3))
    assert a.written == [1, 2, 3, 2, 3]
    assert whole.outbox.take() == b"a1|a2|a3"
    assert [reader.outbox.take() for reader in (ahead, beside)] == [b"a2|a3", b"a2|a3"]


def test_an_encoding_nobody_reads_in_is_not_written() -> None:
    """Where all readers of a channel speak one encoding, no other is made."""
    hub, a, b = node(), Counted("a"), Counted("b")
    Reader(hub, "1", a.encoding).live()
    stranger = Reader(hub, "2", b.encoding)
    hub.unsubscribe(stranger.subscriber, THREAD)
    hub.deliver(THREAD, publications(1, 2))
    assert (a.written, b.written) == ([1, 2], [])


def test_r73_who_cannot_be_told_to_start_over_is_closed() -> None:
    """A reset ends a reader whose encoding has no unsubscribe; a neighbour is told instead."""
    hub, a = node(), Counted("a")
    stream, socket = Reader(hub, "1", a.encoding).live(), Reader(hub, "2", JSON).live()
    hub.reset(THREAD)
    assert stream.closed == [codes.SLOW]
    assert stream.outbox.take() == b""
    assert stream.unsubscribed_from == [THREAD]
    assert socket.closed == []
    assert b'"code":2500' in socket.outbox.take()
    assert hub.subscriptions == 0


def test_r97_who_falls_behind_is_given_the_rest_in_its_encoding() -> None:
    """While it takes nothing, nothing more is written for it; then it gets all, in order."""
    hub, a, b = node(), Counted("a"), Counted("b")
    slow, fast = (
        Reader(hub, "1", a.encoding, max_bytes=8).live(),
        Reader(hub, "2", b.encoding).live(),
    )
    for offset in range(1, 4):
        hub.deliver(THREAD, publications(offset, offset))
    assert (a.written, b.written) == ([1], [1, 2, 3])
    assert fast.outbox.take() == b"b1|b2|b3"
    assert slow.outbox.take() == b"a1"
    assert hub.catch_up(slow.subscriber) == []
    assert slow.outbox.take() == b"a2|a3"
    assert slow.closed == []


def test_r97_a_publication_larger_than_an_outbox_is_put_in_alone() -> None:
    """Where nothing waits it has room, and the next one waits until it was taken."""
    hub, a = node(), Counted("long")
    small = Reader(hub, "1", a.encoding, max_bytes=4).live()
    hub.deliver(THREAD, publications(1, 1))
    hub.deliver(THREAD, publications(2, 2))
    assert small.outbox.take() == b"long1"
    assert small.outbox.take() == b""
    assert hub.catch_up(small.subscriber) == []
    assert small.outbox.take() == b"long2"
    assert small.closed == []
