"""The AG-UI endpoints where they cannot serve now: the answer, and that nothing is left behind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.servers.event_streams import read_all, run_input
from towpath import codes
from towpath.agents import demo
from towpath.auth.connection_auth import Refused
from towpath.codes import ErrorCode
from towpath.errors import StorageError
from towpath.gateway import Gateway
from towpath.identity import Principal
from towpath.node.node import Node, Phase
from towpath.runs.requests import RunRequest, Started
from towpath.settings import Settings


class Endpoints:
    """A gateway in this process, and a client of its AG-UI endpoints."""

    def __init__(self, gateway: Gateway, http: httpx2.AsyncClient) -> None:
        self.gateway = gateway
        self.http = http

    @property
    def node(self) -> Node:
        """Its parts."""
        assert self.gateway.node is not None, "the lifespan goes on"
        return self.gateway.node

    async def both(self) -> list[httpx2.Response]:
        """Ask both endpoints."""
        return [
            await self.http.post("/agui/echo", json=run_input(thread="t1")),
            await self.http.get("/agui/threads/t1"),
        ]

    async def assert_untouched(self) -> None:
        """Nobody is here, and there is no thread."""
        assert (len(self.node.parts.hub), self.node.parts.hub.subscriptions) == (0, 0)
        assert self.node.connections == set()
        assert await self.node.parts.store.threads("demo", "alice", limit=10) == []


@asynccontextmanager
async def endpoints(place: Path) -> AsyncIterator[Endpoints]:
    """Open a gateway; requests bear a good token."""
    gateway = Gateway(Settings(data=place))
    gateway.use_development_key("127.0.0.1")
    gateway.agent("echo")(demo.echo)
    transport = httpx2.ASGITransport(gateway)
    async with (
        gateway.lifespan(),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
    ):
        http.headers["authorization"] = f"Bearer {gateway.demo_token('alice')}"
        yield Endpoints(gateway, http)


def assert_later(answer: httpx2.Response, status: int) -> None:
    """The answer says to come back, in both languages."""
    assert answer.status_code == status, answer.text
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["message"]


async def test_r51_before_the_parts_exist_both_endpoints_say_later(tmp_path: Path) -> None:
    """Without a lifespan: 503 with Retry-After, whoever asks."""
    gateway = Gateway(Settings(data=tmp_path))
    transport = httpx2.ASGITransport(gateway)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        for answer in await Endpoints(gateway, http).both():
            assert_later(answer, 503)


async def test_r59_while_draining_no_run_starts_and_threads_can_be_read(tmp_path: Path) -> None:
    """POST is 503 and leaves nothing; a reader still gets what is there, to its end."""
    async with endpoints(tmp_path) as here:
        before = await here.http.post("/agui/echo", json=run_input("hello", thread="t1"))
        await here.gateway.drain()
        assert here.gateway.phase == Phase.DRAINING
        asked = run_input(thread="t1")
        assert_later(await here.http.post("/agui/echo", json=asked), 503)
        assert await here.node.parts.store.find_run("demo", "alice", asked["runId"]) is None
        joined = await here.http.get("/agui/threads/t1")
        assert read_all(joined.content)[-1].event == read_all(before.content)[-1].event
        assert len(here.node.parts.hub) == 0


async def test_r53_a_log_that_cannot_be_used_is_a_503_and_holds_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the log fails, in looking, starting or reading: 503, and the place is free again."""

    async def fails(*asked: Any, **more: Any) -> Any:
        raise StorageError("the disk is gone")

    async with endpoints(tmp_path) as here:
        for owner, name in (
            (here.node.parts.store, "find_run"),
            (here.node.parts.store, "has_active_run"),
            (here.node.parts.store, "get"),
        ):
            with monkeypatch.context() as broken:
                broken.setattr(owner, name, fails)
                answer = await here.http.post("/agui/echo", json=(asked := run_input()))
                assert_later(answer, 503)
                assert len(here.node.parts.hub) == 0
            # Whether or not the run had begun: the same request is answered with it.
            again = await here.http.post("/agui/echo", json=asked)
            assert read_all(again.content)[-1].event["runId"] == asked["runId"]
            runs = await here.node.parts.store.runs("demo", "alice", asked["threadId"], limit=9)
            assert len(runs) == 1
            with monkeypatch.context() as broken:
                broken.setattr(owner, name, fails)
                path = f"/agui/threads/{asked['threadId']}"
                joined = await here.http.get(path)
                if name == "find_run":  # Joining looks for no run.
                    assert joined.status_code == 200
                else:
                    assert_later(joined, 503)
                assert len(here.node.parts.hub) == 0
        assert here.node.connections == set()


async def test_r81_who_asks_for_a_run_gets_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is over and the next one too before the stream begins, only the first is told."""
    async with endpoints(tmp_path) as here:
        start, store = here.node.runs.start, here.node.parts.store

        async def start_two(who: Principal, asked: RunRequest) -> Started:
            first = await start(who, asked)
            later = msgspec.structs.replace(asked, request_id="later", run_id="later")
            for run in (asked.run_id, "later"):
                while (record := await store.find_run(who.tenant, who.user, run or "")) is None:
                    await start(who, later)
                while record is not None and record.ended_at is None:
                    record = await store.find_run(who.tenant, who.user, run or "")
            return first

        monkeypatch.setattr(here.node.runs, "start", start_two)
        asked = run_input(thread="t1")
        seen = read_all((await here.http.post("/agui/echo", json=asked)).content)
        ids = [one.event["runId"] for one in seen if "runId" in one.event]
        assert ids == [asked["runId"]] * 2
        assert (await store.find_run("demo", "alice", "later")) is not None


@pytest.mark.parametrize(
    ("code", "status"), [(codes.TEMPORARY, 503), (codes.TOO_MANY_REQUESTS, 429)]
)
async def test_r22_a_verdict_nobody_can_give_is_no_bad_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: ErrorCode, status: int
) -> None:
    """Unknown is 503 and limited is 429, never 401; nothing starts."""

    async def judge(*asked: Any) -> Refused:
        return Refused(code, "unknown")

    async with endpoints(tmp_path) as here:
        monkeypatch.setattr(here.node.parts.connection_auth, "authenticate_request", judge)
        for answer in await here.both():
            assert_later(answer, status)
        await here.assert_untouched()


async def test_r63_what_is_refused_leaves_no_place_taken(tmp_path: Path) -> None:
    """Bad input, unknown agents and missing threads, more often than there are places."""
    async with endpoints(tmp_path) as here:
        bound = here.node.parts.settings.user_connections
        for _ in range(bound + 1):
            statuses = [
                (await here.http.post("/agui/echo", content=b"{")).status_code,
                (await here.http.post("/agui/echo", json=run_input() | {"runId": " "})).status_code,
                (await here.http.post("/agui/none", json=run_input())).status_code,
                (await here.http.get("/agui/threads/none")).status_code,
            ]
            assert statuses == [400, 400, 404, 404]
        await here.assert_untouched()
