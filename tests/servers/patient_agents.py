"""Agents for each double-texting policy, behind a gateway for `--app`."""

import asyncio
from collections.abc import AsyncGenerator

from towpath.agents.agent import AgentInput
from towpath.gateway import Gateway

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
