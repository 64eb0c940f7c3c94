"""The methods of sessions: create tickets, list and end connections, revoke credentials."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from towpath import codes
from towpath.auth.policy import Action
from towpath.auth.revocations import Revocation
from towpath.auth.service import AuthService
from towpath.auth.tickets import TICKET_SECONDS
from towpath.delivery.hub import Hub
from towpath.delivery.subscriber import Subscriber
from towpath.errors import BadRequest, LimitExceeded
from towpath.log.broker import Broker, IdempotencyKey, Write, Written
from towpath.log.idempotency import stored_result, storing, write_once
from towpath.methods.method import Caller, Method, Mutation, Name, NoParams, Params, ShortText


class TicketCreate(Params, frozen=True, kw_only=True):
    """Create a one-use ticket for a client without a token; `origin` binds it to an origin."""

    origin: ShortText | None = None


class Ticket(Struct, frozen=True, kw_only=True):
    """A ticket, and the seconds until it expires."""

    ticket: str
    expires_in: int


class SessionList(Params, frozen=True, kw_only=True):
    """List the live connections of a user (role `towpath:inspect`)."""

    user: ShortText


class SessionRow(Struct, frozen=True, kw_only=True):
    """A live connection on this node."""

    connection: str
    user: str
    expires_at: float | None
    channels: list[str]


class Sessions(Struct, frozen=True, kw_only=True):
    """Live connections on this node."""

    sessions: list[SessionRow]


class SessionRevoke(Mutation, frozen=True, kw_only=True):
    """Revoke a token by its `jti`, or all of a user or a tenant (role `towpath:revoke`)."""

    jti: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    user: Name | None = None
    tenant: Name | None = None


class SessionDisconnect(Mutation, frozen=True, kw_only=True):
    """Close a user's connections (role `towpath:disconnect`); the credentials stay valid."""

    user: ShortText


class RevocationFeed(Protocol):
    """Announces revocations to every node."""

    async def publish(self, broker: Broker, revocation: Revocation, request: Write) -> Written:
        """Write a revocation, and the key and result of the request, in one transaction.

        Raises:
            CommandError, StorageError: nothing was written; see `Broker.submit`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMethods:
    """The handlers and their dependencies."""

    auth_service: AuthService
    hub: Hub
    feed: RevocationFeed
    broker: Broker
    now: Callable[[], float]
    """Unix seconds."""

    async def create_ticket(self, caller: Caller, params: TicketCreate) -> Ticket:
        """Return a one-use ticket for the caller."""
        origin = params.origin or caller.origin
        ticket = self.auth_service.tickets.issue(caller.principal, origin)
        return Ticket(ticket=ticket, expires_in=int(TICKET_SECONDS))

    async def list_sessions(self, caller: Caller, params: SessionList) -> Sessions:
        """Return a person's connections to this node.

        Raises:
            PermissionDenied: the caller has no role for it.
        """
        tenant = caller.require(Action.INSPECT)
        rows = [_session_row(one) for one in self.hub.subscribers(tenant, params.user)]
        return Sessions(sessions=rows)

    async def revoke(self, caller: Caller, params: SessionRevoke) -> NoParams:
        """Revoke credentials on every node.

        Raises:
            BadRequest: not exactly one of `jti`, `user` and `tenant` is given.
            PermissionDenied: the caller has no role for it, or names another tenant.
            LimitExceeded: too many revocations are in force.
        """
        revocation = self._revocation(caller, params)
        key = IdempotencyKey.of(caller.principal, "session.revoke", params.request_id, params)
        await self.feed.publish(self.broker, revocation, storing(NoParams(), key))
        return NoParams()

    def _revocation(self, caller: Caller, params: SessionRevoke) -> Revocation:
        given = [one for one in (params.jti, params.user, params.tenant) if one is not None]
        if len(given) != 1:
            raise BadRequest("name what to revoke: one of jti, user and tenant")
        tenant, now = caller.require(Action.REVOKE, params.tenant), self.now()
        revocation = Revocation(tenant=tenant, at=now, token_id=params.jti, user=params.user)
        if not self.auth_service.revocations.admits(revocation, now):
            raise LimitExceeded(
                "too many revocations are kept already: revoke the whole tenant, which takes the"
                " place of all of them"
            )
        return revocation

    async def disconnect(self, caller: Caller, params: SessionDisconnect) -> NoParams:
        """Close a person's connections to this node.

        Raises:
            PermissionDenied: the caller has no role for it.
        """
        tenant = caller.require(Action.DISCONNECT)
        key = IdempotencyKey.of(caller.principal, "session.disconnect", params.request_id, params)
        if (earlier := await stored_result(self.broker, key, NoParams)) is not None:
            return earlier
        for subscriber in self.hub.subscribers(tenant, params.user):
            subscriber.close(codes.FORCED)
        return await write_once(self.broker, key, NoParams())


METHODS: tuple[Method[SessionMethods], ...] = (
    Method(
        "ticket.create", TicketCreate, Ticket, SessionMethods.create_ticket, ("POST", "/tickets")
    ),
    Method(
        "session.list", SessionList, Sessions, SessionMethods.list_sessions, ("GET", "/sessions")
    ),
    Method(
        "session.revoke", SessionRevoke, NoParams, SessionMethods.revoke, ("DELETE", "/sessions")
    ),
    Method(
        "session.disconnect",
        SessionDisconnect,
        NoParams,
        SessionMethods.disconnect,
        ("POST", "/sessions/disconnect"),
    ),
)


def _session_row(subscriber: Subscriber) -> SessionRow:
    return SessionRow(
        connection=subscriber.id,
        user=subscriber.principal.user,
        expires_at=subscriber.principal.expires_at,
        channels=sorted(channel.visible for channel in subscriber.subscriptions),
    )
