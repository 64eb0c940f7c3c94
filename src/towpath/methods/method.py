"""What one method is: its parameters, its result, its handler, its REST route; and who calls it.

Parameters are valid from birth: decoding checks the types and the bounds, and the ids as well, so
a handler checks none of them again. The docstring of a parameters' class is the method's
description in the reference.
"""

import functools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from towpath.auth.policy import Action, may
from towpath.channels import is_id
from towpath.errors import BadRequest, PermissionDenied
from towpath.identity import Principal

H = TypeVar("H")

Id = Annotated[str, Meta(min_length=1, max_length=128, extra={"is": "id"})]
"""An id of the wire: 1 to 128 printable characters; see `towpath.channels.is_id`."""
ShortText = Annotated[str, Meta(min_length=1, max_length=128)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
"""The name of a user or a tenant."""
Limit = Annotated[int, Meta(ge=1, le=200)]
"""How many rows a list has at most."""


class Params(Struct, frozen=True, kw_only=True):
    """The parameters of a method."""

    def __post_init__(self) -> None:
        """Validate the ids.

        Raises:
            BadRequest: one is malformed.
        """
        for name in _ids_of(type(self)):
            value = getattr(self, name)
            if value is not None and not is_id(value):
                raise BadRequest(f"{name} must be 1 to 128 printable characters")


class Mutation(Params, frozen=True, kw_only=True):
    """The parameters of a method that takes effect once per request id.

    The same id with the same parameters gets the same result for a day; see `idempotency`.
    """

    request_id: Id


class NoParams(Params, frozen=True, kw_only=True):
    """No parameters."""


class ThreadPosition(Struct, frozen=True, kw_only=True):
    """Where to subscribe from."""

    epoch: str
    offset: int


@functools.cache
def _ids_of(params: type[Params]) -> tuple[str, ...]:
    """Return the names of the fields that are an `Id`, or an optional one."""
    fields = msgspec.structs.fields(params)
    return tuple(one.name for one in fields if Id in (one.type, *get_args(one.type)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls a method, and from where."""

    principal: Principal
    connection: str | None = None
    """The id of the WebSocket connection; None over REST."""
    origin: str | None = None
    """The origin of the page that calls; None where the caller is no page."""

    def require(self, action: Action, tenant: str | None = None) -> str:
        """Return the tenant in which the caller may do this: their own, and no other.

        Raises:
            PermissionDenied: the caller has no role for it, or `tenant` is another one.
        """
        wanted = tenant if tenant is not None else self.principal.tenant
        if not may(self.principal, action, wanted):
            raise PermissionDenied
        return wanted


@dataclass(frozen=True, slots=True)
class Method(Generic[H]):
    """One thing a client can call; `H` is the class that its handler belongs to."""

    name: str
    """Of the RPC."""
    params: type[Params]
    result: type[Struct]
    handler: Callable[[H, Caller, Any], Awaitable[Struct]]
    route: tuple[str, str]
    """The HTTP method, and the path under `/api/v1`; names in braces are parameters."""

    @property
    def mutates(self) -> bool:
        """Whether it takes effect once per request id."""
        return issubclass(self.params, Mutation)


Handler = Callable[[Caller, Any], Awaitable[Struct]]
"""A method's handler with the parts that it uses."""


def bind(methods: Iterable[Method[H]], parts: H) -> dict[str, Handler]:
    """Return the handlers of these methods by name, each with the parts that it uses."""
    return {one.name: functools.partial(one.handler, parts) for one in methods}
