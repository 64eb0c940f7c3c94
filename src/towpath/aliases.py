"""Retired public Python names: one table, and what keeps each old name working until it is removed.

An old name is the same object as the name that replaced it. Using it gives a DeprecationWarning at
the caller's line, once per place. A module that moved is imported under its old path through an
import hook, so the package holds no module twice.

Type checkers do not run the table. They report a retired method as deprecated (PEP 702) where the
class declares it as a `RetiredMethod`. PEP 702 has no form for a module or for another name of a
class, so type checkers do not know the other rows.
"""

import functools
import itertools
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import deprecated

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """One retired name."""

    name: str
    """The dotted path that users imported: of a module, or of a name in a module or class."""
    replacement: str
    """The dotted path of the same object today."""
    since: str
    """The version that introduced the replacement."""
    removed_in: str
    """The version that drops the old name."""

    def __str__(self) -> str:
        return (
            f"{self.name} is {self.replacement} since {self.since}; "
            f"the old name is removed in {self.removed_in}"
        )


def _retired(name: str, replacement: str) -> Alias:
    return Alias(name=name, replacement=replacement, since="0.1.0", removed_in="0.3.0")


ALIASES = (
    _retired("towpath.Gateway.watch", "towpath.Gateway.add_observer"),
    _retired(
        "towpath.UnifiedAuthenticationService.hear", "towpath.UnifiedAuthenticationService.apply"
    ),
    _retired(
        "towpath.WebSocketManager.add_connection_by_user", "towpath.WebSocketManager.add_connection"
    ),
    _retired("towpath.WebSocketManager.broadcast_message", "towpath.WebSocketManager.broadcast"),
    _retired(
        "towpath.WebSocketManager.handle_disconnection",
        "towpath.WebSocketManager.remove_connection",
    ),
    _retired(
        "towpath.WebSocketManager.remove_connection_by_user",
        "towpath.WebSocketManager.disconnect_user",
    ),
    _retired("towpath.agents.bridge.AgentWebSocketBridge", "towpath.AgentWebSocketBridge"),
    _retired("towpath.agents.registry", "towpath.agents.agent"),
    _retired("towpath.agents.run.AgentError", "towpath.AgentError"),
    _retired("towpath.auth.websocket.UnifiedWebSocketAuth", "towpath.UnifiedWebSocketAuth"),
    _retired("towpath.context", "towpath.identity"),
    _retired("towpath.hooks", "towpath.telemetry"),
    _retired("towpath.hooks.Fault", "towpath.telemetry.InternalError"),
    _retired("towpath.hooks.Happening", "towpath.telemetry.TelemetryEvent"),
    _retired("towpath.hooks.Hooks", "towpath.telemetry.Telemetry"),
    _retired("towpath.hooks.Watcher", "towpath.telemetry.Observer"),
    _retired("towpath.server.gateway", "towpath.gateway"),
    _retired("towpath.server.settings", "towpath.settings"),
    _retired("towpath.testing.client", "towpath.testing.wire_client"),
    _retired("towpath.testing.provider", "towpath.testing.oidc_provider"),
)
"""Every retired name that the documentation told users to import or to call."""

BY_NAME = {alias.name: alias for alias in ALIASES}


def _modules_in(path: str) -> Iterator[str]:
    """Yield the modules of a dotted path, below `towpath`: the parts in lower case."""
    parts = list(itertools.takewhile(str.islower, path.split(".")))
    for end in range(2, len(parts) + 1):
        yield ".".join(parts[:end])


_MODULES = frozenset(module for name in BY_NAME for module in _modules_in(name))


def retired(module: str, name: str) -> object:
    """Return the object of a retired name of a module, with a warning; for PEP 562.

    Raises:
        AttributeError: the module never had such a name.
    """
    alias = _alias_of(module, name)
    if alias is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    found: object = pkgutil.resolve_name(alias.replacement)
    _warn(alias)
    return found


def _alias_of(module: str, name: str) -> Alias | None:
    """Return the row of a name; without one, a row made from the row of its module."""
    if name.startswith("_"):
        return None
    path = f"{module}.{name}"
    moved = BY_NAME.get(module)
    if path in BY_NAME or moved is None:
        return BY_NAME.get(path)
    return Alias(
        name=path,
        replacement=f"{moved.replacement}.{name}",
        since=moved.since,
        removed_in=moved.removed_in,
    )


def _warn(alias: Alias) -> None:
    """Warn at the line that used the old name."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in ("towpath", __name__):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") == "importlib._bootstrap":
        return  # `from package import name` makes two lookups; the second one is from its own line.
    warnings.warn_explicit(
        str(alias),
        DeprecationWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


class RetiredMethod(Generic[S, P, R]):
    """A descriptor for a retired method; it returns the method that replaced it.

    The class declares it below that method, as `watch = RetiredMethod(add_observer)`. The type is
    that of the replacement, and type checkers report each use as deprecated.
    """

    def __init__(
        self, replacement: Callable[Concatenate[S, P], R], alias: Alias | None = None
    ) -> None:
        self.replacement = replacement.__name__
        """The name of the method in the class."""
        self.alias = alias
        """The row of the table; `retired_methods` sets it."""

    if TYPE_CHECKING:

        @overload
        @deprecated("retired: docs/reference/retired-names.md names the replacement")
        def __get__(self, instance: None, owner: type[S]) -> Callable[Concatenate[S, P], R]: ...
        @overload
        @deprecated("retired: docs/reference/retired-names.md names the replacement")
        def __get__(self, instance: S, owner: type[S]) -> Callable[P, R]: ...

    def __get__(self, instance: object, owner: type) -> object:
        assert self.alias is not None, "the class has the decorator `retired_methods`"
        _warn(self.alias)
        return getattr(owner if instance is None else instance, self.replacement)


def retired_methods(path: str) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that adds the retired methods of the class at a public path.

    Each row of the table below the path becomes a method, whether the class declares it or not.

    Raises:
        TypeError: the class declares a `RetiredMethod` that the table does not have.
    """

    def add(owner: type[T]) -> type[T]:
        for alias in ALIASES:
            parent, _, name = alias.name.rpartition(".")
            if parent == path:
                replacement = getattr(owner, alias.replacement.rpartition(".")[2])
                _check_declared(owner, name, replacement.__name__)
                setattr(owner, name, RetiredMethod(replacement, alias))
        for name, value in vars(owner).items():
            if isinstance(value, RetiredMethod) and value.alias is None:
                raise TypeError(f"{path}.{name} has no row in {__name__}.ALIASES")
        return owner

    return add


def _check_declared(owner: type, name: str, replacement: str) -> None:
    """Compare what a class declares under a retired name with the row of the table.

    Raises:
        TypeError: the declaration names another method, or the name is in use.
    """
    declared = vars(owner).get(name)
    if declared is None:
        return
    if not isinstance(declared, RetiredMethod) or declared.replacement != replacement:
        raise TypeError(f"{owner.__name__}.{name} is not declared as RetiredMethod({replacement})")


class RetiredModules(MetaPathFinder, Loader):
    """Imports modules under their old paths; Python calls it if no file has the path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of a module that holds a retired name; else None."""
        if fullname not in _MODULES:
            return None
        is_package = any(name.startswith(f"{fullname}.") for name in _MODULES)
        return ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a module that looks its names up in the table."""
        module = ModuleType(spec.name, f"Retired: see {__name__}.")
        module.__dict__["__getattr__"] = functools.partial(retired, spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module has no code."""


def install() -> None:
    """Make retired modules importable; called when `towpath` is imported."""
    if not any(isinstance(finder, RetiredModules) for finder in sys.meta_path):
        sys.meta_path.append(RetiredModules())
