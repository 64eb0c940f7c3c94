"""Recorded runs of real frameworks, replayed through a server, to a live and a late reader."""

import uuid
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.events.client import Event, screen
from tests.kit.crashes import RECORDINGS
from tests.kit.recordings import read
from tests.recordings import FOLDER, NAMES
from tests.servers.conversation import from_the_start, seen_in
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers


def text_in(events: Iterable[Event]) -> str:
    """Return all text that came in these events."""
    return "".join(str(one["delta"]) for one in events if one["type"] == "TEXT_MESSAGE_CONTENT")


async def test_r73_r74_recorded_runs_reach_everybody_whole(tmp_path: Path) -> None:
    """In one thread, one after the other: each as it was recorded, and the same to a latecomer."""
    arguments = ("--app", "tests.kit.crashes:gateway")
    environment = {RECORDINGS: str(FOLDER)}
    thread = uuid.uuid4().hex
    channel = f"thread:{thread}"
    with ServerProcess(tmp_path / "data", *arguments, environment=environment) as server:
        token = server.token()
        async with wire_client(server.ws, token) as first, wire_client(server.ws, token) as late:
            await first.rpc("thread.create", request_id="t", thread_id=thread)
            assert "subscribe" in await first.command("subscribe", channel=channel)
            for name in NAMES:
                recorded = [one.event for one in read(FOLDER / f"{name}.jsonl")]
                before = len(first.events(channel))
                request = {"agent": name, "thread_id": thread, "message": "again"}
                await first.rpc("run.start", request_id=name, **request)
                await first.until(lambda: _ended(first.events(channel)[before:]))  # noqa: B023
                replayed = first.events(channel)[before:]
                assert text_in(replayed) == text_in(recorded), name
                assert replayed[-1]["type"] == recorded[-1]["type"], name
                came = seen_in(await from_the_start(late, thread))
                assert screen(came) == screen(first.events(channel)), name
                await late.command("unsubscribe", channel=channel)


def _ended(events: list[Event]) -> bool:
    return bool(events) and events[-1]["type"] in TERMINAL
