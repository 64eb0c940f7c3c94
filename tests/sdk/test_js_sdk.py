"""npm `centrifuge` in Node, unmodified, against a real server."""

import asyncio
import json

import pytest

from tests.sdk.client import START
from tests.sdk.contract import SdkContract, check_whole, counted, someone
from tests.sdk.node_client import SCRIPTS, open_node
from tests.sdk.reducer import Event
from towpath import codes
from towpath.testing.server import ServerProcess

pytestmark = [pytest.mark.servers, pytest.mark.sdk_js]


async def verify(*streams: list[Event]) -> list[str]:
    """Return what the verifier of `@ag-ui/client` says of each stream."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPTS / "verify.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(json.dumps(streams).encode())
    return [json.loads(line) for line in output.splitlines()]


class TestNodeSdk(SdkContract):
    """The contract, as the JavaScript SDK sees it, and what only it does."""

    open = staticmethod(open_node)

    async def test_connect_and_subscribe_in_one_frame(self, server: ServerProcess) -> None:
        """A reload sends connect and its subscribes in one frame, and everything works."""
        token = server.token(someone())
        async with open_node(server.ws, token) as client, open_node(server.ws, token) as reloaded:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 150 at 100/s")
            watching = await client.subscribe(channel, position)
            await watching.until_words(5)
            joining = await reloaded.subscribe(channel, START)
            await reloaded.connect()
            for reader in (watching, joining):
                await reader.until_over()
        assert reloaded.frames[0] == ["connect", "subscribe"]
        check_whole(joining, counted(150))

    async def test_close_frames_carry_reasons(self, server: ServerProcess) -> None:
        """The socket itself sees 3500 with a reason, and 3000 with one after an error."""
        async with open_node(server.ws) as refused, open_node(server.ws, "x") as garbage:
            for client, code in ((refused, codes.NO_CREDENTIAL), (garbage, codes.INVALID_TOKEN)):
                await client.connect()
                await client.until_disconnected()
                await client.until_socket_closed()
                assert client.socket_closes == [(3500, code.reason)]
        async with open_node(server.ws, server.token(ttl=-60)) as expired:
            await expired.connect()
            await expired.until_socket_closed()
        assert all(close.reason for close in expired.socket_closes if close.code >= 3000)

    async def test_r75_streams_pass_the_verifier_of_ag_ui(self, server: ServerProcess) -> None:
        """Uncut, joined mid-run and joined late: the official AG-UI client finds all legal."""
        token = server.token(someone())
        async with open_node(server.ws, token) as client, open_node(server.ws, token) as device:
            for each in (client, device):
                await each.connect()
                await each.until_connected()
            channel, position = await client.start_run("count 150 at 100/s")
            uncut = await client.subscribe(channel, position)
            await uncut.until_words(10)
            joined = await device.subscribe(channel, START)
            for reader in (uncut, joined):
                await reader.until_over()
            async with open_node(server.ws, token) as another:
                await another.connect()
                late = await another.subscribe(channel, START)
                await late.until_over()
            tools, position = await client.start_run("one three")
            called = await client.subscribe(tools, position)
            await called.until_over()
        streams = [reader.stream for reader in (uncut, joined, late, called)]
        assert await verify(*streams) == ["legal"] * 4
        (complaint,) = await verify([uncut.stream[0], *uncut.stream])
        assert complaint != "legal", "the verifier does complain"
