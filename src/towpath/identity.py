"""The caller's identity: the verified principal, and the context that application code passes on.

Only verification makes a `Principal`: strings from a verified issuer are opaque and taken as they
are. A `UserExecutionContext` is built by application code, which may forget an id. So it refuses
blank and placeholder ids: with `tenant="default"`, one person's answer could reach another.
"""

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from towpath.errors import TowpathError

PLACEHOLDERS = frozenset(
    [
        "registry",
        "placeholder",
        "default",
        "temp",
        "none",
        "null",
        "undefined",
        "example",
        "test",
        "demo",
        "sample",
        "template",
        "mock",
        "fake",
        "dummy",
        "0",
        "1",
        "xxx",
        "yyy",
    ]
)
"""Placeholder words that are refused as ids; compared case-insensitively."""
DEMO_TENANT = "demo"
"""The tenant of the demo users of `towpath serve --dev`; as a tenant it is not a placeholder."""
PLACEHOLDER_PREFIX_LENGTH = 20
"""An id shorter than this that starts with a placeholder word and `_` is a placeholder."""
MAX_DEPTH = 10
"""How many levels of child contexts there may be."""


class InvalidContext(TowpathError):
    """A context was built from a blank or placeholder id, or nested too deep."""

    def __init__(self, field_name: str, reason: str) -> None:
        super().__init__(field_name, reason)
        self.field_name = field_name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field_name} {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A verified identity. Only a verifier makes one; no client input changes it."""

    tenant: str
    user: str
    roles: frozenset[str] = frozenset()
    expires_at: float | None = None
    """When the credential expires, in Unix seconds; None if it does not expire."""
    token_id: str | None = None
    """The credential's `jti`, by which it may be revoked."""
    issued_at: float | None = None
    """Its `iat`, in Unix seconds: a revocation ends credentials issued before it."""
    issuer: str | None = None
    """The issuer of the credential; None for an issuer that is configured without a name."""

    def same_person(self, other: "Principal") -> bool:
        """Whether a new credential with the principal `other` may replace this one."""
        return (self.tenant, self.user) == (other.tenant, other.user)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserExecutionContext:
    """The identity under which work runs: its tenant and user, its thread, its run.

    The constructor raises InvalidContext for a blank or placeholder id. User ids come from the
    identity provider and are opaque: only blank ones are refused.
    """

    tenant: str
    user: str
    thread: str | None = None
    run: str | None = None
    request: str = field(default_factory=lambda: uuid.uuid4().hex)
    connection: str | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    expires: datetime | None = None
    roles: frozenset[str] = frozenset()
    depth: int = 0
    verified: bool = field(default=False, repr=False, compare=False)
    """Whether the ids come from a verified principal and the wire, where they are opaque."""

    def __post_init__(self) -> None:
        for name in ("tenant", "user", "request"):
            _refuse_blank(name, getattr(self, name))
        for name in ("tenant", "thread", "run", "request", "connection"):
            value = getattr(self, name)
            if value is not None:
                _refuse_blank(name, value)
                if not self.verified and (name, value) != ("tenant", DEMO_TENANT):
                    _refuse_placeholder(name, value)
        if not 0 <= self.depth <= MAX_DEPTH:
            raise InvalidContext("depth", f"must be 0 to {MAX_DEPTH}")

    @classmethod
    def of(
        cls,
        principal: Principal,
        *,
        thread: str | None = None,
        run: str | None = None,
        connection: str | None = None,
    ) -> "UserExecutionContext":
        """Return the context of a verified principal; its ids are taken as they are."""
        expires = principal.expires_at
        return cls(
            tenant=principal.tenant,
            user=principal.user,
            roles=principal.roles,
            thread=thread,
            run=run,
            connection=connection,
            expires=datetime.fromtimestamp(expires, UTC) if expires is not None else None,
            verified=True,
        )

    def create_child_context(
        self, *, thread: str | None = None, run: str | None = None
    ) -> "UserExecutionContext":
        """Return a context one level deeper for the same person, with a request id of its own."""
        return replace(
            self,
            thread=thread or self.thread,
            run=run or self.run,
            request=uuid.uuid4().hex,
            depth=self.depth + 1,
        )

    def get_scoped_key(self, key: str) -> str:
        """Return `key` made unique to this tenant and user, for an application's caches."""
        parts = (self.tenant, self.user, key)
        return "".join(f"{len(part)}:{part}" for part in parts)

    def verify_isolation(self, other: "UserExecutionContext") -> bool:
        """Whether both contexts are one person's, or share no request, run or connection id."""
        if self is other or (self.tenant, self.user) == (other.tenant, other.user):
            return True
        shared = {self.request, self.run, self.connection} & {
            other.request,
            other.run,
            other.connection,
        }
        return not (shared - {None})

    def to_dict(self) -> dict[str, Any]:
        """Return the ids and times as plain values; a context contains no secret."""
        return {
            "tenant": self.tenant,
            "user": self.user,
            "thread": self.thread,
            "run": self.run,
            "request": self.request,
            "connection": self.connection,
            "created": self.created.isoformat(),
            "expires": self.expires.isoformat() if self.expires else None,
            "roles": sorted(self.roles),
            "depth": self.depth,
        }


def _refuse_blank(name: str, value: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidContext(name, "is blank")


def _refuse_placeholder(name: str, value: str) -> None:
    word = value.strip().lower()
    head = word.partition("_")[0]
    short = len(word) < PLACEHOLDER_PREFIX_LENGTH
    if word in PLACEHOLDERS or ("_" in word and short and head in PLACEHOLDERS):
        raise InvalidContext(name, f"is a placeholder: {value!r}")
