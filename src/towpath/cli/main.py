"""The command line: `serve`, `token`, `revoke` and `config check`.

A configuration error is printed as one line on stderr, with exit status 2. A server whose log is
damaged ends with exit status 3, so that its supervisor starts it again: the next start checks the
whole log, and sets it aside if it is damaged. A server whose log another process has opened since
ends with exit status 4.
"""

import sys
from typing import Annotated, NoReturn

import typer

from towpath.cli.check import check
from towpath.cli.serve import serve
from towpath.cli.server import DAMAGED
from towpath.cli.tokens import revoke, token
from towpath.errors import ConfigurationError, LogCorrupted
from towpath.node.node import VERSION

app = typer.Typer(
    name="towpath",
    help="The steady path along which AI-agent events reach people.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (serve, token, revoke):
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
