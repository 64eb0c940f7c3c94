"""Double texting over real sockets: queued and interrupting runs, by SDK, REST and AG-UI."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.events.client import errors_of
from tests.sdk.client import Position
from tests.sdk.python_client import open_python
from tests.servers.conversation import eventually, from_the_start, seen_in
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
APPLICATION = ("--app", "tests.servers.patient_agents:gateway")


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with an agent for each policy."""
    data = tmp_path_factory.mktemp("patient") / "data"
    with ServerProcess(data, *APPLICATION, cwd=ROOT) as process:
        yield process


@asynccontextmanager
async def known(server: ServerProcess, user: str) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """Open a user's HTTP client."""
    headers = {"authorization": f"Bearer {server.token(user)}"}
    async with httpx2.AsyncClient(
        base_url=server.http, headers=headers, trust_env=False, timeout=20
    ) as client:
        yield client


async def start(
    rest: httpx2.AsyncClient, thread: str, message: str, agent: str = "queue"
) -> dict[str, Any]:
    """Start a run over REST and return the reply."""
    request = {"request_id": uuid.uuid4().hex, "agent": agent, "thread_id": thread}
    answer = await rest.post("/api/v1/runs", json={**request, "message": message})
    assert answer.status_code == 200, answer.text
    started: dict[str, Any] = answer.json()
    return started


async def status(rest: httpx2.AsyncClient, run: str) -> tuple[str, str | None]:
    shown = (await rest.get(f"/api/v1/runs/{run}")).json()
    return shown["status"], shown["code"]


async def cancel(rest: httpx2.AsyncClient, run: str) -> str:
    request = {"request_id": uuid.uuid4().hex}
    answer = await rest.post(f"/api/v1/runs/{run}/cancel", json=request)
    return str(answer.json()["status"])


def runs_in(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the runs that begin in these events, and how each ended."""
    begun = [event["runId"] for event in events if event["type"] == "RUN_STARTED"]
    ends = [event for event in events if event["type"] in TERMINAL]
    hows = [end.get("code") or end["outcome"]["type"] for end in ends]
    return list(zip(begun, hows, strict=True))


async def test_r42_r47_r91_kill_9_loses_the_active_run_only(tmp_path: Path) -> None:
    """Killed while one run is active and two wait: that one is lost, the others run in order.

    A reader of the official SDK that was there before the kill sees it all, without a gap.
    """
    with ServerProcess(tmp_path / "data", *APPLICATION, cwd=ROOT) as server:
        async with (
            open_python(server.ws, server.token("alice")) as sdk,
            known(server, "alice") as rest,
        ):
            await sdk.connect()
            first = await start(rest, "t", "wait")
            waiting = [await start(rest, "t", name) for name in ("second", "third")]
            since = Position(first["position"]["offset"], first["position"]["epoch"])
            reader = await sdk.subscribe("thread:t", since)
            await reader.until_words(2)
            runs = [one["run_id"] for one in (first, *waiting)]
            shown = [(await status(rest, run))[0] for run in runs]
            assert shown == ["running", "pending", "pending"]
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await reader.until_over(runs=3)
            expected = ["run.lost", "success", "success"]
            assert runs_in(reader.stream) == list(zip(runs, expected, strict=True))
            reader.check_sequence()
            reader.check_digests()
            assert [await status(rest, run) for run in runs] == [
                ("lost", "run.lost"),
                ("finished", None),
                ("finished", None),
            ]
            listed = (await rest.get("/api/v1/threads/t/runs")).json()["runs"]
            assert {one["run_id"] for one in listed} == set(runs)
            thread = (await rest.get("/api/v1/threads/t")).json()
            contents = [one["content"] for one in thread["messages"]]
            assert contents[2:] == ["second", "You said: second", "third", "You said: third"]


async def test_runs_that_begin_at_the_start_find_the_gateway_complete(tmp_path: Path) -> None:
    """The agent of a run that waited through a kill reaches the person like any other agent."""
    with ServerProcess(tmp_path / "data", *APPLICATION, cwd=ROOT) as server:
        async with known(server, "alice") as rest:
            waiting = []
            for number in range(20):  # One after the other is ended as lost, while others begin.
                await start(rest, f"t{number}", "wait", agent="telling")
                waiting.append(await start(rest, f"t{number}", "tell me", agent="telling"))
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

            async def over() -> bool:
                found = [await status(rest, run["run_id"]) for run in waiting]
                return not {one for one, _ in found} & {"pending", "running"}

            await eventually(over, seconds=60)
            ends = {await status(rest, run["run_id"]) for run in waiting}
            assert ends == {("finished", None)}


async def test_r91_a_queued_run_over_an_sdk(patient: ServerProcess) -> None:
    """Its start is answered at once; a reader from its position misses nothing."""
    async with open_python(patient.ws, patient.token("sdk")) as sdk, known(patient, "sdk") as rest:
        await sdk.connect()
        first = await sdk.rpc("run.start", request("queue", "wait"))
        thread = first["thread_id"]
        second = await sdk.rpc("run.start", request("queue", "again", thread_id=thread))
        position = Position(second["position"]["offset"], second["position"]["epoch"])
        reader = await sdk.subscribe(f"thread:{thread}", position)
        shown = await sdk.rpc("run.get", {"run_id": second["run_id"]})
        assert (shown["status"], shown["ended_at"]) == ("pending", None)
        assert (await sdk.rpc("thread.list"))["threads"][0]["active_run"] == first["run_id"]
        assert await cancel(rest, first["run_id"]) == "accepted"
        await reader.until_over(runs=2)
        tail = [one.tags["run"] for one in reader.deliveries]
        split = tail.index(second["run_id"])
        assert set(tail[:split]) == {first["run_id"]}
        assert set(tail[split:]) == {second["run_id"]}
        own = [one.event for one in reader.deliveries[split:]]
        assert "".join(event.get("delta", "") for event in own) == "You said: again"


def request(agent: str, message: str, **more: str) -> dict[str, str]:
    return {"request_id": uuid.uuid4().hex, "agent": agent, "message": message, **more}


async def test_r91_the_policies_over_rest(patient: ServerProcess) -> None:
    """Reject answers 409, a full queue 106; interrupt ends all runs before it."""
    async with known(patient, "rest") as rest:
        first = await start(rest, "t", "wait")
        refused = await rest.post("/api/v1/runs", json=request("reject", "x", thread_id="t"))
        assert refused.status_code == 409
        waiting = [await start(rest, "t", f"{n}") for n in range(16)]
        full = await rest.post("/api/v1/runs", json=request("queue", "x", thread_id="t"))
        assert full.json()["error"]["code"] == 106, full.text
        last = await start(rest, "t", "me first", "interrupt")
        runs = [one["run_id"] for one in (first, *waiting)]

        async def over() -> bool:
            return (await status(rest, last["run_id"]))[0] == "finished"

        await eventually(over)
        assert {await status(rest, run) for run in runs} == {("cancelled", None)}
    async with wire_client(patient.ws, patient.token("rest")) as client:
        answer = await client.command("history", channel="thread:t", limit=-1)
        events = [item["data"] for item in answer["history"]["publications"]]
        assert [run for run, _ in runs_in(events)] == [*runs, last["run_id"]]
        assert errors_of(events) == []
        assert errors_of(seen_in(await from_the_start(client, "t"))) == []


async def test_r91_devices_hear_of_a_queued_run(patient: ServerProcess) -> None:
    """`towpath.run.queued` comes on `user` when it is accepted, started and ended at its turn."""
    async with (
        wire_client(patient.ws, patient.token("devices")) as phone,
        known(patient, "devices") as rest,
    ):
        first = (await start(rest, "t", "wait"))["run_id"]
        second = (await start(rest, "t", "again"))["run_id"]
        await cancel(rest, second)
        assert await status(rest, second) == ("pending", None)
        await cancel(rest, first)

        def statuses_of(run: str) -> list[tuple[str, str]]:
            values = [(one["name"], one["value"]) for one in phone.events("user")]
            return [(name, value["status"]) for name, value in values if value["run_id"] == run]

        await phone.until(lambda: len(statuses_of(second)) == 2)
        assert statuses_of(second) == [
            ("towpath.run.queued", "pending"),
            ("towpath.run.ended", "cancelled"),
        ]
        assert statuses_of(first)[0] == ("towpath.run.started", "running")


# AG-UI over HTTP


async def stream(
    http: httpx2.AsyncClient, run: str, message: str, *, thread: str = "t", **props: Any
) -> AsyncGenerator[dict[str, Any], None]:
    """Start a run as an AG-UI client does, and yield the events of the response."""
    sent = {"id": f"m-{run}", "role": "user", "content": message}
    body = {"threadId": thread, "runId": run, "messages": [sent], "forwardedProps": props}
    async with http.stream("POST", "/agui/queue", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


async def collect(events: AsyncGenerator[dict[str, Any], None]) -> list[dict[str, Any]]:
    return [event async for event in events]


async def pending(http: httpx2.AsyncClient, run: str) -> None:
    """Wait until a run is pending."""

    async def waits() -> bool:
        answer = await http.get(f"/api/v1/runs/{run}")
        return answer.status_code == 200 and answer.json()["status"] == "pending"

    await eventually(waits)


async def until_read_by(server: ServerProcess, user: str, count: int) -> None:
    """Wait until this many readers read a user's thread."""
    async with wire_client(server.ws, server.token(user)) as client:

        async def readers() -> bool:
            seen = await client.command("presence_stats", channel="thread:t")
            return bool(seen["presence_stats"]["num_clients"] == count)

        await eventually(readers)


def assert_only(events: list[dict[str, Any]], run: str, message: str) -> None:
    """These events are one whole legal run, without events of another one."""
    assert runs_in(events) == [(run, "success")]
    assert (events[0]["type"], events[-1]["type"]) == ("RUN_STARTED", "RUN_FINISHED")
    assert errors_of(events) == []
    text = "".join(event.get("delta", "") for event in events)
    assert text == f"You said: {message}"


async def test_r91_an_event_stream_shows_its_own_run_only(patient: ServerProcess) -> None:
    """Streams of queued runs are silent during the active run; each shows its run, whole."""
    async with known(patient, "streams") as http:
        first = asyncio.create_task(collect(stream(http, "r1", "wait")))
        await eventually(lambda: running(http, "r1"))
        second = asyncio.create_task(collect(stream(http, "r2", "two")))
        await pending(http, "r2")
        third = asyncio.create_task(collect(stream(http, "r3", "three")))
        await pending(http, "r3")
        assert await cancel(http, "r1") == "accepted"
        assert runs_in(await first) == [("r1", "cancelled")]
        assert_only(await second, "r2", "two")
        assert_only(await third, "r3", "three")


async def running(http: httpx2.AsyncClient, run: str) -> bool:
    answer = await http.get(f"/api/v1/runs/{run}")
    return answer.status_code == 200 and bool(answer.json()["status"] == "running")


async def test_r81_joining_a_queued_run_by_its_id(patient: ServerProcess) -> None:
    """The same run id again joins the run that waits: two readers, one run, the same events."""
    async with known(patient, "joins") as http:
        await start(http, "t", "wait")
        readers = [asyncio.create_task(collect(stream(http, "r2", "two")))]
        await pending(http, "r2")
        readers.append(asyncio.create_task(collect(stream(http, "r2", "two"))))
        await until_read_by(patient, "joins", 2)
        active = (await http.get("/api/v1/threads")).json()["threads"][0]["active_run"]
        assert await cancel(http, active) == "accepted"
        one, other = [await reader for reader in readers]
        assert_only(one, "r2", "two")
        assert other == one
        late = await collect(stream(http, "r2", "two"))
        assert runs_in(late) == [("r2", "success")]


async def test_r88_a_stream_of_a_run_that_is_cancelled_ends(patient: ServerProcess) -> None:
    """Cancelled while it waits, its stream brings RUN_STARTED and the cancelled ending."""
    async with known(patient, "cancels") as http:
        active = (await start(http, "t", "wait"))["run_id"]
        reader = asyncio.create_task(collect(stream(http, "r2", "two")))
        await pending(http, "r2")
        assert await cancel(http, "r2") == "accepted"
        assert await cancel(http, active) == "accepted"
        events = await reader
        assert [event["type"] for event in events] == ["RUN_STARTED", "RUN_FINISHED"]
        assert runs_in(events) == [("r2", "cancelled")]


async def test_r87_a_client_that_leaves_may_take_its_run_along(patient: ServerProcess) -> None:
    """With `on_disconnect: cancel` a run whose client disconnects while queued never starts."""
    async with known(patient, "leaves") as http:
        active = (await start(http, "t", "wait"))["run_id"]
        cancelling: dict[str, Any] = {"towpath": {"on_disconnect": "cancel"}}
        leaving = asyncio.create_task(collect(stream(http, "r2", "wait", **cancelling)))
        await pending(http, "r2")
        staying = asyncio.create_task(collect(stream(http, "r3", "three")))
        await pending(http, "r3")
        await until_read_by(patient, "leaves", 2)
        leaving.cancel()
        await asyncio.wait((leaving,))
        await until_read_by(patient, "leaves", 1)
        assert await cancel(http, active) == "accepted"
        assert_only(await staying, "r3", "three")
        assert await status(http, "r2") == ("cancelled", None)


async def test_r61_a_silent_stream_shows_that_it_lives(tmp_path: Path) -> None:
    """During other runs the stream of a queued run has comments in the ping interval."""
    environment = {"TOWPATH_PING_INTERVAL": "1", "TOWPATH_PONG_TIMEOUT": "1"}
    data = tmp_path / "data"
    with ServerProcess(data, *APPLICATION, cwd=ROOT, environment=environment) as server:
        async with known(server, "alice") as http:
            active = (await start(http, "t", "wait"))["run_id"]
            sent = {"id": "m", "role": "user", "content": "two"}
            body = {"threadId": "t", "runId": "r2", "messages": [sent]}
            async with http.stream("POST", "/agui/queue", json=body) as response:
                lines = response.aiter_lines()
                seen = [await anext(lines) for _ in range(6)]
                assert seen == [": keep-alive", ""] * 3
                assert await cancel(http, active) == "accepted"
                rest = [json.loads(x[6:]) async for x in lines if x.startswith("data: ")]
    assert_only(rest, "r2", "two")
