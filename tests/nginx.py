"""A real nginx in front of a port of this machine, configured as people configure it."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from towpath.testing.server import free_port

START_SECONDS = 10.0
CONFIGURATION = """
daemon off;
# One process, of whoever runs the tests: workers of root would be somebody else's.
master_process off;
pid nginx.pid;
error_log error.log info;
events {{ worker_connections 512; }}
http {{
  access_log access.log;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  {http}
}}
"""
"""What any nginx needs to run for one test."""
HTTP = """
proxy_headers_hash_bucket_size 128;
map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
server {{
  listen 127.0.0.1:{port};
  {server}
  location / {{
    proxy_pass http://127.0.0.1:{upstream};
    proxy_http_version 1.1;
    {location}
  }}
}}
"""
HEADERS = {
    "Host": "$http_host",
    "Upgrade": "$http_upgrade",
    "Connection": "$connection_upgrade",
    "X-Forwarded-For": "$proxy_add_x_forwarded_for",
    "X-Forwarded-Proto": "$scheme",
}
"""What a request says to the server behind; the others are passed on as they came."""


class Nginx:
    """One that runs; use `nginx` to start it."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        """Where it listens."""
        self.directory = directory
        """Where it keeps `nginx.conf`, `access.log` and `error.log`."""

    @property
    def http(self) -> str:
        """The base URL of the server behind it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """The URL of the WebSocket endpoint of a Towpath server behind it."""
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    @property
    def access_log(self) -> str:
        """What it logged of the requests that are over, in nginx's default format."""
        return (self.directory / "access.log").read_text()

    @property
    def error_log(self) -> str:
        """What else it logged, from `info` upwards."""
        return (self.directory / "error.log").read_text()


@contextmanager
def nginx(
    upstream: int,
    *,
    strip: Sequence[str] = (),
    header_buffers: tuple[int, int] | None = None,
    read_timeout: float | None = None,
    server: Sequence[str] = (),
    location: Sequence[str] = (),
) -> Iterator[Nginx]:
    """Start nginx in front of a port, wait until it listens, and end it afterwards.

    It passes on WebSocket upgrades, the Host header, and the client's address in X-Forwarded-For.

    Args:
        upstream: the port requests go to.
        strip: headers of requests that are left out, such as Authorization.
        header_buffers: number and bytes of `large_client_header_buffers`; None for nginx's own,
            four of 8 KiB. A longer header line gets 400 from nginx itself.
        read_timeout: seconds of `proxy_read_timeout`, after which a silent upstream is given up;
            None for nginx's own, 60.
        server: more directives of the server, without the semicolon.
        location: more directives of its one location, without the semicolon.
    """
    servers, locations = list(server), list(location)
    headers = HEADERS | dict.fromkeys(map(str.title, strip), '""')
    locations += [f"proxy_set_header {name} {value}" for name, value in headers.items()]
    if header_buffers is not None:
        servers.append("large_client_header_buffers {} {}".format(*header_buffers))
    if read_timeout is not None:
        locations.append(f"proxy_read_timeout {int(read_timeout * 1000)}ms")
    with tempfile.TemporaryDirectory() as name:
        started = Nginx(free_port(), Path(name))
        http = HTTP.format(
            port=started.port,
            upstream=upstream,
            server=_lines(servers),
            location=_lines(locations),
        )
        with running(http, started.directory, started.port):
            yield started


@contextmanager
def running(http: str, directory: Path, port: int) -> Iterator[None]:
    """Run nginx with this inside its `http`, wait until it listens, and end it afterwards.

    Args:
        http: directives and servers.
        directory: where its files go.
        port: where one of the servers listens.
    """
    (directory / "nginx.conf").write_text(CONFIGURATION.format(http=http))
    with subprocess.Popen(_command(str(directory)), stdin=subprocess.DEVNULL) as process:
        try:
            _await_listening(port, process)
            yield
        finally:
            process.terminate()


def _lines(directives: Sequence[str]) -> str:
    return "".join(f"{directive};\n" for directive in directives)


def _command(directory: str) -> list[str]:
    # Debian keeps it where only root looks.
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, "tools/nginx says whether it is there"
    return [found, "-p", directory, "-c", "nginx.conf", "-e", "error.log"]


def _await_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            assert process.poll() is None, "it ended; what it said is in the captured stderr"
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.02)
