"""The guides on reaching people and on pushing events: their programs run."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.docs.test_examples import README, SECRET, block, run_javascript, until_ready
from tests.examples.test_push_agent import signed
from tests.sdk.client import SdkClient
from tests.sdk.python_client import open_python
from tools.docs import ROOT
from towpath.testing.server import free_port

REACH = ROOT / "docs/how-to/reach-a-person-from-your-code.md"
PUSH = ROOT / "docs/how-to/push-events-from-your-agent.md"


def python_of(page: Path) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


class Shop:
    """The running application of the guide."""

    def __init__(self, port: int) -> None:
        self.http = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}/towpath/connection/websocket"

    def call(self, method: str, path: str, user: str = "alice", **query: str) -> Any:
        """Send a request as a user, and return what the application answers."""
        headers = {"Authorization": f"Bearer {signed(user)}"}
        with httpx2.Client(trust_env=False, timeout=20) as client:
            answer = client.request(method, self.http + path, params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def running(program: str, directory: Path) -> Iterator[Shop]:
    """Run a program as `main.py`, with the environment that the README tells people to set."""
    (directory / "main.py").write_text(program)
    port, log = free_port(), directory / "log"
    environment = {
        **os.environ,
        "TOWPATH_JWT_KEY": SECRET,
        "TOWPATH_TENANT": "acme",
        "TOWPATH_DATA": str(directory / "data"),
    }
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output
        )
        try:
            until_ready(f"http://127.0.0.1:{port}/towpath/health/ready", process, log)
            yield Shop(port)
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The blocks of the guide in one program; each test uses a person of its own."""
    program = "\n\n".join(python_of(REACH)).replace('{7: "alice"}', '{7: "alice", 8: "jane"}')
    with running(program, tmp_path_factory.mktemp("shop")) as running_shop:
        yield running_shop


async def got(client: SdkClient, name: str) -> tuple[str, Any]:
    """Wait for an event of this name, and return its channel and its value."""

    def found() -> list[tuple[str, Any]]:
        return [
            (channel, delivery.event["value"])
            for channel, delivery in client.notices
            if delivery.event["name"] == name
        ]

    await client.news.until(lambda: bool(found()))
    return found()[0]


@pytest.mark.servers
async def test_an_endpoint_reaches_the_customer_once(shop: Shop) -> None:
    """The device gets the order, and a repeated request sends nothing again."""
    assert shop.call("POST", "/orders/7/shipped", "staff") == {"devices": 0}
    async with open_python(shop.ws, signed("alice")) as client:
        await client.connect()
        await client.until_connected()
        assert shop.call("POST", "/orders/7/shipped", "staff") == {"devices": 1}
        assert shop.call("GET", "/me", "alice") == {"devices": 1}
        assert shop.call("POST", "/announcements", "staff", text="Open until six") == {
            "refused": False
        }
        assert await got(client, "announcement") == ("tenant", "Open until six")
        assert client.notices[0][0] == "tenant"  # The repeated order came to nobody.


@pytest.mark.servers
async def test_a_person_who_comes_later_is_welcomed(shop: Shop) -> None:
    """The message waits for the device, and arrives once the device is there."""
    shop.call("POST", "/help", "bella")
    async with open_python(shop.ws, signed("bella")) as client:
        await client.connect()
        assert await got(client, "welcome") == ("user", "How can we help?")


@pytest.mark.servers
async def test_an_agent_and_a_morning_reach_the_person(shop: Shop) -> None:
    """The application starts the run once, and the agent writes to the person beside its answer."""
    async with open_python(shop.ws, signed("carla")) as client:
        await client.connect()
        await client.until_connected()
        first = shop.call("POST", "/mornings/monday", "carla")
        assert shop.call("POST", "/mornings/monday", "carla") == first
        expected = {"thread": first["thread"], "pages": 3}
        assert await got(client, "report.ready") == ("user", expected)


@pytest.mark.servers
async def test_blocking_code_reaches_the_person_through_the_portal(shop: Shop) -> None:
    """An endpoint in a thread waits for the result of the send."""
    async with open_python(shop.ws, signed("dora")) as client:
        await client.connect()
        await client.until_connected()
        assert shop.call("POST", "/reports", "dora") == {"reached": True}
        assert await got(client, "report.ready") == ("user", {"pages": 3})


@pytest.mark.servers
async def test_a_logout_ends_the_devices_for_good(shop: Shop) -> None:
    """Every device of the person is closed with the code, and the SDK does not come back."""
    async with open_python(shop.ws, signed("emma")) as client:
        await client.connect()
        await client.until_connected()
        assert shop.call("POST", "/logout", "emma") == {"ended": 1}
        ended = await client.until_disconnected()
        assert (ended.code, ended.reason) == (4500, "logged out")
        assert shop.call("GET", "/me", "emma") == {"devices": 0}


@pytest.mark.servers
@pytest.mark.sdk_js
def test_the_javascript_of_the_guide_shows_the_order(shop: Shop, tmp_path: Path) -> None:
    """The unmodified SDK hands the message to the handler of the guide."""
    head = f"""
        import {{ Centrifuge }} from "centrifuge";
        const client = new Centrifuge("{shop.ws}", {{ token: "{signed("jane")}" }});
    """
    tail = f"""
        client.on("publication", () => client.disconnect());
        client.on("connected", () => fetch("{shop.http}/orders/8/shipped", {{ method: "POST" }}));
        client.connect();
    """
    printed = run_javascript(head + block(REACH, "js", "order.shipped") + tail, tmp_path)
    assert printed == "shipped 8\n"


@pytest.mark.parametrize("code", python_of(PUSH), ids=lambda code: code.split("(")[0][-40:])
def test_the_guide_on_pushing_shows_the_example(code: str) -> None:
    """Each block stands in the example application, which its own tests run."""
    assert code in (ROOT / "examples/push_agent.py").read_text()


def test_the_guide_on_pushing_shows_the_whole_bridge() -> None:
    """What the guide leaves out of the example is neither a push nor an ending."""
    shown = "".join(python_of(PUSH))
    example = (ROOT / "examples/push_agent.py").read_text()
    assert set(re.findall(r"notify_\w+", example)) == set(re.findall(r"notify_\w+", shown))


@pytest.mark.servers
async def test_the_five_lines_of_the_readme_reach_alice(tmp_path: Path) -> None:
    """Below the application that the README mounts a gateway into, they send what they say."""
    program = block(README, "python", "gateway.mount") + block(README, "python", "gateway.notify")
    with running(program, tmp_path) as shop:
        async with open_python(shop.ws, signed("alice")) as client:
            await client.connect()
            await client.until_connected()
            sent = await asyncio.to_thread(shop.call, "POST", "/orders/7/shipped")
            assert sent["connections"] == 1
            assert await got(client, "order.shipped") == ("user", {"order": 7})
