"""The filter of an event stream: one whole run, by the tags of its publications."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.connections.run_filter import RunFilter
from towpath.log.broker import Publication

SPOKEN = ("hello", "RUN_FINISHED", 'say "RUN_STARTED"', '{"type":"RUN_ERROR"}')
"""What people and agents may say, some of it like bounds."""


def run_of(name: str, run_texts: list[str], *, failed: bool) -> list[dict[str, Any]]:
    end = {"type": "RUN_ERROR"} if failed else {"type": "RUN_FINISHED", "runId": name}
    texts = [{"type": "TEXT_MESSAGE_CONTENT", "delta": text} for text in run_texts]
    return [{"type": "RUN_STARTED", "runId": name}, *texts, end]


def published(name: str, events: list[dict[str, Any]], *, tagged: bool = True) -> list[Publication]:
    tags = {"run": name} if tagged else {}
    return [Publication(0, msgspec.json.encode(event), tags) for event in events]


runs = st.lists(st.tuples(st.lists(st.sampled_from(SPOKEN), max_size=3), st.booleans()), max_size=5)


@given(runs, st.integers(0, 4))
def test_r91_a_filter_shows_one_run_whole(made: list[tuple[list[str], bool]], wanted: int) -> None:
    """The named run is shown whole, or nothing."""
    thread = [
        published(f"r{number}", run_of(f"r{number}", run_texts, failed=failed))
        for number, (run_texts, failed) in enumerate(made)
    ]
    run_filter = RunFilter(f"r{wanted}")
    shown = [one for run in thread for one in run if run_filter.shows(one)]
    assert shown == (thread[wanted] if wanted < len(thread) else [])
    assert run_filter.over == (wanted < len(thread))


@given(runs, st.integers(0, 4))
def test_a_filter_of_no_run_shows_all_up_to_an_end(
    made: list[tuple[list[str], bool]], skipped: int
) -> None:
    """A reader that joined during a run gets the rest of it, and nothing of the next."""
    rest = published("r", run_of("r", ["a", "b", "c"], failed=False))[1 + min(skipped, 3) :]
    more = [
        one
        for run_texts, failed in made
        for one in published("later", run_of("later", run_texts, failed=failed))
    ]
    run_filter = RunFilter(None)
    assert [one for one in [*rest, *more] if run_filter.shows(one)] == rest
    assert run_filter.over


@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize("wanted", [None, "r", "other"])
def test_a_snapshot_is_shown_if_it_is_of_the_run(wanted: str | None, *, over: bool) -> None:
    """Its events have no tags: the first one names its run, the last one may end it."""
    events = run_of("r", ["a"], failed=False)
    snapshot = published("r", events if over else events[:-1], tagged=False)
    run_filter = RunFilter(wanted)
    shown = run_filter.of_answer(snapshot)
    assert shown == ([] if wanted == "other" else snapshot)
    assert run_filter.over == (over and wanted != "other")


def test_a_tail_may_hold_several_runs() -> None:
    """A named run is shown alone; a reader that resumes gets the whole tail."""
    first = published("r", run_of("r", ["a"], failed=False))
    tail = [*first, *published("s", run_of("s", ["b"], failed=False))]
    resumed, named, empty = RunFilter(None), RunFilter("r"), RunFilter(None)
    assert (resumed.of_answer(tail[:-1]), resumed.over) == (tail[:-1], False)
    assert (resumed.of_answer(tail), resumed.over) == (tail, True)
    assert (named.of_answer(tail), named.over) == (first, True)
    assert RunFilter("s").of_answer(tail) == tail[len(first) :]
    assert (empty.of_answer([]), empty.over) == ([], False)
