"""A thread that is deleted and made anew under its id, and the readers that had read it."""

from typing import Any

import pytest

from tests.servers.conversation import ask, until_over
from towpath.events.fold import Fold
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

CHANNEL = "thread:t"


class Reader:
    """What an SDK shows of the thread: an answer without recovery replaces all of it."""

    def __init__(self, client: WireClient) -> None:
        self.client = client
        self.events: list[dict[str, Any]] = []
        self.epoch, self.offset = "", 0

    async def subscribe(self) -> dict[str, Any]:
        """Subscribe from the last position, and return the answer."""
        reply = await self.client.command(
            "subscribe", channel=CHANNEL, recover=True, epoch=self.epoch, offset=self.offset
        )
        answer: dict[str, Any] = reply.get("subscribe", {})
        if answer and not answer["recovered"]:
            self.events.clear()
        self.events += [one["data"] for one in answer.get("publications", [])]
        if answer:
            self.epoch, self.offset = answer["epoch"], answer["offset"]
        return reply

    def take(self) -> None:
        """Take what was pushed."""
        self.events += self.client.events(CHANNEL)
        self.client.frames.clear()

    @property
    def shown(self) -> list[tuple[str, str]]:
        """The role and the text of each message."""
        fold = Fold()
        for event in self.events:
            if event["type"] == "RUN_STARTED" and fold.started is not None and fold.ended is None:
                fold = Fold()
            fold.feed(event)
        return [(one["role"], one["content"]) for one in fold.messages]


def restarted(client: WireClient) -> bool:
    """Whether the server told the reader to subscribe anew."""
    pushes = [frame["push"] for frame in client.frames if "push" in frame]
    return any(push.get("unsubscribe", {}).get("code") == 2500 for push in pushes)


async def test_p3_no_reader_goes_on_showing_a_thread_that_was_deleted(
    server: ServerProcess,
) -> None:
    """A reader that stayed and one that comes back show what a fresh reader shows."""
    token = server.token("reborn")
    async with wire_client(server.ws, token) as client, wire_client(server.ws, token) as other:
        stays, comes_back = Reader(client), Reader(other)
        await client.rpc("thread.create", request_id="create", thread_id="t")
        await stays.subscribe()
        await until_over(client, await ask(client, "the secret", agent="echo", thread="t"))
        stays.take()
        await comes_back.subscribe()
        stays.offset = comes_back.offset
        await other.leave()
        assert any("the secret" in text for _, text in stays.shown)
        assert stays.shown == comes_back.shown

        await client.rpc("thread.delete", request_id="delete", thread_id="t")
        await client.until(lambda: restarted(client))
        async with wire_client(server.ws, token) as again, wire_client(server.ws, token) as new:
            await new.rpc("thread.create", request_id="create again", thread_id="t")
            fresh = Reader(new)
            await fresh.subscribe()
            await until_over(new, await ask(new, "something new", agent="echo", thread="t"))
            fresh.take()
            comes_back.client = again
            for reader in (stays, comes_back):
                answer = (await reader.subscribe())["subscribe"]
                assert (answer["recovered"], answer["was_recovering"]) == (False, True)
                assert reader.shown == fresh.shown
            assert not any("the secret" in text for _, text in fresh.shown)
