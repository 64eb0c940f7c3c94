"""What Towpath promises to every SDK: one suite, which each SDK's tests inherit."""

import asyncio
import contextlib
import json
import sqlite3
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from ag_ui_validate import create_validator

from tests.sdk.client import (
    START,
    Ended,
    GetToken,
    OpenClient,
    Position,
    Reader,
    RPCFailed,
    SdkClient,
)
from tests.sdk.reducer import Event
from towpath.auth.development import development_key, sign
from towpath.log.sqlite.file_schema import CHANNELS
from towpath.testing.faults import PASS, Drop, FaultProxy, Refuse, Reset
from towpath.testing.server import ServerProcess

INVALID_TOKEN = 3500
MOVE_ELSEWHERE = 3001
EXPIRED = 3005
LONGER_THAN_RECONNECTS = 0.8
"""Seconds in which an SDK that means to come back has tried several times."""


def counted(number: int) -> str:
    """Return what the agent says when asked to count."""
    return " ".join(str(n) for n in range(1, number + 1))


def someone() -> str:
    """Return the name of a person no other test knows."""
    return f"person-{uuid.uuid4().hex[:8]}"


def asking(*tokens: str) -> tuple[GetToken, list[float]]:
    """Return a `get_token` that hands out these, the last one for ever, and when it was asked."""
    times: list[float] = []

    async def get_token() -> str:
        times.append(time.monotonic())
        return tokens[min(len(times), len(tokens)) - 1]

    return get_token, times


def check_legal(events: list[Event]) -> None:
    """Check a stream with the validator of `ag-ui-validate`.

    Raises:
        AssertionError: it has something against it.
    """
    validator = create_validator()
    for event in events:
        validator.feed(event)
    validator.finalize()
    report = validator.report()
    assert report.event_count == len(events)
    assert not report.internal_errors
    assert not [item for item in report.diagnostics if item.severity == "error"]


def check_closes(client: SdkClient) -> None:
    """Check that every close code came with a reason that is a sentence and not JSON.

    Raises:
        AssertionError: one did not.
    """
    for code, reason in client.closes:
        assert 1 <= len(reason.encode()) <= 123, f"{code} has a reason of legal size"
        with pytest.raises(ValueError):
            json.loads(reason)


def check_whole(reader: Reader, text: str) -> None:
    """Check that a reader ended with exactly this text, by every means there is.

    Raises:
        AssertionError: it did not.
    """
    assert reader.answer == text
    reader.check_sequence()
    reader.check_digests()
    check_legal(reader.stream)


@asynccontextmanager
async def proxied(server: ServerProcess) -> AsyncIterator[FaultProxy]:
    """Open a network to a server that can fail."""
    async with FaultProxy("127.0.0.1", server.port) as line:
        yield line


def websocket(line: FaultProxy) -> str:
    """Return the URL of the server's WebSocket endpoint, by way of a network that can fail."""
    return f"ws://{line.host}:{line.port}/connection/websocket"


def gauge(server: ServerProcess, name: str) -> float:
    """Return a number of the server's `/metrics`."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return float(value)


def forget(server: ServerProcess, channel: str) -> None:
    """Drop what a stopped server's log has of a thread, as its retention does after a while."""
    with contextlib.closing(sqlite3.connect(server.data / "towpath.db")) as db, db:
        name = f"%{channel.removeprefix('thread:')}"
        row = next(CHANNELS.rows(db, "WHERE name LIKE ?", (name,)))
        assert db.execute("DELETE FROM log WHERE channel=?", (row.id,)).rowcount
        CHANNELS.update(db, row._replace(publications=0, bytes=0, due=None))


class SdkContract:
    """Every test here holds for every official SDK."""

    open: OpenClient

    # -- coming in ------------------------------------------------------------------------------

    async def test_connects_with_a_token(self, server: ServerProcess) -> None:
        """A client with a token is connected as the person and tenant of the token."""
        me = someone()
        async with self.open(server.ws, server.token(me, "acme")) as client:
            await client.connect()
            await client.until_connected()
            who = await client.rpc("whoami")
        assert (who["user"], who["tenant"]) == (me, "acme")
        assert who["connection"] == client.connected[0]

    async def test_connects_with_get_token(self, server: ServerProcess) -> None:
        """A client without a token asks the application for one, once, and is connected."""
        me = someone()
        get_token, request = asking(server.token(me))
        async with self.open(server.ws, get_token=get_token) as client:
            await client.connect()
            await client.until_connected()
            assert (await client.rpc("whoami"))["user"] == me
        assert len(request) == 1

    async def test_is_subscribed_to_user_and_tenant(self, server: ServerProcess) -> None:
        """The connect reply brings `user` and `tenant`, recoverable and positioned."""
        async with self.open(server.ws, server.token(someone())) as client:
            await client.connect()
            await client.news.until(lambda: len(client.server_joins) >= 2)
        assert set(client.server_joins) == {"user", "tenant"}
        for (joined,) in client.server_joins.values():
            assert joined.recoverable
            assert joined.positioned
            assert joined.position.epoch

    async def test_unknown_rpc_method_is_error_104(self, server: ServerProcess) -> None:
        """An unknown method gets error 104, and the connection goes on."""
        async with self.open(server.ws, server.token(someone())) as client:
            await client.connect()
            await client.until_connected()
            with pytest.raises(RPCFailed) as failed:
                await client.rpc("no.such.method")
            assert await client.rpc("whoami")
        assert failed.value.code == 104
        assert len(client.connected) == 1

    # -- being refused --------------------------------------------------------------------------

    @pytest.mark.parametrize("credential", ["none", "garbage", "another key", "cut short"])
    async def test_r62_r63_bad_credential_is_terminal(
        self, server: ServerProcess, tmp_path: Path, credential: str
    ) -> None:
        """Without a valid token the close is 3500, and the SDK does not come back."""
        strange = development_key(tmp_path / "elsewhere")
        token = {
            "none": "",
            "garbage": "garbage",
            "another key": sign(strange, user="alice", tenant="acme", now=time.time(), ttl=3600),
            "cut short": server.token()[:-8],
        }[credential]
        async with proxied(server) as line, self.open(websocket(line), token) as client:
            await client.connect()
            ended = await client.until_disconnected()
            await asyncio.sleep(LONGER_THAN_RECONNECTS)
            assert line.connections == 1, "it did not try again"
        assert ended.code == INVALID_TOKEN
        assert client.connected == []
        check_closes(client)

    async def test_r63_no_token_on_reconnect_is_terminal(self, server: ServerProcess) -> None:
        """A client that lost its token is refused on reconnect as well; nobody is anonymous."""
        async with (
            proxied(server) as line,
            self.open(websocket(line), server.token(someone())) as client,
        ):
            await client.connect()
            await client.until_connected()
            await client.set_token("")
            line.cut()
            ended = await client.until_disconnected()
            await asyncio.sleep(LONGER_THAN_RECONNECTS)
            assert line.connections == 2, "it tried once"
        assert ended.code == INVALID_TOKEN
        assert len(client.connected) == 1

    async def test_expired_token_is_109_and_asks_for_another(self, server: ServerProcess) -> None:
        """An expired token makes the SDK ask the application for another and come in with it."""
        me = someone()
        get_token, request = asking(server.token(me))
        async with self.open(server.ws, server.token(me, ttl=-60), get_token=get_token) as client:
            await client.connect()
            await client.until_connected()
            assert (await client.rpc("whoami"))["user"] == me
        assert 109 in [error.code for error in client.errors]
        assert len(request) == 1
        check_closes(client)

    async def test_foreign_thread_is_error_102(self, server: ServerProcess) -> None:
        """A thread of somebody else, of the same tenant too, is refused like one that is none."""
        ends: list[Ended] = []
        async with (
            self.open(server.ws, server.token(someone(), "acme")) as owner,
            self.open(server.ws, server.token(someone(), "acme")) as other,
        ):
            for client in (owner, other):
                await client.connect()
                await client.until_connected()
            plain, _ = await owner.start_run("count 3")
            known, position = await owner.start_run("count 3")
            request = [(plain, None), (known, position), (f"thread:{uuid.uuid4().hex}", START)]
            for channel, since in request:
                reader = await other.subscribe(channel, since)
                ends.append(await reader.until_ended())
                assert reader.deliveries == []
        assert {end.code for end in ends} == {102}
        assert len(set(ends)) == 1, "both are refused in the same words"

    # -- seeing a run ---------------------------------------------------------------------------

    async def test_r46_new_thread_is_seen_from_its_first_event(self, server: ServerProcess) -> None:
        """A live connection starts a run on a new thread and sees all of it, in order."""
        async with self.open(server.ws, server.token(someone())) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 60 at 100/s")
            reader = await client.subscribe(channel, position)
            await reader.until_over()
        assert reader.types == [
            "RUN_STARTED",
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END",
            "RUN_FINISHED",
        ]
        assert reader.joins[0].recovered
        reader.check_sequence(first=1)
        check_whole(reader, counted(60))

    async def test_every_kind_of_event_arrives_in_order(self, server: ServerProcess) -> None:
        """A run with thoughts and tool calls arrives whole, and its reply at the end."""
        async with self.open(server.ws, server.token(someone())) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("one three")
            reader = await client.subscribe(channel, position)
            await reader.until_over()
        call = ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
        assert [kind for kind in reader.types if kind in call] in (
            call * 2,
            ["TOOL_CALL_START", "TOOL_CALL_ARGS", *call[1:]] * 2,
        )
        assert reader.types[0] == "RUN_STARTED"
        assert reader.types[1] == "REASONING_START"
        assert reader.types[-1] == "RUN_FINISHED"
        check_whole(reader, "Your message has 2 words, the longest is “three”.")

    async def test_second_run_continues_the_stream(self, server: ServerProcess) -> None:
        """A second run of a thread comes on the subscription that is there, and adds to it."""
        async with self.open(server.ws, server.token(someone())) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 5")
            reader = await client.subscribe(channel, position)
            await reader.until_over()
            await client.start_run("count 7", thread=channel.removeprefix("thread:"))
            await reader.until_over(runs=2)
        assert reader.conversation.said("assistant") == [counted(5), counted(7)]
        assert reader.conversation.said("user") == ["count 5", "count 7"]
        check_whole(reader, counted(7))

    @pytest.mark.parametrize("after", [1, 20, 70])
    async def test_r74_join_mid_run_from_the_start(self, server: ServerProcess, after: int) -> None:
        """A device that joins mid-run from nothing gets prelude and tail: the same text."""
        token = server.token(someone())
        async with self.open(server.ws, token) as first, self.open(server.ws, token) as second:
            for client in (first, second):
                await client.connect()
                await client.until_connected()
            channel, position = await first.start_run("count 150 at 100/s")
            watching = await first.subscribe(channel, position)
            await watching.until_words(after)
            joining = await second.subscribe(channel, START)
            await joining.until_joined()
            assert not joining.over, "it joined mid-run"
            for reader in (watching, joining):
                await reader.until_over()
        assert joining.joins[0].recovered
        assert joining.deliveries[0].event["type"] == "RUN_STARTED"
        assert joining.deliveries[0].offset == 0, "a prelude has no offsets"
        check_whole(watching, counted(150))
        check_whole(joining, counted(150))
        assert joining.conversation.texts == watching.conversation.texts

    async def test_join_without_a_position_is_whole_too(self, server: ServerProcess) -> None:
        """A plain subscription mid-run, without any position, brings the same text."""
        token = server.token(someone())
        async with self.open(server.ws, token) as client:
            await client.connect()
            await client.until_connected()
            channel, _ = await client.start_run("count 150 at 100/s")
            await asyncio.sleep(0.2)
            reader = await client.subscribe(channel)
            await reader.until_over()
        assert not reader.joins[0].recovered
        assert not reader.joins[0].was_recovering
        check_whole(reader, counted(150))

    async def test_r74_join_after_the_run(self, server: ServerProcess) -> None:
        """A device that comes when a run is over gets its prelude, and it is whole."""
        token = server.token(someone())
        async with self.open(server.ws, token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 40")
            watching = await client.subscribe(channel, position)
            await watching.until_over()
            await client.unsubscribe(watching)
            async with self.open(server.ws, token) as late:
                await late.connect()
                joining = await late.subscribe(channel, START)
                await joining.until_over()
        assert joining.answer == counted(40)
        assert joining.types == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
        check_legal(joining.stream)

    async def test_r68_every_device_ends_with_the_same_text(self, server: ServerProcess) -> None:
        """Three devices of one person, one of them cut, show the same; no offset comes twice."""
        token = server.token(someone())
        async with AsyncExitStack() as stack:
            line = await stack.enter_async_context(proxied(server))
            urls = (server.ws, server.ws, websocket(line))
            devices = [await stack.enter_async_context(self.open(url, token)) for url in urls]
            for device in devices:
                await device.connect()
                await device.until_connected()
            channel, position = await devices[0].start_run("count 100 at 100/s")
            readers = [await device.subscribe(channel, position) for device in devices]
            await readers[2].until_words(10)
            line.cut()
            for reader in readers:
                await reader.until_over()
        assert len(devices[2].connected) == 2
        for reader in readers:
            check_whole(reader, counted(100))

    async def test_unsubscribe_and_subscribe_again(self, server: ServerProcess) -> None:
        """Nothing comes while unsubscribed; subscribed again, what was missed comes first."""
        async with self.open(server.ws, server.token(someone())) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 150 at 100/s")
            reader = await client.subscribe(channel, position)
            await reader.until_words(5)
            await client.unsubscribe(reader)
            await reader.until_ended()
            await client.rpc("whoami")
            seen = len(reader.deliveries)
            await asyncio.sleep(0.3)
            assert len(reader.deliveries) == seen
            await client.resubscribe(reader)
            await reader.until_over()
        assert len(reader.joins) == 2
        check_whole(reader, counted(150))

    async def test_get_state_renders_and_subscribes_from_there(self, server: ServerProcess) -> None:
        """State from `thread.get` and the events since its position are the whole conversation."""
        token = server.token(someone())
        async with self.open(server.ws, token) as client, self.open(server.ws, token) as device:
            for each in (client, device):
                await each.connect()
                await each.until_connected()
            channel, position = await client.start_run("count 5")
            thread = channel.removeprefix("thread:")
            earlier = await client.subscribe(channel, position)
            await earlier.until_over()
            await client.start_run("count 100 at 100/s", thread=thread)
            shown: list[list[Event]] = []

            async def get_state() -> Position:
                view = await device.rpc("thread.get", {"thread_id": thread})
                shown.append(view["messages"])
                return Position(view["position"]["offset"], view["position"]["epoch"])

            reader = await device.subscribe(channel, get_state=get_state)
            await reader.until_over()
        assert [message["content"] for message in shown[0]] == ["count 5", counted(5)]
        assert len(shown) == 1
        assert reader.joins[0].recovered
        reader.check_sequence(first=1)
        check_whole(reader, counted(100))

    @pytest.mark.parametrize("position", [Position(3, "gone"), Position(10**6, "")])
    async def test_get_state_is_asked_again_on_112(
        self, server: ServerProcess, position: Position
    ) -> None:
        """A position that does not match is refused with 112: state is asked for again."""
        async with self.open(server.ws, server.token(someone())) as client:
            await client.connect()
            await client.until_connected()
            channel, before = await client.start_run("count 150 at 100/s")
            wrong = Position(position.offset, position.epoch or before.epoch)
            answers = [START, wrong]

            async def get_state() -> Position:
                return answers.pop()

            reader = await client.subscribe(channel, get_state=get_state)
            await reader.until_over()
        assert answers == []
        assert [joined.recovered for joined in reader.joins] == [True]
        check_whole(reader, counted(150))

    # -- being cut ------------------------------------------------------------------------------

    async def test_r73_cut_mid_run_loses_and_doubles_nothing(self, server: ServerProcess) -> None:
        """A line cut mid-run comes back and continues: no gap, nothing twice."""
        token = server.token(someone())
        async with proxied(server) as line, self.open(websocket(line), token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 150 at 100/s")
            reader = await client.subscribe(channel, position)
            await reader.until_words(20)
            assert line.live
            line.fault = Refuse()
            await asyncio.sleep(0.3)
            line.fault = PASS
            await reader.until_over()
        assert len(client.connected) == 2
        assert [(j.recovered, j.was_recovering) for j in reader.joins] == [(True, True)] * 2
        reader.check_sequence(first=1)
        check_whole(reader, counted(150))

    async def test_r73_several_cuts_in_a_row(self, server: ServerProcess) -> None:
        """Five cuts in one run, some of them in the middle of coming back, cost nothing."""
        token = server.token(someone())
        async with proxied(server) as line, self.open(websocket(line), token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 300 at 100/s")
            reader = await client.subscribe(channel, position)
            for again in range(5):
                await reader.until_words(3)
                line.cut()
                await client.until_connected(again + 2)
                if again % 2:
                    line.cut()
                    await client.until_connected(again + 2)
            await reader.until_over()
        assert len(client.connected) >= 6
        assert all(joined.recovered for joined in reader.joins)
        reader.check_sequence(first=1)
        check_whole(reader, counted(300))

    @pytest.mark.parametrize(("seconds", "count", "pace"), [(1, 150, 100), (30, 400, 12)])
    async def test_r73_a_while_without_a_network_costs_nothing(
        self, server: ServerProcess, seconds: int, count: int, pace: int
    ) -> None:
        """Nobody can be reached for a while; then the run goes on where it was, nothing twice."""
        token = server.token(someone())
        async with proxied(server) as line, self.open(websocket(line), token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run(f"count {count} at {pace}/s")
            reader = await client.subscribe(channel, position)
            await reader.until_words(10)
            line.fault = Refuse()
            await asyncio.sleep(seconds)
            line.fault = PASS
            await client.until_connected(2)
            await reader.until_over()
        assert len(client.connected) == 2
        reader.check_sequence(first=1)
        check_whole(reader, counted(count))

    async def test_r73_lines_that_break_within_a_frame_cost_nothing(
        self, server: ServerProcess
    ) -> None:
        """Resets so many bytes into what the server says: never half an event, nothing twice."""
        token = server.token(someone())
        async with proxied(server) as line, self.open(websocket(line), token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 300 at 100/s")
            reader = await client.subscribe(channel, position)
            for again, after in enumerate((1, 2, 77, 400, 1111)):
                await reader.until_words(2)
                line.fault = Reset(after=after)
                await client.until_connecting(again + 2)
                line.fault = PASS
                await client.until_connected(again + 2)
            await reader.until_over()
        assert all(joined.recovered for joined in reader.joins)
        reader.check_sequence(first=1)
        check_whole(reader, counted(300))

    async def test_r37_r73_a_line_that_died_in_silence_is_let_go_and_recovered(
        self, tmp_path: Path
    ) -> None:
        """Nothing passes and nobody is told: the server frees the place, and the client recovers.

        Three pings long, as half a minute is at the default of 25 s.
        """
        pings = {"TOWPATH_PING_INTERVAL": "0.5", "TOWPATH_PONG_TIMEOUT": "0.3"}
        with ServerProcess(tmp_path / "data", environment=pings) as server:
            token = server.token(someone())
            async with proxied(server) as line, self.open(websocket(line), token) as client:
                await client.connect()
                await client.until_connected()
                channel, position = await client.start_run("count 400 at 100/s")
                reader = await client.subscribe(channel, position)
                await reader.until_words(10)
                line.fault = Drop()
                await asyncio.sleep(1.5)
                assert gauge(server, "towpath_connections") == 0
                line.fault = Refuse()
                line.fault = PASS
                await reader.until_over()
            assert '"code": 3012' in server.log.read_text()
        reader.check_sequence(first=1)
        check_whole(reader, counted(400))

    async def test_r80_whoever_is_away_past_retention_is_told_so_and_sees_it_all(
        self, own_server: ServerProcess
    ) -> None:
        """The log of its position is gone when it returns: not recovered, and the whole text."""
        token = own_server.token()
        async with proxied(own_server) as line, self.open(websocket(line), token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 60 at 40/s")
            reader = await client.subscribe(channel, position)
            await reader.until_words(5)
            line.fault = Refuse()
            assert not reader.over
            async with self.open(own_server.ws, token) as other:
                await other.connect()
                witness = await other.subscribe(channel, START)
                await witness.until_over()
            own_server.stop()
            forget(own_server, channel)
            await asyncio.to_thread(own_server.start)
            line.fault = PASS
            await reader.until_joined(2)
            await reader.until_over()
        # A reader begins anew only when it is told: by `recovered`, or by 112 where it has a
        # `get_state`. Only a prelude has no offsets.
        assert reader.joins[-1].was_recovering
        assert [delivery.offset for delivery in reader.deliveries[-3:]] == [0, 0, 0]
        assert reader.types == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
        assert reader.answer == witness.answer == counted(60)
        check_legal(reader.stream)

    async def test_notices_missed_while_cut_are_recovered(self, server: ServerProcess) -> None:
        """Notices on `user` that are published while the line is cut come on reconnect, once."""
        token = server.token(someone())
        async with (
            proxied(server) as line,
            self.open(websocket(line), token) as client,
            self.open(server.ws, token) as other,
        ):
            for each in (client, other):
                await each.connect()
                await each.until_connected()
            line.fault = Refuse()
            made = [
                (await other.rpc("thread.create", {"request_id": uuid.uuid4().hex}))["thread_id"]
                for _ in range(3)
            ]
            line.fault = PASS
            await client.news.until(lambda: len(client.notices) >= 3)
            await client.rpc("whoami")
        events = [d.event for channel, d in client.notices if channel == "user"]
        assert [event["value"]["thread_id"] for event in events] == made
        assert {event["name"] for event in events} == {"towpath.thread.created"}

    async def test_r10_run_goes_on_while_nobody_is_connected(self, server: ServerProcess) -> None:
        """A disconnect ends no run: who comes back later finds all of it."""
        token = server.token(someone())
        async with self.open(server.ws, token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 60 at 100/s")
            reader = await client.subscribe(channel, position)
            await reader.until_words(3)
            seen = reader.length()
            await client.disconnect()
        await asyncio.sleep(0.9)
        async with self.open(server.ws, token) as client:
            await client.connect()
            later = await client.subscribe(channel, position)
            await later.until_over()
        assert 0 < seen < len(counted(60))
        later.check_sequence(first=1)
        check_whole(later, counted(60))

    async def test_r10_commands_are_answered_mid_run(self, server: ServerProcess) -> None:
        """While a run streams, its connection is answered at once, and may stop the run."""
        async with self.open(server.ws, server.token(someone())) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 1000 at 100/s")
            reader = await client.subscribe(channel, position)
            await reader.until_words(3)
            assert await client.rpc("whoami")
            run = reader.deliveries[0].tags["run"]
            answer = await client.rpc("run.cancel", {"request_id": someone(), "run_id": run})
            await reader.until_over()
        assert answer["status"] == "accepted"
        assert counted(1000).startswith(reader.answer)
        assert reader.answer != counted(1000)
        reader.check_sequence(first=1)

    # -- the server goes away -------------------------------------------------------------------

    async def test_killed_server_comes_back_with_everything(
        self, own_server: ServerProcess
    ) -> None:
        """After kill -9 and a start, what was seen is still there, and the run ends as lost."""
        token = own_server.token()
        async with self.open(own_server.ws, token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 5000 at 100/s")
            reader = await client.subscribe(channel, position)
            await reader.until_words(30)
            own_server.kill()
            seen = reader.answer
            await asyncio.to_thread(own_server.start)
            await reader.until_over()
            async with self.open(own_server.ws, token) as device:
                await device.connect()
                fresh = await device.subscribe(channel, START)
                await fresh.until_over()
        assert len(client.connected) == 2
        ending = reader.stream[-1]
        assert (ending["type"], ending["code"]) == ("RUN_ERROR", "run.lost")
        assert reader.joins[-1].recovered
        reader.check_sequence(first=1)
        for text in (reader.answer, fresh.answer):
            assert counted(5000).startswith(text)
            assert text.startswith(seen)
        assert fresh.answer == reader.answer
        assert reader.stream[-1] == fresh.stream[-1]
        check_legal(reader.stream)
        check_legal(fresh.stream)

    async def test_r59_stopped_server_says_come_back(self, own_server: ServerProcess) -> None:
        """SIGTERM under load: each run gets one ending, closes are 3001, all clients come back."""
        async with AsyncExitStack() as stack:
            pairs: list[tuple[SdkClient, Reader]] = []
            for _ in range(3):
                token = own_server.token(someone())
                client = await stack.enter_async_context(self.open(own_server.ws, token))
                await client.connect()
                await client.until_connected()
                channel, position = await client.start_run("count 5000 at 100/s")
                pairs.append((client, await client.subscribe(channel, position)))
            for _, reader in pairs:
                await reader.until_words(5)
            status = await asyncio.to_thread(own_server.stop)
            await asyncio.to_thread(own_server.start)
            for client, reader in pairs:
                await client.until_connected(2)
                await reader.until_over()
                await reader.until_joined(2)
                # It works again, and what comes next continues what is shown.
                await client.start_run("count 9", thread=reader.channel.removeprefix("thread:"))
                await reader.until_over(runs=2)
        assert status == 0
        for client, reader in pairs:
            assert [ended.code for ended in client.closes] == [MOVE_ELSEWHERE]
            check_closes(client)
            endings = [e for e in reader.stream if e["type"] in ("RUN_ERROR", "RUN_FINISHED")]
            assert [e.get("code") for e in endings] == ["run.drained", None]
            assert counted(5000).startswith(reader.conversation.said("assistant")[0])
            reader.check_sequence(first=1)
            check_whole(reader, counted(9))

    # -- credentials that end -------------------------------------------------------------------

    async def test_refresh_keeps_the_connection_and_every_event(
        self, server: ServerProcess
    ) -> None:
        """A token of 3 s, refreshed three times and more, interrupts neither line nor run."""
        me = someone()
        request: list[float] = []

        async def get_token() -> str:
            request.append(time.monotonic())
            return server.token(me, ttl=3)

        began = time.monotonic()
        async with self.open(server.ws, get_token=get_token) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 175 at 25/s")
            reader = await client.subscribe(channel, position)
            await reader.until_over()
        assert time.monotonic() - began > 6.5
        assert len(request) >= 4, "once to come in, then three refreshes"
        assert len(client.connected) == 1
        assert client.errors == []
        reader.check_sequence(first=1)
        check_whole(reader, counted(175))

    async def test_r83_stale_token_on_reconnect_recovers(self, server: ServerProcess) -> None:
        """A reconnect with a token that expired meanwhile fetches another and recovers."""
        me = someone()
        get_token, request = asking(server.token(me))
        async with (
            proxied(server) as line,
            self.open(websocket(line), server.token(me), get_token=get_token) as client,
        ):
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 150 at 100/s")
            reader = await client.subscribe(channel, position)
            await reader.until_words(10)
            await client.set_token(server.token(me, ttl=-60))
            line.cut()
            await reader.until_over()
        assert 109 in [error.code for error in client.errors]
        assert len(request) == 1
        assert [joined.recovered for joined in reader.joins] == [True, True]
        reader.check_sequence(first=1)
        check_whole(reader, counted(150))

    async def test_r83_expiry_ends_in_come_back(self, server: ServerProcess) -> None:
        """A token nobody refreshes in time ends in 3005; with a new one all is recovered."""
        me = someone()
        closed = asyncio.Event()

        async def get_token() -> str:
            await closed.wait()
            return server.token(me)

        async with self.open(server.ws, get_token=get_token) as client:
            await client.set_token(server.token(me, ttl=2))
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 200 at 50/s")
            reader = await client.subscribe(channel, position)
            await client.news.until(lambda: bool(client.closes))
            closed.set()
            await reader.until_over()
            attempts = len(client.connected)
        assert {ended.code for ended in client.closes} <= {EXPIRED, 3000}
        assert client.closes[0].code == EXPIRED
        check_closes(client)
        assert attempts == 2, "the expired token opens nothing"
        reader.check_sequence(first=1)
        check_whole(reader, counted(200))

    async def test_r20_token_that_ends_does_not_end_the_run(self, server: ServerProcess) -> None:
        """A run outlives the token it was started with; its person finds it with another."""
        me = someone()
        async with self.open(server.ws) as client, self.open(server.ws) as device:
            await client.set_token(server.token(me, ttl=2))
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 225 at 50/s")
            reader = await client.subscribe(channel, position)
            await client.until_disconnected()
            assert not reader.over
            await device.set_token(server.token(me))
            await device.connect()
            later = await device.subscribe(channel, position)
            await later.until_joined()
            assert not later.over, "the run still goes on"
            await later.until_over()
        later.check_sequence(first=1)
        check_whole(later, counted(225))

    # -- people ---------------------------------------------------------------------------------

    async def test_r33_ten_people_of_two_tenants_at_once(self, server: ServerProcess) -> None:
        """Ten people of two tenants, all in a thread of the same name: each sees their own."""
        thread, marks = uuid.uuid4().hex, [someone() for _ in range(5)]
        people = [(tenant, user) for tenant in ("acme", "globex") for user in marks]
        async with AsyncExitStack() as stack:
            clients = await asyncio.gather(
                *(
                    stack.enter_async_context(self.open(server.ws, server.token(user, tenant)))
                    for tenant, user in people
                )
            )
            for client in clients:
                await client.connect()
            for client in clients:
                await client.until_connected()

            async def talk(client: SdkClient, tenant: str, user: str) -> Reader:
                secret = f"{tenant} {user} " * 20
                channel, position = await client.start_run(secret, agent="echo", thread=thread)
                reader = await client.subscribe(channel, position)
                await reader.until_over()
                return reader

            readers = await asyncio.gather(
                *(talk(c, *who) for c, who in zip(clients, people, strict=True))
            )
            await asyncio.gather(*(client.rpc("whoami") for client in clients))
        runs = {reader.deliveries[0].tags["run"] for reader in readers}
        assert len(runs) == len(people)
        for client, reader, (tenant, user) in zip(clients, readers, people, strict=True):
            mine = f"{tenant} {user} " * 20
            assert reader.conversation.said("user") == [mine]
            assert len({delivery.tags["run"] for delivery in reader.deliveries}) == 1
            reader.check_sequence(first=1)
            check_whole(reader, mine)
            runs_named = {d.event["value"].get("run_id") for _, d in client.notices} - {None}
            assert runs_named <= {reader.deliveries[0].tags["run"]}, (
                "no notice of somebody else's run"
            )

    async def test_r86_another_person_inherits_nothing(self, server: ServerProcess) -> None:
        """After a change of user on one SDK client, the former one's positions open nothing."""
        alice, bob = someone(), someone()
        async with self.open(server.ws, server.token(alice)) as client:
            await client.connect()
            await client.until_connected()
            channel, position = await client.start_run("count 5")
            reader = await client.subscribe(channel, position)
            await reader.until_over()
            # That it began and that it ended: the second may come after the run's last event.
            await client.news.until(lambda: len(client.notices) == 2)
            seen, notices = len(reader.deliveries), len(client.notices)
            await client.disconnect()
            await client.set_token(server.token(bob))
            await client.connect()
            await client.until_connected(2)
            assert (await client.rpc("whoami"))["user"] == bob
            ended = await reader.until_ended()
            with pytest.raises(RPCFailed) as failed:
                await client.rpc("thread.get", {"thread_id": channel.removeprefix("thread:")})
        assert ended.code == 102
        assert failed.value.code == 404
        assert len(reader.deliveries) == seen
        assert len(client.notices) == notices
