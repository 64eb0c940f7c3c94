"""The servers under measurement: fresh processes on the server's core, over temporary data."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import ROOT, on_server_core
from towpath.testing.server import ServerProcess, free_port

START_SECONDS = 20.0
"""How long a peer may take to listen."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs."""

    port: int
    pid: int


@contextlib.contextmanager
def gateway() -> Iterator[tuple[Running, ServerProcess]]:
    """Run `towpath serve` with the agents of this package; its process makes tokens."""
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
        server = ServerProcess(Path(folder, "data"), "--app", "benchmarks.agents", cwd=ROOT)
        with on_server_core():
            server.start()
        assert server.process is not None, "it was started"
        try:
            yield Running(server.port, server.process.pid), server
        finally:
            server.stop()


@contextlib.contextmanager
def starlette_loop() -> Iterator[Running]:
    """Run the peer."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.peers.starlette_loop", str(port)]
    with on_server_core():
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield Running(port, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"the peer does not listen on {port}")
