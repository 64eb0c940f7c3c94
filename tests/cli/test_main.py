"""The command line as a whole."""

from pathlib import Path

import pytest

from tests.cli.command import in_a_process


@pytest.mark.servers
def test_version_is_one_line(tmp_path: Path) -> None:
    """`--version` prints the version and nothing else."""
    done = in_a_process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "0.1.0", "")
