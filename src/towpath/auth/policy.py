"""The access policy: everything is refused that this module does not allow.

Tenants are isolated: no role gives access to another tenant, neither to read nor to act. Actions of
a person on their own threads need no role and are not checked here: such a request cannot name
another person's thread.
"""

from enum import Enum

from towpath.channels import Channel
from towpath.identity import Principal


class Action(Enum):
    """An action that needs a role."""

    REVOKE = "revoke"
    """Revoke credentials."""
    DISCONNECT = "disconnect"
    """Close the connections of a user."""
    INSPECT = "inspect"
    """List the connections of a user."""
    PUBLISH = "publish"
    """Publish as a service, to a user or to the tenant."""


ROLES: dict[str, frozenset[Action]] = {
    "towpath:operator": frozenset({Action.REVOKE, Action.DISCONNECT, Action.INSPECT}),
    "towpath:service": frozenset({Action.PUBLISH}),
    **{f"towpath:{action.value}": frozenset({action}) for action in Action},
}
"""What each role may do, inside its own tenant."""


def may_read(principal: Principal, channel: Channel) -> bool:
    """Whether this principal may receive what is published in this channel."""
    return channel.tenant == principal.tenant and channel.owner in (None, principal.user)


def may(principal: Principal, action: Action, tenant: str) -> bool:
    """Whether this principal may do this in this tenant."""
    if principal.tenant != tenant:
        return False
    return any(action in ROLES.get(role, ()) for role in principal.roles)
