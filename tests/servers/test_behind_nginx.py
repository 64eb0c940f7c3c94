"""A real nginx in front, as usually configured: headers it drops, bounds and adds."""

import datetime
import ipaddress
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.exceptions import InvalidStatus

from tests.nginx import Nginx, nginx
from tests.servers.conversation import ask, text_of, until_over
from tests.servers.heads import AT_ONCE, TOO_LARGE, head, line_of, status_of
from tests.servers.issuing import connect_once, environment, http_client
from towpath.auth.development import development_key, sign
from towpath.testing.server import ServerProcess, free_port
from towpath.testing.wire_client import wire_client

pytestmark = [pytest.mark.servers, pytest.mark.nginx]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that trusts the proxy in front of it."""
    # With no refill, a slow machine spends the allowance of failures like a fast one.
    settings = environment(
        trusted_proxies='["127.0.0.1/32"]', failures_burst=20, failures_per_second=0.001
    )
    data = tmp_path_factory.mktemp("behind") / "data"
    with ServerProcess(data, environment=settings) as process:
        yield process


@pytest.fixture(scope="module")
def front(server: ServerProcess) -> Iterator[Nginx]:
    """nginx in front of it, as it comes but for a header it drops."""
    with nginx(server.port, strip=["Authorization"]) as started:
        yield started


def encoded(token: str) -> str:
    """Return a token as `jwt.` entries have it."""
    return urlsafe_b64encode(token.encode()).decode().rstrip("=")


def large_token(server: ServerProcess, size: int) -> str:
    """Return a good token of at least this many bytes, by what it says of roles."""
    key, roles = development_key(server.data), [f"role-{'x' * 240}"]
    while (
        len(token := sign(key, user="big", tenant="acme", roles=roles, now=time.time(), ttl=900))
        < size
    ):
        roles.append(f"role-{'x' * 24}")
    return token


# -- credentials ---------------------------------------------------------------------------------


async def test_r18_where_authorization_is_dropped_the_other_sources_log_in(
    server: ServerProcess, front: Nginx
) -> None:
    """The header does not arrive; connect.token, ticket and both sub-protocols do, and log in."""
    token = server.token("dropped")
    headers = {"Authorization": f"Bearer {token}"}
    assert (await connect_once(server.ws, additional_headers=headers)).accepted
    assert (await connect_once(front.ws, additional_headers=headers)).code == 3500
    assert (await connect_once(front.ws, token)).accepted
    async with http_client(server, token) as rest:
        ticket = (await rest.post("/api/v1/tickets", json={})).json()["ticket"]
    assert (await connect_once(f"{front.ws}?ticket={ticket}")).accepted
    assert (await connect_once(f"{front.ws}?ticket={ticket}")).code == 109
    for entry in (f"jwt.{encoded(token)}", f"bearer.{token}"):
        for offered in (["centrifuge-json", entry], [entry, "towpath.v1"]):
            plain = next(name for name in offered if name != entry)
            async with wire_client(front.ws, subprotocols=offered) as client:
                assert client.socket.subprotocol == plain, "the name, never the token"
                await client.connect()
                started = await ask(client, "count 20 at 100/s")
                await until_over(client, started)
                text = text_of(client.events(started.channel))
                assert text == " ".join(map(str, range(1, 21)))
    assert token not in front.access_log
    assert encoded(token) not in front.access_log


async def test_r18_tokens_of_4_kib_travel_in_headers_and_of_16_in_connect(
    server: ServerProcess,
) -> None:
    """As nginx comes, and with nothing in front: what is promised of sizes holds."""
    token = large_token(server, 4000)
    assert 4000 <= len(token) <= 4096 + 50
    with nginx(server.port) as plain:
        for url in (server.ws, plain.ws):
            headers = {"Authorization": f"Bearer {token}"}
            assert (await connect_once(url, additional_headers=headers)).accepted
            for entry in (f"bearer.{token}", f"jwt.{encoded(token)}"):
                offered = ["centrifuge-json", entry]
                assert (await connect_once(url, subprotocols=offered)).accepted
            assert (await connect_once(url, large_token(server, 16 * 1024 - 100))).accepted


# -- heads that are too large --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "buffers", "status"), [(9000, None, 400), (9000, (4, 32768), TOO_LARGE)]
)
async def test_a_head_too_large_is_refused_at_once_behind_nginx(
    server: ServerProcess, size: int, buffers: tuple[int, int] | None, status: int
) -> None:
    """The head is refused at once: by nginx with 400, or by us with 431."""
    with nginx(server.port, header_buffers=buffers) as started:
        for path in ("/health/live", "/connection/websocket"):
            found, seconds = await status_of(started.port, head(path, line_of(size)))
            assert (found, seconds < AT_ONCE) == (status, True), path


# -- what a proxy says ---------------------------------------------------------------------------


async def test_r23_behind_nginx_clients_fail_each_on_their_own(
    server: ServerProcess, front: Nginx, tmp_path: Path
) -> None:
    """Trusted, nginx tells clients apart, and each fails on its own; untrusted, they are one."""

    async def connect_from(url: str, address: str, token: str) -> int:
        headers = {"X-Forwarded-For": address}
        return (await connect_once(url, token, additional_headers=headers)).code

    for number in range(20):
        assert await connect_from(front.ws, "203.0.113.1", f"bad-{number}.x.y") == 3500
    assert await connect_from(front.ws, "203.0.113.1", server.token("late")) == 111
    assert await connect_from(front.ws, "203.0.113.2", server.token("ann")) == 0
    settings = environment(failures_burst=5, failures_per_second=0.001)
    with (
        ServerProcess(tmp_path / "data", environment=settings) as unaware,
        nginx(unaware.port) as other,
    ):
        for number in range(5):
            assert await connect_from(other.ws, f"203.0.113.{number}", f"bad-{number}.x.y") == 3500
        assert await connect_from(other.ws, "203.0.113.99", unaware.token("ann")) == 111


def certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 and its key; return where."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


async def test_a_page_behind_tls_is_of_the_same_origin(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Where nginx ends TLS, the page's https origin is ours if nginx is trusted, else foreign."""
    cert, key = certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(cert))
    with ServerProcess(tmp_path / "data") as unaware:
        for behind, own in ((server, 0), (unaware, 403)):
            port = free_port()
            tls = [
                f"listen 127.0.0.1:{port} ssl",
                f"ssl_certificate {cert}",
                f"ssl_certificate_key {key}",
            ]
            token = behind.token("page")
            with nginx(behind.port, server=tls):
                url = f"wss://127.0.0.1:{port}/connection/websocket"
                page = f"https://127.0.0.1:{port}"
                assert await try_from(url, page, token, trust) == own
                assert await try_from(url, page.replace("https", "http"), token, trust) == (
                    403 if behind is server else 0
                )
                assert await try_from(url, "https://evil.example", token, trust) == 403


async def try_from(url: str, page: str, token: str, trust: ssl.SSLContext) -> int:
    """Connect as a page does; return the status of a refused upgrade, else the verdict."""
    try:
        return (await connect_once(url, token, origin=page, ssl=trust)).code
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_r12_no_demo_token_goes_through_a_proxy(server: ServerProcess, front: Nginx) -> None:
    """Trusted or not, a proxy's request is not one of this machine's page."""
    async with http_client(server) as direct:
        for base, status in ((server.http, 200), (front.http, 404)):
            page = {"origin": base}
            answer = await direct.post(f"{base}/dev/token", json={"user": "alice"}, headers=page)
            assert answer.status_code == status
        answer = await direct.get(f"{front.http}/page.json")
        assert answer.json()["demo_users"] == []
