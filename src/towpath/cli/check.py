"""`towpath config check`: the settings in force, and what would prevent a start."""

import sys

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from towpath.agents.assistant.choice import model_endpoint
from towpath.cli.options import Data
from towpath.errors import ConfigurationError
from towpath.node.issuers import problems
from towpath.settings import Settings, settings_from_environment


def check(data: Data = None) -> None:
    """Print the settings in force, with masked secrets, and what would prevent a start."""
    settings = settings_from_environment(data)
    _print_table(settings)
    found = _problems(settings)
    for problem in found:
        print(f"towpath: would refuse to start: {problem}", file=sys.stderr)
    if found:
        raise SystemExit(2)
    print("towpath serve would start with this")


def _print_table(settings: Settings) -> None:
    """Print each setting with its value and where the value comes from."""
    table = Table("setting", "value", "from", box=None)
    for name in Settings.model_fields:
        origin = "environment" if name in settings.model_fields_set else "default"
        table.add_row(name, escape(_shown(getattr(settings, name))), origin)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _problems(settings: Settings) -> list[str]:
    """Return why `towpath serve` without `--dev` would not start."""
    found = list(problems(settings))
    try:
        model_endpoint(settings)
    except ConfigurationError as error:
        found.append(str(error))
    return found


def _shown(value: object) -> str:
    """Return a setting as one line, with asterisks in place of a secret."""
    if isinstance(value, tuple | frozenset):
        return ", ".join(sorted(map(_shown, value))) or "none"
    if isinstance(value, BaseModel):
        fields = value.model_dump(exclude_unset=True)
        return " ".join(f"{name}={_shown(one)}" for name, one in fields.items())
    return "not set" if value is None else str(value)
