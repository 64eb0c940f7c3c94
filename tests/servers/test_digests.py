"""Digest reports: a client that shows a wrong text can report it, and the operator sees it."""

import json
import re

import httpx2
import pytest

from tests.servers.conversation import ask, until_over, until_text
from towpath.events.digest import digest
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

WRONG = "00000001"


def counted(server: ServerProcess) -> dict[str, float]:
    """Return how many mismatches were counted, by what the log says."""
    text = httpx2.get(f"{server.http}/metrics", trust_env=False).text
    found = re.findall(r'^towpath_digest_mismatches_total{log="(\w+)"} (\S+)$', text, re.MULTILINE)
    return {log: float(count) for log, count in found}


async def report(client: WireClient, thread: str, message: str, published: str, shown: str) -> int:
    """Report, and return the error's code, 0 for none."""
    named = {"thread_id": thread, "message_id": message, "published": published, "shown": shown}
    reply = await client.command("rpc", method="digest.report", data=named)
    return int(reply["error"]["code"]) if "error" in reply else 0


async def test_a_mismatch_is_answered_counted_and_logged(own_server: ServerProcess) -> None:
    """The reply tells what is kept, the metric whose fault it is, the log no text."""
    async with wire_client(own_server.ws, own_server.token("mona")) as client:
        started = await ask(client, "grüße 🚂", agent="echo")
        await until_over(client, started)
        events = client.publications(started.channel)
        (ended,) = [one for one in events if one["data"]["type"] == "TEXT_MESSAGE_END"]
        message, published = ended["data"]["messageId"], ended["tags"]["digest"]
        assert counted(own_server) == {}
        named = {"thread_id": started.thread, "message_id": message}
        kept = await client.rpc("digest.report", **named, published=published, shown=WRONG)
        assert kept == {"digest": published}
        assert published == digest("grüße 🚂")
        assert counted(own_server) == {"agrees": 1}
        kept = await client.rpc("digest.report", **named, published="0000000f", shown=WRONG)
        assert kept == {"digest": published}
        named["message_id"] = "never-said"
        kept = await client.rpc("digest.report", **named, published=published, shown=WRONG)
        assert kept == {"digest": None}
    assert counted(own_server) == {"agrees": 1, "differs": 1, "unknown": 1}
    log = own_server.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if '"digest_mismatch"' in line]
    assert (lines[0]["level"], lines[0]["message"]) == ("warning", message)
    assert [(one["published"], one["shown"], one["kept"]) for one in lines] == [
        (published, WRONG, published),
        ("0000000f", WRONG, published),
        (published, WRONG, None),
    ]
    assert "grüße" not in log
    assert "gr\\u00fc" not in log


async def test_a_message_that_is_still_being_said_is_known(server: ServerProcess) -> None:
    """The digest of a message in progress is that of its text so far."""
    async with wire_client(server.ws, server.token("mia")) as client:
        started = await ask(client, "count 100000 at 20/s")
        await until_text(client, started)
        (message_id,) = [
            event["messageId"]
            for event in client.events(started.channel)
            if event["type"] == "TEXT_MESSAGE_START"
        ]
        named = {"thread_id": started.thread, "message_id": message_id}
        kept = await client.rpc("digest.report", **named, published="0000000f", shown=WRONG)
        assert re.fullmatch("[0-9a-f]{8}", kept["digest"])
        await client.rpc("run.cancel", request_id="stop", run_id=started.run)


async def test_r35_nobody_reports_on_what_is_not_theirs(server: ServerProcess) -> None:
    """For a foreign thread both endpoints answer as for a missing one."""
    async with (
        wire_client(server.ws, server.token("mine")) as client,
        wire_client(server.ws, server.token("thief")) as thief,
    ):
        started = await ask(client, "hello", agent="echo")
        await until_over(client, started)
        before = counted(server)
        assert await report(thief, started.thread, "m", WRONG, "00000002") == 404
        assert await report(thief, "nowhere", "m", WRONG, "00000002") == 404
        assert await report(client, started.thread, "m", WRONG, WRONG) == 107
        for odd in ("", "1", "0000000G", "000000001", "0000000A"):
            assert await report(client, started.thread, "m", odd, WRONG) == 107, odd
            assert await report(client, started.thread, "m", WRONG, odd) == 107, odd
    url = f"{server.http}/api/v1/threads/{started.thread}/digests"
    body = {"message_id": "m", "published": WRONG, "shown": "00000002"}
    for user, status in (("thief", 404), ("mine", 200)):
        bearing = {"Authorization": f"Bearer {server.token(user)}"}
        answer = httpx2.post(url, json=body, headers=bearing, trust_env=False)
        assert answer.status_code == status
    assert counted(server) == {**before, "unknown": before.get("unknown", 0) + 1}
