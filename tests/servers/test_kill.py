"""Servers that are killed and servers that get SIGTERM, during runs."""

import asyncio
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.conversation import (
    ask,
    assert_unbroken,
    from_the_start,
    seen_in,
    text_of,
    until_ended,
    until_over,
    until_text,
)
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

SEED = 20261122


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server over one data directory that is killed again and again."""
    with ServerProcess(tmp_path_factory.mktemp("killable") / "data") as process:
        yield process


@pytest.mark.parametrize("delay", [random.Random(SEED + n).uniform(0, 0.25) for n in range(5)])
async def test_r42_r47_r78_kill_9_loses_nothing_anybody_saw(
    killable: ServerProcess, delay: float
) -> None:
    """After a kill at a random moment: one run.lost, all events seen before, the same epoch."""
    token = killable.token("survivor")
    async with wire_client(killable.ws, token) as client:
        started = await ask(client, "count 100000 at 2000/s")
        await until_text(client, started)
        half = len(client.publications(started.channel))
        await asyncio.sleep(delay)
        await asyncio.to_thread(killable.kill)
        await client.until_closed()
        seen = client.publications(started.channel)
        subscribed = next(f for f in client.frames if "subscribe" in f)["subscribe"]
    await asyncio.to_thread(killable.start)
    seen_text = text_of(item["data"] for item in seen)
    position = {"recover": True, "offset": seen[half - 1]["offset"], "epoch": ""}
    position["epoch"] = subscribed["epoch"]
    async with wire_client(killable.ws, token) as client:
        run = await until_ended(client, started.run)
        assert (run["status"], run["code"]) == ("lost", "run.lost")
        answer = await from_the_start(client, started.thread)
        assert answer["subscribe"]["epoch"] == subscribed["epoch"]
        assert answer["subscribe"]["offset"] > seen[-1]["offset"]
        events = seen_in(answer)
        terminal = [event for event in events if event["type"] in TERMINAL]
        assert [event.get("code") for event in terminal] == ["run.lost"]
        assert events[-1] == terminal[0]
        assert text_of(events).startswith(seen_text)
        await client.command("unsubscribe", channel=started.channel)
        again = await client.command("subscribe", channel=started.channel, **position)
        assert again["subscribe"]["recovered"] is True
        before = text_of(item["data"] for item in seen[:half])
        assert before + text_of(seen_in(again)) == text_of(events)
        history = await client.command("history", channel=started.channel, limit=-1)
        offsets = [item["offset"] for item in history["history"]["publications"]]
        assert offsets == list(range(1, len(offsets) + 1))


async def test_p5_r92_many_runs_left_behind_hold_up_nobody(tmp_path: Path) -> None:
    """Each gets one run.lost; a run that is started meanwhile in one of the threads follows it."""
    with ServerProcess(tmp_path / "data", environment={"TOWPATH_RUNS_BURST": "100"}) as server:
        token = server.token("crowd")
        async with wire_client(server.ws, token) as client:
            left = [await ask(client, "count 100000 at 20/s") for _ in range(40)]
            for started in left:
                await until_text(client, started)
            await asyncio.to_thread(server.kill)
            await client.until_closed()
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, token) as client:
            busy = left[-1].thread
            await client.command("subscribe", channel=left[-1].channel)
            newer = await ask(client, "hello", agent="echo", thread=busy)
            ended = await until_ended(client, newer.run)
            shown = [await until_ended(client, started.run) for started in left]
            for started in left:
                await client.command("subscribe", channel=started.channel)
                history = await client.command("history", channel=started.channel, limit=-1)
                events = [one["data"] for one in history["history"]["publications"]]
                codes = [one.get("code") for one in events if one["type"] in TERMINAL]
                assert codes == ["run.lost", *([None] if started.thread == busy else [])]
    assert [(run["status"], run["code"]) for run in shown] == [("lost", "run.lost")] * len(left)
    assert ended["status"] == "finished"


async def test_r59_sigterm_ends_runs_and_moves_clients_on(own_server: ServerProcess) -> None:
    """Each live run ends run.drained, every client gets 3001, the exit status is 0."""
    tokens = [own_server.token(f"rider{index}") for index in range(4)]

    async def ride(token: str) -> tuple[str, str, list[dict[str, Any]]]:
        async with wire_client(own_server.ws, token) as client:
            started = await ask(client, "count 100000 at 500/s")
            await until_text(client, started)
            running.release()
            ended = await until_over(client, started)
            assert (ended["type"], ended["code"]) == ("RUN_ERROR", "run.drained")
            assert await client.until_closed() == 3001
            assert client.close_reason == "move elsewhere"
            return token, started.thread, client.publications(started.channel)

    running = asyncio.Semaphore(0)
    rides = [asyncio.create_task(ride(token)) for token in tokens]
    for _ in rides:
        await running.acquire()
    async with wire_client(own_server.ws, own_server.token("idle")) as idle:
        status = await asyncio.to_thread(own_server.stop)
        assert await idle.until_closed() == 3001
    ridden = await asyncio.gather(*rides)
    assert status == 0
    await asyncio.to_thread(own_server.start)
    for token, thread, seen in ridden:
        async with wire_client(own_server.ws, token) as client:
            view = await client.rpc("thread.get", thread_id=thread)
            runs = (await client.rpc("run.list", thread_id=thread))["runs"]
            history = await client.command("history", channel=f"thread:{thread}", limit=-1)
        assert [(run["status"], run["code"]) for run in runs] == [("failed", "run.drained")]
        assert view["messages"][-1]["content"] == text_of(item["data"] for item in seen)
        kept = history["history"]["publications"]
        assert [item["offset"] for item in kept][: len(seen)] == [item["offset"] for item in seen]


async def test_r97_a_reader_that_stops_is_dropped_and_no_other_notices(
    tmp_path: Path,
) -> None:
    """Beside a stalled reader a fast one gets everything, and memory stays bounded."""
    environment = {
        "TOWPATH_OUTBOX_BYTES": "1048576",
        "TOWPATH_MESSAGE_BYTES": "1048576",
        "TOWPATH_RUN_MESSAGE_BYTES": "262144",
        "TOWPATH_SLOW_TIMEOUT": "1",
    }
    with ServerProcess(tmp_path / "data", environment=environment) as server:
        assert server.process is not None
        pid = server.process.pid
        token = server.token("reader")
        loop = asyncio.get_running_loop()
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", server.port))
        with raw:
            async with (
                wire_client(server.ws, token) as fast,
                wire_client(server.ws, token, sock=raw) as slow,
            ):
                before = resident(pid)
                thread = (await fast.rpc("thread.create", request_id="t"))["thread_id"]
                for client in (fast, slow):
                    await client.command("subscribe", channel=f"thread:{thread}")
                slow.socket.transport.pause_reading()
                started = await ask(fast, "count 25000", thread=thread)
                ended = await until_over(fast, started, seconds=50)
                grown = resident(pid) - before
                fast_seen = fast.publications(started.channel)
                fast_text = text_of(fast.events(started.channel))

                def dropped() -> bool:
                    return '"code": 3008' in server.log.read_text()

                async with asyncio.timeout(10):
                    while not dropped():  # noqa: ASYNC110 - the log of another process.
                        await asyncio.sleep(0.05)
                slow.drop()
        log = server.log.read_text()
    assert ended["outcome"] == {"type": "success"}
    assert_unbroken(fast_seen, after=0)
    assert fast_text == " ".join(map(str, range(1, 25_001)))
    assert grown < 150 * 1024 * 1024
    closes = [json.loads(x) for x in log.splitlines() if '"connection_closed"' in x]
    assert [x["code"] for x in closes].count(3008) == 1
