"""The application's hand on delivery: reach a person, or a tenant, from any line of code.

A `WebSocketManager` is a view. It holds an identity and knows where the node is, and owns neither
sockets nor tasks: making one is cheap, and dropping one changes nothing. *Active*, *connected* and
*delivered* mean a live connection of the right person, looked up when the method is called.

A manager is bound either to a `UserExecutionContext`, and then reaches that person only, or to a
tenant, and then reaches everybody in it. It never reaches another tenant. A user id inside of a
message is data: it is not read, and routes nothing.

Every coroutine runs on the event loop of the gateway; other threads use `gateway.portal`.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from towpath.aliases import RetiredMethod, retired_methods
from towpath.channels import tenant_channel, user_channel
from towpath.errors import BadRequest, NotFound
from towpath.identity import UserExecutionContext
from towpath.log.broker import Position, Write, write
from towpath.manager import outgoing, payloads
from towpath.manager.connections import WAIT_SECONDS, Connections
from towpath.manager.jobs import JobEvents
from towpath.manager.results import RecoveredMessages, Refused, SendResult
from towpath.manager.view import ForeignUser, HasNode
from towpath.methods.method import Caller

RECOVERY_LIMIT = 100
"""How many messages `attempt_message_recovery` returns by default."""


@retired_methods("towpath.WebSocketManager")
class WebSocketManager(Connections):
    """Reaches one person, or the people of one tenant; see the module's docstring."""

    __slots__ = ()

    add_connection_by_user = RetiredMethod(Connections.add_connection)
    remove_connection_by_user = RetiredMethod(Connections.disconnect_user)
    handle_disconnection = RetiredMethod(Connections.remove_connection)

    async def send_to_user(
        self,
        user_id: str,
        message: object,
        *,
        name: str = "message",
        key: str | None = None,
    ) -> SendResult:
        """Send a message to every device of a person: durable first, then delivered.

        Clients get an AG-UI CUSTOM event with this name on the channel `user`; the message is its
        `value`.

        Args:
            user_id: the person.
            message: any value that has a form in JSON; see `towpath.manager.payloads`.
            name: the name of the event.
            key: the same key with the same message takes effect once, for a day.

        Raises:
            ForeignUser: the manager is bound to another person.
            Unserialisable, TooLarge, BadRequest: the message, its size or its name is invalid.
            Conflict: the key was used with another message.
            NotRunning, WrongLoop: no gateway runs here, or not on this event loop.
        """
        return await self._send(user_id, message, name=name, key=key)

    async def send_to_user_with_wait(
        self,
        user_id: str,
        message: object,
        *,
        wait_timeout: float = WAIT_SECONDS,
        name: str = "message",
        key: str | None = None,
    ) -> SendResult:
        """Wait until a device of the person receives messages, then send; see `send_to_user`.

        After `wait_timeout` seconds the message is sent all the same, and waits in the log.
        """
        user = self._user(user_id)
        node, channel = self._node(), user_channel(self.tenant, user)
        hub = node.parts.hub
        event = outgoing.custom_event(name, message, node.parts.settings.message_bytes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_timeout):
                await hub.wait_for(self.tenant, user, lambda: bool(hub.live_readers(channel)))
        return await outgoing.publish(self._node(), channel, event, user=user, key=key)

    async def send_to_thread(
        self,
        thread_id: str,
        message: object,
        *,
        user_id: str | None = None,
        name: str = "message",
        key: str | None = None,
    ) -> SendResult:
        """Send a message about a thread to every device of the person whose thread it is.

        The event is published on the channel `user` with the tag `thread`: a thread's own channel
        holds the events of runs only, in their legal order.

        Args:
            thread_id: the thread.
            message: see `send_to_user`.
            user_id: the person; None takes the manager's own.
            name: the name of the event.
            key: see `send_to_user`.

        Raises:
            NotFound: this person has no such thread.
            The errors of `send_to_user`.
        """
        user = self._user(user_id)
        if not await self._node().parts.store.exists(self.tenant, user, thread_id):
            raise NotFound("no such thread")
        return await self._send(user, message, name=name, key=key, thread=thread_id)

    async def broadcast(
        self, message: object, *, name: str = "message", key: str | None = None
    ) -> SendResult:
        """Send a message to everybody in the tenant, and never beyond; see `send_to_user`.

        Raises:
            ForeignUser: the manager is bound to one person.
            The errors of `send_to_user`.
        """
        if self.context is not None:
            raise ForeignUser(
                f"the manager is bound to the user {self.context.user!r}: "
                "a broadcast needs a manager of the tenant"
            )
        node = self._node()
        event = outgoing.custom_event(name, message, node.parts.settings.message_bytes)
        return await outgoing.publish(node, tenant_channel(self.tenant), event, key=key)

    broadcast_message = RetiredMethod(broadcast)

    async def send_agent_event(
        self,
        user_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
    ) -> SendResult:
        """Publish an event in the run of the context; it passes the checks of every agent event.

        Args:
            user_id: the person whose run it is.
            event_type: a type of AG-UI, or a name of the golden path: `agent_started`,
                `agent_thinking`, `tool_executing`, `tool_completed`, `agent_completed`.
            data: the fields of the event; for the golden path see `towpath.runs.golden`.
            key: the same key takes effect once in the run.

        Returns:
            `Refused("no_run")` if the context names no run that is in progress on this node, and
            `Refused("run_over")` if the run has ended.

        Raises:
            IllegalEvent: the event is malformed, larger than `event_bytes`, or not legal now; the
                run goes on.
            The errors of `send_to_user`.
        """
        user = self._user(user_id)
        node, context = self._node(), self.context
        if context is None or context.run is None:
            return Refused("no_run")
        return await outgoing.publish_in_run(
            node, self._principal(user), context.run, event_type, data or {}, key=key
        )

    async def emit_critical_event(
        self,
        user_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
    ) -> SendResult:
        """Publish an event that must not be lost: validated, durable, once for each key.

        With a run in the context this is `send_agent_event`. Without one, the person gets a CUSTOM
        event with the name `event_type` on the channel `user`; `data` is its value.
        """
        if self.context is not None and self.context.run is not None:
            return await self.send_agent_event(user_id, event_type, data, key=key)
        return await self._send(user_id, data or {}, name=event_type, key=key)

    async def attempt_message_recovery(
        self, user_id: str, since: Position | None = None, *, limit: int = RECOVERY_LIMIT
    ) -> RecoveredMessages:
        """Return the messages that a person was sent after a position, oldest first.

        Args:
            user_id: the person.
            since: the position of the last message that is known; None returns what is kept.
            limit: how many messages at most, from 1.

        Raises:
            StorageError: the log cannot be read now.
            The errors of `send_to_user`.
        """
        if limit < 1:
            raise BadRequest("limit must be at least 1")
        channel = user_channel(self.tenant, self._user(user_id))
        broker = self._node().parts.broker
        epoch = since.epoch if since is not None else None
        after = since.offset if since is not None else None
        replay = await broker.read(channel, after, epoch=epoch, limit=limit)
        if replay.gone:
            replay = await broker.read(channel, None, limit=limit)
            recovered = False
        else:
            recovered = since is not None or replay.begins == 1
        found = replay.publications
        offset = found[-1].offset if found else replay.top
        return RecoveredMessages(
            messages=tuple(msgspec.json.decode(one.data) for one in found),
            position=Position(replay.epoch, offset),
            recovered=recovered,
        )

    async def force_cleanup_user_events(self, user_id: str) -> int:
        """Drop the stored messages of a person; return how many there were.

        A client that resumes later is told that its position is gone. Live clients of the person
        reconnect. Threads are not touched.

        Raises:
            StorageError: the log cannot be written now; nothing was dropped.
            The errors of `send_to_user`.
        """
        channel = user_channel(self.tenant, self._user(user_id))
        broker = self._node().parts.broker
        replay = await broker.read(channel, None, limit=0)
        count = replay.top - replay.begins + 1
        if count:
            await write(broker, Write(truncate=(channel,)))
        return count

    async def handle_message(self, user_id: str, message: Mapping[str, Any]) -> Any:
        """Carry out what a client of this person would send as an RPC, and return its result.

        Args:
            user_id: the person.
            message: `method`, a method of the reference such as `thread.list`, and `data`, its
                parameters.

        Raises:
            CommandError: the call failed; the code gives the reason.
            The errors of `send_to_user`.
        """
        user, node = self._user(user_id), self._node()
        method = message.get("method")
        if not isinstance(method, str):
            raise BadRequest("a message has a method, and data")
        data = payloads.encode(message.get("data") or {}, node.parts.settings.message_bytes)
        caller = Caller(principal=self._principal(user))
        return msgspec.json.decode(await node.parts.methods.call(method, data, caller))

    async def connect_to_job(self, user_id: str, job_id: str) -> JobEvents:
        """Return the events of a run, from its first one to its end; a job is a run.

        Raises:
            NotFound: this person has no such run.
            StorageError: the store cannot be read now.
            The errors of `send_to_user`.
        """
        user, node = self._user(user_id), self._node()
        record = await node.parts.store.find_run(self.tenant, user, job_id)
        if record is None:
            raise NotFound("no such run")
        return JobEvents(node, record.key)

    async def disconnect_from_job(self, job: JobEvents) -> None:
        """Stop reading the events of a run; the run goes on. Idempotent."""
        await job.aclose()

    async def _send(
        self,
        user_id: str,
        message: object,
        *,
        name: str,
        key: str | None,
        thread: str | None = None,
    ) -> SendResult:
        user, node = self._user(user_id), self._node()
        event = outgoing.custom_event(name, message, node.parts.settings.message_bytes)
        channel = user_channel(self.tenant, user)
        return await outgoing.publish(node, channel, event, user=user, thread=thread, key=key)


def create_websocket_manager(
    context: UserExecutionContext | None = None,
    *,
    tenant: str | None = None,
    gateway: HasNode | None = None,
) -> WebSocketManager:
    """Return a manager for one person, or for one tenant; see `WebSocketManager`.

    Raises:
        NoIdentity: neither a context nor a tenant is given, or both are.
    """
    return WebSocketManager(context, tenant=tenant, gateway=gateway)


async def get_websocket_manager(
    context: UserExecutionContext | None = None,
    *,
    tenant: str | None = None,
    gateway: HasNode | None = None,
) -> WebSocketManager:
    """Return a manager once its gateway runs; see `create_websocket_manager`.

    Raises:
        NoIdentity: neither a context nor a tenant is given, or both are.
        NotRunning, WrongLoop: no gateway runs here, or not on this event loop.
    """
    manager = WebSocketManager(context, tenant=tenant, gateway=gateway)
    manager._node()
    return manager
