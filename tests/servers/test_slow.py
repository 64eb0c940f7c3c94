"""A slow reader over real sockets: fewer updates, the same text, and no effect on others."""

import asyncio
import re
import socket
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.events.client import Client
from tests.servers.conversation import (
    ask,
    eventually,
    from_the_start,
    open_thread,
    seen_in,
    text_of,
    until_over,
)
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
COUNT = 20_000
"""Enough that no socket buffer between the two holds it."""


def metric(server: ServerProcess, name: str) -> float:
    """Return a value of `/metrics`."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


@asynccontextmanager
async def narrow(server: ServerProcess, token: str) -> AsyncGenerator[WireClient, None]:
    """Open a connection with a small receive buffer, so that a pause takes effect soon."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", server.port))
    async with wire_client(server.ws, token, sock=raw) as client:
        yield client


async def test_r97_r99_a_reader_that_pauses_ends_with_the_same_text(server: ServerProcess) -> None:
    """It pauses during a long text, then goes on: same connection, same text, no gap."""
    token = server.token("pausing")
    async with wire_client(server.ws, token) as fast, narrow(server, token) as slow:
        thread = await open_thread(fast)
        channel = f"thread:{thread}"
        await slow.command("subscribe", channel=channel)
        slow.socket.transport.pause_reading()
        started = await ask(fast, f"count {COUNT}", thread=thread)
        await until_over(fast, started, seconds=50)
        waiting = metric(server, "towpath_outbox_bytes") + metric(server, "towpath_ring_bytes")
        slow.socket.transport.resume_reading()
        await until_over(slow, started, seconds=50)
        screens = []
        for client in (fast, slow):
            screen = Client()
            for event in client.events(channel):
                screen.take(event)
            screens.append(screen.messages)
        again = await ask(fast, "hello again", thread=thread, agent="echo")
        await slow.until(lambda: slow.events(channel)[-1].get("runId") == again.run)
    assert screens[0] == screens[1]
    assert text_of(fast.events(channel)) == text_of(slow.events(channel))
    assert waiting < 2 * 1024 * 1024
    offsets = [one["offset"] for one in slow.publications(channel) if "offset" in one]
    assert offsets == sorted(set(offsets))
    assert offsets[-1] == fast.publications(channel)[-1]["offset"]
    assert len(slow.publications(channel)) < len(fast.publications(channel))

    async def empty() -> bool:
        return metric(server, "towpath_ring_bytes") == 0

    await eventually(empty)


async def test_r97_a_reader_of_a_small_ring_is_answered_from_the_log_each_time(
    tmp_path: Path,
) -> None:
    """Repeated pauses with a tiny ring do not change the text."""
    environment = {"TOWPATH_RING_BYTES": "1000"}
    with ServerProcess(tmp_path / "data", environment=environment) as server:
        token = server.token("hiccup")
        async with wire_client(server.ws, token) as fast, narrow(server, token) as slow:
            thread = await open_thread(fast)
            channel = f"thread:{thread}"
            await slow.command("subscribe", channel=channel)
            started = await ask(fast, f"count {COUNT}", thread=thread)
            while not any(one["type"] == "RUN_FINISHED" for one in fast.events(channel)):
                slow.socket.transport.pause_reading()
                await asyncio.sleep(0.2)
                slow.socket.transport.resume_reading()
                await asyncio.sleep(0.05)
            await until_over(slow, started, seconds=50)
            assert metric(server, "towpath_readers_caught_up_total") >= 1
        assert text_of(slow.events(channel)) == text_of(fast.events(channel))
        assert slow.close_code == 1000


async def test_r97_a_peer_that_takes_nothing_for_too_long_is_let_go(tmp_path: Path) -> None:
    """After `slow_timeout` the connection ends with 3008, and its place is free."""
    environment = {"TOWPATH_SLOW_TIMEOUT": "1", "TOWPATH_CLOSE_TIMEOUT": "0.2"}
    with ServerProcess(tmp_path / "data", environment=environment) as server:
        token = server.token("stuck")
        async with wire_client(server.ws, token) as fast, narrow(server, token) as stuck:
            thread = await open_thread(fast)
            await stuck.command("subscribe", channel=f"thread:{thread}")
            stuck.socket.transport.pause_reading()
            started = await ask(fast, f"count {COUNT}", thread=thread)
            await until_over(fast, started, seconds=50)
            async with asyncio.timeout(15):
                while metric(server, "towpath_connections") > 1:  # noqa: ASYNC110 - another process.
                    await asyncio.sleep(0.05)
            stuck.drop()
        assert '"code": 3008' in server.log.read_text()


async def test_r77_r97_a_text_larger_than_the_outbox_can_be_read(tmp_path: Path) -> None:
    """Live, from the start and from a position the text is whole, over sockets that stay open."""
    settings = {
        "TOWPATH_OUTBOX_BYTES": "262144",
        "TOWPATH_MESSAGE_BYTES": "262144",
        "TOWPATH_RUN_MESSAGE_BYTES": "262144",
        "TOWPATH_RING_BYTES": "100000",
    }
    application = ("--app", "tests.servers.paced_agents:gateway")
    with ServerProcess(tmp_path / "d", *application, cwd=ROOT, environment=settings) as server:
        token = server.token("novelist")
        async with wire_client(server.ws, token) as live, wire_client(server.ws, token) as late:
            thread = await open_thread(live)
            channel = f"thread:{thread}"
            started = await ask(live, "100", agent="floods", thread=thread)
            await live.until(lambda: text_of(live.events(channel)).endswith("."), seconds=30)
            whole = text_of(live.events(channel))
            assert len(whole) == 100 * 16384 + 1
            answer = (await from_the_start(late, thread))["subscribe"]
            assert text_of(seen_in({"subscribe": answer})) == whole
            await late.command("unsubscribe", channel=channel)
            back = await late.command(
                "subscribe", channel=channel, recover=True, offset=3, epoch=answer["epoch"]
            )
            assert back["subscribe"]["recovered"]
            assert whole.endswith(text_of(seen_in(back)))
            await live.rpc("run.cancel", request_id="c", run_id=started.run)
            for client in (live, late):
                await client.until_event(channel, "RUN_FINISHED")
        assert '"code": 3008' not in server.log.read_text()
