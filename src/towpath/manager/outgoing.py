"""Events that the application sends to a person or a tenant: durable first, then delivered.

Each event is an AG-UI CUSTOM event on the channel `user` or `tenant`. Source: WIRE sections 5, 6.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from towpath.channels import Channel, is_id
from towpath.errors import BadRequest, StorageError
from towpath.identity import Principal
from towpath.log.broker import Append, IdempotencyKey, Item, Position, Write, write
from towpath.log.idempotency import last_position
from towpath.manager import payloads
from towpath.manager.results import Delivered, Queued, Refused, SendResult
from towpath.methods.notices import RESERVED
from towpath.node.node import Node
from towpath.runs.model import RunIsOver

KEYED: Final = "manager.send"
"""The method under which idempotency keys of the application are stored."""


def custom_event(name: str, value: object, max_bytes: int) -> bytes:
    """Return a CUSTOM event of the application as JSON.

    Raises:
        BadRequest: the name is invalid, or one of the gateway's own.
        Unserialisable: a part of the value has no form in JSON.
        TooLarge: the event is larger than `max_bytes`.
    """
    check_name(name)
    return payloads.encode({"type": "CUSTOM", "name": name, "value": value}, max_bytes)


def check_name(name: str) -> None:
    """Check the name of an event of the application.

    Raises:
        BadRequest: the name is invalid, or one of the gateway's own.
    """
    if not isinstance(name, str) or not is_id(name):
        raise BadRequest("the name of an event has 1 to 128 printable characters")
    if name.startswith(RESERVED):
        raise BadRequest(f"names that begin with {RESERVED} are the gateway's own")


async def publish(
    node: Node,
    channel: Channel,
    event: bytes,
    *,
    user: str = "",
    thread: str | None = None,
    key: str | None = None,
) -> SendResult:
    """Write an event to a channel, and report who receives it now.

    Args:
        node: the node of the caller.
        channel: the channel of a person or of a tenant.
        event: the event as JSON.
        user: the person; empty for the tenant's channel.
        thread: the thread that the event is about, as its tag `thread`.
        key: the same key with the same event takes effect once, for a day.

    Raises:
        Conflict: the key was used with another event.
    """
    tags = {} if thread is None else {"thread": thread}
    append = Append(channel, (Item(event, tags),))
    request = None if key is None else request_key(channel.tenant, user, key, event)
    change = Write((append,), key=request)
    try:
        written = await write(node.parts.broker, change)
    except StorageError:
        return Refused("storage")
    return _result(node, channel, last_position(written))


async def publish_in_run(
    node: Node,
    principal: Principal,
    run: str,
    event_type: str,
    data: Mapping[str, Any],
    *,
    key: str | None = None,
) -> SendResult:
    """Publish an event in a run of a person.

    Args:
        node: the node of the caller.
        principal: the person.
        run: the run.
        event_type: see `towpath.runs.golden`.
        data: the fields of the event.
        key: the same key with the same event takes effect once.

    Raises:
        IllegalEvent: the event is malformed, larger than `event_bytes`, or not legal now; the run
            goes on.
        Unserialisable, TooLarge: a field has no form in JSON, or the event is too large.
        BadRequest, Conflict: the key is malformed, or was used with another event.
    """
    event = payloads.plain([event_type, data])
    assert isinstance(event, list), "a list stays one"
    encoded = payloads.bounded(event, node.parts.settings.message_bytes)
    request = None if key is None else request_key(principal.tenant, principal.user, key, encoded)
    try:
        pushes = node.runs.pushes(principal, run)
        if pushes is None:
            return await _published_before(node, principal, run, request)
        position = await pushes.push(event_type, event[1], request)
        return _result(node, pushes.channel, position)
    except RunIsOver:
        return Refused("run_over")
    except StorageError:
        return Refused("storage")


async def _published_before(
    node: Node, principal: Principal, run: str, request: IdempotencyKey | None
) -> SendResult:
    """Return the result for a run that is not in progress: an earlier push with the same key."""
    record = await node.parts.store.find_run(principal.tenant, principal.user, run)
    if record is None:
        return Refused("no_run")
    if request is not None:
        sent = await node.parts.broker.stored_result(request)
        if sent is not None:
            return _result(node, record.key.channel, last_position(sent))
    return Refused("no_run" if record.ended_at is None else "run_over")


def _result(node: Node, channel: Channel, position: Position) -> Delivered | Queued:
    """Return who receives a channel now, for a publication at this position."""
    connections = len(node.parts.hub.live_readers(channel))
    return Delivered(position, connections) if connections else Queued(position)


def request_key(tenant: str, user: str, key: str, content: bytes) -> IdempotencyKey:
    """Return the idempotency key of the application's key.

    Raises:
        BadRequest: the key is malformed.
    """
    if not is_id(key):
        raise BadRequest("a key has 1 to 128 printable characters")
    return IdempotencyKey((tenant, user, KEYED), key, hashlib.sha256(content).hexdigest())
