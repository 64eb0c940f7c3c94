"""Towpath: the steady path along which AI-agent events reach people."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from towpath import aliases
from towpath.agents.agent import AgentError, AgentInput
from towpath.auth.breaker import CircuitBreaker
from towpath.auth.connection_auth import ConnectionAuth as UnifiedWebSocketAuth
from towpath.auth.service import AuthService as UnifiedAuthenticationService
from towpath.gateway import Gateway
from towpath.identity import Principal, UserExecutionContext
from towpath.manager import (
    AgentWebSocketBridge,
    Delivered,
    Queued,
    Refused,
    WebSocketManager,
    create_websocket_manager,
    get_websocket_manager,
)
from towpath.settings import Settings

__all__ = [
    "AgentError",
    "AgentInput",
    "AgentWebSocketBridge",
    "CircuitBreaker",
    "Delivered",
    "Gateway",
    "Principal",
    "Queued",
    "Refused",
    "Settings",
    "UnifiedAuthenticationService",
    "UnifiedWebSocketAuth",
    "UserExecutionContext",
    "WebSocketManager",
    "__version__",
    "create_websocket_manager",
    "get_websocket_manager",
]

__version__ = version("towpath")


if not TYPE_CHECKING:  # With this function, a type checker accepts every name.

    def __getattr__(name: str) -> object:
        """Look up a retired name."""
        return aliases.retired(__name__, name)


aliases.install()
