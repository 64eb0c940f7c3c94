"""One JSON line per happening on standard error; no credential can be in it, for none is in a
happening.
"""

import logging
import sys

from towpath import telemetry
from towpath.errors import MissingExtra
from towpath.telemetry import TelemetryEvent

try:
    import structlog
except ImportError as error:
    raise MissingExtra.of(__name__, "serve", error) from error


def configure(*, level: str = "INFO") -> None:
    """Send structured lines to standard error, the server's own included."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # What HTTP servers and clients say of requests holds query strings; ours is made of happenings.
    for name in ("uvicorn", "httpx2", "httpcore2", "httpx", "httpcore", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Log:
    """A watcher that writes down what an operator wants to read."""

    def __init__(self) -> None:
        self._log = structlog.stdlib.get_logger("towpath")
        self._verbose = logging.getLogger("towpath").isEnabledFor(logging.DEBUG)

    def observe(self, event: TelemetryEvent) -> None:
        """Write down one happening; those that come by the thousand only when debugging."""
        match event:
            case (
                telemetry.ConnectionOpened()
                | telemetry.ConnectionClosed()
                | telemetry.SessionsRevoked()
            ):
                self._log.info(_event(event), **_fields(event))
            case telemetry.RunBegan() | telemetry.RunEnded():
                self._log.info(_event(event), **_fields(event))
            case telemetry.CredentialRefused(verdict=verdict) if verdict != "limited":
                self._log.info(_event(event), **_fields(event))
            case telemetry.BreakerMoved() | telemetry.DigestMismatch():
                self._log.warning(_event(event), **_fields(event))
            case telemetry.LogChanged(after="ok"):
                self._log.info(_event(event), **_fields(event))
            case (
                telemetry.LogChanged()
                | telemetry.LogQuarantined()
                | telemetry.RevocationsIncomplete()
            ):
                self._log.error(_event(event), **_fields(event))
            case telemetry.KeysFetched(failure=failure) if failure:
                self._log.warning(_event(event), **_fields(event))
            case telemetry.InternalError(where=where, error=error):
                self._log.error("fault", where=where, exc_info=error)
            case telemetry.CommandAnswered(error=number) if number:
                self._log.info(_event(event), **_fields(event))
            case _ if self._verbose:
                self._log.debug(_event(event), **_fields(event))


def _event(event: TelemetryEvent) -> str:
    """Return `connection_closed` for ConnectionClosed."""
    name = type(event).__name__
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _fields(event: TelemetryEvent) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}
