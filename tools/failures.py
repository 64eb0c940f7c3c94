"""Print, for each known failure, the tests that guard against it and how they last went.

The list of failures is docs/explanation/failures.md. A test says in its name which of them it
guards against: `test_r17_no_token_in_logs`, `test_r04_r10_resume_after_restart`.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

LIST = Path("docs/explanation/failures.md")
RESULTS = Path(".test-results/junit.xml")

Outcome = Literal["failed", "skipped", "passed"]
Result = Outcome | Literal["open"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One known failure, as the list names it."""

    id: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One test function and its worst outcome over all its parameters."""

    name: str
    outcome: Outcome


def read_failures(text: str) -> list[Failure]:
    """Return the failures of the rows that look like `| R01 | title |`."""
    rows = re.finditer(r"^\|\s*(R\d{2,3})\s*\|\s*(.*?)\s*(?:\||$)", text, re.MULTILINE)
    return [Failure(id=row[1], title=row[2]) for row in rows]


def read_guards(junit: str) -> dict[str, list[Guard]]:
    """Return the tests of a JUnit report by the id of the failure they guard against."""
    worst: dict[tuple[str, str], Outcome] = {}
    for case in ElementTree.fromstring(junit).iter("testcase"):
        name = case.get("name", "")
        for id_ in ids_in(name):
            key = (id_, name.partition("[")[0])
            worst[key] = worst_of([outcome_of(case), *([worst[key]] if key in worst else [])])
    guards: dict[str, list[Guard]] = {}
    for (id_, name), outcome in sorted(worst.items()):
        guards.setdefault(id_, []).append(Guard(name=name, outcome=outcome))
    return guards


def ids_in(name: str) -> Iterator[str]:
    """Yield the ids a test name carries, `R04` and `R10` for `test_r04_r10_resume`."""
    yield from (f"R{digits}" for digits in re.findall(r"(?<![a-z0-9])r(\d{2,3})(?![a-z0-9])", name))


def outcome_of(case: ElementTree.Element) -> Outcome:
    """Return how one test case ended; an error in a fixture is a failure."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def worst_of(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome that says most about what is wrong."""
    order: tuple[Outcome, ...] = ("failed", "skipped", "passed")
    return min(outcomes, key=order.index)


def result_of(guards: list[Guard]) -> Result:
    """Return how the guards of one failure went together; without a guard it is open."""
    return worst_of(guard.outcome for guard in guards) if guards else "open"


def show(failures: list[Failure], guards: dict[str, list[Guard]], console: Console) -> None:
    """Print one row per failure: a table on a terminal, plain text elsewhere."""
    rows = [(failure, guards.get(failure.id, [])) for failure in failures]
    if not console.is_terminal:
        for failure, own in rows:
            names = ", ".join(guard.name for guard in own) or "-"
            print(f"{failure.id}  {result_of(own):<7}  {failure.title}  ({names})")
        return
    colours = {"passed": "green", "failed": "red", "skipped": "yellow", "open": "dim"}
    table = Table("id", "failure", "tests", "last result", box=box.SIMPLE)
    for failure, own in rows:
        names, result = "\n".join(guard.name for guard in own), result_of(own)
        table.add_row(failure.id, Text(failure.title), names, Text(result, colours[result]))
    console.print(table)


def main() -> int:
    """Show the table; return 1 when a guard failed, 2 when there is nothing to read."""
    for path, advice in ((LIST, "the list is missing"), (RESULTS, "run `make test` first")):
        if not path.exists():
            print(f"{path}: {advice}", file=sys.stderr)
            return 2
    failures, guards = read_failures(LIST.read_text()), read_guards(RESULTS.read_text())
    show(failures, guards, Console())
    unknown = sorted(guards.keys() - {failure.id for failure in failures})
    if unknown:
        print(f"{LIST} does not list {', '.join(unknown)}", file=sys.stderr)
    results = [result_of(guards.get(failure.id, [])) for failure in failures]
    counts = ", ".join(f"{results.count(r)} {r}" for r in ("passed", "failed", "skipped", "open"))
    print(f"{len(failures)} failures: {counts}")
    return int("failed" in [result_of(own) for own in guards.values()])


if __name__ == "__main__":
    sys.exit(main())
