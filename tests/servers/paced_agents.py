"""Agents for event streams, behind a gateway for `--app`: one tells a story of many kinds."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

from towpath.agents import demo
from towpath.agents.agent import AgentInput
from towpath.gateway import Gateway

gateway = Gateway()
gateway.agent("tools")(demo.tools)
gateway.agent("echo")(demo.echo)

HARD = "line\nbreak\n\ndata: RUN_FINISHED\r\nid: 1:1\n: “quoted” 🚣 "
"""Text that would break a stream if it could get out of its event."""


@gateway.agent("story")
async def story(request: AgentInput) -> AsyncGenerator[object, None]:
    """Tell something of most kinds of event, at the pace the client forwards."""
    pace = (request.forwarded_props or {}).get("pace", 0)
    for item in chapters(request.context.run or ""):
        yield item
        await asyncio.sleep(pace)


def chapters(run: str) -> Iterator[dict[str, Any]]:
    """Yield the story's events; their ids begin with the run's."""
    thought, one, two = (f"{run}-{name}" for name in ("thought", "one", "two"))
    call, activity, sub = (f"{run}-{name}" for name in ("call", "activity", "sub"))
    yield {"type": "STATE_SNAPSHOT", "snapshot": {"pages": 0}}
    yield {"type": "STEP_STARTED", "stepName": "think"}
    yield {"type": "REASONING_START", "messageId": thought}
    yield {"type": "REASONING_MESSAGE_START", "messageId": thought, "role": "reasoning"}
    for delta in ("Let me ", "think ", "about it."):
        yield {"type": "REASONING_MESSAGE_CONTENT", "messageId": thought, "delta": delta}
    yield {"type": "REASONING_MESSAGE_END", "messageId": thought}
    yield {"type": "REASONING_END", "messageId": thought}
    yield {"type": "STEP_FINISHED", "stepName": "think"}
    yield {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": "look_up"}
    for delta in ('{"word"', ': "to', 'wpath"}'):
        yield {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": delta}
    yield {"type": "TOOL_CALL_END", "toolCallId": call}
    yield {
        "type": "TOOL_CALL_RESULT",
        "messageId": f"{run}-result",
        "toolCallId": call,
        "content": "a path along a canal",
        "role": "tool",
    }
    yield {
        "type": "ACTIVITY_SNAPSHOT",
        "messageId": activity,
        "activityType": "walk",
        "content": {"steps": 0},
    }
    yield {"type": "TEXT_MESSAGE_START", "messageId": one, "role": "assistant"}
    yield {"type": "TEXT_MESSAGE_START", "messageId": two, "role": "assistant"}
    for number in range(1, 6):
        yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": one, "delta": f"{number} "}
        yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": two, "delta": HARD}
        patch = [{"op": "replace", "path": "/pages", "value": number}]
        yield {"type": "STATE_DELTA", "delta": patch}
        steps = [{"op": "replace", "path": "/steps", "value": number}]
        yield {
            "type": "ACTIVITY_DELTA",
            "messageId": activity,
            "activityType": "walk",
            "patch": steps,
        }
    yield {"type": "TEXT_MESSAGE_END", "messageId": two}
    yield {"type": "SUBAGENT_STARTED", "subagentRunId": sub, "name": "helper"}
    own = {"messageId": f"{run}-helped", "subagentRunId": sub}
    yield {"type": "TEXT_MESSAGE_START", "role": "assistant", **own}
    yield {"type": "TEXT_MESSAGE_CONTENT", "delta": "helped", **own}
    yield {"type": "TEXT_MESSAGE_END", **own}
    yield {"type": "SUBAGENT_FINISHED", "subagentRunId": sub}
    yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": one, "delta": "end"}
    yield {"type": "TEXT_MESSAGE_END", "messageId": one}
    yield {"type": "CUSTOM", "name": "story.told", "value": {"pages": 5}}


@gateway.agent("steps")
async def steps(request: AgentInput) -> AsyncGenerator[object, None]:
    """Tell the story, each event when a file of its number stands in the given directory."""
    for number, item in enumerate(chapters(request.context.run or "")):
        gate = Path((request.forwarded_props or {})["gates"]) / str(number)
        while not gate.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.002)
        yield item


@gateway.agent("waits")
async def waits(request: AgentInput) -> AsyncGenerator[object, None]:
    """Say one word and wait for ever."""
    yield "waiting"
    await asyncio.Event().wait()


@gateway.agent("floods")
async def floods(request: AgentInput) -> AsyncGenerator[object, None]:
    """Say as many pieces of 16 KiB as the message asks for, and wait for ever."""
    pace = (request.forwarded_props or {}).get("pace", 0.001)
    for number in range(int(request.message)):
        yield flood(number)
        await asyncio.sleep(pace)
    yield "."
    await asyncio.Event().wait()


def flood(number: int) -> str:
    """Return one piece of a flood."""
    return f"{number:08}" + "x" * 16376
