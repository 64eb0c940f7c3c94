"""Runs a gateway's agents in a test: in process, over a log in memory, in milliseconds.

    async with GatewayTestClient(gateway) as client:
        run = await client.run("grocer", "pears", user="alice")
        assert run.text == "One pear costs 0.30."

Each call is a call of a client: its parameters are validated, its user's limits apply, the events
of a run are checked, numbered and written to the log, and read from there. Only the network and the
disk are left out, and the time if the client has a `VirtualClock`.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from towpath.channels import Channel, tenant_channel, thread_channel, user_channel
from towpath.events.types import TERMINAL, Event
from towpath.gateway import Gateway
from towpath.identity import Principal
from towpath.log.broker import Broker, Deliver, OnEpoch, Publication, Write, Written
from towpath.methods.method import Caller
from towpath.methods.table import METHODS
from towpath.methods.threads import ThreadView
from towpath.node.build import build_node
from towpath.node.node import Node
from towpath.runs.interrupts import NotOpen
from towpath.telemetry import Telemetry
from towpath.testing.clock import VirtualClock
from towpath.testing.finished_run import FinishedRun, RunHandle
from towpath.testing.memory_broker import MemoryBroker
from towpath.testing.tokens import TokenSigner


class GatewayTestClient:
    """Runs the agents of a gateway for any number of users; an async context manager.

    Methods that name a user take `user`, `tenant` and `roles`: the tenant is the client's own by
    default, and the roles are those of the user's token. They raise the `CommandError` that a
    client would get.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        tenant: str = "acme",
        timeout: float = 30.0,
        clock: VirtualClock | None = None,
        signer: TokenSigner | None = None,
    ) -> None:
        """Describe a client; it starts when the context is entered.

        Args:
            gateway: its agents and settings are used. While the context is entered, the gateway
                has the client's node: the gateway's own methods, and the gateway as an ASGI
                application, use that node. Its lifespan must not run meanwhile.
            tenant: the tenant of users for whom a call names none.
            timeout: how long to wait for a run, in real seconds.
            clock: the time of the gateway; None uses the real time.
            signer: signs the tokens that the gateway accepts; None makes one.
        """
        self._gateway = gateway
        self._tenant = tenant
        self._timeout = timeout
        self._now = clock.now if clock else time.time
        self._monotonic = clock.monotonic if clock else time.monotonic
        self._stack = AsyncExitStack()
        self._node: Node | None = None
        self._published = asyncio.Event()
        self.signer = signer or TokenSigner(now=self._now)
        """Signs tokens for requests to the gateway as an ASGI application."""
        self.telemetry = Telemetry()
        """Add an observer to receive telemetry events."""

    @property
    def node(self) -> Node:
        """The running parts.

        Raises:
            RuntimeError: the context is not entered.
        """
        if self._node is None:
            raise RuntimeError(
                "the client is not running: use it inside `async with client:`; the fixture "
                "towpath_client runs during the test itself, not in other fixtures"
            )
        return self._node

    async def __aenter__(self) -> Self:
        if self._gateway.node is not None:
            raise RuntimeError("the gateway is running: its lifespan, or another client's context")
        gateway, stack = self._gateway, self._stack
        self._node = await stack.enter_async_context(
            build_node(
                gateway.settings,
                gateway.agents,
                self.telemetry,
                now=self._now,
                monotonic=self._monotonic,
                log=self._log,
                development_key=self.signer.key,
            )
        )
        close_seconds = gateway.settings.close_timeout
        await stack.enter_async_context(gateway.portal.open(close_seconds=close_seconds))
        stack.push_async_callback(self._node.drain)  # Calls from threads go on until it has ended.
        gateway.node = self._node
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # The node does not get the error of the body: its task groups would wrap the error.
            await self._stack.__aexit__(None, None, None)
        finally:
            self._node = self._gateway.node = None

    async def run(
        self,
        agent: str,
        message: str | None = None,
        *,
        user: str = "alice",
        tenant: str | None = None,
        roles: Iterable[str] = (),
        thread: str | None = None,
        input: Mapping[str, Any] | None = None,
    ) -> FinishedRun:
        """Start a run, and wait until it has ended; see `start` and `wait`."""
        started = await self.start(
            agent, message, user=user, tenant=tenant, roles=roles, thread=thread, input=input
        )
        return await self.wait(started)

    async def start(
        self,
        agent: str,
        message: str | None = None,
        *,
        user: str = "alice",
        tenant: str | None = None,
        roles: Iterable[str] = (),
        thread: str | None = None,
        input: Mapping[str, Any] | None = None,
    ) -> RunHandle:
        """Start a run, and do not wait for it.

        Args:
            agent: the name of the agent.
            message: the user's message; or else give `input`.
            user: the owner of the run.
            tenant: the tenant of the user.
            roles: the roles of the user.
            thread: the thread; None makes a new one.
            input: AG-UI `messages`, `state`, `context`, `tools`, `forwardedProps`, `resume`.

        Raises:
            CommandError: the run cannot be started; the code says why.
        """
        principal = self._principal(user, tenant, roles)
        params = {"agent": agent, "message": message, "input": input, "thread_id": thread}
        started = await self._call(principal, "run.start", params)
        return RunHandle(principal=principal, thread=started["thread_id"], run=started["run_id"])

    async def wait(self, run: RunHandle) -> FinishedRun:
        """Wait until a run has ended.

        Raises:
            TimeoutError: the run has not ended in time; the message has its events so far.
        """
        try:
            async with asyncio.timeout(self._timeout):
                events = await self._until_ended(run)
        except TimeoutError:
            so_far = ", ".join(event["type"] for event in await self.events(run)) or "none"
            raise TimeoutError(
                f"the run has not ended within {self._timeout} s; its events so far: {so_far}"
            ) from None
        first = next(at for at, (tags, _) in enumerate(events) if tags["run"] == run.run)
        all_events = [event for _, event in events]
        return FinishedRun(
            principal=run.principal,
            thread=run.thread,
            run=run.run,
            events=all_events[first:],
            earlier=all_events[:first],
        )

    async def events(self, run: RunHandle) -> list[Event]:
        """Return the events of a run so far, also of one that has not ended."""
        found = await self._read(_thread_of(run))
        return [event for tags, event in found if tags["run"] == run.run]

    async def cancel(self, run: RunHandle) -> str:
        """Cancel a run; return `accepted`, or `too_late` for a run that has ended."""
        answer = await self._call(run.principal, "run.cancel", {"run_id": run.run})
        return str(answer["status"])

    async def approve(self, run: FinishedRun, *, payload: object = None) -> FinishedRun:
        """Approve all interrupts of a run, and wait until the run that continues it has ended.

        Args:
            run: a run that ended with interrupts.
            payload: what the agent gets beside the decision.

        Raises:
            NotOpen: the decision comes too late; `status` says why: `already`, `expired`, `gone`.
            CommandError: a decision is refused for another reason.
            ValueError: the run ended without interrupts.
        """
        return await self._decide_all(run, "approve", payload)

    async def refuse(self, run: FinishedRun, *, payload: object = None) -> FinishedRun:
        """Refuse all interrupts of a run; see `approve`."""
        return await self._decide_all(run, "refuse", payload)

    async def decide(
        self,
        run: FinishedRun,
        interrupt: str,
        decision: Literal["approve", "refuse"],
        *,
        payload: object = None,
        arguments: str | None = None,
    ) -> RunHandle | None:
        """Decide one interrupt; return the run that continues, or None if others are open.

        Args:
            run: a run that ended with interrupts.
            interrupt: the id of the interrupt.
            decision: the decision.
            payload: what the agent gets beside the decision.
            arguments: the arguments that the person saw; None takes those of the tool call.

        Raises:
            NotOpen, CommandError: see `approve`.
        """
        params = {"run_id": run.run, "interrupt_id": interrupt, "decision": decision}
        wanted = {one["id"]: one for one in run.interrupts}.get(interrupt, {})
        if arguments is None and "toolCallId" in wanted:
            arguments = run.arguments(wanted["toolCallId"])
        answer = await self._call(
            run.principal, "run.approve", {**params, "payload": payload, "arguments": arguments}
        )
        if answer["status"] != "accepted":
            raise NotOpen(answer["status"])
        if "run_id" not in answer:
            return None
        return RunHandle(principal=run.principal, thread=run.thread, run=answer["run_id"])

    async def thread(
        self, thread: str, *, user: str = "alice", tenant: str | None = None
    ) -> ThreadView:
        """Return a thread as its user sees it: its newest 200 messages, its state, its title.

        Raises:
            NotFound: the user has no such thread.
        """
        params = {"thread_id": thread, "limit": 200}
        answer = await self._call(self._principal(user, tenant), "thread.get", params)
        return msgspec.convert(answer, ThreadView)

    async def notices(
        self, user: str | None = "alice", *, tenant: str | None = None
    ) -> list[Event]:
        """Return the notices of a user, those of the gateway too; oldest first.

        Args:
            user: the user; None stands for the announcements to the whole tenant.
            tenant: the tenant of the user.
        """
        tenant = tenant or self._tenant
        channel = tenant_channel(tenant) if user is None else user_channel(tenant, user)
        return [event for _, event in await self._read(channel)]

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        user: str = "alice",
        tenant: str | None = None,
        roles: Iterable[str] = (),
    ) -> Any:
        """Call a method of the wire, such as `thread.rename`; return its result.

        Args:
            method: the name of the method.
            params: its parameters; a method with effects gets a `request_id` if they have none.
            user: the caller.
            tenant: the tenant of the caller.
            roles: the roles of the caller.

        Raises:
            CommandError: the call failed; the code says why.
        """
        return await self._call(self._principal(user, tenant, roles), method, params or {})

    def _principal(self, user: str, tenant: str | None, roles: Iterable[str] = ()) -> Principal:
        return Principal(tenant=tenant or self._tenant, user=user, roles=frozenset(roles))

    async def _call(self, principal: Principal, method: str, params: Mapping[str, Any]) -> Any:
        found = METHODS.get(method)
        ids = {"request_id": uuid.uuid4().hex} if found is not None and found.mutates else {}
        data = msgspec.json.encode({**ids, **params})
        caller = Caller(principal=principal)
        return msgspec.json.decode(await self.node.parts.methods.call(method, data, caller))

    async def _decide_all(
        self, run: FinishedRun, decision: Literal["approve", "refuse"], payload: object
    ) -> FinishedRun:
        ids = [one["id"] for one in run.interrupts]
        if not ids:
            raise ValueError("the run ended without interrupts")
        decided = [await self.decide(run, one, decision, payload=payload) for one in ids]
        continued = decided[-1]
        assert continued is not None, "all interrupts of the run are decided"
        return await self.wait(continued)

    async def _until_ended(self, run: RunHandle) -> list[tuple[Mapping[str, str], Event]]:
        """Return the events of a thread up to the end of a run, each with its tags."""
        channel, after = _thread_of(run), None
        events: list[tuple[Mapping[str, str], Event]] = []
        while True:
            # Cleared before the log is read: what is published after that is noticed.
            self._published.clear()
            replay = await self.node.parts.broker.read(channel, after)
            for tags, event in map(_decoded, replay.publications):
                events.append((tags, event))
                if tags["run"] == run.run and event["type"] in TERMINAL:
                    return events
            after = replay.top
            await self._published.wait()

    async def _read(self, channel: Channel) -> list[tuple[Mapping[str, str], Event]]:
        """Return what a channel keeps, each event with its tags."""
        replay = await self.node.parts.broker.read(channel, None)
        return [_decoded(one) for one in replay.publications]

    def _log(self, deliver: Deliver, on_epoch: OnEpoch) -> Broker:
        return _NotifyingBroker(self._published, deliver, on_epoch, now=self._now)


class _NotifyingBroker(MemoryBroker):
    """A log that sets an event after each write, whoever reads its channels."""

    def __init__(
        self,
        written: asyncio.Event,
        deliver: Deliver,
        on_epoch: OnEpoch,
        *,
        now: Callable[[], float],
    ) -> None:
        super().__init__(deliver, on_epoch, now=now)
        self._written = written

    def submit(self, write: Write) -> "asyncio.Future[Written]":
        future = super().submit(write)
        self._written.set()
        return future


def _thread_of(run: RunHandle) -> Channel:
    return thread_channel(run.principal.tenant, run.principal.user, run.thread)


def _decoded(publication: Publication) -> tuple[Mapping[str, str], Event]:
    return publication.tags, msgspec.json.decode(publication.data)
