"""An exception is one condition, and a caller's error carries its wire code."""

from typing import Any

import pytest

from towpath import codes, errors
from towpath.errors import CommandError, ConfigurationError, StorageError, TowpathError


def command_errors() -> list[type[CommandError]]:
    """Return every class whose instances become the error of a reply."""
    found: list[Any] = [value for value in vars(errors).values() if isinstance(value, type)]
    return [kind for kind in found if issubclass(kind, CommandError)]


@pytest.mark.parametrize("kind", command_errors(), ids=lambda kind: kind.__name__)
def test_a_command_error_says_what_its_code_says(kind: type[CommandError]) -> None:
    """Without a sentence of its own an error speaks with that of its code."""
    error = kind()
    assert codes.ERRORS[kind.code.number] is kind.code
    assert error.message == kind.code.message
    assert str(error) == f"{kind.code.number} {kind.code.message}"


def test_a_command_error_may_say_more() -> None:
    """A sentence given is the one the client reads; the code stays."""
    error = errors.Conflict("request_id was used for something else")
    assert error.message == "request_id was used for something else"
    assert str(error) == "409 request_id was used for something else"


def test_an_empty_sentence_is_kept() -> None:
    """Only a missing sentence is replaced."""
    assert errors.BadRequest("").message == ""


@pytest.mark.parametrize("kind", [StorageError, ConfigurationError])
def test_what_is_not_the_callers_fault_has_no_code_of_a_reply(kind: type[TowpathError]) -> None:
    """A fault of ours or of the operator can never be told as an error of the command."""
    assert issubclass(kind, TowpathError)
    assert not issubclass(kind, CommandError)


def test_each_condition_has_a_class_of_its_own() -> None:
    """Two classes never share a code, so a handler knows what it caught."""
    own = [kind.code.number for kind in command_errors() if kind is not CommandError]
    assert len(own) == len(set(own))
