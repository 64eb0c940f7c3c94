"""Agents that go wrong in every way an agent can, behind a gateway for `--app`."""

import asyncio
from collections.abc import AsyncGenerator

from towpath.agents import demo
from towpath.agents.agent import AgentError, AgentInput
from towpath.gateway import Gateway

SECRET = "postgres://admin:hunter2@db.internal"
"""Stands in the text of an exception; must never reach a client."""

gateway = Gateway()
gateway.agent("tools")(demo.tools)
gateway.agent("echo")(demo.echo)


@gateway.agent("raises")
async def raises(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "so far so good"
    raise RuntimeError(f"cannot connect to {SECRET}")


@gateway.agent("raises_at_once")
async def raises_at_once(request: AgentInput) -> AsyncGenerator[object, None]:
    if request.message:
        raise KeyError(SECRET)
    yield ""


@gateway.agent("refuses")
async def refuses(request: AgentInput) -> AsyncGenerator[object, None]:
    if request.message:
        raise AgentError("the canal is closed today", code="canal.closed")
    yield ""


@gateway.agent("hangs", deadline=1)
async def hangs(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "one moment"
    await asyncio.Event().wait()


@gateway.agent("silent")
async def silent(request: AgentInput) -> AsyncGenerator[object, None]:
    if not request.message:
        yield "nobody asked"


@gateway.agent("talks_after_the_end")
async def talks_after_the_end(request: AgentInput) -> AsyncGenerator[object, None]:
    run = {"threadId": request.context.thread, "runId": request.context.run}
    yield "the end"
    yield {"type": "RUN_FINISHED", **run}
    yield "and another thing"
    yield {"type": "RUN_FINISHED", **run}


@gateway.agent("claims_another_run")
async def claims_another_run(request: AgentInput) -> AsyncGenerator[object, None]:
    yield {"type": "RUN_FINISHED", "threadId": request.context.thread, "runId": "somebody-elses"}


@gateway.agent("out_of_order")
async def out_of_order(request: AgentInput) -> AsyncGenerator[object, None]:
    yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": "never-started", "delta": "hello"}


@gateway.agent("number")
async def number(request: AgentInput) -> AsyncGenerator[object, None]:
    yield 42


@gateway.agent("waits")
async def waits(request: AgentInput) -> AsyncGenerator[object, None]:
    yield "waiting"
    await asyncio.Event().wait()
