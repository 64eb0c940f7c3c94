"""The JSON encoding: text frames that hold one or several values, separated by newlines.

Decoding is one typed pass. Only a line that this pass refuses is decoded again, to read its id for
an error reply. Encoding copies payloads unchanged: they were made compact when they were received,
so a payload contains no newline.

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
    """A frame has an error for which no error reply is possible; the connection closes."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class _CommandFields(Struct):
    """The fields of a client command. The first request found is used."""

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
    """Yield the commands and pongs of one text frame, in order.

    Raises:
        BadFrame: a line is not JSON, not an object, nested deeper than `MAX_DEPTH`, or without a
            usable id; the lines before it were yielded. Or the frame has more than `MAX_COMMANDS`
            commands; then nothing was yielded.
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
    """Return the malformed command; raise BadFrame if its id cannot be read."""
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
    """Decode a whole line, with the fields that the typed pass skipped or did not reach."""
    try:
        return _decode_any(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadFrame("a frame that is not JSON") from None


def compact(text: bytes) -> Raw:
    """Return JSON text without white space between its tokens, so that a frame can contain it.

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
        channel: its client-visible name.
        offset: the offset of the publication; 0 leaves the field out.
        data: the payload, compact JSON; it is copied unchanged.
        tags: the metadata; left out if empty.
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
"""The separator between the values of one frame."""


def encode_value(value: Any) -> Raw:
    """Return any JSON-shaped value as a payload."""
    return Raw(_encode(value))
