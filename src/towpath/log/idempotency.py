"""Repeated requests: a request id takes effect once, and a repetition gets the first result.

The log stores the encoded result under the request's key, in the same write as the change.

Source: WIRE section 7.
"""

from dataclasses import replace
from typing import TypeVar

import msgspec
from msgspec import Struct

from towpath.log.broker import Broker, IdempotencyKey, Position, Write, Written, write

R = TypeVar("R", bound=Struct)


class _StoredPosition(Struct, frozen=True):
    """What earlier versions stored as the result of a write that publishes."""

    epoch: str
    offset: int


def last_position(written: Written) -> Position:
    """Return the position of the last publication of a write: a reader that is after it has it.

    Args:
        written: the result of a write with one append.
    """
    if written.spans:
        return Position(written.spans[-1].epoch, written.spans[-1].last)
    stored = msgspec.json.decode(written.result, type=_StoredPosition)
    return Position(stored.epoch, stored.offset)


def storing(result: Struct, key: IdempotencyKey | None, change: Write | None = None) -> Write:
    """Return a write that also stores a result under a key; without `change`, only the result."""
    return replace(change or Write(), key=key, result=msgspec.json.encode(result))


async def stored_result(broker: Broker, key: IdempotencyKey, kind: type[R]) -> R | None:
    """Return the result that is stored under a key; None if the key is new.

    Raises:
        Conflict: the request id was used with other parameters.
        StorageError: the log cannot be read now.
    """
    stored = await broker.stored_result(key)
    return None if stored is None else msgspec.json.decode(stored.result, type=kind)


async def write_once(
    broker: Broker, key: IdempotencyKey | None, result: R, change: Write | None = None
) -> R:
    """Write a change and its result under a key; return the result that is stored there.

    A key that was used before changes nothing: the result is the first one.

    Raises:
        CommandError: the projection refused the change, or the key was used with other parameters.
        StorageError: nothing was written.
    """
    written = await write(broker, storing(result, key, change))
    return msgspec.json.decode(written.result, type=type(result)) if written.repeated else result
