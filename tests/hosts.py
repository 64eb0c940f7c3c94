"""Applications that have a gateway in them, and the servers that serve them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from joserfc.jwk import OctKey
from starlette.types import ASGIApp

from towpath.auth.development import sign
from towpath.testing.server import free_port

SECRET = "a shared secret of more than 32 bytes"
SERVERS = {
    "uvicorn": ("--host", "127.0.0.1", "--port", "{port}"),
    "hypercorn": ("--bind", "127.0.0.1:{port}"),
    "granian": ("--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"),
}
"""Modules that are ASGI servers, and what tells them where to listen."""
START_SECONDS = 60.0


class HostDied(Exception):
    """The process ended before it was ready; the message is what it said."""


def token(user: str = "guest", *, secret: str = SECRET, tenant: str = "acme") -> str:
    """Return a token signed with a shared secret."""
    key = OctKey.import_key(secret)
    return sign(key, user=user, tenant=tenant, now=time.time(), ttl=600)


@contextmanager
def served(app: ASGIApp, *, lifespan: str = "on") -> Iterator[str]:
    """Serve an application in a thread with uvicorn as it comes; yield its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(app, log_config=None, lifespan=lifespan)  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        assert server.started
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


class HostProcess:
    """One application in a process of its own; a context manager. It may be started again."""

    def __init__(
        self,
        target: str,
        data: Path,
        *options: str,
        cwd: Path,
        server: str = "uvicorn",
        path: str = "/towpath",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a host; nothing runs yet.

        Args:
            target: the application, as `module:name`.
            data: the gateway's data directory; the output goes to a file beside it.
            options: more options of the server.
            cwd: where it runs.
            server: one of `SERVERS`.
            path: where the gateway is.
            environment: added to this process's own.
        """
        self.port = free_port()
        self.log = data.with_name(f"{data.name}.log")
        where = [option.format(port=self.port) for option in SERVERS[server]]
        self._command = [sys.executable, "-m", server, *where, *options, target]
        self._cwd = cwd
        self._path = path
        given = {"TOWPATH_DATA": str(data), "TOWPATH_JWT_KEY": SECRET, "TOWPATH_TENANT": "acme"}
        self.environment = {**os.environ, **given, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> str:
        """The base URL of the application."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        """The base URL of the gateway."""
        return f"{self.root}{self._path}"

    @property
    def ws(self) -> str:
        """The URL of the gateway's WebSocket."""
        return f"ws{self.http.removeprefix('http')}/connection/websocket"

    @property
    def said(self) -> str:
        """What the process wrote."""
        return self.log.read_text()

    def start(self) -> None:
        """Start it, and wait until the gateway is ready.

        Raises:
            HostDied: it ended instead.
        """
        self.launch()
        self.await_answer(f"{self.http}/health/ready")

    def launch(self) -> None:
        """Start it and wait for nothing."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def await_answer(self, url: str) -> None:
        """Wait until an address answers 200.

        Raises:
            HostDied: the process ended instead.
        """
        assert self.process is not None, "it was started"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise HostDied(self.said)
            time.sleep(0.05)

    def stop(self) -> int:
        """Ask it to stop, wait, and return its exit status."""
        assert self.process is not None, "it was started"
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

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


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
