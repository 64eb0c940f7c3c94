"""What the documentation says about authentication is run as it stands there."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.docs.test_examples import README, TOKENS, block, run, run_javascript
from tools.docs import ROOT
from towpath import CircuitBreaker
from towpath.testing.oidc_provider import OidcProvider
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

PROVIDERS = ROOT / "docs/how-to/use-an-identity-provider.md"
TICKETS = ROOT / "docs/how-to/use-tickets.md"
REVOKE = ROOT / "docs/how-to/revoke-access.md"
NGINX = ROOT / "docs/how-to/serve-behind-nginx.md"
PYTHON = ROOT / "docs/reference/python.md"
PAGE_ORIGIN = "https://chat.example.com"
BARE = {name: value for name, value in os.environ.items() if not name.startswith("TOWPATH_")}
"""The environment without settings of whoever runs the tests."""
WITH_PROGRAMS = {**BARE, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
STYLES: dict[str, dict[str, Any]] = {
    "https://example.eu.auth0.com/": {"org_id": "acme", "permissions": ["towpath:inspect"]},
    "https://id.example.com/realms/acme": {"realm_access": {"roles": ["towpath:inspect"]}},
    "https://accounts.google.com": {"hd": "acme"},
}
"""What else than `sub` and `aud` is in the tokens of each kind of issuer, by its `iss`."""


def exported(code: str) -> dict[str, str]:
    """Return the settings that a block of shell code exports, as the shell reads them."""
    started = re.compile(r"^ *(\S*uvicorn|towpath) .*", re.MULTILINE)
    shell = ["bash", "-euc", f"{started.sub('', code)}\nexec env -0"]
    done = subprocess.run(shell, env=BARE, capture_output=True, text=True, check=True)
    pairs = (pair.partition("=") for pair in done.stdout.split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("TOWPATH_")}


def blocks_with_settings() -> dict[str, str]:
    """Return each block of the pages that has the reader set up issuers, by where it stands."""
    found = {}
    for page in (README, TOKENS, PROVIDERS, NGINX):
        text = page.read_text()
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
        for number, code in enumerate(blocks):
            if "JWT_KEY" in code or "ISSUER" in code:
                found[f"{page.stem}-{number}"] = code
    return found


BLOCKS = blocks_with_settings()


@pytest.mark.parametrize("where", BLOCKS)
def test_the_settings_of_the_pages_would_start(tmp_path: Path, where: str) -> None:
    """Whatever a page has its reader export, `towpath config check` finds nothing wrong with it."""
    code = BLOCKS[where].replace("TOWPATH_JWT_KEY=…", f"TOWPATH_JWT_KEY={'k' * 32}")
    check = [sys.executable, "-m", "towpath", "config", "check", "--data", str(tmp_path / "data")]
    environment = {**BARE, **exported(code)}
    done = subprocess.run(
        check, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "towpath serve would start with this" in done.stdout
    assert not (tmp_path / "data").exists()


@pytest.mark.servers
@pytest.mark.parametrize("issuer", STYLES)
async def test_each_kind_of_provider_gets_its_people_in(tmp_path: Path, issuer: str) -> None:
    """With a page's settings, a token as that kind of issuer gives it is its person's."""
    settings = exported(block(PROVIDERS, "sh", f"TOWPATH_JWT_ISSUER={issuer}\n"))
    audience = settings["TOWPATH_JWT_AUDIENCE"]
    async with OidcProvider(audience=audience, tenant_claim="of_ours") as provider:
        provider.issuer = provider.http + urlsplit(issuer).path
        settings["TOWPATH_JWT_ISSUER"] = provider.issuer
        server = ServerProcess(tmp_path / "data", environment=settings, development=False)
        await asyncio.to_thread(server.start)
        try:
            token = provider.token("auth0|1", of_ours=..., **STYLES[issuer])
            headers = {"authorization": f"Bearer {token}"}
            async with httpx2.AsyncClient(base_url=server.http, trust_env=False) as client:
                said = (await client.get("/api/v1/whoami", headers=headers)).json()
        finally:
            await asyncio.to_thread(server.stop)
    roles = ["towpath:inspect"] if "TOWPATH_ROLES_CLAIM" in settings else []
    assert (said["user"], said["tenant"], said["roles"]) == ("auth0|1", "acme", roles)


@pytest.mark.servers
async def test_a_back_end_fetches_a_ticket_for_its_page(tmp_path: Path) -> None:
    """The ticket of the page's code lets its page in, once, and nobody else."""
    allowed = {"TOWPATH_ALLOWED_ORIGINS": json.dumps([PAGE_ORIGIN])}
    with ServerProcess(tmp_path / "data", environment=allowed) as server:
        code = block(TICKETS, "python", "def fetch_ticket").replace(
            "os.environ['TOKEN']", repr(server.token("alice", "demo"))
        )
        first, second = [(await asyncio.to_thread(fetch, code, tmp_path, server)) for _ in "ab"]
        async with wire_client(f"{server.ws}?ticket={first}", origin=PAGE_ORIGIN) as page:
            assert "error" not in await page.connect()
            assert (await page.rpc("whoami"))["user"] == "alice"
        async with wire_client(f"{server.ws}?ticket={first}", origin=PAGE_ORIGIN) as page:
            assert (await page.connect())["error"]["code"] == 109
        async with wire_client(f"{server.ws}?ticket={second}") as stranger:
            await stranger.send({"id": 1, "connect": {}})
            assert await stranger.until_closed() == 3500


def fetch(code: str, where: Path, server: ServerProcess) -> str:
    """Run a page's program and return the ticket it prints."""
    return run(code, where, port=server.port).strip()


@pytest.mark.servers
@pytest.mark.sdk_js
@pytest.mark.parametrize("holding", ["?ticket=", "getToken"], ids=["url", "sdk"])
def test_the_javascript_of_the_tickets_page_connects(tmp_path: Path, holding: str) -> None:
    """A socket that is given a URL only, and the unmodified SDK, both get in with a ticket."""
    with ServerProcess(tmp_path / "data") as server:
        headers = {"authorization": f"Bearer {server.token('alice', 'demo')}"}
        url = f"{server.http}/api/v1/tickets"
        ticket = httpx2.post(url, headers=headers, trust_env=False).json()["ticket"]
        head = 'import { Centrifuge } from "centrifuge";\n'
        head += f'const address = "{server.ws}", ticket = "{ticket}";\n'
        head += "const fetch = async () => ({ text: () => ticket });\n"
        code = block(TICKETS, "js", holding)
        if holding == "getToken":
            code += 'client.on("connected", ({ client }) => { console.log(client); '
            code += "process.exit(0); });\nclient.connect();\n"
        else:
            code += "socket.addEventListener('message', () => process.exit(0));\n"
        printed = run_javascript(head + code, tmp_path, timeout=60)
    assert re.search(r"\b[0-9a-f]{32}\b", printed), printed


@pytest.mark.servers
@pytest.mark.parametrize("who", ["operator", "developer"])
async def test_the_commands_of_the_revocation_page_take_access_back(
    tmp_path: Path, who: str
) -> None:
    """As an operator with a token, or in development without one: 3507, and nobody gets back in."""
    with ServerProcess(tmp_path / ".towpath") as server:
        if who == "operator":
            role = f"TOWPATH_TOKEN={server.token('op', 'demo', role='towpath:revoke')}"
            command = block(REVOKE, "sh", "TOWPATH_TOKEN=…").replace("TOWPATH_TOKEN=…", role)
        else:
            (found,) = re.findall(r"`(towpath revoke .* --tenant .*)`", REVOKE.read_text())
            command = f"{found} --url {PAGE_ORIGIN}"
        token = server.token("alice", "demo")
        async with wire_client(server.ws, token) as client:
            code = command.replace(PAGE_ORIGIN, server.http)
            assert await asyncio.to_thread(printed, code, tmp_path) == "revoked\n"
            assert await client.until_closed() == 3507
        async with wire_client(server.ws) as client:
            await client.send({"id": 1, "connect": {"token": token}})
            assert await client.until_closed() == 3507


def printed(code: str, where: Path) -> str:
    """Run shell code of a page and return what it printed."""
    shell = ["bash", "-euc", code]
    done = subprocess.run(
        shell, cwd=where, env=WITH_PROGRAMS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_breaker_of_the_reference_spares_what_does_not_answer() -> None:
    """After two failed calls the example does not call again."""
    names: dict[str, object] = {}
    exec(compile(block(PYTHON, "python", "CircuitBreaker("), PYTHON.name, "exec"), names)
    calls = []

    def fetch_price() -> float:
        calls.append("call")
        raise OSError

    look_up = names["look_up"]
    assert callable(look_up)
    names["prices"] = CircuitBreaker("prices", failure_threshold=2)  # The block opened its own.
    assert [look_up(fetch_price) for _ in range(4)] == [None] * 4
    assert len(calls) == 2
