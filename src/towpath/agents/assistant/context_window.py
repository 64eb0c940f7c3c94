"""The part of a conversation that fits into a model's context window."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from towpath.events.types import Message

ASCII_PER_TOKEN = 3
"""Characters of English or code in one token; the estimate is rather too low than too high."""
BYTES_PER_TOKEN = 2
"""Bytes of other scripts in one token; small models need more tokens for them."""
TOKENS_PER_MESSAGE = 8
"""Tokens of a message beside those of its text."""


def recent(messages: Sequence[Message], tokens: int) -> list[Message]:
    """Return the newest turns of a conversation that fit into so many tokens.

    A turn is a person's message and everything up to the next one, so a tool's result always comes
    with its call. The newest turn is there whatever its size: a model that cannot read it reports
    that, instead of answering an older message.

    Args:
        messages: the conversation, oldest first, in AG-UI wire form.
        tokens: the bound, as an estimate: the actual number may differ a little.
    """
    kept: list[Message] = []
    remaining = tokens
    for turn in reversed(_turns(messages)):
        remaining -= sum(map(_tokens, turn))
        if kept and remaining < 0:
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
    """Estimate the tokens of a message."""
    text = "".join(_texts(message.get("content"))) + "".join(_texts(message.get("toolCalls")))
    plain = sum(map(str.isascii, text))
    other = len(text.encode("utf-8", "surrogatepass")) - plain
    return TOKENS_PER_MESSAGE + -(-plain // ASCII_PER_TOKEN) + -(-other // BYTES_PER_TOKEN)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif value is not None:
        yield msgspec.json.encode(value).decode()
