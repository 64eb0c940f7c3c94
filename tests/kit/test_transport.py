"""The socket in memory does what a socket does, and remembers it."""

import asyncio

from tests.kit.transport import MemoryTransport


async def test_what_was_said_is_received_in_order_and_then_nothing() -> None:
    """Messages come as they were said; what was said before leaving still comes, then the end."""
    socket = MemoryTransport()
    waiting = asyncio.create_task(socket.receive())
    await asyncio.sleep(0)
    socket.say({"id": 1}, {"id": 2})
    assert await waiting == '{"id": 1}\n{"id": 2}'
    socket.say({"id": 3})
    socket.leave()
    assert await socket.receive() == '{"id": 3}'
    assert [await socket.receive() for _ in range(2)] == [None, None]


async def test_what_was_written_stays_with_its_frames_and_its_end() -> None:
    """Messages are taken apart into frames, replies told from pushes, the close code is there."""
    socket = MemoryTransport()
    before = socket.close_code
    await socket.send(b'{"id":1,"connect":{}}\n{"push":{}}')
    await socket.close(3005, "credential expired")
    assert socket.frames == [{"id": 1, "connect": {}}, {"push": {}}]
    assert socket.replies == [{"id": 1, "connect": {}}]
    assert (before, socket.close_code) == (None, 3005)
    assert [one.code for one in socket.written] == [0, 3005]


async def test_what_is_written_to_one_who_left_is_lost() -> None:
    """A client that is gone sees nothing more, not even the close frame."""
    socket = MemoryTransport()
    socket.leave()
    await socket.send(b"{}")
    await socket.close(3001, "move elsewhere")
    assert socket.written == []


async def test_a_write_takes_as_long_as_it_is_told() -> None:
    """The pace is asked at each write, and the write returns no sooner."""
    paces = [0.0, 0.05]
    socket = MemoryTransport(pace=lambda: paces.pop(0))
    began = asyncio.get_running_loop().time()
    await socket.send(b"{}")
    await socket.send(b"{}")
    assert asyncio.get_running_loop().time() - began >= 0.05
    assert paces == []
