"""An own agent: what it yields is what people read, as it comes."""

from collections.abc import AsyncGenerator

from towpath import AgentInput, Gateway
from towpath.events import AgentItem, thinking

gateway = Gateway()


@gateway.agent("assistant")
async def assistant(request: AgentInput) -> AsyncGenerator[AgentItem, None]:
    """Say the message in capitals."""
    yield thinking("Capitals are easy to read.")
    for word in request.message.split():
        yield word.upper() + " "
