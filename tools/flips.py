"""Flip bytes of a log's files, one in each copy, and report every answer that is wrong.

The check is that of `tests/runs/tables/sqlite/test_damage.py`, which has the short form. The copies
are made in turn of three states of one log: killed with its content in the file, killed with its
content in the write-ahead log, and stopped. A copy whose answers are wrong is kept as it was after
the flip; ids and times in a log are random, so a seed alone does not make the same log again.
"""

import asyncio
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.runs.tables.sqlite.test_damage import Left, Look, compare, copied, flip, leave, look

STATES: Final = ("in the file", "in the write-ahead log", "stopped")
ANSWER_SECONDS: Final = 120.0
"""How long a damaged log may take until it has answered everything."""
MANY: Final = 10
"""So many wrong logs end the check."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One byte of one file that is changed."""

    state: str
    file: str
    at: int
    """The offset of the byte in the file."""
    bits: int
    """The bits that change, 1 to 255."""

    def __str__(self) -> str:
        return f"{self.state}: {self.file} at {self.at} ^ {self.bits:#04x}"


@dataclass(frozen=True, slots=True)
class Wrong:
    """A flip after which the log did not answer as it must."""

    flip: Flip
    directory: Path
    """The files as they were after the flip."""
    reason: str

    def __str__(self) -> str:
        return f"{self.flip}\nfiles: {self.directory}\n{self.reason}"


def states(directory: Path) -> dict[str, Left]:
    """Fill a log, and leave it in each state, in directories of its own."""
    made = {}
    for name in STATES:
        files = directory / name.replace(" ", "-")
        made[name] = leave(files, checkpointed=name == "in the file")
        if name == "stopped":
            asyncio.run(look(files))
    return made


def planned(left: dict[str, Left], count: int, seed: str) -> Iterator[Flip]:
    """Yield flips in turn of the states; each byte of a state is as likely as any other."""
    chance = random.Random(seed)
    for number in range(count):
        state = STATES[number % len(STATES)]
        files = sorted(left[state].files.glob("log*"))
        sizes = [file.stat().st_size for file in files]
        file = chance.choices(files, weights=sizes)[0]
        at = chance.randrange(file.stat().st_size)
        yield Flip(state, file.name, at, chance.randint(1, 255))


def flips(
    directory: Path,
    left: dict[str, Left],
    plan: Iterator[Flip],
    *,
    on_flip: Callable[[Flip], None] = lambda _: None,
) -> tuple[Counter[str], list[Wrong]]:
    """Flip each byte of the plan in a copy of its own, and check all answers.

    Args:
        directory: for the copies; those that are wrong stay there.
        left: the states that are copied.
        plan: the flips.
        on_flip: is called after each.

    Returns:
        How often the damage cost what, and what is wrong.
    """
    costs: Counter[str] = Counter()
    wrong: list[Wrong] = []
    for number, one in enumerate(plan):
        copy, before = directory / f"copy-{number}", left[one.state]
        flip(copied(before, copy) / one.file, one.at, one.bits)
        try:
            found = asyncio.run(asyncio.wait_for(look(copy), ANSWER_SECONDS))
            if found.known is not None:
                compare(found, before.known)
        except Exception as error:  # noqa: BLE001 - whatever happens after a flip is reported, not raised.
            shutil.rmtree(copy)
            flip(copied(before, copy) / one.file, one.at, one.bits)
            wrong.append(Wrong(one, copy, "".join(traceback.format_exception(error))))
        else:
            costs[_cost(found)] += 1
            shutil.rmtree(copy)
        on_flip(one)
        if len(wrong) == MANY:
            break
    return costs, wrong


def _cost(found: Look) -> str:
    if found.known is None:
        return "refused"
    if found.quarantined is not None:
        return "carried over"
    return "reported" if found.reported else "no effect"
