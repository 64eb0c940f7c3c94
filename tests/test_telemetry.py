"""Observers get every telemetry event and change nothing."""

import asyncio
import dataclasses
import logging

import pytest

from towpath import telemetry
from towpath.telemetry import ConnectionOpened, Telemetry, TelemetryEvent

OPENED = ConnectionOpened(connection="c1", tenant="acme", user="mia")


class Broken:
    """An observer that raises every time, and counts its calls."""

    def __init__(self, error: BaseException) -> None:
        self.calls = 0
        self._error = error

    def __call__(self, event: TelemetryEvent) -> None:
        self.calls += 1
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("boom"), AssertionError(), TimeoutError()])
def test_r72_an_observer_that_raises_keeps_nothing_from_the_others(error: Exception) -> None:
    """Observers before and after a broken one get every event; its failures are counted."""
    seen: list[tuple[str, TelemetryEvent]] = []
    broken = Broken(error)
    emitter = Telemetry([lambda what: seen.append(("before", what)), broken])
    emitter.add_observer(lambda what: seen.append(("after", what)))

    emitter.emit(OPENED)
    emitter.emit(OPENED)

    assert seen == [("before", OPENED), ("after", OPENED)] * 2
    assert (broken.calls, emitter.failures) == (2, 2)


class Odd(BaseException):
    """No Exception, and nothing that Python knows."""


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
        Odd(),
        BaseExceptionGroup("both", [SystemExit(3), ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_r72_r121_an_observer_ends_nothing_whatever_it_raises(error: BaseException) -> None:
    """An observer that exits, or cancels, is counted like any that raises; the next is called."""
    seen: list[TelemetryEvent] = []
    emitter = Telemetry([Broken(error), seen.append])

    emitter.emit(OPENED)

    assert (seen, emitter.failures) == ([OPENED], 1)


def test_r121_the_first_failure_of_each_observer_is_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An operator reads which observer raised what, once: a count alone says neither."""

    def exits(event: TelemetryEvent) -> None:
        raise SystemExit(3)

    emitter = Telemetry([exits, Broken(ValueError("boom")), Broken(ValueError("boom"))])
    with caplog.at_level(logging.ERROR, logger="towpath"):
        emitter.emit(OPENED)
        emitter.emit(OPENED)

    assert emitter.failures == 6
    assert [line.getMessage().rpartition(".")[2] for line in caplog.records] == [
        "exits raised",
        "observer Broken raised",
        "observer Broken raised",
    ]
    assert "SystemExit: 3" in caplog.text


def test_r121_a_log_that_breaks_too_changes_nothing() -> None:
    """Where the failure of an observer cannot be logged either, it is still only counted."""

    class Breaks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left")

    handler = Breaks()
    logging.getLogger("towpath").addHandler(handler)
    try:
        emitter = Telemetry([Broken(ValueError())])
        emitter.emit(OPENED)
    finally:
        logging.getLogger("towpath").removeHandler(handler)
    assert emitter.failures == 1


def test_observers_are_called_in_the_order_they_were_added() -> None:
    """Each gets only the events that are emitted after it was added."""
    seen: list[str] = []
    emitter = Telemetry()
    emitter.emit(OPENED)
    emitter.add_observer(lambda _: seen.append("first"))
    emitter.add_observer(lambda _: seen.append("second"))
    emitter.emit(OPENED)
    assert seen == ["first", "second"]
    assert emitter.failures == 0


@pytest.mark.parametrize("kind", TelemetryEvent.__subclasses__(), ids=lambda kind: kind.__name__)
def test_r17_an_event_is_frozen_and_has_no_place_for_a_secret(
    kind: type[TelemetryEvent],
) -> None:
    """No event has a field that could hold a credential or a text a person wrote."""
    names = {field.name for field in dataclasses.fields(kind)}
    assert names.isdisjoint({"token", "credential", "headers", "data", "payload", "text"})
    assert getattr(kind, "__dataclass_params__").frozen  # noqa: B009


def test_every_kind_of_event_is_public() -> None:
    """An observer can name the events it waits for."""
    assert {kind.__name__ for kind in TelemetryEvent.__subclasses__()} <= vars(telemetry).keys()
