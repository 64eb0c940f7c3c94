"""The connections of the people that a manager reaches: take over sockets, look up, end."""

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketState

from towpath import codes
from towpath.auth.handshake import UpgradeInfo
from towpath.channels import Channel, is_id, thread_channel
from towpath.codes import CloseCode
from towpath.connections.asgi import AsgiTransport
from towpath.connections.client_connection import ClientConnection
from towpath.delivery.subscriber import Subscriber
from towpath.errors import BadRequest
from towpath.http.sockets import accept
from towpath.identity import Principal
from towpath.manager.results import (
    ConnectionEnded,
    ConnectionHealth,
    ConnectionInfo,
    Refused,
)
from towpath.manager.view import View
from towpath.node.node import Node, Phase

WAIT_SECONDS = 3.0
"""How long `send_to_user_with_wait` and `wait_for_connection` wait by default."""


class Connections(View):
    """The connections of one person, or of the people of one tenant."""

    __slots__ = ()

    # Sockets.

    async def connect_user(
        self, user_id: str, websocket: WebSocket, *, connection_id: str | None = None
    ) -> ConnectionEnded | Refused:
        """Take over a socket that the application authenticated itself, and serve it to its end.

        The client speaks the same protocol as at `/connection/websocket`; no credential of the
        client is used. The socket may be accepted already. If it is not, its origin and its
        sub-protocol are checked as there.

        Args:
            user_id: the person whom the application authenticated.
            websocket: the socket, from which nothing was read.
            connection_id: the id of the connection; None makes one.

        Returns:
            How the connection ended; `Refused("unavailable")` if the gateway accepts none now, and
            `Refused("upgrade")` if the upgrade was refused with an HTTP status.

        Raises:
            ForeignUser: the manager is bound to another person; the socket is not touched.
            Conflict: a connection with this id is open.
            BadRequest: the id is malformed.
            NotRunning, WrongLoop: no gateway runs here, or not on this event loop.
        """
        user, node = self._user(user_id), self._node()
        connection = await self._open(node, user, websocket, connection_id)
        if isinstance(connection, Refused):
            return connection
        await node.serve(connection)
        return _ended(connection)

    async def add_connection(
        self, user_id: str, websocket: WebSocket, *, connection_id: str | None = None
    ) -> str | Refused:
        """Take over a socket as `connect_user` does, and serve it in the background.

        The endpoint must not return before the connection is over: await `handle_connection`.

        Returns:
            The id of the connection, or `Refused` as `connect_user`.
        """
        user, node = self._user(user_id), self._node()
        connection = await self._open(node, user, websocket, connection_id)
        if isinstance(connection, Refused):
            return connection
        node.tasks.create_task(node.serve(connection), name=f"connection {connection.id}")
        return connection.id

    async def handle_connection(self, connection_id: str) -> ConnectionEnded | None:
        """Wait until a connection is over; None if there is none of this id."""
        connection = self._connection(connection_id)
        if connection is None:
            return None
        await connection.over.wait()
        return _ended(connection)

    async def remove_connection(
        self, connection_id: str, *, code: int = codes.FORCED.number, reason: str | None = None
    ) -> bool:
        """End one connection, and wait until it is cleaned up.

        Args:
            connection_id: the connection.
            code: the close code; see `disconnect_user`.
            reason: the reason in the close frame; None takes that of the code.

        Returns:
            False if there is no such connection.
        """
        close_code = _close_code(code, reason)
        connection = self._connection(connection_id)
        if connection is None:
            return False
        connection.end(close_code)
        await connection.over.wait()
        return True

    async def disconnect_user(
        self, user_id: str, *, code: int = codes.FORCED.number, reason: str | None = None
    ) -> int:
        """End every connection of a person on this node; return how many there were.

        Args:
            user_id: the person.
            code: the close code, 3000 to 4999. Clients come back by themselves unless it is 3500
                to 3999 or 4500 to 4999; 3503 is the default.
            reason: the reason in the close frame, 1 to 123 bytes that are no JSON; None takes that
                of the code, which must then be one of the gateway's.

        Raises:
            BadRequest: the code or the reason is invalid.
        """
        close_code = _close_code(code, reason)
        ended = self._subscribers(user_id)
        for subscriber in ended:
            subscriber.close(close_code)
        return len(ended)

    # Lookups.

    def get_connection(self, connection_id: str) -> ConnectionInfo | None:
        """Return a live connection; None if there is none of this id that the manager reaches."""
        found = self._subscriber(connection_id)
        return _info(found) if found is not None else None

    def get_user_connections(self, user_id: str) -> list[ConnectionInfo]:
        """Return the live connections of a person on this node, the oldest first."""
        return [_info(one) for one in self._subscribers(user_id)]

    def find_connection(
        self, user_id: str, *, thread_id: str | None = None
    ) -> ConnectionInfo | None:
        """Return the newest live connection of a person, of those that show a thread.

        Args:
            user_id: the person.
            thread_id: a thread that the connection reads, or that was noted for it with
                `update_connection_thread`; None takes any connection.
        """
        found = self._subscribers(user_id)
        if thread_id is not None:
            channel = thread_channel(self.tenant, self._user(user_id), thread_id)
            found = [one for one in found if _shows(one, channel)]
        return _info(found[-1]) if found else None

    def get_connection_id_by_websocket(self, websocket: WebSocket) -> str | None:
        """Return the id of the connection that a socket serves; None if it serves none."""
        for one in self._node().connections:
            if isinstance(one, ClientConnection) and one.ended is None:
                transport = one.transport
                if isinstance(transport, AsgiTransport) and transport.websocket is websocket:
                    return one.id if self._reaches(one.principal) else None
        return None

    def get_connection_count(self, user_id: str | None = None) -> int:
        """Return how many live connections a person has; without one, all that are reached."""
        if user_id is not None or self.context is not None:
            return len(self._subscribers(user_id))
        return sum(self._reaches(one.principal) for one in self._node().parts.hub.everyone())

    def is_connection_active(self, connection_id: str) -> bool:
        """Whether this connection is live, and the manager reaches it."""
        return self._subscriber(connection_id) is not None

    def is_user_connected(self, user_id: str) -> bool:
        """Whether a person has a live connection on this node."""
        return bool(self._subscribers(user_id))

    def get_connection_health(self, user_id: str) -> ConnectionHealth:
        """Return how the live connections of a person take what they are sent."""
        found = self._subscribers(user_id)
        return ConnectionHealth(
            connections=len(found),
            waiting_bytes=sum(one.outbox.level for one in found),
            behind=sum(bool(one.behind) or one.outbox.behind for one in found),
        )

    async def wait_for_connection(self, user_id: str, timeout: float = WAIT_SECONDS) -> bool:
        """Wait until a person has a live connection; return False after `timeout` seconds."""
        user, hub = self._user(user_id), self._node().parts.hub
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await hub.wait_for(self.tenant, user, lambda: self.is_user_connected(user))
        return self.is_user_connected(user)

    def update_connection_thread(self, connection_id: str, thread_id: str | None) -> bool:
        """Note which thread a connection shows, for lookups; return False if it is not live.

        What the connection reads does not change: clients subscribe to threads themselves.
        """
        found = self._subscriber(connection_id)
        if found is None:
            return False
        found.thread = thread_id
        return True

    # What the methods above share.

    async def _open(
        self, node: Node, user: str, websocket: WebSocket, connection_id: str | None
    ) -> ClientConnection | Refused:
        """Accept a socket, if it is not accepted yet, and return its connection.

        Raises:
            BadRequest: the id of the connection is malformed.
            Conflict: a connection with this id is open.
        """
        if connection_id is not None and not is_id(connection_id):
            raise BadRequest("the id of a connection has 1 to 128 printable characters")
        if node.phase is not Phase.READY:
            return Refused("unavailable")
        node.check_connection_id(connection_id)
        if websocket.application_state is WebSocketState.CONNECTED:
            upgrade: UpgradeInfo | None = UpgradeInfo()
        else:
            upgrade = await accept(websocket, node)
        if upgrade is None:
            return Refused("upgrade")
        return node.open(
            AsgiTransport(websocket),
            upgrade,
            principal=self._principal(user),
            connection_id=connection_id,
        )

    def _subscribers(self, user_id: str | None) -> list[Subscriber]:
        """Return the live connections of a person, the oldest first."""
        found = self._node().parts.hub.subscribers(self.tenant, self._user(user_id))
        return [one for one in found if one.alive]

    def _subscriber(self, connection_id: str) -> Subscriber | None:
        found = self._node().parts.hub.find(connection_id)
        return found if found is not None and self._reaches(found.principal) else None

    def _connection(self, connection_id: str) -> ClientConnection | None:
        """Return a WebSocket connection that the manager reaches."""
        found = self._node().connection(connection_id)
        return found if found is not None and self._reaches(found.principal) else None

    def _reaches(self, who: Principal | None) -> bool:
        """Whether the manager reaches this person."""
        if who is None or who.tenant != self.tenant:
            return False
        return self.context is None or who.user == self.context.user


def _ended(connection: ClientConnection) -> ConnectionEnded:
    code = connection.ended
    return ConnectionEnded(
        id=connection.id,
        code=code.number if code is not None else 1005,
        reason=code.reason if code is not None else "the client left",
    )


def _close_code(number: int, reason: str | None) -> CloseCode:
    """Return a close code of the gateway or of the application.

    Raises:
        BadRequest: the number or the reason is invalid.
    """
    known = codes.CLOSES.get(number)
    if reason is None and known is not None:
        return known
    if not 3000 <= number <= 4999 or reason is None:
        raise BadRequest("a close code is one of the gateway's, or 3000 to 4999 with a reason")
    try:
        return codes.application_close(number, reason)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _shows(subscriber: Subscriber, channel: Channel) -> bool:
    return channel in subscriber.subscriptions or subscriber.thread == channel.thread


def _info(subscriber: Subscriber) -> ConnectionInfo:
    who = subscriber.principal
    return ConnectionInfo(
        id=subscriber.id,
        user=who.user,
        tenant=who.tenant,
        channels=tuple(sorted(channel.visible for channel in subscriber.subscriptions)),
        thread=subscriber.thread,
        waiting_bytes=subscriber.outbox.level,
        expires_at=who.expires_at,
    )
