"""What was measured: samples of several runs, as a table and as a section of README.md."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured."""

    name: str
    unit: str
    zero: bool = False
    """Whether anything but 0 is a failure."""


Sample = dict[Measure, float]
"""What one run measured."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What several runs of one benchmark measured."""

    name: str
    setting: str
    """With which parameters, in a sentence."""
    samples: Sequence[Sample]

    def failures(self) -> list[str]:
        """Return what had to be 0 and was not."""
        return [
            f"{self.name}: {measure.name} must be 0, was up to {max(values):g}"
            for measure, values in self._columns()
            if measure.zero and any(values)
        ]

    def table(self) -> str:
        """Return minimum, median and maximum of each measure, in Markdown."""
        rows: list[tuple[str, ...]] = [("", "unit", "min", "median", "max")]
        for measure, values in self._columns():
            ends = (min(values), statistics.median(values), max(values))
            rows.append((measure.name, measure.unit, *map(_number, ends)))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [_line(row, widths) for row in rows]
        rule = "|".join(
            "-" * (width + 1) + ("-" if at < 2 else ":") for at, width in enumerate(widths)
        )
        return "\n".join([lines[0], f"|{rule}|", *lines[1:]])

    def _columns(self) -> list[tuple[Measure, list[float]]]:
        return [(name, [sample[name] for sample in self.samples]) for name in self.samples[0]]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` percent of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def record(readme: Path, figures: Figures, description: str) -> None:
    """Write figures between the comments of their name.

    Raises:
        ValueError: the file has no such comments.
    """
    begin, end = f"<!-- {figures.name} -->", f"<!-- /{figures.name} -->"
    head, _, rest = readme.read_text().partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{readme} has no {begin} … {end}")
    runs = f"{len(figures.samples)} runs"
    body = f"{figures.setting}; {runs}.\n\n{figures.table()}\n\nOn {description}."
    readme.write_text(f"{head}{begin}\n{body}\n{end}{tail}")


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if at < 2 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return f"| {' | '.join(cells)} |"
