"""Who may do what. The answer is no, unless a line here says yes.

Tenants never cross: nothing in one tenant is readable from another, whatever the role.
"""

from towpath.channels import Channel
from towpath.context import Principal


def may_read(principal: Principal, channel: Channel) -> bool:
    """Whether this principal may receive what is published in this channel."""
    return channel.tenant == principal.tenant and channel.owner in (None, principal.user)
