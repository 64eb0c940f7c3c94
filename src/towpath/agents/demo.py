"""The two demo agents: `echo` repeats the message, `tools` shows every kind of event.

They use the public interface of agents only.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from towpath.agents.agent import AgentInput
from towpath.events import AgentItem, ask_for_approval, thinking, tool_call

_BUY = re.compile(r"^\s*buy\s+(.{1,200}?)\s*$", re.IGNORECASE)
_COUNT = re.compile(r"^\s*count\s+(\d{1,6})(?:\s+at\s+(\d+(?:\.\d+)?)\s*/\s*s)?\s*$", re.IGNORECASE)


async def echo(request: AgentInput) -> AsyncGenerator[str, None]:
    """Repeat the message, word by word."""
    for word in re.findall(r"\S+\s*|\s+", request.message):
        yield word
        await asyncio.sleep(0)


async def tools(request: AgentInput) -> AsyncGenerator[AgentItem, None]:
    """Call tools and answer; `count N at R/s` answers slowly, `buy …` asks for approval first."""
    if request.resume:
        yield _bought(request.resume[0])
        return
    if buying := _BUY.match(request.message):
        call = tool_call("buy", {"what": buying[1]})
        yield call
        yield ask_for_approval(call, message=f"Buy {buying[1]}?")
        return
    counting = _COUNT.match(request.message)
    if counting:
        async for number in _count(int(counting[1]), float(counting[2] or 0)):
            yield number
        return
    yield thinking("The person wants to see tool calls. Two will do.")
    words = request.message.split()
    counted = tool_call("count_words", {"text": request.message})
    yield counted
    yield counted.result({"words": len(words)})
    longest = max(words, key=len, default="")
    searched = tool_call("longest_word", {"text": request.message})
    yield searched
    yield searched.result({"word": longest})
    for piece in (f"Your message has {len(words)} words", f", the longest is “{longest}”", "."):
        yield piece


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
