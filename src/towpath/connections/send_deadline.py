"""The deadline of each send of a connection, with one timer for all of them.

A timer for each send (`asyncio.timeout`) would be about a quarter of the cost of a send. So the
timer stays armed while sends begin and end. When it elapses, it looks at the send under way and is
armed again for the deadline of that send, or stays off if nothing is being sent.
"""

import asyncio
from collections.abc import Awaitable


class SendDeadline:
    """Limits how long each send may take; all sends belong to one task, one at a time."""

    __slots__ = ("_began", "_expired", "_loop", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        """Take the limit.

        Args:
            seconds: how long one send may take.
        """
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._began: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False

    @property
    def is_sending(self) -> bool:
        """Whether a send is under way."""
        return self._began is not None

    async def limit(self, send: Awaitable[None]) -> None:
        """Await a send in the sending task.

        Raises:
            TimeoutError: the send took too long, and was cancelled.
        """
        self._began = self._loop.time()
        if self._timer is None:
            self._task = asyncio.current_task()
            self._timer = self._loop.call_at(self._began + self._seconds, self._elapse)
        try:
            await send
        except asyncio.CancelledError:
            # As in `asyncio.timeout`: who else cancelled the task must not be ignored.
            if not self._expired or self._task is None or self._task.uncancel():
                raise
            raise TimeoutError from None
        finally:
            self._began = None

    def close(self) -> None:
        """Cancel the timer; the connection is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _elapse(self) -> None:
        self._timer = None
        if self._began is None or self._task is None:
            return
        deadline = self._began + self._seconds
        if self._loop.time() < deadline:
            self._timer = self._loop.call_at(deadline, self._elapse)
        else:
            self._expired = True
            self._task.cancel()
