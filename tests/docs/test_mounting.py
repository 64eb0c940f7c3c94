"""What the guide to mounting shows is what the examples hold, and its programs run as written."""

import re
from pathlib import Path

import httpx2
import pytest

from tests.hosts import HostProcess, token
from tools.docs import ROOT
from towpath.errors import NotRunning

GUIDE = (ROOT / "docs/how-to/mount-in-your-application.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
PROGRAMS = [block for block in BLOCKS if "from towpath import" in block]
EXCERPTS = [block for block in BLOCKS if block not in PROGRAMS]
EXAMPLES = [path.read_text() for path in sorted((ROOT / "examples").glob("*_app.py"))]


def program(holding: str) -> str:
    """Return the one program of the guide that holds this text."""
    (found,) = [block for block in PROGRAMS if holding in block]
    return str(found)


@pytest.mark.parametrize("excerpt", EXCERPTS)
def test_an_excerpt_stands_in_an_example(excerpt: str) -> None:
    """The guide shows lines of the examples, which run, and nothing that resembles them."""
    assert any(excerpt in example for example in EXAMPLES)


@pytest.mark.parametrize("example", [path.name for path in (ROOT / "examples").glob("*_app.py")])
def test_the_guide_links_every_example(example: str) -> None:
    """Nobody has to look for an example of a framework."""
    assert f"../../examples/{example}" in GUIDE


def test_the_guide_has_the_sentence_of_a_gateway_that_is_not_running() -> None:
    """Who searches the documentation for the line of the log finds what to do."""
    assert f"```text\n{NotRunning()}\n```" in GUIDE


@pytest.mark.servers
def test_the_gateways_of_the_guide_are_apart(tmp_path: Path) -> None:
    """Each accepts its own tokens and refuses those of the other."""
    (tmp_path / "main.py").write_text(program("sales.mount"))
    keys = {"sales": "s" * 40, "support": "u" * 40}
    # The gateways set all that the other tests' hosts take from the environment.
    given = {f"{name.upper()}_KEY": key for name, key in keys.items()}
    host = HostProcess(
        "main:app", tmp_path / "data", cwd=tmp_path, path="/support", environment=given
    )
    del host.environment["TOWPATH_JWT_KEY"], host.environment["TOWPATH_TENANT"]
    with host, httpx2.Client(base_url=host.root, trust_env=False) as http:
        for name in keys:
            for signer, key in keys.items():
                bearing = {"Authorization": f"Bearer {token('mia', secret=key)}"}
                answer = http.get(f"/{name}/api/v1/whoami", headers=bearing)
                assert answer.status_code == (200 if signer == name else 401)
                assert signer != name or answer.json()["tenant"] == name
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"sales", "support"}


@pytest.mark.servers
def test_the_thread_of_the_guide_calls_into_the_gateway(tmp_path: Path) -> None:
    """FastAPI runs the endpoint in a thread, and the message is in the log when it returns."""
    (tmp_path / "main.py").write_text(program("gateway.portal.call"))
    with (
        HostProcess("main:app", tmp_path / "data", cwd=tmp_path) as host,
        httpx2.Client(base_url=host.root, trust_env=False, timeout=20) as http,
    ):
        assert http.post("/orders/7/ship").json() == {"sent": "Queued"}
