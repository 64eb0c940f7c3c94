"""Approvals over real sockets: an interrupt survives restarts, and is answered once."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.events.client import errors_of
from tests.servers.conversation import (
    Started,
    ask,
    eventually,
    from_the_start,
    seen_in,
    text_of,
    until_over,
)
from towpath.events.types import TERMINAL
from towpath.runs.interrupts import shown_digest
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import WireClient, wire_client

pytestmark = pytest.mark.servers

ARGUMENTS = '{"what": "a barge"}'
HURRY = {
    "TOWPATH_INTERRUPT_TIMEOUT": "1.5",
    "TOWPATH_RUN_DEADLINE": "1",
    "TOWPATH_CLEANUP_TIMEOUT": "0.5",
}


async def ask_to_buy(client: WireClient, thread: str | None = None) -> tuple[Started, str]:
    """Let the demo agent ask for an approval; return the run and its interrupt's id."""
    started = await ask(client, "buy a barge", thread=thread)
    ended = await until_over(client, started)
    (shown_interrupt,) = ended["outcome"]["interrupts"]
    return started, shown_interrupt["id"]


async def decide(
    client: WireClient, started: Started, interrupt: str, decision: str = "approve", **more: Any
) -> Any:
    """Send a decision on the interrupt as it was shown."""
    request = {"request_id": uuid.uuid4().hex, "digest": shown_digest(ARGUMENTS), **more}
    given = {"run_id": started.run, "interrupt_id": interrupt, "decision": decision}
    return await client.rpc("run.approve", **request, **given)


async def standing(client: WireClient, started: Started) -> list[str]:
    """Return the status of the interrupts of a run, as `run.get` shows them."""
    view = await client.rpc("run.get", run_id=started.run)
    return [row["status"] for row in view["interrupts"]]


async def until_said(client: WireClient, started: Started, words: str) -> None:
    """Wait until a reader of the thread has received this text."""
    await client.until(lambda: words in text_of(client.events(started.channel)))


def names(client: WireClient) -> list[str]:
    """Return the names of the notices a device has received."""
    return [event["name"] for event in client.events("user")]


async def test_r94_every_device_finds_the_question_and_sees_the_answer(
    server: ServerProcess,
) -> None:
    """A later device finds it in the snapshot and `run.get`; both see the run continue."""
    token = server.token("shopper")
    async with wire_client(server.ws, token) as phone:
        started, interrupt = await ask_to_buy(phone)
        async with wire_client(server.ws, token) as laptop:
            snapshot = seen_in(await from_the_start(laptop, started.thread))
            (shown_interrupt,) = snapshot[-1]["outcome"]["interrupts"]
            assert shown_interrupt["message"] == "Buy a barge?"
            view = await laptop.rpc("run.get", run_id=started.run)
            assert view["status"] == "interrupted"
            (row,) = view["interrupts"]
            assert (row["asked"], row["status"]) == (shown_interrupt, "open")
            (shown,) = [
                call["function"]["arguments"]
                for one in (await laptop.rpc("thread.get", thread_id=started.thread))["messages"]
                for call in one.get("toolCalls", ())
                if call["id"] == shown_interrupt["toolCallId"]
            ]
            reply = await decide(laptop, started, interrupt, digest=shown_digest(shown))
            assert reply["status"] == "accepted"
            going_on = Started(reply["run_id"], started.thread)
            assert await decide(phone, started, interrupt, "refuse") == {"status": "already"}
            for device in (phone, laptop):
                await until_said(device, going_on, "Bought.")
            assert await standing(phone, started) == ["approved"]
            events = [*snapshot, *laptop.events(started.channel)]
        assert names(phone).count("towpath.run.interrupted") == 1
        parents = [event.get("parentRunId") for event in phone.events(started.channel)]
        assert started.run in parents
        assert errors_of(phone.events(started.channel)) == []
        assert errors_of(events) == []


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_r93_a_question_outlives_the_server(own_server: ServerProcess, how: str) -> None:
    """After a stop or kill -9 the interrupt is still open, and any device may answer it."""
    token = own_server.token("patient")
    async with wire_client(own_server.ws, token) as client:
        started, interrupt = await ask_to_buy(client)
        before = await client.command("history", channel=started.channel, limit=-1)
    await asyncio.to_thread(getattr(own_server, how))
    await asyncio.to_thread(own_server.start)
    async with wire_client(own_server.ws, token) as client:
        after = await client.command("history", channel=started.channel, limit=-1)
        assert after["history"] == before["history"]
        run = await client.rpc("run.get", run_id=started.run)
        assert (run["status"], run["code"]) == ("interrupted", None)
        assert await standing(client, started) == ["open"]
        await from_the_start(client, started.thread)
        assert (await decide(client, started, interrupt))["status"] == "accepted"
        await until_said(client, started, "Bought.")


async def test_r93_a_decision_survives_the_kill_that_follows_it(
    own_server: ServerProcess,
) -> None:
    """An accepted decision survives kill -9: decided, continued, and ended once."""
    token = own_server.token("hasty")
    request = uuid.uuid4().hex
    async with wire_client(own_server.ws, token) as client:
        started, interrupt = await ask_to_buy(client)
        first = await decide(client, started, interrupt, request_id=request)
        await asyncio.to_thread(own_server.kill)
    await asyncio.to_thread(own_server.start)
    async with wire_client(own_server.ws, token) as client:
        assert await standing(client, started) == ["approved"]
        assert await decide(client, started, interrupt, request_id=request) == first
        assert await decide(client, started, interrupt) == {"status": "already"}
        rows = (await client.rpc("run.list", thread_id=started.thread))["runs"]
        assert {row["run_id"] for row in rows} == {started.run, first["run_id"]}
        assert all(row["ended_at"] for row in rows)


async def test_r95_an_unanswered_question_expires_by_itself(tmp_path: Path) -> None:
    """After its own time, not the run's deadline: a notice, `expired` in reply and store."""
    with ServerProcess(tmp_path / "data", environment=HURRY) as server:
        async with wire_client(server.ws, server.token("absent")) as client:
            started, interrupt = await ask_to_buy(client)
            refused, other = await ask_to_buy(client)
            assert (await decide(client, refused, other, "refuse"))["status"] == "accepted"
            before = client.events(started.channel)
            await client.until(lambda: "towpath.interrupt.expired" in names(client))
            (expired,) = [
                event["value"]
                for event in client.events("user")
                if event["name"] == "towpath.interrupt.expired"
            ]
            assert (expired["run_id"], expired["thread_id"]) == (started.run, started.thread)
            view = await client.rpc("run.get", run_id=started.run)
            (row,) = view["interrupts"]
            assert row["status"] == "expired"
            assert row["decided_at"] - view["ended_at"] >= 1.4, "the deadline is not its time"
            assert view["status"] == "interrupted"
            assert await standing(client, refused) == ["refused"]
            assert await decide(client, started, interrupt) == {"status": "expired"}
            assert client.events(started.channel) == before, "nobody said no, nothing goes on"
            rows = (await client.rpc("run.list", thread_id=started.thread))["runs"]
            assert [item["run_id"] for item in rows] == [started.run]
            again, newest = await ask_to_buy(client)
            assert (await decide(client, again, newest))["status"] == "accepted"


async def test_r96_what_is_over_is_not_revived(server: ServerProcess) -> None:
    """A decision on a cancelled run, or one the thread has left behind, is `gone`."""
    async with wire_client(server.ws, server.token("necromancer")) as client:
        counting = await ask(client, "count 1000 at 20/s")
        await client.rpc("run.cancel", request_id="stop", run_id=counting.run)
        await until_over(client, counting)
        left, interrupt = await ask_to_buy(client)
        newer = await ask(client, "never mind", thread=left.thread)
        await client.until(
            lambda: [e["type"] in TERMINAL for e in client.events(left.channel)].count(True) == 2
        )
        await client.until(lambda: names(client).count("towpath.run.ended") == 2)
        frames = [frame for frame in client.frames if "push" in frame]
        assert await decide(client, counting, interrupt) == {"status": "gone"}
        for decision in ("approve", "refuse"):
            assert await decide(client, left, interrupt, decision) == {"status": "gone"}
        assert await decide(client, newer, interrupt) == {"status": "gone"}
        await client.command("ping")
        assert [frame for frame in client.frames if "push" in frame] == frames
        assert await standing(client, left) == ["gone"]


async def test_two_devices_at_once_get_one_decision(server: ServerProcess) -> None:
    """Approve and refuse at the same time: one is accepted, the other `already`; the text fits."""
    token = server.token("divided")
    async with wire_client(server.ws, token) as one, wire_client(server.ws, token) as two:
        for _ in range(5):
            started, interrupt = await ask_to_buy(one)
            replies = await asyncio.gather(
                decide(one, started, interrupt, "approve"),
                decide(two, started, interrupt, "refuse"),
            )
            statuses = [reply["status"] for reply in replies]
            assert sorted(statuses) == ["accepted", "already"]
            words = ("Bought.", "Then I will not buy it.")[statuses.index("accepted")]
            await until_said(one, started, words)
            runs = (await one.rpc("run.list", thread_id=started.thread))["runs"]
            assert len(runs) == 2


async def test_p1_r35_a_foreign_question_looks_like_none(server: ServerProcess) -> None:
    """A decision by another user or tenant is 404, exactly as on a run that does not exist."""
    async with wire_client(server.ws, server.token("owner-of-it")) as owner:
        started, interrupt = await ask_to_buy(owner)
        for user, tenant in (("stranger", "acme"), ("owner-of-it", "globex")):
            async with wire_client(server.ws, server.token(user, tenant)) as other:
                errors = []
                for run in (started.run, "missing"):
                    data = {
                        "request_id": uuid.uuid4().hex,
                        "run_id": run,
                        "interrupt_id": interrupt,
                        "decision": "approve",
                        "digest": shown_digest(ARGUMENTS),
                    }
                    reply = await other.command("rpc", method="run.approve", data=data)
                    errors.append(reply["error"])
                assert errors == [{"code": 404, "message": "no such run"}] * 2
        assert await standing(owner, started) == ["open"]


async def test_refused_decisions_decide_nothing(server: ServerProcess) -> None:
    """Without the digest, with another, or with a third word each has its code; it stays open."""
    async with wire_client(server.ws, server.token("careless")) as client:
        started, interrupt = await ask_to_buy(client)
        good = {
            "run_id": started.run,
            "interrupt_id": interrupt,
            "decision": "approve",
            "digest": shown_digest(ARGUMENTS),
        }
        refusals: list[tuple[int, dict[str, Any]]] = [
            (107, {**good, "digest": None}),
            (409, {**good, "digest": shown_digest('{"what": "two barges"}')}),
            (107, {**good, "decision": "perhaps"}),
            (404, {**good, "interrupt_id": "another"}),
            (107, {**good, "interrupt_id": ""}),
        ]
        for code, data in refusals:
            given = {"request_id": uuid.uuid4().hex, **data}
            reply = await client.command("rpc", method="run.approve", data=given)
            assert reply["error"]["code"] == code, data
        assert await standing(client, started) == ["open"]


async def test_the_rest_door_decides_too(server: ServerProcess) -> None:
    """The same operation over REST: 409 for other arguments, then the decision, then a repeat."""
    token = server.token("clerk")
    async with wire_client(server.ws, token) as client:
        started, interrupt = await ask_to_buy(client)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(
            base_url=f"{server.http}/api/v1", headers=headers, trust_env=False
        ) as rest:
            path = f"/runs/{started.run}/interrupts/{interrupt}"
            body = {"request_id": "r1", "decision": "refuse", "payload": {"why": "too dear"}}
            wrong = await rest.post(path, json={**body, "digest": shown_digest("{}")})
            assert wrong.status_code == 409
            done = await rest.post(path, json={**body, "digest": shown_digest(ARGUMENTS)})
            assert (done.status_code, done.json()["status"]) == (200, "accepted")
            again = await rest.post(path, json={**body, "digest": shown_digest(ARGUMENTS)})
            assert again.json() == done.json()
            await until_said(client, started, "Then I will not buy it.")
            view = (await rest.get(f"/runs/{started.run}")).json()
            assert [row["status"] for row in view["interrupts"]] == ["refused"]
            assert (await rest.get(f"/runs/{done.json()['run_id']}")).json()["interrupts"] == []


async def test_answers_may_come_with_a_start(server: ServerProcess) -> None:
    """`run.start` with `resume` continues the run; without answers it abandons the run."""
    async with wire_client(server.ws, server.token("integrator")) as client:
        started, interrupt = await ask_to_buy(client)
        answer = {"interruptId": interrupt, "status": "resolved", "payload": {"approved": True}}
        start = {"agent": "tools", "thread_id": started.thread}
        wrong = await client.command(
            "rpc",
            method="run.start",
            data={"request_id": "w", **start, "resume": [{**answer, "interruptId": "another"}]},
        )
        assert wrong["error"]["code"] == 107
        assert await standing(client, started) == ["open"]
        going_on = await client.rpc("run.start", request_id="s", **start, resume=[answer])
        await until_said(client, started, "Bought.")
        assert await standing(client, started) == ["approved"]

        async def over() -> bool:
            view = await client.rpc("run.get", run_id=going_on["run_id"])
            return bool(view["ended_at"])

        await eventually(over)
        late = await client.command(
            "rpc", method="run.start", data={"request_id": "l", **start, "resume": [answer]}
        )
        assert late["error"]["code"] == 107


async def test_ag_uis_own_door_continues_what_it_asked(server: ServerProcess) -> None:
    """A client of AG-UI alone receives the interrupt and answers it with `resume`."""
    token = server.token("agui-user")
    thread, first, second = (uuid.uuid4().hex for _ in range(3))
    user_messages = [{"id": "u1", "role": "user", "content": "buy a barge"}]
    async with httpx2.AsyncClient(
        base_url=server.http, headers={"Authorization": f"Bearer {token}"}, trust_env=False
    ) as http:

        async def run(run_id: str, **more: Any) -> httpx2.Response:
            request = {"threadId": thread, "runId": run_id, "messages": [], **more}
            return await http.post("/agui/tools", json=request, timeout=20)

        request = await run(first, messages=user_messages)
        assert '"type":"interrupt"' in request.text
        async with wire_client(server.ws, token) as client:
            (row,) = (await client.rpc("run.get", run_id=first))["interrupts"]
            for wrong in ([1], [{"interruptId": "another", "status": "resolved"}]):
                assert (await run(uuid.uuid4().hex, resume=wrong)).status_code == 400
            answer = {"interruptId": row["interrupt_id"], "status": "cancelled"}
            answered = await run(second, resume=[answer])
            assert "Then I will not buy it." in answered.text
            assert await standing(client, Started(first, thread)) == ["refused"]
