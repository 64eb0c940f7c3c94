"""The command line: `serve`, `token`, `revoke`, the commands for the log, and `config check`.

A configuration error is printed as one line on stderr, with exit status 2. A server whose log is
damaged ends with exit status 3, so that its supervisor starts it again: the next start carries the
intact part over into a new log. A server whose log another process has opened since ends with exit
status 4.
"""

import sys
from typing import Annotated, NoReturn

import typer

from towpath.cli import backup
from towpath.cli.check import check
from towpath.cli.serve import serve
from towpath.cli.server import DAMAGED, FENCED
from towpath.cli.tokens import revoke, token
from towpath.errors import ConfigurationError, LogCorrupted, LogFenced
from towpath.node.node import VERSION

app = typer.Typer(
    name="towpath",
    help="The steady path along which AI-agent events reach people.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    serve,
    token,
    revoke,
    backup.backup,
    backup.restore,
    backup.new_epoch,
    backup.check,
):
    app.command()(command)

config = typer.Typer(help="Check the settings.", no_args_is_help=True)
config.command()(check)
app.add_typer(config, name="config")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ConfigurationError as error:
        _refuse(str(error))
    except LogCorrupted as error:
        print(f"towpath: {error}; start again", file=sys.stderr)
        raise SystemExit(DAMAGED) from None
    except LogFenced as error:
        print(f"towpath: {error}", file=sys.stderr)
        raise SystemExit(FENCED) from None


def _refuse(reason: str) -> NoReturn:
    print(f"towpath: {reason}", file=sys.stderr)
    raise SystemExit(2)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """The steady path along which AI-agent events reach people."""
