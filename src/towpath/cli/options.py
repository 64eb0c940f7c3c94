"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from towpath.errors import ConfigurationError

Data = Annotated[Path | None, typer.Option(help="Data directory; default .towpath/")]


def choice_of(option: str, given: str, choices: tuple[str, ...]) -> str:
    """Return the choice that was given, ignoring case.

    Raises:
        ConfigurationError: it is not one of the choices.
    """
    for choice in choices:
        if given.casefold() == choice.casefold():
            return choice
    raise ConfigurationError(f"{option} {given}: use one of {', '.join(choices)}")
