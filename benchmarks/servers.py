"""The servers under measurement: fresh processes on the server's core, over temporary data."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import ROOT, on_server_core
from towpath.testing.oidc_provider import OidcProvider
from towpath.testing.server import ServerProcess, free_port

START_SECONDS = 20.0
"""How long a peer may take to listen."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs."""

    port: int
    pid: int


@contextlib.contextmanager
def gateway(
    app: str = "benchmarks.agents", *, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Running, ServerProcess]]:
    """Run `towpath serve` with a gateway of this package; its process makes tokens.

    Args:
        app: the gateway's module.
        environment: settings that name an issuer; None takes the development key.
    """
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
        server = ServerProcess(
            Path(folder, "data"),
            *("--app", app),
            environment=environment,
            development=environment is None,
            cwd=ROOT,
        )
        with on_server_core():
            server.start()
        assert server.process is not None, "it was started"
        try:
            yield Running(server.port, server.process.pid), server
        finally:
            server.stop()


@contextlib.asynccontextmanager
async def gateway_of(provider: OidcProvider) -> AsyncIterator[Running]:
    """Run `towpath serve` with the keys of a provider that runs in this very loop."""
    environment = {
        "TOWPATH_JWT_ISSUER": provider.issuer,
        "TOWPATH_JWT_AUDIENCE": provider.audience,
        "TOWPATH_TENANT_CLAIM": provider.tenant_claim,
    }
    with contextlib.ExitStack() as stack:
        # The server is ready once it has fetched the keys, so this loop has to go on meanwhile.
        running, _ = await asyncio.to_thread(stack.enter_context, gateway(environment=environment))
        yield running


def numbers(port: int) -> dict[str, float]:
    """Return what `/metrics` of a gateway shows: each series with its labels, to its value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    shown = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {series: float(value) for series, _, value in shown}


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
