"""The text that an agent sends, word by word, so that both sides know it in advance.

A word is its number in base 36, filled up with zeros, and a space: no two are the same, and all
are of one size. The size a language model's token has on average, in English, is four.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from typing import Self

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
TOKEN_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """The text of one run."""

    words: int
    size: int = TOKEN_BYTES
    """Of each word with its space, in bytes."""
    rate: float = 0.0
    """Words per second; 0 says them without a pause."""
    calls: int = 0
    """How many tools are called on the way, evenly spread."""
    stays: bool = False
    """Whether the run goes on, silently, when all is said, until somebody stops it."""

    @classmethod
    def request(cls, message: str) -> Self:
        """Return what a message asks for."""
        return cls(**json.loads(message))

    @property
    def message(self) -> str:
        """The message that asks for it."""
        return json.dumps(asdict(self))

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.word(number) for number in range(1, self.words + 1))

    def word(self, number: int) -> str:
        """Return one word; the first is number 1."""
        digits = ""
        while number:
            number, digit = divmod(number, 36)
            digits = _DIGITS[digit] + digits
        return f"{digits.rjust(self.size - 1, '0')} "

    async def items(self) -> AsyncGenerator[object, None]:
        """Yield the items, as an agent does."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        before_a_call = self.words // (self.calls + 1)
        for number in range(1, self.words + 1):
            yield self.word(number)
            due = began + number / self.rate if self.rate else 0.0
            await asyncio.sleep(max(0.0, due - loop.time()))
            called = number // before_a_call
            if number % before_a_call == 0 and called <= self.calls:
                for event in _call(called):
                    yield event
        if self.stays:
            await asyncio.Event().wait()


def _call(number: int) -> list[dict[str, str]]:
    call = {"toolCallId": f"call-{number}"}
    return [
        {"type": "TOOL_CALL_START", **call, "toolCallName": "look_up"},
        {"type": "TOOL_CALL_ARGS", **call, "delta": f'{{"number":{number}}}'},
        {"type": "TOOL_CALL_END", **call},
        {
            "type": "TOOL_CALL_RESULT",
            **call,
            "messageId": f"result-{number}",
            "content": f"what there is to say about {number}",
            "role": "tool",
        },
    ]
