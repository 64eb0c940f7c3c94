"""A node is built from its arguments, opened in order, and closed in the opposite order."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc.jwk import OctKey

from tests.kit.late_provider import AUDIENCE, EPOCH, ISSUER, public_key, token
from tests.kit.transport import MemoryTransport
from towpath import codes
from towpath.agents.agent import AgentInput, AgentRegistry
from towpath.auth.connection_auth import Authenticated
from towpath.auth.development import sign
from towpath.auth.handshake import UpgradeInfo
from towpath.auth.revocations import Revocation, announce
from towpath.channels import CONTROL, Channel, thread_channel
from towpath.errors import ConfigurationError, StorageError
from towpath.identity import Principal
from towpath.log.broker import Broker, Deliver, OnEpoch, Replay, Write
from towpath.methods.method import Caller
from towpath.node import drain_budget
from towpath.node.build import LogFactory, build_node
from towpath.node.gauges import GAUGES, show_gauges
from towpath.node.metrics import Metrics
from towpath.node.node import Node, Phase
from towpath.runs.requests import RunRequest
from towpath.settings import Settings
from towpath.telemetry import AgentsStillRunning, Telemetry, TelemetryEvent
from towpath.testing.memory_broker import MemoryBroker

KEY = OctKey.generate_key(256)
FETCHED: dict[str, Any] = {
    "jwt_issuer": ISSUER,
    "jwt_audience": AUDIENCE,
    "jwks_url": f"{ISSUER}/jwks",
    "tenant_claim": "tenant",
}


class KeyServer(httpx2.AsyncBaseTransport):
    """An issuer's key server that answers once it is released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await self.released.wait()
        body = json.dumps({"keys": [public_key("key-1")]}).encode()
        return httpx2.Response(200, stream=httpx2.ByteStream(body))

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Opened:
    """A log factory that remembers its logs and when each was started and stopped."""

    calls: list[object] = field(default_factory=list)
    at_stop: Callable[[], None] = lambda: None
    """Called as a log stops."""

    def note(self, event: TelemetryEvent) -> None:
        """Note which agents are reported as still running; an observer."""
        if isinstance(event, AgentsStillRunning):
            self.calls += event.agents

    def __call__(self, deliver: Deliver, on_epoch: OnEpoch) -> Broker:
        return WatchedBroker(self, deliver, on_epoch)


class WatchedBroker(MemoryBroker):
    """A log in memory that reports its start and its stop."""

    def __init__(self, opened: Opened, deliver: Deliver, on_epoch: OnEpoch) -> None:
        super().__init__(deliver, on_epoch)
        self._opened = opened

    async def start(self) -> None:
        self._opened.calls.append("start")
        await super().start()

    async def stop(self) -> None:
        self._opened.at_stop()
        self._opened.calls.append("stop")
        await super().stop()


@asynccontextmanager
async def built(
    *, agents: AgentRegistry | None = None, log: LogFactory = MemoryBroker, **settings: Any
) -> AsyncIterator[Node]:
    """Build a node in memory whose only issuer is the development key."""
    async with build_node(
        Settings(**settings),
        agents or AgentRegistry(),
        Telemetry(),
        now=lambda: EPOCH,
        log=log,
        development_key=KEY,
    ) as node:
        yield node


def credential(user: str = "alice") -> str:
    """Return a token of the development key."""
    return sign(KEY, user=user, tenant="acme", now=EPOCH, ttl=60)


async def connected(node: Node, credential: str) -> tuple[MemoryTransport, asyncio.Task[None]]:
    """Connect over a socket in memory; return it once the connect command has its reply."""
    socket = MemoryTransport()
    serving = asyncio.create_task(node.serve(node.open(socket, UpgradeInfo())))
    socket.say({"id": 1, "connect": {"token": credential}})
    while not socket.replies and socket.close_code is None:  # noqa: ASYNC110 - a socket in memory
        await asyncio.sleep(0.001)
    return socket, serving


async def test_a_node_over_a_log_in_memory_serves_clients() -> None:
    """Nothing but the arguments is used: no data directory, no network, no real time."""
    async with built() as node:
        assert node.phase is Phase.READY
        await node.ready()
        socket, serving = await connected(node, credential())
        assert "error" not in socket.replies[0]
        assert len(node.connections) == len(node.parts.hub) == 1
        socket.leave()
        await serving
        assert len(node.connections) == len(node.parts.hub) == 0


async def test_p3_readers_subscribe_anew_when_the_log_has_another_epoch() -> None:
    """The log's notice reaches the readers of this node; the control channel was attached first."""
    logs: list[MemoryBroker] = []
    attached: list[bool] = []

    class Log(MemoryBroker):
        async def read(self, channel: Channel, after: int | None, **more: Any) -> Replay:
            attached.append(channel != CONTROL or CONTROL in self._attached)
            return await super().read(channel, after, **more)

    def log(deliver: Deliver, on_epoch: OnEpoch) -> Broker:
        logs.append(Log(deliver, on_epoch))
        return logs[0]

    async with built(log=log) as node:
        assert all(attached)
        upgrade = UpgradeInfo(authorization=f"Bearer {credential()}")
        made = await node.parts.connection_auth.authenticate_request(upgrade)
        assert isinstance(made, Authenticated)
        data = b'{"request_id": "r", "thread_id": "t"}'
        caller = Caller(principal=made.principal)
        await node.parts.methods.call("thread.create", data, caller)
        socket, serving = await connected(node, credential())
        thread = thread_channel("acme", "alice", "t")
        socket.say({"id": 2, "subscribe": {"channel": "thread:t"}})
        while not node.parts.hub.live_readers(thread):  # noqa: ASYNC110 - a socket in memory
            await asyncio.sleep(0.001)
        assert thread in logs[0]._attached
        logs[0]._on_epoch(thread)
        assert thread not in logs[0]._attached
        pushes = (one.get("push", {}) for one in socket.frames)
        while not any("unsubscribe" in push for push in pushes):
            await asyncio.sleep(0.001)
            pushes = (one.get("push", {}) for one in socket.frames)
        assert socket.close_code is None
        socket.leave()
        await serving


async def test_the_time_of_a_node_is_an_argument() -> None:
    """What is stored has the time of `now`, and a credential ends by it."""
    async with built() as node:
        upgrade = UpgradeInfo(authorization=f"Bearer {credential()}")
        made = await node.parts.connection_auth.authenticate_request(upgrade)
        assert isinstance(made, Authenticated)
        caller = Caller(principal=made.principal)
        data = b'{"request_id": "r", "thread_id": "t"}'
        await node.parts.methods.call("thread.create", data, caller)
        (thread,) = await node.parts.store.threads("acme", "alice", limit=9)
        assert thread.created_at == EPOCH


async def test_a_node_is_ready_once_it_has_the_keys_of_its_issuer() -> None:
    """Until then it says what it waits for; the client for keys is the caller's, and stays open."""
    keys = KeyServer()
    async with httpx2.AsyncClient(transport=keys) as client:
        async with build_node(
            Settings(**FETCHED),
            AgentRegistry(),
            Telemetry(),
            now=lambda: EPOCH,
            http_client=client,
            log=MemoryBroker,
        ) as node:
            assert (node.phase, node.waiting_for) == (Phase.WARMING, [ISSUER])
            with pytest.raises(StorageError, match=f"warming {ISSUER}"):
                await node.ready()
            keys.released.set()
            while node.phase is Phase.WARMING:  # noqa: ASYNC110 - the phase is a plain value
                await asyncio.sleep(0.001)
            assert (node.phase, node.waiting_for) == (Phase.READY, [])
            socket, serving = await connected(node, token("mia"))
            assert "error" not in socket.replies[0]
            socket.leave()
            await serving
        assert not keys.closed


async def test_p10_a_node_drains_before_it_closes_its_log() -> None:
    """At the end runs get their ending, clients are sent elsewhere, and the log closes last."""
    opened, begun = Opened(), asyncio.Event()

    async def endless(request: AgentInput) -> AsyncGenerator[object, None]:
        """Never end."""
        begun.set()
        yield "word"
        await asyncio.Event().wait()

    agents = AgentRegistry()
    agents.register("endless", endless, deadline=600.0)
    active: list[int] = []
    async with built(agents=agents, log=opened, cleanup_timeout=0.1, drain_timeout=1.0) as node:
        runs = node.runs
        opened.at_stop = lambda: active.append(runs.active)
        socket, serving = await connected(node, credential())
        start = {"request_id": "r", "agent": "endless", "message": "x"}
        socket.say({"id": 2, "rpc": {"method": "run.start", "data": start}})
        await begun.wait()
        assert runs.active == 1
    assert active == [0], "no run goes on when the log closes"
    assert opened.calls == ["start", "stop"]
    assert socket.close_code == codes.MOVE_ELSEWHERE.number
    assert node.phase is Phase.DRAINING
    assert node.connections == set()
    await serving


@pytest.mark.parametrize("ends_itself", [False, True])
async def test_a_log_is_closed_although_an_agent_does_not_return(
    monkeypatch: pytest.MonkeyPatch, ends_itself: bool
) -> None:
    """The budget of the drain bounds the wait; one event names the agent, before the log closes."""
    monkeypatch.setattr(drain_budget, "CLOSING", 0.0001)
    opened, begun, released = Opened(), asyncio.Event(), asyncio.Event()

    async def deaf(request: AgentInput) -> AsyncGenerator[object, None]:
        """Swallow each cancellation, after or before the end of the run."""
        yield "word"
        try:
            if ends_itself:
                yield {"type": "RUN_ERROR", "message": "enough"}
        finally:
            begun.set()
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released.wait()

    agents, telemetry = AgentRegistry(), Telemetry([opened.note])
    agents.register("deaf", deaf)
    settings = Settings(cleanup_timeout=600.0, drain_timeout=600.0)
    async with build_node(
        settings, agents, telemetry, now=lambda: EPOCH, log=opened, development_key=KEY
    ) as node:
        alice = Principal(tenant="acme", user="alice")
        request = RunRequest(request_id="r", agent="deaf", message="x")
        run = await node.runs.start(alice, request)
        await begun.wait()
    released.set()
    named = {"agent": "deaf", "thread": run.thread_id, "run": run.run_id}
    assert opened.calls == ["start", named, "stop"]


def test_a_phase_is_the_text_that_health_shows() -> None:
    """Code that compares a phase with a text goes on working."""
    texts = ["stopped", "starting", "warming", "ready", "draining", "failed"]
    assert [phase.value for phase in Phase] == texts
    assert list(Phase) == texts


async def test_draining_twice_is_draining_once() -> None:
    """A drained node is not ready, and can be drained again and closed."""
    async with built() as node:
        await node.drain()
        await node.drain()
        assert node.phase is Phase.DRAINING
        with pytest.raises(StorageError, match="draining"):
            await node.ready()


async def test_a_node_without_an_issuer_opens_nothing(tmp_path: Path) -> None:
    """What refuses to start does so before the log is touched."""
    opened = Opened()
    with pytest.raises(ConfigurationError, match="TOWPATH_JWT_KEY"):
        async with build_node(
            Settings(data=tmp_path / "data"), AgentRegistry(), Telemetry(), log=opened
        ):
            raise AssertionError("it was built")
    assert opened.calls == []
    assert not (tmp_path / "data").exists()


async def test_a_part_that_cannot_be_opened_closes_those_before_it() -> None:
    """The log is stopped where a later part fails."""
    opened = Opened()

    class Unreadable(WatchedBroker):
        async def read(self, *given: Any, **more: Any) -> Any:
            raise StorageError("unreadable")

    with pytest.raises(StorageError, match="unreadable"):
        async with built(log=lambda deliver, projection: Unreadable(opened, deliver, projection)):
            raise AssertionError("it was built")
    assert opened.calls == ["start", "stop"]


async def test_publications_reach_the_feed_or_the_hub() -> None:
    """The control channel revokes; it has no readers."""
    async with built() as node:
        socket, serving = await connected(node, credential())
        revocation = Revocation(tenant="acme", at=EPOCH, user="alice")
        written = await node.parts.broker.submit(Write((announce(revocation),)))
        assert written.spans[0].channel == CONTROL
        await serving
        assert len(node.auth_service.revocations) == 1
        assert socket.close_code == codes.NOT_ALLOWED.number


async def test_gauges_show_the_node_that_runs() -> None:
    """Each is 0 without a node, and read anew whenever somebody asks."""
    metrics = Metrics()
    running: list[Node | None] = [None]
    show_gauges(metrics, lambda: running[0])
    shown = metrics.exposition("")[0].decode()
    assert [name for name, _, _ in GAUGES if f"\n{name} 0.0\n" not in shown] == []
    async with built() as running[0]:
        assert running[0] is not None
        socket, serving = await connected(running[0], credential())
        assert "\ntowpath_connections 1.0\n" in metrics.exposition("")[0].decode()
        socket.leave()
        await serving
        assert "\ntowpath_connections 0.0\n" in metrics.exposition("")[0].decode()
