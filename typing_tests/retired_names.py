"""Retired names: a type checker reports what PEP 702 can express, and knows no other old name.

`tests/test_aliases.py` checks that each retired method of the table stands here.
"""

from starlette.websockets import WebSocket

import towpath
from towpath import Gateway, UnifiedAuthenticationService, WebSocketManager
from towpath.auth.revocations import Revocation


def methods(service: UnifiedAuthenticationService, revocation: Revocation) -> None:
    """Each of them still has the type of its replacement."""
    service.hear(revocation)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
    service.hear(5)  # type: ignore[arg-type, deprecated]  # pyright: ignore[reportDeprecated, reportArgumentType]
    repr(UnifiedAuthenticationService.hear)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]


def observers(gateway: Gateway) -> None:
    """A retired method may take a function of the user's."""
    gateway.watch(print)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]


async def manager(one: WebSocketManager, socket: WebSocket) -> None:
    """A coroutine function is awaited as before."""
    await one.broadcast_message({}, name="news")  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
    await one.add_connection_by_user("alice", socket)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
    await one.remove_connection_by_user("alice")  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
    await one.handle_disconnection("c", code=3503)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
    await one.broadcast_message()  # type: ignore[call-arg, deprecated]  # pyright: ignore[reportDeprecated, reportCallIssue]


def names() -> None:
    """The old place of a name is unknown, and so is a name that never was."""
    repr(towpath.hooks)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    repr(towpath.Gatewey)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
