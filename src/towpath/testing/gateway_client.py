"""Runs a gateway's agents in a test: in process, over a log in memory, in milliseconds.

    async with GatewayTestClient(gateway) as client:
        run = await client.run("grocer", "pears", user="alice")
        assert run.text == "One pear costs 0.30."

A run takes the same path as in production: its input is validated, its events are checked,
numbered, written to the log and read from there. Only the network and the disk are left out.
"""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec
from joserfc.jwk import OctKey

from towpath.channels import Channel, thread_channel
from towpath.events.fold import Fold
from towpath.events.types import TERMINAL, Event
from towpath.gateway import Gateway
from towpath.identity import Principal
from towpath.log.broker import Broker, Deliver, Projection, Publication
from towpath.node.build import build_node
from towpath.node.node import Node
from towpath.runs.requests import RunRequest
from towpath.telemetry import Telemetry
from towpath.testing.memory_broker import MemoryBroker


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run that has ended."""

    thread: str
    run: str
    events: list[Event]
    """All events of the run, RUN_STARTED first, the terminal event last."""

    @property
    def ending(self) -> Event:
        """The terminal event."""
        return self.events[-1]

    @property
    def code(self) -> str | None:
        """The code of a RUN_ERROR; None for a run that succeeded."""
        code = self.ending.get("code")
        return str(code) if code is not None else None

    @property
    def text(self) -> str:
        """The text of the run's messages, one after the other."""
        fold = Fold()
        for event in self.events:
            fold.feed(event)
        return "".join(text for _, text in fold.run_texts())


class GatewayTestClient:
    """Runs the agents of a gateway; an async context manager."""

    def __init__(self, gateway: Gateway, *, tenant: str = "acme", timeout: float = 30.0) -> None:
        """Describe a client; it starts when the context is entered.

        Args:
            gateway: its agents and settings are used; it need not run.
            tenant: the tenant of all users.
            timeout: how long to wait for a run, in seconds.
        """
        self._gateway = gateway
        self._tenant = tenant
        self._timeout = timeout
        self._stack = AsyncExitStack()
        self._published = asyncio.Event()
        self.telemetry = Telemetry()
        """Add an observer to receive telemetry events."""

    async def __aenter__(self) -> Self:
        self.node: Node = await self._stack.enter_async_context(
            build_node(
                self._gateway.settings,
                self._gateway.agents,
                self.telemetry,
                log=self._log,
                development_key=OctKey.generate_key(),
            )
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def run(
        self,
        agent: str,
        message: str | None = None,
        *,
        user: str = "alice",
        thread: str | None = None,
        input: dict[str, Any] | None = None,
    ) -> FinishedRun:
        """Start a run, and wait until it has ended.

        Args:
            agent: the name of the agent.
            message: the user's message; or else give `input`.
            user: the owner of the run.
            thread: the thread; None makes a new one.
            input: AG-UI `messages`, `state`, `context`, `tools`, `forwardedProps`, `resume`.

        Raises:
            CommandError: the run cannot be started; the code says why.
            TimeoutError: the run has not ended in time.
        """
        request = RunRequest(
            request_id=uuid.uuid4().hex,
            agent=agent,
            thread_id=thread,
            message=message,
            input=input,
        )
        principal = Principal(tenant=self._tenant, user=user)
        started = await self.node.runs.start(principal, request)
        channel = thread_channel(self._tenant, user, started.thread_id)
        async with asyncio.timeout(self._timeout):
            events = await self._until_ended(channel, started.position.offset)
        return FinishedRun(thread=started.thread_id, run=started.run_id, events=events)

    async def _until_ended(self, channel: Channel, after: int) -> list[Event]:
        """Return the events after an offset, up to the first terminal event."""
        events: list[Event] = []
        while not events or events[-1]["type"] not in TERMINAL:
            # Cleared before the log is read: what is published after that is noticed.
            self._published.clear()
            replay = await self.node.parts.broker.read(channel, after, limit=1)
            for publication in replay.publications:
                after = publication.offset
                events.append(msgspec.json.decode(publication.data))
            if not replay.publications:
                await self._published.wait()
        return events

    def _log(self, deliver: Deliver, projection: Projection) -> Broker:
        def publish(channel: Channel, publications: Sequence[Publication]) -> None:
            deliver(channel, publications)
            self._published.set()

        return MemoryBroker(publish, projection)
