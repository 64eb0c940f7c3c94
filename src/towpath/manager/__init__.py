"""`WebSocketManager`: the application reaches people; `AgentWebSocketBridge`: agents that push."""

from towpath.manager.bridge import AgentWebSocketBridge, BridgeHealth, RunStatus
from towpath.manager.jobs import JobEvents
from towpath.manager.manager import (
    WebSocketManager,
    create_websocket_manager,
    get_websocket_manager,
)
from towpath.manager.payloads import Unserialisable
from towpath.manager.results import (
    ConnectionEnded,
    ConnectionHealth,
    ConnectionInfo,
    Delivered,
    Queued,
    RecoveredMessages,
    Refused,
    SendResult,
    StartedRun,
)
from towpath.manager.view import ForeignUser, NoIdentity

__all__ = [
    "AgentWebSocketBridge",
    "BridgeHealth",
    "ConnectionEnded",
    "ConnectionHealth",
    "ConnectionInfo",
    "Delivered",
    "ForeignUser",
    "JobEvents",
    "NoIdentity",
    "Queued",
    "RecoveredMessages",
    "Refused",
    "RunStatus",
    "SendResult",
    "StartedRun",
    "Unserialisable",
    "WebSocketManager",
    "create_websocket_manager",
    "get_websocket_manager",
]
