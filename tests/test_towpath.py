"""The package itself: its public names, its version, and what a missing extra says."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import towpath
from towpath.errors import ConfigurationError, MissingExtra


def test_the_version_is_the_installed_one() -> None:
    """`towpath.__version__` is what the installer says."""
    assert towpath.__version__ == version("towpath")


@pytest.mark.parametrize("name", towpath.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """What `from towpath import *` promises can be imported."""
    assert getattr(towpath, name)


def test_a_missing_extra_is_an_import_error_that_names_it() -> None:
    """Code that catches ImportError catches it too; the sentence says what to install."""
    error = MissingExtra.of("towpath.cli", "serve", ModuleNotFoundError("No module named 'rich'"))
    assert isinstance(error, ImportError)
    assert isinstance(error, ConfigurationError)
    assert str(error) == (
        "towpath.cli needs the extra serve: pip install 'towpath[serve]' (No module named 'rich')"
    )


def without(*packages: str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program where these packages cannot be imported."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + program],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_the_command_line_without_its_extra_is_one_line() -> None:
    """Without one of its packages the command says which extra brings it, and nothing else."""
    done = without("uvloop", program="from towpath.__main__ import main; main()")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("towpath: the command line needs the extra serve: pip install ")


def test_a_mounted_gateway_needs_no_package_of_the_command_line() -> None:
    """`from towpath import Gateway` works where only the package itself is installed."""
    of_serve = ("rich", "typer", "uvicorn", "uvloop", "websockets", "httptools")
    done = without(*of_serve, program="from towpath import Gateway, Settings; Gateway(Settings())")
    assert (done.returncode, done.stderr) == (0, "")
