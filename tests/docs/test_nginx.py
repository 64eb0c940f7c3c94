"""The nginx of the guide, run as it stands there, with TLS in front of a real server."""

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.docs.test_authentication import NGINX, PAGE_ORIGIN, exported
from tests.docs.test_examples import README, SECRET, minted
from tests.nginx import running
from towpath.testing.server import ServerProcess, free_port
from towpath.testing.wire_client import wire_client


@pytest.mark.servers
@pytest.mark.nginx
async def test_behind_the_nginx_of_the_page_its_own_pages_connect(tmp_path: Path) -> None:
    """By the settings of the page the https origin is the server's own, and no other one is."""
    settings = exported(indented_block(NGINX, "sh"))
    settings |= {"TOWPATH_JWT_KEY": SECRET, "TOWPATH_DATA": str(tmp_path / "data")}
    server = ServerProcess(tmp_path / "data", environment=settings, development=False)
    url = f"{PAGE_ORIGIN.replace('https', 'wss')}/connection/websocket"
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    await asyncio.to_thread(server.start)
    try:
        with nginx_of_the_page(tmp_path, server.port) as port:
            there: dict[str, Any] = {"host": "127.0.0.1", "port": port, "ssl": tls}
            async with wire_client(url, origin=PAGE_ORIGIN, **there) as page:
                assert "connect" in await page.connect(minted(README))
            with pytest.raises(InvalidStatus, match="403"):
                async with wire_client(url, origin="https://elsewhere.example.com", **there):
                    pass
    finally:
        await asyncio.to_thread(server.stop)


@contextmanager
def nginx_of_the_page(directory: Path, upstream: int) -> Iterator[int]:
    """Run nginx with the page's configuration in front of a port, and give the port it has."""
    port = free_port()
    make_certificate(directory)
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "http://127.0.0.1:8000": f"http://127.0.0.1:{upstream}",
        "/etc/ssl/chat.example.com": f"{directory}/chat",
    }
    page = indented_block(NGINX, "nginx")
    for there, here in changes.items():
        assert there in page
        page = page.replace(there, here)
    with running(page, directory, port):
        yield port


def indented_block(page: Path, language: str) -> str:
    """Return the one code block of a language that stands inside a list."""
    lines = page.read_text().splitlines()
    first = lines.index(f"   ```{language}") + 1
    return "\n".join(lines[first : lines.index("   ```", first)])


def make_certificate(directory: Path) -> None:
    """Make a certificate that nobody vouches for, under the names the page has."""
    subject = ["-subj", "/CN=chat.example.com", "-keyout", "chat.key", "-out", "chat.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
    subprocess.run(command, cwd=directory, capture_output=True, check=True)
