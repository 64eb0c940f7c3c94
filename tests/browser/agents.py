"""Agents that write what the page has trouble with: much, Markdown, and failures."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from itertools import count

from towpath import AgentError, Gateway
from towpath.agents import demo
from towpath.agents.agent import AgentInput

gateway = Gateway()
gateway.agent("tools")(demo.tools)
gateway.agent("echo")(demo.echo)


@gateway.agent("writer")
async def writer(request: AgentInput) -> AsyncGenerator[str, None]:
    """Write so many tokens of Markdown, the last of them at 200 a second: `20000 2000`."""
    total, slow = (int(number) for number in request.message.split())
    loop = asyncio.get_running_loop()
    words, began = tokens(), 0.0
    for number in range(total):
        if number < total - slow:
            yield next(words)
            await asyncio.sleep(0)
            continue
        began = began or loop.time() - number / 200
        await asyncio.sleep(max(0.0, began + number / 200 - loop.time()))
        yield next(words)


@gateway.agent("flaky")
async def flaky(request: AgentInput) -> AsyncGenerator[object, None]:
    """Fail at the first asking of a thread, and answer at the second."""
    yield "I begin. "
    if request.state is None:
        yield {"type": "STATE_SNAPSHOT", "snapshot": {"tried": True}}
        raise AgentError("I lost the thread", code="flaky.lost")
    yield f"You asked: {request.message}"


@gateway.agent("counts")
async def counts(request: AgentInput) -> AsyncGenerator[str, None]:
    """Say how many messages there are, and what the last person said."""
    yield f"{len(request.messages)} messages, the last is “{request.message}”"


def tokens() -> Iterator[str]:
    """Yield the pieces of an endless text, as a model would: a few characters each."""
    for chapter in count(1):
        yield from re.findall(r"\s*\S+|\s+$", _chapter(chapter))


def _chapter(number: int) -> str:
    prose = (
        f"Water finds its **level** and the _gates_ hold it; see `lock[{number}]` for more. " * 6
    )
    steps = "".join(f"{step}. Turn the paddle gear of gate {step} slowly\n" for step in range(1, 9))
    code = "".join(f"    level[{line}] = upper - lower * {line} / 100\n" for line in range(40))
    rows = "".join(f"| lock {row} | {row * 3} m | {row} min |\n" for row in range(8))
    return (
        f"## Chapter {number}\n\n{prose}\n\n{prose}\n\n{steps}\n"
        f"```python\ndef fill(upper, lower):\n{code}```\n\n"
        f"| where | rise | time |\n| --- | ---: | ---: |\n{rows}\n> {prose}\n\n"
    )
