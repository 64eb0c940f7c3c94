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
"""When the connection opened, on the monotonic clock."""
DATE = 5000.0
"""When it opened, in Unix seconds."""


def keepalive() -> KeepAlive:
    return KeepAlive(START, ping_interval=25.0, pong_timeout=10.0)


def elapse(clockwork: KeepAlive, seconds: float, *, step: float = 0.0) -> Due:
    """Return what is due so long after the connection opened; the wall clock was set by `step`."""
    return clockwork.elapse(START + seconds, DATE + seconds + step)


def deadline(clockwork: KeepAlive, seconds: float = 0.0, *, step: float = 0.0) -> float:
    """Return the next deadline, asked after so many seconds, in seconds after the opening."""
    return clockwork.next_deadline(START + seconds, DATE + seconds + step) - START


def pinged() -> KeepAlive:
    """Return a connection's KeepAlive that waits for a pong."""
    clockwork = keepalive()
    assert elapse(clockwork, 25) is Due.PING
    return clockwork


def test_a_ping_is_due_after_the_interval() -> None:
    """Not a moment before it, and once."""
    clockwork = keepalive()
    assert deadline(clockwork) == 25
    assert elapse(clockwork, 24.999) is Due.NOTHING
    assert elapse(clockwork, 25) is Due.PING
    assert elapse(clockwork, 25) is Due.NOTHING


def test_r37_a_missing_pong_is_due_after_its_timeout() -> None:
    """A client that does not answer is noticed exactly then."""
    clockwork = pinged()
    assert deadline(clockwork) == 35
    assert elapse(clockwork, 34.999) is Due.NOTHING
    assert elapse(clockwork, 35) is Due.NO_PONG


def test_a_pong_keeps_the_connection_and_the_rhythm() -> None:
    """The next ping comes one interval after the last one, not after the pong."""
    clockwork = pinged()
    assert clockwork.pong()
    assert deadline(clockwork) == 50
    assert elapse(clockwork, 35) is Due.NOTHING
    assert elapse(clockwork, 50) is Due.PING


def test_a_pong_nobody_asked_for_is_told() -> None:
    """An unsolicited pong is reported before any ping, and for the second pong after one."""
    assert not keepalive().pong()
    clockwork = pinged()
    assert clockwork.pong()
    assert not clockwork.pong()


def test_r84_expiry_is_due_at_its_moment() -> None:
    """Exactly at its time, whether or not a pong is awaited."""
    for clockwork, end in ((keepalive(), 20), (pinged(), 30)):
        clockwork.expire_at(DATE + end)
        assert deadline(clockwork) == end
        assert elapse(clockwork, end - 0.001) is Due.NOTHING
        assert elapse(clockwork, end) is Due.EXPIRED


def test_r84_the_end_of_a_credential_is_a_date() -> None:
    """After the wall clock was set, the date counts; pings keep their rhythm."""
    clockwork = keepalive()
    clockwork.expire_at(DATE + 60, lapse=DATE + 40)
    assert not clockwork.is_expired(DATE + 59)
    assert clockwork.is_expired(DATE + 60)
    assert deadline(clockwork, 5, step=-3600) == 25
    assert elapse(clockwork, 5, step=-3600) is Due.NOTHING
    assert deadline(clockwork, 5, step=30) == 10
    assert elapse(clockwork, 5, step=35) is Due.LAPSED
    assert deadline(clockwork, 25, step=3600) <= 25
    assert elapse(clockwork, 25, step=3600) is Due.EXPIRED


def test_r84_expiry_wins_over_a_ping_that_is_due_too() -> None:
    """Nothing is written past the end of a credential."""
    clockwork = keepalive()
    clockwork.expire_at(DATE + 25)
    assert elapse(clockwork, 25) is Due.EXPIRED


def test_r85_a_refresh_moves_the_one_expiry() -> None:
    """There is one deadline: the new one replaces the old, None removes it."""
    clockwork = keepalive()
    clockwork.expire_at(DATE + 5)
    clockwork.expire_at(DATE + 20)
    assert elapse(clockwork, 5) is Due.NOTHING
    assert deadline(clockwork) == 20
    clockwork.expire_at(None)
    assert deadline(clockwork) == 25
    assert elapse(clockwork, 24) is Due.NOTHING


def test_r22_the_end_of_a_credential_is_told_once_before_its_grace_ends() -> None:
    """The lapse is reported once, so that its issuer can be probed; then the rest goes on."""
    clockwork = keepalive()
    clockwork.expire_at(DATE + 20, lapse=DATE + 10)
    assert deadline(clockwork) == 10
    assert elapse(clockwork, 9.999) is Due.NOTHING
    assert elapse(clockwork, 10) is Due.LAPSED
    assert elapse(clockwork, 10) is Due.NOTHING
    assert deadline(clockwork) == 20
    assert elapse(clockwork, 20) is Due.EXPIRED


def test_r22_a_lapse_is_told_whatever_else_is_due() -> None:
    """Neither a ping nor an awaited pong hides the lapse, and it delays neither of them long."""
    clockwork = keepalive()
    clockwork.expire_at(DATE + 60, lapse=DATE + 25)
    assert [elapse(clockwork, 25) for _ in range(3)] == [Due.LAPSED, Due.PING, Due.NOTHING]
    clockwork = pinged()
    clockwork.expire_at(DATE + 60, lapse=DATE + 35)
    assert [elapse(clockwork, 35) for _ in range(2)] == [Due.LAPSED, Due.NO_PONG]


def test_r84_past_the_grace_a_lapse_is_no_news() -> None:
    """If the grace has passed too, or there is none, only the expiry is reported."""
    for lapse in (DATE + 10, DATE + 20):
        clockwork = keepalive()
        clockwork.expire_at(DATE + 20, lapse=lapse)
        assert elapse(clockwork, 20) is Due.EXPIRED
        assert elapse(clockwork, 21) is Due.EXPIRED


def test_r85_a_refresh_moves_the_lapse_too() -> None:
    """A credential that was renewed in time never lapses at the old one's end."""
    clockwork = keepalive()
    clockwork.expire_at(DATE + 15, lapse=DATE + 5)
    clockwork.expire_at(DATE + 22, lapse=DATE + 20)
    assert elapse(clockwork, 16) is Due.NOTHING
    assert deadline(clockwork) == 20
    assert elapse(clockwork, 20) is Due.LAPSED
    clockwork.expire_at(DATE + 24)
    assert elapse(clockwork, 23) is Due.NOTHING
    assert elapse(clockwork, 24) is Due.EXPIRED
    clockwork.expire_at(None)
    assert elapse(clockwork, 24.5) is Due.NOTHING
    assert deadline(clockwork) == 25


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.just(0.0) | st.floats(-100, 100), st.booleans()),
        max_size=30,
    ),
    st.none() | st.floats(0, 500),
    st.none() | st.floats(0, 500),
)
def test_whenever_it_is_looked_at_only_what_is_due_is_due(
    looks: list[tuple[float, float, bool]], expires: float | None, lapses: float | None
) -> None:
    """At any times of looking: no ping early, no pong missed early, no two pings in a row.

    The wall clock may be set between two looks.
    """
    clockwork, now, date = keepalive(), START, DATE
    expires_at = None if expires is None else DATE + expires
    lapses_at = None if lapses is None else DATE + lapses
    clockwork.expire_at(expires_at, lapse=lapses_at)
    last_ping, awaited = START, False
    for wait, step, answers in looks:
        now += wait
        date += wait + step
        due = clockwork.elapse(now, date)
        if expires_at is not None and date >= expires_at:
            assert due is Due.EXPIRED
            return
        if lapses_at is not None and date >= lapses_at:
            assert due is Due.LAPSED
            lapses_at, due = None, clockwork.elapse(now, date)
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
        assert clockwork.next_deadline(now, date) == min(
            last_ping + (10 if awaited else 25),
            now + expires_at - date if expires_at is not None else float("inf"),
            now + lapses_at - date if lapses_at is not None else float("inf"),
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
    assert elapse(clockwork, 0) is Due.NOTHING


@pytest.mark.parametrize(
    "module", ["protocol.connection", "connections.session", "connections.keepalive"]
)
def test_r03_no_room_on_that_way_can_see_a_clock(module: str) -> None:
    """There is no clock to wait for: none of these rooms imports one, or anything that sleeps."""
    imported = vars(__import__(f"towpath.{module}", fromlist=["_"]))
    assert imported.keys().isdisjoint({"time", "asyncio", "anyio", "sleep", "monotonic"})
