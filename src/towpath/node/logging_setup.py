"""Logs telemetry events to the standard logger `towpath`; sets up the logging of `towpath serve`.

Every gateway has the observer `log_event`, mounted or served. A mounted gateway leaves handlers and
levels to the application: with Python's defaults, warnings and errors appear on standard error. No
log line contains a credential, because no telemetry event contains one.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime

from towpath import codes, telemetry
from towpath.errors import NotRunning
from towpath.telemetry import TelemetryEvent

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FORMATS = ("text", "json")

NAMED = 20
"""How many agents a sentence names; the fields of the event have all of them."""

_log = logging.getLogger("towpath")
_PLAIN = re.compile(r"[\w.:/@+-]+")
_CLIENTS_AND_SERVERS = ("uvicorn", "httpx2", "httpcore2", "httpx", "httpcore", "openai")
"""Loggers whose INFO lines contain query strings of requests."""
_ALL_REVOKED = "revocations may be missing, so every credential issued before counts as revoked"


def configure(*, level: str = "INFO", style: str = "json") -> None:
    """Send all log lines of the process to standard error.

    Args:
        level: one of `LEVELS`.
        style: one of `FORMATS`: lines for a person, or one JSON object per line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CLIENTS_AND_SERVERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def log_event(event: TelemetryEvent) -> None:
    """Write one telemetry event to the logger `towpath`; an observer.

    The record's attribute `towpath` holds the event's name and fields, for formatters.
    """
    level = level_of(event)
    if not _log.isEnabledFor(level):
        return
    fields = _fields(event)
    sentence = advice(event)
    texts = [sentence] if sentence else [_text(value) for value in fields.values()]
    words = ["%s"] if sentence else [f"{name}=%s" for name in fields]
    _log.log(
        level,
        " ".join((_name(event), *words)),
        *texts,
        exc_info=event.error if isinstance(event, telemetry.InternalError) else None,
        extra={"towpath": {"event": _name(event), **fields}},
    )


def log_not_running() -> None:
    """Write that requests reach a gateway whose application does not run its lifespan."""
    reason = str(NotRunning())
    fields = {"event": "not_running", "reason": reason}
    _log.error("not_running %s", reason, extra={"towpath": fields})


def level_of(event: TelemetryEvent) -> int:
    """Return the log level of an event; DEBUG for frequent events."""
    match event:
        case (
            telemetry.InternalError()
            | telemetry.LogQuarantined()
            | telemetry.RowDamaged()
            | telemetry.ChannelReset()
            | telemetry.RevocationsIncomplete()
        ):
            return logging.ERROR
        case telemetry.LogChanged(after=after):
            return logging.INFO if after == "ok" else logging.ERROR
        case (
            telemetry.BreakerMoved()
            | telemetry.DigestMismatch()
            | telemetry.AgentsStillRunning()
            | telemetry.LogEpochRenewed()
        ):
            return logging.WARNING
        case telemetry.KeysFetched(failure=failure):
            return logging.WARNING if failure else logging.DEBUG
        case telemetry.CredentialRefused(verdict=verdict):
            return logging.DEBUG if verdict == "limited" else logging.INFO
        case telemetry.CommandAnswered(error=error):
            # The chat page requests threads that do not exist yet, so 404 is not a problem.
            return logging.DEBUG if error in (0, codes.NOT_FOUND.number) else logging.INFO
        case (
            telemetry.ConnectionOpened()
            | telemetry.ConnectionClosed()
            | telemetry.SessionsRevoked()
            | telemetry.RunBegan()
            | telemetry.RunEnded()
        ):
            return logging.INFO
    return logging.DEBUG


def advice(event: TelemetryEvent) -> str | None:
    """Return a sentence that explains an event to the operator; None for most events."""
    match event:
        case telemetry.LogQuarantined(carried=carried):
            parts = ", ".join(f"{count} {name}" for name, count in carried.items())
            return (
                f"the log was damaged ({event.reason}) and is set aside as {event.path};"
                f" carried over: {parts.replace('_', ' ') or 'nothing'};"
                f" {'revocations are whole' if event.control else _ALL_REVOKED}"
            )
        case telemetry.ChannelReset(tenant=tenant, name=name):
            return (
                f"the log of the channel {name} of {tenant} was damaged: its publications are"
                " dropped, and its readers start anew; check the disk"
            )
        case telemetry.RevocationsIncomplete(reason=reason):
            return (
                f"{reason}: {_ALL_REVOKED}; people sign in again, services get new tokens,"
                " and no other action is needed"
            )
        case telemetry.AgentsStillRunning(agents=agents):
            named = [
                f"{_text(one['agent'])} (thread {_text(one['thread'])}, run {_text(one['run'])})"
                for one in agents[:NAMED]
            ]
            if len(agents) > NAMED:
                named.append(f"and {len(agents) - NAMED} more")
            return f"agents of ended runs have not returned: {', '.join(named)}"
    return None


class TextFormatter(logging.Formatter):
    """Time, level, event and fields on one line, and a traceback as Python prints it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: the event and its fields, level, time and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line."""
        line = dict(getattr(record, "towpath", None) or {"event": record.getMessage()})
        line["level"] = record.levelname.lower()
        line["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=repr)


def _name(event: TelemetryEvent) -> str:
    """Return `connection_closed` for ConnectionClosed, and `fault` for InternalError."""
    if isinstance(event, telemetry.InternalError):
        return "fault"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()


def _fields(event: TelemetryEvent) -> dict[str, object]:
    """Return the fields of an event; of an InternalError only those set, without its exception."""
    fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
    if isinstance(event, telemetry.InternalError):
        del fields["error"]
        return {name: value for name, value in fields.items() if value is not None}
    return fields


def _text(value: object) -> str:
    """Return a value as text, quoted unless it is one word, so that it cannot imitate a line."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else repr(value)
