"""A real `towpath serve` in its own process, on a free port, stopped by its process id."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from towpath.auth.development import development_key, sign

START_SECONDS = 60.0
"""How long a server may take to be ready."""


class ServerDied(Exception):
    """The process ended before it was ready; the message is its output."""


def free_port() -> int:
    """Return a free port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """One server over one data directory; a context manager. It may be killed and started again."""

    def __init__(
        self,
        data: Path,
        *arguments: str,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        development: bool = True,
        cwd: Path | None = None,
    ) -> None:
        """Describe a server; it does not run yet.

        Args:
            data: its data directory; its output goes to `server.log` beside it.
            arguments: further arguments of `towpath serve`.
            port: its port; None chooses a free one.
            environment: added to the environment of this process; without TOWPATH_MODEL in it
                there is no model.
            development: whether it runs with `--dev`.
            cwd: its working directory.
        """
        self.data = data
        self.port = port or free_port()
        self.log = data.with_name(f"{data.name}.log")
        self._arguments: Sequence[str] = arguments
        # Variables that this machine sets for other programs must not affect a test.
        given = {"TOWPATH_MODEL": "none", **(environment or {})}
        self.environment: dict[str, str] = {**os.environ, **given}
        """The environment of the process; a change applies from the next start."""
        self._development = development
        self._cwd = cwd
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def http(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """The URL of the WebSocket endpoint."""
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    def token(
        self, user: str = "alice", tenant: str = "acme", *, ttl: float = 3600.0, role: str = ""
    ) -> str:
        """Return a token of the development key; a negative ttl makes an expired token."""
        key = development_key(self.data)
        roles = [role] if role else []
        return sign(key, user=user, tenant=tenant, roles=roles, now=time.time(), ttl=ttl)

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ServerDied: it ended instead.
        """
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start it without waiting."""
        command = [sys.executable, "-m", "towpath", "serve", "--port", str(self.port)]
        command += ["--data", str(self.data), *(["--dev"] if self._development else [])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self._arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                cwd=self._cwd,
            )

    def await_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            ServerDied: it ended instead.
        """
        assert self.process is not None, "it was started"
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerDied(self.log.read_text())
            time.sleep(0.05)

    def ready(self) -> bool:
        """Whether its readiness endpoint answers 200."""
        try:
            with urllib.request.urlopen(f"{self.http}/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> int:
        """Stop it with SIGTERM, wait, and return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Kill it without warning."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None, "it was started"
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout=30)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
