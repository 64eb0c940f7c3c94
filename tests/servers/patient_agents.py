"""Agents for each double-texting policy, behind a gateway for `--app`."""

import asyncio
from collections.abc import AsyncGenerator

from towpath.agents.agent import AgentInput
from towpath.gateway import Gateway
from towpath.identity import UserExecutionContext

gateway = Gateway()


async def repeat(request: AgentInput) -> AsyncGenerator[object, None]:
    """Say what it was asked; "wait" goes on until somebody stops it."""
    yield f"You said: {request.message}"
    if request.message == "wait":
        while True:
            await asyncio.sleep(0.05)
            yield " …"


for policy in ("reject", "queue", "interrupt"):
    gateway.agent(policy, double_texting=policy)(repeat)


@gateway.agent("telling", double_texting="queue")
async def telling(request: AgentInput) -> AsyncGenerator[object, None]:
    """Tell the person on every device what it was asked, as an application does."""
    async for piece in repeat(request):
        yield piece
    await gateway.notify(UserExecutionContext(tenant="acme", user="alice"), request.message)
