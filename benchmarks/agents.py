"""The gateway that is measured: real agents on the public interface, nothing else changed."""

import gc
from collections.abc import AsyncGenerator

from benchmarks.stamps import stamped_deltas
from benchmarks.workload import Speech
from towpath import Gateway
from towpath.agents import demo
from towpath.agents.agent import AgentInput

gateway = Gateway()
gateway.agent("tools")(demo.tools)


@gateway.agent("stamped")
async def stamped(request: AgentInput) -> AsyncGenerator[object, None]:
    """Answer `N at R` with N deltas at R per second, each carrying when it was made."""
    async for delta in stamped_deltas(request.message):
        yield delta


@gateway.agent("speech")
async def workload(request: AgentInput) -> AsyncGenerator[object, None]:
    """Say what is asked for."""
    async for item in Speech.request(request.message).items():
        yield item


@gateway.agent("collect")
async def collect(request: AgentInput) -> AsyncGenerator[object, None]:
    """Collect garbage, so that what is left is what is held."""
    yield f"{gc.collect()} objects"
