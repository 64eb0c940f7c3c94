"""What an agent asked of somebody else: it is given up when the run ends before the answer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.runs.stage import ALICE, staged
from towpath.agents.agent import AgentInput


class Model:
    """A model behind HTTP that says a word now and then, for as long as anybody listens."""

    def __init__(self) -> None:
        self.url = ""
        self.calls = 0
        self.left = asyncio.Event()
        """Set when whoever asked has gone."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.calls += 1
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nword \r\n")
        await reader.read()
        self.left.set()
        writer.close()


@asynccontextmanager
async def model() -> AsyncIterator[Model]:
    """Run a model on a free port."""
    made = Model()
    listening = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    async with listening:
        yield made


@pytest.mark.parametrize("how", ["stop", "deadline", "drain"])
async def test_r89_the_upstream_request_ends_with_the_run(tmp_path: Path, how: str) -> None:
    """Stop, deadline and drain close the connection to the model, and the run says which it was."""
    async with model() as upstream, staged("memory", tmp_path) as stage:

        async def agent(request: AgentInput) -> AsyncGenerator[object, None]:
            async with (
                httpx2.AsyncClient(trust_env=False, timeout=30) as http,
                http.stream("GET", upstream.url) as answer,
            ):
                async for word in answer.aiter_text():
                    yield word

        stage.cast(agent, deadline=0.3 if how == "deadline" else 30.0)
        run = await stage.start()
        await stage.logged(3)
        assert not upstream.left.is_set()
        if how == "stop":
            await stage.service.cancel(ALICE, run)
        elif how == "drain":
            await stage.service.drain()
        async with asyncio.timeout(5):
            await upstream.left.wait()
        await stage.done(run)
        await stage.check()
        last = (await stage.events())[-1]
    expected = {"stop": "cancelled", "deadline": "run.deadline", "drain": "run.drained"}
    assert (last.get("code") or last["outcome"]["type"]) == expected[how]
    assert upstream.calls == 1
