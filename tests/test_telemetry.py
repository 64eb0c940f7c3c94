"""Watchers hear of everything and change nothing."""

import asyncio
import dataclasses
import logging

import pytest

from towpath import telemetry
from towpath.telemetry import ConnectionOpened, Telemetry, TelemetryEvent

OPENED = ConnectionOpened(connection="c1", tenant="acme", user="mia")


class Broken:
    """A watcher that raises every time, and remembers that it was told."""

    def __init__(self, error: BaseException) -> None:
        self.told = 0
        self._error = error

    def __call__(self, event: TelemetryEvent) -> None:
        self.told += 1
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("boom"), AssertionError(), TimeoutError()])
def test_r72_a_watcher_that_raises_keeps_nothing_from_the_others(error: Exception) -> None:
    """Watchers before and after a broken one hear everything; its failures are counted."""
    heard: list[tuple[str, TelemetryEvent]] = []
    broken = Broken(error)
    told = Telemetry([lambda what: heard.append(("before", what)), broken])
    told.add_observer(lambda what: heard.append(("after", what)))

    told.emit(OPENED)
    told.emit(OPENED)

    assert heard == [("before", OPENED), ("after", OPENED)] * 2
    assert (broken.told, told.failures) == (2, 2)


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
def test_r72_r121_a_watcher_ends_nothing_whatever_it_raises(error: BaseException) -> None:
    """A watcher that exits, or cancels, is counted like any that raises; the next one hears."""
    heard: list[TelemetryEvent] = []
    told = Telemetry([Broken(error), heard.append])

    told.emit(OPENED)

    assert (heard, told.failures) == ([OPENED], 1)


def test_r121_the_first_failure_of_each_watcher_is_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An operator reads which watcher raised what, once: a count alone says neither."""

    def exits(event: TelemetryEvent) -> None:
        raise SystemExit(3)

    told = Telemetry([exits, Broken(ValueError("boom")), Broken(ValueError("boom"))])
    with caplog.at_level(logging.ERROR, logger="towpath"):
        told.emit(OPENED)
        told.emit(OPENED)

    assert told.failures == 6
    assert [line.getMessage().rpartition(".")[2] for line in caplog.records] == [
        "exits raised",
        "watcher Broken raised",
        "watcher Broken raised",
    ]
    assert "SystemExit: 3" in caplog.text


def test_r121_a_log_that_breaks_too_changes_nothing() -> None:
    """Where the failure of a watcher cannot be written down either, it is still only counted."""

    class Breaks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left")

    handler = Breaks()
    logging.getLogger("towpath").addHandler(handler)
    try:
        told = Telemetry([Broken(ValueError())])
        told.emit(OPENED)
    finally:
        logging.getLogger("towpath").removeHandler(handler)
    assert told.failures == 1


def test_watchers_hear_in_the_order_they_came() -> None:
    """First come, first told, and only of what happens later."""
    heard: list[str] = []
    told = Telemetry()
    told.emit(OPENED)
    told.add_observer(lambda _: heard.append("first"))
    told.add_observer(lambda _: heard.append("second"))
    told.emit(OPENED)
    assert heard == ["first", "second"]
    assert told.failures == 0


@pytest.mark.parametrize("kind", TelemetryEvent.__subclasses__(), ids=lambda kind: kind.__name__)
def test_r17_a_happening_is_frozen_and_has_no_place_for_a_secret(
    kind: type[TelemetryEvent],
) -> None:
    """No happening has a field that could hold a credential or a text a person wrote."""
    names = {field.name for field in dataclasses.fields(kind)}
    assert names.isdisjoint({"token", "credential", "headers", "data", "payload", "text"})
    assert getattr(kind, "__dataclass_params__").frozen  # noqa: B009


def test_every_kind_of_happening_is_public() -> None:
    """A watcher can name what it waits for."""
    assert {kind.__name__ for kind in TelemetryEvent.__subclasses__()} <= vars(telemetry).keys()
