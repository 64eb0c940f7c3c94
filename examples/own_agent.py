"""An own agent: what it yields is what people read, as it comes."""

from collections.abc import AsyncGenerator

from towpath import AgentInput, Gateway

gateway = Gateway()


@gateway.agent("assistant")
async def assistant(request: AgentInput) -> AsyncGenerator[str, None]:
    """Say the message in capitals."""
    for word in request.message.split():
        yield word.upper() + " "
