"""The check of a wheel's imports finds a module that needs more than its extra brings."""

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from tools.wheel_imports import check, check_plugins

MISSING = """
from towpath.errors import MissingExtra
try:
    import no_such_package
except ImportError as error:
    raise MissingExtra.of(__name__, "serve", error) from error
"""

Check = Callable[..., list[str]]


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Check]:
    """Make a package out of texts and return what is wrong with it."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(
        extras: tuple[str, ...] = (), *, need_dev: tuple[str, ...] = (), **files: str
    ) -> list[str]:
        deep = tmp_path / "sample" / "deep"
        deep.mkdir(parents=True)
        for name, text in {"__init__": "", **files}.items():
            (tmp_path / "sample" / f"{name}.py").write_text(text)
            (deep / f"{name}.py").write_text(text if name != "__init__" else "")
        package = importlib.import_module("sample")
        return list(check(package, extras, frozenset(need_dev)))

    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] == "sample"]:
        del sys.modules[name]


def test_a_module_that_names_the_missing_extra_is_fine(checked: Check) -> None:
    """MissingExtra for an extra that is not there is what a person should read."""
    assert checked(fine="import json", serve=MISSING) == []


def test_an_extra_that_does_not_suffice_is_found(checked: Check) -> None:
    """The extra is there and the package it should bring is not, at any depth."""
    found = checked(("serve",), serve=MISSING)
    assert [line.partition(":")[0] for line in found] == ["sample.serve", "sample.deep.serve"]
    assert "does not suffice" in found[0]


def test_a_module_that_needs_a_package_of_no_extra_is_found(checked: Check) -> None:
    """A plain ModuleNotFoundError names no way out."""
    found = checked(dev="import no_such_package")
    assert len(found) == 2
    assert "no_such_package" in found[0]


def test_the_list_of_exceptions_is_kept_short(checked: Check) -> None:
    """A listed module may fail; one that does not fail any more is reported."""
    found = checked(
        need_dev=("sample.dev", "sample.deep.dev", "sample.fine"),
        dev="import no_such_package",
        fine="",
    )
    assert found == ["sample.fine: needs nothing of the dev group any more"]


def test_a_plugin_without_its_file_is_found() -> None:
    """An entry point must name a module that is installed."""
    there = EntryPoint("there", "json", "pytest11")
    gone = EntryPoint("gone", "no_such_module", "pytest11")
    assert list(check_plugins(EntryPoints([there, gone]))) == [
        "no_such_module: no module for the entry point gone of pytest11"
    ]
