"""Telemetry events become records of the standard logger `towpath`, at their levels."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from towpath import telemetry
from towpath.node import logging_setup
from towpath.node.logging_setup import JsonFormatter, TextFormatter, log_event
from towpath.telemetry import InternalError, LogQuarantined, TelemetryEvent

QUARANTINED = LogQuarantined(
    path="towpath.db.quarantined-1",
    reason="row 7 has a wrong checksum",
    carried={"threads": 3, "left_out": 1},
    control=True,
)


def fault(where: str = "agent parrot", **ids: str) -> InternalError:
    """Return the event of an exception that was really raised."""
    try:
        raise KeyError("x")
    except KeyError as error:
        return InternalError(where=where, error=error, **ids)


def answered(error: int) -> TelemetryEvent:
    """Return the event of a command that got this error."""
    return telemetry.CommandAnswered(connection="c", command="rpc.x", error=error, seconds=0.1)


def refused(verdict: str) -> TelemetryEvent:
    """Return the event of a credential that got this verdict."""
    return telemetry.CredentialRefused(connection="c", verdict=verdict, reason="r")


def log_changed(after: str) -> TelemetryEvent:
    """Return the event of a log that went into this condition."""
    return telemetry.LogChanged(before="ok", after=after, reason="no room")


def fetched(failure: str) -> TelemetryEvent:
    """Return the event of a call to an identity provider."""
    return telemetry.KeysFetched(issuer="i", failure=failure, seconds=0.1)


class Kept(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """Yield the records that the logger `towpath` writes."""
    logger, kept = logging.getLogger("towpath"), Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    yield kept.records
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(kept)


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (fault(), "ERROR"),
        (QUARANTINED, "ERROR"),
        (telemetry.RevocationsIncomplete(reason="one is unreadable"), "ERROR"),
        (telemetry.AgentsStillRunning(agents=()), "WARNING"),
        (log_changed("full"), "ERROR"),
        (log_changed("ok"), "INFO"),
        (telemetry.BreakerMoved(dependency="d", before="closed", after="open"), "WARNING"),
        (fetched("timeout"), "WARNING"),
        (fetched(""), "DEBUG"),
        (refused("invalid"), "INFO"),
        (refused("limited"), "DEBUG"),
        (answered(403), "INFO"),
        (answered(404), "DEBUG"),
        (answered(0), "DEBUG"),
        (telemetry.ConnectionOpened(connection="c", tenant="t", user="u"), "INFO"),
        (telemetry.Appended(publications=1, seconds=0.1), "DEBUG"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_event_has_its_level(
    records: list[logging.LogRecord], event: TelemetryEvent, level: str
) -> None:
    """Faults and damage are errors; what comes by the thousand, and a 404, shows when debugging."""
    log_event(event)
    (record,) = records
    assert (record.name, record.levelname) == ("towpath", level)


def test_a_level_that_is_off_costs_no_record(caplog: pytest.LogCaptureFixture) -> None:
    """An application that shows warnings only gets no line of connections."""
    with caplog.at_level(logging.WARNING, logger="towpath"):
        log_event(telemetry.ConnectionOpened(connection="c", tenant="t", user="u"))
    assert caplog.records == []


def test_a_fault_of_a_run_names_run_and_thread_and_has_its_traceback(
    records: list[logging.LogRecord],
) -> None:
    """An operator finds the conversation, and a developer the line that raised."""
    log_event(fault(thread="t1", run="r1"))
    (record,) = records
    text = TextFormatter().format(record)
    first, *traceback = text.splitlines()
    assert first.endswith(" ERROR   fault where='agent parrot' thread=t1 run=r1")
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "KeyError: 'x'"


def test_a_fault_that_concerns_no_run_says_nothing_of_one(
    records: list[logging.LogRecord],
) -> None:
    """Fields without a value are left out."""
    log_event(fault("keys"))
    assert records[0].getMessage() == "fault where=keys"
    assert json.loads(JsonFormatter().format(records[0])).keys() == {
        "event", "where", "level", "timestamp", "exception",
    }  # fmt: skip


def test_a_line_of_json_holds_event_fields_level_time_and_traceback(
    records: list[logging.LogRecord],
) -> None:
    """The names are those of the event's fields."""
    log_event(fault(thread="t1", run="r1"))
    line = json.loads(JsonFormatter().format(records[0]))
    assert line.pop("exception").endswith("KeyError: 'x'")
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "event": "fault", "where": "agent parrot", "thread": "t1", "run": "r1", "level": "error",
    }  # fmt: skip


def test_other_loggers_lines_are_formatted_too(records: list[logging.LogRecord]) -> None:
    """A library's warning is one JSON object like all else."""
    logging.getLogger("towpath.other").warning("watch %s", "out")
    line = json.loads(JsonFormatter().format(records[0]))
    assert (line["event"], line["level"]) == ("watch out", "warning")


def test_no_value_can_look_like_another_line(records: list[logging.LogRecord]) -> None:
    """Line ends and escape sequences in what a client chose are quoted."""
    evil = "u\n12:00:00 ERROR   fault\x1b[2J"
    log_event(telemetry.ConnectionOpened(connection="c", tenant="t", user=evil))
    text = TextFormatter().format(records[0])
    assert text.isprintable()
    assert text.endswith(r"user='u\n12:00:00 ERROR   fault\x1b[2J'")


def test_damage_is_explained_in_a_sentence(records: list[logging.LogRecord]) -> None:
    """What a person has to know is in the message, the plain fields are in the record."""
    log_event(QUARANTINED)
    (record,) = records
    assert record.getMessage() == (
        "log_quarantined the log was damaged (row 7 has a wrong checksum) and is set aside as"
        " towpath.db.quarantined-1; carried over: 3 threads, 1 left out; revocations are whole"
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["carried"]) == ("log_quarantined", {"threads": 3, "left_out": 1})


def test_agents_that_still_run_are_named(records: list[logging.LogRecord]) -> None:
    """The sentence quotes what is not one word, and ends after twenty; the fields have all."""
    agents = tuple({"agent": "deaf", "thread": f"t {n}", "run": f"r{n}"} for n in range(21))
    log_event(telemetry.AgentsStillRunning(agents=agents[:1]))
    log_event(telemetry.AgentsStillRunning(agents=agents))
    one, many = records
    assert one.getMessage() == (
        "agents_still_running agents of ended runs have not returned: deaf (thread 't 0', run r0)"
    )
    assert many.getMessage().endswith("deaf (thread 't 19', run r19), and 1 more")
    assert json.loads(JsonFormatter().format(many))["agents"] == list(agents)


@pytest.mark.parametrize("kind", TelemetryEvent.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_event_can_be_logged(
    records: list[logging.LogRecord], kind: type[TelemetryEvent]
) -> None:
    """No field of an event collides with what a record holds by itself, or breaks a formatter."""
    values: dict[str, Any] = dict.fromkeys(kind.__dataclass_fields__, "x")
    given = {"carried": {}, "error": ValueError(), "agents": ()}
    event = kind(**values | {name: given[name] for name in values.keys() & given.keys()})
    log_event(event)
    (record,) = records
    assert TextFormatter().format(record)
    assert json.loads(JsonFormatter().format(record))["level"]


def test_configuring_replaces_the_handlers_and_quiets_the_servers_and_clients() -> None:
    """There is one handler, so that nothing is written twice."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.getLogger("uvicorn.access").setLevel(logging.NOTSET)  # As in a new process.
    try:
        logging_setup.configure(level="WARNING", style="text")
        (handler,) = root.handlers
        assert isinstance(handler.formatter, TextFormatter)
        assert root.level == logging.WARNING
        assert not logging.getLogger("uvicorn.access").isEnabledFor(logging.INFO)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
