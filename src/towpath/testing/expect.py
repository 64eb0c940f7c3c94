"""A matcher for the events of a run, whose failure shows what was expected beside what came."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from types import EllipsisType
from typing import Any

from towpath.events.types import Event

Expected = str | Mapping[str, Any] | EllipsisType
"""A type of event, some fields of an event, or `...` for any number of events."""
WIDTH = 72
"""The longest description of one event in a failure, in characters."""

_Row = tuple[str, str, str]
"""A mark, what was expected, and what came."""


def expect_events(events: Sequence[Event], expected: Sequence[Expected]) -> None:
    """Assert that events are the expected ones, in order.

    Args:
        events: the events, such as those of a run.
        expected: one entry for each event. A string is the type of the event. A mapping has some of
            its fields; a mapping inside has some of the fields there, and the value `...` stands
            for any value. The entry `...` stands for any number of events, or none. Without it the
            entries have to be complete.

    Raises:
        AssertionError: the events differ; the message shows both lists side by side.
    """
    __tracebackhide__ = True
    reached = [0]
    # For each entry, how many events may be matched once it is, and how many were before.
    steps: list[dict[int, int]] = []
    for entry in expected:
        step = _step(events, entry, reached)
        if not step:
            break
        steps.append(step)
        reached = list(step)
    complete = len(steps) == len(expected)
    if complete and len(events) in reached:
        return
    matched = max(reached) if complete else min(reached)
    rows = [*_matched(events, expected, steps, matched)]
    rows += _unmatched(events[matched:], expected[len(steps) :])
    raise AssertionError(f"the events are not the expected ones:\n{_table(rows)}")


def _step(events: Sequence[Event], entry: Expected, reached: list[int]) -> dict[int, int]:
    if entry is ...:
        return dict.fromkeys(range(reached[0], len(events) + 1), reached[0])
    return {
        number + 1: number
        for number in reached
        if number < len(events) and _fits(events[number], entry)
    }


def _fits(found: Any, wanted: Any) -> bool:
    """Whether an event, or a value in it, is as it should be."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            name in found and (value is ... or _fits(found[name], value))
            for name, value in wanted.items()
        )
    if isinstance(found, Mapping) and isinstance(wanted, str):
        return bool(found.get("type") == wanted)
    return bool(found == wanted)


def _matched(
    events: Sequence[Event], expected: Sequence[Expected], steps: list[dict[int, int]], end: int
) -> Iterator[_Row]:
    """Yield the rows of the entries that fit; together they stand for the first `end` events."""
    ends = [end]
    for step in reversed(steps):
        ends.append(step[ends[-1]])
    for entry, (first, last) in zip(expected, pairwise(reversed(ends)), strict=False):
        found = f"({last - first} skipped)" if entry is ... else _described(events[first])
        yield " ", _described(entry), found


def _unmatched(events: Sequence[Event], expected: Sequence[Expected]) -> Iterator[_Row]:
    """Yield the rows from the first difference on."""
    pairs = zip_longest(map(_described, expected), map(_described, events), fillvalue="(nothing)")
    for number, (wanted, found) in enumerate(pairs):
        yield "" if number else ">", wanted, found


def _described(entry: Event | Expected) -> str:
    if entry is ...:
        return "..."
    if isinstance(entry, str):
        return entry
    fields = {name: value for name, value in entry.items() if name != "type"}
    named = [entry["type"]] if "type" in entry else []
    # Ids come last, where they may be cut off.
    for name in sorted(fields, key=lambda name: name.endswith("Id")):
        value = fields[name]
        shown = "..." if value is ... else json.dumps(value, ensure_ascii=False, default=repr)
        named.append(f"{name}={shown}")
    text = " ".join(named)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _table(rows: Sequence[_Row]) -> str:
    head: _Row = (" ", "expected", "got")
    width = max(len(wanted) for _, wanted, _ in (head, *rows))
    return "\n".join(f"{mark:1} {wanted:{width}}  {found}" for mark, wanted, found in (head, *rows))
