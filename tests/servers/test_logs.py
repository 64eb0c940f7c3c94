"""What a gateway leaves in the log: mounted into another application, served, at a terminal."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc.jwk import OctKey

from tests.servers.conversation import Started, ask, until_over
from tests.servers.issuing import log_events
from towpath.auth.development import development_key, sign
from towpath.testing.server import ServerProcess, free_port
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

SECRET = "a shared secret of more than 32 bytes"

AGENT = """
@gateway.agent("broken")
async def broken(request):
    yield "well "
    raise KeyError("x")
"""

SERVED = f"""
from towpath import Gateway

gateway = Gateway()
{AGENT}
"""

MOUNTED = f"""
import logging

from pydantic import SecretStr
from starlette.applications import Starlette

from towpath import Gateway, Settings

LOGGING
gateway = Gateway(Settings(data="data", jwt_key=SecretStr("{SECRET}"), tenant_claim="tenant"))
{AGENT}
app = Starlette()
gateway.mount(app, "/towpath")
"""

CONFIGURED = 'logging.basicConfig(level=logging.INFO, format="APP %(levelname)s %(message)s")'


@contextlib.contextmanager
def mounted(cwd: Path, configuration: str) -> Iterator[tuple[int, Path]]:
    """Run uvicorn over an application with a gateway in it; yield its port and standard error."""
    (cwd / "host.py").write_text(MOUNTED.replace("LOGGING", configuration))
    port, written = free_port(), cwd / "stderr"
    with written.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "host:app", "--port", str(port)],
            cwd=cwd,
            stderr=stderr,
            stdout=subprocess.DEVNULL,
        )
        try:
            await_ready(f"http://127.0.0.1:{port}/towpath/health/ready", process)
            yield port, written
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def await_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a server says that it is ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.05)
    raise AssertionError("the server was not ready")


async def run_broken(url: str, token: str) -> Started:
    """Ask the agent that raises, and see its run fail."""
    async with wire_client(url, token) as client:
        started = await ask(client, "please", agent="broken")
        ended = await until_over(client, started)
        assert ended["code"] == "run.failed"
    return started


def mounted_run(port: int) -> Started:
    """Ask the agent of the mounted gateway."""
    token = sign(OctKey.import_key(SECRET), user="mia", tenant="acme", now=time.time(), ttl=60)
    return asyncio.run(run_broken(f"ws://127.0.0.1:{port}/towpath/connection/websocket", token))


def test_an_agents_traceback_is_on_stderr_without_any_logging_configured(tmp_path: Path) -> None:
    """Python's own defaults show it, with the run and the thread, and nothing of less weight."""
    with mounted(tmp_path, "") as (port, stderr):
        started = mounted_run(port)
        text = stderr.read_text()
    expected = f"fault where='agent broken' thread={started.thread} run={started.run}"
    assert text.splitlines().count(expected) == 1
    assert text.count("KeyError: 'x'") == text.count("Traceback") == 1
    assert 'raise KeyError("x")' in text
    assert "run_began" not in text


def test_an_application_that_configures_logging_gets_all_of_it(tmp_path: Path) -> None:
    """The root logger's handler and level decide; each event is one line."""
    with mounted(tmp_path, CONFIGURED) as (port, stderr):
        started = mounted_run(port)
        text = stderr.read_text()
    lines = [line for line in text.splitlines() if line.startswith("APP ")]
    where = f"thread={started.thread} run={started.run}"
    assert lines.count(f"APP ERROR fault where='agent broken' {where}") == 1
    assert text.count("Traceback") == 1
    assert [line for line in lines if line.startswith("APP INFO run_began ")] == [
        f"APP INFO run_began tenant=acme user=mia {where} agent=broken"
    ]


def test_a_served_gateway_logs_each_thing_once(tmp_path: Path) -> None:
    """Its default observer is the only one that writes lines."""
    (tmp_path / "own.py").write_text(SERVED)
    with ServerProcess(tmp_path / "data", "--app", "own:gateway", cwd=tmp_path) as server:
        started = asyncio.run(run_broken(server.ws, server.token()))
        (line,) = log_events(server, "fault")
        assert len(log_events(server, "run_began")) == 1
    assert (line["where"], line["run"], line["thread"]) == (
        "agent broken", started.run, started.thread,
    )  # fmt: skip
    assert line["exception"].endswith("KeyError: 'x'")
    assert server.log.read_text().count("KeyError") == 2  # The line of the source, and the error.


@contextlib.contextmanager
def at_a_terminal(cwd: Path, *options: str) -> Iterator[tuple[str, list[str]]]:
    """Serve with a terminal for standard error; yield the URL, and what was shown after the end."""
    (cwd / "own.py").write_text(SERVED)
    port, shown = free_port(), list[str]()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "towpath", "serve", "--dev", "--port", str(port)]
    command += ["--data", "data", "--app", "own:gateway", *options]
    process = subprocess.Popen(command, cwd=cwd, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    try:
        await_ready(f"http://127.0.0.1:{port}/health/ready", process)
        yield f"ws://127.0.0.1:{port}/connection/websocket", shown
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        shown += everything(ours).decode().splitlines()
        os.close(ours)


def everything(terminal: int) -> bytes:
    """Return what was written to a terminal whose other end is closed."""
    read = b""
    with contextlib.suppress(OSError):  # Linux says EIO at the end.
        while piece := os.read(terminal, 65536):
            read += piece
    return read


def run_at_a_terminal(cwd: Path, *options: str) -> tuple[Started, list[str]]:
    """Run the agent that raises on a server at a terminal; return the run and the lines."""
    with at_a_terminal(cwd, *options) as (url, shown):
        key = development_key(cwd / "data")
        token = sign(key, user="mia", tenant="acme", now=time.time(), ttl=60)
        started = asyncio.run(run_broken(url, token))
    return started, shown


def test_at_a_terminal_a_person_reads_lines_and_tracebacks(tmp_path: Path) -> None:
    """Time, level, event and fields; a traceback as Python prints it; no JSON."""
    started, shown = run_at_a_terminal(tmp_path)
    heads = [line for line in shown if re.match(r"\d\d:\d\d:\d\d (INFO|ERROR|WARNING) +\w+ ", line)]
    (fault,) = [line for line in heads if " fault " in line]
    where = f"thread={started.thread} run={started.run}"
    assert fault[9:] == f"ERROR   fault where='agent broken' {where}"
    assert sum(" run_began " in line for line in heads) == 1
    assert shown.count("Traceback (most recent call last):") == 1
    assert shown.count("KeyError: 'x'") == 1
    assert not [line for line in shown if line.startswith("{")]


def test_a_flag_asks_for_json_at_a_terminal(tmp_path: Path) -> None:
    """`--log-format json` prints objects, whatever standard error is."""
    _, shown = run_at_a_terminal(tmp_path, "--log-format", "json")
    events = [json.loads(line)["event"] for line in shown]
    assert events.count("fault") == 1


def test_a_flag_asks_for_text_in_a_file(tmp_path: Path) -> None:
    """`--log-format text` prints lines for a person, whatever standard error is."""
    with ServerProcess(tmp_path / "data", "--log-format", "text") as server:

        async def connect() -> None:
            async with wire_client(server.ws, server.token()) as client:
                await client.rpc("whoami")

        asyncio.run(connect())
    text = server.log.read_text()
    assert re.search(r"^\d\d:\d\d:\d\d INFO    connection_opened connection=\w+ ", text, re.M)
    assert "{" not in text
