"""Agents that exit, on a real server: their run fails with a log line, and the server goes on."""

import asyncio
import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers.conversation import ask, eventually, text_of, until_over, until_text
from tests.servers.exiting_agents import CALLED
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
APPLICATION = "tests.servers.exiting_agents:gateway"


@pytest.fixture(scope="module")
def exiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose agents exit."""
    data = tmp_path_factory.mktemp("exits") / "data"
    with ServerProcess(data, "--app", APPLICATION, cwd=ROOT) as process:
        yield process


def faults(server: ServerProcess, agent: str) -> list[dict[str, Any]]:
    """Return the log lines of this agent's internal errors."""
    lines = [json.loads(one) for one in server.log.read_text().splitlines() if one[:1] == "{"]
    return [one for one in lines if one.get("where") == f"agent {agent}"]


def endings(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in events if one["type"] in TERMINAL]


def counted(server: ServerProcess, name: str) -> float:
    """Return a value of `/metrics`, 0 if it does not exist yet."""
    text = httpx2.get(f"{server.http}/metrics", trust_env=False).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@pytest.mark.parametrize(
    "agent",
    [
        *("exits", "interrupts", "parses", "thread", "task", "awaited", "group", "anyio_group"),
        *("pydantic", *CALLED),
    ],
)
async def test_r121_an_agent_that_exits_ends_its_run_and_nothing_else(
    exiting: ServerProcess, agent: str
) -> None:
    """RUN_ERROR run.failed, a line with the agent's name and a count; other runs lose no event."""
    before = counted(exiting, 'towpath_faults_total{where="agent"}')
    async with (
        wire_client(exiting.ws, exiting.token("unlucky")) as client,
        wire_client(exiting.ws, exiting.token("neighbour", "globex")) as neighbour,
    ):
        words = " ".join(f"word{n}" for n in range(20))
        beside = await ask(neighbour, words, agent="echo")
        started = await ask(client, "please", agent=agent)
        ended = await until_over(client, started, seconds=5)
        assert (ended["type"], ended["code"]) == ("RUN_ERROR", "run.failed")
        ending = await until_over(neighbour, beside)
        assert ending["type"] == "RUN_FINISHED"
        assert text_of(neighbour.events(beside.channel)).split() == words.split()
        again = await client.rpc(
            "run.start",
            request_id=uuid.uuid4().hex,
            agent="echo",
            thread_id=started.thread,
            message="hi",
        )
        await client.until(lambda: len(endings(client.events(started.channel))) == 2)
        assert (await client.rpc("run.get", run_id=again["run_id"]))["status"] == "finished"
    lines = faults(exiting, agent)
    assert lines
    assert "SystemExit" in lines[0]["exception"] or "KeyboardInterrupt" in lines[0]["exception"]
    assert counted(exiting, 'towpath_faults_total{where="agent"}') > before
    assert "never retrieved" not in exiting.log.read_text()
    assert exiting.process is not None
    assert exiting.process.poll() is None


async def test_r121_what_exits_after_its_run_is_told(exiting: ServerProcess) -> None:
    """A task that outlives its run stops nothing, and the log names its agent."""
    async with wire_client(exiting.ws, exiting.token("patient")) as client:
        ended = await until_over(client, await ask(client, "please", agent="outlived"))
        assert ended["type"] == "RUN_FINISHED"
        await eventually(lambda: asyncio.to_thread(lambda: bool(faults(exiting, "outlived"))))
        ended = await until_over(client, await ask(client, "hi", agent="echo"))
        assert ended["type"] == "RUN_FINISHED"


async def test_r121_an_agent_that_stops_the_loop_stops_nothing(exiting: ServerProcess) -> None:
    """Its run goes on, and the attempt is logged."""
    async with wire_client(exiting.ws, exiting.token("quick")) as client:
        ended = await until_over(client, await ask(client, "please", agent="stops_the_loop"))
        assert ended["type"] == "RUN_FINISHED"
    assert faults(exiting, "(not known which)")


async def test_r121_a_watcher_that_exits_is_counted_and_named(exiting: ServerProcess) -> None:
    """Each of its failures is counted; only the first one is logged."""
    before = counted(exiting, "towpath_watcher_failures ")
    async with wire_client(exiting.ws, exiting.token("watched")) as client:
        await until_over(client, await ask(client, "hi", agent="echo"))
    assert counted(exiting, "towpath_watcher_failures ") == before + 1
    lines = [one for one in exiting.log.read_text().splitlines() if "watcher_that_exits" in one]
    (line,) = [one for one in map(json.loads, lines) if one["event"].endswith("raised")]
    assert line["level"] == "error"
    assert "SystemExit: 3" in line["exception"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("agent", ["task", "exits_when_stopped", "leaves_open", "outlived"])
async def test_r121_no_agent_chooses_the_exit_status(
    tmp_path: Path, agent: str, how: signal.Signals
) -> None:
    """After an exit a stop signal still ends the server with 0, whatever agents do meanwhile."""
    with ServerProcess(tmp_path / "data", "--app", APPLICATION, cwd=ROOT) as server:
        async with wire_client(server.ws, server.token()) as client:
            started = await ask(client, "please", agent=agent)
            await until_text(client, started)
        assert server.process is not None
        server.process.send_signal(how)
        status = await asyncio.to_thread(server.process.wait, 30)
    assert status == 0, server.log.read_text()
    if agent == "leaves_open":  # It exits when all else is closed, and nobody's context is left.
        assert faults(server, "(not known which)")
