"""Towpath: the steady path along which AI-agent events reach people."""

from typing import TYPE_CHECKING

from towpath.agents.agent import AgentError, AgentInput
from towpath.auth.breaker import CircuitBreaker
from towpath.auth.connection_auth import ConnectionAuth as UnifiedWebSocketAuth
from towpath.auth.service import AuthService as UnifiedAuthenticationService
from towpath.identity import Principal, UserExecutionContext
from towpath.runs.service import RunService as AgentWebSocketBridge

if TYPE_CHECKING:
    from towpath.gateway import Gateway
    from towpath.settings import Settings

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
        from towpath.gateway import Gateway

        return Gateway
    if name == "Settings":
        from towpath.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
