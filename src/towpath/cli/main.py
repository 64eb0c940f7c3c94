"""The command line: `serve`, `token`, `revoke` and `config check`.

What the operator has to mend is one line on standard error and exit status 2. A server whose log
turns out to be damaged ends with exit status 3, so that its supervisor starts it anew: the next
start looks at all of the log, and sets it aside where it is damaged. One whose log another process
has opened since ends with 4.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import httpx2
import typer
import uvicorn
import uvloop
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from towpath.agents import demo
from towpath.agents.assistant.choice import make_assistant, model_chosen, model_endpoint
from towpath.auth.development import development_key, sign
from towpath.auth.policy import Action
from towpath.cli.serving_loop import ServingLoop
from towpath.errors import ConfigurationError, LogCorrupted, MissingExtra
from towpath.gateway import Gateway
from towpath.http.uvicorn_protocols import HttpProtocol, SocketProtocol
from towpath.node import logging_setup
from towpath.node.issuers import problems
from towpath.node.node import VERSION
from towpath.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Settings,
    platform_port,
    settings_from_environment,
)
from towpath.telemetry import LogChanged, TelemetryEvent

if TYPE_CHECKING:
    from towpath.agents.assistant.assistant import Assistant

app = typer.Typer(
    name="towpath",
    help="The steady path along which AI-agent events reach people.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

config = typer.Typer(help="Look at the settings.", no_args_is_help=True)
app.add_typer(config, name="config")

STALLED_MS = 35_000
"""How long a peer may take nothing of what is sent to it, in milliseconds: ping and pong's time."""

DAMAGED = 3
"""The exit status of a server whose log is damaged."""
FENCED = 4
"""The exit status of a server whose log another process has opened since."""
STOPS = (signal.SIGTERM, signal.SIGINT)
"""The signals that stop a server well."""

Data = Annotated[Path | None, typer.Option(help="Data directory; default .towpath/")]


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ConfigurationError as error:
        _refuse(str(error))
    except LogCorrupted as error:
        print(f"towpath: {error}; start again", file=sys.stderr)
        raise SystemExit(DAMAGED) from None


def _refuse(reason: str) -> NoReturn:
    print(f"towpath: {reason}", file=sys.stderr)
    raise SystemExit(2)


def _choice(option: str, given: str, choices: tuple[str, ...]) -> str:
    """Return the choice that was given, in whatever case.

    Raises:
        ConfigurationError: it is not one of the choices.
    """
    for choice in choices:
        if given.casefold() == choice.casefold():
            return choice
    raise ConfigurationError(f"{option} {given}: use one of {', '.join(choices)}")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """The steady path along which AI-agent events reach people."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULT_HOST,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; default $PORT or 8000.")
    ] = None,
    data: Data = None,
    app: Annotated[str | None, typer.Option(help="Your gateway, as module:name.")] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="Demo users and a key of our own; loopback only.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    log_format: Annotated[
        str | None, typer.Option(help="text or json; default: text at a terminal, else json.")
    ] = None,
) -> None:
    """Serve a gateway: the one of --app, or one with an assistant and the demo agents."""
    level = _choice("--log-level", log_level, logging_setup.LEVELS)
    usual = "text" if sys.stderr.isatty() else "json"
    style = _choice("--log-format", log_format or usual, logging_setup.FORMATS)
    logging_setup.configure(level=level, style=style)
    gateway, assistant = (_load(app), None) if app else _demo_gateway()
    if style == "json":
        gateway.add_observer(_print_advice)
    if data is not None:
        gateway.settings = gateway.settings.model_copy(update={"data": data})
    if dev:
        gateway.use_development_key(host)
    chosen = port if port is not None else platform_port() or DEFAULT_PORT
    with _listen(host, chosen) as listening:
        model = [f"model: {assistant.title}" if assistant else "no model"] if not app else []
        ready = ", ".join([*model, f"data in {gateway.settings.data}"]) if dev else None
        status = _run(gateway, _serve(gateway, assistant, listening, ready=ready))
    raise SystemExit(status)


@app.command()
def token(
    user: Annotated[str, typer.Option(help="Whose token.")],
    tenant: Annotated[str, typer.Option(help="Of which tenant.")],
    role: Annotated[list[str] | None, typer.Option(help="A role; may be given again.")] = None,
    ttl: Annotated[float, typer.Option(help="Seconds it is good for.")] = 3600.0,
    data: Data = None,
) -> None:
    """Print a token signed with the development key of a data directory."""
    key = development_key(settings_from_environment(data).data)
    if not user.strip() or not tenant.strip():
        raise ConfigurationError("a token needs a user and a tenant")
    print(sign(key, user=user, tenant=tenant, roles=role or (), now=time.time(), ttl=ttl))


@app.command()
def revoke(
    user: Annotated[str | None, typer.Option(help="Take back all of this user's.")] = None,
    jti: Annotated[str | None, typer.Option(help="Take back one token, by its id.")] = None,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Take back all of the tenant's.")
    ] = False,
    tenant: Annotated[str | None, typer.Option(help="Of which tenant.")] = None,
    url: Annotated[str, typer.Option(help="Where the server is.")] = (
        f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    ),
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TOWPATH_TOKEN",
            help="A token with the role towpath:revoke; default: one of the development key.",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Take credentials back on a running server, and end the connections they opened."""
    if (user is not None) + (jti is not None) + everybody != 1:
        raise ConfigurationError("say what to take back: one of --user, --jti and --everybody")
    if tenant is None and (everybody or token is None):
        raise ConfigurationError("say of which tenant: --tenant")
    bearer = token or _operator_token(tenant or "", data)
    what = {"user": user, "jti": jti, "tenant": tenant if everybody else None}
    given = {name: value for name, value in what.items() if value is not None}
    _delete_sessions(url, bearer, {"request_id": uuid.uuid4().hex, **given})
    print("revoked")


def _operator_token(tenant: str, data: Path | None) -> str:
    """Return a token of the development key that may revoke in this tenant."""
    key = development_key(settings_from_environment(data).data)
    roles = (f"towpath:{Action.REVOKE.value}",)
    return sign(key, user="operator", tenant=tenant, roles=roles, now=time.time(), ttl=60)


def _delete_sessions(url: str, token: str, given: dict[str, str]) -> None:
    """Ask a server to revoke.

    Raises:
        ConfigurationError: it cannot be reached, or says no.
    """
    headers = {"authorization": f"Bearer {token}"}
    try:
        answer = httpx2.delete(
            f"{url.rstrip('/')}/api/v1/sessions", params=given, headers=headers, trust_env=False
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConfigurationError(f"{url} does not answer: {type(error).__name__}") from None
    if answer.status_code != 200:
        try:
            reason = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            reason = "no answer of a gateway"
        raise ConfigurationError(f"{url} says no ({answer.status_code}): {reason}")


@config.command()
def check(data: Data = None) -> None:
    """Print the settings as they are in force, secrets masked, and what would refuse to start."""
    settings = settings_from_environment(data)
    table = Table("setting", "value", "from", box=None)
    for name in Settings.model_fields:
        origin = "environment" if name in settings.model_fields_set else "default"
        table.add_row(name, escape(_shown(getattr(settings, name))), origin)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    found = list(problems(settings))
    try:
        model_endpoint(settings)
    except ConfigurationError as error:
        found.append(str(error))
    for problem in found:
        print(f"towpath: would refuse to start: {problem}", file=sys.stderr)
    if found:
        raise SystemExit(2)
    print("towpath serve would start with this")


def _shown(value: object) -> str:
    """Return a setting as one line; what is secret shows as asterisks only."""
    if isinstance(value, tuple | frozenset):
        return ", ".join(sorted(map(_shown, value))) or "none"
    if isinstance(value, BaseModel):
        fields = value.model_dump(exclude_unset=True)
        return " ".join(f"{name}={_shown(one)}" for name, one in fields.items())
    return "not set" if value is None else str(value)


def _run(gateway: Gateway, main: Coroutine[Any, Any, int]) -> int:
    """Run the server to its end and return its exit status, which no agent has a say in."""
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
    """Let Ctrl-C cancel the task while the server starts, and put the handlers back at the end.

    So no signal raises KeyboardInterrupt in the loop: where it is raised there, an agent did it.
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
    """Exit although agents go on that ignore their cancellation: everything else is closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _demo_gateway() -> "tuple[Gateway, Assistant | None]":
    """Return a gateway with a model's assistant, if there is one, and the demo agents.

    Raises:
        ConfigurationError: the model that was asked for cannot be had.
    """
    gateway, assistant = Gateway(), None
    try:
        assistant = make_assistant(gateway.settings)
    except MissingExtra as missing:
        if model_chosen(gateway.settings):
            raise
        print(f"towpath: only demo agents: {missing}", file=sys.stderr)
    if assistant is not None:
        gateway.agent("assistant")(assistant.answer)
    gateway.agent("tools")(demo.tools)
    gateway.agent("echo")(demo.echo)
    return gateway, assistant


def _load(path: str) -> Gateway:
    """Import a gateway named as module:name, looking in the current directory too.

    Raises:
        ConfigurationError: there is none.
    """
    module_name, _, name = path.partition(":")
    if not module_name or module_name.startswith("."):
        raise ConfigurationError(f"--app {path}: name your gateway as module:name")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), name or "gateway")
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigurationError(f"--app {path}: there is no module {error.name}") from None
    except SystemExit as error:
        reason = f"{module_name} exits when it is imported ({error.code!r})"
        raise ConfigurationError(f"--app {path}: {reason}") from None
    except AttributeError:
        raise ConfigurationError(f"--app {path}: {module_name} has no {name}") from None
    if not isinstance(found, Gateway):
        raise ConfigurationError(f"--app {path}: {name} is a {type(found).__name__}, no Gateway")
    return found


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigurationError: the address is none, or in use.
    """
    with contextlib.ExitStack() as undo:
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = undo.enter_context(socket.socket(family, kind))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Accepted sockets inherit it: a peer that takes nothing any more is let go by the
                # kernel, whatever still waits to be sent to it.
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
            listening.bind(address)
            listening.listen(2048)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
            ) from None
        undo.pop_all()
    return listening


class _Server(uvicorn.Server):
    """uvicorn closes sockets with 1012 when told to stop; the gateway drains them before."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop when told to, and then end well: uvicorn would raise the signal once more.

        The handlers are of the process, not of the loop: uvloop forgets a signal that comes
        between two runs of the loop, and an agent that exits makes it run twice.
        """
        for number in STOPS:
            signal.signal(number, self.handle_exit)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._gateway.drain()
        await super().shutdown(sockets)


def _settle_garbage() -> None:
    """Look for garbage less often, and never among what stays for the life of the process.

    Connections leave hardly any cycles behind, and a young collection every 700 allocations would
    be a quarter of what a connect costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _print_advice(event: TelemetryEvent) -> None:
    """Print the sentence of an event that has one, for who reads the JSON lines it stands among."""
    sentence = logging_setup.advice(event)
    if sentence is not None:
        print(f"towpath: {sentence}", file=sys.stderr, flush=True)


async def _serve(
    gateway: Gateway,
    assistant: "Assistant | None",
    listening: socket.socket,
    *,
    ready: str | None,
) -> int:
    """Serve until told to stop, or until the log is lost to us; return the exit status."""
    settings: Settings = gateway.settings
    config = uvicorn.Config(
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
    server = _Server(config, gateway)
    status = 0

    def watch(event: TelemetryEvent) -> None:
        nonlocal status
        if isinstance(event, LogChanged) and event.after in ("damaged", "taken"):
            status = DAMAGED if event.after == "damaged" else FENCED
            server.should_exit = True

    gateway.add_observer(watch)
    async with contextlib.AsyncExitStack() as stack:
        if assistant is not None:
            stack.push_async_callback(assistant.aclose)
        await stack.enter_async_context(gateway.lifespan())
        _settle_garbage()
        if ready is not None:
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"Towpath is ready: http://{shown}:{port}/  ({ready})", flush=True)
        await server.serve([listening])
    return status
