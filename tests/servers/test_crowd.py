"""A crowd of readers, fast, pausing and stuck: each gets everything, its fold, or 3008."""

import functools
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.events.client import screen
from tests.servers.conversation import eventually, text_of
from tests.servers.paced_agents import flood
from tests.servers.test_slow import metric, narrow
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
FAST, PAUSING, STUCK = 5, 3, 3
PIECES = 300
"""Of 16 KiB: more than the buffers between the two hold, ours included."""
SETTINGS = {
    "TOWPATH_USER_CONNECTIONS": "200",
    "TOWPATH_RING_BYTES": "200000",
    "TOWPATH_SLOW_TIMEOUT": "10",
    "TOWPATH_CLOSE_TIMEOUT": "0.2",
}
BOUND = 64 * 1024 + 2 * 200_000
"""What may wait for one connection: a few publications in its outbox, and its backlog."""
LEVELS = (
    "towpath_outbox_bytes",
    "towpath_ring_bytes",
    "towpath_largest_connection_bytes",
    "towpath_connections",
)


async def test_r97_r98_r99_of_a_crowd_each_gets_everything_its_fold_or_3008(
    tmp_path: Path,
) -> None:
    """The three add up to the crowd, each of them occurs, and all levels return to zero."""
    application = ("--app", "tests.servers.paced_agents:gateway")
    with ServerProcess(tmp_path / "d", *application, cwd=ROOT, environment=SETTINGS) as server:
        token, thread = server.token("crowd"), uuid.uuid4().hex
        channel = f"thread:{thread}"
        async with AsyncExitStack() as stack:
            fast = [
                await stack.enter_async_context(wire_client(server.ws, token)) for _ in range(FAST)
            ]
            slow = [
                await stack.enter_async_context(narrow(server, token))
                for _ in range(PAUSING + STUCK)
            ]
            pausing, stuck = slow[:PAUSING], slow[PAUSING:]
            await fast[0].rpc("thread.create", request_id="t", thread_id=thread)
            for client in (*fast, *slow):
                assert "subscribe" in await client.command("subscribe", channel=channel)
            for client in slow:
                client.socket.transport.pause_reading()
            request = {
                "messages": [{"id": "m", "role": "user", "content": str(PIECES)}],
                "forwardedProps": {"pace": 0.02},
            }
            run = await fast[0].rpc(
                "run.start", request_id="r", agent="floods", thread_id=thread, input=request
            )
            whole = "".join(map(flood, range(PIECES))) + "."
            for client in fast:
                await client.until(functools.partial(ends, client, channel), seconds=40)
            assert 0 < metric(server, "towpath_largest_connection_bytes") < BOUND
            for client in pausing:
                client.socket.transport.resume_reading()
            for client in pausing:
                await client.until(functools.partial(ends, client, channel), seconds=40)

            async def abandon() -> bool:
                return metric(server, "towpath_connections") == FAST + PAUSING

            await eventually(abandon, seconds=40)
            await fast[0].rpc("run.cancel", request_id="c", run_id=run["run_id"])
            for client in (*fast, *pausing):
                await client.until_event(channel, "RUN_FINISHED")
            for client in stuck:
                client.drop()
        kinds = [{kind(client, channel) for client in group} for group in (fast, pausing)]
        texts = {text_of(client.events(channel)) for client in (*fast, *pausing)}
        screens = {screen(client.events(channel)) for client in (*fast, *pausing)}
        closed = server.log.read_text().count('"code": 3008')
        folded = metric(server, "towpath_readers_caught_up_total")

        async def empty() -> bool:
            return all(metric(server, name) == 0 for name in LEVELS)

        await eventually(empty)
    assert "everything" in kinds[0], "who keeps up meets none of it"
    assert kinds[1] == {"its fold"}
    assert closed == STUCK
    assert folded >= PAUSING
    assert texts == {whole}
    assert len(screens) == 1


def ends(client: WireClient, channel: str) -> bool:
    """Whether the last word came."""
    return any(event.get("delta", "").endswith(".") for event in client.events(channel)[-3:])


def kind(client: WireClient, channel: str) -> str:
    """Return how a reader was served: its offsets have no gap, or they only rise."""
    offsets = [one["offset"] for one in client.publications(channel) if "offset" in one]
    assert offsets == sorted(set(offsets))
    return "everything" if offsets == list(range(1, len(offsets) + 1)) else "its fold"
