"""Credentials that expire during a connection: refreshed or not, and no event is lost.

The keys of the issuer are fetched, so delays and outages happen on a real line.
"""

import asyncio
import functools
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.client import GetToken, OpenClient
from tests.sdk.node_client import open_node
from tests.sdk.python_client import open_python
from tests.servers.conversation import (
    ask,
    assert_unbroken,
    from_the_start,
    open_thread,
    seen_in,
    text_of,
    until_over,
    until_text,
)
from tests.servers.issuing import Issuer, connect_once, http_client, issuing, serving, trusting
from towpath.events.types import TERMINAL
from towpath.testing.faults import Delay, Drop
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers


@asynccontextmanager
async def issuer_and_server(
    data: Path, **settings: Any
) -> AsyncGenerator[tuple[Issuer, ServerProcess], None]:
    """Run an issuer and a server that takes its tokens."""
    async with (
        issuing() as issuer,
        serving(data, issuers=trusting(issuer), **settings) as server,
    ):
        yield issuer, server


def counted(number: int) -> str:
    """Return what the agent says when asked to count."""
    return " ".join(str(n) for n in range(1, number + 1))


def ended(client: WireClient, channel: str, runs: int) -> bool:
    """Whether so many runs of a channel have ended."""
    return sum(event["type"] in TERMINAL for event in client.events(channel)) >= runs


async def test_r20_a_hundred_refreshes_cost_a_run_nothing(tmp_path: Path) -> None:
    """A connection refreshed 100 times in a run gets the same text as one that never was."""
    async with (
        issuer_and_server(tmp_path / "data") as (issuer, server),
        wire_client(server.ws, issuer.token("mia")) as refreshed,
        wire_client(server.ws, issuer.token("mia")) as uncut,
    ):
        thread = await open_thread(refreshed)
        await uncut.command("subscribe", channel=f"thread:{thread}")
        started = await ask(refreshed, "count 400 at 200/s", thread=thread)
        await until_text(refreshed, started)
        for number in range(100):
            token = issuer.token("mia", jti=f"token-{number}", ttl=3000 + number)
            reply = await refreshed.command("refresh", token=token)
            assert reply["refresh"]["client"] == refreshed.client_id
            assert 2990 + number <= reply["refresh"]["ttl"] <= 3000 + number
        assert not any(e["type"] == "RUN_FINISHED" for e in refreshed.events(started.channel))
        for client in (refreshed, uncut):
            await until_over(client, started)
        assert_unbroken(refreshed.publications(started.channel), after=0)
        events, others = (
            [one for one in client.events(started.channel) if "delta" not in one]
            for client in (refreshed, uncut)
        )
        assert events == others
        assert text_of(refreshed.events(started.channel)) == counted(400)


async def test_r85_a_refresh_is_the_same_persons_or_the_end(tmp_path: Path) -> None:
    """Another subject, tenant or issuer: 3500, and no other user's rights."""
    async with issuing() as stranger, issuer_and_server(tmp_path / "data") as (issuer, server):
        bad = {
            "another subject": issuer.token("ann", "acme"),
            "another tenant": issuer.token("mia", "globex"),
            "nearly the subject": issuer.token("Mia", "acme"),
            "another issuer": stranger.token("mia", "acme", iss=issuer.issuer),
            "no token": "x",
        }
        for what, token in bad.items():
            async with wire_client(server.ws, issuer.token("mia", "acme")) as client:
                before = len(client.frames)
                await client.send({"id": 7, "refresh": {"token": token}})
                assert await client.until_closed() == 3500, what
                assert len(client.frames) == before, what


async def test_r22_what_a_refresh_cannot_be_sure_of_is_temporary(tmp_path: Path) -> None:
    """An expired token and a used ticket are 109, an absent issuer is 100: temporary, all three."""
    async with issuer_and_server(tmp_path / "data", keys_timeout=0.3) as (issuer, server):
        async with http_client(server, issuer.token("mia")) as rest:
            ticket = (await rest.post("/api/v1/tickets", json={})).json()["ticket"]
        assert (await connect_once(server.ws, ticket)).accepted
        async with wire_client(server.ws, issuer.token("mia")) as client:
            issuer.line.fault = Drop()
            request = {
                issuer.token("mia", ttl=-600): 109,
                ticket: 109,
                issuer.token("mia", kid="unheard-of"): 100,
            }
            for token, code in request.items():
                error = (await client.command("refresh", token=token))["error"]
                assert (error["code"], error["temporary"]) == (code, True)
            issuer.heal()
            assert (await client.rpc("whoami"))["user"] == "mia"
            reply = await client.command("refresh", token=issuer.token("mia"))
            assert reply["refresh"]["ttl"] > 3000


async def test_r32_a_refresh_that_hangs_stops_nobody_else(tmp_path: Path) -> None:
    """While one refresh waits for the issuer, the user's other connections go on."""
    async with (
        issuer_and_server(tmp_path / "data") as (issuer, server),
        wire_client(server.ws, issuer.token("mia")) as hanging,
        wire_client(server.ws, issuer.token("mia")) as other,
    ):
        started = await ask(hanging, "count 100000 at 50/s")
        await until_text(hanging, started)
        issuer.line.fault = Drop()
        loop = asyncio.get_running_loop()
        refresh = asyncio.create_task(
            hanging.command("refresh", token=issuer.token("mia", kid="unheard-of"))
        )
        began, seen = loop.time(), len(hanging.frames)
        while not refresh.done():
            request = loop.time()
            assert (await other.rpc("whoami"))["user"] == "mia"
            assert loop.time() - request < 0.5
            await asyncio.sleep(0.05)
        reply = await refresh
        assert reply["error"]["code"] == 100
        assert 0.9 < loop.time() - began < 3
        assert len(hanging.frames) > seen + 20, "events flowed all the while"
        assert (await connect_once(server.ws, issuer.token("ann"))).accepted


async def test_r84_a_token_that_ends_in_its_handshake_lets_nobody_in(tmp_path: Path) -> None:
    """Expired past its grace while the keys were fetched: 109; a new token connects."""
    settings: dict[str, Any] = {"auth_timeout": 3.0, "keys_timeout": 3.0, "expiry_grace": 0}
    async with (
        issuing() as issuer,
        serving(tmp_path / "data", issuers=trusting(issuer, required=False), **settings) as server,
    ):
        issuer.line.fault = Delay(1.1)  # For the document, and once more for the keys.
        ending = issuer.token("mia", exp=int(time.time()) + 2)
        outcome = await connect_once(server.ws, ending)
        assert (outcome.code, outcome.temporary) == (109, False)
        assert outcome.seconds > 1
        assert (await connect_once(server.ws, issuer.token("mia"))).accepted


async def test_r20_r83_r84_a_token_that_ends_in_a_run_ends_the_connection_only(
    tmp_path: Path,
) -> None:
    """3005 past the grace and no frame after it; the run goes on, a new token reads all of it."""
    async with issuer_and_server(tmp_path / "data", expiry_grace=1) as (issuer, server):
        expires = int(time.time()) + 2
        async with wire_client(server.ws, issuer.token("mia", exp=expires)) as client:
            started = await ask(client, "count 400 at 100/s")
            assert await client.until_closed() == 3005
            ended = time.time()
            last = client.publications(started.channel)[-1]["offset"]
        assert expires + 1 - 0.1 <= ended <= expires + 2.5
        outcome = await connect_once(server.ws, issuer.token("mia", exp=expires))
        assert (outcome.code, outcome.temporary) == (109, False)
        async with wire_client(server.ws, issuer.token("mia")) as client:
            reply = await from_the_start(client, started.thread)
            assert reply["subscribe"]["offset"] > last, "the run went on without the connection"
            snapshot = seen_in(reply)
            await until_over(client, started)
            seen = snapshot + client.events(started.channel)
            assert text_of(seen) == counted(400)


async def test_r84_nothing_is_written_past_the_grace_to_a_reader_who_is_slow(
    tmp_path: Path,
) -> None:
    """Bytes that wait for a slow reader when its credential expires are not delivered."""
    settings = {"expiry_grace": 0, "outbox_bytes": 256 * 1024 * 1024}
    async with issuer_and_server(tmp_path / "data", **settings) as (issuer, server):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", server.port))
        async with (
            wire_client(server.ws, issuer.token("mia"), sock=raw, max_queue=1) as slow,
            wire_client(server.ws, issuer.token("mia")) as fast,
        ):
            thread = await open_thread(slow)
            await fast.command("subscribe", channel=f"thread:{thread}")
            slow.socket.transport.pause_reading()
            for number in range(1, 41):  # 8 MB: more than the sockets between us take.
                await ask(fast, ("x" * 2000 + " ") * 100, agent="echo", thread=thread)
                await fast.until(functools.partial(ended, fast, f"thread:{thread}", number))
            top = fast.publications(f"thread:{thread}")[-1]["offset"]
            expires = int(time.time()) + 1
            ending = issuer.token("mia", exp=expires)
            await slow.send({"id": 99, "refresh": {"token": ending}})
            await asyncio.sleep(expires + 0.4 - time.time())
            slow.socket.transport.resume_reading()
            assert await slow.until_closed(seconds=20) == 3005
            delivered = [one["offset"] for one in slow.publications(f"thread:{thread}")]
            # What the kernel had taken comes; what waited behind it does not.
            assert delivered[-1] < top


async def sdk_refreshes(open_client: OpenClient, data: Path, *, lifetime: float) -> None:
    """An SDK whose tokens expire every other second keeps one connection and a whole run."""
    async with issuer_and_server(data) as (issuer, server):
        request: list[float] = []

        async def get_token() -> str:
            request.append(time.monotonic())
            return issuer.token("mia", ttl=lifetime, jti=str(len(request)))

        given: GetToken = get_token
        async with open_client(server.ws, get_token=given) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 500 at 100/s")
            reader = await client.subscribe(channel, position)
            await reader.until_over()
            assert (await client.rpc("whoami"))["user"] == "mia"
        assert len(request) >= 3, "it asked for a token to come in, and again whenever one ended"
        assert len(client.connected) == 1
        assert client.errors == []
        assert reader.answer == counted(500)
        reader.check_sequence(first=1)


async def test_r20_the_python_sdk_refreshes_by_itself(tmp_path: Path) -> None:
    """PyPI centrifuge-python refreshes its token through get_token, and loses nothing."""
    await sdk_refreshes(open_python, tmp_path / "data", lifetime=2.5)


@pytest.mark.sdk_js
async def test_r20_the_javascript_sdk_refreshes_by_itself(tmp_path: Path) -> None:
    """npm centrifuge refreshes its token through getToken, and loses nothing."""
    await sdk_refreshes(open_node, tmp_path / "data", lifetime=2.5)
