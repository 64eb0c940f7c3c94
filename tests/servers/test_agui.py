"""AG-UI over HTTP and server-sent events, against a real server: run, join, cut, resume, refuse."""

import asyncio
import contextlib
import signal
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.events.client import judged, screen
from tests.servers.conversation import eventually
from tests.servers.event_streams import (
    Person,
    Seen,
    drop_abruptly,
    gauges,
    is_over,
    last_id,
    read_all,
    resumed,
    run_input,
    stalled,
)
from tests.servers.paced_agents import flood
from towpath.auth.development import development_key, sign
from towpath.auth.tokens import LEEWAY
from towpath.events.types import TERMINAL
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
APPLICATION = ("--app", "tests.servers.paced_agents:gateway")
PACE = 0.02
"""Seconds between the events of a story that is read while it is told."""


@contextlib.contextmanager
def serving(directory: Path, **settings: Any) -> Iterator[ServerProcess]:
    """Run a server of the paced agents with some settings of its own."""
    environment = {f"TOWPATH_{name.upper()}": str(value) for name, value in settings.items()}
    data = directory / "data"
    with ServerProcess(data, *APPLICATION, environment=environment, cwd=ROOT) as process:
        yield process


@pytest.fixture(scope="module")
def agui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of the paced agents; each test has its own users."""
    settings = {"user_connections": 100, "slow_timeout": 2, "close_timeout": 0.5}
    with serving(tmp_path_factory.mktemp("agui"), **settings) as process:
        yield process


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One with short times and few places."""
    settings = {
        "ping_interval": 0.2,
        "pong_timeout": 0.1,
        "close_timeout": 0.3,
        "expiry_grace": 1,
        "user_connections": 2,
        "runs_burst": 3,
        "runs_per_second": 0.01,
    }
    with serving(tmp_path_factory.mktemp("brisk"), **settings) as process:
        yield process


def someone(server: ServerProcess, tenant: str = "acme") -> Person:
    """Return a user that no other test uses."""
    return Person(server, f"person-{uuid.uuid4().hex[:8]}", tenant)


def events_of(seen: list[Seen]) -> list[dict[str, Any]]:
    return [one.event for one in seen]


def assert_legal(seen: list[Seen], *, over: bool = True) -> None:
    """The validator finds no error and no warning in the stream."""
    report = judged(events_of(seen))
    assert report.internal_errors == []
    found = [one for one in report.diagnostics if one.severity in ("error", "warning")]
    assert [f"{one.rule} {one.message}" for one in found] == []
    assert report.event_count == len(seen)
    assert not over or is_over(seen)


async def status_of(person: Person, run: str) -> Any:
    """Return what `run.get` says, or the status of its refusal."""
    answer = await person.get(f"/runs/{run}")
    return answer.get("status") or answer["error"]["code"]


@contextlib.asynccontextmanager
async def waiting_run(person: Person, **request: Any) -> AsyncGenerator[tuple[str, str], None]:
    """Start a run that waits, leave it, and yield its thread and id; end it afterwards."""
    thread, run = uuid.uuid4().hex, uuid.uuid4().hex
    async with person.run("waits", thread=thread, run=run, **request) as stream:
        assert stream.answer.status_code == 200, stream.answer.text
        await stream.until("TEXT_MESSAGE_CONTENT")
    try:
        yield thread, run
    finally:
        async with person.http() as http:
            request = {"request_id": uuid.uuid4().hex}
            await http.post(f"/api/v1/runs/{run}/cancel", json=request)


# Running.


async def test_r08_r43_a_run_over_http_is_the_run_of_the_socket(agui: ServerProcess) -> None:
    """Each event over HTTP is the socket's, at the socket's position, legal and to its end."""
    person, thread, run = someone(agui), uuid.uuid4().hex, uuid.uuid4().hex
    async with wire_client(agui.ws, person.token) as client:
        await client.rpc("thread.create", request_id="1", thread_id=thread)
        channel = f"thread:{thread}"
        subscribed = (await client.command("subscribe", channel=channel))["subscribe"]
        props = {"pace": PACE}
        async with person.run("story", thread=thread, run=run, props=props) as stream:
            head = stream.answer.headers
            seen = await stream.rest()
        await client.until(lambda: len(client.publications(channel)) >= len(seen))
        publications = client.publications(channel)
    assert head["content-type"].startswith("text/event-stream")
    assert head["cache-control"] == "no-cache"
    assert [one["data"] for one in publications] == events_of(seen)
    positions = [f"{subscribed['epoch']}:{one['offset']}" for one in publications]
    with_ids = [(one.id, where) for one, where in zip(seen, positions, strict=True) if one.id]
    assert all(key == where for key, where in with_ids)
    assert len(with_ids) > len(seen) / 2
    assert seen[-1].id == positions[-1]
    assert {publication["tags"]["run"] for publication in publications} == {run}
    assert seen[0].event["input"]["messages"][0]["content"] == "hello there"
    assert stream.comments == 0
    assert_legal(seen)


@pytest.mark.parametrize("agent", ["story", "tools", "echo"])
async def test_r43_the_validators_command_line_has_nothing_to_say(
    agui: ServerProcess, agent: str
) -> None:
    """`ag-ui-validate <url>` runs the agent and finds 0 errors and 0 warnings."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("ag-ui-validate")),
        f"{agui.http}/agui/{agent}",
        "--header",
        f"Authorization: Bearer {someone(agui).token}",
        "--timeout",
        "20",
        "--max-warnings",
        "0",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, output + errors
    assert b"0 errors, 0 warnings" in output


async def test_a_conversation_goes_on_with_the_whole_history(agui: ServerProcess) -> None:
    """An AG-UI client sends all messages each time; only the new one is added."""
    person, thread = someone(agui), uuid.uuid4().hex
    async with person.run("echo", "first", thread=thread) as stream:
        await stream.rest()
    messages = [
        *stream.events[0]["input"]["messages"],
        {"id": stream.events[1]["messageId"], "role": "assistant", "content": "first"},
        {"id": "second", "role": "user", "content": "second"},
    ]
    async with person.run("echo", thread=thread, messages=messages) as stream:
        await stream.rest()
    stored = (await person.get(f"/threads/{thread}"))["messages"]
    assert [message["content"] for message in stored] == ["first", "first", "second", "second"]


async def test_a_run_that_fails_ends_its_stream(agui: ServerProcess) -> None:
    """RUN_ERROR is the last event, with its code, and the response is whole."""
    person = someone(agui)
    async with person.run("floods", "not a number") as stream:
        await stream.rest()
    assert stream.types == ["RUN_STARTED", "RUN_ERROR"]
    assert stream.events[-1]["code"] == "run.failed"


# Joining.


async def test_r74_r75_joining_mid_run_gives_a_legal_whole(agui: ServerProcess) -> None:
    """A client joins at every tenth of a story: each stream is legal and renders like the whole."""
    person, thread = someone(agui), uuid.uuid4().hex
    joiners: list[asyncio.Task[list[Seen]]] = []

    async def join() -> list[Seen]:
        async with person.join(thread) as stream:
            return await stream.rest()

    async with person.run("story", thread=thread, props={"pace": PACE}) as stream:
        async for seen in stream:
            if len(stream.seen) % 5 == 1 and seen.event["type"] not in TERMINAL:
                joiners.append(asyncio.create_task(join()))
    shown = screen(stream.events)
    assert stream.types[-1] == "RUN_FINISHED"
    assert len(joiners) >= 8
    for joiner in joiners:
        joined = await joiner
        assert_legal(joined)
        assert screen(events_of(joined)) == shown
        live = [bool(one.id) for one in joined]
        assert live == sorted(live)


async def test_r74_joining_an_idle_thread_gives_its_prelude_and_ends(agui: ServerProcess) -> None:
    """Run over: the prelude with its end. Never a run, or the last id: nothing, at once."""
    person, thread = someone(agui), uuid.uuid4().hex
    async with person.run("story", thread=thread) as stream:
        await stream.rest()
    async with person.join(thread) as joined:
        await joined.rest()
    assert_legal(joined.seen)
    assert screen(joined.events) == screen(stream.events)
    assert [one.id for one in joined.seen if one.id] == []
    async with person.join(thread, last_id(stream.seen)) as again:
        assert await again.rest() == []
    async with person.http() as http:
        request = {"request_id": "1", "thread_id": "empty"}
        await http.post("/api/v1/threads", json=request)
    async with person.join("empty") as empty:
        assert empty.answer.status_code == 200
        assert await empty.rest() == []


# Cuts.


async def test_r73_whatever_byte_a_response_is_cut_at_the_rest_follows(
    agui: ServerProcess,
) -> None:
    """For every prefix of a response: what was seen and what comes render like the uncut run."""
    person, thread = someone(agui), uuid.uuid4().hex
    pieces = []
    async with person.run("story", thread=thread, props={"pace": PACE / 2}) as stream:
        async for piece in stream.answer.aiter_raw():
            pieces.append(piece)
    raw = b"".join(pieces)
    whole = read_all(raw)
    shown = screen(events_of(whole))
    tails: dict[str, list[Seen]] = {}
    for at in range(0, len(raw) + 1, 7):
        before = read_all(raw[:at])
        key = last_id(before)
        if key not in tails:
            async with person.join(thread, key) as again:
                tails[key] = await again.rest()
        after = resumed(before, tails[key])
        assert screen(events_of(after)) == shown, (at, key)
        assert_legal(after)
    assert len(tails) > len(whole) / 2


async def test_r73_a_story_read_in_many_cuts_is_the_story(agui: ServerProcess) -> None:
    """Readers cut after every n events, again and again mid-run, all end with the uncut run."""
    person, thread = someone(agui), uuid.uuid4().hex

    async def read_in_cuts(length: int) -> tuple[list[Seen], int]:
        seen: list[Seen] = []
        cuts = 0
        while not is_over(seen):
            key = last_id(seen)
            async with person.join(thread, key) as stream:
                async for _ in stream:
                    if len(stream.seen) >= length and not is_over(stream.seen):
                        break
            seen, cuts = resumed(seen, stream.seen), cuts + 1
            # A prelude longer than the patience gives no id; the next one is read further.
            length += 0 if last_id(seen) != key else 3
        return seen, cuts

    async with person.run("story", thread=thread, props={"pace": 0.04}) as stream:
        await stream.until("REASONING_START")
        readers = [asyncio.create_task(read_in_cuts(length)) for length in (1, 2, 3, 5, 8, 13)]
        await stream.rest()
    shown = screen(stream.events)
    for seen, _ in await asyncio.gather(*readers):
        assert screen(events_of(seen)) == shown
        assert_legal(seen)
    assert sum(cuts for _, cuts in await asyncio.gather(*readers)) >= 12  # Twice each.


async def test_r73_a_cut_inside_a_prelude_starts_over(agui: ServerProcess) -> None:
    """No event of a prelude has an id: cut after any of them, the next answer is a prelude."""
    person = someone(agui)
    async with waiting_run(person) as (thread, _):
        snapshot = [
            "RUN_STARTED",
            "MESSAGES_SNAPSHOT",
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
        ]
        for length in range(1, len(snapshot) + 1):
            async with person.join(thread) as stream:
                async for _ in stream:
                    if len(stream.seen) == length:
                        break
            assert last_id(stream.seen) == ""
            assert stream.types == snapshot[:length]


async def test_r79_a_position_of_elsewhere_gives_the_own_prelude(agui: ServerProcess) -> None:
    """Foreign, future, old and broken ids: the thread's own prelude, and nothing of another."""
    person, stranger = someone(agui), someone(agui)
    async with stranger.run("echo", "a secret") as foreign:
        await foreign.rest()
    thread = uuid.uuid4().hex
    async with person.run("echo", "mine", thread=thread) as own:
        await own.rest()
    epoch = own.seen[-1].id.partition(":")[0]
    hostile = [foreign.seen[-1].id, f"{epoch}:9999", f"{epoch}:-1", "x", ":0", ":", "é:1", "1:1:1"]
    for key in (*hostile, "0" * 4000, f"{epoch}:{'9' * 500}", f"{epoch}: 1", "null"):
        headers = {"Last-Event-ID": key.encode("latin-1")}
        async with person.http() as http:
            answer = await http.get(f"/agui/threads/{thread}", headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 200
        seen = read_all(answer.content)
        assert [one.event["type"] for one in seen] == [
            "RUN_STARTED",
            "MESSAGES_SNAPSHOT",
            "RUN_FINISHED",
        ], key
        assert "secret" not in answer.text


async def test_r78_ids_are_good_across_a_kill(tmp_path: Path) -> None:
    """After kill -9 a reader comes back with its last id and gets the run's one ending."""
    with serving(tmp_path) as server:
        person, thread, run = someone(server), uuid.uuid4().hex, uuid.uuid4().hex
        async with person.run("waits", thread=thread, run=run) as stream:
            await stream.until("TEXT_MESSAGE_CONTENT")
            server.kill()
            with contextlib.suppress(httpx2.HTTPError):
                await stream.rest()
        server.start()
        async with person.join(thread, last_id(stream.seen)) as again:
            await again.rest()
        seen = resumed(stream.seen, again.seen)
        assert seen[-1].event["code"] == "run.lost"
        assert [one.event["type"] for one in seen].count("RUN_STARTED") == 1
        assert await status_of(person, run) == "lost"


# Run ids.


async def test_r81_the_same_run_id_joins_and_starts_nothing(agui: ServerProcess) -> None:
    """While the run goes on, and after it, also in other words: the same run, once."""
    person, thread, run = someone(agui), uuid.uuid4().hex, uuid.uuid4().hex
    async with person.run("story", thread=thread, run=run, props={"pace": PACE}) as first:
        await first.until("TOOL_CALL_START")
        async with person.run("story", "in other words", thread="elsewhere", run=run) as joined:
            await asyncio.gather(first.rest(), joined.rest())
    async with person.run("story", thread=thread, run=run) as late:
        await late.rest()
    for stream in (joined, late):
        assert_legal(stream.seen)
        assert screen(stream.events) == screen(first.events)
        assert {one["runId"] for one in stream.events if "runId" in one} == {run}
    runs = (await person.get(f"/threads/{thread}/runs"))["runs"]
    assert [one["run_id"] for one in runs] == [run]
    assert len((await person.get("/threads"))["threads"]) == 1


async def test_r81_the_same_run_id_twice_at_once_is_one_run(agui: ServerProcess) -> None:
    """Ten requests race with one id: one run, and all ten read it whole."""
    person, request = someone(agui), run_input()

    async def once() -> list[Seen]:
        async with person.http() as http:
            answer = await http.post("/agui/tools", json=request)
            assert answer.status_code == 200, answer.text
            return read_all(answer.content)

    streams = await asyncio.gather(*(once() for _ in range(10)))
    for seen in streams:
        assert screen(events_of(seen)) == screen(events_of(streams[0]))
        assert_legal(seen)
    runs = (await person.get(f"/threads/{request['threadId']}/runs"))["runs"]
    assert [one["run_id"] for one in runs] == [request["runId"]]


async def test_r39_a_run_id_of_somebody_else_is_a_new_one(agui: ServerProcess) -> None:
    """Same thread and run ids, another person or tenant: a run of their own, with their words."""
    owner = someone(agui)
    ids = {"thread": uuid.uuid4().hex, "run": uuid.uuid4().hex}
    async with owner.run("echo", "private", **ids) as first:
        await first.rest()
    strangers = (someone(agui), Person(agui, owner.user, "globex"))
    for stranger in strangers:
        async with stranger.run("echo", "my own", **ids) as stream:
            await stream.rest()
        assert "private" not in str(stream.events)
        assert stream.events[0]["runId"] == ids["run"]
        assert (await stranger.get(f"/threads/{ids['thread']}"))["messages"][-1][
            "content"
        ] == "my own"
    assert len((await owner.get(f"/threads/{ids['thread']}/runs"))["runs"]) == 1


# Refusals.


async def test_r35_r39_a_foreign_thread_answers_exactly_like_a_missing_one(
    agui: ServerProcess,
) -> None:
    """Status, headers and body are the same, whatever position is claimed."""
    owner = someone(agui)
    thread = uuid.uuid4().hex
    async with owner.run("echo", "private", thread=thread) as stream:
        await stream.rest()
    for stranger in (someone(agui), Person(agui, owner.user, "globex")):
        async with stranger.http() as http:
            for headers in ({}, {"Last-Event-ID": last_id(stream.seen)}):
                answers = [
                    await http.get(f"/agui/threads/{name}", headers=headers)
                    for name in (thread, uuid.uuid4().hex, "x" * 129, "..%00")
                ]
                for one in answers:
                    del one.headers["date"]
                responses = {
                    (one.status_code, one.text, str(sorted(one.headers.items()))) for one in answers
                }
                assert len(responses) == 1
                assert answers[0].status_code == 404


async def test_r13_r63_without_a_good_credential_nothing_starts(agui: ServerProcess) -> None:
    """No token, a bad one, an expired one, one in the query: 401, and no run."""
    person, request = someone(agui), run_input()
    bad = ("", "Bearer x.y.z", "Basic eA==", f"Bearer {person.token}x")
    expired = f"Bearer {agui.token(person.user, ttl=-3600)}"
    async with httpx2.AsyncClient(base_url=agui.http, trust_env=False) as http:
        for credential in (*bad, expired):
            headers = {"Authorization": credential} if credential else {}
            for method, path in (("POST", "/agui/echo"), ("GET", "/agui/threads/x")):
                params = {"token": person.token, "access_token": person.token}
                answer = await http.request(
                    method, path, headers=headers, params=params, json=request
                )
                assert answer.status_code == 401, (credential, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == 401
    assert await status_of(person, request["runId"]) == 404


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"{"),
        (400, b"[]"),
        (400, b"\xff"),
        (400, b"[" * 100_000),
        (400, {"threadId": ""}),
        (400, {"runId": "a\x00b"}),
        (400, {"runId": "x" * 129}),
        (400, {"threadId": 5}),
        (400, {"messages": None}),
        (400, {"messages": "hi"}),
        (400, {"messages": [{"role": "user"}]}),
        (400, {"messages": [{"id": "1", "role": "nobody", "content": "x"}]}),
        (400, {"messages": [{"id": "1", "role": "user", "content": 5}]}),
        (400, {"tools": {}}),
        (413, {"state": "x" * 300_000}),
        (413, {"state": "x" * 2_000_000}),
    ],
)
async def test_refused_input_starts_nothing(agui: ServerProcess, status: int, body: Any) -> None:
    """What is no run's input gets its status and a sentence, and there is no thread."""
    person = someone(agui)
    content = body if isinstance(body, bytes) else None
    request = None if isinstance(body, bytes) else {**run_input(), **body}
    async with person.http() as http:
        answer = await http.post("/agui/echo", content=content, json=request)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert "Traceback" not in answer.text
    assert (await person.get("/threads"))["threads"] == []


async def test_r91_refusals_that_depend_on_what_is_there(agui: ServerProcess) -> None:
    """No such agent: 404. A busy thread, or a run id that was a request id: 409."""
    person = someone(agui)
    async with person.http() as http:
        assert (await http.post("/agui/nobody", json=run_input())).status_code == 404
        async with waiting_run(person) as (thread, run):
            busy = await http.post("/agui/echo", json=run_input(thread=thread))
            assert (busy.status_code, busy.json()["error"]["code"]) == (409, 409)
            assert await status_of(person, run) == "running"
        started = {"request_id": "once", "agent": "echo", "message": "x"}
        assert (await http.post("/api/v1/runs", json=started)).status_code == 200
        assert (await http.post("/agui/echo", json=run_input(run="once"))).status_code == 409
        assert (await http.post("/agui/echo", json=run_input())).status_code == 200


async def test_r37_past_the_connections_of_a_user_nothing_starts(brisk: ServerProcess) -> None:
    """Streams count as connections: past the bound 429 at both endpoints, and no run starts."""
    person = someone(brisk)
    async with waiting_run(person) as (thread, _):
        async with person.join(thread) as one, person.join(thread) as two:
            await one.until("TEXT_MESSAGE_CONTENT")
            await two.until("TEXT_MESSAGE_CONTENT")
            request = run_input()
            async with person.http() as http:
                for answer in (
                    await http.get(f"/agui/threads/{thread}"),
                    await http.post("/agui/echo", json=request),
                ):
                    assert answer.status_code == 429
                    assert answer.headers["retry-after"] == "1"
            assert await status_of(person, request["runId"]) == 404
        async with person.join(thread) as freed:
            await freed.until("TEXT_MESSAGE_CONTENT")


async def test_r67_a_user_starts_so_many_runs_and_no_more(brisk: ServerProcess) -> None:
    """The bound of `run.start` applies to this endpoint too; joining is not starting."""
    person = someone(brisk)
    async with person.http() as http:
        request = [run_input() for _ in range(4)]
        answers = [await http.post("/agui/echo", json=one) for one in request]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        assert answers[3].headers["retry-after"] == "1"
        assert (await http.post("/agui/echo", json=request[0])).status_code == 200
    assert await status_of(person, request[3]["runId"]) == 404


async def test_cors_lets_listed_pages_in_and_no_others(tmp_path: Path) -> None:
    """A preflight from a listed origin may send the token and the last id; from another, not."""
    page, other = "https://chat.example", "https://evil.example"
    with serving(tmp_path, allowed_origins=f'["{page}"]') as server:
        person = someone(server)
        wanted = "authorization,content-type,last-event-id"
        async with person.http() as http:
            for path, method in (("/agui/echo", "POST"), ("/agui/threads/x", "GET")):
                head = {
                    "Access-Control-Request-Method": method,
                    "Access-Control-Request-Headers": wanted,
                }
                good = await http.options(path, headers={**head, "Origin": page})
                assert good.status_code == 200
                assert good.headers["access-control-allow-origin"] == page
                allowed = good.headers["access-control-allow-headers"].lower()
                assert all(name in allowed for name in wanted.split(","))
                for origin in (other, "null", f"{page}.evil.example", "http://chat.example"):
                    bad = await http.options(path, headers={**head, "Origin": origin})
                    assert bad.status_code == 400
                    assert "access-control-allow-origin" not in bad.headers
            answer = await http.post("/agui/echo", json=run_input(), headers={"Origin": page})
            assert answer.headers["access-control-allow-origin"] == page
            refused = await http.get("/agui/threads/x", headers={"Origin": page})
            assert refused.status_code == 404
            assert refused.headers["access-control-allow-origin"] == page
            answer = await http.post("/agui/echo", json=run_input(), headers={"Origin": other})
            assert "access-control-allow-origin" not in answer.headers


# The end of a stream.


async def test_r84_r20_a_stream_ends_with_its_credential_and_the_run_goes_on(
    brisk: ServerProcess,
) -> None:
    """Past exp plus grace the stream is over without an ending; a new token takes it up again."""
    person = someone(brisk)
    async with waiting_run(person) as (thread, run):
        good, person.token = person.token, brisk.token(person.user, ttl=1)
        began = time.monotonic()
        async with person.join(thread) as stream:
            await stream.rest()
        assert 1 < time.monotonic() - began < 6
        assert not is_over(stream.seen)
        async with person.http() as http:
            assert (await http.get(f"/agui/threads/{thread}")).status_code == 401
        person.token = good
        assert await status_of(person, run) == "running"
        async with person.join(thread, last_id(stream.seen)) as again:
            await again.until("TEXT_MESSAGE_CONTENT")


async def test_r84_a_revocation_ends_streams_at_once(agui: ServerProcess) -> None:
    """Both streams of the person end within a second, the other person's goes on; then 401."""
    person, other = someone(agui), someone(agui)
    operator = Person(agui, "operator")
    operator.token = agui.token("operator", role="towpath:revoke")
    async with (
        waiting_run(person) as (thread, _),
        waiting_run(other) as (others, _),
        person.join(thread) as one,
        person.join(thread) as two,
        other.join(others) as third,
        operator.http() as http,
    ):
        for stream in (one, two, third):
            await stream.until("TEXT_MESSAGE_CONTENT")
        revocation = {"request_id": uuid.uuid4().hex, "user": person.user}
        answer = await http.request("DELETE", "/api/v1/sessions", json=revocation)
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(1):
            for stream in (one, two):
                assert not is_over(await stream.rest())
        async with person.http() as again:
            assert (await again.get(f"/agui/threads/{thread}")).status_code == 401
            assert (await again.post("/agui/echo", json=run_input())).status_code == 401
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await third.rest()


async def test_r84_a_revocation_while_the_body_comes_starts_nothing(agui: ServerProcess) -> None:
    """The credential was good when the request began, and is not when its body is there: 401."""
    person = someone(agui)
    operator = Person(agui, "operator")
    operator.token = agui.token("operator", role="towpath:revoke")
    request = run_input()
    body = httpx2.Request("POST", "http://x", json=request).content
    half_sent, revoked = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncGenerator[bytes, None]:
        yield body[:20]
        half_sent.set()
        await revoked.wait()
        yield body[20:]

    async with person.http() as http, operator.http() as boss:
        sending = asyncio.create_task(http.post("/agui/echo", content=slowly()))
        await half_sent.wait()
        await eventually(lambda: has_connections(agui, 1))
        revocation = {"request_id": uuid.uuid4().hex, "user": person.user}
        await boss.request("DELETE", "/api/v1/sessions", json=revocation)
        revoked.set()
        assert (await sending).status_code == 401

    async def nothing_began() -> bool:
        # What is issued within the leeway counts as older; a later credential tells what there is.
        key, now = development_key(agui.data), time.time() + LEEWAY
        person.token = sign(key, user=person.user, tenant=person.tenant, now=now, ttl=60)
        return bool(await status_of(person, request["runId"]) == 404)

    await eventually(nothing_began, seconds=3)


async def has_connections(server: ServerProcess, number: int) -> bool:
    """Whether so many connections are there."""
    return (await gauges(server))["towpath_connections"] == number


async def test_r10_a_run_goes_on_without_its_client(agui: ServerProcess) -> None:
    """The response is cut mid-run: the run finishes, and all of it is there."""
    person, thread, run = someone(agui), uuid.uuid4().hex, uuid.uuid4().hex
    async with person.run("story", thread=thread, run=run, props={"pace": PACE}) as stream:
        await stream.until("STEP_FINISHED")
    assert await status_of(person, run) == "running"
    async with person.join(thread, last_id(stream.seen)) as again:
        await again.rest()
    assert_legal(resumed(stream.seen, again.seen))
    assert await status_of(person, run) == "finished"


@pytest.mark.parametrize(
    "props", [None, {"towpath": None}, {"towpath": {"on_disconnect": "go on"}}, [], "cancel"]
)
async def test_r10_only_who_asks_for_it_ends_a_run_by_leaving(
    agui: ServerProcess, props: Any
) -> None:
    """With any other forwardedProps, a run outlives its client."""
    person = someone(agui)
    async with waiting_run(person, props=props, forwardedProps=props) as (thread, run):
        async with person.join(thread) as stream:
            await stream.until("TEXT_MESSAGE_CONTENT")
        assert await status_of(person, run) == "running"


async def test_r87_r89_on_disconnect_cancel_ends_the_run_with_its_client(
    agui: ServerProcess,
) -> None:
    """The client that requested it cancels by disconnecting; a reader of the run does not."""
    person, thread, run = someone(agui), uuid.uuid4().hex, uuid.uuid4().hex
    props = {"towpath": {"on_disconnect": "cancel"}}
    async with person.run("waits", thread=thread, run=run, props=props) as stream:
        await stream.until("TEXT_MESSAGE_CONTENT")
        async with person.join(thread) as reader:
            await reader.until("TEXT_MESSAGE_CONTENT")
        assert await status_of(person, run) == "running"
        watching = asyncio.create_task(_rest_of(person, thread))
        await eventually(lambda: has_connections(agui, 2))
    seen = await watching
    assert seen[-1].event["outcome"] == {"type": "cancelled"}
    assert await status_of(person, run) == "cancelled"
    assert_legal(seen)


async def _rest_of(person: Person, thread: str) -> list[Seen]:
    async with person.join(thread) as stream:
        return await stream.rest()


async def test_r20_on_disconnect_cancel_is_not_for_ends_of_ours(brisk: ServerProcess) -> None:
    """A stream that we end, because its credential did, cancels nothing: the client comes back."""
    person, thread, run = someone(brisk), uuid.uuid4().hex, uuid.uuid4().hex
    good, person.token = person.token, brisk.token(person.user, ttl=1)
    props = {"towpath": {"on_disconnect": "cancel"}}
    async with person.run("waits", thread=thread, run=run, props=props) as stream:
        await stream.rest()
    assert not is_over(stream.seen)
    person.token = good
    assert await status_of(person, run) == "running"


async def test_r61_a_silent_stream_gives_signs_of_life(brisk: ServerProcess) -> None:
    """Comments come each interval, none with an id, and the last id stays what it was."""
    person = someone(brisk)
    async with waiting_run(person) as (thread, _), person.join(thread) as stream:
        raw = b""
        async for piece in stream.answer.aiter_raw():
            raw += piece
            if raw.count(b": keep-alive\n\n") == 5:
                break
    silence = raw[raw.index(b": keep-alive") :]
    assert silence == b": keep-alive\n\n" * 5


async def test_r59_a_stop_gives_each_stream_the_runs_ending(tmp_path: Path) -> None:
    """SIGTERM: the run ends as drained, its readers see it, and the process is gone in time."""
    with serving(tmp_path) as server:
        person, thread = someone(server), uuid.uuid4().hex
        async with (
            person.run("waits", thread=thread) as stream,
        ):
            await stream.until("TEXT_MESSAGE_CONTENT")
            async with person.join(thread) as reader:
                await reader.until("TEXT_MESSAGE_CONTENT")
                began = time.monotonic()
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                await asyncio.gather(stream.rest(), reader.rest())
        for one in (stream, reader):
            assert one.events[-1]["code"] == "run.drained"
        assert await asyncio.to_thread(server.process.wait, 20) == 0
        assert time.monotonic() - began < 8
        server.start()
        async with person.join(thread, last_id(stream.seen)) as again:
            assert await again.rest() == []


async def test_r97_who_is_slower_than_a_flood_sees_all_of_it(agui: ServerProcess) -> None:
    """Far beyond what may wait beside a stream: every byte, in fewer events."""
    person, thread = someone(agui), uuid.uuid4().hex
    pieces = 200
    async with person.run("floods", str(pieces), thread=thread, props={"pace": 0}) as stream:
        async for one in stream:
            if one.event.get("delta", "").endswith("."):
                break
    text = "".join(event.get("delta", "") for event in stream.events)
    assert text == "".join(map(flood, range(pieces))) + "."
    assert len(stream.seen) < pieces


async def test_r97_r98_who_reads_nothing_is_let_go_and_holds_nobody_up(
    agui: ServerProcess,
) -> None:
    """A second reader gets everything; the stalled connection is closed and its place is free."""
    person, thread = someone(agui), uuid.uuid4().hex
    pieces = 1000
    async with person.run("floods", str(pieces), thread=thread) as stream:
        await stream.until("TEXT_MESSAGE_START")
        raw = await stalled(agui, person, f"/agui/threads/{thread}")
        try:
            async for one in stream:
                if one.event.get("delta", "").endswith("."):
                    break
            await eventually(lambda: has_connections(agui, 1))
            numbers = await gauges(agui)
            assert (numbers["towpath_outbox_bytes"], numbers["towpath_connections"]) == (0, 1)
            assert numbers['towpath_connections_closed_total{code="3008"}'] == 1
        finally:
            raw.close()
    text = "".join(event.get("delta", "") for event in stream.events)
    assert text == "".join(map(flood, range(pieces))) + "."
    await eventually(lambda: has_connections(agui, 0))


async def test_r34_r37_two_hundred_abrupt_ends_leave_nothing(agui: ServerProcess) -> None:
    """Reset before, in and after the head, in the prelude and live: all places are free again."""
    people, before = [someone(agui) for _ in range(4)], len(agui.log.read_text())
    async with contextlib.AsyncExitStack() as stack:
        threads = [(await stack.enter_async_context(waiting_run(one)))[0] for one in people]

        async def one_end(number: int) -> None:
            person, thread = people[number % 4], threads[number % 4]
            head = f"Host: x\r\nAuthorization: Bearer {person.token}\r\n"
            body = httpx2.Request("POST", "http://x", json=run_input("count 3")).content
            sized = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            join = f"GET /agui/threads/{thread} HTTP/1.1\r\n{head}\r\n".encode()
            run = f"POST /agui/tools HTTP/1.1\r\n{head}{sized}\r\n".encode() + body
            # Half a body, a whole one, a join; reset after nothing, a byte, the head, all of it.
            request, most = ((run[:-10], 0), (run, 4000), (join, 600), (join, 600))[number // 50]
            after = min(most, (0, 1, 120, 400, 4000)[number % 5])
            await drop_abruptly(agui, request, after=after)

        for batch in range(0, 200, 20):
            await asyncio.gather(*(one_end(number) for number in range(batch, batch + 20)))
        await eventually(lambda: has_connections(agui, 0))
        numbers = await gauges(agui)
        assert numbers["towpath_subscriptions"] == 0
        assert numbers["towpath_outbox_bytes"] == 0
    assert "ASGI" not in agui.log.read_text()[before:]
