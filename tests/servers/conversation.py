"""Steps of a client in these tests: create a thread, start a run, read its events."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from towpath.events.types import TERMINAL, golden_name
from towpath.testing.wire_client import WireClient

GOLDEN_PATH = (
    "agent_started",
    "agent_thinking",
    "tool_executing",
    "tool_completed",
    "agent_completed",
)
"""The five names in the order in which they first arrive."""


@dataclass(frozen=True)
class Started:
    """A run that was started, and its thread."""

    run: str
    thread: str

    @property
    def channel(self) -> str:
        """The channel of the run's thread."""
        return f"thread:{self.thread}"


async def open_thread(client: WireClient) -> str:
    """Create a thread and subscribe to it; return its id."""
    made = await client.rpc("thread.create", request_id=uuid.uuid4().hex)
    reply = await client.command("subscribe", channel=f"thread:{made['thread_id']}")
    assert "subscribe" in reply, reply
    return str(made["thread_id"])


async def ask(
    client: WireClient, message: str, *, agent: str = "tools", thread: str | None = None
) -> Started:
    """Start a run in a thread that this client reads, or in a new one."""
    thread = thread or await open_thread(client)
    started = await client.rpc(
        "run.start", request_id=uuid.uuid4().hex, agent=agent, thread_id=thread, message=message
    )
    return Started(started["run_id"], thread)


async def until_over(client: WireClient, started: Started, *, seconds: float = 20.0) -> Any:
    """Wait for the run's terminal event and return it."""
    await client.until_event(started.channel, *TERMINAL, seconds=seconds)
    return next(one for one in client.events(started.channel) if one["type"] in TERMINAL)


async def until_ended(client: WireClient, run: str, *, seconds: float = 10.0) -> dict[str, Any]:
    """Wait until `run.get` shows that a run is over, and return what it shows.

    A server that was just started still ends the runs that were left behind.
    """
    async with asyncio.timeout(seconds):
        while True:
            shown: dict[str, Any] = await client.rpc("run.get", run_id=run)
            if shown["ended_at"] is not None:
                return shown
            await asyncio.sleep(0.02)


async def until_text(client: WireClient, started: Started, *, seconds: float = 10.0) -> None:
    """Wait until the agent has sent its first text."""
    await client.until_event(started.channel, "TEXT_MESSAGE_CONTENT", seconds=seconds)


def text_of(events: Iterable[dict[str, Any]]) -> str:
    """Return the assistant's text in these events, a snapshot included."""
    text = ""
    for event in events:
        if event["type"] == "TEXT_MESSAGE_CONTENT":
            text += event["delta"]
        elif event["type"] == "MESSAGES_SNAPSHOT":
            spoken = [one for one in event["messages"] if one["role"] == "assistant"]
            text = "".join(one.get("content") or "" for one in spoken)
    return text


def golden_names(events: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Return the golden-path names in the order of their first arrival."""
    names = (golden_name(event) for event in events)
    return tuple(dict.fromkeys(name for name in names if name is not None))


def seen_in(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events in the reply to a subscribe."""
    assert "subscribe" in answer, answer
    return [item["data"] for item in answer["subscribe"].get("publications", [])]


async def from_the_start(client: WireClient, thread: str) -> dict[str, Any]:
    """Subscribe to a thread from its start and return the whole reply."""
    return await client.command(
        "subscribe", channel=f"thread:{thread}", recover=True, offset=0, epoch=""
    )


def assert_unbroken(publications: Sequence[dict[str, Any]], *, after: int | None = None) -> None:
    """Check that each publication of a thread continues the one before it, or an offset.

    Deltas that were merged on the way carry the offset of the last one, and `from` says how many
    there are; a client on a busy machine sees some.
    """
    for one in publications:
        tags, offset = one["tags"], one["offset"]
        first = offset - (int(tags["seq"]) - int(tags.get("from", tags["seq"])))
        assert after is None or first == after + 1, (after, one)
        after = offset


async def eventually(holds: Callable[[], Awaitable[bool]], *, seconds: float = 10.0) -> None:
    """Poll until the condition holds; for what no push reports.

    Raises:
        TimeoutError: the condition did not hold in time.
    """
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - the condition is in another process.
            await asyncio.sleep(0.02)
