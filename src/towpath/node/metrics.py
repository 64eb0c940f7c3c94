"""Numbers for operators: a watcher that counts happenings, and gauges read when asked.

Labels never hold an id: a method, a code, a status, an agent's name, nothing a person chose.
`docs/reference/metrics.md` lists them all; a test compares.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from towpath import codes, telemetry
from towpath.auth.provider import ABANDONED
from towpath.telemetry import TelemetryEvent

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

_LOG_CONDITIONS = ("ok", "full", "locked", "unwritable", "damaged", "taken")
_BREAKER_STATES = ("closed", "half-open", "open")


class Metrics:
    """The numbers of one gateway."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._closed = Counter(
            "towpath_connections_closed", "Connections that ended, by close code", ["code"],
            registry=registry,
        )  # fmt: skip
        self._opened = Counter(
            "towpath_connections_opened", "Connections whose credential was accepted",
            registry=registry,
        )  # fmt: skip
        self._refused = Counter(
            "towpath_credentials_refused", "Credentials not accepted, by verdict", ["verdict"],
            registry=registry,
        )  # fmt: skip
        self._accepted = Counter(
            "towpath_credentials_accepted", "Credentials accepted, by where they were found",
            ["source"], registry=registry,
        )  # fmt: skip
        self._ages = Histogram(
            "towpath_verdict_age_seconds", "Age of the verdict by which a credential was accepted",
            buckets=(0, 1, 10, 60, 300), registry=registry,
        )  # fmt: skip
        self._fetches = Histogram(
            "towpath_key_fetch_seconds", "Calls to identity providers, by outcome",
            ["issuer", "outcome"], buckets=_LATENCY, registry=registry,
        )  # fmt: skip
        self._breakers = Gauge(
            "towpath_breaker_state", "0 closed, 1 half-open, 2 open; absent until it first opened",
            ["dependency"], registry=registry,
        )  # fmt: skip
        self._revoked = Counter(
            "towpath_sessions_revoked", "Revocations, by what was taken back", ["what"],
            registry=registry,
        )  # fmt: skip
        self._caught_up = Counter(
            "towpath_readers_caught_up", "Slow readers answered from the log", registry=registry
        )
        self._mismatches = Counter(
            "towpath_digest_mismatches", "Messages that clients show otherwise than they were said",
            ["log"], registry=registry,
        )  # fmt: skip
        self._commands = Histogram(
            "towpath_command_seconds", "From a command's turn to its reply", ["command", "error"],
            buckets=_LATENCY, registry=registry,
        )  # fmt: skip
        self._runs = Counter(
            "towpath_runs_ended", "Runs that ended, by agent, status and code",
            ["agent", "status", "code"], registry=registry,
        )  # fmt: skip
        self._run_seconds = Histogram(
            "towpath_run_seconds", "From a run's first event to its last", ["agent"],
            buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600), registry=registry,
        )  # fmt: skip
        self._events = Counter(
            "towpath_run_events", "Events of ended runs", ["agent"], registry=registry
        )
        self._publications = Counter(
            "towpath_publications", "Publications made durable", registry=registry
        )
        self._commit = Histogram(
            "towpath_commit_seconds", "From the first waiting write to its commit",
            buckets=_LATENCY, registry=registry,
        )  # fmt: skip
        self._log_condition = Gauge(
            "towpath_log_condition", "0 ok, 1 full, 2 locked, 3 unwritable, 4 damaged, 5 taken",
            registry=registry,
        )  # fmt: skip
        self._quarantined = Counter(
            "towpath_logs_quarantined", "Damaged logs that were set aside when this server started",
            registry=registry,
        )  # fmt: skip
        self._faults = Counter(
            "towpath_faults", "Things of ours that went wrong, by place", ["where"],
            registry=registry,
        )  # fmt: skip

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that is read whenever somebody asks."""
        Gauge(name, text, registry=self._registry).set_function(read)

    def observe(self, event: TelemetryEvent) -> None:
        """Count one happening."""
        match event:
            case telemetry.ConnectionOpened():
                self._opened.inc()
            case telemetry.ConnectionClosed(code=code):
                self._closed.labels(str(code)).inc()
            case telemetry.CredentialRefused(verdict=verdict):
                self._refused.labels(verdict).inc()
            case telemetry.CredentialAccepted(source=source, age=age):
                self._accepted.labels(source).inc()
                self._ages.observe(age)
            case telemetry.KeysFetched(issuer=issuer, failure=failure, seconds=seconds):
                self._fetches.labels(issuer, _fetch_outcome(failure)).observe(seconds)
            case telemetry.BreakerMoved(dependency=dependency, after=after):
                self._breakers.labels(dependency).set(_BREAKER_STATES.index(after))
            case telemetry.SessionsRevoked(what=what):
                self._revoked.labels(what).inc()
            case telemetry.CaughtUp():
                self._caught_up.inc()
            case telemetry.DigestMismatch(log=log):
                self._mismatches.labels(log).inc()
            case telemetry.CommandAnswered(command=command, error=error, seconds=seconds):
                self._commands.labels(command, str(error)).observe(seconds)
            case telemetry.RunEnded(agent=agent, status=status, code=code):
                self._runs.labels(agent, status, _run_code(code)).inc()
                self._run_seconds.labels(agent).observe(event.seconds)
                self._events.labels(agent).inc(event.events)
            case telemetry.Appended(publications=count, seconds=seconds):
                self._publications.inc(count)
                self._commit.observe(seconds)
            case telemetry.LogChanged(after=after):
                self._log_condition.set(_LOG_CONDITIONS.index(after))
            case telemetry.LogQuarantined():
                self._quarantined.inc()
            case telemetry.InternalError(where=where):
                self._faults.labels(where.partition(" ")[0]).inc()

    def text(self) -> bytes:
        """Return all of it in the exposition format."""
        return generate_latest(self._registry)


def _fetch_outcome(failure: str) -> str:
    """Return how a call to an identity provider went, as a label."""
    return "ok" if not failure else failure if failure == ABANDONED else "failed"


def _run_code(code: str | None) -> str:
    """Return a run's error code as a label; codes that agents make up are one label."""
    if code is None:
        return ""
    return code if code in codes.RUN_CODES or code in codes.MODEL_CODES else "agent"
