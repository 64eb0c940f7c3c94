"""The composition root: everything is put together here, once, and every part is handed its parts.

A `Gateway` is an ASGI application. It runs alone (`towpath serve`), is mounted into another
application with `mount`, or stands anywhere an ASGI application may stand as long as somebody
runs `lifespan`.
"""

import asyncio
import contextlib
import ipaddress
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from joserfc.jwk import OctKey
from pydantic import ValidationError
from pydantic_settings import SettingsError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from towpath import codes
from towpath.agents.agent import AgentFunction, AgentRegistry
from towpath.auth.connection_auth import ConnectionAuth
from towpath.auth.development import development_key, sign
from towpath.auth.handshake import UpgradeInfo
from towpath.auth.policy import may_read
from towpath.auth.provider import is_loopback
from towpath.auth.service import AuthService
from towpath.channels import CONTROL, Channel, tenant_channel
from towpath.connections.asgi import AsgiTransport
from towpath.connections.client_connection import ClientConnection
from towpath.connections.commands import Parts
from towpath.connections.event_stream import EventStream, sse_encoding
from towpath.delivery.hub import Encoding, Hub
from towpath.delivery.recovery import Recovery
from towpath.errors import ConfigurationError, StorageError
from towpath.http.client_address import Network, Peer, peer_of
from towpath.log.broker import (
    Append,
    Broker,
    Item,
    Publication,
    Write,
    write,
)
from towpath.log.sqlite_broker import SqliteBroker
from towpath.methods.operations import Operations
from towpath.node.auth_setup import open_authentication
from towpath.node.metrics import Metrics
from towpath.node.revocation_feed import Control, lost
from towpath.rate_limits import Buckets, Rate
from towpath.runs.deps import RunLimits
from towpath.runs.executor import agent_fault
from towpath.runs.model import RunKey
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore
from towpath.runs.tables.projection import ThreadProjection
from towpath.settings import Settings
from towpath.telemetry import Observer, Telemetry

F = TypeVar("F", bound=AgentFunction)

VERSION = version("towpath")
PROBE_TENANT = ""
"""The tenant of readiness probes: no principal can have it, so nobody reads its channel."""


class Phase:
    """What `/health/startup` says of where a gateway is."""

    STOPPED = "stopped"
    STARTING = "starting"
    WARMING = "warming"
    """Everything is open; the keys of a required issuer are not there yet."""
    READY = "ready"
    DRAINING = "draining"


@dataclass(slots=True, eq=False)
class House:
    """The parts of a running gateway."""

    parts: Parts
    service: AuthService
    broker: Broker
    bridge: RunService
    store: ThreadStore
    sse: Encoding
    """How event streams are written."""
    lines: set[ClientConnection | EventStream] = field(default_factory=set)
    """Everybody who is connected."""


class Gateway:
    """A realtime gateway for agent chat; an ASGI application."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Make a gateway; nothing is opened before its lifespan begins.

        Args:
            settings: what to run with; None takes them from the environment (`TOWPATH_…`).

        Raises:
            ConfigurationError: the environment holds a setting that is none.
        """
        self.settings = settings if settings is not None else settings_from_environment()
        """May be replaced until the lifespan begins."""
        self.agents = AgentRegistry()
        self.metrics = Metrics()
        self.phase = Phase.STOPPED
        self.house: House | None = None
        """The running parts, between the beginning and the end of the lifespan."""
        self.demo_users: tuple[str, ...] = ()
        """Whom the chat page offers in development; nobody otherwise."""
        self._telemetry = Telemetry((self.metrics.observe,))
        self._development = False
        self._development_key: OctKey | None = None
        self._app: Starlette | None = None
        self._trusted: tuple[Network, ...] = ()
        self._show_gauges()

    def agent(
        self, name: str, *, deadline: float | None = None, double_texting: str = "reject"
    ) -> Callable[[F], F]:
        """Register an async generator function as the agent of this name.

        Args:
            name: what clients call it.
            deadline: seconds until a run of it is ended; None takes `run_deadline`.
            double_texting: what becomes of a run that is asked for while another one is active on
                its thread: `reject` it, `queue` it, or `interrupt` the other one.

        Raises:
            InvalidAgent: it could not be asked; the sentence says why.
        """

        def register(function: F) -> F:
            limit = deadline if deadline is not None else self.settings.run_deadline
            self.agents.register(name, function, deadline=limit, double_texting=double_texting)
            return function

        return register

    def add_observer(self, observer: Observer) -> None:
        """Let `observer` hear of everything that happens."""
        self._telemetry.add_observer(observer)

    def use_development_key(self, host: str) -> None:
        """Take tokens of the data directory's development key, and offer demo users.

        Raises:
            ConfigurationError: `host` is no loopback address.
        """
        if not is_loopback(host):
            raise ConfigurationError(
                f"--dev works on a loopback address only, and {host} is none: leave out --host, "
                "or configure an issuer (TOWPATH_JWT_KEY) and leave out --dev"
            )
        self._development = True
        self.demo_users = ("alice", "bob", "carol")

    def mount(self, app: Starlette, path: str) -> None:
        """Mount into a Starlette or FastAPI application, routes and lifespan both."""
        app.mount(path, self)
        outer = app.router.lifespan_context

        @contextlib.asynccontextmanager
        async def lifespan(host: Any) -> AsyncGenerator[Any, None]:
            async with self.lifespan(), outer(host) as state:
                yield state

        app.router.lifespan_context = lifespan

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncGenerator[None, None]:
        """Open everything in order, be ready, and close everything in the opposite order.

        Raises:
            ConfigurationError: something cannot be opened; the sentence says what to do.
        """
        self.phase = Phase.STARTING
        try:
            async with contextlib.AsyncExitStack() as stack:
                self.house = await self._open(stack)
                group = await stack.enter_async_context(asyncio.TaskGroup())
                warming = group.create_task(self._warm(self.house.service), name="warming")
                stack.callback(warming.cancel)
                stack.push_async_callback(self.drain)
                self.phase = Phase.WARMING if self.house.service.cold else Phase.READY
                yield
        finally:
            self.house = None
            self.phase = Phase.STOPPED

    @property
    def auth(self) -> ConnectionAuth:
        """What authenticates connections and requests, while the lifespan goes on."""
        assert self.house is not None, "the lifespan has begun"
        return self.house.parts.auth

    async def drain(self) -> None:
        """Take no more work: end the runs, tell every connection to move elsewhere; idempotent."""
        house = self.house
        if house is None or self.phase == Phase.DRAINING:
            return
        self.phase = Phase.DRAINING
        for line in house.lines:
            line.drain()
        # A log that refuses the runs' endings costs the time there is, and nobody their goodbye.
        try:
            async with asyncio.timeout(self.settings.drain_timeout):
                await house.bridge.drain()
        except TimeoutError:
            house.bridge.stop_retrying()
        for line in list(house.lines):
            line.end(codes.MOVE_ELSEWHERE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.close_timeout):
                for line in list(house.lines):
                    await line.over.wait()

    async def ready(self) -> None:
        """Make a round trip through log and projection.

        Raises:
            StorageError: one of them does not answer; the sentence says which.
        """
        if self.house is None or self.phase != Phase.READY:
            raise StorageError(" ".join((self.phase, *self.waiting_for())))
        broker, channel = self.house.broker, tenant_channel(PROBE_TENANT)
        probe = Write((Append(channel, (Item(b"{}", {}),)),))
        try:
            async with asyncio.timeout(self.settings.ready_timeout):
                written = await write(broker, probe)
                replay = await broker.read(channel, written.spans[0].first - 1)
                await self.house.store.exists(PROBE_TENANT, "", "")
        except TimeoutError:
            raise StorageError("the log does not answer in time") from None
        if not replay.publications:
            raise StorageError("the log does not give back what it took")

    def waiting_for(self) -> list[str]:
        """Return the required issuers whose keys are not there yet."""
        return self.house.service.cold if self.house and self.phase == Phase.WARMING else []

    def peer(self, request: HTTPConnection) -> Peer:
        """Return who is at the other end, as far as trusted proxies tell."""
        return peer_of(request, self._trusted)

    async def serve_socket(self, websocket: WebSocket, handshake: UpgradeInfo) -> None:
        """Serve one accepted socket until it is over."""
        assert self.house is not None, "sockets are accepted while the lifespan goes on"
        line = ClientConnection(
            self.house.parts,
            AsgiTransport(websocket),
            handshake=handshake,
            connection_id=uuid.uuid4().hex,
        )
        lines = self.house.lines
        lines.add(line)
        try:
            await line.serve()
        finally:
            lines.discard(line)

    def agent_exited(self, key: RunKey | None, error: BaseException) -> None:
        """End the run of an agent that exited in a task or callback of its own, and tell of it.

        Called by who runs the event loop, from within it. Without a key, nobody knows which agent.
        """
        if key is not None and self.house is not None:
            self.house.bridge.agent_exited(key, error)
        else:
            name = key.agent if key is not None else "(not known which)"
            self._telemetry.emit(agent_fault(name, error))

    def demo_token(self, user: str, tenant: str = "demo", ttl: float = 3600.0) -> str:
        """Return a development token for a demo user."""
        assert self._development_key is not None, "demo users exist in development only"
        return sign(self._development_key, user=user, tenant=tenant, now=time.time(), ttl=ttl)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI."""
        if self._app is None:
            from towpath.http.app import make_app  # The app's routes are made of this class.

            self._app = make_app(self)
        await self._app(scope, receive, send)

    async def _open(self, stack: contextlib.AsyncExitStack) -> House:
        """Open everything in order; the stack closes it in the opposite one.

        Raises:
            ConfigurationError: something cannot be opened.
        """
        settings = self.settings
        self._trusted = tuple(map(ipaddress.ip_network, sorted(settings.trusted_proxies)))
        if self._development:
            self._development_key = await asyncio.to_thread(development_key, settings.data)
        auth = await open_authentication(settings, self._telemetry, stack, self._development_key)
        hub = Hub(
            may_read,
            max_connections=settings.user_connections,
            max_tenant_connections=settings.tenant_connections,
            backlog_bytes=settings.backlog_bytes,
        )
        control = Control(auth.service, hub, self._telemetry)

        def deliver(channel: Channel, publications: Sequence[Publication]) -> None:
            if channel == CONTROL:
                control.apply(publications)
            else:
                hub.deliver(channel, publications)

        broker = SqliteBroker(
            settings.data / "towpath.db",
            deliver,
            ThreadProjection(),
            telemetry=self._telemetry,
            synchronous=settings.synchronous,
            reserve_bytes=settings.reserve_bytes,
            lost_control=lambda: lost(time.time()),
        )
        await stack.enter_async_context(_opened(broker))
        await control.catch_up(broker, time.time())
        store = ThreadStore(broker)
        bridge = await stack.enter_async_context(self._bridge(broker, store))
        return self._furnish(hub, broker, store, bridge, auth, control)

    async def _warm(self, service: AuthService) -> None:
        """Fetch the issuers' keys, be ready once the required ones are there, and tend them."""
        await service.warm()
        if self.phase == Phase.WARMING:
            self.phase = Phase.READY
        await service.keep_fresh()

    def _bridge(self, broker: Broker, store: ThreadStore) -> RunService:
        settings = self.settings
        return RunService(
            broker,
            store,
            self.agents,
            telemetry=self._telemetry,
            now=time.time,
            limits=RunLimits(
                cleanup_seconds=settings.cleanup_timeout,
                interrupt_seconds=settings.interrupt_timeout,
                lease_seconds=settings.run_lease,
                drain_seconds=settings.drain_timeout,
                message_bytes=settings.run_message_bytes,
                run_bytes=settings.run_bytes,
                keep_raw=settings.keep_raw,
            ),
        )

    def _furnish(
        self,
        hub: Hub,
        broker: SqliteBroker,
        store: ThreadStore,
        bridge: RunService,
        auth: ConnectionAuth,
        control: Control,
    ) -> House:
        settings = self.settings
        recovery = Recovery(broker, store, snapshot_max_bytes=self.settings.snapshot_max_bytes)
        operations = Operations(
            bridge=bridge,
            broker=broker,
            store=store,
            recovery=recovery,
            registry=self.agents,
            auth=auth.service,
            control=control,
            hub=hub,
            runs=Buckets(Rate(per_second=settings.runs_per_second, burst=settings.runs_burst)),
            telemetry=self._telemetry,
            monotonic=time.monotonic,
            clock=time.time,
            new_id=lambda: uuid.uuid4().hex,
        )
        parts = Parts(
            settings=self.settings,
            hub=hub,
            broker=broker,
            store=store,
            recovery=recovery,
            operations=operations,
            auth=auth,
            may_read=may_read,
            telemetry=self._telemetry,
            version=f"towpath {VERSION}",
            wall_clock=time.time,
        )
        return House(parts, auth.service, broker, bridge, store, sse_encoding(broker))

    def _show_gauges(self) -> None:
        def read(ask: Callable[[House], float]) -> Callable[[], float]:
            return lambda: ask(self.house) if self.house is not None else 0.0

        gauge = self.metrics.gauge
        gauge("towpath_connections", "Live connections", read(lambda h: len(h.parts.hub)))
        gauge(
            "towpath_subscriptions",
            "Channels read, over all connections",
            read(lambda h: h.parts.hub.subscriptions),
        )
        gauge(
            "towpath_outbox_bytes",
            "Waiting to be sent, over all connections",
            read(lambda h: h.parts.hub.waiting_bytes),
        )
        gauge(
            "towpath_backlog_bytes",
            "Waiting beside connections that fell behind",
            read(lambda h: h.parts.hub.backlog_bytes),
        )
        gauge(
            "towpath_largest_connection_bytes",
            "Waiting for the one connection for which most waits",
            read(lambda h: h.parts.hub.largest_bytes),
        )
        gauge(
            "towpath_withheld",
            "Writes the policy refused at the last moment",
            read(lambda h: h.parts.hub.withheld),
        )
        gauge(
            "towpath_verdicts_remembered",
            "Verdicts that need not be found out again",
            read(lambda h: len(h.service.cache)),
        )
        gauge(
            "towpath_tickets_waiting",
            "Tickets that were issued and not yet used",
            read(lambda h: len(h.service.tickets)),
        )
        gauge("towpath_runs", "Runs in progress", read(lambda h: h.bridge.active))
        gauge("towpath_watcher_failures", "Watchers that raised", lambda: self._telemetry.failures)


@contextlib.asynccontextmanager
async def _opened(broker: Broker) -> AsyncGenerator[None, None]:
    await broker.start()
    try:
        yield
    finally:
        await broker.stop()


def settings_from_environment(data: Path | None = None) -> Settings:
    """Return the settings of the environment, with another data directory where one is given.

    Raises:
        ConfigurationError: one of them is none; the sentence names it.
    """
    try:
        return Settings() if data is None else Settings(data=data)
    except SettingsError as error:
        raise ConfigurationError(f"the environment (TOWPATH_…): {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise ConfigurationError("; ".join(map(_reason, found))) from None


def _reason(error: Any) -> str:
    """Return what is wrong with a setting, by its name."""
    name = "_".join(str(part) for part in error["loc"]).upper()
    where = f"TOWPATH_{name}" if name else "the settings"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"
