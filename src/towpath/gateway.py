"""The class that users import: a gateway is an ASGI application with agents.

A gateway runs alone (`towpath serve`), is mounted into another application with `mount`, or runs in
any other ASGI host that runs `lifespan`. Its node, built by `towpath.node.build`, exists while the
lifespan is active.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from joserfc.jwk import OctKey
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from towpath.agents.agent import AgentFunction, AgentRegistry, DoubleTextingName
from towpath.aliases import RetiredMethod, retired_methods
from towpath.auth.connection_auth import ConnectionAuth
from towpath.auth.development import development_key, sign
from towpath.auth.provider import is_loopback
from towpath.codes import FORCED
from towpath.errors import ConfigurationError
from towpath.http.app import make_app
from towpath.http.mounting import mount_gateway
from towpath.identity import DEMO_TENANT, UserExecutionContext
from towpath.manager.bridge import AgentWebSocketBridge
from towpath.manager.manager import WebSocketManager
from towpath.manager.results import Refused, SendResult, StartedRun
from towpath.node.build import build_node
from towpath.node.gauges import show_gauges
from towpath.node.logging_setup import log_event, log_not_running
from towpath.node.metrics import Metrics
from towpath.node.node import Node, Phase, agents_still_running
from towpath.node.opening import Opening
from towpath.node.portal import Portal
from towpath.runs.executor import agent_fault
from towpath.runs.model import RunKey
from towpath.settings import Settings, settings_from_environment
from towpath.telemetry import InternalError, Observer, Telemetry

F = TypeVar("F", bound=AgentFunction)


@retired_methods("towpath.Gateway")
class Gateway:
    """A realtime gateway for agent chat; an ASGI application."""

    def __init__(
        self, settings: Settings | None = None, *, open_in_background: bool = False
    ) -> None:
        """Make a gateway; nothing is opened before its lifespan begins.

        Args:
            settings: what to run with; None takes them from the environment (`TOWPATH_…`).
            open_in_background: whether the lifespan begins before the log is open. Until it is
                open, the gateway answers every request 503 with its phase. If it cannot be opened,
                the error is logged, the phase is `failed`, and requests get 503. `towpath serve`
                opens the log in the background whatever is chosen here, and ends if it fails.

        Raises:
            ConfigurationError: a setting of the environment is invalid.
        """
        self.settings = settings if settings is not None else settings_from_environment()
        """May be replaced until the lifespan begins."""
        self.open_in_background = open_in_background
        """May be replaced until the lifespan begins."""
        self.agents = AgentRegistry()
        self.metrics = Metrics()
        self.node: Node | None = None
        """The running parts; None before and after the lifespan."""
        self.portal = Portal()
        """Calls from threads: `gateway.portal.call(function, *args)` waits for the result."""
        self.demo_users: tuple[str, ...] = ()
        """The users that the chat page offers in development; empty outside of it."""
        self._telemetry = Telemetry((self.metrics.observe, log_event))
        self._phase = Phase.STOPPED
        """The phase while there is no node."""
        self._development_key: OctKey | None = None
        self._app: Starlette | None = None
        show_gauges(self.metrics, lambda: self.node)
        self.metrics.gauge(
            "towpath_watcher_failures",
            "Calls of an observer that raised",
            lambda: self._telemetry.failures,
        )

    @property
    def phase(self) -> Phase:
        """Where the gateway is between its start and its stop."""
        return self._phase if self.node is None else self.node.phase

    @property
    def auth(self) -> ConnectionAuth:
        """Authenticates connections and requests, while the lifespan is active."""
        assert self.node is not None, "the lifespan has begun"
        return self.node.parts.connection_auth

    def agent(
        self,
        name: str,
        *,
        deadline: float | None = None,
        double_texting: DoubleTextingName = "reject",
    ) -> Callable[[F], F]:
        """Register an async generator function as the agent of this name.

        Args:
            name: what clients call it.
            deadline: seconds until a run of the agent is ended; None takes `run_deadline`.
            double_texting: what happens to a run that is requested while another run is active on
                its thread: `reject` it, `queue` it, or `interrupt` the other one.

        Raises:
            InvalidAgent: the name, the function or an option is invalid; the message says why.
        """

        def register(function: F) -> F:
            self.agents.register(name, function, deadline=deadline, double_texting=double_texting)
            return function

        return register

    def add_observer(self, observer: Observer) -> None:
        """Notify `observer` of everything that happens from now on."""
        self._telemetry.add_observer(observer)

    watch = RetiredMethod(add_observer)

    def use_development_key(self, host: str) -> None:
        """Accept tokens of the data directory's development key only, and offer demo users.

        Raises:
            ConfigurationError: `host` is no loopback address.
        """
        if not is_loopback(host):
            raise ConfigurationError(
                f"--dev works on a loopback address only, and {host} is not one: leave out --host, "
                "or configure an issuer (TOWPATH_JWT_KEY) and leave out --dev"
            )
        self.demo_users = ("alice", "bob", "carol")

    def mount(self, app: Starlette, path: str) -> None:
        """Mount into a Starlette or FastAPI application, routes and lifespan both."""
        mount_gateway(app, path, self, self.lifespan)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncGenerator[None, None]:
        """Build the node, and drain and close it at the end.

        Raises:
            ConfigurationError: a part cannot be opened, and `open_in_background` is not chosen; the
                message says what to do.
        """
        if not self.open_in_background:
            async with self._running():
                yield
            return
        opening = self.opening(failed=self._failed)
        try:
            yield
        finally:
            await opening.close()
            self._phase = Phase.STOPPED

    def opening(
        self,
        *,
        failed: Callable[[BaseException], None],
        opened: Callable[[], None] = lambda: None,
    ) -> Opening:
        """Begin to build the node in a task; `close` drains and closes it.

        Args:
            failed: called with the error if the node cannot be built, or breaks down later.
            opened: called once the node is built.
        """
        self._phase = Phase.STARTING
        return Opening(self._running(), opened=opened, failed=failed)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncGenerator[None, None]:
        self._phase = Phase.STARTING
        try:
            if self.demo_users:
                self._development_key = await asyncio.to_thread(development_key, self.settings.data)
            node = build_node(
                self.settings,
                self.agents,
                self._telemetry,
                development_key=self._development_key,
            )
            calls = self.portal.open(close_seconds=self.settings.close_timeout)
            async with node as self.node, self.node.budget.bound(calls):
                try:
                    yield
                finally:
                    await self.drain()  # Calls from threads go on until the drain has ended.
        finally:
            self.node = None
            self._phase = Phase.STOPPED

    def _failed(self, error: BaseException) -> None:
        """Report why the node could not be built in the background, or broke down."""
        self._phase = Phase.FAILED
        self._telemetry.emit(InternalError(where="gateway", error=error))

    async def notify(
        self,
        context: UserExecutionContext,
        value: object,
        *,
        name: str = "message",
        key: str | None = None,
    ) -> SendResult:
        """Send a message to every device of a person; see `WebSocketManager.send_to_user`.

        Args:
            context: the person.
            value: any value that has a form in JSON.
            name: the name of the CUSTOM event that clients get.
            key: the same key with the same value takes effect once, for a day.
        """
        manager = WebSocketManager(context, gateway=self)
        return await manager.send_to_user(context.user, value, name=name, key=key)

    async def start_run(
        self,
        context: UserExecutionContext,
        agent: str,
        message: str | None = None,
        *,
        input: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> StartedRun | Refused:
        """Start a run of an agent for a person; see `AgentWebSocketBridge.start_run`.

        Args:
            context: the person, and the thread if it names one.
            agent: the name of the agent.
            message: what the person says; or else `input`.
            input: AG-UI `messages`, `state`, `context`, `tools`, `forwardedProps`, `resume`.
            key: the same key with the same request starts one run, for a day.
        """
        bridge = AgentWebSocketBridge(context, gateway=self)
        return await bridge.start_run(
            agent, message, thread_id=context.thread, input=input, key=key
        )

    async def cancel_run(self, context: UserExecutionContext, run_id: str) -> str:
        """End a run of a person; see `AgentWebSocketBridge.cancel_run`."""
        return await AgentWebSocketBridge(context, gateway=self).cancel_run(run_id)

    async def disconnect(
        self,
        context: UserExecutionContext,
        *,
        code: int = FORCED.number,
        reason: str | None = None,
    ) -> int:
        """End every connection of a person; see `WebSocketManager.disconnect_user`."""
        manager = WebSocketManager(context, gateway=self)
        return await manager.disconnect_user(context.user, code=code, reason=reason)

    async def drain(self) -> None:
        """Start no more runs, end those in progress, then close every connection; idempotent."""
        if self.node is not None:
            await self.node.drain()

    def report_agents(self, keys: Sequence[RunKey]) -> None:
        """Report the agents of these runs as still running.

        The code that runs the event loop calls this method before the process ends without them.
        """
        if keys:
            self._telemetry.emit(agents_still_running(keys))

    def agent_exited(self, key: RunKey | None, error: BaseException) -> None:
        """End the run of an agent that exited in a task or callback of its own, and report it.

        The code that runs the event loop calls this method within the loop.

        Args:
            key: the run; None where the agent is not known.
            error: what the agent raised.
        """
        if key is not None and self.node is not None:
            self.node.runs.agent_exited(key, error)
        else:
            self._telemetry.emit(agent_fault(key, error))

    def demo_token(self, user: str, tenant: str = DEMO_TENANT, ttl: float = 3600.0) -> str:
        """Return a development token for a demo user; the lifespan has begun."""
        assert self._development_key is not None, "demo users exist in development only"
        return sign(self._development_key, user=user, tenant=tenant, now=time.time(), ttl=ttl)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI."""
        if self._app is None:
            if self.phase is Phase.STOPPED and scope["type"] != "lifespan":
                log_not_running()
            self._app = make_app(self, self.lifespan)
        await self._app(scope, receive, send)
