"""Application values as JSON: every common Python type has one form, and the rest is refused.

| Python | JSON |
|---|---|
| None, bool, int, float, str | as they are; a float that is not finite becomes null |
| date, time, datetime, timedelta | ISO 8601 text |
| UUID, Decimal, Path, URL-like `os.PathLike` | text |
| Enum | its value |
| bytes, bytearray, memoryview | base64 text |
| mapping | object; see `_key` for its keys |
| list, tuple, set, frozenset, deque | array; a set in the order of its encoded elements |
| dataclass, attrs class, msgspec Struct | object of its fields |
| pydantic model | object, as `model_dump(mode="json")` makes it |
"""

import datetime
import math
import os
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from towpath.errors import TooLarge, TowpathError

MAX_DEPTH: Final = 64
"""How deep a payload may nest: the bound of the wire. A value that contains itself is deeper."""

Plain = dict[str, Any] | list[Any] | str | int | float | bool | None
"""What JSON can express."""


class Unserialisable(TowpathError, TypeError):
    """A value has no form in JSON; the message names its place and its type, never its content."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        """Where the value is, such as `$.items[2].price`."""
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def encode(value: object, max_bytes: int) -> bytes:
    """Return a value as JSON.

    Args:
        value: the value; see the table above.
        max_bytes: the largest payload, in bytes.

    Raises:
        Unserialisable: a part of the value has no form in JSON.
        TooLarge: the payload is larger than `max_bytes`.
    """
    return bounded(plain(value), max_bytes)


def bounded(value: Plain, max_bytes: int) -> bytes:
    """Return a value that is plain already as JSON.

    Raises:
        TooLarge: the payload is larger than `max_bytes`.
    """
    data = msgspec.json.encode(value)
    if len(data) > max_bytes:
        raise TooLarge(f"a payload may have {max_bytes} bytes, this one has {len(data)}")
    return data


def plain(value: object, path: str = "$", depth: int = 0) -> Plain:
    """Return a value in types that JSON can express.

    Raises:
        Unserialisable: a part of the value has no form in JSON.
    """
    if value is None or isinstance(value, bool):
        return value
    if depth > MAX_DEPTH:
        raise Unserialisable(path, f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
    for kinds, convert in _FORMS:
        if isinstance(value, kinds):
            return convert(value, path, depth)
    if isinstance(value, os.PathLike):
        return _text(os.fspath(value), path, depth)
    return _model(value, path, depth)


def _model(value: object, path: str, depth: int) -> Plain:
    """Return the fields of a pydantic model, a dataclass, an attrs class or a msgspec Struct."""
    kind = type(value)
    if callable(getattr(value, "model_dump", None)) and hasattr(kind, "model_fields"):
        return plain(value.model_dump(mode="json"), path, depth + 1)  # type: ignore[attr-defined]
    names = _fields_of(kind)
    if names is None:
        raise Unserialisable(path, f"is a {kind.__qualname__}, which has no form in JSON")
    return {
        name: plain(getattr(value, name), f"{path}.{name}", depth + 1)
        for name in names
        if hasattr(value, name)
    }


def _fields_of(kind: type) -> tuple[str, ...] | None:
    for attribute in ("__struct_fields__", "__dataclass_fields__"):
        if (fields := getattr(kind, attribute, None)) is not None:
            return tuple(fields)
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(one.name for one in attributes)


def _text(value: Any, path: str, _: int) -> str:
    text = str.__str__(value) if isinstance(value, str) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unserialisable(path, "contains half of a surrogate pair") from None
    return text


def _float(value: float, _path: str, _depth: int) -> float | None:
    return float(value) if math.isfinite(value) else None


def _base64(value: bytes | bytearray | memoryview, _path: str, _depth: int) -> Plain:
    encoded: str = msgspec.to_builtins(bytes(value))
    return encoded


def _mapping(value: Mapping[object, object], path: str, depth: int) -> Plain:
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(key, path)
        if name in result:
            raise Unserialisable(path, f"has two keys that are {name[:64]!r} in JSON")
        result[name] = plain(item, f"{path}.{name[:64]}", depth + 1)
    return result


def _key(key: object, path: str) -> str:
    """Return the key of an object: a scalar in its JSON form, without quotation marks."""
    form = plain(key, path)
    if isinstance(form, str):
        return form
    if form is None or isinstance(form, bool | int | float):
        return msgspec.json.encode(form).decode()
    raise Unserialisable(path, f"has a key of type {type(key).__qualname__}, which is no scalar")


def _array(value: Any, path: str, depth: int) -> Plain:
    return [plain(item, f"{path}[{at}]", depth + 1) for at, item in enumerate(value)]


def _set(value: Any, path: str, depth: int) -> Plain:
    items = [plain(item, f"{path}[…]", depth + 1) for item in value]
    return sorted(items, key=msgspec.json.encode)


def _builtin(value: object, _path: str, _depth: int) -> Plain:
    form: Plain = msgspec.to_builtins(value)
    return form


_FORMS: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any, str, int], Plain]], ...]] = (
    (Enum, lambda value, path, depth: plain(value.value, path, depth + 1)),
    (str, _text),
    (int, lambda value, _path, _depth: int(value)),
    (float, _float),
    (Mapping, _mapping),
    ((list, tuple, deque), _array),
    ((set, frozenset), _set),
    ((bytes, bytearray, memoryview), _base64),
    ((datetime.date, datetime.time, datetime.timedelta, UUID, Decimal), _builtin),
)
"""The form of each type, in the order in which the types are compared: an Enum may be a str."""
