"""What retention did not drop, or dropped too early, is a failure of the benchmark."""

import pytest

from benchmarks import scale
from benchmarks.figures import Figures, Measure
from benchmarks.scale import LEFT, LOG_THREADS, LOST, Scale


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "IN_USE_SECONDS", 0.2)
    monkeypatch.setattr(scale, "REPEATS", 3)


def test_a_small_log_is_filled_kept_and_dropped() -> None:
    """Both halves are measured, and nothing that must be 0 is anything else."""
    small = Scale(rows=2 * LOG_THREADS, runs=200)
    sample = small.sample()
    assert Figures("scale", small.setting, [sample]).failures() == []
    assert (sample[LEFT], sample[LOST]) == (0, 0)
    assert Measure("thread.list, 200 runs", "ms") in sample


def test_what_is_left_after_the_time_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where retention finds nothing too old in time, that is not taken for a fast sweep."""
    monkeypatch.setattr(scale, "DROP_SECONDS", 0.2)
    monkeypatch.setattr(scale, "HOUR", 1.0)
    small = Scale(rows=2 * LOG_THREADS, runs=100)
    sample = small.sample()
    assert sample[LEFT] == 3 * LOG_THREADS
    assert len(Figures("scale", small.setting, [sample]).failures()) == 1
