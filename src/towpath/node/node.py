"""The running parts of one gateway process.

`towpath.node.build` makes a node and closes it. Everything under `http/` uses a node.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version

from towpath import codes, telemetry
from towpath.auth.handshake import UpgradeInfo
from towpath.auth.service import AuthService
from towpath.channels import tenant_channel
from towpath.connections.client_connection import ClientConnection
from towpath.connections.event_stream import EventStream
from towpath.connections.parts import Parts
from towpath.connections.transport import Transport
from towpath.delivery.encoding import Encoding
from towpath.errors import Conflict, NotRunning, SeveralGateways, StorageError, WrongLoop
from towpath.identity import Principal
from towpath.log.broker import Append, Item, Write, write
from towpath.methods.runs import StartLimit
from towpath.node.drain_budget import CLOSING, ENDINGS, DrainBudget
from towpath.runs.model import RunKey
from towpath.runs.service import RunService

VERSION = version("towpath")
RUNNING: list["Node"] = []
"""The nodes of this process, in the order in which they were built."""
PROBE_TENANT = ""
"""The tenant of readiness probes: no principal can have it, so no client reads its channel."""


class Phase(StrEnum):
    """The phase of a gateway between its start and its stop; `/health/startup` shows the value."""

    STOPPED = "stopped"
    STARTING = "starting"
    """The node is being built."""
    WARMING = "warming"
    """The node is built; keys of a required issuer are missing."""
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    """The node could not be built in the background, or it broke down; the log says why."""


@dataclass(slots=True, eq=False, kw_only=True)
class Node:
    """The running parts of one gateway process.

    `parts` are the parts that every connection uses. They are a separate dataclass, because
    `connections` must not import `node`. The node itself and `http/` use the other fields.
    """

    parts: Parts
    auth_service: AuthService
    runs: RunService
    start_limit: StartLimit
    """The rate limit of a person's starts of runs, over RPC, REST and AG-UI together."""
    sse: Encoding
    """How publications are encoded for event streams."""
    tasks: asyncio.TaskGroup
    """Awaits the tasks of the node, and ends when the node is closed."""
    budget: DrainBudget
    """The time of the drain; the composition root closes the parts of the node in it."""
    phase: Phase = Phase.WARMING
    """WARMING, READY or DRAINING."""
    connections: set[ClientConnection | EventStream] = field(default_factory=set)
    """Every open connection and event stream."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """List the node in `RUNNING` as long as the context is open."""
        RUNNING.append(self)
        try:
            yield
        finally:
            RUNNING.remove(self)

    def check_loop(self) -> None:
        """Check that the caller runs on the event loop of the node.

        Raises:
            WrongLoop: it runs on another one, or on none.
        """
        try:
            current = asyncio.get_running_loop()
        except RuntimeError:
            current = None
        if current is not self.loop:
            raise WrongLoop

    @property
    def waiting_for(self) -> list[str]:
        """The required issuers whose keys are missing."""
        return self.auth_service.cold if self.phase is Phase.WARMING else []

    async def keep_keys(self) -> None:
        """Fetch the issuers' keys, become ready once the required ones are there, refresh all."""
        await self.auth_service.warm()
        if self.phase is Phase.WARMING:
            self.phase = Phase.READY
        await self.auth_service.keep_fresh()

    def open(
        self,
        transport: Transport,
        upgrade: UpgradeInfo,
        *,
        principal: Principal | None = None,
        connection_id: str | None = None,
    ) -> ClientConnection:
        """Return the connection of an accepted socket; call `serve` next.

        Args:
            transport: the socket.
            upgrade: the data of its upgrade request.
            principal: the person, if the application authenticated the socket itself.
            connection_id: the id of the connection; None makes one.

        Raises:
            Conflict: a connection with this id is open.
        """
        self.check_connection_id(connection_id)
        connection = ClientConnection(
            self.parts,
            transport,
            upgrade=upgrade,
            connection_id=connection_id or uuid.uuid4().hex,
            principal=principal,
        )
        self.connections.add(connection)
        return connection

    def check_connection_id(self, connection_id: str | None) -> None:
        """Check that no open connection has this id.

        Raises:
            Conflict: a connection with this id is open.
        """
        if connection_id is not None and self.connection(connection_id) is not None:
            raise Conflict(f"a connection with the id {connection_id!r} is open")

    def connection(self, connection_id: str) -> ClientConnection | None:
        """Return a WebSocket connection that is served here; None if there is none of this id."""
        found = (one for one in self.connections if isinstance(one, ClientConnection))
        return next((one for one in found if one.id == connection_id), None)

    async def serve(self, connection: ClientConnection) -> None:
        """Serve a connection that was opened, until it ends."""
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)

    async def ready(self) -> None:
        """Write to the log, and read from the log and the projection.

        Raises:
            StorageError: the node is not ready; the message names what is missing or fails.
        """
        if self.phase is not Phase.READY:
            raise StorageError(" ".join((self.phase, *self.waiting_for)))
        try:
            async with asyncio.timeout(self.parts.settings.ready_timeout):
                await self._probe()
        except TimeoutError:
            raise StorageError("the log does not answer in time") from None

    async def drain(self) -> None:
        """Start no more runs, end those in progress, then close every connection; idempotent."""
        if self.phase is Phase.DRAINING:
            return
        self.phase = Phase.DRAINING
        for connection in self.connections:
            connection.drain()
        await self._end_runs()
        await self._end_connections()

    async def _probe(self) -> None:
        broker, channel = self.parts.broker, tenant_channel(PROBE_TENANT)
        probe = Write((Append(channel, (Item(b"{}", {}),)),))
        written = await write(broker, probe)
        replay = await broker.read(channel, written.spans[0].first - 1)
        await self.parts.store.exists(PROBE_TENANT, "", "")
        if not replay.publications:
            raise StorageError("the log does not return what was written")

    async def _end_runs(self) -> None:
        """End the runs within the drain's budget: connections are closed even if the log fails."""
        try:
            async with asyncio.timeout(self.budget.left(ENDINGS)):
                await self.runs.drain()
        except TimeoutError:
            self.runs.stop_retrying()

    async def _end_connections(self) -> None:
        """End every connection with `MOVE_ELSEWHERE`, and wait a bounded time for them to close."""
        for connection in list(self.connections):
            connection.end(codes.MOVE_ELSEWHERE)
        bound = min(self.parts.settings.close_timeout, self.budget.left(CLOSING))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound):
                for connection in list(self.connections):
                    await connection.over.wait()


def agents_still_running(keys: Iterable[RunKey]) -> telemetry.AgentsStillRunning:
    """Return the telemetry event of agents that have not returned, of the runs with these keys."""
    agents = ({"agent": key.agent, "thread": key.thread, "run": key.run} for key in keys)
    return telemetry.AgentsStillRunning(agents=tuple(agents))


def only_node() -> Node:
    """Return the one node that runs in this process.

    Raises:
        NotRunning: no gateway runs in this process.
        SeveralGateways: several run, so the caller must name one.
    """
    if not RUNNING:
        raise NotRunning
    if len(RUNNING) > 1:
        raise SeveralGateways
    return RUNNING[0]
