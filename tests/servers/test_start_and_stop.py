"""A server that starts slowly, cannot start, or is stopped: it answers, and it ends."""

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.servers.conversation import ask, until_over, until_text
from tests.servers.holding_agents import VARIABLE
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
HOLDING = ("--app", "tests.servers.holding_agents:gateway")
END_SECONDS = 25.0
"""How long a process may take to end; the agents and the opening of these tests never end."""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that listens, and whose log waits for `permit`."""
    permission = {VARIABLE: str(tmp_path / "permission")}
    server = ServerProcess(tmp_path / "data", *HOLDING, cwd=ROOT, environment=permission)
    server.launch()
    try:
        while get(server, "/health/live") is None:
            assert server.process is not None
            assert server.process.poll() is None, server.log.read_text()
            time.sleep(0.02)
        yield server
    finally:
        server.kill()


def permit(server: ServerProcess, failure: str = "") -> None:
    """Let the log open, or fail with an error of this name."""
    new = server.data.with_name("new")
    new.write_text(failure)
    new.rename(server.data.with_name("permission"))


def get(server: ServerProcess, path: str, method: str = "GET") -> httpx2.Response | None:
    """Request a path; None where nobody listens."""
    try:
        return httpx2.request(method, f"{server.http}{path}", trust_env=False, timeout=20)
    except httpx2.TransportError:
        return None


def answer(server: ServerProcess, path: str, method: str = "GET") -> httpx2.Response:
    """Request a path of a server that listens."""
    found = get(server, path, method)
    assert found is not None, path
    return found


def status_of(server: ServerProcess) -> int:
    """Wait until the process has ended, and return its exit status."""
    assert server.process is not None
    return server.process.wait(timeout=END_SECONDS)


def closed_cleanly(server: ServerProcess) -> bool:
    """Whether the log was closed: SQLite then removes the write-ahead log."""
    return (server.data / "towpath.db").exists() and not (server.data / "towpath.db-wal").exists()


def lines_of(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    """Return the log lines of an event."""
    lines = [json.loads(one) for one in server.log.read_text().splitlines() if one[:1] == "{"]
    return [one for one in lines if one["event"] == event]


async def test_a_server_says_503_until_its_log_is_open(slow: ServerProcess) -> None:
    """Every request and upgrade gets the phase; then the server is ready, and says so."""
    refusal = {
        "error": {"code": 100, "message": "the server is starting: its log is being opened"},
        "phase": "starting",
    }
    paths = ("/", "/static/towpath-chat.js", "/metrics", "/page.json", "/api/v1/whoami", "/nowhere")
    for path in (*paths, "/api/v1/openapi.json", "/agui/threads/t"):
        refused = await asyncio.to_thread(answer, slow, path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1"), path
        assert refused.json() == refusal, path
    for path in ("/agui/tools", "/dev/token", "/api/v1/runs"):
        assert (await asyncio.to_thread(answer, slow, path, "POST")).json() == refusal, path
    assert (await asyncio.to_thread(answer, slow, "/health/live")).status_code == 200
    ready = await asyncio.to_thread(answer, slow, "/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"error": "starting"})
    startup = await asyncio.to_thread(answer, slow, "/health/startup")
    assert startup.status_code == 503
    assert startup.json() == {"phase": "starting", "waiting_for": []}
    token = slow.token("mia")
    with pytest.raises(InvalidStatus) as upgrade:
        async with wire_client(slow.ws, token):
            pass
    assert upgrade.value.response.status_code == 503
    assert upgrade.value.response.headers["retry-after"] == "1"
    assert json.loads(bytes(upgrade.value.response.body)) == refusal
    assert "Towpath is ready" not in slow.log.read_text()
    permit(slow)
    await asyncio.to_thread(slow.await_ready)
    async with wire_client(slow.ws, token) as client:
        await until_over(client, await ask(client, "hello"))
    assert slow.log.read_text().count("Towpath is ready") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_stops_while_its_log_is_being_opened(
    slow: ServerProcess, number: signal.Signals
) -> None:
    """The thread that opens the log blocks, and keeps the process from nothing."""
    assert slow.process is not None
    slow.process.send_signal(number)
    assert status_of(slow) == 0
    assert "Traceback" not in slow.log.read_text()
    permit(slow)
    slow.start()


@pytest.mark.parametrize(
    ("failure", "status", "line"),
    [
        ("ConfigurationError", 2, "towpath: the reason"),
        ("LogCorrupted", 3, "towpath: the reason; start again"),
        ("LogFenced", 4, "towpath: the reason"),
    ],
)
def test_a_log_that_cannot_be_opened_ends_the_server(
    slow: ServerProcess, failure: str, status: int, line: str
) -> None:
    """Its supervisor gets the exit status, and people get one line."""
    permit(slow, failure)
    assert status_of(slow) == status
    assert slow.log.read_text().splitlines() == [line]


def test_a_log_that_another_process_locks_ends_the_server(tmp_path: Path) -> None:
    """SQLite waits for the lock while the server answers; then one line names the file."""
    server = ServerProcess(tmp_path / "data")
    server.start()
    server.stop()
    server.log.write_text("")
    with closing(sqlite3.connect(tmp_path / "data" / "towpath.db")) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        server.launch()
        assert status_of(server) == 2
    (line,) = server.log.read_text().splitlines()
    assert line.startswith("towpath: cannot open ")
    assert "towpath.db: database is locked" in line


@pytest.mark.parametrize(
    ("agent", "count"), [("deaf", 1), ("blocking", 1), ("blocking", (os.cpu_count() or 1) + 4)]
)
async def test_a_server_ends_although_its_agents_do_not(
    tmp_path: Path, agent: str, count: int
) -> None:
    """Each run has its ending, the log is closed, the agents are named, and the process ends.

    As many agents as the loop has threads leave no thread of the loop to close the log with.
    """
    quick = {"TOWPATH_DRAIN_TIMEOUT": "4", "TOWPATH_CLEANUP_TIMEOUT": "1"}
    with ServerProcess(tmp_path / "data", *HOLDING, cwd=ROOT, environment=quick) as server:
        async with wire_client(server.ws, server.token("mia")) as client:
            runs = [await ask(client, "go", agent=agent) for _ in range(count)]
            for run in runs:
                await until_text(client, run)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            assert await client.until_closed(seconds=20) == 3001
        assert await asyncio.to_thread(status_of, server) == 0
        assert closed_cleanly(server)
        (line,) = lines_of(server, "agents_still_running")
        assert line["level"] == "warning"
        named = [(one["agent"], one["thread"], one["run"]) for one in line["agents"]]
        assert sorted(named) == sorted((agent, run.thread, run.run) for run in runs)
        server.start()
        async with wire_client(server.ws, server.token("mia")) as client:
            for run in runs:
                state = await client.rpc("run.get", run_id=run.run)
                assert (state["status"], state["code"]) == ("failed", "run.drained")


async def test_a_server_ends_although_an_agent_has_left_a_thread(tmp_path: Path) -> None:
    """Python would wait for a thread that is no daemon."""
    with ServerProcess(tmp_path / "data", *HOLDING, cwd=ROOT) as server:
        async with wire_client(server.ws, server.token("mia")) as client:
            await until_over(client, await ask(client, "go", agent="threading"))
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(status_of, server) == 0
        assert closed_cleanly(server)
