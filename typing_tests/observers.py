"""Observers: functions, methods and closures that get every telemetry event."""

from collections import Counter
from typing import assert_type

from towpath import Gateway
from towpath.telemetry import InternalError, RunBegan, RunEnded, TelemetryEvent

gateway = Gateway()
seconds: list[float] = []


@gateway.add_observer
def measure(event: TelemetryEvent) -> None:
    """Tell the kinds of event apart by their class."""
    match event:
        case RunEnded(code=None):
            assert_type(event.seconds, float)
            seconds.append(event.seconds)
        case RunEnded():
            assert_type(event.code, str | None)
        case RunBegan(agent=agent):
            assert_type(agent, str)
        case InternalError():
            assert_type(event.error, BaseException)
        case _:
            pass


class Counting:
    """An observer that is a method."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()

    def observe(self, event: TelemetryEvent) -> None:
        """Count the event."""
        self.kinds[type(event).__name__] += 1


gateway.add_observer(Counting().observe)


async def late(event: TelemetryEvent) -> None:
    """Wait, as no observer may."""


def text(event: str) -> None:
    """Take something else than an event."""


def mistakes(event: RunEnded) -> None:
    """A type checker finds each of these before the program runs."""
    gateway.add_observer(late)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gateway.add_observer(text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    event.seconds = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
