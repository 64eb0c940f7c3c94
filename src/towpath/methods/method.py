"""The definition of a method: its parameters, its result, its handler, its REST route; its caller.

Decoding checks the types, the bounds and the ids of the parameters, so a handler does not check
them again. The docstring of a parameters' class is the method's description in the reference.
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
"""The maximum number of rows of a list."""


class Params(Struct, frozen=True, kw_only=True):
    """The parameters of a method."""

    def __post_init__(self) -> None:
        """Validate the ids.

        Raises:
            BadRequest: an id is malformed.
        """
        for name in _ids_of(type(self)):
            value = getattr(self, name)
            if value is not None and not is_id(value):
                raise BadRequest(f"{name} must be 1 to 128 printable characters")


class Mutation(Params, frozen=True, kw_only=True):
    """The parameters of a method that takes effect once per request id.

    The same id with the same parameters gets the same result for a day; see
    `towpath.log.idempotency`.
    """

    request_id: Id


class NoParams(Params, frozen=True, kw_only=True):
    """No parameters."""


@functools.cache
def _ids_of(params: type[Params]) -> tuple[str, ...]:
    """Return the names of the fields of type `Id` or `Id | None`."""
    fields = msgspec.structs.fields(params)
    return tuple(one.name for one in fields if Id in (one.type, *get_args(one.type)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller of a method, and the origin of the call."""

    principal: Principal
    connection: str | None = None
    """The id of the WebSocket connection; None over REST."""
    origin: str | None = None
    """The origin of the calling page; None if the caller is not a page."""

    def require(self, action: Action, tenant: str | None = None) -> str:
        """Return the caller's own tenant if the caller may do this action there.

        Raises:
            PermissionDenied: the caller has no role for the action, or `tenant` is another tenant.
        """
        wanted = tenant if tenant is not None else self.principal.tenant
        if not may(self.principal, action, wanted):
            raise PermissionDenied
        return wanted


@dataclass(frozen=True, slots=True)
class Method(Generic[H]):
    """One method; `H` is the class that its handler belongs to."""

    name: str
    """The name in an RPC."""
    params: type[Params]
    result: type[Struct]
    handler: Callable[[H, Caller, Any], Awaitable[Struct]]
    route: tuple[str, str]
    """The HTTP method, and the path under `/api/v1`; names in braces are parameters."""

    @property
    def mutates(self) -> bool:
        """Whether the method takes effect once per request id."""
        return issubclass(self.params, Mutation)


Handler = Callable[[Caller, Any], Awaitable[Struct]]
"""A method's handler, bound to its dependencies."""


def bind(methods: Iterable[Method[H]], parts: H) -> dict[str, Handler]:
    """Return the handlers of these methods by name, each bound to its dependencies."""
    return {one.name: functools.partial(one.handler, parts) for one in methods}
