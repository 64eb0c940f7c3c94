"""A gateway named by --app is imported, or the refusal says where to look."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from towpath.cli.application import load_gateway
from towpath.errors import ConfigurationError
from towpath.gateway import Gateway

GATEWAY = "from towpath import Gateway\ngateway = Gateway()\n"

Refusal = Callable[[str], str]


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def refusal(app: str) -> str:
    """Return why an app is refused, which is one line."""
    with pytest.raises(ConfigurationError) as refused:
        load_gateway(app)
    said = str(refused.value)
    assert said.startswith(f"--app {app}: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("app", ["mine:gateway", "mine", "mine:", "inner.mine:gateway"])
def test_a_gateway_is_found_in_the_current_directory(tmp_path: Path, app: str) -> None:
    """By module and name; without a name it is `gateway`."""
    (tmp_path / "mine.py").write_text(GATEWAY)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/mine.py").write_text(GATEWAY)
    assert isinstance(load_gateway(app), Gateway)


def test_a_module_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """The directory is named, since the wrong one is the usual reason."""
    assert f"no module missing_module in {tmp_path}" in refusal("missing_module:gateway")


def test_a_missing_dependency_is_not_taken_for_the_module(tmp_path: Path) -> None:
    """The file, the line and the package that is not installed."""
    (tmp_path / "mine.py").write_text("import json\nimport no_such_package\n")
    said = refusal("mine:gateway")
    assert f"mine ({tmp_path / 'mine.py'}) cannot be imported" in said
    assert "ModuleNotFoundError: No module named 'no_such_package'" in said
    assert said.endswith(f", in line 2 of {tmp_path / 'mine.py'}")


def test_the_last_line_of_ones_own_code_is_named(tmp_path: Path) -> None:
    """Not that of the library in which it failed, nor of what imported it."""
    (tmp_path / "helper.py").write_text("import json\n\n\ndef read():\n    json.loads('{')\n")
    (tmp_path / "mine.py").write_text("import helper\n\nhelper.read()\n")
    said = refusal("mine:gateway")
    assert "JSONDecodeError" in said
    assert said.endswith(f", in line 5 of {tmp_path / 'helper.py'}")


def test_a_syntax_error_is_named_by_its_line(tmp_path: Path) -> None:
    """No line of the file was reached; the error has its place itself."""
    (tmp_path / "mine.py").write_text("a = 1\nb = (\n")
    said = refusal("mine:gateway")
    assert "SyntaxError" in said
    assert said.endswith(f", in line 2 of {tmp_path / 'mine.py'}")


def test_an_agent_that_is_none_is_named_by_its_line(tmp_path: Path) -> None:
    """What the gateway refuses at registration is the module's to mend as well."""
    wrong = "@gateway.agent('a')\nasync def wrong(request):\n    return 1\n"
    (tmp_path / "mine.py").write_text(GATEWAY + wrong)
    said = refusal("mine:gateway")
    assert "is not an async generator function" in said
    assert said.endswith(f", in line 3 of {tmp_path / 'mine.py'}")


def test_a_setting_that_is_none_is_named_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module is all right; what has to be mended is in the environment."""
    monkeypatch.setenv("TOWPATH_PING_INTERVAL", "soon")
    (tmp_path / "mine.py").write_text(GATEWAY)
    with pytest.raises(ConfigurationError, match=r"^TOWPATH_PING_INTERVAL: "):
        load_gateway("mine:gateway")


def test_a_module_that_hides_ones_own_is_named(tmp_path: Path) -> None:
    """A name that is imported already wins over the file; both files are named."""
    (tmp_path / "typer.py").write_text(GATEWAY)
    said = refusal("typer:gateway")
    assert str(sys.modules["typer"].__file__) in said
    assert f"it hides your {tmp_path / 'typer.py'}" in said


def test_an_installed_module_of_the_same_name_is_named(tmp_path: Path) -> None:
    """Where the file is in another directory, the one that was found says so."""
    said = refusal("json:gateway")
    assert f"({Path(os.__file__).parent / 'json/__init__.py'}) has no gateway" in said
    assert "hides" not in said
