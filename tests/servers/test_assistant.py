"""A real server whose assistant uses a real local model, or a scripted service."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.kit.model_server import Fails, ModelServer, Says
from tests.servers.conversation import ask, text_of, until_over, until_text
from towpath.testing.server import ServerDied, ServerProcess, free_port
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

KEY = "sk-0123456789abcdef"
LOCAL = {"TOWPATH_MODEL": "local"}


def environment(model: ModelServer) -> dict[str, str]:
    """Return the environment of a server that uses this service."""
    return {
        "TOWPATH_MODEL": "clever",
        "OPENAI_BASE_URL": model.base_url,
        "OPENAI_API_KEY": KEY,
    }


def children(server: ServerProcess) -> list[psutil.Process]:
    """Return the child processes of a server."""
    assert server.process is not None
    return list(psutil.Process(server.process.pid).children(recursive=True))


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether processes have ended, within five seconds."""
    _, alive = psutil.wait_procs(processes, timeout=5)
    return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


async def test_a_newcomer_is_answered_by_a_model_on_this_machine(tmp_path: Path) -> None:
    """The assistant is listed first; it streams text; the model starts with the first run."""
    with ServerProcess(tmp_path / "data", environment=LOCAL) as server:
        assert children(server) == []
        async with wire_client(server.ws, server.token()) as client:
            listed = await client.rpc("agent.list")
            started = await ask(client, "What is the capital of France?", agent="assistant")
            ended = await until_over(client, started, seconds=50)
            events = client.events(started.channel)
        (model,) = children(server)
        assert server.stop() == 0
        assert all_gone([model])
    assert [one["name"] for one in listed["agents"]] == ["assistant", "tools", "echo"]
    assert text_of(events).strip()
    assert sum(one["type"] == "TEXT_MESSAGE_CONTENT" for one in events) > 3
    assert ended["outcome"] == {"type": "success"}


async def test_stop_ends_the_generation_of_the_real_model(tmp_path: Path) -> None:
    """After run.cancel the model's process uses no more CPU time."""
    with ServerProcess(tmp_path / "data", environment=LOCAL) as server:
        async with wire_client(server.ws, server.token()) as client:
            story = "Write a very long story about a river, with many chapters."
            started = await ask(client, story, agent="assistant")
            await until_text(client, started, seconds=50)
            await client.rpc("run.cancel", request_id="stop", run_id=started.run)
            ended = await until_over(client, started)
        (model,) = children(server)
        await asyncio.sleep(1.0)
        before = model.cpu_times().user
        await asyncio.sleep(1.0)
        assert model.cpu_times().user - before < 0.1
    assert ended["outcome"] == {"type": "cancelled"}


async def test_kill_9_of_the_server_leaves_no_model(tmp_path: Path) -> None:
    """The process of the model ends with a server that is killed during a run."""
    with ServerProcess(tmp_path / "data", environment=LOCAL) as server:
        async with wire_client(server.ws, server.token()) as client:
            started = await ask(client, "Write a long story.", agent="assistant")
            await until_text(client, started, seconds=50)
            left = children(server)
            await asyncio.to_thread(server.kill)
            assert len(left) == 1
            assert await asyncio.to_thread(all_gone, left)


async def test_a_service_is_asked_and_hung_up_on(tmp_path: Path) -> None:
    """The configured service gets key and model; a cancelled run closes its connection."""
    async with ModelServer(Says(pieces=["word "] * 1000, pause=0.02)) as model:
        server = ServerProcess(tmp_path / "data", environment=environment(model))
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, server.token()) as client:
            started = await ask(client, "hello", agent="assistant")
            await until_text(client, started)
            await client.rpc("run.cancel", request_id="stop", run_id=started.run)
            async with asyncio.timeout(2):
                await model.hung_up.wait()
            await until_over(client, started)
        await asyncio.to_thread(server.stop)
    assert (model.requests[0].key, model.requests[0].body["model"]) == (KEY, "clever")
    assert model.sent < 500


async def test_a_stop_of_the_server_hangs_up_too(tmp_path: Path) -> None:
    """Draining ends the run with run.drained and closes the connection to the service."""
    async with ModelServer(Says(pieces=["word "] * 3000, pause=0.02)) as model:
        server = ServerProcess(tmp_path / "data", environment=environment(model))
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, server.token()) as client:
            started = await ask(client, "hello", agent="assistant")
            await until_text(client, started)
            assert await asyncio.to_thread(server.stop) == 0
            assert (await until_over(client, started))["code"] == "run.drained"
        assert model.hung_up.is_set()


async def test_errors_are_told_in_codes_and_no_key_anywhere(tmp_path: Path) -> None:
    """The code names the error; neither the client nor the log gets the key."""
    body = b'{"error": {"message": "bad key %s", "code": null}}' % KEY.encode()
    async with ModelServer(Fails(status=401, body=body)) as model:
        server = ServerProcess(
            tmp_path / "data", "--log-level", "DEBUG", environment=environment(model)
        )
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, server.token()) as client:
            started = await ask(client, "a private question", agent="assistant")
            ended = await until_over(client, started)
            frames = repr(client.frames)
        await asyncio.to_thread(server.stop)
    assert (ended["type"], ended["code"]) == ("RUN_ERROR", "model.key_refused")
    stored = b"".join(one.read_bytes() for one in server.data.iterdir() if one.is_file())
    assert KEY not in frames + server.log.read_text()
    assert "private" not in server.log.read_text()
    assert KEY.encode() not in stored


def test_one_line_says_where_and_which_model(tmp_path: Path) -> None:
    """Address, model and data directory, in the only line on standard output."""
    for given, model in (("local", "model: SmolLM2-135M on this machine"), ("none", "no model")):
        with ServerProcess(tmp_path / given, environment={"TOWPATH_MODEL": given}) as server:
            lines = server.log.read_text().splitlines()
        (line,) = [one for one in lines if not one.startswith("{")]
        data = re.escape(str(server.data))
        assert re.fullmatch(
            rf"Towpath is ready: {server.http}/  \({model}, data in {data}\)", line
        ), line


def test_a_model_that_cannot_be_asked_does_not_start(tmp_path: Path) -> None:
    """An incomplete setting is one line and exit status 2, before anything is opened."""
    given = {"TOWPATH_MODEL": "gpt", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    server = ServerProcess(tmp_path / "data", environment=given)
    with pytest.raises(ServerDied, match="OPENAI_API_KEY") as died:
        server.start()
    assert len(str(died.value).splitlines()) == 1


def test_ctrl_c_ends_the_answer_before_the_model(tmp_path: Path) -> None:
    """Ctrl-C signals the whole process group; the model waits for the gateway."""
    port = free_port()
    command = [sys.executable, "-m", "towpath", "serve", "--dev", "--port", str(port)]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [*command, "--data", str(tmp_path / "data")],
        env={**os.environ, **LOCAL},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    server = ServerProcess(tmp_path / "data", port=port)
    server.process = process
    try:
        server.await_ready()

        left: list[psutil.Process] = []

        async def talk() -> str:
            async with wire_client(server.ws, server.token()) as client:
                started = await ask(client, "Write a long story.", agent="assistant")
                await until_text(client, started, seconds=50)
                left.extend(children(server))
                assert os.getpgid(left[0].pid) != os.getpgid(process.pid)
                os.killpg(process.pid, signal.SIGINT)
                return str((await until_over(client, started))["code"])

        assert asyncio.run(talk()) == "run.drained"
        assert process.wait(timeout=20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        log.close()
    assert len(left) == 1
    assert all_gone(left)
