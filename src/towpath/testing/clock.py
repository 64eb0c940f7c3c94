"""A clock that a test advances."""

import time


class VirtualClock:
    """Time that stands still until a test advances it.

    A `GatewayTestClient` with a virtual clock uses it for everything that the gateway compares with
    the time: interrupts, credentials, revocations, tickets, rate limits, retention, timestamps.
    What waits on a timer of the event loop stays in real time: the deadline of a run, the time for
    the clean-up of a cancelled agent, `asyncio.sleep` and `asyncio.timeout` in an agent.
    """

    def __init__(self, start: float | None = None) -> None:
        """Make a clock.

        Args:
            start: the time that `now` returns first, in Unix seconds; None takes the real time.
        """
        self._now = time.time() if start is None else start
        self._monotonic = time.monotonic()

    def now(self) -> float:
        """Return the time in Unix seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds of a monotonic clock."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move the time forward.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError("time does not go back: advance by 0 seconds or more")
        self._now += seconds
        self._monotonic += seconds
