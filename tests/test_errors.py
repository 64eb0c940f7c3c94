"""An exception is one condition, and a caller's error carries its wire code."""

from typing import Any

import pytest

from towpath import codes, errors
from towpath.errors import CommandError, ConfigurationError, StorageError, TowpathError


def all_command_errors() -> list[type[CommandError]]:
    """Return every class whose instances become the error of a reply."""
    found: list[Any] = [value for value in vars(errors).values() if isinstance(value, type)]
    return [kind for kind in found if issubclass(kind, CommandError)]


def command_errors() -> list[type[CommandError]]:
    """Return the classes of one condition each, without the special cases of a condition."""
    return [one for one in all_command_errors() if {one, one.__base__} & {CommandError}]


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


def test_a_special_case_of_a_condition_has_its_code() -> None:
    """A client that handles the condition handles the special case too."""
    special = set(all_command_errors()) - set(command_errors())
    assert special == {errors.RowDamaged}
    for kind in special:
        assert kind.code is kind.__base__.code  # type: ignore[union-attr]


def test_a_damaged_row_is_not_found_and_named() -> None:
    """The client gets 404 and a sentence about damage; the operator gets the table."""
    error = errors.RowDamaged("messages")
    assert isinstance(error, errors.NotFound)
    assert str(error) == "404 what is stored of this is damaged and cannot be read"
    assert error.table == "messages"
