"""A stage for methods: all of them over a log in memory, called as RPC does it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.auth.stage import NOW
from tests.runs.stage import ALICE, Stage, staged
from towpath.auth.cache import VerdictCache
from towpath.auth.policy import may_read
from towpath.auth.revocations import KEEP_SECONDS, Revocation, Revocations
from towpath.auth.service import AuthService
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tickets import Tickets
from towpath.codes import CloseCode
from towpath.delivery.hub import Hub
from towpath.delivery.outbox import Outbox
from towpath.delivery.recovery import Recovery
from towpath.delivery.subscriber import Subscriber
from towpath.identity import Principal
from towpath.log.broker import Broker, Write, Written, write
from towpath.methods.method import Caller
from towpath.methods.runs import StartLimit
from towpath.methods.table import make_methods
from towpath.rate_limits import Rate
from towpath.telemetry import Telemetry

OPERATOR = Principal(tenant="acme", user="olga", roles=frozenset({"towpath:operator"}))
SERVICE = Principal(tenant="acme", user="news", roles=frozenset({"towpath:service"}))
BURST = 3
"""How many runs one person may start on a stage."""


def _never(_: Exception) -> None:
    raise AssertionError("nothing is verified here")


class Feed:
    """A feed that keeps what is announced; see `towpath.methods.sessions.RevocationFeed`."""

    def __init__(self) -> None:
        self.announced: list[Revocation] = []

    async def publish(self, broker: Broker, revocation: Revocation, request: Write) -> Written:
        written = await write(broker, request)
        if not written.repeated:
            self.announced.append(revocation)
        return written


class MethodStage:
    """The methods of one node, and the parts that they work on."""

    def __init__(self, runs: Stage) -> None:
        self.runs = runs
        self.broker = runs.broker
        self.feed = Feed()
        self.hub = Hub(may_read, max_connections=9)
        self.closed: dict[str, list[CloseCode]] = {}
        """How connections were closed, by id."""
        self.ids = iter(f"new-{number}" for number in range(1, 1000))
        store: Any = runs.store
        broker: Any = runs.broker
        self.methods = make_methods(
            service=runs.service,
            start_limit=StartLimit(Rate(per_second=0.0, burst=BURST), lambda: 0.0),
            broker=broker,
            store=store,
            recovery=Recovery(broker, store, snapshot_max_bytes=10_000),
            auth_service=self._auth_service(),
            hub=self.hub,
            feed=self.feed,
            registry=runs.registry,
            telemetry=Telemetry([runs.happened.append]),
            now=lambda: runs.now,
            new_id=lambda: next(self.ids),
        )

    def connect(self, name: str, principal: Principal = ALICE) -> Subscriber:
        """Connect somebody."""
        closed = self.closed.setdefault(name, [])
        outbox = Outbox(lambda: None, max_bytes=1000)
        subscriber = Subscriber(name, principal, outbox, closed.append)
        assert self.hub.connect(subscriber) is None
        return subscriber

    async def call(self, name: str, who: Principal | Caller = ALICE, /, **params: Any) -> Any:
        """Call a method with these parameters and return its result."""
        caller = who if isinstance(who, Caller) else Caller(principal=who)
        result = await self.methods.call(name, msgspec.json.encode(params), caller)
        return msgspec.json.decode(result)

    def _auth_service(self) -> AuthService:
        return AuthService(
            (),
            cache=VerdictCache(monotonic=lambda: 0.0, now=lambda: NOW),
            tickets=Tickets(monotonic=lambda: 0.0),
            revocations=Revocations(KEEP_SECONDS),
            verdicts=SingleFlight(_never),
            fetches=SingleFlight(_never),
            monotonic=lambda: 0.0,
            now=lambda: NOW,
            random=lambda: 0.0,
        )


@asynccontextmanager
async def methods_staged(place: Path) -> AsyncIterator[MethodStage]:
    """Open a stage over a log in memory."""
    async with staged("memory", place) as runs:
        yield MethodStage(runs)
