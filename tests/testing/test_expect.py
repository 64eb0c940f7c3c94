"""The matcher of events: what it accepts, and what its failures show."""

from collections.abc import Sequence

import pytest

from towpath.events.types import Event
from towpath.testing import expect_events
from towpath.testing.expect import Expected

EVENTS: list[Event] = [
    {"type": "RUN_STARTED", "runId": "r1"},
    {"type": "TOOL_CALL_START", "toolCallId": "c1", "toolCallName": "price"},
    {"type": "CUSTOM", "name": "offer", "value": {"of": "pears", "price": {"now": 0.3, "was": 1}}},
    {"type": "CUSTOM", "name": "offer", "value": None},
    {"type": "RUN_FINISHED", "runId": "r1"},
]
TYPES = [event["type"] for event in EVENTS]


@pytest.mark.parametrize(
    "expected",
    [
        TYPES,
        [...],
        [..., "RUN_FINISHED"],
        ["RUN_STARTED", ...],
        ["RUN_STARTED", ..., "CUSTOM", ..., "RUN_FINISHED"],
        [*TYPES[:2], ..., *TYPES[2:]],
        [..., ..., *TYPES[2:]],
        # The first CUSTOM is not the one before RUN_FINISHED.
        [..., "CUSTOM", "RUN_FINISHED"],
        [..., {"toolCallName": "price"}, ...],
        [..., {"type": "CUSTOM", "value": {"of": "pears", "price": {"now": 0.3}}}, ...],
        [..., {"type": "CUSTOM", "value": ...}, "RUN_FINISHED"],
        EVENTS,
    ],
)
def test_what_fits_passes(expected: list[Expected]) -> None:
    """Types, parts of events and gaps in the order of the events."""
    expect_events(EVENTS, expected)


@pytest.mark.parametrize(
    "expected",
    [
        [],
        TYPES[:-1],
        TYPES[1:],
        [*TYPES, "CUSTOM"],
        [TYPES[1], TYPES[0], *TYPES[2:]],
        [..., "CUSTOM", "CUSTOM", "CUSTOM", ...],
        [..., "RUN_FINISHED", "CUSTOM"],
        [..., "RUN_FINISHED", ..., "CUSTOM", ...],
        [..., "STATE_SNAPSHOT", ...],
        [..., {"toolCallName": "cost"}, ...],
        [..., {"toolCallName": "price", "more": ...}, ...],
        [..., {"value": {"of": "pears", "price": {"now": 0.4}}}, ...],
        [..., {"value": {"of": {}}}, ...],
        [..., {"name": {"type": "offer"}}, ...],
    ],
)
def test_what_does_not_fit_fails(expected: list[Expected]) -> None:
    """Another order, one too few, one too many, another value at any depth."""
    with pytest.raises(AssertionError, match="the events are not the expected ones"):
        expect_events(EVENTS, expected)


def failure(events: Sequence[Event], expected: Sequence[Expected]) -> list[str]:
    """Return the lines of a failure, below its first."""
    with pytest.raises(AssertionError) as raised:
        expect_events(events, expected)
    return [line.rstrip() for line in str(raised.value).splitlines()[1:]]


def test_a_failure_marks_the_first_difference() -> None:
    """Both lists stand side by side; what fits is above the mark, all of the rest below it."""
    long = {"type": "CUSTOM", "name": "x" * 80}
    expected: list[Expected] = ["RUN_STARTED", ..., {"name": "offer", "value": 3}, "RUN_FINISHED"]
    assert failure([*EVENTS[:2], long, *EVENTS[3:]], expected) == [
        "  expected              got",
        '  RUN_STARTED           RUN_STARTED runId="r1"',
        "  ...                   (0 skipped)",
        '> name="offer" value=3  TOOL_CALL_START toolCallName="price" toolCallId="c1"',
        f'  RUN_FINISHED          CUSTOM name="{"x" * 58}…',
        '  (nothing)             CUSTOM name="offer" value=null',
        '  (nothing)             RUN_FINISHED runId="r1"',
    ]


def test_a_failure_shows_what_came_too_much_and_what_is_missing() -> None:
    """The end of one list stands beside the rest of the other."""
    assert failure(EVENTS[:2], [..., "TOOL_CALL_START", "CUSTOM"]) == [
        "  expected         got",
        "  ...              (1 skipped)",
        '  TOOL_CALL_START  TOOL_CALL_START toolCallName="price" toolCallId="c1"',
        "> CUSTOM           (nothing)",
    ]
    assert failure(EVENTS[:2], ["RUN_STARTED"])[-1].split(maxsplit=2) == [
        ">",
        "(nothing)",
        'TOOL_CALL_START toolCallName="price" toolCallId="c1"',
    ]


def test_a_gap_stands_for_as_much_as_it_can() -> None:
    """Where an entry fits several events and the list is too short, the last one is beside it."""
    assert [line.split()[:3] for line in failure(EVENTS, [..., "CUSTOM"])] == [
        ["expected", "got"],
        ["...", "(3", "skipped)"],
        ["CUSTOM", "CUSTOM", 'name="offer"'],
        [">", "(nothing)", "RUN_FINISHED"],
    ]
