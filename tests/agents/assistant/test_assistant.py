"""The assistant asks the model it was given, and no more of a conversation than that can read."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.model_server import Answer, Fails, ModelServer, Says
from tests.runs.stage import ALICE, Stage, staged
from towpath.agents.assistant.assistant import INSTRUCTIONS, Assistant
from towpath.agents.assistant.endpoint import OPENAI, Endpoint
from towpath.node import logging_setup

KEY = "sk-0123456789abcdef"


@asynccontextmanager
async def assisted(
    place: Path, *answers: Answer, key: str = KEY, tokens: int | None = None
) -> AsyncIterator[tuple[ModelServer, Stage]]:
    """Open a stage on which an assistant asks a scripted service."""
    async with ModelServer(*answers) as server, staged("memory", place) as stage:
        endpoint = Endpoint(model="clever", base_url=server.base_url, key=key)
        assistant = Assistant(endpoint, tokens=tokens)
        stage.cast(assistant.answer)
        yield server, stage
        await stage.check()
        await assistant.aclose()


async def test_it_asks_the_model_with_the_key(tmp_path: Path) -> None:
    """The service gets the model's name, the key, the instructions and the question."""
    async with assisted(tmp_path, Says(pieces=["Good", " day."])) as (server, stage):
        await stage.done(await stage.start(message="hello"))
        events = await stage.events()
    (request,) = server.requests
    assert request.key == KEY
    assert (request.body["model"], request.body["stream"]) == ("clever", True)
    assert request.conversation == [("system", INSTRUCTIONS), ("user", "hello")]
    assert [one["delta"] for one in events if "delta" in one] == ["Good", " day."]


async def test_without_a_key_none_of_the_environment_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that asks for no key is not given the one of another."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with assisted(tmp_path, Says(pieces=["Hi."]), key="") as (server, stage):
        await stage.done(await stage.start())
    assert KEY not in server.requests[0].key


async def test_the_oldest_is_left_out_and_the_question_never(tmp_path: Path) -> None:
    """Past its bound it is given the newest turns; what is stored stays whole."""
    async with assisted(tmp_path, Says(pieces=["Yes."]), tokens=70) as (server, stage):
        for number in range(4):
            await stage.done(await stage.start(message=f"question {number} ".ljust(60)))
        await stage.done(await stage.start(message="x" * 1000))
        stored = await stage.store.get("acme", "alice", "t1")
    questions = [
        [
            content.split()[1]
            for role, content in one.conversation
            if role == "user" and " " in content
        ]
        for one in server.requests
    ]
    assert questions == [["0"], ["0", "1"], ["1", "2"], ["2", "3"], []]
    assert server.requests[-1].conversation[1:] == [("user", "x" * 1000)]
    assert stored is not None
    assert len(stored.messages) == 10


async def test_a_busy_service_is_asked_again(tmp_path: Path) -> None:
    """One failure that may pass is not shown to anybody."""
    answers = (Fails(status=503), Says(pieces=["There."]))
    async with assisted(tmp_path, *answers) as (server, stage):
        await stage.done(await stage.start())
        events = await stage.events()
    assert len(server.requests) == 2
    assert events[-1]["type"] == "RUN_FINISHED"


async def test_first_questions_at_once_share_one_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many who ask first are all answered, over one client."""
    made: list[Endpoint] = []
    connect = Assistant._connect

    def counted(assistant: Assistant, endpoint: Endpoint) -> Any:
        made.append(endpoint)
        return connect(assistant, endpoint)

    monkeypatch.setattr(Assistant, "_connect", counted)
    async with assisted(tmp_path, Says(pieces=["Yes."])) as (server, stage):
        runs = await asyncio.gather(*(stage.start(thread=f"t{n}") for n in range(8)))
        for run in runs:
            await stage.done(run)
        await stage.done(await stage.start())
    assert (len(server.requests), len(made)) == (9, 1)


async def test_the_key_is_in_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even when everything is logged, and the service repeats the key, it stays unsaid."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logging_setup.configure(level="DEBUG")
        echo = b'{"error": {"message": "bad key %s", "code": null}}' % KEY.encode()
        answers = (Fails(status=401, body=echo), Says(pieces=["Hi."]))
        async with assisted(tmp_path, *answers) as (_, stage):
            for _ in range(2):
                await stage.done(await stage.start(message="a private question"))
            events = await stage.events()
        output = capsys.readouterr()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert {one["type"] for one in events} >= {"RUN_ERROR", "RUN_FINISHED"}
    for text in (output.err, output.out, repr(events), repr(stage.happened)):
        assert KEY not in text
    assert "private" not in output.err


async def test_cancel_hangs_up(tmp_path: Path) -> None:
    """A stopped answer is not paid for to its end."""
    answer = Says(pieces=["word "] * 1000, pause=0.02)
    async with assisted(tmp_path, answer) as (server, stage):
        run = await stage.start()
        await stage.logged(5)
        await stage.service.cancel(ALICE, run)
        async with asyncio.timeout(1):
            await server.hung_up.wait()
        await stage.done(run)


def test_its_title_names_model_and_host() -> None:
    """The line at start says what is asked and where, and no key."""
    title = Assistant(Endpoint(model="gpt", base_url=OPENAI, key=KEY)).title
    assert title == "gpt at api.openai.com"
    assert re.fullmatch(
        r"m at 127\.0\.0\.1:9",
        Assistant(Endpoint(model="m", base_url="http://127.0.0.1:9/v1")).title,
    )
