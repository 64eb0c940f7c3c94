"""Import every module of the installed package, and say which one needs what it may not need.

Usage: PYTHON tools/wheel_imports.py [EXTRA ...], where PYTHON is an environment that holds the
wheel and these extras, and no package of the dev group. A module may fail with MissingExtra that
names an extra that is not there; any other failure, and a MissingExtra for an extra that is there,
is a problem. The plugin of pytest is not imported, because only pytest imports it: its file must be
there. This file needs the standard library and the package only.
"""

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoints, entry_points
from types import ModuleType

NEED_DEV: frozenset[str] = frozenset()
"""Modules in the wheel that need a package of the dev group. It shall stay empty."""
EXTRA = re.compile(r"pip install '\w+\[([\w-]+)\]'")


def modules(package: ModuleType) -> Iterator[str]:
    """Yield the names of a package and of all modules in it, without importing any of them."""
    yield package.__name__
    todo = [(package.__name__, list(package.__path__))]
    while todo:
        name, paths = todo.pop()
        for found in pkgutil.iter_modules(paths, f"{name}."):
            yield found.name
            if found.ispkg:
                inner = found.name.rpartition(".")[2]
                todo.append((found.name, [f"{path}/{inner}" for path in paths]))


def problem(name: str, extras: frozenset[str], need_dev: frozenset[str]) -> str:
    """Import one module; return what is wrong, empty where it is as it should be."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        if name in need_dev:
            return ""
        named = EXTRA.search(str(error))
        if type(error).__name__ != "MissingExtra" or named is None:
            return f"{name}: {type(error).__name__}: {error}"
        if named[1] in extras:
            return f"{name}: the extra {named[1]} is here and does not suffice: {error}"
        return ""
    return f"{name}: needs nothing of the dev group any more" if name in need_dev else ""


def check(
    package: ModuleType, extras: Iterable[str], need_dev: frozenset[str] = NEED_DEV
) -> Iterator[str]:
    """Yield what is wrong with the modules of a package, one line each."""
    there = frozenset(extras)
    for name in modules(package):
        if found := problem(name, there, need_dev):
            yield found


def check_plugins(plugins: EntryPoints) -> Iterator[str]:
    """Yield the entry points whose module is not installed, without importing any of them."""
    for plugin in plugins:
        if importlib.util.find_spec(plugin.module) is None:
            yield f"{plugin.module}: no module for the entry point {plugin.name} of {plugin.group}"


def main(extras: list[str]) -> int:
    """Print each problem; return 1 if there is one."""
    import towpath

    plugins = entry_points(group="pytest11").select(name="towpath")
    found = [*check(towpath, extras), *check_plugins(plugins)]
    if not plugins:
        found.append("pytest11: no entry point towpath")
    for line in found:
        print(line)
    count = len(list(modules(towpath)))
    print(f"{count} modules with {', '.join(extras) or 'no extra'}: {len(found)} problems")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
