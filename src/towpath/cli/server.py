"""uvicorn as `towpath serve` runs it: its socket, signals, event loop and exit status."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import uvicorn
import uvloop

from towpath.cli.agent_threads import AgentThreads
from towpath.cli.serving_loop import ServingLoop
from towpath.errors import ConfigurationError
from towpath.gateway import Gateway
from towpath.http.uvicorn_protocols import HttpProtocol, SocketProtocol
from towpath.node.drain_budget import CLOSING, DrainBudget
from towpath.telemetry import LogChanged, TelemetryEvent

if TYPE_CHECKING:
    from towpath.agents.assistant.assistant import Assistant

DAMAGED = 3
"""The exit status of a server whose log is damaged."""
FENCED = 4
"""The exit status of a server whose log another process has opened since."""
ENDS = {"damaged": DAMAGED, "taken": FENCED}
"""The conditions of the log that end the server, and its exit status then."""
STOPS = (signal.SIGTERM, signal.SIGINT)
"""The signals that stop a server gracefully."""
IDLE_SECONDS = 1.0
"""How long the idle threads of an executor may take to end."""
STALLED_MS = 35_000
"""Milliseconds until the kernel closes a connection whose peer acknowledges nothing: the time of
ping and pong."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigurationError: the address is invalid, or in use.
    """
    with contextlib.ExitStack() as undo:
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = undo.enter_context(socket.socket(family, kind))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Accepted sockets inherit it: the kernel closes a connection whose peer does not
                # acknowledge anything, whatever still waits to be sent.
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
            listening.bind(address)
            listening.listen(2048)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
            ) from None
        undo.pop_all()
    return listening


class Server(uvicorn.Server):
    """uvicorn, but the gateway drains before uvicorn closes the sockets with 1012."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(_config(gateway))
        self._gateway = gateway
        self.budget = DrainBudget(gateway.settings.drain_timeout)
        """The time from the signal to the end of the process."""
        self.status = 0
        """The exit status: 0, `DAMAGED` or `FENCED`."""
        self.failure: BaseException | None = None
        """Why the node could not be built, or broke down."""
        self.was_open = False
        """Whether the node was built."""

    def observe(self, event: TelemetryEvent) -> None:
        """Stop if this process cannot use the log any more."""
        if isinstance(event, LogChanged) and event.after in ENDS:
            self.status = ENDS[event.after]
            self.should_exit = True

    def fail(self, error: BaseException) -> None:
        """Stop because there is no node to serve."""
        self.failure = error
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, and exit normally: uvicorn would raise the signal once more.

        The handlers belong to the process, not to the loop: uvloop loses a signal that arrives
        between two runs of the loop, and an agent that exits makes the loop run twice.
        """
        for number in STOPS:
            signal.signal(number, self.handle_exit)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.budget.left()  # It begins here.
        await self._gateway.drain()
        self.config.timeout_graceful_shutdown = max(1, int(self.budget.left(CLOSING)))
        await super().shutdown(sockets)


def _config(gateway: Gateway) -> uvicorn.Config:
    settings = gateway.settings
    return uvicorn.Config(
        gateway,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=HttpProtocol,
        ws=SocketProtocol,
        ws_max_size=settings.message_bytes,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        server_header=False,
        proxy_headers=False,
    )


def _settle_garbage() -> None:
    """Collect garbage less often, and never among objects that live as long as the process.

    Connections leave hardly any cycles behind. A young collection every 700 allocations would be a
    quarter of the cost of a connect.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def serve_gateway(
    gateway: Gateway,
    listening: socket.socket,
    *,
    threads: AgentThreads,
    assistant: "Assistant | None" = None,
    ready: str | None = None,
) -> int:
    """Serve until a signal, or until the log is damaged or taken over; return the exit status.

    Requests are answered from the beginning: with 503 until the log is open.

    Args:
        gateway: what to serve.
        listening: the socket that accepts connections.
        threads: the default executor of the loop.
        assistant: closed at the end; None without an assistant.
        ready: printed in a line when the server is ready; None prints no line.

    Raises:
        ConfigurationError, LogCorrupted, LogFenced: the log cannot be opened.
    """
    server = Server(gateway)
    gateway.add_observer(server.observe)

    def opened() -> None:
        server.was_open = True
        _settle_garbage()
        if ready is not None:
            print(f"Towpath is ready: {_url(listening)}  ({ready})", flush=True)

    async with contextlib.AsyncExitStack() as stack:
        if assistant is not None:
            stack.push_async_callback(assistant.aclose)
        opening = gateway.opening(opened=opened, failed=server.fail)
        try:
            await server.serve([listening])
        finally:
            # A log that was opened gets the time that it takes to close it; an opening does not.
            await opening.close(within=None if server.was_open else server.budget.left())
    if server.failure is not None:
        raise server.failure
    if server.was_open:
        gateway.report_agents(await threads.join(server.budget.left()))
    return server.status


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def run(gateway: Gateway, main: Callable[[AgentThreads], Coroutine[Any, Any, int]]) -> int:
    """Run the server to its end and return its exit status; no agent can change the status.

    Tasks and threads of agents that do not end do not keep the process: it ends without them.

    Args:
        gateway: is notified of agents that exit.
        main: makes the main coroutine from the loop's default executor.
    """
    before = threading.enumerate()
    loop, threads = uvloop.new_event_loop(), AgentThreads()
    loop.set_default_executor(threads)
    serving = ServingLoop(loop, gateway.agent_exited)
    task = loop.create_task(main(threads))
    with _interruptible(task), contextlib.closing(serving):
        status = serving.run(task)
        if asyncio.all_tasks(loop):
            _leave_behind(status)
    if threads.busy or _still_alive(before):
        _leave_behind(status)
    return status


def _still_alive(before: Collection[threading.Thread]) -> bool:
    """Whether threads that began later keep the process from ending, after a moment to end."""
    until = time.monotonic() + IDLE_SECONDS
    later = [one for one in threading.enumerate() if one not in before and not one.daemon]
    for thread in later:
        thread.join(max(0.0, until - time.monotonic()))
    return any(thread.is_alive() for thread in later)


@contextlib.contextmanager
def _interruptible(task: "asyncio.Task[int]") -> Iterator[None]:
    """Let Ctrl-C cancel the task while the server starts, and restore the handlers at the end.

    So no signal raises KeyboardInterrupt in the loop: if it is raised there, an agent raised it.
    """

    def interrupted(number: int, frame: FrameType | None) -> None:
        task.get_loop().call_soon_threadsafe(task.cancel)  # This wakes the loop up.

    before = {number: signal.getsignal(number) for number in STOPS}
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_behind(status: int) -> NoReturn:
    """Exit although tasks or threads still run, of agents or of the opening; all else is closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
