"""Towpath: the steady path along which AI-agent events reach people."""

from typing import TYPE_CHECKING

from towpath.agents.bridge import AgentWebSocketBridge
from towpath.agents.registry import AgentInput
from towpath.agents.run import AgentError
from towpath.auth.breaker import CircuitBreaker
from towpath.auth.service import UnifiedAuthenticationService
from towpath.auth.websocket import UnifiedWebSocketAuth
from towpath.context import Principal, UserExecutionContext

if TYPE_CHECKING:
    from towpath.server.gateway import Gateway
    from towpath.server.settings import Settings

__all__ = [
    "AgentError",
    "AgentInput",
    "AgentWebSocketBridge",
    "CircuitBreaker",
    "Gateway",
    "Principal",
    "Settings",
    "UnifiedAuthenticationService",
    "UnifiedWebSocketAuth",
    "UserExecutionContext",
]


def __getattr__(name: str) -> object:
    """Import the server when it is asked for: its dependencies are the extra `serve`."""
    if name == "Gateway":
        from towpath.server.gateway import Gateway

        return Gateway
    if name == "Settings":
        from towpath.server.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
