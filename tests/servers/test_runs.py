"""Runs over real sockets: good ones, refused ones, cancelled ones, and agents that fail."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.conversation import (
    GOLDEN_PATH,
    Started,
    ask,
    assert_unbroken,
    eventually,
    from_the_start,
    golden_names,
    open_thread,
    seen_in,
    text_of,
    until_over,
    until_text,
)
from tests.servers.odd_agents import SECRET
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose agents fail."""
    data = tmp_path_factory.mktemp("odd") / "data"
    application = "tests.servers.odd_agents:gateway"
    with ServerProcess(data, "--app", application, cwd=ROOT) as process:
        yield process


async def assert_one_ending(client: WireClient, started: Started) -> None:
    """A reader from the start finds exactly one terminal event, and it comes last."""
    await client.command("unsubscribe", channel=started.channel)
    seen = seen_in(await from_the_start(client, started.thread))
    assert [event["type"] in TERMINAL for event in seen].count(True) == 1
    assert seen[-1]["type"] in TERMINAL
    live = client.events(started.channel)
    assert [event["type"] in TERMINAL for event in live].count(True) == 1
    assert live[-1]["type"] in TERMINAL


async def test_r05_r41_the_five_names_arrive_in_order(server: ServerProcess) -> None:
    """A run of `tools` brings all five golden-path names, rising offsets, and the answer."""
    async with wire_client(server.ws, server.token("golden")) as client:
        started = await ask(client, "hello wonderful world")
        ended = await until_over(client, started)
        publications = client.publications(started.channel)
        stored = await client.rpc("thread.get", thread_id=started.thread)
    events = client.events(started.channel)
    assert golden_names(events) == GOLDEN_PATH
    assert ended["outcome"] == {"type": "success"}
    assert_unbroken(publications, after=0)
    assert publications[-1]["tags"]["seq"] == str(publications[-1]["offset"])
    assert {item["tags"]["run"] for item in publications} == {started.run}
    assert "wonderful" in text_of(events)
    assert stored["messages"][-1]["content"] == text_of(events)


async def test_refused_starts_start_nothing(server: ServerProcess) -> None:
    """Empty, unknown, oversize and contradictory requests get their code; no thread appears."""
    good = {"request_id": "r", "agent": "echo", "message": "hi"}
    refusals = [
        (107, {**good, "message": ""}),
        (107, {**good, "message": " \n\t "}),
        (107, {"request_id": "r", "agent": "echo"}),
        (107, {**good, "input": {"messages": []}}),
        (107, {**good, "request_id": ""}),
        (107, {**good, "thread_id": "a\u0000b"}),
        (404, {**good, "agent": "nobody"}),
        (413, {**good, "message": "x" * 1_000_000}),
    ]
    async with wire_client(server.ws, server.token("refused")) as client:
        for code, data in refusals:
            reply = await client.command("rpc", method="run.start", data=data)
            assert reply["error"]["code"] == code, (code, str(data)[:100])
        assert (await client.rpc("thread.list"))["threads"] == []
        await client.rpc("run.start", **good)


async def test_r91_a_second_run_in_a_busy_thread_is_refused(server: ServerProcess) -> None:
    """While a run goes on, another start in its thread is 409 and leaves it alone."""
    async with wire_client(server.ws, server.token("busy")) as client:
        started = await ask(client, "count 40 at 40/s")
        second = {"agent": "echo", "thread_id": started.thread, "message": "me too"}
        reply = await client.command(
            "rpc", method="run.start", data={"request_id": "second", **second}
        )
        assert reply["error"]["code"] == 409
        await until_over(client, started)
        assert len((await client.rpc("run.list", thread_id=started.thread))["runs"]) == 1
        assert text_of(client.events(started.channel)).endswith("39 40")


async def test_r81_the_same_request_starts_one_run(server: ServerProcess) -> None:
    """A repeated request id gets the same run; with other parameters it is 409."""
    async with wire_client(server.ws, server.token("repeats")) as client:
        request = {"request_id": "once", "agent": "echo", "message": "hi"}
        first = await client.rpc("run.start", **request)
        assert await client.rpc("run.start", **request) == first
        other = await client.command("rpc", method="run.start", data={**request, "message": "ho"})
        assert other["error"]["code"] == 409
        assert len((await client.rpc("thread.list"))["threads"]) == 1


async def test_r87_r88_another_device_cancels(server: ServerProcess) -> None:
    """A cancel from another connection ends the run as cancelled; no event follows."""
    token = server.token("stopper")
    async with wire_client(server.ws, token) as phone, wire_client(server.ws, token) as laptop:
        started = await ask(phone, "count 100000 at 200/s")
        await until_text(phone, started)
        assert (await laptop.rpc("run.cancel", request_id="c1", run_id=started.run)) == {
            "status": "accepted"
        }
        ended = await until_over(phone, started)
        assert ended["outcome"] == {"type": "cancelled"}
        run = await laptop.rpc("run.get", run_id=started.run)
        assert (run["status"], run["code"]) == ("cancelled", None)
        assert (await laptop.rpc("run.cancel", request_id="c2", run_id=started.run)) == {
            "status": "too_late"
        }
        again = await ask(phone, "and now?", thread=started.thread)
        await phone.until(
            lambda: [e["type"] for e in phone.events(started.channel)].count("RUN_FINISHED") == 2
        )
        types = [event["type"] for event in phone.events(started.channel)]
        assert types[types.index("RUN_FINISHED") + 1] == "RUN_STARTED"
        assert (await laptop.rpc("run.get", run_id=again.run))["status"] == "finished"


async def test_r90_a_late_cancel_touches_nothing(server: ServerProcess) -> None:
    """Cancelling an ended run is too_late, also while a newer one runs; a foreign one is 404."""
    async with (
        wire_client(server.ws, server.token("late")) as client,
        wire_client(server.ws, server.token("passer-by")) as stranger,
    ):
        old = await ask(client, "hi", agent="echo")
        await until_over(client, old)
        new = await ask(client, "count 20 at 40/s")
        reply = await client.rpc("run.cancel", request_id="x", run_id=old.run)
        assert reply == {"status": "too_late"}
        for run in (new.run, uuid.uuid4().hex):
            refused = await stranger.command(
                "rpc", method="run.cancel", data={"request_id": run, "run_id": run}
            )
            assert refused["error"] == {"code": 404, "message": "no such run"}
        assert (await until_over(client, new))["outcome"] == {"type": "success"}


async def test_r44_r47_an_agent_that_raises_ends_its_run_and_tells_nothing(
    odd: ServerProcess,
) -> None:
    """RUN_ERROR run.failed follows; neither exception nor traceback reaches the wire."""
    async with wire_client(odd.ws, odd.token("unlucky")) as client:
        for agent in ("raises", "raises_at_once"):
            started = await ask(client, "please", agent=agent)
            ended = await until_over(client, started)
            assert ended["type"] == "RUN_ERROR"
            assert ended["code"] == "run.failed"
            run = await client.rpc("run.get", run_id=started.run)
            assert (run["status"], run["code"]) == ("failed", "run.failed")
            await assert_one_ending(client, started)
        wire = json.dumps(client.frames)
    for leaked in (SECRET, "hunter2", "Traceback", "RuntimeError", "KeyError", ".py"):
        assert leaked not in wire
    assert "RuntimeError" in odd.log.read_text()


@pytest.mark.parametrize(
    ("agent", "code"),
    [
        ("refuses", "canal.closed"),
        ("hangs", "run.deadline"),
        ("claims_another_run", "run.illegal_event"),
        ("out_of_order", "run.illegal_event"),
        ("number", "run.illegal_event"),
    ],
)
async def test_r47_a_run_that_goes_wrong_ends_once_with_its_code(
    odd: ServerProcess, agent: str, code: str
) -> None:
    """Each failure gives exactly one RUN_ERROR, and `run.get` agrees."""
    async with wire_client(odd.ws, odd.token("patient")) as client:
        started = await ask(client, "please", agent=agent)
        ended = await until_over(client, started, seconds=5)
        run = await client.rpc("run.get", run_id=started.run)
        assert (ended["type"], ended["code"]) == ("RUN_ERROR", code)
        assert (run["status"], run["code"]) == ("failed", code)
        await assert_one_ending(client, started)
        # The thread is free again.
        again = await ask(client, "hi", agent="echo", thread=started.thread)
        assert (await client.rpc("run.get", run_id=again.run))["run_id"] == again.run


async def test_r44_a_silent_agent_finishes_with_nothing_said(odd: ServerProcess) -> None:
    """An agent that yields nothing gives RUN_STARTED and RUN_FINISHED, and no text."""
    async with wire_client(odd.ws, odd.token("listener")) as client:
        started = await ask(client, "please", agent="silent")
        await until_over(client, started)
        types = [event["type"] for event in client.events(started.channel)]
        assert types == ["RUN_STARTED", "RUN_FINISHED"]


async def test_r88_nothing_follows_an_agents_own_ending(odd: ServerProcess) -> None:
    """What an agent yields after its RUN_FINISHED is refused."""
    async with wire_client(odd.ws, odd.token("strict")) as client:
        started = await ask(client, "please", agent="talks_after_the_end")
        assert (await until_over(client, started))["type"] == "RUN_FINISHED"
        await assert_one_ending(client, started)
        assert text_of(client.events(started.channel)) == "the end"
        assert (await client.rpc("run.get", run_id=started.run))["status"] == "finished"


async def test_r10_a_run_outlives_its_reader(server: ServerProcess) -> None:
    """The line drops during the run; the run goes on, and a returning reader sees all of it."""
    token = server.token("commuter")
    async with wire_client(server.ws, token) as client:
        started = await ask(client, "count 60 at 60/s")
        await until_text(client, started)
        client.drop()
    async with wire_client(server.ws, token) as client:
        assert (await client.rpc("run.get", run_id=started.run))["status"] == "running"
        seen = seen_in(await from_the_start(client, started.thread))
        ended = await until_over(client, started)
    assert ended["outcome"] == {"type": "success"}
    whole = text_of([*seen, *client.events(started.channel)])
    assert whole == " ".join(str(number) for number in range(1, 61))


async def test_r10_commands_are_answered_mid_run(server: ServerProcess) -> None:
    """Calls, subscribes and pings are answered while a run goes on over the same connection."""
    async with wire_client(server.ws, server.token("curious")) as client:
        started = await ask(client, "count 100000 at 500/s")
        await until_text(client, started)
        assert (await client.rpc("run.get", run_id=started.run))["status"] == "running"
        assert "ping" in await client.command("ping")
        other = await open_thread(client)
        assert other != started.thread
        await client.rpc("run.cancel", request_id="enough", run_id=started.run)
        assert (await until_over(client, started))["outcome"] == {"type": "cancelled"}


async def test_r46_a_thread_made_elsewhere_is_read_from_its_first_event(
    server: ServerProcess,
) -> None:
    """A live connection learns of a new thread on `user`, subscribes, and sees the whole run."""
    token = server.token("second-screen")
    async with wire_client(server.ws, token) as old, wire_client(server.ws, token) as other:
        thread = await open_thread(other)
        await old.until_event("user", "CUSTOM")
        notice = old.events("user")[0]
        assert notice["name"] == "towpath.thread.created"
        assert "subscribe" in await old.command(
            "subscribe", channel=f"thread:{notice['value']['thread_id']}"
        )
        started = await ask(other, "hello", thread=thread)
        await until_over(old, started)
        await until_over(other, started)
    assert old.publications(started.channel) == other.publications(started.channel)
    assert old.events(started.channel)[0]["type"] == "RUN_STARTED"


async def test_r45_every_accepted_command_has_its_effect_elsewhere(
    server: ServerProcess,
) -> None:
    """Create, rename, start, cancel and delete are each seen by a second client, on the log."""
    token = server.token("doer")
    async with wire_client(server.ws, token) as doer, wire_client(server.ws, token) as witness:

        async def noticed(name: str) -> None:
            await witness.until(lambda: [e["name"] for e in witness.events("user")][-1:] == [name])

        made = await doer.rpc("thread.create", request_id="1", title="first")
        thread = made["thread_id"]
        await noticed("towpath.thread.created")
        assert (await witness.rpc("thread.list"))["threads"][0]["title"] == "first"
        await doer.rpc("thread.rename", request_id="2", thread_id=thread, title="second")
        await noticed("towpath.thread.renamed")
        assert (await witness.rpc("thread.list"))["threads"][0]["title"] == "second"
        started = await ask(doer, "count 100000 at 100/s", thread=thread)
        await noticed("towpath.run.started")
        row = (await witness.rpc("thread.list"))["threads"][0]
        assert row["active_run"] == started.run
        await doer.rpc("run.cancel", request_id="3", run_id=started.run)
        await noticed("towpath.run.ended")
        assert (await witness.rpc("run.get", run_id=started.run))["status"] == "cancelled"
        await doer.rpc("thread.delete", request_id="4", thread_id=thread)
        await noticed("towpath.thread.deleted")
        assert (await witness.rpc("thread.list"))["threads"] == []
        gone = await witness.command("rpc", method="thread.get", data={"thread_id": thread})
        assert gone["error"]["code"] == 404
        refused = await witness.command("subscribe", channel=f"thread:{thread}")
        assert refused["error"]["code"] == 102


async def test_r68_every_device_ends_with_the_same_text(server: ServerProcess) -> None:
    """Devices that join a run at different moments render the same; no offset comes twice."""
    token = server.token("three-screens")
    whole = " ".join(str(number) for number in range(1, 121))
    async with wire_client(server.ws, token) as first:
        started = await ask(first, "count 120 at 200/s")

        async def join_after(seconds: float) -> None:
            await asyncio.sleep(seconds)
            async with wire_client(server.ws, token) as client:
                answer = await from_the_start(client, started.thread)
                seen = seen_in(answer)
                if seen[-1]["type"] not in TERMINAL:
                    await until_over(client, started)
                live = client.publications(started.channel)
                assert_unbroken(live, after=answer["subscribe"]["offset"])
                assert text_of([*seen, *client.events(started.channel)]) == whole

        await asyncio.gather(*(join_after(delay / 10) for delay in range(8)))
        await until_over(first, started)
    assert text_of(first.events(started.channel)) == whole


async def test_r33_ten_people_of_two_tenants_at_once(server: ServerProcess) -> None:
    """All runs complete; no user gets a foreign publication and none loses one (isolation)."""
    people = [(f"user{index % 6}", f"tenant{index // 6}") for index in range(12)]
    ready = asyncio.Barrier(len(people))

    async def person(user: str, tenant: str) -> WireClient:
        async with wire_client(server.ws, server.token(user, tenant)) as client:
            # The same client-chosen thread id for everybody: each gets one of their own.
            await client.rpc("thread.create", request_id="same", thread_id="shared-name")
            await client.command("subscribe", channel="thread:shared-name")
            async with ready:
                mine = f"mark-{user}-{tenant} and five more words"
            started = await ask(client, mine, thread="shared-name")
            await until_over(client, started)
            publications = client.publications("thread:shared-name")
            assert [item["offset"] for item in publications] == list(
                range(1, len(publications) + 1)
            )
            assert {item["tags"]["run"] for item in publications} == {started.run}
            assert golden_names(client.events("thread:shared-name")) == GOLDEN_PATH
            assert len((await client.rpc("thread.list"))["threads"]) == 1
            return client

    clients = await asyncio.gather(*(person(*who) for who in people))
    lengths = {len(client.publications("thread:shared-name")) for client in clients}
    assert len(lengths) == 1
    for (user, tenant), client in zip(people, clients, strict=True):
        wire = json.dumps(client.frames)
        for other in people:
            assert (f"mark-{other[0]}-{other[1]} " in wire) == (other == (user, tenant))


async def test_r35_a_foreign_thread_looks_like_none(server: ServerProcess) -> None:
    """Each command answers for a foreign thread or run exactly as for a missing one."""
    async with wire_client(server.ws, server.token("owner")) as owner:
        started = await ask(owner, "private", agent="echo")
        await until_over(owner, started)
    commands: list[tuple[str, Callable[[str, str], dict[str, Any]]]] = [
        ("subscribe", lambda thread, run: {"channel": f"thread:{thread}"}),
        ("history", lambda thread, run: {"channel": f"thread:{thread}", "limit": -1}),
        ("presence", lambda thread, run: {"channel": f"thread:{thread}"}),
        ("rpc", lambda thread, run: {"method": "thread.get", "data": {"thread_id": thread}}),
        ("rpc", lambda thread, run: {"method": "run.list", "data": {"thread_id": thread}}),
        ("rpc", lambda thread, run: {"method": "run.get", "data": {"run_id": run}}),
        (
            "rpc",
            lambda thread, run: {
                "method": "thread.rename",
                "data": {"request_id": uuid.uuid4().hex, "thread_id": thread, "title": "mine"},
            },
        ),
        (
            "rpc",
            lambda thread, run: {
                "method": "thread.delete",
                "data": {"request_id": uuid.uuid4().hex, "thread_id": thread},
            },
        ),
        (
            "rpc",
            lambda thread, run: {
                "method": "run.cancel",
                "data": {"request_id": uuid.uuid4().hex, "run_id": run},
            },
        ),
    ]
    for user, tenant in (("stranger", "acme"), ("owner", "globex")):
        async with wire_client(server.ws, server.token(user, tenant)) as client:
            for name, fields in commands:
                foreign = await client.command(name, **fields(started.thread, started.run))
                missing = await client.command(name, **fields("missing", "missing"))
                assert {**foreign, "id": 0} == {**missing, "id": 0}, (name, foreign)
                assert "private" not in json.dumps(foreign)
                code = 404 if name == "rpc" else 102
                assert foreign["error"]["code"] == code, (name, foreign)


async def test_r38_r39_a_channel_of_somebody_else_cannot_be_named(
    server: ServerProcess,
) -> None:
    """Names with another person or tenant in them mean nothing: 102, at every position."""
    async with wire_client(server.ws, server.token("victim")) as victim:
        started = await ask(victim, "private", agent="echo")
        await until_over(victim, started)
        epoch = (await victim.command("history", channel=started.channel))["history"]["epoch"]
    names = [
        f"thread:victim:{started.thread}",
        f"thread:acme:victim:{started.thread}",
        f"thread:%76ictim:{started.thread}",
        f"thread:../victim/{started.thread}",
        started.channel,
        "user:victim",
        "tenant:acme",
        "user:",
        "thread:",
        "$victim",
        "#victim",
        "",
        "USER",
    ]
    positions: list[dict[str, Any]] = [{}, {"recover": True, "offset": 1, "epoch": epoch}]
    async with wire_client(server.ws, server.token("burglar")) as client:
        for name in names:
            for position in positions:
                reply = await client.command("subscribe", channel=name, **position)
                assert reply["error"]["code"] in (102, 107), name
        assert "private" not in json.dumps(client.frames)


async def test_a_message_beyond_every_bound_is_cut_off(server: ServerProcess) -> None:
    """A message of 2 MB over the socket is 1009, and the next connection works."""
    token = server.token("shouting")
    async with wire_client(server.ws, token) as client:
        data = {"request_id": "r", "agent": "echo", "message": "x" * 2_000_000}
        await client.send({"id": 9, "rpc": {"method": "run.start", "data": data}})
        assert await client.until_closed() == 1009
    async with wire_client(server.ws, token) as client:
        assert (await client.rpc("thread.list"))["threads"] == []


async def test_r92_a_stopped_agent_is_gone(odd: ServerProcess) -> None:
    """After a cancel the metric of active runs returns to zero."""
    async with wire_client(odd.ws, odd.token("sweeper")) as client:
        started = await ask(client, "please", agent="waits")
        await until_text(client, started)
        await client.rpc("run.cancel", request_id="c", run_id=started.run)
        await until_over(client, started)

        async def gone() -> bool:
            again = await client.rpc("run.get", run_id=started.run)
            return bool(again["ended_at"])

        await eventually(gone)
