"""The connections that a manager sees are live connections of the right person, looked up now."""

import asyncio
from typing import Any

import pytest

from tests.manager.stage import ALICE, BOB, STRANGER, Stage, on_stage, staged
from towpath import WebSocketManager, codes
from towpath.auth.handshake import UpgradeInfo
from towpath.connections.asgi import AsgiTransport
from towpath.errors import BadRequest, Conflict
from towpath.identity import Principal
from towpath.manager import ConnectionHealth


class Socket:
    """Compared by identity, as the sockets of Starlette are."""


@on_stage
async def test_get_connection_shows_a_live_connection_of_ones_own(stage: Stage) -> None:
    """Another person's manager, another tenant's and a wrong id see nothing."""
    device = await stage.connect()
    found = stage.manager().get_connection(device.id)
    assert found is not None
    assert (found.id, found.user, found.tenant) == (device.id, "alice", "acme")
    assert found.channels == ("tenant", "user")
    assert stage.tenant().get_connection(device.id) == found
    assert stage.manager(BOB).get_connection(device.id) is None
    assert stage.manager(STRANGER).get_connection(device.id) is None
    assert stage.tenant("globex").get_connection(device.id) is None
    assert stage.manager().get_connection("no-such-id") is None


@on_stage
async def test_is_connection_active_is_false_as_soon_as_the_end_began(stage: Stage) -> None:
    """A connection that is being closed takes nothing more, so it is not active."""
    device = await stage.connect()
    assert stage.manager().is_connection_active(device.id)
    assert not stage.manager(BOB).is_connection_active(device.id)
    assert await stage.manager().disconnect_user("alice") == 1
    assert not stage.manager().is_connection_active(device.id)
    assert not stage.manager().is_user_connected("alice")
    assert stage.manager().get_user_connections("alice") == []
    assert await stage.manager().disconnect_user("alice") == 0
    await device.serving
    assert device.socket.close_code == 3503


@on_stage
async def test_is_user_connected_follows_the_sockets(stage: Stage) -> None:
    """True with the first device, false after the last one, whoever else is there."""
    await stage.connect(BOB)
    await stage.connect(STRANGER)
    assert not stage.manager().is_user_connected("alice")
    devices = [await stage.connect(), await stage.connect()]
    for device in devices:
        assert stage.manager().is_user_connected("alice")
        device.socket.leave()
        await device.serving
    assert not stage.manager().is_user_connected("alice")


@on_stage
async def test_get_user_connections_lists_the_oldest_first(stage: Stage) -> None:
    """Each device of the person, in the order in which they connected."""
    ids = [(await stage.connect()).id for _ in range(3)]
    await stage.connect(BOB)
    assert [one.id for one in stage.manager().get_user_connections("alice")] == ids


@on_stage
async def test_get_connection_count_counts_what_the_manager_reaches(stage: Stage) -> None:
    """A person's, or the tenant's; never another tenant's."""
    for who in (ALICE, ALICE, BOB, STRANGER):
        await stage.connect(who)
    assert stage.manager().get_connection_count() == 2
    assert stage.tenant().get_connection_count("bob") == 1
    assert stage.tenant().get_connection_count() == 3
    assert stage.tenant("globex").get_connection_count() == 1


@on_stage
async def test_find_connection_prefers_the_one_that_shows_the_thread(stage: Stage) -> None:
    """By subscription, or by the application's note; the newest of them."""
    manager = stage.manager()
    await manager.handle_message(
        "alice", {"method": "thread.create", "data": {"request_id": "1", "thread_id": "t1"}}
    )
    assert manager.find_connection("alice") is None
    first, second, third = [await stage.connect() for _ in range(3)]
    assert manager.find_connection("alice") == manager.get_connection(third.id)
    assert manager.find_connection("alice", thread_id="t1") is None
    first.socket.say({"id": 2, "subscribe": {"channel": "thread:t1"}})
    await first.replied(2)
    assert manager.find_connection("alice", thread_id="t1") == manager.get_connection(first.id)
    assert manager.update_connection_thread(second.id, "t1")
    assert manager.find_connection("alice", thread_id="t1") == manager.get_connection(second.id)


@on_stage
async def test_update_connection_thread_notes_a_thread_for_ones_own(stage: Stage) -> None:
    """The note is on the connection; a foreign or dead connection takes none."""
    device = await stage.connect()
    assert stage.manager().update_connection_thread(device.id, "t1")
    assert not stage.manager(BOB).update_connection_thread(device.id, "t2")
    found = stage.manager().get_connection(device.id)
    assert found is not None
    assert found.thread == "t1"
    assert stage.manager().update_connection_thread(device.id, None)
    device.socket.leave()
    await device.serving
    assert not stage.manager().update_connection_thread(device.id, "t1")


@on_stage
async def test_get_connection_id_by_websocket_finds_the_socket_it_serves(stage: Stage) -> None:
    """By identity of the socket; for its own people only, and only while it is served."""
    socket: Any = Socket()
    transport = AsgiTransport(socket)
    principal = Principal(tenant="acme", user="alice")
    connection = stage.node.open(transport, UpgradeInfo(), principal=principal)
    look = WebSocketManager.get_connection_id_by_websocket
    assert look(stage.manager(), socket) == connection.id
    assert look(stage.manager(BOB), socket) is None
    assert look(stage.manager(), Socket()) is None  # type: ignore[arg-type]
    connection.end(codes.FORCED)
    assert look(stage.manager(), socket) is None
    stage.node.connections.discard(connection)


@on_stage
async def test_get_connection_health_tells_how_devices_take_what_they_get(stage: Stage) -> None:
    """Nobody is not healthy; a device that takes everything is; one that is behind is not."""
    assert stage.manager().get_connection_health("alice") == ConnectionHealth(
        connections=0, waiting_bytes=0, behind=0
    )
    assert not stage.manager().get_connection_health("alice").healthy
    device = await stage.connect()
    assert stage.manager().get_connection_health("alice").healthy
    subscriber = device.connection.subscriber
    assert subscriber is not None
    assert subscriber.outbox.put(b"x" * 100_000)
    health = stage.manager().get_connection_health("alice")
    assert (health.connections, health.waiting_bytes, health.behind) == (1, 100_000, 1)
    assert not health.healthy


@on_stage
async def test_wait_for_connection_wakes_when_the_person_connects(stage: Stage) -> None:
    """At once where there is one; when one comes; and False after the time, with nothing left."""
    manager = stage.manager()
    assert not await manager.wait_for_connection("alice", 0.01)
    waiting = [asyncio.create_task(manager.wait_for_connection("alice", 30)) for _ in range(3)]
    await asyncio.sleep(0)
    await stage.connect(BOB)
    await stage.connect()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await manager.wait_for_connection("alice", 0)
    assert not stage.node.parts.hub._awaited


async def test_wait_for_connection_needs_no_subscription() -> None:
    """Where connections are subscribed to nothing by the server, the wait ends too."""
    async with staged(server_subscriptions=()) as stage:
        waiting = asyncio.create_task(stage.manager().wait_for_connection("alice", 30))
        await asyncio.sleep(0)
        await stage.connect()
        assert await waiting


@on_stage
async def test_disconnect_user_closes_every_socket_with_the_code(stage: Stage) -> None:
    """The person's sockets and no others, with the number and reason that were given."""
    devices, other = [await stage.connect(), await stage.connect()], await stage.connect(BOB)
    assert await stage.tenant().disconnect_user("alice", code=4001, reason="signed out") == 2
    for device in devices:
        await device.serving
        assert device.socket.close_code == 4001
    assert not other.serving.done()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, "x"),
        (5000, "x"),
        (4001, None),
        (4001, ""),
        (4001, "17"),
        (4001, "ä" * 62),
        (3999, "null"),
    ],
)
async def test_disconnect_user_refuses_codes_that_sdks_misread(
    code: int, reason: str | None
) -> None:
    """A reason that is missing, empty, JSON or too long would make an SDK reconnect for ever."""
    async with staged() as stage:
        device = await stage.connect()
        with pytest.raises(BadRequest):
            await stage.manager().disconnect_user("alice", code=code, reason=reason)
        with pytest.raises(BadRequest):
            await stage.manager().remove_connection(device.id, code=code, reason=reason)
        assert stage.manager().is_connection_active(device.id)


@on_stage
async def test_remove_connection_ends_one_device_and_waits_for_it(stage: Stage) -> None:
    """The device is closed and cleaned up when the call returns; foreign ids change nothing."""
    device, other = await stage.connect(), await stage.connect()
    assert not await stage.manager(BOB).remove_connection(device.id)
    assert not await stage.manager().remove_connection("no-such-id")
    assert await stage.manager().remove_connection(device.id)
    assert device.connection.over.is_set()
    assert device.socket.close_code == 3503
    assert stage.manager().is_connection_active(other.id)


@on_stage
async def test_remove_connection_ends_a_device_that_has_not_sent_connect(stage: Stage) -> None:
    """A socket that the application handed over belongs to its person from the first moment."""
    device = stage.arrive()
    assert not await stage.manager(BOB).remove_connection(device.id)
    assert await stage.manager().remove_connection(device.id)
    await device.serving
    assert device.socket.close_code == 3503


def assert_duplicate(name: str, method: str) -> None:
    """Assert that a name is another one for a method, and warns at the caller's line."""
    with pytest.warns(DeprecationWarning, match=method) as warned:
        found = getattr(WebSocketManager, name)
    assert found is getattr(WebSocketManager, method)
    assert warned[0].filename == __file__


def test_add_connection_by_user_is_add_connection() -> None:
    """The duplicate is the same object, and warns."""
    assert_duplicate("add_connection_by_user", "add_connection")


def test_remove_connection_by_user_is_disconnect_user() -> None:
    """The duplicate is the same object, and warns."""
    assert_duplicate("remove_connection_by_user", "disconnect_user")


def test_handle_disconnection_is_remove_connection() -> None:
    """The duplicate is the same object, and warns."""
    assert_duplicate("handle_disconnection", "remove_connection")


@on_stage
async def test_two_sockets_cannot_share_a_connection_id(stage: Stage) -> None:
    """The second socket is refused before it is touched; the first one goes on."""
    principal = Principal(tenant="acme", user="alice")
    socket: Any = Socket()
    first = stage.node.open(
        AsgiTransport(socket), UpgradeInfo(), principal=principal, connection_id="c1"
    )
    other: Any = Socket()
    with pytest.raises(Conflict, match="c1"):
        await stage.manager().connect_user("alice", other, connection_id="c1")
    with pytest.raises(BadRequest):
        await stage.manager().connect_user("alice", other, connection_id=" ")
    assert first.ended is None
    stage.node.connections.discard(first)
