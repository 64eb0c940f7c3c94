"""The two demo agents: `echo` repeats the message, `tools` shows every kind of event.

They use the public interface of agents only.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from towpath.agents.agent import AgentInput

_BUY = re.compile(r"^\s*buy\s+(.{1,200}?)\s*$", re.IGNORECASE)
_COUNT = re.compile(r"^\s*count\s+(\d{1,6})(?:\s+at\s+(\d+(?:\.\d+)?)\s*/\s*s)?\s*$", re.IGNORECASE)


async def echo(request: AgentInput) -> AsyncGenerator[object, None]:
    """Repeat the message, word by word."""
    for word in re.findall(r"\S+\s*|\s+", request.message):
        yield word
        await asyncio.sleep(0)


async def tools(request: AgentInput) -> AsyncGenerator[object, None]:
    """Call tools and answer; `count N at R/s` answers slowly, `buy …` asks for approval first."""
    if request.resume:
        yield _bought(request.resume[0])
        return
    if buying := _BUY.match(request.message):
        async for item in _ask_to_buy(buying[1]):
            yield item
        return
    counting = _COUNT.match(request.message)
    if counting:
        async for number in _count(int(counting[1]), float(counting[2] or 0)):
            yield number
        return
    async for item in _think("The person wants to see tool calls. ", "Two will do."):
        yield item
    words = request.message.split()
    async for item in _call("count_words", {"text": request.message}, {"words": len(words)}):
        yield item
    longest = max(words, key=len, default="")
    async for item in _call("longest_word", {"text": request.message}, {"word": longest}):
        yield item
    for piece in (f"Your message has {len(words)} words", f", the longest is “{longest}”", "."):
        yield piece


async def _ask_to_buy(what: str) -> AsyncGenerator[object, None]:
    """Request a tool call that needs a person's approval."""
    key = uuid.uuid4().hex
    yield {"type": "TOOL_CALL_START", "toolCallId": key, "toolCallName": "buy"}
    yield {"type": "TOOL_CALL_ARGS", "toolCallId": key, "delta": json.dumps({"what": what})}
    yield {"type": "TOOL_CALL_END", "toolCallId": key}
    interrupt = {
        "id": uuid.uuid4().hex,
        "reason": "tool_call",
        "message": f"Buy {what}?",
        "toolCallId": key,
    }
    outcome = {"type": "interrupt", "interrupts": [interrupt]}
    yield {"type": "RUN_FINISHED", "outcome": outcome}


def _bought(answer: Mapping[str, Any]) -> str:
    payload = answer.get("payload")
    words = payload if isinstance(payload, dict) else {}
    refused = answer["status"] == "cancelled" or words.get("approved") is False
    return "Then I will not buy it." if refused else "Bought."


async def _count(total: int, rate: float) -> AsyncGenerator[str, None]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(1, total + 1):
        yield f"{number} " if number < total else f"{number}"
        due = began + number / rate if rate else 0
        await asyncio.sleep(max(0, due - loop.time()) if rate else 0)


async def _think(*pieces: str) -> AsyncGenerator[object, None]:
    key = uuid.uuid4().hex
    yield {"type": "REASONING_START", "messageId": key}
    yield {"type": "REASONING_MESSAGE_START", "messageId": key, "role": "reasoning"}
    for piece in pieces:
        yield {"type": "REASONING_MESSAGE_CONTENT", "messageId": key, "delta": piece}
    yield {"type": "REASONING_MESSAGE_END", "messageId": key}
    yield {"type": "REASONING_END", "messageId": key}


async def _call(name: str, arguments: object, result: object) -> AsyncGenerator[object, None]:
    key, text = uuid.uuid4().hex, json.dumps(arguments)
    half = len(text) // 2
    yield {"type": "TOOL_CALL_START", "toolCallId": key, "toolCallName": name}
    for piece in (text[:half], text[half:]):
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": key, "delta": piece}
    yield {"type": "TOOL_CALL_END", "toolCallId": key}
    yield {
        "type": "TOOL_CALL_RESULT",
        "messageId": uuid.uuid4().hex,
        "toolCallId": key,
        "content": json.dumps(result),
        "role": "tool",
    }
