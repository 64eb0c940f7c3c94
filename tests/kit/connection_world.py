"""A node over a network, a log and a provider that are as late as the explorer likes.

Connections, hub, sessions and authentication are the real ones, put together as the gateway does
it; sockets, log and provider are in memory. `open` checks in the end that nothing is left.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import detangle

from tests.kit.auth_world import AuthWorld
from tests.kit.late_provider import MOMENTS
from tests.kit.run_scenarios import LateBroker
from tests.kit.transport import MemoryTransport
from towpath.agents.agent import AgentRegistry
from towpath.auth.connection_auth import Grace
from towpath.auth.handshake import UpgradeInfo
from towpath.auth.jwks import Freshness
from towpath.auth.policy import may_read
from towpath.channels import CONTROL, Channel
from towpath.codes import CloseCode, ErrorCode
from towpath.connections.client_connection import ClientConnection
from towpath.connections.parts import Parts
from towpath.delivery.hub import Hub
from towpath.delivery.recovery import Recovery
from towpath.delivery.subscriber import Subscriber
from towpath.errors import StorageError
from towpath.log.broker import Publication, Replay
from towpath.methods.runs import StartLimit
from towpath.methods.table import Methods, make_methods
from towpath.node.revocation_feed import RevocationFeed
from towpath.rate_limits import Rate
from towpath.runs.service import RunService
from towpath.runs.store import ThreadStore
from towpath.settings import Settings
from towpath.telemetry import CommandAnswered, ConnectionClosed, ConnectionOpened, TelemetryEvent

PACES = (0.0, 0.1, 0.2)
"""How long a write to a socket takes, in virtual seconds."""


class LateLog(LateBroker):
    """A log whose reads are late as well, or refused."""

    async def read(
        self,
        channel: Channel,
        after: int | None,
        *,
        epoch: str | None = None,
        limit: int | None = None,
        max_bytes: int | None = None,
        reverse: bool = False,
    ) -> Replay:
        await asyncio.sleep(detangle.choice(MOMENTS))
        if detangle.flip(self.refusals):
            raise StorageError("refused by the explorer")
        replay = await super().read(
            channel, after, epoch=epoch, limit=limit, max_bytes=max_bytes, reverse=reverse
        )
        await self._linger()
        return replay


class RememberingHub(Hub):
    """A hub that remembers who was there."""

    def __init__(self, *, max_connections: int) -> None:
        super().__init__(may_read, max_connections=max_connections)
        self.met: dict[str, Subscriber] = {}
        """Every subscriber that was connected, by connection id."""

    def connect(self, subscriber: Subscriber) -> ErrorCode | CloseCode | None:
        full = super().connect(subscriber)
        if full is None:
            self.met[subscriber.id] = subscriber
        return full


class ConnectionWorld(AuthWorld):
    """A node: everything between a socket and the log."""

    def __init__(
        self,
        *,
        freshness: Freshness | None = None,
        grace: Grace | None = None,
        connections: int = 20,
    ) -> None:
        """Put everything together.

        Args:
            freshness: how long keys are believed.
            grace: how long a connection outlives its credential.
            connections: how many one person may have.
        """
        grace = grace or Grace()
        super().__init__(freshness=freshness, grace=grace, keys_timeout=0.7)
        self.hub = RememberingHub(max_connections=connections)
        self.control = RevocationFeed(self.service, self.hub, self.telemetry)
        self.broker = LateLog(self._deliver, now=self.wall_clock)
        self.hub.bind(self.broker)
        self.broker.attach(CONTROL)
        store = ThreadStore(self.broker)
        recovery = Recovery(self.broker, store, snapshot_max_bytes=1024, cpu_clock=lambda: 0.0)
        self.methods = self._methods(store, recovery)
        self.parts = Parts(
            settings=_settings(grace.expiry),
            hub=self.hub,
            broker=self.broker,
            store=store,
            recovery=recovery,
            methods=self.methods,
            connection_auth=self.auth,
            may_read=may_read,
            telemetry=self.telemetry,
            version="towpath",
            now=self.wall_clock,
        )
        self.visits: list[Visit] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Run until the scenario is over; nobody may be there then."""
        await self.broker.start()
        try:
            async with super().open():
                yield self
                await asyncio.wait([visit.serving for visit in self.visits], timeout=60.0)
                for visit in self.visits:
                    visit.check()
                assert len(self.hub) == 0, "nobody is left in the hub"
                assert self.hub.subscriptions == 0, "nothing is read any more"
        finally:
            await self.broker.stop()

    def visit(self, credential: str) -> "Visit":
        """Open a socket and have it served."""
        visit = Visit(self, f"c{len(self.visits)}", credential)
        self.visits.append(visit)
        return visit

    def _deliver(self, channel: Channel, publications: Sequence[Publication]) -> None:
        if channel == CONTROL:
            self.control.apply(publications)
        else:
            self.hub.deliver(channel, publications)

    def _methods(self, store: ThreadStore, recovery: Recovery) -> Methods:
        registry = AgentRegistry()
        return make_methods(
            service=RunService(
                self.broker, store, registry, telemetry=self.telemetry, now=self.wall_clock
            ),
            start_limit=StartLimit(Rate(per_second=1.0, burst=60), self.clock),
            broker=self.broker,
            store=store,
            recovery=recovery,
            auth_service=self.service,
            hub=self.hub,
            feed=self.control,
            registry=registry,
            telemetry=self.telemetry,
            now=self.wall_clock,
            new_id=lambda: "id",
        )


class Visit:
    """One client and its connection."""

    def __init__(self, world: ConnectionWorld, name: str, credential: str) -> None:
        """Open a socket.

        Args:
            world: where.
            name: the connection's id.
            credential: what it connects with.
        """
        self.name = name
        self.credential = credential
        self.sent_commands = 0
        """How many commands it sent; they are numbered from 1."""
        self.socket = MemoryTransport(pace=lambda: detangle.choice(PACES))
        self.connection = ClientConnection(
            world.parts, self.socket, upgrade=UpgradeInfo(address="192.0.2.1"), connection_id=name
        )
        self.serving = asyncio.create_task(self.connection.serve())
        self._world = world

    @property
    def events(self) -> list[TelemetryEvent]:
        """What happened to it, in order."""
        everything = self._world.events
        return [one for one in everything if getattr(one, "connection", None) == self.name]

    def connect(self) -> dict[str, Any]:
        """Return its connect command."""
        return self.command("connect", token=self.credential)

    def command(self, name: str, **fields: Any) -> dict[str, Any]:
        """Return its next command."""
        self.sent_commands += 1
        return {"id": self.sent_commands, name: fields}

    def check(self) -> None:
        """Check what holds for every connection, whatever happened."""
        assert self.serving.done(), "it is over"
        self.serving.result()
        numbers = [reply["id"] for reply in self.socket.replies]
        assert numbers == sorted(set(numbers)), "one reply each, in order"
        assert numbers[:1] in ([], [1]), "the verdict comes first"
        assert all(number <= self.sent_commands for number in numbers), (
            "no reply to what was not asked"
        )
        ends = [bool(one.code) for one in self.socket.written]
        assert not any(ends[:-1]), "nothing follows the close frame"
        assert ends[-1:] == [True] or self.socket.left, "no silence without an end"
        kinds = [type(one) for one in self.events]
        assert kinds.count(ConnectionClosed) == 1, "it ends once"
        if CommandAnswered in kinds:
            before = kinds[: kinds.index(CommandAnswered)]
            assert ConnectionOpened in before, "nothing is done before the verdict"


@functools.cache
def _settings(expiry_grace: float) -> Settings:
    return Settings(expiry_grace=expiry_grace, connect_timeout=1.0)
