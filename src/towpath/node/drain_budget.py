"""The time budget of a drain: every step on the way down has an end, whatever agents do.

The setting `drain_timeout` is the budget of the whole drain. `ENDINGS` and `CLOSING` are the parts
of it after which a step is over, so that the last part is left to close the log.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

T = TypeVar("T")

ENDINGS: Final = 0.5
"""The part of the budget after which no ending of a run is awaited any more."""
CLOSING: Final = 0.75
"""The part of the budget after which no connection, call or agent is awaited any more."""


class DrainBudget:
    """Counts the seconds of one drain; begins with the first question what is left."""

    def __init__(self, seconds: float) -> None:
        """Take a budget that has not begun."""
        self._seconds = seconds
        self._began: float | None = None

    def left(self, part: float = 1.0) -> float:
        """Return the seconds until this part of the budget is used; 0 once it is."""
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
        return max(0.0, self._began + part * self._seconds - now)

    @contextlib.asynccontextmanager
    async def bound(self, context: AbstractAsyncContextManager[T]) -> AsyncGenerator[T, None]:
        """Enter a context, and cancel its exit where the exit is not over after `CLOSING`.

        The context does not get the error of the body: a task group would wrap it.
        """
        entered = await context.__aenter__()
        try:
            yield entered
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.left(CLOSING)):
                    await context.__aexit__(None, None, None)
