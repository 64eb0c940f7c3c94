"""What a label of a metric may say."""

import re

import pytest

from towpath import codes
from towpath.node.metrics import Metrics
from towpath.telemetry import InternalError, RunEnded


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
    found = re.search(r'towpath_runs_ended_total\{[^}]*code="(.*?)"', metrics.text().decode())
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
    assert 'towpath_faults_total{where="agent"} 3.0' in metrics.text().decode()
