"""The architecture page names files and functions as they stand in the code."""

import re

import pytest

from tools.docs import ROOT

PAGE = (ROOT / "docs/explanation/architecture.md").read_text()
STEPS = re.findall(r"^\| \d+ \| .* \| (.*) \|$", PAGE, re.MULTILINE)
"""The last column of the two paths: files, and the functions of each."""


def in_source(file: str) -> str:
    """Return the text of a file of the package."""
    return (ROOT / "src/towpath" / file).read_text()


def test_both_paths_are_written_down() -> None:
    """The page has steps for the command and for the event."""
    assert len(STEPS) > 15


@pytest.mark.parametrize("step", STEPS)
def test_each_step_names_functions_that_exist(step: str) -> None:
    """Whoever follows a path finds each function in the file that the page names."""
    for part in step.split("; "):
        file, *names = re.findall(r"`([^`]+)`", part)
        source = in_source(file)
        for name in names:
            defined = rf"(def|class) {name.rpartition('.')[2]}\b"
            assert re.search(defined, source), f"{file} has no {name}"


def test_every_file_exists() -> None:
    """A file that the page names is in the package or in the repository."""
    files = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|toml))`", PAGE))
    assert len(files) > 20
    found = [any((base / one).exists() for base in (ROOT, ROOT / "src/towpath")) for one in files]
    assert all(found), sorted(one for one, there in zip(files, found, strict=True) if not there)
