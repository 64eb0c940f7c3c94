"""Deltas that carry when they were made, and the tally of their arrival.

A stamp is `<number> <made> <due>;`, times in nanoseconds of CLOCK_MONOTONIC, which all processes
of a machine share. `made` is read just before the delta is handed over; `due` is when the pace
wanted it. Latency since `due` also shows what a busy producer hides by being late itself.
One delta may hold several stamps: a server is free to merge text.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from benchmarks.arrivals import Arrivals

_DELTA = b'"delta":"'


def ask(total: int, rate: float) -> str:
    """Return the message that asks for `total` deltas at `rate` per second."""
    return f"{total} at {rate:g}"


async def stamped_deltas(request: str) -> AsyncGenerator[str, None]:
    """Yield what `ask` asked for."""
    total, _, rate = request.partition(" at ")
    period = 1e9 / float(rate)
    began = time.monotonic_ns()
    for number in range(1, int(total) + 1):
        due = began + int(number * period)
        await asyncio.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        made = time.monotonic_ns()
        # Timers of the loop count in milliseconds: one may fire a little early.
        yield f"{number} {made} {min(made, due)};"


@dataclass(slots=True)
class Tally:
    """What came of one run of stamped deltas."""

    arrivals: Arrivals
    """Of the stamps by their numbers."""
    since_made: list[int] = field(default_factory=list)
    """Nanoseconds, one for each delta received."""
    since_due: list[int] = field(default_factory=list)
    started: int = 0
    """When RUN_STARTED came; 0 until then."""
    last: int = 0
    """When the last message came."""
    finished: bool = False
    """Whether the run ended well."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the terminal event."""

    def take(self, message: bytes, now: int) -> None:
        """Take one message as received at `now`: one event to a line, wrapped or not."""
        self.last = now
        for line in message.split(b"\n"):
            at = line.find(_DELTA)
            if at >= 0:
                at += len(_DELTA)
                self._stamps(line[at : line.index(b'"', at)].split(b";")[:-1], now)
            elif b'"type":"RUN_STARTED"' in line:
                self.started = self.started or now
            elif b'"type":"RUN_FINISHED"' in line or b'"type":"RUN_ERROR"' in line:
                self.finished = b'"type":"RUN_FINISHED"' in line
                self.over.set()

    def _stamps(self, stamps: Iterable[bytes], now: int) -> None:
        for stamp in stamps:
            number, made, due = map(int, stamp.split(b" "))
            self.arrivals.count(number)
            self.since_made.append(now - made)
            self.since_due.append(now - due)


async def until_over(tallies: Iterable[Tally], seconds: float) -> None:
    """Wait until all runs are over, or so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for tally in tallies:
                await tally.over.wait()
