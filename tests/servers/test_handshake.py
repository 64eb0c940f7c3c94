"""The handshake and the life of a connection, frame by frame against a real server."""

import asyncio
import functools
import json
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
from joserfc.jwk import OctKey
from websockets.asyncio.client import connect as open_socket

from tests.servers.conversation import ask, eventually, open_thread, until_over
from tests.servers.heads import head, status_of
from towpath.auth.development import sign
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

FOREIGN = OctKey.generate_key(256)


def foreign_token(ttl: float = 3600) -> str:
    """Return a token like ours that is signed with somebody else's key."""
    return sign(FOREIGN, user="alice", tenant="acme", now=time.time(), ttl=ttl)


def bearing(server: ServerProcess, token: str) -> AbstractAsyncContextManager[WireClient]:
    """Open a socket with the credential in the header."""
    return wire_client(server.ws, additional_headers={"Authorization": f"Bearer {token}"})


def assert_good_reason(client: WireClient) -> None:
    """The reason is present, short and not JSON, so that SDKs rely on the code (R07)."""
    reason = client.close_reason
    assert reason
    assert 1 <= len(reason.encode()) <= 123
    with pytest.raises(ValueError):
        json.loads(reason)


def answered(client: WireClient, number: int) -> bool:
    """Whether the last frame is the reply to this command."""
    return bool(client.frames) and client.frames[-1].get("id") == number


async def assert_closed(client: WireClient, code: int) -> None:
    """The connection ends with this code and a reason."""
    assert await client.until_closed() == code
    assert_good_reason(client)


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with deadlines short enough to wait for."""
    environment = {
        "TOWPATH_CONNECT_TIMEOUT": "0.5",
        "TOWPATH_PING_INTERVAL": "0.6",
        "TOWPATH_PONG_TIMEOUT": "0.4",
        "TOWPATH_EXPIRY_GRACE": "1",
        "TOWPATH_USER_CONNECTIONS": "1",
    }
    data = tmp_path_factory.mktemp("brisk") / "data"
    with ServerProcess(data, environment=environment) as process:
        yield process


async def test_r08_a_handshake_holds_documented_frames_only_in_documented_order(
    server: ServerProcess,
) -> None:
    """Every frame of a recorded handshake is the reply to a command, or a push after it."""
    async with wire_client(server.ws) as client:
        connected = await client.connect(server.token("transcript"))
        await client.command("subscribe", channel="user")
        started = await ask(client, "hello there")
        await until_over(client, started)
        kinds = [next(iter(set(frame) - {"id"})) for frame in client.frames]
    documented = {"client", "version", "expires", "ttl", "ping", "pong", "subs", "data"}
    assert kinds[:2] == ["connect", "error"]  # `user` is there already: 105.
    assert client.frames[1]["error"]["code"] == 105
    assert set(kinds) == {"connect", "error", "rpc", "subscribe", "push"}
    assert set(connected["connect"]) <= documented
    assert connected["connect"]["ping"] == 25
    assert connected["connect"]["pong"] is True
    assert connected["connect"]["expires"] is True
    assert 3590 <= connected["connect"]["ttl"] <= 3600
    for name in ("user", "tenant"):
        sub = connected["connect"]["subs"][name]
        assert (sub["recoverable"], sub["positioned"], sub["offset"]) == (True, True, 0)
        assert sub["epoch"]
    replies = [frame["id"] for frame in client.frames if "id" in frame]
    assert replies == sorted(replies)
    assert len(replies) == len(set(replies))
    for frame in client.frames:
        assert set(frame) <= {"id", "connect", "error", "rpc", "subscribe", "push"}
        if "push" in frame:
            assert set(frame["push"]) == {"channel", "pub"}
            assert set(frame["push"]["pub"]) <= {"data", "offset", "tags"}


async def test_r63_a_connection_without_a_credential_is_closed(server: ServerProcess) -> None:
    """There are no anonymous users: connect without a token ends with 3500 and no reply."""
    for fields in ({}, {"token": ""}, {"data": {"token": "x"}, "name": "js"}):
        async with wire_client(server.ws) as client:
            await client.send({"id": 1, "connect": fields})
            await assert_closed(client, 3500)
            assert client.frames == []


async def test_r13_bad_credentials_are_refused_and_expired_ones_may_be_renewed(
    server: ServerProcess,
) -> None:
    """A foreign key is 3500 for good; an expired token is 109 and then 3000 connect failed."""
    good = server.token("negative")
    for bad in (foreign_token(), good[:-3], good + "AA", "x", "a.b.c", good.swapcase()):
        async with wire_client(server.ws) as client:
            await client.send({"id": 1, "connect": {"token": bad}})
            await assert_closed(client, 3500)
            assert client.frames == []
    async with wire_client(server.ws) as client:
        reply = await client.connect(server.token("negative", ttl=-60))
        await assert_closed(client, 3000)
    assert reply == {"id": 1, "error": {"code": 109, "message": "token expired"}}
    assert client.close_reason == "connect failed"


@pytest.mark.parametrize("odd", ["\xe9", "\xff", "\xa0", "\xaa"])
async def test_r13_a_good_token_with_a_character_outside_ascii_is_refused(
    server: ServerProcess, odd: str
) -> None:
    """No character is stripped, folded or decoded, before, inside or after a good token."""
    good = server.token("forged")
    middle = len(good) // 2
    for forged in (f"{good}{odd}", f"{odd}{good}", f"{good[:middle]}{odd}{good[middle:]}"):
        async with bearing(server, forged) as client:
            await client.send({"id": 1, "connect": {}})
            await assert_closed(client, 3500)
        async with wire_client(server.ws) as client:
            await client.send({"id": 1, "connect": {"token": forged}})
            await assert_closed(client, 3500)
        asking = head("/api/v1/whoami")[:-2] + b"Authorization: Bearer "
        for encoding in ("latin-1", "utf-8"):
            request = asking + forged.encode(encoding) + b"\r\n\r\n"
            assert (await status_of(server.port, request))[0] == 401


async def test_a_header_logs_in_and_is_told_no_expiry(server: ServerProcess) -> None:
    """A credential in the header connects; no SDK could refresh it, so no ttl is sent."""
    async with bearing(server, server.token("header")) as client:
        connected = (await client.connect())["connect"]
        who = await client.rpc("whoami")
    assert "expires" not in connected
    assert "ttl" not in connected
    assert (who["user"], who["tenant"]) == ("header", "acme")


async def test_r19_the_token_of_the_connect_command_comes_before_the_header(
    server: ServerProcess,
) -> None:
    """The first source is used: a good header does not rescue a bad connect token."""
    async with bearing(server, server.token("second")) as client:
        await client.connect(server.token("first"))
        assert (await client.rpc("whoami"))["user"] == "first"
    async with bearing(server, server.token("second")) as client:
        await client.send({"id": 1, "connect": {"token": foreign_token()}})
        await assert_closed(client, 3500)


async def test_the_first_command_must_be_connect(server: ServerProcess) -> None:
    """Any other first command ends the connection with 3501 and no reply."""
    commands: list[dict[str, Any]] = [
        {"rpc": {"method": "whoami"}},
        {"subscribe": {"channel": "user"}},
        {"ping": {}},
    ]
    for command in commands:
        async with wire_client(server.ws) as client:
            await client.send({"id": 1, **command})
            await assert_closed(client, 3501)
            assert client.frames == []


async def test_a_second_connect_ends_the_connection(server: ServerProcess) -> None:
    """Connecting twice is 3501, before and after the verdict."""
    token = server.token("twice")
    async with wire_client(server.ws, token) as client:
        await client.send({"id": 9, "connect": {"token": token}})
        await assert_closed(client, 3501)
    async with wire_client(server.ws) as client:
        connect = {"connect": {"token": token}}
        await client.send({"id": 1, **connect}, {"id": 2, **connect})
        await assert_closed(client, 3501)


async def test_without_a_connect_command_the_deadline_ends_it(brisk: ServerProcess) -> None:
    """A socket that sends nothing is closed with 3502 after the deadline."""
    async with wire_client(brisk.ws) as client:
        began = asyncio.get_running_loop().time()
        await assert_closed(client, 3502)
        assert 0.4 <= asyncio.get_running_loop().time() - began < 2


async def test_r02_everything_may_come_in_the_first_frame(server: ServerProcess) -> None:
    """Connect, subscribes and a call in one frame are answered in order, connect once."""
    token = server.token("one-frame")
    async with wire_client(server.ws, token) as client:
        thread = await open_thread(client)
    async with wire_client(server.ws) as client:
        await client.send(
            {"id": 1, "connect": {"token": token}},
            {"id": 2, "subscribe": {"channel": f"thread:{thread}"}},
            {"id": 3, "subscribe": {"channel": "thread:none"}},
            {"id": 4, "rpc": {"method": "whoami"}},
        )
        await client.until(lambda: len(client.frames) == 4)
    assert [frame["id"] for frame in client.frames] == [1, 2, 3, 4]
    assert "connect" in client.frames[0]
    assert "subscribe" in client.frames[1]
    assert client.frames[2]["error"]["code"] == 102
    assert client.frames[3]["rpc"]["data"]["user"] == "one-frame"


async def test_r02_what_waits_behind_a_refused_connect_has_no_effect(
    server: ServerProcess,
) -> None:
    """Commands after a connect that fails are neither answered nor executed."""
    create: dict[str, Any] = {"method": "thread.create", "data": {"request_id": "r", "title": "x"}}
    for token, code in ((server.token("early", ttl=-60), 3000), (foreign_token(), 3500)):
        async with wire_client(server.ws) as client:
            await client.send({"id": 1, "connect": {"token": token}}, {"id": 2, "rpc": create})
            await assert_closed(client, code)
            assert [frame.get("id") for frame in client.frames] in ([], [1])
    async with wire_client(server.ws, server.token("early")) as client:
        assert (await client.rpc("thread.list"))["threads"] == []


async def test_what_waits_for_the_verdict_is_bounded(server: ServerProcess) -> None:
    """More commands in the first frame than a frame may hold end the connection with 3501."""
    async with wire_client(server.ws) as client:
        calls = [{"id": number, "ping": {}} for number in range(2, 300)]
        await client.send({"id": 1, "connect": {"token": server.token("eager")}}, *calls)
        await assert_closed(client, 3501)
    async with wire_client(server.ws) as client:
        calls = calls[:254]
        await client.send({"id": 1, "connect": {"token": server.token("eager")}}, *calls)
        await client.until(lambda: len(client.frames) == 255)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "not json",
        "[]",
        "17",
        '"connect"',
        '{"id": 1.5, "ping": {}}',
        '{"id": -1, "ping": {}}',
        '{"id": 4294967296, "ping": {}}',
        '{"ping": {}}',
        '{"id": 5, "send": {"data": {}}}',
        '{"id": 5, "rpc": {"method": "whoami", "data": ' + "[" * 70 + "]" * 70 + "}}",
    ],
)
async def test_what_cannot_be_answered_ends_the_connection(
    server: ServerProcess, text: str
) -> None:
    """Text that is no command with an id is 3501, before and after the verdict; never 1011."""
    async with wire_client(server.ws, server.token("malformed")) as client:
        await client.socket.send(text)
        await assert_closed(client, 3501)
        assert len(client.frames) == 1
    async with wire_client(server.ws) as client:
        await client.socket.send(text)
        await assert_closed(client, 3501)


async def test_wrong_types_are_answered_and_the_connection_goes_on(
    server: ServerProcess,
) -> None:
    """A command with an id and fields of the wrong type is 107; the next one works."""
    async with wire_client(server.ws, server.token("types")) as client:
        wrong: list[dict[str, Any]] = [
            {"subscribe": {"channel": 7}},
            {"subscribe": []},
            {"subscribe": {"channel": "user", "offset": -1}},
            {"subscribe": {"channel": "user", "recover": "yes"}},
            {"unsubscribe": {}},
            {"history": {"channel": "user", "limit": "all"}},
            {"rpc": {"method": None}},
        ]
        for fields in wrong:
            number = len(client.frames) + 100
            await client.send({"id": number, **fields})
            await client.until(functools.partial(answered, client, number))
            assert client.frames[-1]["error"]["code"] == 107, fields
        datas: list[Any] = [7, "x", [], *({"thread_id": bad} for bad in (4, "", "x" * 129))]
        for data in datas:
            reply = await client.command("rpc", method="thread.get", data=data)
            assert reply["error"]["code"] == 107, data
        assert (await client.rpc("whoami"))["user"] == "types"


async def test_r66_what_is_not_known_is_never_acknowledged(server: ServerProcess) -> None:
    """An unknown command or method gets one error 104 and has no effect."""
    async with wire_client(server.ws, server.token("unknown")) as client:
        assert (await client.command("teleport", where="x"))["error"]["code"] == 104
        for method in ("run.teleport", "", "RUN.START", "run", "__class__", "whoami "):
            reply = await client.command("rpc", method=method, data={"request_id": "x"})
            assert reply["error"]["code"] == 104, method
        assert (await client.rpc("thread.list"))["threads"] == []
        assert len(client.frames) == 9


async def test_messages_are_bounded_before_and_after_the_verdict(server: ServerProcess) -> None:
    """64 KiB before the verdict and 1 MiB after it pass; one byte more is 1009."""
    token = server.token("sizes")

    def padded(size: int, **command: Any) -> str:
        text = json.dumps({"pad": "", **command})
        return text.replace('"pad": ""', '"pad": "' + "x" * (size - len(text)) + '"')

    for size, code in ((64 * 1024, None), (64 * 1024 + 1, 1009)):
        async with wire_client(server.ws) as client:
            await client.socket.send(padded(size, id=1, connect={"token": token}))
            if code is None:
                await client.until(functools.partial(answered, client, 1))
            else:
                await assert_closed(client, code)
    for size, code in ((1024 * 1024, None), (1024 * 1024 + 1, 1009)):
        async with wire_client(server.ws, token) as client:
            await client.socket.send(padded(size, id=9, rpc={"method": "whoami"}))
            if code is None:
                await client.until(functools.partial(answered, client, 9))
            else:
                await assert_closed(client, code)


async def test_a_binary_frame_is_not_of_this_dialect(server: ServerProcess) -> None:
    """A binary frame is 1003, before and after the verdict."""
    for token in ("", server.token("binary")):
        async with wire_client(server.ws, token) as client:
            await client.socket.send(b'{"id":5,"ping":{}}')
            await assert_closed(client, 1003)


async def test_r37_a_peer_without_pong_is_closed_and_frees_its_place(
    brisk: ServerProcess,
) -> None:
    """No pong is 3012; with a bound of one connection, the next one is then accepted."""
    token = brisk.token("mute")
    async with wire_client(brisk.ws, token, answer_pings=False) as mute:
        async with wire_client(brisk.ws) as locked_out:
            await locked_out.send({"id": 1, "connect": {"token": token}})
            await assert_closed(locked_out, 3504)
        await assert_closed(mute, 3012)
        assert mute.frames[-1] == {}
        async with wire_client(brisk.ws) as next_one:
            assert "connect" in await next_one.connect(token)


async def test_pings_keep_a_connection_that_answers(brisk: ServerProcess) -> None:
    """Pings are empty frames; a client that answers them stays connected."""
    async with wire_client(brisk.ws, brisk.token("awake")) as client:
        await client.until(lambda: client.frames.count({}) == 3)
        assert (await client.rpc("whoami"))["user"] == "awake"


async def test_an_unsolicited_pong_ends_the_connection(server: ServerProcess) -> None:
    """An unsolicited pong is 3501, before and after the verdict."""
    for token in ("", server.token("pong")):
        async with wire_client(server.ws, token) as client:
            await client.send({})
            await assert_closed(client, 3501)


async def test_r67_a_user_has_twenty_connections(server: ServerProcess) -> None:
    """The 20th connection of a user works, the 21st is 3504, and other users are not affected."""
    token = server.token("many")
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(wire_client(server.ws, token)) for _ in range(20)
        ]
        assert all(client.client_id for client in clients)
        assert len({client.client_id for client in clients}) == 20
        async with wire_client(server.ws) as late:
            await late.send({"id": 1, "connect": {"token": token}})
            await assert_closed(late, 3504)
        async with wire_client(server.ws, server.token("many", "other-tenant")) as other:
            assert other.client_id
        await clients[0].leave()
        async with wire_client(server.ws) as late:
            reply = await late.connect(token)
            assert "connect" in reply


async def test_r67_a_connection_reads_128_channels(server: ServerProcess) -> None:
    """With two server-side ones, 126 more are allowed; the next is 106 until one is left."""
    async with wire_client(server.ws, server.token("wide")) as client:
        made = await asyncio.gather(
            *(client.rpc("thread.create", request_id=f"t{index}") for index in range(127))
        )
        names = [f"thread:{one['thread_id']}" for one in made]
        for name in names[:126]:
            assert "subscribe" in await client.command("subscribe", channel=name)
        refused = await client.command("subscribe", channel=names[126])
        assert refused["error"]["code"] == 106
        assert await client.command("unsubscribe", channel=names[0])
        assert "subscribe" in await client.command("subscribe", channel=names[126])


async def test_r64_a_connection_may_fail_a_hundred_times(server: ServerProcess) -> None:
    """The 100th error is answered, the next one ends the connection with 3013."""
    async with wire_client(server.ws, server.token("clumsy")) as client:
        for _ in range(100):
            assert (await client.command("subscribe", channel="nowhere"))["error"]["code"] == 102
        await client.send({"id": 999, "subscribe": {"channel": "nowhere"}})
        await assert_closed(client, 3013)


async def test_r04_one_connection_has_one_id_in_every_layer(server: ServerProcess) -> None:
    """The connect reply, whoami, presence and the log carry the same id."""
    async with wire_client(server.ws, server.token("identity")) as client:
        who = await client.rpc("whoami")
        presence = await client.command("presence", channel="user")
    assert len(client.client_id) >= 16
    assert who["connection"] == client.client_id
    clients = presence["presence"]["presence"]
    assert list(clients) == [client.client_id]
    assert clients[client.client_id]["client"] == client.client_id

    async def users_by_event() -> dict[str, str]:
        lines = [json.loads(x) for x in server.log.read_text().splitlines() if x.startswith("{")]
        mine = [line for line in lines if line.get("connection") == client.client_id]
        return {line["event"]: line.get("user", "") for line in mine}

    async def closed() -> bool:
        return "connection_closed" in await users_by_event()

    await eventually(closed)
    logged_users = await users_by_event()
    assert logged_users["connection_opened"] == logged_users["connection_closed"] == "identity"


async def test_r09_every_end_is_logged_with_its_code(server: ServerProcess) -> None:
    """The close code a client reads is the one in the log and in the metrics."""
    async with wire_client(server.ws, server.token("ending")) as client:
        await client.send({})
        await assert_closed(client, 3501)
        number = client.client_id

    async def logged() -> bool:
        return server.log.read_text().count(number) == 2

    await eventually(logged)
    lines = [line for line in server.log.read_text().splitlines() if number in line]
    closed = json.loads(lines[-1])
    assert (closed["event"], closed["code"]) == ("connection_closed", 3501)
    assert closed["reason"] == client.close_reason


async def test_r20_a_header_credential_ends_after_its_grace(brisk: ServerProcess) -> None:
    """A credential no SDK can refresh ends with 3005 after exp and grace; the run goes on."""
    # The verifier allows for 30 s between clocks, so this one is nearly over and still good.
    async with bearing(brisk, brisk.token("brief", ttl=1.2)) as client:
        began = asyncio.get_running_loop().time()
        assert "connect" in await client.connect()
        started = await ask(client, "count 60 at 20/s")
        await assert_closed(client, 3005)
        assert 0.9 <= asyncio.get_running_loop().time() - began <= 4
    async with wire_client(brisk.ws, brisk.token("brief")) as client:

        async def finished() -> bool:
            run = await client.rpc("run.get", run_id=started.run)
            return bool(run["status"] == "finished")

        await eventually(finished)


async def test_r84_a_connect_token_not_refreshed_ends_after_its_grace(
    brisk: ServerProcess,
) -> None:
    """Past exp plus grace 3005 follows, and a refresh in time prevents it."""
    async with (
        wire_client(brisk.ws, brisk.token("lazy", ttl=1.2)) as lazy,
        wire_client(brisk.ws, brisk.token("diligent", ttl=1.2)) as diligent,
    ):
        renewed = await diligent.command("refresh", token=brisk.token("diligent"))
        assert renewed["refresh"]["ttl"] > 3000
        await assert_closed(lazy, 3005)
        assert (await diligent.rpc("whoami"))["user"] == "diligent"


async def test_a_refresh_keeps_the_connection_and_its_subscriptions(
    server: ServerProcess,
) -> None:
    """A new credential of the user is accepted; the reply has its ttl, and nothing is lost."""
    async with wire_client(server.ws) as client:
        await client.connect(server.token("renewing", ttl=100))
        thread = await open_thread(client)
        before = await client.rpc("whoami")
        reply = (await client.command("refresh", token=server.token("renewing")))["refresh"]
        after = await client.rpc("whoami")
        started = await ask(client, "still here?", thread=thread)
        await until_over(client, started)
    assert reply["client"] == client.client_id
    assert reply["expires"] is True
    assert reply["ttl"] > 3000
    assert reply["version"].startswith("towpath ")
    assert after["expires_at"] > before["expires_at"] + 3000
    assert after["connection"] == before["connection"]


async def test_r85_a_refresh_cannot_change_who_it_is(server: ServerProcess) -> None:
    """Another user's, another tenant's or a forged credential on refresh is 3500."""
    for token in (server.token("mallory"), server.token("trent", "globex"), foreign_token()):
        async with wire_client(server.ws, server.token("trent")) as client:
            await client.send({"id": 7, "refresh": {"token": token}})
            await assert_closed(client, 3500)
            assert len(client.frames) == 1


async def test_an_expired_token_on_refresh_is_temporary(server: ServerProcess) -> None:
    """SDKs disconnect on any other error: 109 is temporary, and the connection stays."""
    async with wire_client(server.ws, server.token("behind")) as client:
        reply = await client.command("refresh", token=server.token("behind", ttl=-60))
        assert reply["error"] == {"code": 109, "message": "token expired", "temporary": True}
        assert (await client.command("refresh", token=""))["error"]["code"] == 107
        assert (await client.rpc("whoami"))["user"] == "behind"


async def test_unknown_fields_and_flags_are_ignored_and_not_confirmed(
    server: ServerProcess,
) -> None:
    """Additions of a newer SDK change nothing and are not echoed."""
    async with wire_client(server.ws) as client:
        reply = await client.connect(
            server.token("modern"), flag=255, headers={"authorization": "x"}, novelty={"a": 1}
        )
        thread = await open_thread(client)
        await client.command("unsubscribe", channel=f"thread:{thread}")
        answer = await client.command(
            "subscribe", channel=f"thread:{thread}", delta="fossil", join_leave=True, flag=1
        )
    assert not {"flag", "session", "node", "novelty"} & set(reply["connect"])
    assert not {"delta", "join_leave", "flag"} & set(answer["subscribe"])


async def test_a_gone_position_in_connect_is_unrecovered_whatever_its_flag(
    server: ServerProcess,
) -> None:
    """Flag 2 refuses a subscribe command; a connect is not refused for one gone position."""
    gone = {"recover": True, "offset": 1, "epoch": "gone", "flag": 2}
    async with wire_client(server.ws) as client:
        connected = await client.connect(server.token("back"), subs={"user": gone})
        sub = connected["connect"]["subs"]["user"]
        assert not sub.get("recovered")
        assert sub["was_recovering"] is True


async def test_the_subprotocol_is_answered_when_offered(server: ServerProcess) -> None:
    """`centrifuge-json` is echoed; a missing or unknown one is accepted without an answer."""
    for offered, answered in (
        (["centrifuge-json"], "centrifuge-json"),
        (["unknown", "centrifuge-json"], "centrifuge-json"),
        (None, None),
    ):
        async with open_socket(server.ws, subprotocols=offered, proxy=None) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol == answered
