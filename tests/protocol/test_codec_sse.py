"""The event-stream encoding: what is written is read again, and nothing else is a position."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.protocol import codec_sse as codec

EPOCHS = st.text("0123456789abcdef", min_size=1, max_size=32)
OFFSETS = st.integers(0, 10**18 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def lines_of(event: bytes) -> list[bytes]:
    """Return an event's lines, taken apart as the standard says: LF, CR and CRLF all end one."""
    assert event.endswith(codec.END)
    return event.removesuffix(codec.END).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


@given(JSON, EPOCHS, OFFSETS)
def test_what_is_written_is_read_again(value: object, epoch: str, offset: int) -> None:
    """An event is one `id` line and one `data` line, whatever the payload holds."""
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    first, second = lines_of(codec.encode_event(data, position=(epoch, offset)))
    assert second == codec.DATA + data
    assert codec.read_position(first.removeprefix(b"id: ").decode()) == (epoch, offset)


@given(JSON)
def test_without_a_position_there_is_no_id(value: object) -> None:
    """What completes no position is its data and nothing else: the client keeps its last id."""
    data = json.dumps(value, separators=(",", ":")).encode()
    assert codec.encode_event(data) == codec.DATA + data + codec.END


def test_r61_a_sign_of_life_is_a_comment() -> None:
    """Keep-alives begin with a colon, so no client takes one for an event or an id."""
    assert [line[:1] for line in lines_of(codec.KEEP_ALIVE)] == [b":"]


@given(st.text() | st.from_regex(r"[0-9a-f]{0,20}:?[-+ 0-9_e.٣²]{0,25}", fullmatch=True))
def test_r79_a_hostile_last_event_id_is_a_position_or_none(text: str) -> None:
    """Whatever a client sends, the answer is None or a position that says the same again."""
    position = codec.read_position(text)
    if position is not None:
        epoch, offset = position
        assert text == f"{epoch}:{text.rpartition(':')[2]}"
        assert 0 <= offset < 2**63
        assert int(text.rpartition(":")[2]) == offset


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":0",
        "0",
        "abc",
        "abc:",
        "abc:-1",
        "abc:+1",
        "abc: 1",
        "abc:1 ",
        "abc:1_0",
        "abc:1.0",
        "abc:٣",
        "abc:²",
        "a b:1",
        "abc:1:2",
        "abc:" + "9" * 19,
        "abc:" + "9" * 5000,
        "../abc:1",
        "abc\x00:1",
    ],
)
def test_r79_what_is_no_position_is_read_as_none(text: str) -> None:
    """Signs, spaces, foreign digits, huge and empty parts: the reader starts over instead."""
    assert codec.read_position(text) is None
