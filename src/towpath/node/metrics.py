"""Metrics: one table of what is counted from which telemetry event, and gauges read on request.

A label never holds an id or a text that a person chose: only methods, codes, statuses, names of
agents. `docs/reference/metrics.md` lists all metrics; a test compares.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from towpath import codes, telemetry
from towpath.auth.provider import ABANDONED
from towpath.telemetry import TelemetryEvent

E = TypeVar("E", bound=TelemetryEvent)

_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LOG_CONDITIONS = ("ok", "full", "locked", "unwritable", "damaged", "taken")
_BREAKER_STATES = ("closed", "half-open", "open")


@dataclass(frozen=True, kw_only=True)
class EventMetric(Generic[E]):
    """One metric that an event changes."""

    name: str
    kind: type[Counter] | type[Gauge] | type[Histogram]
    help: str
    event: type[E]
    value: Callable[[E], float]
    """The increment of a counter, the value of a gauge, or the observation of a histogram."""
    labels: Mapping[str, Callable[[E], object]]
    """The labels and their values."""
    buckets: tuple[float, ...] = ()
    """The bounds of a histogram's buckets."""

    def register(self, registry: CollectorRegistry) -> Callable[[E], None]:
        """Add the metric to a registry and return what updates it by an event."""
        options: dict[str, Any] = {"buckets": self.buckets} if self.buckets else {}
        metric = self.kind(self.name, self.help, [*self.labels], registry=registry, **options)

        def update(event: E) -> None:
            values = [read(event) for read in self.labels.values()]
            child = metric.labels(*values) if values else metric
            _change(child, self.value(event))

        return update


def _change(metric: Counter | Gauge | Histogram, value: float) -> None:
    match metric:
        case Counter():
            metric.inc(value)
        case Gauge():
            metric.set(value)
        case Histogram():
            metric.observe(value)


def _metric(
    kind: type[Counter] | type[Gauge] | type[Histogram],
    name: str,
    text: str,
    event: type[E],
    value: Callable[[E], float] = lambda _: 1,
    /,
    *,
    buckets: tuple[float, ...] = (),
    **labels: Callable[[E], object],
) -> EventMetric[E]:
    """Return a row of the table below; each keyword is a label and what its value is."""
    return EventMetric(
        name=name, kind=kind, help=text, event=event, value=value, labels=labels, buckets=buckets
    )


def _fetch_outcome(event: telemetry.KeysFetched) -> str:
    """Return how a call to an identity provider went."""
    if event.failure in ("", ABANDONED):
        return event.failure or "ok"
    return "failed"


def _run_code(event: telemetry.RunEnded) -> str:
    """Return a run's error code; all codes that agents make up are `agent`."""
    if event.code is None:
        return ""
    known = event.code in codes.RUN_CODES or event.code in codes.MODEL_CODES
    return event.code if known else "agent"


EVENT_METRICS: tuple[EventMetric[Any], ...] = (
    _metric(
        Counter,
        "towpath_connections_closed",
        "Connections that ended, by close code",
        telemetry.ConnectionClosed,
        code=lambda event: event.code,
    ),
    _metric(
        Counter,
        "towpath_connections_opened",
        "Connections whose credential was accepted",
        telemetry.ConnectionOpened,
    ),
    _metric(
        Counter,
        "towpath_credentials_refused",
        "Credentials refused, by verdict",
        telemetry.CredentialRefused,
        verdict=lambda event: event.verdict,
    ),
    _metric(
        Counter,
        "towpath_credentials_accepted",
        "Credentials accepted, by where they were found",
        telemetry.CredentialAccepted,
        source=lambda event: event.source,
    ),
    _metric(
        Histogram,
        "towpath_verdict_age_seconds",
        "Age of the verdict by which a credential was accepted",
        telemetry.CredentialAccepted,
        lambda event: event.age,
        buckets=(0, 1, 10, 60, 300),
    ),
    _metric(
        Histogram,
        "towpath_key_fetch_seconds",
        "Calls to identity providers, by outcome",
        telemetry.KeysFetched,
        lambda event: event.seconds,
        buckets=_LATENCY,
        issuer=lambda event: event.issuer,
        outcome=_fetch_outcome,
    ),
    _metric(
        Gauge,
        "towpath_breaker_state",
        "0 closed, 1 half-open, 2 open; absent until it first opened",
        telemetry.BreakerMoved,
        lambda event: _BREAKER_STATES.index(event.after),
        dependency=lambda event: event.dependency,
    ),
    _metric(
        Counter,
        "towpath_sessions_revoked",
        "Revocations, by what was revoked",
        telemetry.SessionsRevoked,
        what=lambda event: event.what,
    ),
    _metric(
        Counter,
        "towpath_readers_caught_up",
        "Slow readers answered from the log",
        telemetry.CaughtUp,
    ),
    _metric(
        Counter,
        "towpath_digest_mismatches",
        "Messages whose text at a client differs from the published text",
        telemetry.DigestMismatch,
        log=lambda event: event.log,
    ),
    _metric(
        Histogram,
        "towpath_command_seconds",
        "From a command's turn to its reply",
        telemetry.CommandAnswered,
        lambda event: event.seconds,
        buckets=_LATENCY,
        command=lambda event: event.command,
        error=lambda event: event.error,
    ),
    _metric(
        Counter,
        "towpath_runs_ended",
        "Runs that ended, by agent, status and code",
        telemetry.RunEnded,
        agent=lambda event: event.agent,
        status=lambda event: event.status,
        code=_run_code,
    ),
    _metric(
        Histogram,
        "towpath_run_seconds",
        "From a run's first event to its last",
        telemetry.RunEnded,
        lambda event: event.seconds,
        buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600),
        agent=lambda event: event.agent,
    ),
    _metric(
        Counter,
        "towpath_run_events",
        "Events of ended runs",
        telemetry.RunEnded,
        lambda event: event.events,
        agent=lambda event: event.agent,
    ),
    _metric(
        Counter,
        "towpath_publications",
        "Publications made durable",
        telemetry.Appended,
        lambda event: event.publications,
    ),
    _metric(
        Histogram,
        "towpath_commit_seconds",
        "From the first waiting write to its commit",
        telemetry.Appended,
        lambda event: event.seconds,
        buckets=_LATENCY,
    ),
    _metric(
        Gauge,
        "towpath_log_condition",
        "0 ok, 1 full, 2 locked, 3 unwritable, 4 damaged, 5 taken",
        telemetry.LogChanged,
        lambda event: _LOG_CONDITIONS.index(event.after),
    ),
    _metric(
        Counter,
        "towpath_logs_quarantined",
        "Damaged logs that were set aside when this server started",
        telemetry.LogQuarantined,
    ),
    _metric(
        Counter,
        "towpath_channels_reset",
        "Channels whose log was damaged and begins anew",
        telemetry.ChannelReset,
    ),
    _metric(
        Counter,
        "towpath_rows_damaged",
        "Damaged rows that were found, by table; a row counts each time it is read",
        telemetry.RowDamaged,
        table=lambda event: event.table,
    ),
    _metric(
        Counter,
        "towpath_faults",
        "Failures of agents and of the gateway itself, by place",
        telemetry.InternalError,
        where=lambda event: event.where.partition(" ")[0],
    ),
)
"""Every metric that telemetry events change, in the order of the reference page."""


class Metrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._updates: dict[type[TelemetryEvent], list[Callable[[Any], None]]] = defaultdict(list)
        for metric in EVENT_METRICS:
            self._updates[metric.event].append(metric.register(self._registry))
        build = Info("towpath_build", "Versions of Towpath and Python", registry=self._registry)
        build.info({"version": version("towpath"), "python": python_version()})

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value `read` returns each time the metrics are shown."""
        Gauge(name, text, registry=self._registry).set_function(read)

    def observe(self, event: TelemetryEvent) -> None:
        """Count one telemetry event; an observer."""
        for update in self._updates.get(type(event), ()):
            update(event)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics, and the content type of the bytes.

        Args:
            accept: the `Accept` header; asks for OpenMetrics, or by default for Prometheus text.
        """
        shown = _WithoutCreated(self._registry)
        try:
            encode, content_type = choose_encoder(accept)
            return encode(shown), content_type
        except TypeError:  # Of a header that names a version which is not a number.
            encode, content_type = choose_encoder("")
            return encode(shown), content_type


class _WithoutCreated(Collector):
    """A registry without the `_created` series, which double the number of series.

    The switch of prometheus_client concerns the whole process, the application's metrics included.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Family]:
        """Yield all families of samples."""
        for family in self._registry.collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family
