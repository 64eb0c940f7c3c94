"""The test kit: runs agents in process, and starts real servers that a test can break.

The names are imported on first use. A client that shows every frame of the wire is
`towpath.testing.wire_client.wire_client`, which needs the extra `serve`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towpath.testing.clock import VirtualClock as VirtualClock
    from towpath.testing.expect import expect_events as expect_events
    from towpath.testing.faults import FaultProxy as FaultProxy
    from towpath.testing.finished_run import FinishedRun as FinishedRun
    from towpath.testing.finished_run import RunHandle as RunHandle
    from towpath.testing.gateway_client import GatewayTestClient as GatewayTestClient
    from towpath.testing.oidc_provider import OidcProvider as OidcProvider
    from towpath.testing.script import Gate as Gate
    from towpath.testing.script import scripted as scripted
    from towpath.testing.server import ServerProcess as ServerProcess
    from towpath.testing.tokens import TokenSigner as TokenSigner

_MODULES = {
    "FaultProxy": "faults",
    "FinishedRun": "finished_run",
    "Gate": "script",
    "GatewayTestClient": "gateway_client",
    "OidcProvider": "oidc_provider",
    "RunHandle": "finished_run",
    "ServerProcess": "server",
    "TokenSigner": "tokens",
    "VirtualClock": "clock",
    "expect_events": "expect",
    "scripted": "script",
}
"""The module of each public name."""

__all__ = [
    "FaultProxy",
    "FinishedRun",
    "Gate",
    "GatewayTestClient",
    "OidcProvider",
    "RunHandle",
    "ServerProcess",
    "TokenSigner",
    "VirtualClock",
    "expect_events",
    "scripted",
]


def __getattr__(name: str) -> object:
    """Import a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
