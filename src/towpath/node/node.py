"""The running parts of one gateway process.

`towpath.node.build` makes a node and closes it. Everything under `http/` uses a node.
"""

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version

from towpath import codes
from towpath.auth.handshake import UpgradeInfo
from towpath.auth.service import AuthService
from towpath.channels import tenant_channel
from towpath.connections.client_connection import ClientConnection
from towpath.connections.event_stream import EventStream
from towpath.connections.parts import Parts
from towpath.connections.transport import Transport
from towpath.delivery.encoding import Encoding
from towpath.errors import StorageError
from towpath.log.broker import Append, Item, Write, write
from towpath.methods.runs import StartLimit
from towpath.runs.service import RunService

VERSION = version("towpath")
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
    phase: Phase = Phase.WARMING
    """WARMING, READY or DRAINING."""
    connections: set[ClientConnection | EventStream] = field(default_factory=set)
    """Every open connection and event stream."""

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

    async def serve(self, transport: Transport, upgrade: UpgradeInfo) -> None:
        """Serve one accepted socket until its connection ends."""
        connection = ClientConnection(
            self.parts, transport, upgrade=upgrade, connection_id=uuid.uuid4().hex
        )
        self.connections.add(connection)
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
            async with asyncio.timeout(self.parts.settings.drain_timeout):
                await self.runs.drain()
        except TimeoutError:
            self.runs.stop_retrying()

    async def _end_connections(self) -> None:
        """End every connection with `MOVE_ELSEWHERE`, and wait a bounded time for them to close."""
        for connection in list(self.connections):
            connection.end(codes.MOVE_ELSEWHERE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.parts.settings.close_timeout):
                for connection in list(self.connections):
                    await connection.over.wait()
