"""A real server whose disk is full, whose log is locked, and people who are connected meanwhile."""

import asyncio
import contextlib
import json
import os
import resource
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.conversation import (
    Started,
    ask,
    eventually,
    from_the_start,
    open_thread,
    seen_in,
    text_of,
    until_ended,
    until_over,
    until_text,
)
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

MIB = 1024 * 1024
RESERVE = MIB


def can_mount() -> bool:
    """Whether a small disk of our own can be had here."""
    with tempfile.TemporaryDirectory() as directory:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", directory],
            capture_output=True,
            check=False,
        )
        if made.returncode == 0:
            subprocess.run(["umount", directory], check=True)
    return made.returncode == 0


DISKS = ["limit", *(["mount"] if can_mount() else [])]
"""A limit on the size of files is to be had everywhere, a small disk only where one may mount."""


@contextlib.contextmanager
def server_on(disk: str, directory: Path) -> Iterator[ServerProcess]:
    """Start a server whose disk can be filled."""
    data = directory / "data"
    data.mkdir()
    environment = {"TOWPATH_RESERVE_BYTES": str(RESERVE)}
    if disk == "mount":
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", str(data)]
        subprocess.run(mount, check=True)
    try:
        with ServerProcess(data, environment=environment) as server:
            yield server
    finally:
        if disk == "mount":
            subprocess.run(["umount", str(data)], check=True)


def fill(server: ServerProcess, disk: str) -> None:
    """Fill the disk up to about half a MiB and the reserve."""
    if disk == "limit":
        # Python's processes get EFBIG, not the signal. The log of the server itself is smaller.
        assert server.process is not None
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        largest = max(path.stat().st_size for path in server.data.glob("towpath.db*"))
        limits = (largest + MIB // 2, hard)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        return
    # At once: when a disk is full for a moment, the reserve is given back, and it is full no more.
    free = os.statvfs(server.data)
    with (server.data / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free.f_bavail * free.f_frsize - MIB // 2)


def make_room(server: ServerProcess, disk: str) -> None:
    """Remove what filled the disk."""
    if disk == "mount":
        (server.data / "filler").unlink()
        return
    assert server.process is not None
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))


def get(server: ServerProcess, path: str) -> tuple[int, str]:
    """Send a GET request to the server."""
    try:
        with urllib.request.urlopen(f"{server.http}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


async def ask_door(server: ServerProcess, path: str) -> tuple[int, str]:
    return await asyncio.to_thread(get, server, path)


async def error(client: WireClient, method: str, **data: Any) -> dict[str, Any]:
    """Call a method that is refused, and return its error."""
    reply = await client.command("rpc", method=method, data=data)
    assert "error" in reply, reply
    refused: dict[str, Any] = reply["error"]
    return refused


async def ready(server: ServerProcess) -> bool:
    return await asyncio.to_thread(server.ready)


def changes(server: ServerProcess) -> list[tuple[str, str]]:
    """Return the transitions of the log health, by the log lines."""
    lines = [json.loads(x) for x in server.log.read_text().splitlines() if "log_changed" in x]
    return [(line["before"], line["after"]) for line in lines]


async def history(client: WireClient, started: Started) -> list[int]:
    """Return the offsets in the history of a thread."""
    answer = await client.command("history", channel=started.channel, limit=-1)
    return [item["offset"] for item in answer["history"]["publications"]]


@pytest.mark.parametrize("disk", DISKS)
async def test_p5_r53_a_full_disk_refuses_writes_serves_reads_and_heals(
    tmp_path: Path, disk: str
) -> None:
    """The run that filled it ends once, reads go on, and with room writes do, without a restart."""
    with server_on(disk, tmp_path) as server:
        assert server.process is not None
        pid, token = server.process.pid, server.token()
        async with wire_client(server.ws, token) as client:
            before = await ask(client, "count 5", agent="tools")
            await until_over(client, before)
            started = await ask(client, "count 100000 at 5000/s")
            await until_text(client, started)
            fill(server, disk)
            ended = await until_over(client, started)
            assert (ended["type"], ended["code"]) == ("RUN_ERROR", "run.storage")
            text = text_of(client.events(started.channel))
            for method, data in (
                ("run.start", {"request_id": "a", "agent": "echo", "message": "hi"}),
                ("thread.create", {"request_id": "b"}),
                ("thread.rename", {"request_id": "c", "thread_id": before.thread, "title": "x"}),
                ("run.cancel", {"request_id": "d", "run_id": before.run}),
            ):
                refused = await error(client, method, **data)
                assert (refused["code"], refused["temporary"]) == (100, True), method
                assert "full" in refused["message"]
            status, reason = await ask_door(server, "/health/ready")
            assert (status, "full" in reason) == (503, True)
            assert (await ask_door(server, "/health/live"))[0] == 200
            assert "towpath_log_condition 1.0" in (await ask_door(server, "/metrics"))[1]
            run = await until_ended(client, started.run)
            assert (run["status"], run["code"]) == ("failed", "run.storage")
            view = await client.rpc("thread.get", thread_id=started.thread)
            assert view["messages"][-1]["content"] == text
        async with wire_client(server.ws, token) as late:
            events = seen_in(await from_the_start(late, started.thread))
            assert text_of(events) == text
            assert [e.get("code") for e in events if e["type"] in TERMINAL] == ["run.storage"]
            offsets = await history(late, started)
            assert offsets == list(range(1, len(offsets) + 1))
            assert not await ready(server)
            assert changes(server) == [("ok", "full")]
            make_room(server, disk)
            await eventually(lambda: ready(server))
            again = await ask(late, "count 7", thread=started.thread)
            await until_over(late, again)
            assert text_of(late.events(again.channel)) == "1 2 3 4 5 6 7"
            offsets = await history(late, started)
            assert offsets == list(range(1, len(offsets) + 1))
            runs = (await late.rpc("run.list", thread_id=started.thread))["runs"]
            assert [one["status"] for one in runs] == ["finished", "failed"]
        assert server.process.pid == pid
        assert changes(server) == [("ok", "full"), ("full", "ok")]
        assert "towpath_log_condition 0.0" in (await ask_door(server, "/metrics"))[1]


async def test_a_locked_log_refuses_writes_serves_reads_and_heals(tmp_path: Path) -> None:
    """Another process's lock stalls nobody, costs writes an error, and is over when it is over."""
    with ServerProcess(tmp_path / "data") as server:
        async with wire_client(server.ws, server.token()) as client:
            started = await ask(client, "count 100000 at 200/s")
            await until_text(client, started)
            intruder = sqlite3.connect(server.data / "towpath.db", isolation_level=None)
            intruder.execute("BEGIN IMMEDIATE")
            slowest = 0.0
            for _ in range(100):
                began = time.monotonic()
                assert (await ask_door(server, "/health/live"))[0] == 200
                await client.rpc("thread.get", thread_id=started.thread)
                slowest = max(slowest, time.monotonic() - began)
                if changes(server):
                    break
                await asyncio.sleep(0.1)
            assert changes(server) == [("ok", "locked")]
            assert slowest < 1, "a read waited for the lock"
            refused = await error(
                client, "run.start", request_id="a", agent="echo", message="hello"
            )
            assert (refused["code"], "locked" in refused["message"]) == (100, True)
            status, reason = await ask_door(server, "/health/ready")
            assert (status, "locked" in reason) == (503, True)
            intruder.execute("ROLLBACK")
            intruder.close()
            await eventually(lambda: ready(server))
            ended = await until_over(client, started)
            assert (ended["type"], ended["code"]) == ("RUN_ERROR", "run.storage")
            again = await ask(client, "count 7")
            await until_over(client, again)
            offsets = await history(client, started)
            assert offsets == list(range(1, len(offsets) + 1))
        assert changes(server) == [("ok", "locked"), ("locked", "ok")]


@pytest.mark.parametrize("how", ["cancel", "interrupt"])
async def test_stopping_a_run_on_a_locked_log_is_answered_and_comes_true(
    tmp_path: Path, how: str
) -> None:
    """A cancel gets a temporary error in time; repeated later, it succeeds."""
    arguments = ("--app", "tests.kit.crashes:gateway")
    with ServerProcess(tmp_path / "data", *arguments) as server:
        async with wire_client(server.ws, server.token()) as client:
            started = await ask(client, "tell 100000", agent="interrupt")
            await until_text(client, started)
            intruder = sqlite3.connect(server.data / "towpath.db", isolation_level=None)
            intruder.execute("BEGIN IMMEDIATE")
            stop: tuple[str, dict[str, Any]] = ("run.cancel", {"run_id": started.run})
            if how == "interrupt":
                request = {"agent": "interrupt", "thread_id": started.thread, "message": "tell 3"}
                stop = ("run.start", request)
            async with asyncio.timeout(5.0):  # As long as SDKs wait.
                refused = await error(client, stop[0], request_id="stop", **stop[1])
            assert refused["code"] == 100
            assert refused["temporary"]
            intruder.execute("ROLLBACK")
            intruder.close()
            await eventually(lambda: ready(server))
            ended = await until_over(client, started)
            done = await client.rpc(stop[0], request_id="stop", **stop[1])
            if how == "cancel":
                assert done == {"status": "accepted"}
                assert ended["outcome"] == {"type": "cancelled"}


async def test_r59_a_server_with_a_locked_log_stops_in_time(tmp_path: Path) -> None:
    """It says goodbye to its clients, ends within its budget, and the run is lost, once."""
    environment = {"TOWPATH_DRAIN_TIMEOUT": "2", "TOWPATH_CLEANUP_TIMEOUT": "1"}
    with ServerProcess(tmp_path / "data", environment=environment) as server:
        token = server.token()
        async with wire_client(server.ws, token) as client:
            started = await ask(client, "count 100000 at 200/s")
            await until_text(client, started)
            intruder = sqlite3.connect(server.data / "towpath.db", isolation_level=None)
            intruder.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            status = await asyncio.to_thread(server.stop)
            assert (status, await client.until_closed()) == (0, 3001)
            # The budget, and what is left of the five seconds for which the writer waits.
            assert time.monotonic() - began < 2 + 1 + 5 + 1
            intruder.close()
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, token) as client:
            run = await until_ended(client, started.run)
            assert (run["status"], run["code"]) == ("lost", "run.lost")
            events = seen_in(await from_the_start(client, started.thread))
            assert [e.get("code") for e in events if e["type"] in TERMINAL] == ["run.lost"]
            await open_thread(client)
