"""`towpath backup`, `restore`, `new-epoch` and `check`: the log of a data directory."""

from pathlib import Path
from typing import Annotated

import typer

from towpath.cli.options import Data
from towpath.log.sqlite import backup as log
from towpath.log.sqlite.file_schema import DATABASE_NAME
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.settings import settings_from_environment

UNSOUND = 1
"""The exit status of a check that found damage."""


def backup(
    file: Annotated[Path, typer.Argument(help="The file that is written.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    data: Data = None,
) -> None:
    """Write a checked copy of the log into a file; a server may run meanwhile."""
    size = log.back_up(_database(data), file, ThreadProjection(), force=force)
    print(f"{file}: {size:,} bytes, checked")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `towpath backup` wrote.")],
    data: Data = None,
) -> None:
    """Put a copy in the place of the log, with a new epoch; no server may run."""
    database = _database(data)
    aside = log.restore(file, database, ThreadProjection())
    replaced = f"; the replaced log is {aside}" if aside is not None else ""
    print(f"{database} is restored from {file}{replaced}")


def new_epoch(data: Data = None) -> None:
    """Make all positions of clients invalid, after the data directory was rolled back."""
    log.ask_for_new_epoch(_database(data))
    print("the next start gives the log a new epoch")


def check(data: Data = None) -> None:
    """Check the whole log; a server may run meanwhile."""
    findings = log.check(_database(data), ThreadProjection())
    print(f"pages: {findings.pages or 'sound'}")
    print(f"rows: {findings.rows or 'sound'}")
    if findings.damage is not None:
        raise SystemExit(UNSOUND)


def _database(data: Path | None) -> Path:
    return settings_from_environment(data).data / DATABASE_NAME
