"""Imports the gateway of `--app module:name`; an error says where the gateway was looked for.

Only its author can fix an exception of the imported module. So the message names the file, and the
last line in it that was reached; it omits the frames of the import machinery.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from towpath.errors import ConfigurationError
from towpath.gateway import Gateway

INSTALLED = ("site-packages", "dist-packages")
"""Directories whose files are not the operator's own."""


def load_gateway(path: str) -> Gateway:
    """Import a gateway named as module:name, looking in the current directory first.

    Raises:
        ConfigurationError: there is no such gateway; the message says where it was looked for.
    """
    module_name, _, name = path.partition(":")
    if not module_name or module_name.startswith("."):
        raise ConfigurationError(f"--app {path}: name your gateway as module:name")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 # It is the operator's code.
        raise ConfigurationError(f"--app {path}: {_import_failure(module_name, error)}") from None
    return _gateway_in(module, name or "gateway", path)


def _gateway_in(module: ModuleType, name: str, path: str) -> Gateway:
    """Return the gateway of this name in a module.

    Raises:
        ConfigurationError: the module has no gateway of this name.
    """
    where = f"{module.__name__} ({module.__file__ or 'a built-in module'})"
    if not hasattr(module, name):
        raise ConfigurationError(f"--app {path}: {where} has no {name}{_shadowed(module)}")
    found = getattr(module, name)
    if not isinstance(found, Gateway):
        kind = type(found).__name__
        raise ConfigurationError(
            f"--app {path}: {name} of {where} is a {kind}, not a Gateway{_shadowed(module)}"
        )
    return found


def _shadowed(module: ModuleType) -> str:
    """Return which file in the current directory was meant, if another module has its name."""
    own = Path.cwd().joinpath(*module.__name__.split("."))
    for meant in (own.with_suffix(".py"), own / "__init__.py"):
        if meant.exists() and module.__file__ and not meant.samefile(module.__file__):
            return f"; it hides your {meant}: rename your file"
    return ""


def _import_failure(module_name: str, error: BaseException) -> str:
    """Return what went wrong while a module was imported, and where."""
    if isinstance(error, ModuleNotFoundError) and error.name and _is_part(error.name, module_name):
        return f"there is no module {error.name} in {os.getcwd()} or among the installed ones"
    if isinstance(error, SystemExit):
        return f"{module_name} exits when it is imported ({error.code!r}){_place(error)}"
    what = " ".join(traceback.format_exception_only(error)[-1].split())
    found = _file_of(module_name)
    return f"{module_name} ({found}) cannot be imported: {what}{_place(error)}"


def _is_part(name: str, module_name: str) -> bool:
    """Whether a name is that of the module, or of a package it is in."""
    return f"{module_name}.".startswith(f"{name}.")


def _file_of(module_name: str) -> str:
    """Return the file in which a module was looked for."""
    try:
        spec = importlib.util.find_spec(module_name)
    except Exception:  # noqa: BLE001 # Its package cannot be imported either.
        return "its package cannot be imported"
    return str(spec.origin) if spec is not None else "no file"


def _place(error: BaseException) -> str:
    """Return the last line reached in the operator's own files; empty without such a line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f", in line {error.lineno} of {error.filename}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_own(frame.filename):
            return f", in line {frame.lineno} of {frame.filename}"
    return ""


def _is_own(filename: str) -> bool:
    """Whether a file is the operator's: no part of Python, of an installed package or of ours."""
    path = Path(filename)
    ours = Path(__file__).parents[1]
    library = Path(os.__file__).parent
    return (
        path.is_absolute()
        and not set(INSTALLED) & set(path.parts)
        and not path.is_relative_to(ours)
        and not path.is_relative_to(library)
    )
