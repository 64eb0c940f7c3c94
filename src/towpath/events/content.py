"""Checks and copies the content of the values that agents yield.

Each function takes the type of the event that will carry the content, and the name that the
content has in the author's call. Both are part of the error.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from towpath.channels import is_id
from towpath.events.types import IllegalEvent
from towpath.json_bounds import MAX_EVENT_DEPTH, nests_deeper


def plain(event_type: str, what: str, value: object) -> Any:
    """Return a copy of a value that consists of JSON types only.

    Takes what msgspec encodes (dataclasses, dates, enumerations, sets, its own structures), and
    models of pydantic.

    Raises:
        IllegalEvent: the value has no JSON encoding, or is too deep for a field of an event.
    """
    copied = msgspec.json.decode(_encoded(event_type, what, value))
    if nests_deeper(copied, MAX_EVENT_DEPTH - 1):
        raise IllegalEvent(event_type, f"{what} nests deeper than {MAX_EVENT_DEPTH - 1} levels")
    return copied


def plain_mapping(event_type: str, what: str, value: object) -> dict[str, Any]:
    """Return a copy of a mapping that consists of JSON types only.

    Raises:
        IllegalEvent: the value is not a mapping, has no JSON encoding, or is too deep.
    """
    if not isinstance(value, Mapping):
        raise IllegalEvent(event_type, f"{what} must be a mapping, not {_type(value)}")
    copied: dict[str, Any] = plain(event_type, what, value)
    return copied


def json_text(event_type: str, what: str, value: object) -> str:
    """Return a value as JSON text on one line, with spaces, because people read it.

    Raises:
        IllegalEvent: the value has no JSON encoding.
    """
    return msgspec.json.format(_encoded(event_type, what, value), indent=0).decode()


def text(event_type: str, what: str, value: object) -> str:
    """Return a text.

    Raises:
        IllegalEvent: the value is not a string, or contains a lone surrogate.
    """
    if not isinstance(value, str):
        raise IllegalEvent(event_type, f"{what} must be a string, not {_type(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise IllegalEvent(event_type, f"{what} must be Unicode text: {error}") from None
    return value


def name(event_type: str, what: str, value: object) -> str:
    """Return a text that is not blank.

    Raises:
        IllegalEvent: the value is not a string, is blank, or contains a lone surrogate.
    """
    checked = text(event_type, what, value)
    if not checked.strip():
        raise IllegalEvent(event_type, f"{what} must not be empty")
    return checked


def chosen_id(event_type: str, value: object) -> str | None:
    """Return an id that the author chose; None if the author chose none.

    Raises:
        IllegalEvent: the id is malformed.
    """
    if value is None or (isinstance(value, str) and is_id(value)):
        return value
    raise IllegalEvent(event_type, "id must be a string of 1 to 128 printable characters")


def _encoded(event_type: str, what: str, value: object) -> bytes:
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise IllegalEvent(event_type, f"{what} must be JSON: {error}") from None


def _to_plain(value: object) -> object:
    """Convert what msgspec does not know: models of pydantic, and mappings other than `dict`."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {_type(value)} has no JSON encoding")


def _type(value: object) -> str:
    return type(value).__name__


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_to_plain)
