"""The scripted service speaks as the public API does, and sees who hangs up."""

import asyncio

import openai
import pytest

from tests.kit.model_server import Calls, Fails, FailsLater, ModelServer, Says, Silence

KEY = "sk-test"


def client(server: ModelServer) -> openai.AsyncOpenAI:
    """Return the unmodified client of the public API."""
    return openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY, max_retries=0)


async def deltas(server: ModelServer) -> list[openai.types.chat.chat_completion_chunk.ChoiceDelta]:
    """Ask and return what came, piece by piece."""
    async with client(server) as asking:
        stream = await asking.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        return [piece.choices[0].delta async for piece in stream]


async def test_the_public_client_reads_its_streams() -> None:
    """Text in pieces and a call in pieces, one answer after the other; what was asked is kept."""
    call = Calls(tool="add", arguments={"a": 1})
    async with ModelServer(Says(pieces=["Good", " day"]), call) as server:
        said = [one.content for one in await deltas(server) if one.content]
        called = [one for delta in await deltas(server) for one in delta.tool_calls or ()]
    assert said == ["Good", " day"]
    assert "".join(one.function.arguments or "" for one in called if one.function) == '{"a":1}'
    assert [one.function.name for one in called if one.function and one.function.name] == ["add"]
    assert server.requests[0].conversation == [("user", "hello")]
    assert server.requests[0].key == KEY


async def test_the_public_client_reads_its_failures() -> None:
    """A status, an error in the stream and a cut are what the client takes them for."""
    failing = (Fails(status=429), FailsLater(error={"message": "no"}), Says(pieces=["a"], cut=True))
    async with ModelServer(*failing) as server:
        with pytest.raises(openai.RateLimitError):
            await deltas(server)
        with pytest.raises(openai.APIError, match="no"):
            await deltas(server)
        with pytest.raises(openai.APIConnectionError):
            await deltas(server)
        assert not server.hung_up.is_set()


@pytest.mark.parametrize("answer", [Silence(), Says(pieces=["a"] * 100_000)])
async def test_it_sees_who_hangs_up(answer: Says | Silence) -> None:
    """A client that leaves before the end is noticed, whether or not anything is being sent."""
    async with ModelServer(answer) as server:
        asking = asyncio.create_task(deltas(server))
        await server.request_received.wait()
        assert not server.hung_up.is_set()
        asking.cancel()
        async with asyncio.timeout(2):
            await server.hung_up.wait()
        assert server.sent < 100_000
