"""Tests of the agent in `own_agent.py`: `pytest examples`."""

import pytest
from own_agent import gateway

from towpath.testing import GatewayTestClient, expect_events

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests by the plugin of anyio, which comes with Towpath, on asyncio."""
    return "asyncio"


async def test_the_message_comes_back_in_capitals() -> None:
    """The text is the person's message, and each word is on its way as soon as it is there."""
    async with GatewayTestClient(gateway) as client:
        run = await client.run("assistant", "hello there")
    assert run.text.split() == ["HELLO", "THERE"]
    expect_events(
        run.events,
        [
            "RUN_STARTED",
            ...,
            "TEXT_MESSAGE_START",
            {"type": "TEXT_MESSAGE_CONTENT", "delta": "HELLO "},
            {"type": "TEXT_MESSAGE_CONTENT", "delta": "THERE "},
            "TEXT_MESSAGE_END",
            "RUN_FINISHED",
        ],
    )


async def test_two_people_do_not_meet() -> None:
    """A thread of the same id is each person's own."""
    async with GatewayTestClient(gateway) as client:
        await client.run("assistant", "hello", user="alice", thread="notes")
        run = await client.run("assistant", "there", user="bob", thread="notes")
    said = [message["content"] for message in run.messages if message["role"] == "user"]
    assert said == ["there"]
