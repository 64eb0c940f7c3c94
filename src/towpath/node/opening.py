"""Opens a node in the background: a task enters a context, holds it open, and leaves it.

A context of task groups must be left in the task that entered it. So the task that opens the node
also closes it, and whoever serves meanwhile does not wait for either.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager


class Opening:
    """A context that a task of its own enters, holds open until `close`, and leaves."""

    def __init__(
        self,
        context: AbstractAsyncContextManager[object],
        *,
        opened: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Begin to enter the context.

        Args:
            context: the context.
            opened: called once the context is entered.
            failed: called with what the context raises: at its entry, or later.
        """
        self._closing = asyncio.Event()
        self._opened = opened
        self._failed = failed
        self._is_open = False
        self._task = asyncio.create_task(self._hold(context), name="gateway")

    async def close(self, *, within: float | None = None) -> None:
        """Leave the context; an entry that is in progress is cancelled.

        Args:
            within: how many seconds to wait until the context is left; None waits without a bound.
        """
        self._closing.set()
        if not self._is_open:
            self._task.cancel()
        await asyncio.wait((self._task,), timeout=within)

    async def _hold(self, context: AbstractAsyncContextManager[object]) -> None:
        try:
            async with context:
                self._is_open = True
                self._opened()
                await self._closing.wait()
        except BaseException as error:  # The outermost edge of the task; `failed` gets the error.
            if not (self._closing.is_set() and isinstance(error, asyncio.CancelledError)):
                self._failed(error)
