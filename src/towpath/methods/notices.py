"""The method of notices: a service publishes an event to a user or a tenant."""

from dataclasses import dataclass
from typing import Any

from towpath.auth.policy import Action
from towpath.channels import tenant_channel, user_channel
from towpath.errors import BadRequest
from towpath.log.broker import Broker, IdempotencyKey, Write
from towpath.log.idempotency import write_once
from towpath.methods.method import Caller, Method, Mutation, Name, NoParams, ShortText
from towpath.runs.publications import custom

RESERVED = "towpath."
"""The prefix of the names of the gateway's own notices."""


class NoticePublish(Mutation, frozen=True, kw_only=True):
    """Publish a notice to a user, or to the whole tenant (role `towpath:service`)."""

    name: ShortText
    value: Any = None
    user: Name | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeMethods:
    """The handler and its dependency."""

    broker: Broker

    async def publish(self, caller: Caller, params: NoticePublish) -> NoParams:
        """Publish a CUSTOM event on the channel of a user or of the tenant.

        Raises:
            PermissionDenied: the caller has no role for it.
            BadRequest: the name is reserved for the gateway.
        """
        tenant = caller.require(Action.PUBLISH)
        if params.name.startswith(RESERVED):
            raise BadRequest(f"names that begin with {RESERVED} are the gateway's own")
        user = params.user
        channel = tenant_channel(tenant) if user is None else user_channel(tenant, user)
        change = Write((custom(channel, params.name, params.value),))
        key = IdempotencyKey.of(caller.principal, "notice.publish", params.request_id, params)
        return await write_once(self.broker, key, NoParams(), change)


METHODS: tuple[Method[NoticeMethods], ...] = (
    Method("notice.publish", NoticePublish, NoParams, NoticeMethods.publish, ("POST", "/notices")),
)
