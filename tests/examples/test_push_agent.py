"""The example application of an agent that pushes: a real process, and an unmodified client."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from tests.docs.test_examples import until_ready
from tests.sdk.client import Position, Reader, SdkClient
from tests.sdk.python_client import open_python
from tools.docs import ROOT
from towpath.testing.server import free_port

pytestmark = pytest.mark.servers

SECRET = "a shared secret of thirty-two bytes or more"


class Application:
    """The running example."""

    def __init__(self, port: int, log: Path) -> None:
        self.http = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}/towpath/connection/websocket"
        self.log = log

    def ask(self, question: str, token: str) -> httpx2.Response:
        """Post a question as the person of a token."""
        with httpx2.Client(trust_env=False, timeout=20) as client:
            return client.post(
                f"{self.http}/questions",
                params={"question": question},
                headers={"Authorization": f"Bearer {token}"},
            )

    def working(self) -> int:
        """Return how many questions the application works on."""
        with httpx2.Client(trust_env=False, timeout=20) as client:
            return int(client.get(f"{self.http}/questions").json()["working"])


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The example, started as its docstring says; each test uses a person of its own."""
    directory, port = tmp_path_factory.mktemp("push"), free_port()
    environment = {
        **os.environ,
        "TOWPATH_JWT_KEY": SECRET,
        "TOWPATH_TENANT": "acme",
        "TOWPATH_DATA": str(directory / "data"),
    }
    command = [sys.executable, "-m", "uvicorn", "examples.push_agent:app", "--port", str(port)]
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            until_ready(f"http://127.0.0.1:{port}/towpath/health/ready", process, log)
            yield Application(port, log)
        finally:
            process.terminate()
            process.wait(timeout=30)


def signed(user: str, secret: str = SECRET) -> str:
    """Return a token for a user, signed with a shared secret."""
    claims = {"sub": user, "exp": int(time.time()) + 600}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))


async def reader_of(client: SdkClient, started: dict[str, Any]) -> Reader:
    """Read a thread from the position before its run."""
    return await client.subscribe(f"thread:{started['thread_id']}", Position(**started["position"]))


def thoughts(reader: Reader) -> list[str]:
    """Return the reasoning messages, live or in a snapshot."""
    live = [one["delta"] for one in reader.stream if one["type"] == "REASONING_MESSAGE_CONTENT"]
    folded = [one for event in reader.stream for one in event.get("messages", [])]
    return live + [one["content"] for one in folded if one["role"] == "reasoning"]


def ending(reader: Reader) -> Mapping[str, Any]:
    """Return the terminal event of a run."""
    return reader.stream[-1]


async def test_a_question_over_http_is_answered_in_the_chat(application: Application) -> None:
    """The person's device is notified of the run, and gets all that the callbacks pushed."""
    token = signed("alice")
    async with open_python(application.ws, token) as client:
        await client.connect()
        await client.until_connected()
        answer = application.ask("pears and plums", token)
        assert answer.status_code == 202
        reader = await reader_of(client, answer.json())
        await reader.until_over()
        await client.news.until(lambda: len(client.notices) >= 2)
    assert reader.answer == "Together they cost 0.50."
    assert reader.conversation.said("user") == ["pears and plums"]
    assert reader.types.count("TOOL_CALL_RESULT") == 2
    assert thoughts(reader) == ["Which fruits does the question name?"]
    assert ending(reader)["type"] == "RUN_FINISHED"
    names = [delivery.event["name"] for channel, delivery in client.notices if channel == "user"]
    assert names == ["towpath.run.started", "towpath.run.ended"]


async def test_the_callbacks_of_a_registered_agent_push_into_its_run(
    application: Application,
) -> None:
    """What a client starts with `run.start` shows the same events, and the text that it yields."""
    async with open_python(application.ws, signed("bob")) as client:
        await client.connect()
        channel, position = await client.start_run("quinces please", agent="grocer")
        reader = await client.subscribe(channel, position)
        await reader.until_over()
    assert reader.answer == "Together they cost 0.90."
    assert reader.types.count("TOOL_CALL_RESULT") == 1


async def test_a_framework_that_fails_ends_its_run(application: Application) -> None:
    """The person reads why, with the application's own code."""
    token = signed("carol")
    started = application.ask("gold", token).json()
    async with open_python(application.ws, token) as client:
        await client.connect()
        reader = await reader_of(client, started)
        await reader.until_over()
    assert ending(reader)["type"] == "RUN_ERROR"
    assert ending(reader)["code"] == "grocer.unknown"
    assert ending(reader)["message"] == "We have none of that."


async def test_a_person_who_presses_stop_stops_the_framework(application: Application) -> None:
    """The run ends as cancelled, and the framework stops long before its hundred seconds of work.

    If it went on, waiting for it would exceed the time that a test has.
    """
    token = signed("dan")
    async with open_python(application.ws, token) as client:
        await client.connect()
        started = application.ask("pears " * 1000, token).json()
        reader = await reader_of(client, started)
        await client.news.until(lambda: "TOOL_CALL_RESULT" in reader.types)
        stopped = await client.rpc(
            "run.cancel", {"request_id": "stop", "run_id": started["run_id"]}
        )
        await reader.until_over()
    assert stopped["status"] == "accepted"
    assert ending(reader)["outcome"]["type"] == "cancelled"
    while application.working():  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(0.05)
    assert "Traceback" not in application.log.read_text()


async def test_nobody_else_asks_or_reads(application: Application) -> None:
    """A token of another key is refused, and another person's thread is none of theirs."""
    assert (
        application.ask("pears", signed("alice", "another secret of 32 bytes, or more")).status_code
        == 401
    )
    assert application.ask("pears", "no-token").status_code == 401
    started = application.ask("pears", signed("erin")).json()
    async with open_python(application.ws, signed("mallory")) as client:
        await client.connect()
        reader = await reader_of(client, started)
        await client.news.until(lambda: bool(reader.errors or reader.ends))
    assert reader.stream == []
