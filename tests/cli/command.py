"""Run a command to its end, in a process of its own, and read how it ended."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Ended]


def in_a_process(*arguments: str, cwd: Path) -> Ended:
    """Run the command to its end in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "towpath", *arguments],
        cwd=cwd,
        env={key: value for key, value in os.environ.items() if not key.startswith("TOWPATH_")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def assert_refused(done: Ended, *words: str) -> None:
    """One clear line on standard error, exit status 2, nothing else."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("towpath: ")
    for word in words:
        assert word in lines[0]
