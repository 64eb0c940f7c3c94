"""The parts of a node that every connection uses."""

from collections.abc import Callable
from dataclasses import dataclass

from towpath.auth.connection_auth import ConnectionAuth
from towpath.delivery.hub import Hub, MayRead
from towpath.delivery.recovery import Recovery
from towpath.log.broker import Broker
from towpath.methods.table import Methods
from towpath.runs.store import ThreadStore
from towpath.settings import Settings
from towpath.telemetry import Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a node that its connections share; made once."""

    settings: Settings
    hub: Hub
    broker: Broker
    store: ThreadStore
    recovery: Recovery
    methods: Methods
    connection_auth: ConnectionAuth
    may_read: MayRead
    """The access policy."""
    telemetry: Telemetry
    version: str
    """The gateway's version, as it is sent to clients."""
    now: Callable[[], float]
    """Unix seconds, for the end of credentials."""
