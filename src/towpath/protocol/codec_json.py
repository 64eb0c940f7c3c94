"""The JSON encoding: text frames that hold one or several values, separated by newlines.

Decoding is one typed pass. Only a line that this pass refuses is decoded a second time, to find out
whether its id can be read and an error be addressed to it. Encoding copies payloads as they are:
they were made compact at ingress, so no newline can stand inside a payload.

Source: WIRE section 1; Centrifuge client protocol, JSON framing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from towpath.errors import TowpathError
from towpath.json_bounds import MAX_DEPTH, too_deep
from towpath.protocol import frames
from towpath.protocol.frames import Command, Inbound, Malformed, Pong

MAX_COMMANDS = 256
"""How many commands one frame may hold."""


class BadFrame(TowpathError):
    """A frame that holds something no error reply can be addressed to; the connection closes."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class _CommandFields(Struct):
    """All a client command may hold. The first request found counts."""

    id: frames.CommandId = 0
    connect: frames.ConnectRequest | None = None
    subscribe: frames.SubscribeRequest | None = None
    unsubscribe: frames.UnsubscribeRequest | None = None
    publish: frames.PublishRequest | None = None
    presence: frames.PresenceRequest | None = None
    presence_stats: frames.PresenceStatsRequest | None = None
    history: frames.HistoryRequest | None = None
    ping: frames.Empty | None = None
    send: frames.SendRequest | None = None
    rpc: frames.RPCRequest | None = None
    refresh: frames.RefreshRequest | None = None
    sub_refresh: frames.SubRefreshRequest | None = None


_decode = msgspec.json.Decoder(_CommandFields).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def decode_frame(frame: bytes) -> Iterator[Inbound]:
    """Yield what one text frame holds, in order.

    Raises:
        BadFrame: text that is not JSON, not an object, nested deeper than `MAX_DEPTH`, without a
            usable id, or more than `MAX_COMMANDS` commands. What stood before it was yielded.
    """
    lines = [line for line in frame.split(b"\n") if line and not line.isspace()]
    if len(lines) > MAX_COMMANDS:
        raise BadFrame(f"more than {MAX_COMMANDS} commands in a frame")
    for line in lines:
        yield _decode_line(line)


def _decode_line(line: bytes) -> Inbound:
    if too_deep(line):
        raise BadFrame(f"JSON nested deeper than {MAX_DEPTH}")
    try:
        fields = _decode(line)
    except msgspec.ValidationError as error:
        return _addressable(line, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadFrame("a frame that is not JSON") from None
    for name in frames.COMMANDS:
        request = getattr(fields, name)
        if request is not None:
            if (fields.id == 0) != (name == "send"):
                raise BadFrame("a command without an id, or a send with one")
            return Command(fields.id, name, request)
    if fields.id == 0:
        return _empty(line)
    return Malformed(fields.id, "no known command", unknown=True)


def _addressable(line: bytes, reason: str) -> Malformed:
    """Return the malformed command if its id can be read; else there is nobody to answer."""
    value = _whole(line)
    number = value.get("id") if isinstance(value, dict) else None
    if type(number) is not int or not 0 < number <= frames.MAX_COMMAND_ID:
        raise BadFrame("a command without a usable id")
    return Malformed(number, reason)


def _empty(line: bytes) -> Pong:
    if _whole(line) != {}:
        raise BadFrame("a command without an id")
    return Pong()


def _whole(line: bytes) -> Any:
    """Return all a line holds, also what the typed pass skipped or did not come to."""
    try:
        return _decode_any(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadFrame("a frame that is not JSON") from None


def compact(text: bytes) -> Raw:
    """Return JSON text without any white space between its parts, so it can stand in a frame.

    Raises:
        msgspec.DecodeError: `text` is not JSON.
    """
    return Raw(msgspec.json.format(text, indent=-1))


def encode_reply(command: str, number: int, result: frames.Result) -> bytes:
    """Return the success reply to command `number`: its result under the command's name."""
    return b'{"id":%d,"%s":%s}' % (number, command.encode(), _encode(result))


def encode_error(number: int, error: frames.Error) -> bytes:
    """Return the error reply to command `number`."""
    return b'{"id":%d,"error":%s}' % (number, _encode(error))


def encode_publication(
    channel: str, offset: int, data: bytes, tags: Mapping[str, str] | None = None
) -> bytes:
    """Return the push of one publication; the same bytes serve every reader of the channel.

    Args:
        channel: its name as clients see it.
        offset: of the publication; 0 for none, and then the field is left out.
        data: the payload, compact JSON; it is copied as it is.
        tags: left out where there are none.
    """
    place = b',"offset":%d' % offset if offset else b""
    meta = b',"tags":%b' % _encode(tags) if tags else b""
    return b'{"push":{"channel":%b,"pub":{"data":%b%b%b}}}' % (_encode(channel), data, place, meta)


def encode_unsubscribe(channel: str, code: int, reason: str) -> bytes:
    """Return the push that ends one subscription."""
    name, sentence = _encode(channel), _encode(reason)
    return b'{"push":{"channel":%b,"unsubscribe":{"code":%d,"reason":%b}}}' % (name, code, sentence)


PING = b"{}"
"""The server's ping: an empty reply."""
SEPARATOR = b"\n"
"""What stands between the values of one frame."""


def encode_value(value: Any) -> Raw:
    """Return any JSON-shaped value as a payload."""
    return Raw(_encode(value))
