"""Gauges of a running node, read whenever `/metrics` is requested."""

from collections.abc import Callable

from towpath.node.metrics import Metrics
from towpath.node.node import Node

GAUGES: tuple[tuple[str, str, Callable[[Node], float]], ...] = (
    ("towpath_connections", "Live connections", lambda node: len(node.parts.hub)),
    (
        "towpath_subscriptions",
        "Subscriptions, over all connections",
        lambda node: node.parts.hub.subscriptions,
    ),
    (
        "towpath_outbox_bytes",
        "Bytes that wait to be sent, over all connections",
        lambda node: node.parts.hub.waiting_bytes,
    ),
    (
        "towpath_ring_bytes",
        "Bytes of last publications that are kept for readers, over all channels",
        lambda node: node.parts.hub.ring_bytes,
    ),
    (
        "towpath_largest_connection_bytes",
        "Bytes that wait for the connection with the most",
        lambda node: node.parts.hub.largest_bytes,
    ),
    (
        "towpath_withheld",
        "Publications dropped by the access policy",
        lambda node: node.parts.hub.withheld,
    ),
    (
        "towpath_verdicts_remembered",
        "Verdicts in the cache",
        lambda node: len(node.auth_service.cache),
    ),
    (
        "towpath_tickets_waiting",
        "Tickets issued and not yet used",
        lambda node: len(node.auth_service.tickets),
    ),
    ("towpath_runs", "Runs in progress", lambda node: node.runs.active),
)
"""Name, meaning, and how the number is read from a node."""


def show_gauges(metrics: Metrics, current: Callable[[], Node | None]) -> None:
    """Add the gauges of the current node to the metrics; they are 0 while no node runs."""

    def reading(read: Callable[[Node], float]) -> Callable[[], float]:
        def value() -> float:
            node = current()
            return read(node) if node is not None else 0.0

        return value

    for name, meaning, read in GAUGES:
        metrics.gauge(name, meaning, reading(read))
