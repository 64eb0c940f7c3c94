"""A retired name is the object that replaced it, and says so at the line that uses it, once."""

import importlib
import linecache
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import towpath
from towpath import aliases, identity, telemetry
from towpath.aliases import ALIASES, Alias, RetiredMethod, retired_methods
from towpath.gateway import Gateway
from towpath.settings import Settings


def use(code: str) -> tuple[dict[str, Any], list[warnings.WarningMessage]]:
    """Run a user's lines; return what they defined and every warning."""
    names: dict[str, Any] = {"__name__": "users_module"}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        exec(compile(code, "users_module.py", "exec"), names)
    return names, seen


def capitals(row: Alias) -> list[bool]:
    """Return which parts of a name are classes: what is written with a capital."""
    return [part[0].isupper() for part in row.name.split(".")]


ROOT = Path(__file__).resolve().parent.parent
NAMES = [row for row in ALIASES if capitals(row)[-1]]
METHODS = [row for row in ALIASES if capitals(row)[-2:] == [True, False]]
MODULES = [row for row in ALIASES if not any(capitals(row))]


def shown(row: Alias) -> str:
    """Return how a row is called in the list of tests."""
    return row.name


@pytest.mark.parametrize("row", NAMES, ids=shown)
def test_a_retired_name_is_the_object_that_replaced_it(row: Alias) -> None:
    """The import works, is the same object, and warns once, at the user's line."""
    module, _, name = row.name.rpartition(".")
    names, seen = use(f"\nfrom {module} import {name} as old\n")
    assert names["old"] is pkgutil.resolve_name(row.replacement)
    (warning,) = seen
    assert warning.category is DeprecationWarning
    assert (warning.filename, warning.lineno) == ("users_module.py", 2)
    for word in (row.name, row.replacement, row.since, row.removed_in):
        assert word in str(warning.message)


@pytest.mark.parametrize("row", MODULES, ids=shown)
def test_every_name_of_a_module_that_moved_is_found_there(row: Alias) -> None:
    """Whatever the module at its new place has, by both ways to import it."""
    new = importlib.import_module(row.replacement)
    public = [name for name, value in vars(new).items() if defined_in(value, new)]
    assert public
    for name in public:
        names, seen = use(f"from {row.name} import {name} as old")
        assert names["old"] is getattr(new, name)
        assert [str(one.message) for one in seen] == [
            f"{row.name}.{name} is {row.replacement}.{name} since {row.since}; "
            f"the old name is removed in {row.removed_in}"
        ]
        names, seen = use(f"import {row.name} as module\n\nold = module.{name}")
        assert names["old"] is getattr(new, name)
        assert [one.lineno for one in seen] == [3]
        names, seen = use(f"import {row.name}\nold = {row.name}.{name}")
        assert names["old"] is getattr(new, name)
        assert [one.lineno for one in seen] == [2]


def defined_in(value: object, module: object) -> bool:
    """Whether a module defines a class or function, and does not only import it."""
    name = getattr(value, "__name__", "_")
    return getattr(value, "__module__", "") == getattr(module, "__name__", "") and name[0] != "_"


@pytest.mark.parametrize("row", METHODS, ids=shown)
def test_a_retired_method_is_the_method_that_replaced_it(row: Alias) -> None:
    """On the class the same function; the warning is at the line that takes it."""
    owner, _, name = row.name.removeprefix("towpath.").rpartition(".")
    names, seen = use(f"from towpath import {owner}\nold = {owner}.{name}")
    assert names["old"] is pkgutil.resolve_name(row.replacement)
    (warning,) = seen
    assert (warning.filename, warning.lineno) == ("users_module.py", 2)
    assert row.replacement in str(warning.message)


def test_an_observer_that_is_added_under_the_old_name_is_called(tmp_path: Path) -> None:
    """The bound method works as it did."""
    gateway: Any = Gateway(Settings(data=tmp_path))
    seen: list[telemetry.TelemetryEvent] = []
    with pytest.warns(DeprecationWarning, match=r"towpath\.Gateway\.add_observer"):
        gateway.watch(seen.append)
    event = telemetry.CaughtUp(connection="c", publications=1)
    gateway._telemetry.emit(event)
    assert seen == [event]


def test_every_row_is_of_one_kind_and_leads_to_a_living_name() -> None:
    """No row is left untested, and no row leads to another row."""
    assert len(NAMES) + len(MODULES) + len(METHODS) == len(ALIASES) == len(aliases.BY_NAME)
    for row in ALIASES:
        pkgutil.resolve_name(row.replacement)
        assert row.replacement not in aliases.BY_NAME
        assert version(row.since) < version(row.removed_in)


@pytest.mark.parametrize("row", ALIASES, ids=shown)
def test_a_row_goes_with_the_version_that_it_names(row: Alias) -> None:
    """The release that drops an old name cannot be made while the row is there."""
    assert version(towpath.__version__) < version(row.removed_in)


def version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, which compare as versions do."""
    return tuple(map(int, text.split(".")))


def test_a_name_of_the_package_that_retires_is_found_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A later row of the table is all it takes."""
    row = Alias(
        name="towpath.Context",
        replacement="towpath.UserExecutionContext",
        since="1",
        removed_in="2",
    )
    monkeypatch.setitem(aliases.BY_NAME, row.name, row)
    names, seen = use("from towpath import Context")
    assert names["Context"] is identity.UserExecutionContext
    assert [(one.filename, one.lineno) for one in seen] == [("users_module.py", 1)]


def test_a_place_warns_once_and_another_place_again() -> None:
    """With Python's default filter a loop gives one line."""
    names: dict[str, Any] = {"__name__": "users_module"}
    code = "import towpath.hooks\nfor _ in range(3):\n    towpath.hooks.Fault\ntowpath.hooks.Fault"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        exec(compile(code, "users_module.py", "exec"), names)
    assert [one.lineno for one in seen] == [3, 4]


@pytest.mark.parametrize("name", ["Nonsense", "__file__", "_private"])
def test_what_never_was_is_an_attribute_error_without_a_warning(name: str) -> None:
    """For `hasattr`, and for tools that look at all modules."""
    module = importlib.import_module("towpath.hooks")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not hasattr(module, name)
        assert not hasattr(towpath, name) or name == "__file__"


def test_a_module_that_never_was_is_not_found() -> None:
    """The import hook takes the table's modules only."""
    for path in ("towpath.nonsense", "towpath.server.nonsense", "towpath.Gateway"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(path)


def test_canonical_imports_never_warn() -> None:
    """Every module and every public name, in a process that fails on a deprecation."""
    code = (
        "import importlib, pkgutil, towpath\n"
        "for found in pkgutil.walk_packages(towpath.__path__, 'towpath.'):\n"
        "    if found.name != 'towpath.__main__':\n"
        "        module = importlib.import_module(found.name)\n"
        "        for name in getattr(module, '__all__', ()):\n"
        "            getattr(module, name)\n"
        "from towpath import *\n"
        "import sys\n"
        "assert len([name for name in sys.modules if name.startswith('towpath.')]) > 100\n"
        "assert not [name for name in sys.modules if name.startswith('towpath.hooks')]"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


class Manager:
    """A class with one method that was renamed; `retired_methods` is applied by the tests."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def broadcast(self, message: str, *, times: int = 1) -> int:
        """Send a message; return how often."""
        self.sent += [message] * times
        return times


RENAMED = Alias(
    name="towpath.Manager.broadcast_message",
    replacement="towpath.Manager.broadcast",
    since="1",
    removed_in="2",
)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> type[Manager]:
    """A class of its own for each test, with the retired method of the row."""
    monkeypatch.setattr(aliases, "ALIASES", (RENAMED,))
    return retired_methods("towpath.Manager")(type("Manager", (Manager,), {}))


async def test_a_retired_method_of_an_instance_calls_the_method_that_replaced_it(
    manager: Any,
) -> None:
    """Arguments, result and effect are those of the new name; the warning is at this line."""
    one = manager()
    with pytest.warns(DeprecationWarning, match=re.escape(str(RENAMED))) as seen:
        assert await one.broadcast_message("hello", times=2) == 2
    assert one.sent == ["hello", "hello"]
    (warning,) = seen
    assert "one.broadcast_message" in linecache.getline(__file__, warning.lineno)
    assert warning.filename == __file__


def test_a_retired_method_of_a_class_is_the_method_itself(manager: Any) -> None:
    """Not a copy and not a wrapper."""
    with pytest.warns(DeprecationWarning, match=re.escape(str(RENAMED))):
        assert manager.broadcast_message is manager.broadcast


def test_a_class_may_declare_its_retired_methods_for_type_checkers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The declaration behaves like the row alone; the row is all it needs."""
    monkeypatch.setattr(aliases, "ALIASES", (RENAMED,))

    class Declared(Manager):
        broadcast_message = RetiredMethod(Manager.broadcast)

    declared: Any = retired_methods("towpath.Manager")(Declared)
    with pytest.warns(DeprecationWarning, match=r"towpath\.Manager\.broadcast_message"):
        assert declared.broadcast_message is Manager.broadcast


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("send_everyone", RetiredMethod(Manager.broadcast), "has no row"),
        ("broadcast_message", RetiredMethod(Manager.__init__), r"RetiredMethod\(broadcast\)"),
        ("broadcast_message", Manager.broadcast, r"RetiredMethod\(broadcast\)"),
    ],
)
def test_a_declaration_that_contradicts_the_table_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, message: str
) -> None:
    """There is no second table: a class cannot be imported that disagrees with the first one."""
    monkeypatch.setattr(aliases, "ALIASES", (RENAMED,))
    with pytest.raises(TypeError, match=message):
        retired_methods("towpath.Manager")(type("Manager", (Manager,), {name: value}))


def test_type_checkers_see_the_deprecation_of_every_retired_method() -> None:
    """`make types` checks that mypy and pyright report each use in `retired_names.py`."""
    text = (ROOT / "typing_tests/retired_names.py").read_text()
    used = re.findall(r"\.(\w+)\b.*# type: ignore\[(?:.*, )?deprecated\]", text)
    unseen = {row.name for row in METHODS if row.name.rpartition(".")[2] not in used}
    assert unseen == set()
