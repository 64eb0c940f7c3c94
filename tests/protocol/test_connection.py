"""One connection, sans-I/O: exact bounds, one reply each, the first close wins."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath import codes
from towpath.codes import CloseCode
from towpath.protocol import frames
from towpath.protocol.connection import Bounds, Closed, Connection, NotOwed
from towpath.protocol.frames import Command, Malformed, Pong
from towpath.protocol.states import IllegalMove, State

CONNECT = '{"id":1,"connect":{"token":"t"}}'
RESULT = frames.ConnectResult(client="c1", version="towpath", ping=25, pong=True)
CLOSES = st.sampled_from(sorted(codes.CLOSES.values(), key=lambda code: code.number))


def authenticating(bounds: Bounds | None = None) -> Connection:
    """Return a connection that waits for its verdict."""
    connection = Connection(bounds)
    connection.receive_data(CONNECT)
    return connection


def opened(bounds: Bounds | None = None) -> Connection:
    """Return an open connection."""
    connection = authenticating(bounds)
    connection.accept(1, RESULT)
    return connection


def in_state(state: State) -> Connection:
    """Return a connection in any state, by legal moves."""
    if state is State.OPENING:
        return Connection()
    if state is State.AUTHENTICATING:
        return authenticating()
    connection = opened()
    if state is State.DRAINING:
        connection.drain()
    if state is State.CLOSED:
        connection.close(codes.FORCED)
    return connection


def ping(number: int) -> str:
    return json.dumps({"id": number, "ping": {}})


def padded(size: int, number: int = 2, command: str = "ping") -> str:
    """Return one command of exactly this many bytes."""
    bare = json.dumps({"id": number, command: {}, "pad": ""})
    return json.dumps({"id": number, command: {}, "pad": "x" * (size - len(bare))})


def closing(connection: Connection, frame: bytes | str) -> CloseCode:
    """Return the code with which a frame ends a connection."""
    closed = connection.receive_data(frame)[-1]
    assert isinstance(closed, Closed)
    assert connection.closed
    assert connection.close_code is closed.code
    return closed.code


def test_the_happy_path() -> None:
    """Connect, verdict, command, reply."""
    connection = Connection()
    [asked] = connection.receive_data(CONNECT)
    assert isinstance(asked, Command)
    assert asked.name == "connect"
    reply, waiting = connection.accept(1, RESULT)
    assert json.loads(reply)["connect"]["client"] == "c1"
    assert waiting == []
    assert connection.receive_data(ping(2)) == [Command(2, "ping", frames.Empty())]
    assert connection.reply(2, frames.Empty()) == b'{"id":2,"ping":{}}'
    assert connection.owed == frozenset()


# The exact bounds.


def test_r67_an_early_message_may_have_64_kib() -> None:
    """The last byte allowed passes, the next is answered with 1009."""
    bound = 64 * 1024
    connection = Connection()
    [asked] = connection.receive_data(padded(bound, 1, "connect"))
    assert isinstance(asked, Command)
    assert closing(Connection(), padded(bound + 1, 1, "connect")) is codes.MESSAGE_TOO_BIG


def test_r67_the_early_bound_holds_until_the_verdict() -> None:
    """Connect having been said does not lift the bound."""
    assert closing(authenticating(), padded(64 * 1024 + 1)) is codes.MESSAGE_TOO_BIG


def test_r67_a_message_may_have_1_mib() -> None:
    """After the verdict the larger bound holds, exactly."""
    [asked] = opened().receive_data(padded(1024 * 1024))
    assert isinstance(asked, Command)
    assert closing(opened(), padded(1024 * 1024 + 1)) is codes.MESSAGE_TOO_BIG


def test_r67_size_is_counted_in_bytes() -> None:
    """A character of several bytes counts as several."""
    frame = json.dumps({"id": 1, "connect": {}, "pad": "é" * 40}, ensure_ascii=False)
    size = len(frame.encode())
    assert size > len(frame)
    assert Connection(Bounds(early_message=size)).receive_data(frame) != []
    too_small = Connection(Bounds(early_message=size - 1))
    assert closing(too_small, frame) is codes.MESSAGE_TOO_BIG


def test_r67_64_kib_may_wait_for_the_verdict() -> None:
    """Waiting messages are counted together; one byte more is 3501."""
    connection = authenticating()
    assert connection.receive_data(padded(40 * 1024, 2)) == []
    assert connection.receive_data(padded(24 * 1024, 3)) == []
    assert not connection.closed
    connection = authenticating()
    assert connection.receive_data(padded(40 * 1024, 2)) == []
    assert closing(connection, padded(24 * 1024 + 1, 3)) is codes.BAD_MESSAGE


def test_r67_256_commands_may_wait_for_the_verdict() -> None:
    """The 256th waits, the 257th is 3501."""
    connection = authenticating()
    for number in range(2, 258):
        assert connection.receive_data(ping(number)) == []
    assert len(connection.owed) == 257
    assert closing(connection, ping(258)) is codes.BAD_MESSAGE


def test_r67_what_comes_with_connect_waits_within_the_same_bound() -> None:
    """Batching commands behind connect is no way round the bound."""
    bounds = Bounds(waiting_commands=3)
    lines = [CONNECT, *map(ping, range(2, 6))]
    assert len(Connection(bounds).receive_data("\n".join(lines[:4]))) == 1
    assert closing(Connection(bounds), "\n".join(lines)) is codes.BAD_MESSAGE


# Before the verdict.


@pytest.mark.parametrize(
    "frame",
    [
        ping(1),
        '{"send":{}}',
        '{"id":1,"rpc":{"method":"whoami"}}',
        '{"id":1,"connect":5}',
        '{"id":1,"zzz":{}}',
        "{}",
        "nonsense",
    ],
)
def test_the_first_command_must_be_connect(frame: str) -> None:
    """Anything else is 3501."""
    assert closing(Connection(), frame) is codes.BAD_MESSAGE


@pytest.mark.parametrize("state", [State.AUTHENTICATING, State.OPEN, State.DRAINING])
def test_a_second_connect_is_3501(state: State) -> None:
    """A connection has one beginning."""
    again = '{"id":2,"connect":{}}'
    assert closing(in_state(state), again) is codes.BAD_MESSAGE


@pytest.mark.parametrize("state", [State.OPENING, State.AUTHENTICATING])
def test_a_pong_before_the_verdict_is_3501(state: State) -> None:
    """Nobody pinged yet."""
    assert closing(in_state(state), "{}") is codes.BAD_MESSAGE


def test_r02_commands_wait_for_the_verdict_in_order() -> None:
    """What comes early comes out once, after the verdict, as it came."""
    connection = Connection()
    events = connection.receive_data(CONNECT + "\n" + ping(2) + "\n" + '{"id":3,"zzz":{}}')
    assert [event.id for event in events if isinstance(event, Command)] == [1]
    assert connection.receive_data(ping(5) + "\n" + '{"send":{}}') == []

    _, waiting = connection.accept(1, RESULT)

    assert [command.id for command in waiting] == [2, 3, 5, 0]
    assert isinstance(waiting[1], Malformed)
    assert connection.owed == {2, 3, 5}


def test_r02_what_waited_is_dropped_when_connect_fails() -> None:
    """After an error reply to connect there is no other answer and 3000 follows."""
    connection = authenticating()
    connection.receive_data(ping(2))
    reply = connection.refuse(1, codes.TEMPORARY)
    assert json.loads(reply) == {
        "id": 1,
        "error": {"code": 100, "message": "temporarily unavailable", "temporary": True},
    }
    assert connection.close_code is codes.CONNECT_FAILED
    assert connection.owed == frozenset()
    assert connection.receive_data(ping(3)) == []


@pytest.mark.parametrize("state", [State.OPENING, State.OPEN, State.DRAINING, State.CLOSED])
def test_r02_the_verdict_comes_exactly_once(state: State) -> None:
    """A verdict at any other time is a bug of ours, and opens nothing."""
    connection = in_state(state)
    with pytest.raises(IllegalMove):
        connection.accept(1, RESULT)
    with pytest.raises(IllegalMove):
        connection.refuse(1, codes.TEMPORARY)
    assert connection.state is state


# Faults of the peer.


@pytest.mark.parametrize("state", [s for s in State if s is not State.CLOSED])
def test_a_binary_frame_is_1003(state: State) -> None:
    """The JSON encoding takes text, whatever the bytes hold."""
    assert closing(in_state(state), CONNECT.encode()) is codes.UNSUPPORTED_DATA


def test_a_command_id_in_flight_cannot_be_used_again() -> None:
    """Two commands under one id could not have one reply each."""
    connection = opened()
    connection.receive_data(ping(2))
    assert closing(connection, ping(2)) is codes.BAD_MESSAGE


def test_a_command_id_in_flight_before_the_verdict_counts_too() -> None:
    """Connect's own id is owed a reply until the verdict."""
    assert closing(authenticating(), ping(1)) is codes.BAD_MESSAGE


def test_a_command_id_is_free_once_it_is_answered() -> None:
    """Ids need only be unique among the commands in flight."""
    connection = opened()
    connection.receive_data(ping(1))
    connection.reply(1, frames.Empty())
    assert connection.receive_data(ping(1)) == [Command(1, "ping", frames.Empty())]


def test_one_way_messages_owe_nothing() -> None:
    """Any number of sends may be under way."""
    connection = opened()
    connection.receive_data('{"send":{}}\n{"send":{}}')
    assert not connection.closed
    assert connection.owed == frozenset()


def test_what_stood_before_a_fault_comes_out_before_it() -> None:
    """`Closed` is the last event; commands before it are there, those after it are not."""
    events = opened().receive_data(ping(2) + "\nnonsense\n" + ping(3))
    assert isinstance(events[0], Command)
    assert isinstance(events[1], Closed)
    assert len(events) == 2


def test_nothing_after_a_second_connect_comes_out() -> None:
    """A fault in the middle of a batch ends the batch."""
    events = opened().receive_data('{"id":2,"connect":{}}\n' + ping(3))
    assert [type(event) for event in events] == [Closed]


def test_a_pong_of_an_open_connection_comes_out() -> None:
    """Whether anybody asked for it is the keep-alive's business."""
    assert opened().receive_data("{}") == [Pong()]


# Replies.


@pytest.mark.parametrize("number", [0, 3, 4294967295])
def test_p8_only_what_is_owed_can_be_answered(number: int) -> None:
    """A reply nobody waits for is a bug of ours, and makes no bytes."""
    connection = opened()
    connection.receive_data(ping(2))
    with pytest.raises(NotOwed, match=str(number)):
        connection.reply(number, frames.Empty())
    with pytest.raises(NotOwed):
        connection.fail(number, codes.BAD_REQUEST)


def test_p8_a_command_is_answered_once() -> None:
    """After its reply, success or error, a command is owed nothing."""
    connection = opened()
    connection.receive_data(ping(2) + "\n" + ping(3))
    connection.fail(2, codes.BAD_REQUEST)
    connection.reply(3, frames.Empty())
    for number in (2, 3):
        with pytest.raises(NotOwed):
            connection.reply(number, frames.Empty())


@pytest.mark.parametrize(
    ("code", "temporary", "told"),
    [
        (codes.BAD_REQUEST, False, None),
        (codes.TEMPORARY, False, True),
        (codes.TOO_MANY_REQUESTS, False, True),
        (codes.TOKEN_EXPIRED, True, True),
    ],
)
def test_an_error_says_whether_to_ask_again(
    code: codes.ErrorCode, temporary: bool, told: bool | None
) -> None:
    """The code says it by itself, or the caller does."""
    connection = opened()
    connection.receive_data(ping(2))
    error = json.loads(connection.fail(2, code, temporary=temporary))["error"]
    assert error.get("temporary") is told
    assert error["message"] == code.message


def test_an_error_may_have_its_own_sentence() -> None:
    """The sentence given replaces that of the code."""
    connection = opened()
    connection.receive_data(ping(2))
    error = json.loads(connection.fail(2, codes.BAD_REQUEST, "channel is missing"))["error"]
    assert error == {"code": 107, "message": "channel is missing"}


def test_the_reply_to_a_malformed_command_is_an_error_under_its_id() -> None:
    """A malformed command is owed one reply like any other."""
    connection = opened()
    [malformed] = connection.receive_data('{"id":2,"subscribe":5}')
    assert isinstance(malformed, Malformed)
    assert json.loads(connection.fail(2, codes.BAD_REQUEST))["id"] == 2


# The end.


@given(st.sampled_from([s for s in State if s is not State.CLOSED]), CLOSES, CLOSES)
def test_r07_the_first_code_wins(state: State, first: CloseCode, second: CloseCode) -> None:
    """Closing is legal at any time, happens once, and keeps its first reason."""
    connection = in_state(state)
    assert connection.close(first)
    assert not connection.close(second)
    assert connection.close_code is first
    assert connection.state is State.CLOSED


def test_r07_a_peers_fault_is_not_covered_up_by_a_later_close() -> None:
    """What ended the connection is what is recorded."""
    connection = opened()
    connection.receive_data(b"binary")
    connection.close(codes.FORCED)
    assert connection.close_code is codes.UNSUPPORTED_DATA


@pytest.mark.parametrize("frame", [CONNECT, ping(2), "{}", "nonsense", b"\x00", "x" * 2_000_000])
def test_r01_nothing_is_read_after_the_end(frame: Any) -> None:
    """Whatever comes in, nothing comes out, and the reason stays."""
    connection = in_state(State.CLOSED)
    assert connection.receive_data(frame) == []
    assert connection.close_code is codes.FORCED


def test_r06_nothing_is_written_after_the_end() -> None:
    """Every way to make bytes is shut, and nothing is owed any more."""
    connection = opened()
    connection.receive_data(ping(2))
    connection.close(codes.FORCED)
    assert connection.owed == frozenset()
    for write in (
        lambda: connection.reply(2, frames.Empty()),
        lambda: connection.fail(2, codes.BAD_REQUEST),
        lambda: connection.accept(1, RESULT),
        lambda: connection.refuse(1, codes.TEMPORARY),
        connection.drain,
    ):
        with pytest.raises(IllegalMove):
            write()


def test_r59_a_draining_connection_still_answers() -> None:
    """Draining twice is draining once, and commands go on."""
    connection = opened()
    connection.drain()
    connection.drain()
    connection.receive_data(ping(2))
    assert connection.reply(2, frames.Empty()) == b'{"id":2,"ping":{}}'


@pytest.mark.parametrize("state", [State.OPENING, State.AUTHENTICATING, State.CLOSED])
def test_only_an_open_connection_drains(state: State) -> None:
    """Nobody is told to move who was not let in."""
    with pytest.raises(IllegalMove):
        in_state(state).drain()


@given(
    st.lists(
        st.sampled_from([CONNECT, ping(2), ping(3), "{}", '{"id":4,"zzz":1}', "nonsense", ""])
        | st.text(max_size=20),
        max_size=12,
    )
)
def test_r01_whatever_is_received_nothing_raises_and_one_close_is_told(messages: list[str]) -> None:
    """No text from a peer is our fault; the end is told once and is the last event."""
    connection = Connection()
    events = [event for message in messages for event in connection.receive_data(message)]
    closed = [event for event in events if isinstance(event, Closed)]
    assert len(closed) == connection.closed
    if closed:
        assert events[-1] is closed[0]
        assert closed[0].code is codes.BAD_MESSAGE
