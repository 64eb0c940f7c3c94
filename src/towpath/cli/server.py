"""uvicorn as `towpath serve` runs it: its socket, signals, event loop and exit status."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import uvicorn
import uvloop

from towpath.cli.serving_loop import ServingLoop
from towpath.errors import ConfigurationError
from towpath.gateway import Gateway
from towpath.http.uvicorn_protocols import HttpProtocol, SocketProtocol
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
        self.status = 0
        """The exit status: 0, `DAMAGED` or `FENCED`."""

    def observe(self, event: TelemetryEvent) -> None:
        """Stop if this process cannot use the log any more."""
        if isinstance(event, LogChanged) and event.after in ENDS:
            self.status = ENDS[event.after]
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
        await self._gateway.drain()
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
        timeout_graceful_shutdown=round(settings.drain_timeout),
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
    assistant: "Assistant | None" = None,
    ready: str | None = None,
) -> int:
    """Serve until a signal, or until the log is damaged or taken over; return the exit status.

    Args:
        gateway: what to serve.
        listening: the socket that accepts connections.
        assistant: closed at the end; None without an assistant.
        ready: printed in a line when the server is ready; None prints no line.
    """
    server = Server(gateway)
    gateway.add_observer(server.observe)
    async with contextlib.AsyncExitStack() as stack:
        if assistant is not None:
            stack.push_async_callback(assistant.aclose)
        await stack.enter_async_context(gateway.lifespan())
        _settle_garbage()
        if ready is not None:
            print(f"Towpath is ready: {_url(listening)}  ({ready})", flush=True)
        await server.serve([listening])
    return server.status


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def run(gateway: Gateway, main: Coroutine[Any, Any, int]) -> int:
    """Run the server to its end and return its exit status; no agent can change the status."""
    loop = uvloop.new_event_loop()
    serving = ServingLoop(loop, gateway.agent_exited)
    task = loop.create_task(main)
    with _interruptible(task), contextlib.closing(serving):
        status = serving.run(task)
        if asyncio.all_tasks(loop):
            _leave_behind(status)
        return status


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
    """Exit although agents that ignore their cancellation still run; all else is closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
