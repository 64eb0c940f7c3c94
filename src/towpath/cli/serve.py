"""`towpath serve`: which gateway is served, where, and what it logs."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from towpath.agents import demo
from towpath.agents.assistant.choice import make_assistant, model_chosen
from towpath.cli.application import load_gateway
from towpath.cli.options import Data, choice_of
from towpath.cli.server import listen, run, serve_gateway
from towpath.errors import MissingExtra
from towpath.gateway import Gateway
from towpath.node import logging_setup
from towpath.settings import DEFAULT_HOST, DEFAULT_PORT, platform_port
from towpath.telemetry import TelemetryEvent

if TYPE_CHECKING:
    from towpath.agents.assistant.assistant import Assistant


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULT_HOST,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; default $PORT or 8000.")
    ] = None,
    data: Data = None,
    app: Annotated[str | None, typer.Option(help="Your gateway, as module:name.")] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="Demo users and a development key; loopback only.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    log_format: Annotated[
        str | None, typer.Option(help="text or json; default: text at a terminal, else json.")
    ] = None,
) -> None:
    """Serve the gateway of --app, or a gateway with the assistant and the demo agents."""
    level = choice_of("--log-level", log_level, logging_setup.LEVELS)
    usual = "text" if sys.stderr.isatty() else "json"
    style = choice_of("--log-format", log_format or usual, logging_setup.FORMATS)
    logging_setup.configure(level=level, style=style)
    gateway, assistant = (load_gateway(app), None) if app else _demo_gateway()
    if style == "json":
        gateway.add_observer(_print_advice)
    if data is not None:
        gateway.settings = gateway.settings.model_copy(update={"data": data})
    if dev:
        gateway.use_development_key(host)
    chosen = port if port is not None else platform_port() or DEFAULT_PORT
    with listen(host, chosen) as listening:
        model = [f"model: {assistant.title}" if assistant else "no model"] if not app else []
        ready = ", ".join([*model, f"data in {gateway.settings.data}"]) if dev else None
        status = run(
            gateway,
            lambda threads: serve_gateway(
                gateway, listening, threads=threads, assistant=assistant, ready=ready
            ),
        )
    raise SystemExit(status)


def _demo_gateway() -> "tuple[Gateway, Assistant | None]":
    """Return a gateway with the assistant, if a model is available, and the demo agents.

    Raises:
        ConfigurationError: the configured model is not available.
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


def _print_advice(event: TelemetryEvent) -> None:
    """Print the sentence that explains an event, if it has one, beside the event's line of JSON."""
    sentence = logging_setup.advice(event)
    if sentence is not None:
        print(f"towpath: {sentence}", file=sys.stderr, flush=True)
