"""Lines that break within a frame of the client: a partial frame has no effect."""

import asyncio
import json
import socket
import struct
import uuid

import pytest
from websockets.frames import Frame, Opcode

from tests.servers.conversation import eventually
from tests.servers.test_slow import metric
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("missing", [1, 20, "payload", "header"])
async def test_r37_a_line_that_breaks_within_a_frame_of_the_client_leaves_nothing(
    server: ServerProcess, missing: int | str, reset: bool
) -> None:
    """No run begins, its place is free at once, and the log of the server tells of no fault."""
    token, thread = server.token(f"someone-{uuid.uuid4().hex[:8]}"), uuid.uuid4().hex
    request = {"request_id": "r", "agent": "echo", "thread_id": thread, "message": "hello " * 50}
    command = {"id": 9, "rpc": {"method": "run.start", "data": request}}
    frame = Frame(Opcode.TEXT, json.dumps(command).encode()).serialize(mask=True)
    header = 8  # Two bytes, two of the length, four of the mask.
    kept = {"payload": header, "header": 3}.get(str(missing)) or len(frame) - int(missing)

    async with wire_client(server.ws, token) as witness:
        before = metric(server, "towpath_connections")
        async with wire_client(server.ws, token) as client:
            assert metric(server, "towpath_connections") == before + 1
            transport = client.socket.transport
            transport.write(frame[:kept])
            if reset:
                line = transport.get_extra_info("socket")
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.drop()

            async def gone() -> bool:
                return metric(server, "towpath_connections") == before

            await eventually(gone)
        reply = await witness.command("rpc", method="run.list", data={"thread_id": thread})
        assert reply["error"]["code"] == 404
    assert "Traceback" not in server.log.read_text()
    assert await asyncio.to_thread(server.ready)
