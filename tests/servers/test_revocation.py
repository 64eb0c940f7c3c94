"""Revocations, disconnects and notices, and the roles they need."""

import asyncio
import json
import sqlite3
import sys
import time
import uuid
from base64 import urlsafe_b64decode
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers.conversation import (
    ask,
    eventually,
    from_the_start,
    open_thread,
    seen_in,
    until_over,
    until_text,
)
from tests.servers.issuing import connect_once, get, http_client, log_events, metric
from towpath.auth.development import development_key, sign
from towpath.auth.revocations import MAX_REVOCATIONS, Revocation, announce
from towpath.auth.tokens import LEEWAY
from towpath.channels import CONTROL
from towpath.log.broker import Retention, Write, retention_of
from towpath.log.sqlite.broker import SqliteBroker
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

REVOKE = "towpath:revoke"


def jti_of(token: str) -> str:
    """Return the id of a token."""
    part = token.split(".")[1]
    jti: str = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))["jti"]
    return jti


def issued_in(server: ServerProcess, seconds: float, user: str, tenant: str = "acme") -> str:
    """Return a token issued that much later; `iat` is in whole seconds."""
    key = development_key(server.data)
    return sign(key, user=user, tenant=tenant, now=time.time() + seconds, ttl=3600)


async def comes_in(server: ServerProcess, user: str, tenant: str = "acme") -> bool:
    """Whether a user connects with a token whose `iat` is as late as the leeway allows."""
    return (await connect_once(server.ws, issued_in(server, LEEWAY, user, tenant))).accepted


async def revoke(
    server: ServerProcess, *, by: str = "ops", of: str = "acme", role: str = REVOKE, **what: str
) -> httpx2.Response:
    """Revoke over REST, as a user of a tenant with a role."""
    given = {"request_id": uuid.uuid4().hex, **what}
    async with http_client(server, server.token(by, of, role=role)) as rest:
        return await rest.delete("/api/v1/sessions", params=given)


async def assert_revoked(server: ServerProcess, token: str) -> None:
    """Each endpoint refuses the credential for good."""
    assert (await connect_once(server.ws, token)).code == 3507
    assert (await get(server, "/api/v1/whoami", token)).status_code == 401


async def talking(stack: AsyncExitStack, server: ServerProcess, token: str) -> WireClient:
    """Return the connection of a user who reads the events of a fast agent."""
    client = await stack.enter_async_context(wire_client(server.ws, token))
    started = await ask(client, "count 100000 at 200/s")
    await until_text(client, started)
    return client


def last_offset(client: WireClient) -> int:
    """Return the offset of the last event received of a run."""
    pushes = [frame["push"] for frame in client.frames if "push" in frame]
    own = [push["pub"] for push in pushes if push["channel"].startswith("thread:")]
    return max(int(publication["offset"]) for publication in own)


def thread_of(client: WireClient) -> str:
    """Return the thread of the events received."""
    channels = (frame["push"]["channel"] for frame in client.frames if "push" in frame)
    channel: str = next(name for name in channels if name.startswith("thread:"))
    return channel.removeprefix("thread:")


async def test_r84_a_revoked_token_is_out_at_once_and_stays_out(server: ServerProcess) -> None:
    """By jti: its connections end with 3507, not a frame is written after the answer, and each
    later connect is refused; the person's other token goes on.
    """
    token, other = server.token("thief"), server.token("thief")
    async with AsyncExitStack() as stack:
        clients = [await talking(stack, server, token) for _ in range(3)]
        witness = await stack.enter_async_context(wire_client(server.ws, other))
        for client in clients:
            await witness.command("subscribe", channel=f"thread:{thread_of(client)}")
        answer = await revoke(server, jti=jti_of(token))
        assert (answer.status_code, answer.json()) == (200, {})
        # Where the runs are once the answer is here: whoever was written to since saw more.
        tops = [
            (await witness.command("history", channel=f"thread:{thread_of(client)}"))["history"]
            for client in clients
        ]
        for client, top in zip(clients, tops, strict=True):
            assert await client.until_closed(seconds=1) == 3507
            assert last_offset(client) <= top["offset"]
        await assert_revoked(server, token)
        assert (await witness.rpc("whoami"))["user"] == "thief"
    assert (await connect_once(server.ws, other)).accepted
    assert log_events(server, "sessions_revoked")[-1]["closed"] == 3
    assert await metric(server, "towpath_sessions_revoked_total", what="token") >= 1


async def test_r84_a_person_is_out_until_they_log_in_again(server: ServerProcess) -> None:
    """By user: older tokens are 3507 on every device; a later token connects."""
    async with AsyncExitStack() as stack:
        tokens = [server.token("leaver") for _ in range(2)]
        clients = [await talking(stack, server, token) for token in tokens]
        bystander = await stack.enter_async_context(wire_client(server.ws, server.token("stayer")))
        namesake = await stack.enter_async_context(
            wire_client(server.ws, server.token("leaver", "globex"))
        )
        answer = await revoke(server, user="leaver")
        assert answer.status_code == 200
        for client in clients:
            assert await client.until_closed(seconds=1) == 3507
        for token in tokens:
            await assert_revoked(server, token)
        await assert_revoked(server, issued_in(server, -1, "leaver"))
        for client, user in ((bystander, "stayer"), (namesake, "leaver")):
            assert (await client.rpc("whoami"))["user"] == user
    # The issuer's clock may be ahead by the leeway, so what is issued within it counts as older.
    await assert_revoked(server, server.token("leaver"))
    await eventually(lambda: comes_in(server, "leaver"), seconds=2.5)
    await assert_revoked(server, tokens[0])


async def test_r84_r38_a_tenant_is_out_and_no_other(server: ServerProcess) -> None:
    """By tenant: all its users are 3507, the operator included; other tenants go on."""
    async with AsyncExitStack() as stack:
        inside = [
            await stack.enter_async_context(wire_client(server.ws, server.token(user, "doomed")))
            for user in ("ann", "ben", "ops")
        ]
        outside = await stack.enter_async_context(wire_client(server.ws, server.token("ann")))
        answer = await revoke(server, of="doomed", tenant="doomed")
        assert answer.status_code == 200
        for client in inside:
            assert await client.until_closed(seconds=1) == 3507
        await assert_revoked(server, server.token("cid", "doomed"))
        assert (await outside.rpc("whoami"))["tenant"] == "acme"
    await eventually(lambda: comes_in(server, "ann", "doomed"), seconds=2.5)


async def test_r84_a_revocation_outlives_a_kill(own_server: ServerProcess) -> None:
    """After kill -9 and a restart, revoked credentials are still 3507, and others work."""
    server = own_server
    revoked, kept = server.token("thief"), server.token("thief")
    leaver = server.token("leaver")
    assert (await revoke(server, jti=jti_of(revoked))).status_code == 200
    assert (await revoke(server, user="leaver")).status_code == 200
    server.kill()
    await asyncio.to_thread(server.start)
    for token in (revoked, leaver):
        await assert_revoked(server, token)
    assert (await connect_once(server.ws, kept)).accepted
    await eventually(lambda: comes_in(server, "leaver"), seconds=2.5)


# -- what a restart finds --------------------------------------------------------------------------


class Earlier:
    """A data directory as a server left it, whose control channel was trimmed or not."""

    def __init__(self, data: Path, *, keep: int | None = None) -> None:
        """Name it.

        Args:
            data: the directory.
            keep: how many revocations are kept, whatever counts still; None keeps all.
        """
        data.mkdir(mode=0o700)
        self._data = data
        trimmed = Retention(publications=keep or 0, bytes=1 << 40, seconds=1e12, since_last=False)
        self._keep = trimmed if keep is not None else None

    async def revoke(self, *revocations: Revocation) -> None:
        """Announce revocations, one row of the log each, and stop."""
        broker = SqliteBroker(
            self._data / "towpath.db",
            lambda *_: None,
            ThreadProjection(),
            retention=lambda channel: self._keep if channel == CONTROL else retention_of(channel),
        )
        await broker.start()
        for one in revocations:
            await broker.room()
            broker.submit(Write((announce(one),)))
        await broker.stop()


def of_tokens(count: int, tenant: str = "acme") -> list[Revocation]:
    """Return revocations of tokens that nobody has."""
    now = time.time()
    return [Revocation(tenant=tenant, at=now, token_id=f"j{n}") for n in range(count)]


def channel_of(server: ServerProcess) -> tuple[int, int]:
    """Return how many publications the control channel keeps, and how many there were."""
    with closing(sqlite3.connect(server.data / "towpath.db")) as db:
        row = db.execute("SELECT publications, top FROM channels WHERE name='control'").fetchone()
    return int(row[0]), int(row[1])


def restarted(server: ServerProcess) -> None:
    """Stop a server and start it again."""
    server.stop()
    server.start()


async def test_r84_what_counts_survives_the_end_of_what_does_not(tmp_path: Path) -> None:
    """Where an earlier version dropped old revocations, those of today count after a restart."""
    server = ServerProcess(tmp_path / "data")
    earlier = Earlier(server.data, keep=2)
    thief, leaver, bystander = (server.token(user) for user in ("thief", "leaver", "stayer"))
    old = [
        Revocation(tenant="acme", at=time.time() - 31 * 86_400, token_id=f"old{n}") for n in "ab"
    ]
    now = time.time()
    young = [
        Revocation(tenant="acme", at=now, token_id=jti_of(thief)),
        Revocation(tenant="acme", at=now, user="leaver"),
    ]
    await earlier.revoke(*old)
    await earlier.revoke(*young)
    assert channel_of(server) == (2, 4)
    with server:
        for _ in range(2):
            for token in (thief, leaver):
                await assert_revoked(server, token)
            assert (await connect_once(server.ws, bystander)).accepted
            await asyncio.to_thread(restarted, server)
    assert log_events(server, "revocations_incomplete") == []


async def test_r84_where_revocations_may_be_missing_everybody_signs_in_again(
    tmp_path: Path,
) -> None:
    """The start fails closed and logs one line with the remedy; the next start is normal."""
    server = ServerProcess(tmp_path / "data")
    earlier = Earlier(server.data, keep=10)
    bystander = server.token("stayer")
    await earlier.revoke(*of_tokens(8_100))
    with server:
        await assert_revoked(server, bystander)
        await eventually(lambda: comes_in(server, "stayer"), seconds=2.5)
        newcomer = issued_in(server, LEEWAY, "newcomer")
        await asyncio.to_thread(restarted, server)
        await assert_revoked(server, bystander)
        assert (await connect_once(server.ws, newcomer)).accepted
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("towpath:")]
    (line,) = (line for line in lines if "revo" in line)
    assert "every credential issued before counts as revoked" in line
    assert "sign in again" in line
    (incomplete,) = log_events(server, "revocations_incomplete")
    assert "the log has lost the oldest" in incomplete["reason"]
    assert [one["what"] for one in log_events(server, "sessions_revoked")] == ["everybody"]


async def test_r84_one_tenants_revocations_keep_no_other_from_revoking(tmp_path: Path) -> None:
    """At its bound a tenant gets an error with a remedy that works; other tenants still revoke."""
    server = ServerProcess(tmp_path / "data")
    earlier = Earlier(server.data)
    await earlier.revoke(*of_tokens(MAX_REVOCATIONS, "a"))
    with server:
        token = server.token("mallory", "b")
        assert (await revoke(server, of="b", user="mallory")).status_code == 200
        await assert_revoked(server, token)
        for what in ({"jti": "another"}, {"user": "mallory"}):
            full = await revoke(server, of="a", **what)
            assert (full.status_code, full.json()["error"]["code"]) == (429, 106)
            assert "revoke the whole tenant" in full.json()["error"]["message"]
        assert (await revoke(server, of="a", jti="j7")).status_code == 200
        assert log_events(server, "sessions_revoked")[-1]["tenant"] == "b"
        doomed = server.token("anybody", "a")
        assert (await revoke(server, of="a", tenant="a")).status_code == 200
        await assert_revoked(server, doomed)


async def test_r84_revoking_a_person_again_and_again_fills_no_log(
    own_server: ServerProcess,
) -> None:
    """The channel is compacted during use, and a restart finds what is still valid."""
    server = own_server
    thief, leaver = server.token("thief"), server.token("leaver")
    assert (await revoke(server, jti=jti_of(thief))).status_code == 200
    operator = server.token("ops", role=REVOKE)
    async with http_client(server, operator) as rest:

        async def again(number: int) -> int:
            given = {"request_id": f"r{number}", "user": "leaver"}
            return (await rest.delete("/api/v1/sessions", params=given)).status_code

        for first in range(0, 1_200, 20):
            answers = await asyncio.gather(*(again(first + n) for n in range(20)))
            assert set(answers) == {200}
    server.kill()
    kept, top = channel_of(server)
    assert top > 1_200
    assert kept < 500
    await asyncio.to_thread(server.start)
    for token in (thief, leaver):
        await assert_revoked(server, token)
    assert (await connect_once(server.ws, operator)).accepted


async def test_a_ticket_of_somebody_revoked_is_worth_nothing(server: ServerProcess) -> None:
    """An unused ticket is revoked with the credential it was issued for: 3507."""
    async with http_client(server, server.token("ticketed")) as rest:
        ticket = (await rest.post("/api/v1/tickets", json={})).json()["ticket"]
    assert (await revoke(server, user="ticketed")).status_code == 200
    assert (await connect_once(server.ws, ticket)).code == 3507


async def test_r28_a_refresh_with_a_revoked_token_is_the_end(server: ServerProcess) -> None:
    """A cached verdict does not outlive its revocation: on refresh too it is 3507."""
    good, taken_back = server.token("renewer"), server.token("renewer")
    assert (await connect_once(server.ws, taken_back)).accepted
    assert (await revoke(server, jti=jti_of(taken_back))).status_code == 200
    async with wire_client(server.ws, good) as client:
        await client.send({"id": 7, "refresh": {"token": taken_back}})
        assert await client.until_closed() == 3507


# -- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "role", "what"),
    [
        ("acme", "", {"user": "target"}),
        ("acme", "", {"tenant": "acme"}),
        ("acme", "revoke", {"user": "target"}),
        ("acme", "towpath:service", {"user": "target"}),
        ("acme", "towpath:inspect", {"user": "target"}),
        ("acme", "towpath:disconnect", {"user": "target"}),
        ("globex", REVOKE, {"tenant": "acme"}),
        ("globex", "towpath:operator", {"tenant": "acme"}),
    ],
)
async def test_r35_r38_who_may_not_revoke_is_403(
    server: ServerProcess, by: str, role: str, what: dict[str, str]
) -> None:
    """Without the role, or for another tenant: 403 at both endpoints, and nothing is revoked."""
    async with wire_client(server.ws, server.token("target")) as target:
        answer = await revoke(server, of=by, role=role, **what)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, 403)
        async with wire_client(server.ws, server.token("ops", by, role=role)) as client:
            data = {"request_id": uuid.uuid4().hex, **what}
            reply = await client.command("rpc", method="session.revoke", data=data)
            assert reply["error"]["code"] == 403
        assert (await target.rpc("whoami"))["user"] == "target"
    assert (await connect_once(server.ws, server.token("target"))).accepted


async def test_r38_a_revocation_reaches_into_no_other_tenant(server: ServerProcess) -> None:
    """An operator who names a user of another tenant, by user or jti, revokes nothing."""
    token = server.token("far", "globex")
    async with wire_client(server.ws, token) as far:
        for what in ({"user": "far"}, {"jti": jti_of(token)}):
            assert (await revoke(server, **what)).status_code == 200
        assert (await far.rpc("whoami"))["tenant"] == "globex"
    assert (await connect_once(server.ws, token)).accepted


async def test_what_to_revoke_is_one_thing(server: ServerProcess) -> None:
    """None or several of jti, user and tenant: 400 with a reason; a repeated request acts once."""
    for what in ({}, {"user": "a", "jti": "b"}, {"user": "a", "tenant": "acme"}):
        answer = await revoke(server, **what)
        assert answer.status_code == 400
        assert "one of jti, user and tenant" in answer.json()["error"]["message"]
    for what in ({"user": ""}, {"jti": "x" * 1025}):
        assert (await revoke(server, **what)).status_code == 400
    before = len(log_events(server, "sessions_revoked"))
    for _ in range(2):
        answer = await revoke(server, user="twice", request_id="the-same")
        assert (answer.status_code, answer.json()) == (200, {})
    assert len(log_events(server, "sessions_revoked")) == before + 1


async def towpath(server: ServerProcess, *arguments: str) -> tuple[int, str]:
    """Run `towpath` against a server; return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "towpath", *arguments, "--url", server.http,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode().strip()


async def test_the_command_line_revokes(server: ServerProcess) -> None:
    """`towpath revoke` revokes a token, a user or a tenant, with our key or with a token."""
    data = ("--data", str(server.data))
    token = server.token("cli-token", "shop")
    async with (
        wire_client(server.ws, token) as by_jti,
        wire_client(server.ws, server.token("cli-user", "shop")) as by_user,
        wire_client(server.ws, server.token("cli-tenant", "shop")) as by_tenant,
    ):
        done = await towpath(server, "revoke", "--jti", jti_of(token), "--tenant", "shop", *data)
        assert done == (0, "revoked")
        assert await by_jti.until_closed() == 3507
        bearer = server.token("ops", "shop", role=REVOKE)
        assert (await by_user.rpc("whoami"))["user"] == "cli-user"
        assert await towpath(server, "revoke", "--user", "cli-user", "--token", bearer) == (
            0,
            "revoked",
        )
        assert await by_user.until_closed() == 3507
        assert (await by_tenant.rpc("whoami"))["user"] == "cli-tenant"
        done = await towpath(server, "revoke", "--everybody", "--tenant", "shop", *data)
        assert done == (0, "revoked")
        assert await by_tenant.until_closed() == 3507
    weak = server.token("ops", "acme")
    status, output = await towpath(server, "revoke", "--user", "x", "--token", weak)
    assert status == 2
    assert "(403)" in output
    assert weak not in output


# -- looking, ending, telling ---------------------------------------------------------------------


async def test_sessions_are_listed_to_inspectors_of_the_tenant(server: ServerProcess) -> None:
    """Only an inspector sees a user's open connections and their subscriptions."""
    async with AsyncExitStack() as stack:
        watched = [
            await stack.enter_async_context(wire_client(server.ws, server.token("watched")))
            for _ in range(2)
        ]
        thread = await open_thread(watched[0])
        await stack.enter_async_context(wire_client(server.ws, server.token("watched", "globex")))
        async with http_client(server, server.token("ops", role="towpath:inspect")) as rest:
            answer = await rest.get("/api/v1/sessions", params={"user": "watched"})
            rows = answer.json()["sessions"]
            assert {row["connection"] for row in rows} == {one.client_id for one in watched}
            channels = {row["connection"]: row["channels"] for row in rows}
            assert channels[watched[0].client_id] == ["tenant", f"thread:{thread}", "user"]
            assert all(row["user"] == "watched" for row in rows)
            empty = await rest.get("/api/v1/sessions", params={"user": "nobody"})
            assert empty.json() == {"sessions": []}
        for token in (server.token("watched"), server.token("ops", role=REVOKE)):
            async with http_client(server, token) as rest:
                answer = await rest.get("/api/v1/sessions", params={"user": "watched"})
                assert answer.status_code == 403
            reply = await watched[0].command("rpc", method="session.list", data={"user": "watched"})
            assert reply["error"]["code"] == 403


async def test_an_operator_ends_connections_and_the_credential_stays_good(
    server: ServerProcess,
) -> None:
    """`session.disconnect` is 3503 for a user of its own tenant, once; without the role 403."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        targets = [await enter(wire_client(server.ws, server.token("pest"))) for _ in range(2)]
        far = await enter(wire_client(server.ws, server.token("pest", "globex")))
        data = {"request_id": uuid.uuid4().hex, "user": "pest"}
        for role in ("", "towpath:inspect", REVOKE):
            async with http_client(server, server.token("ops", role=role)) as rest:
                answer = await rest.post("/api/v1/sessions/disconnect", json=data)
                assert answer.status_code == 403
        assert (await targets[0].rpc("whoami"))["user"] == "pest"
        async with http_client(server, server.token("ops", role="towpath:disconnect")) as rest:
            answer = await rest.post("/api/v1/sessions/disconnect", json=data)
            assert (answer.status_code, answer.json()) == (200, {})
            for target in targets:
                assert await target.until_closed(seconds=1) == 3503
            back = await enter(wire_client(server.ws, server.token("pest")))
            again = await rest.post("/api/v1/sessions/disconnect", json=data)
            assert (again.status_code, again.json()) == (200, {}), "the same request does no more"
        for client in (back, far):
            assert (await client.rpc("whoami"))["user"] == "pest"


async def test_r38_a_service_tells_a_person_or_its_tenant(server: ServerProcess) -> None:
    """`notice.publish` reaches one user, or all users of the tenant, and nobody else."""
    people = {
        "ann": server.token("ann", "news"),
        "ben": server.token("ben", "news"),
        "far": server.token("ann", "elsewhere"),
    }
    async with AsyncExitStack() as stack:
        clients: dict[str, WireClient] = {}
        for name, token in people.items():
            clients[name] = await stack.enter_async_context(wire_client(server.ws, token))
        service = server.token("robot", "news", role="towpath:service")
        async with http_client(server, service) as rest:

            async def emit(name: str, **more: Any) -> httpx2.Response:
                given = {"request_id": uuid.uuid4().hex, "name": name, "value": {"n": 1}, **more}
                return await rest.post("/api/v1/notices", json=given)

            assert (await emit("shop.order", user="ann")).json() == {}
            assert (await emit("shop.sale")).json() == {}
            assert (await emit("towpath.thread.deleted", user="ann")).status_code == 400
        for name in ("ann", "ben"):
            await clients[name].until_event("tenant", "CUSTOM")
        for client in clients.values():
            await client.rpc("whoami")  # What was published before it, is here before its reply.
        notices = {
            name: [(event["name"], event["value"]) for event in client.events("user")]
            for name, client in clients.items()
        }
        assert notices == {"ann": [("shop.order", {"n": 1})], "ben": [], "far": []}
        assert [event["name"] for event in clients["ben"].events("tenant")] == ["shop.sale"]
        assert clients["far"].events("tenant") == []
        for role in ("", "towpath:operator"):
            async with http_client(server, server.token("robot", "news", role=role)) as rest:
                answer = await rest.post("/api/v1/notices", json={"request_id": "x", "name": "y"})
                assert answer.status_code == 403


async def test_r86_another_person_on_the_same_page_finds_nothing_of_the_one_before(
    server: ServerProcess,
) -> None:
    """After a logout, the positions and threads the page remembers open nothing for the next."""
    async with wire_client(server.ws, server.token("former")) as page:
        started = await ask(page, "a secret", agent="echo")
        await until_over(page, started)
        held = await page.command("history", channel="user", limit=-1)
        position = {"offset": 1, "epoch": held["history"]["epoch"]}
        offset = page.publications(started.channel)[-1]["offset"]
    for tenant in ("acme", "globex"):
        async with wire_client(server.ws) as page:
            stored_result = {"user": {"recover": True, **position}}
            connected = await page.connect(server.token("next", tenant), subs=stored_result)
            sub = connected["connect"]["subs"]["user"]
            assert sub["epoch"] != position["epoch"]
            assert not sub.get("recovered")
            assert sub.get("publications", []) == []
            refused = [
                await from_the_start(page, started.thread),
                await page.command(
                    "subscribe", channel=started.channel, recover=True, offset=offset, epoch="x"
                ),
                await page.command("history", channel=started.channel, limit=-1),
            ]
            assert {one["error"]["code"] for one in refused} == {102}
            assert (await page.rpc("thread.list"))["threads"] == []
            found = await page.command("rpc", method="run.get", data={"run_id": started.run})
            assert found["error"]["code"] == 404
            # Not even a refresh brings the former one's rights onto this connection.
            await page.send({"id": 90, "refresh": {"token": server.token("former")}})
            assert await page.until_closed() == 3500
    async with wire_client(server.ws, server.token("former")) as page:
        assert seen_in(await from_the_start(page, started.thread))
