"""Agents that follow a script, and gates that hold an agent until the test releases it.

gate = Gate()
gateway.agent("slow")(scripted("One ", gate, "two."))
run = await client.start("slow", "count")
await gate.reached()
...                    # the agent stands between its two words
gate.release()
assert (await client.wait(run)).text == "One two."
"""

import asyncio
from collections.abc import AsyncGenerator

from towpath.agents.agent import AgentFunction, AgentInput

REACH_SECONDS = 10.0
"""How long `Gate.reached` waits by default."""


class Gate:
    """A point at which agents wait until the test releases them; no sleep is needed."""

    def __init__(self, name: str = "gate") -> None:
        """Make a closed gate.

        Args:
            name: what error messages call it.
        """
        self.name = name
        self._reached = asyncio.Event()
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Wait until the gate is open; called by the agent, or by a tool of the agent."""
        self._reached.set()
        await self._open.wait()

    async def reached(self, *, timeout: float = REACH_SECONDS) -> None:
        """Wait until an agent has come to the gate; called by the test.

        Args:
            timeout: how long to wait, in seconds.

        Raises:
            TimeoutError: no agent came in time.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._reached.wait()
        except TimeoutError:
            raise TimeoutError(f"no agent reached the {self.name!r} within {timeout} s") from None

    def release(self) -> None:
        """Open the gate, for good: for agents that wait, and for those that come later."""
        self._open.set()


def scripted(*items: object) -> AgentFunction:
    """Return an agent that plays the same script in each of its runs.

    Args:
        items: what the agent does, in order. It waits at a `Gate`, raises an exception, and yields
            everything else: text, AG-UI events, values of `towpath.events`.
    """

    async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
        """Play a script."""
        for item in items:
            if isinstance(item, Gate):
                await item.wait()
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    return agent
