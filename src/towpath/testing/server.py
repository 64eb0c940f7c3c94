"""A real `towpath serve` in a process of its own, on a free port, stopped by its process id."""

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
    """The process ended before it was ready; the message is what it said."""


def free_port() -> int:
    """Return a port of the loopback address nobody listens on."""
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
        """Describe a server; nothing runs yet.

        Args:
            data: its data directory; its output goes to `server.log` beside it.
            arguments: more of `towpath serve`.
            port: where it listens; None takes a free one.
            environment: added to this process's own; without TOWPATH_MODEL there is no model.
            development: whether it runs with `--dev`.
            cwd: where it runs.
        """
        self.data = data
        self.port = port or free_port()
        self.log = data.with_name(f"{data.name}.log")
        self._arguments: Sequence[str] = arguments
        # What this machine's owner set for other programs is no business of a test.
        given = {"TOWPATH_MODEL": "none", **(environment or {})}
        self.environment: dict[str, str] = {**os.environ, **given}
        """What the process is started with; what is changed counts from the next start on."""
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
        """Return a token of this server's development key; one that is over for a negative ttl."""
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
        """Start it and wait for nothing."""
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
        """Whether it says that it is."""
        try:
            with urllib.request.urlopen(f"{self.http}/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> int:
        """Ask it to stop, wait, and return its exit status."""
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
