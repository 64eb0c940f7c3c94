"""The tests that the documentation of the test kit shows, and those of our examples, are run."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_examples import APPROVAL, TUTORIAL, block
from tests.testing.test_pytest_plugin import PLUGIN
from tools.docs import ROOT
from towpath import testing

GUIDE = ROOT / "docs/how-to/test-your-agent.md"
REFERENCE = ROOT / "docs/reference/testing.md"
SERVING = {"test_server.py", "test_wire.py"}
"""Files whose tests start real servers."""


def files_of(page: Path) -> dict[str, str]:
    """Return the files that a page shows, by the names in their first lines."""
    blocks = re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```", page.read_text(), re.DOTALL | re.M)
    return {name: code for code, name in blocks}


def pages_and_files() -> list[object]:
    """Return each page with each of its files of tests."""
    return [
        pytest.param(page, name, marks=[pytest.mark.servers] if name in SERVING else [])
        for page in (GUIDE, REFERENCE)
        for name in files_of(page)
        if name != "conftest.py"
    ]


def run_tests(directory: Path, *names: str) -> str:
    """Run pytest on files of a directory and return what it printed.

    Raises:
        AssertionError: a test failed, or there was none.
    """
    command = [sys.executable, "-m", "pytest", *PLUGIN, "--rootdir", str(directory), *names]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(("page", "name"), pages_and_files())
def test_the_tests_of_a_page_pass(tmp_path: Path, page: Path, name: str) -> None:
    """Saved under its name beside the agents that it tests, a file passes as it stands."""
    (tmp_path / "my_agent.py").write_text(block(TUTORIAL, "python", "PRICES"))
    (tmp_path / "my_clerk.py").write_text(block(APPROVAL, "python", "def clerk"))
    for shown, code in {**files_of(GUIDE), **files_of(page)}.items():
        if shown in ("conftest.py", name):
            (tmp_path / shown).write_text(code)
    assert re.search(rf"^{name} \.+", run_tests(tmp_path, name), re.MULTILINE)


def test_every_name_of_the_kit_has_an_example() -> None:
    """Each exported name has a row or a heading in the reference, and is used in a file there."""
    text, code = REFERENCE.read_text(), "".join(files_of(REFERENCE).values())
    values = {"RunHandle", "FinishedRun"}
    for name in testing.__all__:
        assert re.search(rf"^(?:## |\| \[).*\b{name}\b", text, re.MULTILINE), name
        assert name in values or re.search(rf"\b{name}\(", code), name


@pytest.mark.parametrize("kind", ["GatewayTestClient", "RunHandle", "FinishedRun", "TokenSigner"])
def test_every_method_of_the_kit_is_in_the_reference(kind: str) -> None:
    """A method or an attribute without an entry would be found by accident only."""
    own = getattr(testing, kind)
    names = {name for name in vars(own) if not name.startswith("_")} | set(own.__annotations__)
    names -= {name for name, value in vars(own).items() if inspect.isclass(value)}
    text = REFERENCE.read_text()
    assert names
    assert [name for name in sorted(names) if not re.search(rf"`{name}\b", text)] == []


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "examples").glob("test_*.py")])
def test_the_examples_have_tests_that_pass(tmp_path: Path, name: str) -> None:
    """Our examples are tested as the guide recommends."""
    directory = shutil.copytree(ROOT / "examples", tmp_path / "examples")
    assert re.search(rf"^{name} \.+", run_tests(directory, name), re.MULTILINE)
