"""Changes to a source are those that decide something, and each is held against the right tests."""

import signal
from pathlib import Path

from tools.mutants import mutants
from tools.mutation import Lesson, in_a_process

SOURCE = '''
"""Word."""
__slots__ = ("_level",)
LIMIT: Literal["never"] = 3

def take(self, now: float) -> bool:
    """Take one."""
    assert self.rate > 0, "checked"
    if now >= self.end and not self.closed:
        raise Late(f"not after {self.name}")
    self.level -= 1
    return min(self.level, LIMIT)
'''
LESS = "def less(a, b): return a < b"


def test_what_decides_something_is_changed_and_nothing_else() -> None:
    """Conditions, numbers, steps and results are, in order; names, types and sentences are not."""
    assert [(mutant.line, mutant.change) for mutant in mutants(SOURCE, "room.py")] == [
        (4, "3 → 4"),
        (9, "now >= self.end and (not self.closed) → now >= self.end or not self.closed"),
        (9, "now >= self.end → now > self.end"),
        (9, "now >= self.end → now < self.end"),
        (9, "not self.closed → self.closed"),
        (10, "raise Late(f'not after {self.name}') → pass"),
        (11, "self.level -= 1 → self.level += 1"),
        (11, "self.level -= 1 → pass"),
        (11, "1 → 2"),
        (12, "return min(self.level, LIMIT) → return None"),
        (12, "min(self.level, LIMIT) → max(self.level, LIMIT)"),
    ]


def test_a_mutant_has_one_change() -> None:
    """Its code is the source with that change alone, whatever was changed before."""
    found = []
    for mutant in mutants(LESS, "room.py"):
        names: dict[str, object] = {}
        exec(mutant.code, names)
        less = names["less"]
        assert callable(less)
        found.append((less(1, 2), less(2, 2), less(2, 1)))
    assert found == [(None, None, None), (True, True, False), (False, True, True)]


def test_the_rooms_own_tests_come_first_and_the_quick_before_the_slow() -> None:
    """Those that enter the function are chosen; what runs at import concerns every test."""
    room = Path("src/towpath/auth/cache.py")
    quick, slow = "tests/auth/test_cache.py::quick", "tests/auth/test_cache.py::slow"
    other = "tests/auth/test_service.py::quickest"
    lesson = Lesson(
        seconds={slow: 2.0, quick: 1.0, other: 0.1}, entered={f"{room}:10": [slow, other]}
    )
    assert lesson.tests_for(room, 9, 12) == ([slow], [other])
    assert lesson.tests_for(room, 11, 12) == ([], [])
    assert lesson.tests_for(room, 0, 0) == ([quick, slow], [other])


def test_what_does_not_end_is_ended() -> None:
    """A change that makes a loop endless costs its time and no more, and counts as such."""

    def spin() -> int:
        while True:
            pass

    assert in_a_process(spin, seconds=0.5) == -signal.SIGALRM
    assert in_a_process(lambda: 3, seconds=5) == 3
