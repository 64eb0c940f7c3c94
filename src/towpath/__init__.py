"""Towpath: the steady path along which AI-agent events reach people."""

from importlib.metadata import version

from towpath import aliases
from towpath.agents.agent import AgentError, AgentInput
from towpath.auth.breaker import CircuitBreaker
from towpath.auth.connection_auth import ConnectionAuth as UnifiedWebSocketAuth
from towpath.auth.service import AuthService as UnifiedAuthenticationService
from towpath.gateway import Gateway
from towpath.identity import Principal, UserExecutionContext
from towpath.runs.service import RunService as AgentWebSocketBridge
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
    "__version__",
]

__version__ = version("towpath")


def __getattr__(name: str) -> object:
    """Look up a retired name."""
    return aliases.retired(__name__, name)


aliases.install()
