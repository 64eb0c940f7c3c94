"""What each command is allowed to do for the user who sent it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath import codes
from towpath.auth.policy import may_read
from towpath.channels import Channel, thread_channel, user_channel
from towpath.connections.session import Allowed, Denied, Session, SessionLimits
from towpath.identity import Principal
from towpath.protocol import codec_json, frames
from towpath.protocol.frames import Command, Malformed
from towpath.rate_limits import Rate

MIA = Principal(tenant="acme", user="mia")
OWN = user_channel("acme", "mia")
THREAD = thread_channel("acme", "mia", "t1")


def session(limits: SessionLimits | None = None, principal: Principal = MIA) -> Session:
    return Session(principal, may_read, limits)


def command(name: str, number: int = 7, **body: Any) -> Command | Malformed:
    """Return a command as it is decoded from the wire."""
    fields = {name: body} if name == "send" else {"id": number, name: body}
    [inbound] = codec_json.decode_frame(json.dumps(fields).encode())
    assert isinstance(inbound, Command | Malformed)
    return inbound


def subscribe(name: str, number: int = 7) -> Command | Malformed:
    return command("subscribe", number, channel=name)


Answer = Allowed | Denied

ANSWERS: list[tuple[str, dict[str, Any], Answer]] = [
    ("subscribe", {"channel": "thread:t1"}, Allowed(THREAD)),
    ("subscribe", {"channel": "doc:1"}, Denied(codes.UNKNOWN_CHANNEL)),
    ("subscribe", {}, Denied(codes.UNKNOWN_CHANNEL)),
    ("subscribe", {"channel": "user:leo"}, Denied(codes.UNKNOWN_CHANNEL)),
    ("unsubscribe", {"channel": "thread:t1"}, Allowed()),
    ("unsubscribe", {"channel": "doc:1"}, Allowed()),
    ("history", {"channel": "user", "limit": 5}, Allowed(OWN)),
    ("history", {"channel": "doc:1"}, Denied(codes.UNKNOWN_CHANNEL)),
    ("presence", {"channel": "user"}, Allowed(OWN)),
    ("presence", {"channel": "thread:t1"}, Allowed(THREAD)),
    ("presence", {"channel": "tenant"}, Denied(codes.NOT_AVAILABLE)),
    ("presence_stats", {"channel": "tenant"}, Denied(codes.NOT_AVAILABLE)),
    ("presence", {"channel": "doc:1"}, Denied(codes.UNKNOWN_CHANNEL)),
    ("presence_stats", {"channel": "user"}, Allowed(OWN)),
    ("presence_stats", {"channel": "doc:1"}, Denied(codes.UNKNOWN_CHANNEL)),
    ("publish", {"channel": "user", "data": 1}, Denied(codes.PERMISSION_DENIED)),
    ("publish", {"channel": "tenant", "data": 1}, Denied(codes.PERMISSION_DENIED)),
    ("publish", {"channel": "thread:t1", "data": 1}, Denied(codes.PERMISSION_DENIED)),
    ("publish", {"channel": "doc:1", "data": 1}, Denied(codes.UNKNOWN_CHANNEL)),
    ("rpc", {"method": "whoami", "data": {"a": 1}}, Allowed()),
    ("rpc", {}, Allowed()),
    ("refresh", {"token": "new"}, Allowed()),
    ("refresh", {}, Denied(codes.BAD_REQUEST)),
    ("sub_refresh", {"channel": "user"}, Denied(codes.NOT_AVAILABLE)),
    ("ping", {}, Allowed()),
    ("send", {"data": 1}, Allowed()),
    ("unheard_of", {}, Denied(codes.METHOD_NOT_FOUND)),
]


@pytest.mark.parametrize(("name", "body", "answer"), ANSWERS)
def test_r66_each_command_has_one_meaning(name: str, body: dict[str, Any], answer: Answer) -> None:
    """The table of commands: allowed on their channel, or denied with a code."""
    assert session().authorize(command(name, **body)) == answer


def test_r66_the_table_above_holds_every_command() -> None:
    """A command added to the profile must be added to the table."""
    assert {name for name, _, _ in ANSWERS} >= frames.COMMANDS.keys() - {"connect"}


def test_r66_a_malformed_command_gets_the_reason() -> None:
    """An invalid body is 107 with a reason that names the field."""
    answer = session().authorize(command("unsubscribe", channel=5))
    assert isinstance(answer, Denied)
    assert answer.code is codes.BAD_REQUEST
    assert answer.message
    assert "channel" in answer.message


def test_a_second_connect_is_nothing_a_session_can_mean() -> None:
    """The protocol never passes it on; if it did, the session would raise."""
    with pytest.raises(AssertionError):
        session().authorize(command("connect"))


# Subscriptions.


def test_a_channel_is_read_once() -> None:
    """A second subscribe to a channel is 105, until the client has unsubscribed."""
    reader = session()
    reader.authorize(subscribe("thread:t1"))
    assert reader.authorize(subscribe("thread:t1")) == Denied(codes.ALREADY_SUBSCRIBED)
    assert reader.authorize(command("unsubscribe", channel="thread:t1")) == Allowed(THREAD)
    assert isinstance(reader.authorize(subscribe("thread:t1")), Allowed)


def test_a_server_side_subscription_counts_as_one() -> None:
    """What the connect reply subscribed cannot be subscribed again."""
    reader = session()
    reader.joined(OWN)
    assert reader.authorize(subscribe("user")) == Denied(codes.ALREADY_SUBSCRIBED)
    assert reader.channels == {OWN}


def test_leaving_twice_is_leaving_once() -> None:
    """The second unsubscribe does nothing and is answered as well."""
    reader = session()
    reader.authorize(subscribe("thread:t1"))
    reader.authorize(command("unsubscribe", channel="thread:t1"))
    assert reader.authorize(command("unsubscribe", channel="thread:t1")) == Allowed()
    assert reader.channels == frozenset()


def test_a_subscription_that_failed_may_be_tried_again() -> None:
    """A failed subscription does not count as one."""
    reader = session()
    reader.authorize(subscribe("thread:t1"))
    reader.on_unsubscribed(THREAD)
    reader.on_unsubscribed(THREAD)
    assert isinstance(reader.authorize(subscribe("thread:t1")), Allowed)


def test_r67_128_channels_are_read_at_once_and_no_more() -> None:
    """The 128th subscription is allowed, server-side ones included; the 129th is 106."""
    reader = session()
    reader.joined(OWN)
    for number in range(127):
        assert isinstance(reader.authorize(subscribe(f"thread:{number}")), Allowed)
    assert len(reader.channels) == 128
    assert reader.authorize(subscribe("thread:more")) == Denied(codes.LIMIT_EXCEEDED)
    assert len(reader.channels) == 128
    reader.authorize(command("unsubscribe", channel="thread:0"))
    assert isinstance(reader.authorize(subscribe("thread:more")), Allowed)


def test_r67_at_the_bound_a_double_is_still_called_a_double() -> None:
    """The code names the real reason."""
    reader = session(SessionLimits(subscriptions=1))
    reader.authorize(subscribe("thread:t1"))
    assert reader.authorize(subscribe("thread:t1")) == Denied(codes.ALREADY_SUBSCRIBED)


@pytest.mark.parametrize(
    "refused_command",
    [
        subscribe("thread:t1"),
        command("history", channel="thread:t1"),
        command("presence", channel="thread:t1"),
        command("presence_stats", channel="thread:t1"),
    ],
)
def test_r35_what_the_policy_refuses_looks_as_if_it_did_not_exist(refused_command: Command) -> None:
    """Every command that reads a channel checks the policy; a refusal is 102."""
    reader = Session(MIA, lambda *_: False)
    assert reader.authorize(refused_command) == Denied(codes.UNKNOWN_CHANNEL)
    assert reader.channels == frozenset()


@given(
    st.sampled_from(["subscribe", "history", "presence", "presence_stats", "unsubscribe"]),
    st.text(min_size=1, max_size=30) | st.sampled_from(["user:leo", "thread:leo:t", "thread:x"]),
)
def test_r39_no_name_leads_out_of_ones_own(name: str, channel: str) -> None:
    """A command is only ever allowed on channels of the principal's own."""
    reader = session()
    answer = reader.authorize(Command(7, name, _request(name, channel)))
    if isinstance(answer, Allowed) and answer.channel is not None:
        assert may_read(MIA, answer.channel)
    assert all(may_read(MIA, read) for read in reader.channels)


def _request(name: str, channel: str) -> frames.Request:
    kinds: dict[str, Callable[..., frames.Request]] = {
        "subscribe": frames.SubscribeRequest,
        "history": frames.HistoryRequest,
        "presence": frames.PresenceRequest,
        "presence_stats": frames.PresenceStatsRequest,
        "unsubscribe": frames.UnsubscribeRequest,
    }
    return kinds[name](channel=channel)


# Too many errors.


def test_r64_a_connection_ends_after_100_errors() -> None:
    """A hundred errors are answered, the next ends the connection with 3013."""
    reader = session()
    for number in range(1, 101):
        assert reader.authorize(command("unheard_of", number)) == Denied(codes.METHOD_NOT_FOUND)
    assert reader.authorize(command("unheard_of")) == Denied(codes.TOO_MANY_ERRORS)


def test_r64_a_command_that_fails_while_it_is_performed_counts_too() -> None:
    """Errors count wherever they occur; a success does not reset the count."""
    reader = session(SessionLimits(errors=2))
    reader.authorize(command("ping"))
    assert reader.failed(codes.NOT_FOUND, "no such run") == Denied(codes.NOT_FOUND, "no such run")
    reader.authorize(command("unheard_of"))
    reader.authorize(command("ping"))
    assert reader.failed(codes.CONFLICT) == Denied(codes.TOO_MANY_ERRORS)


def test_one_way_messages_never_end_a_connection() -> None:
    """A send has no reply, so it has no error either."""
    reader = session(SessionLimits(errors=1))
    assert [reader.authorize(command("send")) for _ in range(5)] == [Allowed()] * 5


# Too many commands.


def busy(burst: int = 3, per_second: float = 1.0, errors: int = 100) -> Session:
    """Return a session with a low command rate, begun at second 10."""
    limits = SessionLimits(errors=errors, commands=Rate(per_second=per_second, burst=burst))
    return Session(MIA, may_read, limits, now=10.0)


def test_r23_commands_beyond_the_burst_are_111_and_have_no_effect() -> None:
    """Temporary, one reply each, and the command has no effect."""
    reader = busy()
    for number in range(1, 4):
        assert reader.authorize(command("ping", number), 10.0) == Allowed()
    assert reader.authorize(subscribe("thread:t1", 4), 10.0) == Denied(codes.TOO_MANY_REQUESTS)
    assert reader.authorize(command("rpc", 5, method="run.start"), 10.0) == Denied(
        codes.TOO_MANY_REQUESTS
    )
    assert codes.TOO_MANY_REQUESTS.temporary
    assert reader.channels == frozenset()


def test_r23_commands_are_taken_again_at_the_rate() -> None:
    """One a second here, by the clock passed in, and never more than the burst at once."""
    reader = busy()
    for _ in range(3):
        reader.authorize(command("ping"), 10.0)
    assert isinstance(reader.authorize(command("ping"), 10.999), Denied)
    assert isinstance(reader.authorize(command("ping"), 11.0), Allowed)
    assert isinstance(reader.authorize(command("ping"), 11.0), Denied)
    taken = [isinstance(reader.authorize(command("ping"), 1000.0), Allowed) for _ in range(5)]
    assert taken == [True] * 3 + [False] * 2


def test_r64_who_goes_on_after_a_hundred_refusals_is_closed() -> None:
    """111 a hundred times, then 3013; an allowed command between them changes nothing."""
    reader = busy(burst=1)
    reader.authorize(command("ping"), 10.0)
    for number in range(1, 100):
        assert reader.authorize(command("ping", number), 10.0) == Denied(codes.TOO_MANY_REQUESTS)
    assert isinstance(reader.authorize(command("ping"), 11.0), Allowed)
    assert isinstance(reader.authorize(command("ping"), 11.0), Denied)
    assert reader.authorize(command("ping"), 11.0) == Denied(codes.TOO_MANY_ERRORS)


def test_r64_one_way_messages_are_counted_like_any_other() -> None:
    """A flood of sends is denied, and ends the connection like any other flood."""
    reader = busy(burst=2, errors=3)
    answers = [reader.authorize(command("send", data=1), 10.0) for _ in range(5)]
    assert answers == [Allowed()] * 2 + [Denied(codes.TOO_MANY_REQUESTS)] * 3
    assert reader.authorize(command("send", data=1), 10.0) == Denied(codes.TOO_MANY_ERRORS)


def test_r67_the_burst_is_512_commands_unless_it_is_set() -> None:
    """A client that sends everything at once on a new connection is allowed."""
    assert SessionLimits() == SessionLimits(commands=Rate(per_second=50, burst=512))
    reader = session()
    taken = [isinstance(reader.authorize(command("ping")), Allowed) for _ in range(513)]
    assert taken == [True] * 512 + [False]


def test_r39_malformed_commands_count_like_any_others() -> None:
    """A malformed command costs as much as a valid one."""
    reader = busy(burst=1)
    assert reader.authorize(command("unheard_of", 1), 10.0) == Denied(codes.METHOD_NOT_FOUND)
    assert reader.authorize(command("unheard_of", 2), 10.0) == Denied(codes.TOO_MANY_REQUESTS)


# Renewal.


def test_r86_rights_are_those_of_the_principal_of_the_moment() -> None:
    """After a renewal, commands are checked with the new principal."""
    checked: list[Principal] = []

    def noting(principal: Principal, channel: Channel) -> bool:
        checked.append(principal)
        return may_read(principal, channel)

    reader = Session(MIA, noting)
    renewed = Principal(tenant="acme", user="mia", roles=frozenset({"ops"}), expires_at=99.0)
    reader.authorize(subscribe("thread:t1"))
    reader.principal = renewed
    reader.authorize(subscribe("thread:t2"))
    assert checked == [MIA, renewed]
    assert reader.channels == {THREAD, thread_channel("acme", "mia", "t2")}


def test_r17_no_answer_shows_a_credential() -> None:
    """The repr of a result contains no token."""
    refresh = session().authorize(command("refresh", token="eyJ.SECRET.x"))
    subscribed = session().authorize(command("subscribe", channel="user", token="eyJ.SECRET.x"))
    assert (refresh, subscribed) == (Allowed(), Allowed(OWN))
    assert "SECRET" not in f"{refresh!r} {subscribed!r}"
