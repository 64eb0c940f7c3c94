"""Each metric of the table counts its event; what a label may say; how they are shown."""

import dataclasses
import platform
import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

import towpath.auth.breaker
from towpath import codes, telemetry
from towpath.log.sqlite.health import LogHealth
from towpath.node.metrics import EVENT_METRICS, EventMetric, Metrics
from towpath.telemetry import InternalError, RunEnded, TelemetryEvent

SAMPLES: dict[str, Any] = {"str": "x", "int": 3, "float": 0.5, "bool": True, "str | None": "x"}
"""A value of each type that a counted field has."""


def sample(kind: type[TelemetryEvent]) -> TelemetryEvent:
    """Return an event of this kind."""
    values = {
        one.name: SAMPLES.get(getattr(one.type, "__name__", str(one.type)))
        for one in dataclasses.fields(kind)
    }
    if kind is telemetry.BreakerMoved:
        values["after"] = "open"
    if kind is telemetry.LogChanged:
        values["after"] = "full"
    return kind(**values)


def text_of(metrics: Metrics) -> str:
    """Return the metrics as Prometheus reads them."""
    return metrics.exposition()[0].decode()


@pytest.mark.parametrize("metric", EVENT_METRICS, ids=lambda metric: metric.name)
def test_each_metric_changes_by_its_event_under_its_labels(metric: EventMetric[Any]) -> None:
    """After one event the series is there, with a value for every label and no other label."""
    metrics = Metrics()
    metrics.observe(sample(metric.event))
    suffix = {"Counter": "_total", "Gauge": "", "Histogram": "_count"}[metric.kind.__name__]
    (family,) = [
        one for one in text_string_to_metric_families(text_of(metrics)) if one.name == metric.name
    ]
    (series,) = [one for one in family.samples if one.name == metric.name + suffix]
    assert series.value > 0
    assert series.labels.keys() == metric.labels.keys()
    assert all(series.labels.values())


def test_an_event_that_no_metric_counts_changes_nothing() -> None:
    """Not every event is counted."""
    metrics = Metrics()
    before = text_of(metrics)
    metrics.observe(sample(telemetry.RunBegan))
    assert text_of(metrics) == before


@pytest.mark.parametrize("state", towpath.auth.breaker.State)
def test_every_state_of_a_breaker_has_a_number(state: towpath.auth.breaker.State) -> None:
    """The gauge can show each of them."""
    Metrics().observe(telemetry.BreakerMoved(dependency="d", before="", after=state.value))


@pytest.mark.parametrize("health", LogHealth)
def test_every_condition_of_the_log_has_a_number(
    health: LogHealth,
) -> None:
    """The gauge can show each of them."""
    Metrics().observe(telemetry.LogChanged(before="", after=health.value, reason=""))


def test_nothing_is_shown_twice_as_a_time_of_creation() -> None:
    """The `_created` series, which double the number of series, are left out of both formats."""
    metrics = Metrics()
    for metric in EVENT_METRICS:
        metrics.observe(sample(metric.event))
    for accept in ("", "application/openmetrics-text"):
        assert b"_created" not in metrics.exposition(accept)[0]


def test_the_build_says_which_versions_run() -> None:
    """A dashboard sees a deploy."""
    python = platform.python_version()
    assert f'towpath_build_info{{python="{python}",version="0.1.0"}} 1.0' in text_of(Metrics())


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/html", "application/openmetrics-text; version=abc", "\xff;="]
)
def test_prometheus_text_is_the_default(accept: str) -> None:
    """Whatever a client accepts, however badly it says so, it gets the plain format."""
    text, content_type = Metrics().exposition(accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert list(text_string_to_metric_families(text.decode()))


def test_a_client_that_accepts_openmetrics_gets_it() -> None:
    """Prometheus's own header; another parser reads every family of it."""
    metrics = Metrics()
    for metric in EVENT_METRICS:
        metrics.observe(sample(metric.event))
    metrics.gauge("towpath_runs", "Runs in progress", lambda: 3)
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"
    text, content_type = metrics.exposition(accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    parsed = openmetrics_families(text.decode())  # type: ignore[no-untyped-call]
    families = {one.name: one.type for one in parsed}
    assert families.keys() > {metric.name for metric in EVENT_METRICS}
    assert families["towpath_build"] == "info"


def label(code: str | None) -> str:
    """Return the label that a run with this code is counted under."""
    metrics = Metrics()
    metrics.observe(
        RunEnded(
            tenant="acme",
            user="mia",
            thread="t",
            run="r",
            agent="helper",
            status="failed",
            code=code,
            events=1,
            seconds=1.0,
        )
    )
    found = re.search(r'towpath_runs_ended_total\{[^}]*code="(.*?)"', text_of(metrics))
    assert found is not None
    return found[1]


@pytest.mark.parametrize("code", [*codes.RUN_CODES, *codes.MODEL_CODES])
def test_a_code_of_the_table_is_its_own_label(code: str) -> None:
    """Operators tell the gateway's failures, and those of models, apart."""
    assert label(code) == code


@pytest.mark.parametrize("code", ["agent.failed", "run.mine", "model.mine", "RUN.LOST", "user-42"])
def test_r121_a_code_that_an_agent_made_up_is_no_label(code: str) -> None:
    """The labels are a closed set: what stands in an old log counts as an agent's own too."""
    assert label(code) == "agent"


def test_a_run_without_a_code_has_an_empty_label() -> None:
    """A run that ended well has no code."""
    assert label(None) == ""


def test_r121_faults_are_counted_by_place_and_never_by_agent() -> None:
    """The first word of the place is the label, whatever the agent is called."""
    metrics = Metrics()
    for name in ("helper", "(not known which)", "a b"):
        metrics.observe(InternalError(where=f"agent {name}", error=SystemExit(3)))
    assert 'towpath_faults_total{where="agent"} 3.0' in text_of(metrics)
