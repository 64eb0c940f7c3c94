"""Change one thing at a time in `towpath.auth` and see whether a test notices.

First all unit tests of authentication run once, to learn which functions each of them enters. Then,
for each change, a process of its own runs the tests that enter the changed function, those of the
room itself first, until one fails or the time is over. A change that none notices survives: it is a
gap in the tests, or no change at all. No source file is written to.

`python -m tools.mutation [--per-room N] [--schedules] [room …]`: of more than N changes in a room,
N are drawn, the same ones each time. Explorations of schedules take minutes, so only `--schedules`
runs them as well.
"""

import argparse
import ast
import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import hypothesis
import pytest

from tools.mutants import Mutant, mutants

AUTH, TESTS = Path("src/towpath/auth").resolve(), Path("tests/auth")
SCHEDULES = TESTS / "test_schedules.py"
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0")
GRACE_SECONDS = 10
"""A change may make its tests last twice as long, and this much more."""
PROOF = 20
"""How many tests show that an unchanged room passes, where it has none of its own."""
NOTICED, TIMED_OUT, SURVIVED, NOT_RUN = "noticed", "out of time", "survived", "run by no test"


@dataclass
class Lesson:
    """What the run without a change taught: the pytest plugin that learns it, too."""

    seconds: dict[str, float] = field(default_factory=dict)
    """How long each test took."""
    entered: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The tests that enter a function, by its file and first line."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        calls: set[str] = set()

        def hear(frame: FrameType, event: str, _: object) -> None:
            if event == "call" and frame.f_code.co_filename.startswith(str(AUTH)):
                calls.add(f"{frame.f_code.co_filename}:{frame.f_code.co_firstlineno}")

        began = time.perf_counter()
        sys.setprofile(hear)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            self.seconds[item.nodeid] = time.perf_counter() - began
            for call in calls:
                self.entered[call].append(item.nodeid)

    def tests_for(self, room: Path, first: int, last: int) -> tuple[list[str], list[str]]:
        """Return the tests, the quickest first, that enter a function: the room's own, and others.

        Args:
            room: the file.
            first: the function's first line; 0 for what runs when the room is imported.
            last: its last line.
        """
        lines = (f"{room}:{line}" for line in range(first, last + 1))
        tests = {test for line in lines for test in self.entered.get(line, ())}
        chosen = sorted(tests if first else self.seconds, key=self.seconds.__getitem__)
        own = [test for test in chosen if test.startswith(f"{TESTS}/test_{room.stem}.py")]
        return own, [test for test in chosen if test not in own]


@dataclass
class Chosen:
    """The pytest plugin that leaves only these tests, in this order, and those a change made."""

    tests: list[str]
    others: frozenset[str]
    """The rest of those there are without it."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = {test: at for at, test in enumerate(self.tests)}
        left = [item for item in items if item.nodeid not in self.others]
        items[:] = sorted(left, key=lambda item: order.get(item.nodeid, 0))


class Swapped(SourceFileLoader):
    """Finds a room's module, with other code in it."""

    def __init__(self, room: Path, code: CodeType) -> None:
        super().__init__(f"towpath.auth.{room.stem}", str(room))
        self._code = code

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return self._code


def main() -> int:
    """Run what was asked for; 1 where the tests fail without any change."""
    parser = argparse.ArgumentParser(description="Test the tests of authentication.")
    parser.add_argument("rooms", nargs="*", help="default all")
    parser.add_argument("--per-room", type=int, default=200, help="how many changes; default 200")
    parser.add_argument("--schedules", action="store_true", help="explore schedules as well")
    asked = parser.parse_args()
    rooms = {room.stem: room for room in sorted(AUTH.glob("[!_]*.py"))}
    if unknown := set(asked.rooms) - set(rooms):
        parser.error(f"no room {unknown.pop()!r}: choose from {', '.join(rooms)}")
    hypothesis.settings.register_profile(
        "mutation", max_examples=50, deadline=None, database=None, derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    os.environ["HYPOTHESIS_PROFILE"] = "mutation"
    lesson = _learn([str(TESTS)] if asked.schedules else [str(TESTS), f"--ignore={SCHEDULES}"])
    if lesson is None:
        return 1
    chosen = [rooms[name] for name in asked.rooms or rooms]
    survivors = [line for room in chosen for line in _try_room(room, lesson, asked.per_room)]
    print(f"\n{len(survivors)} survived", *survivors, sep="\n")
    return 0


def _learn(tests: list[str]) -> Lesson | None:
    """Run tests without any change, and leave imported whatever of others' they import."""

    def run() -> int:
        lesson = Lesson()
        status = int(pytest.main([*OPTIONS, *tests], plugins=[lesson]))
        result.write_text(json.dumps(vars(lesson)))
        return status

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "lesson")
        if in_a_process(run, seconds=600) != 0:
            return None
        lesson = Lesson(**json.loads(result.read_text()))
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*OPTIONS, "--collect-only", *tests])
    for name in [name for name in sys.modules if name.split(".")[0] in ("towpath", "tests")]:
        del sys.modules[name]
    return lesson


def _try_room(room: Path, lesson: Lesson, most: int) -> Iterator[str]:
    """Yield what survives in a room, and print what became of all its changes."""
    source = room.read_text()
    functions = [
        (min(line.lineno for line in (node, *node.decorator_list)), node.end_lineno or 0)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    every = list(mutants(source, str(room)))
    own, others = lesson.tests_for(room, 0, 0)
    unchanged = Mutant(0, "", compile(source, room, "exec"))
    if _try(unchanged, room, (own or others[:PROOF], []), lesson) != SURVIVED:
        raise SystemExit(f"{room.stem}: its tests fail without any change")
    drawn = sorted(random.Random(room.stem).sample(range(len(every)), min(most, len(every))))
    outcomes: Counter[str] = Counter()
    for mutant in map(every.__getitem__, drawn):
        within = [ends for ends in functions if ends[0] <= mutant.line <= ends[1]]
        outcome = _try(mutant, room, lesson.tests_for(room, *max(within, default=(0, 0))), lesson)
        outcomes[outcome] += 1
        if outcome in (SURVIVED, NOT_RUN):
            where = f"{room.relative_to(Path.cwd())}:{mutant.line}: {mutant.change}"
            yield f"{where}  [{outcome}]\n    {source.splitlines()[mutant.line - 1].strip()}"
        if sys.stdout.isatty():
            print(f"\r{room.stem}: {outcomes.total()} of {len(drawn)}", end="\r", flush=True)
    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    print(f"{room.stem}: {told}; {len(every) - len(drawn)} left out", flush=True)


def _try(mutant: Mutant, room: Path, tests: tuple[list[str], list[str]], lesson: Lesson) -> str:
    """Return what the tests make of a change."""
    for some in filter(None, tests):
        run = partial(_run, mutant, room, Chosen(some, frozenset(lesson.seconds) - set(some)))
        usual = sum(lesson.seconds[test] for test in some)
        status = in_a_process(run, seconds=GRACE_SECONDS + 2 * usual)
        if status != 0:
            return TIMED_OUT if status == -signal.SIGALRM else NOTICED
    return SURVIVED if any(tests) else NOT_RUN


def _run(mutant: Mutant, room: Path, chosen: Chosen) -> int:
    """Run tests on a change until one fails, and return pytest's exit status."""
    sys.meta_path.insert(0, Swapped(room, mutant.code))
    files = {test.partition("::")[0] for test in chosen.tests}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    return int(pytest.main([*OPTIONS, "-x", *sorted(files)], plugins=[chosen]))


def in_a_process(work: Callable[[], int], *, seconds: float) -> int:
    """Do something in a process of its own and return its exit status; -SIGALRM if it was slow."""
    if (child := os.fork()) == 0:
        # Whoever runs us may have another use for it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        status = 1
        with contextlib.suppress(BaseException):
            status = work()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
