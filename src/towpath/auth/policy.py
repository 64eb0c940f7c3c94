"""Who may do what. The answer is no, unless a line here says yes.

Tenants never cross: nothing in one tenant is readable or can be acted on from another, whatever the
role. What a person may do with their own threads needs no role and is not asked here: it cannot
be expressed for anybody else's.
"""

from enum import Enum

from towpath.channels import Channel
from towpath.identity import Principal


class Action(Enum):
    """What needs a role."""

    REVOKE = "revoke"
    """Take credentials back."""
    DISCONNECT = "disconnect"
    """End somebody's connections."""
    INSPECT = "inspect"
    """See who is connected."""
    PUBLISH = "publish"
    """Publish as a service, to a person or to the tenant."""


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
