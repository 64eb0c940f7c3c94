"""The rooms of the page that need no browser keep what their tests in `web/tests` promise."""

import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"
FILES = sorted(path.name.removesuffix(".ts") for path in (WEB / "tests").glob("*.test.ts"))

pytestmark = pytest.mark.sdk_js


@pytest.fixture(scope="module")
def compiled() -> Path:
    """The tests and what they test, as JavaScript beside the packages they use."""
    compiler = WEB / "node_modules/.bin/tsc"
    done = subprocess.run([compiler, "-p", "tests"], cwd=WEB, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return WEB / ".units/tests"


def test_there_are_tests() -> None:
    """A folder that moved would leave nothing to run."""
    assert len(FILES) >= 3


@pytest.mark.parametrize("file", FILES)
def test_the_promises_of(file: str, compiled: Path) -> None:
    """Each test of this file passes, and there is at least one."""
    command = ["node", "--test", "--test-reporter=tap", str(compiled / f"{file}.js")]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert "# pass 0" not in done.stdout
