"""Pings, missing pongs and expiry, on a manual clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.auth.policy import may_read
from towpath.connections.keepalive import Due, KeepAlive
from towpath.connections.session import Allowed, Session
from towpath.identity import Principal
from towpath.protocol import frames
from towpath.protocol.connection import Connection

START = 1000.0


def keepalive() -> KeepAlive:
    return KeepAlive(START, ping_interval=25.0, pong_timeout=10.0)


def pinged() -> KeepAlive:
    """Return a connection's KeepAlive that waits for a pong."""
    clockwork = keepalive()
    assert clockwork.elapse(START + 25) is Due.PING
    return clockwork


def test_a_ping_is_due_after_the_interval() -> None:
    """Not a moment before it, and once."""
    clockwork = keepalive()
    assert clockwork.next_deadline == START + 25
    assert clockwork.elapse(START + 24.999) is Due.NOTHING
    assert clockwork.elapse(START + 25) is Due.PING
    assert clockwork.elapse(START + 25) is Due.NOTHING


def test_r37_a_missing_pong_is_due_after_its_timeout() -> None:
    """A client that does not answer is noticed exactly then."""
    clockwork = pinged()
    assert clockwork.next_deadline == START + 35
    assert clockwork.elapse(START + 34.999) is Due.NOTHING
    assert clockwork.elapse(START + 35) is Due.NO_PONG


def test_a_pong_keeps_the_connection_and_the_rhythm() -> None:
    """The next ping comes one interval after the last one, not after the pong."""
    clockwork = pinged()
    assert clockwork.pong()
    assert clockwork.next_deadline == START + 50
    assert clockwork.elapse(START + 35) is Due.NOTHING
    assert clockwork.elapse(START + 50) is Due.PING


def test_a_pong_nobody_asked_for_is_told() -> None:
    """An unsolicited pong is reported before any ping, and for the second pong after one."""
    assert not keepalive().pong()
    clockwork = pinged()
    assert clockwork.pong()
    assert not clockwork.pong()


def test_r84_expiry_is_due_at_its_moment() -> None:
    """Exactly at its time, whether or not a pong is awaited."""
    for clockwork, end in ((keepalive(), START + 20), (pinged(), START + 30)):
        clockwork.expire_at(end)
        assert clockwork.next_deadline == end
        assert clockwork.elapse(end - 0.001) is Due.NOTHING
        assert clockwork.elapse(end) is Due.EXPIRED


def test_r84_expiry_wins_over_a_ping_that_is_due_too() -> None:
    """Nothing is written past the end of a credential."""
    clockwork = keepalive()
    clockwork.expire_at(START + 25)
    assert clockwork.elapse(START + 25) is Due.EXPIRED


def test_r85_a_refresh_moves_the_one_expiry() -> None:
    """There is one deadline: the new one replaces the old, None removes it."""
    clockwork = keepalive()
    clockwork.expire_at(START + 5)
    clockwork.expire_at(START + 20)
    assert clockwork.elapse(START + 5) is Due.NOTHING
    assert clockwork.next_deadline == START + 20
    clockwork.expire_at(None)
    assert clockwork.next_deadline == START + 25
    assert clockwork.elapse(START + 24) is Due.NOTHING


def test_r22_the_end_of_a_credential_is_told_once_before_its_grace_ends() -> None:
    """The lapse is reported once, so that its issuer can be probed; then the rest goes on."""
    clockwork = keepalive()
    clockwork.expire_at(START + 20, lapse=START + 10)
    assert clockwork.next_deadline == START + 10
    assert clockwork.elapse(START + 9.999) is Due.NOTHING
    assert clockwork.elapse(START + 10) is Due.LAPSED
    assert clockwork.elapse(START + 10) is Due.NOTHING
    assert clockwork.next_deadline == START + 20
    assert clockwork.elapse(START + 20) is Due.EXPIRED


def test_r22_a_lapse_is_told_whatever_else_is_due() -> None:
    """Neither a ping nor an awaited pong hides the lapse, and it delays neither of them long."""
    clockwork = keepalive()
    clockwork.expire_at(START + 60, lapse=START + 25)
    assert [clockwork.elapse(START + 25) for _ in range(3)] == [Due.LAPSED, Due.PING, Due.NOTHING]
    clockwork = pinged()
    clockwork.expire_at(START + 60, lapse=START + 35)
    assert [clockwork.elapse(START + 35) for _ in range(2)] == [Due.LAPSED, Due.NO_PONG]


def test_r84_past_the_grace_a_lapse_is_no_news() -> None:
    """If the grace has passed too, or there is none, only the expiry is reported."""
    for lapse in (START + 10, START + 20):
        clockwork = keepalive()
        clockwork.expire_at(START + 20, lapse=lapse)
        assert clockwork.elapse(START + 20) is Due.EXPIRED
        assert clockwork.elapse(START + 21) is Due.EXPIRED


def test_r85_a_refresh_moves_the_lapse_too() -> None:
    """A credential that was renewed in time never lapses at the old one's end."""
    clockwork = keepalive()
    clockwork.expire_at(START + 15, lapse=START + 5)
    clockwork.expire_at(START + 22, lapse=START + 20)
    assert clockwork.elapse(START + 16) is Due.NOTHING
    assert clockwork.next_deadline == START + 20
    assert clockwork.elapse(START + 20) is Due.LAPSED
    clockwork.expire_at(START + 24)
    assert clockwork.elapse(START + 23) is Due.NOTHING
    assert clockwork.elapse(START + 24) is Due.EXPIRED
    clockwork.expire_at(None)
    assert clockwork.elapse(START + 24.5) is Due.NOTHING
    assert clockwork.next_deadline == START + 25


@given(
    st.lists(st.tuples(st.floats(0, 60), st.booleans()), max_size=30),
    st.none() | st.floats(0, 500),
    st.none() | st.floats(0, 500),
)
def test_whenever_it_is_looked_at_only_what_is_due_is_due(
    looks: list[tuple[float, bool]], expires: float | None, lapses: float | None
) -> None:
    """At any times of looking: no ping early, no pong missed early, no two pings in a row."""
    clockwork, now = keepalive(), START
    expires_at = None if expires is None else START + expires
    lapses_at = None if lapses is None else START + lapses
    clockwork.expire_at(expires_at, lapse=lapses_at)
    last_ping, awaited = START, False
    for wait, answers in looks:
        now += wait
        due = clockwork.elapse(now)
        if expires_at is not None and now >= expires_at:
            assert due is Due.EXPIRED
            return
        if lapses_at is not None and now >= lapses_at:
            assert due is Due.LAPSED
            lapses_at, due = None, clockwork.elapse(now)
        if awaited:
            assert due is (Due.NO_PONG if now >= last_ping + 10 else Due.NOTHING)
            if due is Due.NO_PONG:
                return
        else:
            assert due is (Due.PING if now >= last_ping + 25 else Due.NOTHING)
            if due is Due.PING:
                last_ping, awaited = now, True
        if answers:
            assert clockwork.pong() is awaited
            awaited = False
        assert clockwork.next_deadline == min(
            last_ping + (10 if awaited else 25),
            expires_at if expires_at is not None else float("inf"),
            lapses_at if lapses_at is not None else float("inf"),
        )


def test_r03_the_way_from_connect_to_reply_takes_no_time() -> None:
    """On a clock that stands still a connection opens, subscribes and is answered.

    Nothing on that way asks what time it is: the clockwork is handed one `now`, and at that same
    moment nothing is due.
    """
    clockwork = keepalive()
    connection = Connection()
    connection.receive_data('{"id":1,"connect":{}}\n{"id":2,"ping":{}}')
    result = frames.ConnectResult(client="c1", version="towpath", ping=25, pong=True)
    _, waiting = connection.accept(1, result)
    session = Session(Principal(tenant="acme", user="mia"), may_read)
    [command] = waiting
    assert session.authorize(command) == Allowed()
    assert connection.reply(command.id, frames.Empty()) == b'{"id":2,"ping":{}}'
    assert clockwork.elapse(START) is Due.NOTHING


@pytest.mark.parametrize(
    "module", ["protocol.connection", "connections.session", "connections.keepalive"]
)
def test_r03_no_room_on_that_way_can_see_a_clock(module: str) -> None:
    """There is no clock to wait for: none of these rooms imports one, or anything that sleeps."""
    imported = vars(__import__(f"towpath.{module}", fromlist=["_"]))
    assert imported.keys().isdisjoint({"time", "asyncio", "anyio", "sleep", "monotonic"})
