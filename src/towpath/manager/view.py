"""The identity that a manager is bound to, and the node that it works on."""

from typing import Protocol

from towpath.errors import NotRunning, TowpathError
from towpath.identity import InvalidContext, Principal, UserExecutionContext
from towpath.node.node import RUNNING, Node, only_node


class HasNode(Protocol):
    """A gateway, as the manager uses it."""

    @property
    def node(self) -> Node | None:
        """The running parts; None before and after the lifespan."""


class NoIdentity(TowpathError, ValueError):
    """A manager was requested with neither a context nor a tenant, or with both."""


class ForeignUser(TowpathError, ValueError):
    """The manager is bound to another person; nothing was done."""


class View:
    """What is bound to one person, or to one tenant; it owns neither sockets nor tasks."""

    __slots__ = ("_gateway", "_tenant", "context")

    def __init__(
        self,
        context: UserExecutionContext | None = None,
        *,
        tenant: str | None = None,
        gateway: HasNode | None = None,
    ) -> None:
        """Bind a manager.

        Args:
            context: the person to reach; or else `tenant`.
            tenant: the tenant whose people to reach.
            gateway: the gateway; None takes the one that runs in this process when a method is
                called.

        Raises:
            NoIdentity: neither a context nor a tenant is given, or both are.
            InvalidContext: the tenant is blank.
        """
        if (context is None) == (tenant is None):
            raise NoIdentity("pass a UserExecutionContext or tenant=, one of the two")
        self.context = context
        """The person that the manager is bound to; None if it is bound to a tenant."""
        self._tenant = _nonblank("tenant", tenant) if tenant is not None else None
        self._gateway = gateway

    @property
    def tenant(self) -> str:
        """The tenant that the manager is bound to."""
        return self.context.tenant if self.context is not None else self._tenant or ""

    def _node(self) -> Node:
        """Return the node, which runs on the event loop of the caller.

        Raises:
            NotRunning: no gateway runs here.
            SeveralGateways: several run in this process, and none was named.
            WrongLoop: it runs on another event loop.
        """
        node = only_node() if self._gateway is None else self._gateway.node
        if node is None or node not in RUNNING:
            raise NotRunning
        node.check_loop()
        return node

    def _user(self, user_id: str | None) -> str:
        """Return the person to reach.

        Raises:
            InvalidContext: the id is blank.
            ForeignUser: the manager is bound to another person.
        """
        own = self.context.user if self.context is not None else None
        user = _nonblank("user", own if user_id is None else user_id)
        if own is not None and user != own:
            raise ForeignUser(
                f"the manager is bound to the user {own!r}, not {user!r}: "
                "make one with the other person's context"
            )
        return user

    def _principal(self, user: str) -> Principal:
        """Return the person as a principal, with the roles and the expiry of the context."""
        if self.context is None:
            return Principal(tenant=self.tenant, user=user)
        expires = self.context.expires
        return Principal(
            tenant=self.tenant,
            user=user,
            roles=self.context.roles,
            expires_at=expires.timestamp() if expires is not None else None,
        )


def _nonblank(name: str, value: str | None) -> str:
    """Return an id.

    Raises:
        InvalidContext: it is blank, or no text.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidContext(name, "is blank")
    return value
