"""The measured gateway with authentication switched to a constant: it asks for nothing at all.

Whoever connects is taken for whom the token names, and the token is nothing but that name. All
else is the gateway as it is, so the difference is what finding out costs.
"""

from benchmarks.agents import gateway
from towpath.auth.connection_auth import Authenticated, ConnectionAuth
from towpath.auth.handshake import UpgradeInfo
from towpath.identity import Principal

__all__ = ["gateway"]

NEVER = 4_000_000_000.0
"""When what it says is over, in Unix seconds: connections are told and have a timer, as usual."""


async def _believe(
    self: ConnectionAuth, connect_token: str, handshake: UpgradeInfo, *, connection: str
) -> Authenticated:
    principal = Principal(tenant="acme", user=connect_token, expires_at=NEVER)
    return Authenticated(principal, renewable=True)


setattr(ConnectionAuth, "authenticate_websocket_connection", _believe)  # noqa: B010
