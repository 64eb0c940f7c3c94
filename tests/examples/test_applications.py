"""The example applications serve an agent to an unmodified client, and stop without a loss."""

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import httpx2
import pytest

from tests.hosts import SECRET, HostProcess
from tests.sdk.client import START
from tests.sdk.python_client import open_python
from tools.docs import ROOT

pytestmark = pytest.mark.servers

EXAMPLES = ("fastapi_app", "starlette_app", "litestar_app", "django_app")
HOSTS = [
    *((example, "uvicorn") for example in EXAMPLES),
    *(("starlette_app", server) for server in ("hypercorn", "granian")),
]
WORDS = " ".join(str(number) for number in range(5000))
ENDINGS = ("RUN_FINISHED", "RUN_ERROR")


def host_of(example: str, server: str, data: Path) -> HostProcess:
    """Return an example application, described as its docstring says, on a server."""
    return HostProcess(f"examples.{example}:app", data, cwd=ROOT, server=server)


def signed(user: str) -> str:
    """Return the token that the script of the examples prints for a user."""
    done = subprocess.run(
        [sys.executable, "examples/sign_token.py", user],
        cwd=ROOT,
        env={**os.environ, "TOWPATH_JWT_KEY": SECRET},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


def agui_stream(host: HostProcess, token: str) -> str:
    """Run the agent over AG-UI and return the event stream."""
    body = {
        "threadId": uuid.uuid4().hex,
        "runId": uuid.uuid4().hex,
        "messages": [{"id": "one", "role": "user", "content": "hello stream"}],
    }
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(trust_env=False, timeout=20) as client:
        answer = client.post(f"{host.http}/agui/assistant", json=body, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer.text


@pytest.mark.parametrize(("example", "server"), HOSTS)
async def test_an_example_serves_its_agent_and_stops_without_a_loss(
    tmp_path: Path, example: str, server: str
) -> None:
    """Page, REST, event stream and SDK work under the path; a stopped run is there, with one end.

    The SDK's client reads a long answer when the server is asked to stop. After the next start the
    thread has everything that the client has read, and exactly one ending.
    """
    token = signed("alice")
    with host_of(example, server, tmp_path / "data") as host:
        with httpx2.Client(trust_env=False) as http:
            page = http.get(f"{host.http}/")
            assert "towpath-chat" in page.text
            assert http.get(f"{host.http}/static/towpath-chat.js").status_code == 200
            bearing = {"Authorization": f"Bearer {token}"}
            who = http.get(f"{host.http}/api/v1/whoami", headers=bearing).json()
            assert (who["user"], who["tenant"]) == ("alice", "acme")
            own = "/prices/pears" if example == "fastapi_app" else "/"
            assert http.get(f"{host.root}{own}").status_code == 200
        assert '"RUN_FINISHED"' in agui_stream(host, token)
        async with open_python(host.ws, token) as client:
            await client.connect()
            channel, position = await client.start_run("hello there", agent="assistant")
            short = await client.subscribe(channel, position)
            await short.until_over()
            assert short.answer == "HELLO THERE "
            channel, position = await client.start_run(WORDS, agent="assistant")
            reader = await client.subscribe(channel, position)
            await reader.until_words()
            status = host.stop()
            seen = reader.answer
    assert status in (0, -15), host.said
    # Hypercorn's own tasks leave a traceback on Python 3.11 when they are cancelled.
    assert not re.search(r'File "[^"]*towpath/', host.said)
    with host:
        async with open_python(host.ws, token) as client:
            await client.connect()
            reader = await client.subscribe(channel, START)
            await reader.until_over()
    assert sum(event["type"] in ENDINGS for event in reader.stream) == 1
    assert reader.answer.startswith(seen)


async def test_a_view_of_django_reaches_a_person(tmp_path: Path) -> None:
    """Django runs the synchronous view in a thread, and the person's device gets its message."""
    with host_of("django_app", "uvicorn", tmp_path / "data") as host:
        async with open_python(host.ws, signed("alice")) as client:
            await client.connect()
            await client.until_connected()
            async with httpx2.AsyncClient(trust_env=False) as http:
                answer = await http.post(f"{host.root}/orders/7/ship")
            await client.news.until(lambda: bool(client.notices))
    assert answer.json() == {"sent": "Delivered"}
    ((_, notice),) = client.notices
    assert (notice.event["name"], notice.event["value"]) == ("order", {"shipped": 7})
