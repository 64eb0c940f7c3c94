"""A real server with a corrupted log: while it runs, between two starts, and at a start."""

import asyncio
import contextlib
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
import uvicorn

from tests.runs.tables.sqlite.test_damage import flip, pages_of, wreck
from tests.servers.conversation import (
    ask,
    eventually,
    seen_in,
    text_of,
    until_over,
    until_text,
)
from towpath.auth.development import development_key, sign
from towpath.gateway import Gateway
from towpath.settings import Settings
from towpath.testing.server import ServerProcess, free_port
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

DAMAGED = 3


def wreck_log(data: Path) -> None:
    """Overwrite every page of the log's table in the file, as a failing disk would."""
    for page in pages_of(data / "towpath.db", "log"):
        wreck(data / "towpath.db", page)


async def filled(client: WireClient) -> tuple[str, str]:
    """Have so much said that most of it is in the file; return a thread and what was said there."""
    first = await ask(client, "count 50")
    await until_over(client, first)
    text = text_of(client.events(first.channel))
    for _ in range(3):
        more = await ask(client, "count 20000")
        await until_over(client, more, seconds=60)
    return first.thread, text


async def test_p3_p4_a_log_damaged_while_it_runs_stops_and_comes_back(tmp_path: Path) -> None:
    """Nothing wrong is handed out, the server ends with 3, and the next one has what is certain."""
    with ServerProcess(tmp_path / "data") as server:
        token = server.token()
        async with wire_client(server.ws, token) as client:
            thread, text = await filled(client)
            before = (await client.rpc("thread.get", thread_id=thread))["position"]
            going = await ask(client, "count 100000 at 20/s")
            await until_text(client, going)
            seen = client.publications(going.channel)[-1]["offset"]
            wreck_log(server.data)

            reply = await client.command("history", channel=f"thread:{thread}", limit=-1)
            assert "error" in reply, "what cannot be read is not handed out"
            assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
            began = time.monotonic()
            assert await client.until_closed() == 3001
            assert server.process is not None
            assert await asyncio.to_thread(server.process.wait, 20) == DAMAGED
            assert time.monotonic() - began < 7, "it waits for no ending that cannot be written"
        lines = server.log.read_text()
        assert [json.loads(x)["after"] for x in lines.splitlines() if "log_changed" in x] == [
            "damaged"
        ]
        await asyncio.to_thread(server.start)
        lines = server.log.read_text()
        said_at_start = [x for x in lines.splitlines() if x.startswith("towpath: the log was")]
        assert len(said_at_start) == 1
        assert "towpath.db.quarantined-1" in said_at_start[0]
        assert (server.data / "towpath.db.quarantined-1").exists()
        async with wire_client(server.ws, token) as client:
            channel = f"thread:{thread}"
            answer = await client.command("subscribe", channel=channel, recover=True, **before)
            assert answer["subscribe"]["recovered"] is False
            assert answer["subscribe"]["epoch"] != before["epoch"]
            assert text_of(seen_in(answer)) == text

            async def lost() -> bool:
                run = await client.rpc("run.get", run_id=going.run)
                return (run["status"], run["code"]) == ("lost", "run.lost")

            await eventually(lost)
            answer = await client.command(
                "subscribe",
                channel=going.channel,
                recover=True,
                offset=seen,
                epoch=before["epoch"],
            )
            assert answer["subscribe"]["recovered"] is False
            again = await ask(client, "count 7", thread=thread)
            await until_over(client, again)
            assert text_of(client.events(again.channel)) == "1 2 3 4 5 6 7"
        assert await asyncio.to_thread(server.stop) == 0


async def test_r53_revocations_outlive_damage(tmp_path: Path) -> None:
    """Revocations stay valid; if they may be incomplete, every credential is revoked."""
    with ServerProcess(tmp_path / "data") as server:
        good, revoked = server.token("alice"), server.token("mallory")
        operator = server.token("root", role="towpath:revoke")
        async with wire_client(server.ws, operator) as client:
            await client.rpc("session.revoke", request_id="r", user="mallory")
        async with wire_client(server.ws, good) as client:
            await filled(client)
        assert await asyncio.to_thread(server.stop) == 0
        pages = pages_of(server.data / "towpath.db", "messages")
        wreck(server.data / "towpath.db", pages[-1])
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, good) as client:
            for one in (await client.rpc("thread.list"))["threads"]:
                with contextlib.suppress(ConnectionError):  # The server ends soon after the first.
                    await client.command("rpc", method="thread.get", data={"thread_id": one["id"]})
            assert await client.until_closed() == 3001
        assert server.process is not None
        assert await asyncio.to_thread(server.process.wait, 20) == DAMAGED
        await asyncio.to_thread(server.start)
        assert "revocations are whole" in server.log.read_text()
        async with wire_client(server.ws) as client:
            await client.send({"id": 1, "connect": {"token": revoked}})
            assert await client.until_closed() == 3507
        async with wire_client(server.ws, good) as client:
            assert (await client.rpc("whoami"))["user"] == "alice"
            again = await ask(client, "count 5")
            await until_over(client, again)
        await asyncio.to_thread(server.kill)
        flip(server.data / "towpath.db-wal", 17)
        await asyncio.to_thread(server.start)
        assert "log_epoch_renewed" in server.log.read_text()
        for token in (good, revoked):
            async with wire_client(server.ws) as client:
                await client.send({"id": 1, "connect": {"token": token}})
                assert await client.until_closed() == 3507


async def test_readiness_names_the_damage(tmp_path: Path) -> None:
    """A gateway in another application is no longer ready, with a reason."""
    gateway = Gateway(Settings(data=tmp_path / "data"))
    gateway.use_development_key("127.0.0.1")
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(gateway, port=port, log_config=None, lifespan="on", ws="none")
    )
    serving = asyncio.create_task(server.serve())
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

        async def ready() -> bool:
            try:
                return bool((await http.get("/health/ready")).status_code == 200)
            except httpx2.HTTPError:
                return False

        await eventually(ready)
        key = development_key(tmp_path / "data")
        head = {"authorization": f"Bearer {sign(key, user='a', tenant='b', now=0, ttl=4e9)}"}
        made = await http.post("/api/v1/threads", json={"request_id": "r"}, headers=head)
        assert made.status_code == 200
        assert gateway.node is not None
        with closing(sqlite3.connect(tmp_path / "data" / "towpath.db")) as db:
            db.execute("DROP TABLE threads")
        thread = made.json()["thread_id"]
        answer = await http.get(f"/api/v1/threads/{thread}", headers=head)
        assert answer.status_code == 503
        answer = await http.get("/health/ready")
        assert (answer.status_code, "damaged" in answer.text) == (503, True)
        assert (await http.get("/health/live")).status_code == 200
    server.should_exit = True
    await serving
