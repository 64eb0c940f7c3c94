"""The composition root: builds every part of a node, once, and hands each part its dependencies.

`build_node` opens the parts in order and closes them in the opposite order.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import httpx2
from joserfc.jwk import OctKey

from towpath.agents.agent import AgentRegistry
from towpath.auth.connection_auth import ConnectionAuth
from towpath.auth.policy import may_read
from towpath.auth.revocations import revoke_everybody
from towpath.channels import CONTROL, Channel
from towpath.connections.event_stream import sse_encoding
from towpath.connections.parts import Parts
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import Recovery
from towpath.log.broker import Broker, Deliver, OnEpoch, Publication
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.file_schema import DATABASE_NAME
from towpath.methods.runs import StartLimit
from towpath.methods.table import make_methods
from towpath.node.auth_setup import open_authentication
from towpath.node.drain_budget import DrainBudget
from towpath.node.node import VERSION, Node, Phase, agents_still_running
from towpath.node.revocation_feed import RevocationFeed
from towpath.rate_limits import Rate
from towpath.runs.deps import RunLimits
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore
from towpath.runs.tables.sqlite.projection import ThreadProjection
from towpath.settings import Settings
from towpath.telemetry import Telemetry

LogFactory = Callable[[Deliver, OnEpoch], Broker]
"""Makes a log, not yet started, with the projection of runs for its engine.

It passes durable publications to `Deliver`, and positions that are no longer valid to `OnEpoch`.
"""


@contextlib.asynccontextmanager
async def build_node(
    settings: Settings,
    agents: AgentRegistry,
    telemetry: Telemetry,
    *,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    http_client: httpx2.AsyncClient | None = None,
    log: LogFactory | None = None,
    development_key: OctKey | None = None,
) -> AsyncGenerator[Node, None]:
    """Build a node and run it until the context ends; then drain and close it.

    Args:
        settings: the settings.
        agents: the registered agents.
        telemetry: is notified of all events.
        now: returns Unix seconds.
        monotonic: returns seconds of a monotonic clock.
        http_client: fetches the issuers' keys and stays open; None opens one from the settings.
        log: makes the log; None uses the SQLite file in the data directory.
        development_key: the key of the only issuer in development; None outside of it.

    Raises:
        ConfigurationError: a part cannot be opened; the message says how to correct it.
    """
    builder = _Builder(
        settings=settings,
        agents=agents,
        telemetry=telemetry,
        now=now,
        monotonic=monotonic,
        budget=DrainBudget(settings.drain_timeout),
    )
    stack = contextlib.AsyncExitStack()
    try:
        connection_auth = await open_authentication(
            settings,
            telemetry,
            stack,
            now=now,
            monotonic=monotonic,
            http_client=http_client,
            development_key=development_key,
        )
        group = asyncio.TaskGroup()
        node = await builder.open(stack, connection_auth, log or builder.sqlite_log, group)
        await stack.enter_async_context(builder.budget.bound(group))
        stack.enter_context(node.running())
        keys = group.create_task(node.keep_keys(), name="issuers' keys")
        stack.callback(keys.cancel)
        stack.push_async_callback(node.drain)
        yield node
    finally:
        # Not told of the user's error: the task groups would wrap it in exception groups.
        await stack.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    """Makes the parts of a node; see `build_node` for the fields."""

    settings: Settings
    agents: AgentRegistry
    telemetry: Telemetry
    now: Callable[[], float]
    monotonic: Callable[[], float]
    budget: DrainBudget

    async def open(
        self,
        stack: contextlib.AsyncExitStack,
        connection_auth: ConnectionAuth,
        log: LogFactory,
        tasks: asyncio.TaskGroup,
    ) -> Node:
        """Open the log and the parts that use it; the stack closes them."""
        hub = self.hub()
        feed = RevocationFeed(connection_auth.service, hub, self.telemetry)
        broker = await stack.enter_async_context(_started(log(_delivery(hub, feed), hub.reset)))
        hub.bind(broker)
        await feed.catch_up(broker, self.now())
        store = ThreadStore(broker)
        runs = self.runs(broker, store)
        stack.callback(self.report_agents, runs)
        await stack.enter_async_context(self.budget.bound(runs))
        return self.node(hub, feed, broker, store, runs, connection_auth, tasks)

    def hub(self) -> Hub:
        settings = self.settings
        return Hub(
            may_read,
            max_connections=settings.user_connections,
            max_tenant_connections=settings.tenant_connections,
            ring_bytes=settings.ring_bytes,
            all_rings_bytes=settings.all_rings_bytes,
        )

    def sqlite_log(self, deliver: Deliver, on_epoch: OnEpoch) -> Broker:
        return SqliteBroker(
            self.settings.data / DATABASE_NAME,
            deliver,
            ThreadProjection(),
            on_epoch=on_epoch,
            telemetry=self.telemetry,
            synchronous=self.settings.synchronous,
            reserve_bytes=self.settings.reserve_bytes,
            lost_control=lambda: revoke_everybody(self.now()),
            now=self.now,
        )

    def runs(self, broker: Broker, store: ThreadStore) -> RunService:
        settings = self.settings
        return RunService(
            broker,
            store,
            self.agents,
            telemetry=self.telemetry,
            now=self.now,
            limits=RunLimits(
                deadline_seconds=settings.run_deadline,
                cleanup_seconds=settings.cleanup_timeout,
                interrupt_seconds=settings.interrupt_timeout,
                drain_seconds=settings.drain_timeout,
                message_bytes=settings.run_message_bytes,
                event_bytes=settings.event_bytes,
                run_bytes=settings.run_bytes,
                keep_raw=settings.keep_raw,
            ),
        )

    def report_agents(self, runs: RunService) -> None:
        """Report the agents that still run when the log is about to be closed."""
        if keys := runs.unreturned:
            self.telemetry.emit(agents_still_running(keys))

    def node(
        self,
        hub: Hub,
        feed: RevocationFeed,
        broker: Broker,
        store: ThreadStore,
        runs: RunService,
        connection_auth: ConnectionAuth,
        tasks: asyncio.TaskGroup,
    ) -> Node:
        settings, service = self.settings, connection_auth.service
        recovery = Recovery(broker, store, snapshot_max_bytes=settings.snapshot_max_bytes)
        rate = Rate(per_second=settings.runs_per_second, burst=settings.runs_burst)
        start_limit = StartLimit(rate, self.monotonic)
        methods = make_methods(
            service=runs,
            start_limit=start_limit,
            broker=broker,
            store=store,
            recovery=recovery,
            auth_service=service,
            hub=hub,
            feed=feed,
            registry=self.agents,
            telemetry=self.telemetry,
            now=self.now,
            new_id=lambda: uuid.uuid4().hex,
        )
        parts = Parts(
            settings=settings,
            hub=hub,
            broker=broker,
            store=store,
            recovery=recovery,
            methods=methods,
            connection_auth=connection_auth,
            may_read=may_read,
            telemetry=self.telemetry,
            version=f"towpath {VERSION}",
            now=self.now,
        )
        return Node(
            parts=parts,
            auth_service=service,
            runs=runs,
            start_limit=start_limit,
            sse=sse_encoding(broker),
            tasks=tasks,
            budget=self.budget,
            phase=Phase.WARMING if service.cold else Phase.READY,
        )


@contextlib.asynccontextmanager
async def _started(broker: Broker) -> AsyncGenerator[Broker, None]:
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def _delivery(hub: Hub, feed: RevocationFeed) -> Deliver:
    """Return the receiver of publications: the feed for the control channel, the hub for others."""

    def deliver(channel: Channel, publications: Sequence[Publication]) -> None:
        if channel == CONTROL:
            feed.apply(publications)
        else:
            hub.deliver(channel, publications)

    return deliver
