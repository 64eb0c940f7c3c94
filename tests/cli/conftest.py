"""The command line, run within this process."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command, Ended
from towpath.cli import main


@pytest.fixture
def towpath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Run the command to its end in this process, in a directory and environment of its own.

    An exception that would be a traceback in a process fails the test.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in os.environ:
        if name.startswith("TOWPATH_"):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["towpath", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.modules.pop("own", None)
