"""Repeated requests: a request id takes effect once, and a repetition gets the first result.

The log stores the encoded result under the request's key, in the same write as the change.

Source: WIRE section 7.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import msgspec
from msgspec import Struct

from towpath.log.broker import Broker, IdempotencyKey, Position, Span, Write, write

R = TypeVar("R", bound=Struct)


class StoredPosition(Struct, frozen=True):
    """The result of a write that publishes: the position of its last publication."""

    epoch: str
    offset: int

    @classmethod
    def encoded(cls, spans: Sequence[Span]) -> bytes:
        """Return the result of a write with these spans; see `Write.result`."""
        return msgspec.json.encode(cls(spans[-1].epoch, spans[-1].last))

    @property
    def position(self) -> Position:
        """The position: a reader that is after it has the publication."""
        return Position(self.epoch, self.offset)


def storing(result: Struct, key: IdempotencyKey | None, change: Write | None = None) -> Write:
    """Return a write that also stores a result under a key; without `change`, only the result."""
    encoded = msgspec.json.encode(result)
    return replace(change or Write(), key=key, result=lambda _: encoded)


async def stored_result(broker: Broker, key: IdempotencyKey, kind: type[R]) -> R | None:
    """Return the result that is stored under a key; None if the key is new.

    Raises:
        Conflict: the request id was used with other parameters.
        StorageError: the log cannot be read now.
    """
    stored = await broker.stored_result(key)
    return None if stored is None else msgspec.json.decode(stored, type=kind)


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
