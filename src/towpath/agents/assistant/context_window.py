"""What of a conversation a model is given, because it can read only so much."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from towpath.events.types import Message

ASCII_PER_TOKEN = 3
"""Characters of plain English or code that make a token, rather too few than too many."""
BYTES_PER_TOKEN = 2
"""Bytes of other writing that do; small models spend more on it."""
TOKENS_PER_MESSAGE = 8
"""What a message costs beside its text."""


def recent(messages: Sequence[Message], tokens: int) -> list[Message]:
    """Return the newest turns of a conversation that fit into so many tokens.

    A turn is what a person said and all that came of it, so a tool's result never stands without
    its call. The newest turn is there whatever its size: a model that cannot read it says so, and
    nobody is answered who asked something else.

    Args:
        messages: the conversation, oldest first, in AG-UI wire form.
        tokens: the bound, estimated: what is sent may be a little more or, mostly, less.
    """
    kept: list[Message] = []
    left = tokens
    for turn in reversed(_turns(messages)):
        left -= sum(map(_tokens, turn))
        if kept and left < 0:
            break
        kept[:0] = turn
    return kept


def _turns(messages: Iterable[Message]) -> list[list[Message]]:
    turns: list[list[Message]] = [[]]
    for message in messages:
        if message["role"] == "user" and turns[-1]:
            turns.append([])
        turns[-1].append(message)
    return turns


def _tokens(message: Message) -> int:
    """Estimate what a message costs the model."""
    text = "".join(_texts(message.get("content"))) + "".join(_texts(message.get("toolCalls")))
    plain = sum(map(str.isascii, text))
    other = len(text.encode("utf-8", "surrogatepass")) - plain
    return TOKENS_PER_MESSAGE + -(-plain // ASCII_PER_TOKEN) + -(-other // BYTES_PER_TOKEN)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif value is not None:
        yield msgspec.json.encode(value).decode()
