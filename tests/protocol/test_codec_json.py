"""The JSON encoding: what one text frame holds, and what the bytes of an answer say."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from towpath.protocol import codec_json as codec
from towpath.protocol import frames
from towpath.protocol.codec_json import BadFrame
from towpath.protocol.frames import Command, Inbound, Malformed, Pong

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
IDS = st.integers(1, frames.MAX_COMMAND_ID)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OFFSETS = st.integers(0, 2**63 - 1)
CHANNELS = TEXT.filter(bool)

SUBSCRIBE = st.fixed_dictionaries(
    {"channel": CHANNELS},
    optional={
        "recover": st.booleans(),
        "offset": OFFSETS,
        "epoch": TEXT,
        "positioned": st.booleans(),
        "recoverable": st.booleans(),
        "flag": st.integers(0, 2**31),
    },
)
BODIES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "connect": st.fixed_dictionaries(
        {},
        optional={
            "token": TEXT,
            "name": TEXT,
            "version": TEXT,
            "data": JSON,
            "subs": st.dictionaries(TEXT, SUBSCRIBE, max_size=3),
        },
    ),
    "subscribe": SUBSCRIBE,
    "unsubscribe": st.fixed_dictionaries({"channel": CHANNELS}),
    "publish": st.fixed_dictionaries({"channel": CHANNELS, "data": JSON}),
    "presence": st.fixed_dictionaries({"channel": CHANNELS}),
    "presence_stats": st.fixed_dictionaries({"channel": CHANNELS}),
    "history": st.fixed_dictionaries(
        {"channel": CHANNELS},
        optional={
            "limit": st.integers(-1, 2**31),
            "since": st.fixed_dictionaries({"offset": OFFSETS, "epoch": TEXT}),
            "reverse": st.booleans(),
        },
    ),
    "ping": st.just({}),
    "send": st.fixed_dictionaries({"data": JSON}),
    "rpc": st.fixed_dictionaries({"method": TEXT, "data": JSON}),
    "refresh": st.fixed_dictionaries({"token": TEXT}),
    "sub_refresh": st.fixed_dictionaries({"channel": CHANNELS}),
}


@st.composite
def commands(draw: st.DrawFn) -> dict[str, Any]:
    """Any command as a client writes it; a one-way send has no id."""
    name = draw(st.sampled_from(sorted(BODIES)))
    body = {name: draw(BODIES[name])}
    return body if name == "send" else {"id": draw(IDS), **body}


def decode(frame: bytes | str) -> list[Inbound]:
    data = frame.encode() if isinstance(frame, str) else frame
    return list(codec.decode_frame(data))


def one(frame: bytes | str) -> Inbound:
    [inbound] = decode(frame)
    return inbound


def said(command: Inbound) -> dict[str, Any]:
    """Return what a decoded command holds, as plain values."""
    assert isinstance(command, Command)
    request = msgspec.json.decode(msgspec.json.encode(command.request))
    return {"id": command.id, "command": command.name, **request}


def nested(depth: int) -> bytes:
    """Return a command whose JSON nests exactly this deep."""
    inner = depth - 2
    return b'{"id":1,"rpc":{"method":"m","data":' + b"[" * inner + b"]" * inner + b"}}"


def test_every_command_of_the_profile_is_exercised_here() -> None:
    """A command added to the profile without a shape in this test is noticed."""
    assert BODIES.keys() == frames.COMMANDS.keys()


@given(commands(), st.booleans())
def test_a_command_arrives_as_it_was_said(command: dict[str, Any], spaced: bool) -> None:
    """Every field a client sets is what the session sees; nothing else is made up."""
    [name] = command.keys() - {"id"}
    text = json.dumps(command, separators=(", ", " : ") if spaced else (",", ":"))

    heard = said(one(text))

    assert (heard["id"], heard["command"]) == (command.get("id", 0), name)
    for field, value in command[name].items():
        if field == "subs":
            assert heard["subs"].keys() == value.keys()
        else:
            assert heard[field] == value


@given(st.lists(commands(), max_size=8), st.sampled_from(["\n", "\n\n", "\r\n", "\n \t\n"]))
def test_commands_of_one_frame_come_out_in_order(
    batch: list[dict[str, Any]], separator: str
) -> None:
    """A batch is the same as its commands one by one, whatever blank lines stand between."""
    lines = [json.dumps(command) for command in batch]
    together = decode(separator.join(lines) + separator)
    assert [said(command) for command in together] == [said(one(line)) for line in lines]


@given(JSON)
def test_unknown_fields_are_ignored(value: object) -> None:
    """The protocol grows by adding fields."""
    command = {"id": 1, "new": value, "subscribe": {"channel": "user", "newer": value}}
    assert said(one(json.dumps(command)))["channel"] == "user"


@pytest.mark.parametrize("text", ["{}", " {} ", "{ }", "{}\r"])
def test_an_empty_command_is_a_pong(text: str) -> None:
    """White space does not change what was said."""
    assert one(text) == Pong()


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n", "\r\n"])
def test_a_blank_frame_holds_nothing(text: str) -> None:
    """Nothing said is nothing wrong."""
    assert decode(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{",
        '{"id":1',
        '{"id":1,"ping":{}}x',
        '{"id":1,"ping":{}}{"id":2,"ping":{}}',
        '{"id":1,"rpc":{"data":NaN}}',
        "{'id':1,'ping':{}}",
        '{"id":01,"ping":{}}',
        '{"id":1,"subscribe":{"channel":"\\ud800"}}',
        "\x00",
        # The fault of a field comes before the fault of the text.
        '{"id":1,"subscribe":5,',
        '{"id":1,"ping":5}x',
        '{"id":1e400,"ping":{}}',
        '{"id":"x"',
        '{"id":1,"connect":{"token":7}}{',
        '{"zzz":1e999}',
        b'{"zzz":"\xff"}',
        b'{"id":1,"ping":5,"zzz":"\xed\xa0\x80"}',
    ],
)
def test_what_is_not_json_can_have_no_answer(text: str | bytes) -> None:
    """Broken text ends the frame, also where a wrong field stands before the break."""
    with pytest.raises(BadFrame, match="not JSON"):
        decode(text)


@given(st.binary(max_size=80) | commands().map(lambda c: json.dumps(c).encode()), st.data())
@example(b'{"id":1,"subscribe":5,', None)
@example(b'{"zzz":"\xff"}', None)
def test_r01_no_bytes_raise_anything_but_bad_frame(line: bytes, data: st.DataObject | None) -> None:
    """Whatever a peer sends, however it is damaged, decoding has one way to fail."""
    if data is not None and line:
        at = data.draw(st.integers(0, len(line) - 1))
        line = line[:at] + data.draw(st.binary(max_size=2)) + line[at + 1 :]
    with contextlib.suppress(BadFrame):
        decode(line)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "1",
        '"text"',
        "[{}]",
        '{"ping":{}}',
        '{"id":0,"ping":{}}',
        '{"id":0}',
        '{"id":-1,"ping":{}}',
        '{"id":4294967296,"ping":{}}',
        '{"id":99999999999999999999999999,"ping":{}}',
        '{"id":true,"ping":{}}',
        '{"id":false,"send":{}}',
        '{"id":"1","ping":{}}',
        '{"id":1.5,"ping":{}}',
        '{"id":null,"ping":{}}',
        '{"id":[1],"ping":{}}',
        '{"subscribe":5}',
        '{"id":1,"id":"x","ping":{}}',
        '{"zzz":{}}',
    ],
)
def test_a_command_without_a_usable_id_can_have_no_answer(text: str) -> None:
    """An id is an integer from 1 to 2³²-1, and nothing that only looks like one."""
    with pytest.raises(BadFrame, match="id"):
        decode(text)


@pytest.mark.parametrize("number", [1, 4294967295])
def test_the_first_and_the_last_id_are_taken(number: int) -> None:
    """The exact bounds of uint32 above 0."""
    assert one(f'{{"id":{number},"ping":{{}}}}') == Command(number, "ping", frames.Empty())


def test_a_one_way_send_carries_no_id() -> None:
    """A send without an id is taken; with one nobody would know which reply it waits for."""
    heard = one('{"send":{"data":{"a":1}}}')
    assert isinstance(heard, Command)
    assert (heard.id, heard.name) == (0, "send")
    with pytest.raises(BadFrame, match="a send with one"):
        decode('{"id":7,"send":{}}')


@pytest.mark.parametrize(
    "body",
    [
        '"subscribe":5',
        '"subscribe":[]',
        '"subscribe":{"channel":5}',
        '"subscribe":{"channel":"user","offset":-1}',
        '"subscribe":{"channel":"user","offset":9223372036854775808}',
        '"subscribe":{"channel":"user","offset":"5"}',
        '"subscribe":{"channel":"user","recover":1}',
        '"connect":{"token":5}',
        '"connect":{"subs":[]}',
        '"unsubscribe":{}',
        '"unsubscribe":{"channel":""}',
        '"presence":{"channel":"' + "c" * 256 + '"}',
        '"history":{"channel":"user","since":5}',
        '"rpc":{"method":5}',
        '"rpc":{"method":"' + "m" * 129 + '"}',
        '"refresh":{"token":null}',
        '"ping":true',
    ],
)
def test_r66_a_command_with_a_wrong_body_is_malformed_under_its_id(body: str) -> None:
    """Where the id can be read the fault becomes the error of that one command."""
    heard = one(f'{{{body},"id":9}}')
    assert isinstance(heard, Malformed)
    assert heard.id == 9
    assert heard.reason
    assert not heard.unknown


@pytest.mark.parametrize("body", ["", ',"zzz":{}', ',"rpc":null', ',"Ping":{}', ',"push":{}'])
def test_r66_a_command_nobody_knows_is_unknown(body: str) -> None:
    """An id with no command of ours beside it is told apart from a wrong body."""
    heard = one(f'{{"id":9{body}}}')
    assert isinstance(heard, Malformed)
    assert (heard.id, heard.unknown) == (9, True)


def test_a_bad_line_ends_the_frame_and_what_stood_before_it_counts() -> None:
    """Commands before the fault come out; none after it does."""
    frame = codec.decode_frame(b'{"id":1,"ping":{}}\nnonsense\n{"id":2,"ping":{}}')
    assert next(frame) == Command(1, "ping", frames.Empty())
    with pytest.raises(BadFrame):
        next(frame)
    assert list(frame) == []


@pytest.mark.parametrize("ending", ["", "\n", "\n\n"])
def test_r67_a_frame_holds_256_commands_and_no_more(ending: str) -> None:
    """The last command allowed passes; one more and none of the frame counts."""
    lines = [f'{{"id":{number},"ping":{{}}}}' for number in range(1, 258)]
    assert len(decode("\n".join(lines[:256]) + ending)) == 256
    with pytest.raises(BadFrame, match="more than 256"):
        decode("\n".join(lines) + ending)


def test_r67_json_nests_64_deep_and_no_deeper() -> None:
    """The last depth allowed passes, the next does not."""
    assert isinstance(one(nested(64)), Command)
    with pytest.raises(BadFrame, match="deeper than 64"):
        decode(nested(65))


@pytest.mark.parametrize(
    "text", ["[" * 200, "{" * 200, '"' + "[" * 200, '\\"' + '["' * 99, "\\" * 9 + "{" * 99]
)
def test_brackets_inside_a_string_do_not_count(text: str) -> None:
    """Depth is that of the structure, whatever a person writes into a message."""
    command = {"id": 1, "rpc": {"method": "m", "data": text}}
    assert isinstance(one(json.dumps(command)), Command)


@given(JSON)
def test_r43_a_compact_payload_is_the_same_value_on_one_line(value: object) -> None:
    """No raw newline of a payload can break the framing."""
    text = json.dumps(value, indent=2, ensure_ascii=False).encode()
    made = bytes(codec.compact(b"\n\t " + text + b"\r\n"))
    assert b"\n" not in made
    assert json.loads(made) == value


def test_what_is_not_json_cannot_be_made_compact() -> None:
    """A payload that is no JSON is refused at ingress."""
    with pytest.raises(msgspec.DecodeError):
        codec.compact(b'{"a":')


@pytest.mark.parametrize("command", ["unsubscribe", "ping", "sub_refresh"])
def test_an_empty_result_stands_under_its_commands_name(command: str) -> None:
    """Each success reply carries its result object, present even when empty."""
    assert codec.encode_reply(command, 5, frames.Empty()) == b'{"id":5,"%s":{}}' % command.encode()


def test_zero_counts_are_explicit() -> None:
    """Nobody there is told as zero, not by silence."""
    reply = codec.encode_reply(
        "presence_stats", 5, frames.PresenceStatsResult(num_clients=0, num_users=0)
    )
    assert json.loads(reply) == {"id": 5, "presence_stats": {"num_clients": 0, "num_users": 0}}


def test_a_subscribe_answer_states_its_position_even_when_empty() -> None:
    """Offset 0 and false are said; an empty list of publications is not."""
    reply = json.loads(codec.encode_reply("subscribe", 3, frames.SubscribeResult(epoch="e")))
    assert reply == {
        "id": 3,
        "subscribe": {
            "recoverable": True,
            "positioned": True,
            "epoch": "e",
            "offset": 0,
            "recovered": False,
            "was_recovering": False,
        },
    }


@pytest.mark.parametrize(("code", "temporary"), [(104, msgspec.UNSET), (100, True), (109, True)])
def test_an_error_says_code_and_message(code: int, temporary: Any) -> None:
    """`temporary` is there where it is true, and not otherwise."""
    made = codec.encode_error(4, frames.Error(code=code, message="why", temporary=temporary))
    expected: dict[str, object] = {"code": code, "message": "why"}
    if temporary is True:
        expected["temporary"] = True
    assert json.loads(made) == {"id": 4, "error": expected}


def test_r75_a_snapshot_item_has_no_offset_and_a_live_one_has() -> None:
    """The field is left out, never zero: SDKs adopt every offset they see."""
    snapshot = codec.encode_publication("thread:t", 0, b'{"a":1}')
    live = codec.encode_publication("thread:t", 1, b'{"a":1}', {"run": "r"})
    assert json.loads(snapshot) == {"push": {"channel": "thread:t", "pub": {"data": {"a": 1}}}}
    assert json.loads(live)["push"]["pub"] == {
        "data": {"a": 1},
        "offset": 1,
        "tags": {"run": "r"},
    }


@given(TEXT, TEXT, JSON)
def test_one_push_is_one_line(channel: str, tag: str, value: object) -> None:
    """Whatever names and tags hold, a frame of ours never contains a raw newline."""
    data = bytes(codec.compact(json.dumps(value).encode()))
    pushed = codec.encode_publication(channel, 1, data, {tag: tag})
    ended = codec.encode_unsubscribe(channel, 2500, tag)
    assert b"\n" not in pushed + ended
    assert json.loads(pushed)["push"]["pub"]["data"] == value
    assert json.loads(ended)["push"]["unsubscribe"] == {"code": 2500, "reason": tag}


def test_a_ping_is_an_empty_reply() -> None:
    """WIRE section 4."""
    assert json.loads(codec.PING) == {}


def test_any_value_can_be_a_payload() -> None:
    """Plain values become compact JSON."""
    assert bytes(codec.encode_value({"a": [1, None]})) == b'{"a":[1,null]}'


@pytest.mark.parametrize("name", ["connect", "refresh", "sub_refresh"])
def test_r17_no_repr_of_a_request_shows_its_token(name: str) -> None:
    """A request or command that is logged by accident gives no credential away."""
    secret = "eyJhbGciOi.SECRET.signature"
    body = {"token": secret, "channel": "user", "subs": {"user": {"token": secret}}}
    heard = one(json.dumps({"id": 1, name: body}))
    assert isinstance(heard, Command)
    for text in (repr(heard), str(heard), repr(heard.request), f"{heard.request}"):
        assert "SECRET" not in text
        assert "eyJ" not in text


def test_r17_no_repr_of_a_subscribe_shows_its_token() -> None:
    """A subscription token is a credential too."""
    heard = one('{"id":1,"subscribe":{"channel":"user","token":"eyJ.SECRET.x"}}')
    assert "SECRET" not in repr(heard)


@given(TEXT.filter(lambda text: len(text) > 3))
def test_r17_the_reason_of_a_malformed_command_does_not_quote_it(secret: str) -> None:
    """The sentence a client and our logs see names the field, not its content."""
    heard = one(json.dumps({"id": 1, "refresh": {"token": [f"SECRET{secret}"]}}))
    assert isinstance(heard, Malformed)
    assert "SECRET" not in heard.reason
