"""The numbers of a running node that are read when somebody asks for `/metrics`."""

from collections.abc import Callable

from towpath.node.metrics import Metrics
from towpath.node.node import Node

GAUGES: tuple[tuple[str, str, Callable[[Node], float]], ...] = (
    ("towpath_connections", "Live connections", lambda node: len(node.parts.hub)),
    (
        "towpath_subscriptions",
        "Channels read, over all connections",
        lambda node: node.parts.hub.subscriptions,
    ),
    (
        "towpath_outbox_bytes",
        "Waiting to be sent, over all connections",
        lambda node: node.parts.hub.waiting_bytes,
    ),
    (
        "towpath_backlog_bytes",
        "Waiting beside connections that fell behind",
        lambda node: node.parts.hub.backlog_bytes,
    ),
    (
        "towpath_largest_connection_bytes",
        "Waiting for the one connection for which most waits",
        lambda node: node.parts.hub.largest_bytes,
    ),
    (
        "towpath_withheld",
        "Writes the policy refused at the last moment",
        lambda node: node.parts.hub.withheld,
    ),
    (
        "towpath_verdicts_remembered",
        "Verdicts that need not be found out again",
        lambda node: len(node.auth_service.cache),
    ),
    (
        "towpath_tickets_waiting",
        "Tickets that were issued and not yet used",
        lambda node: len(node.auth_service.tickets),
    ),
    ("towpath_runs", "Runs in progress", lambda node: node.runs.active),
)
"""Name, meaning, and how the number is read from a node."""


def show_gauges(metrics: Metrics, current: Callable[[], Node | None]) -> None:
    """Show the gauges of whatever node runs; 0 while none does."""

    def reading(read: Callable[[Node], float]) -> Callable[[], float]:
        def value() -> float:
            node = current()
            return read(node) if node is not None else 0.0

        return value

    for name, meaning, read in GAUGES:
        metrics.gauge(name, meaning, reading(read))
