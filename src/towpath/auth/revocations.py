"""Revocations: of one token, of all tokens of a user, or of all tokens of a tenant.

A revocation of a token concerns that token. A revocation of a user or tenant concerns all tokens
issued until `LEEWAY` after its time, since the issuer's clock may be ahead of ours by that much. A
user who logs in again after that is admitted. A token without an issue time counts as older. If
revocations may be missing from the log, one revocation of `EVERYBODY` replaces them all.
Revocations are publications in the control channel: every node receives them in the log's order,
and reads them there when it starts.

A revocation replaces the older ones that it covers. A revocation of a user covers those of the same
user, one of a tenant covers all of the tenant, one of `EVERYBODY` covers all. A revocation of a
tenant or of `EVERYBODY` at a time T covers those of tokens too: a token that was revoked at T or
before was issued at T + `LEEWAY` at the latest, because a token with a later issue time is refused
(`towpath.auth.tokens`).

Source: DESIGN section 7.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from towpath.auth.tokens import LEEWAY
from towpath.channels import CONTROL
from towpath.identity import Principal
from towpath.log.broker import Append, Item

EVERYBODY = ""
"""The tenant of a revocation that concerns all tenants; no principal can have it."""
KEEP_SECONDS = 30 * 24 * 3600.0
"""The minimum time a revocation is kept: longer than credentials should be valid."""
REPEAT_SECONDS = 24 * 3600.0
"""For how long a repeated revocation of the same token has no effect."""
MAX_REVOCATIONS = 50_000
"""How many revocations of one tenant are kept."""
MAX_TOTAL = 250_000
"""How many revocations of all tenants together are kept."""
SHARE = 100
"""How many revocations each tenant may have even if `MAX_TOTAL` is reached."""


class Revocation(Struct, frozen=True, kw_only=True, tag_field="type", tag="revocation"):
    """One revocation: of a token, of a user, or with neither given of a whole tenant."""

    tenant: str
    at: float
    """Unix seconds."""
    token_id: str | None = None
    """The `jti` of one token."""
    user: str | None = None

    @property
    def what(self) -> str:
        """What is revoked, in one word."""
        if self.token_id is not None:
            return "token"
        if self.user is not None:
            return "user"
        return "tenant" if self.tenant != EVERYBODY else "everybody"

    def names(self, principal: Principal) -> bool:
        """Whether it concerns this principal: connections that exist when it arrives are closed."""
        if self.tenant not in (principal.tenant, EVERYBODY):
            return False
        if self.token_id is not None:
            return principal.token_id == self.token_id
        return self.user in (None, principal.user)


class Compacted(Struct, frozen=True, kw_only=True, tag_field="type", tag="compacted"):
    """A part of all revocations in force; part 0 supersedes everything before it."""

    part: int
    revocations: tuple[Revocation, ...]


def control_item(said: Revocation | Compacted) -> Item:
    """Return the control channel's item for a revocation, or for a part of all in force."""
    return Item(msgspec.json.encode(said), {})


def announce(revocation: Revocation) -> Append:
    """Return the append that sends a revocation to every node."""
    return Append(CONTROL, (control_item(revocation),))


def revoke_everybody(at: float) -> Item:
    """Return the item that revokes all issued before `at`: for a log that lost revocations."""
    return control_item(Revocation(tenant=EVERYBODY, at=at))


@dataclass(slots=True)
class _Tenant:
    """The revocations of one tenant, each with its time."""

    tokens: dict[str, float] = field(default_factory=dict)
    moments: dict[str | None, float] = field(default_factory=dict)
    """By user; None is the whole tenant."""
    oldest: float = float("inf")
    """No entry is older than this time."""

    def __len__(self) -> int:
        return len(self.tokens) + len(self.moments)

    def holds(self, revocation: Revocation) -> bool:
        """Whether there is an entry that this revocation would replace."""
        if revocation.token_id is not None:
            return revocation.token_id in self.tokens
        return revocation.user in self.moments

    def put(self, revocation: Revocation) -> None:
        """Store a revocation; it replaces an older one of the same token, user or tenant."""
        if revocation.token_id is not None:
            self.tokens[revocation.token_id] = revocation.at
        else:
            self.moments[revocation.user] = revocation.at
        self.oldest = min(self.oldest, revocation.at)

    def drop(self, upto: float) -> None:
        """Drop the entries of this time and older ones."""
        if self.oldest <= upto:
            self.tokens = {token: at for token, at in self.tokens.items() if at > upto}
            self.moments = {user: at for user, at in self.moments.items() if at > upto}
            self.oldest = min((*self.tokens.values(), *self.moments.values()), default=float("inf"))


_NOTHING = _Tenant()


class Revocations:
    """The revocations this node has received."""

    def __init__(self, keep_seconds: float) -> None:
        """Start without revocations.

        Args:
            keep_seconds: the minimum time each is kept: longer than any credential is valid.
        """
        self._keep_seconds = keep_seconds
        self._tenants: dict[str, _Tenant] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Revocation]:
        """Yield all revocations in force, without those that others cover."""
        for name, tenant in self._tenants.items():
            for token, at in tenant.tokens.items():
                yield Revocation(tenant=name, at=at, token_id=token)
            for user, at in tenant.moments.items():
                yield Revocation(tenant=name, at=at, user=user)

    def covers(self, revocation: Revocation) -> bool:
        """Whether everything that this revocation concerns is revoked already."""
        own, moments = self._of(revocation.tenant), self._whole(revocation.tenant)
        if revocation.token_id is None:
            moments.append(own.moments.get(revocation.user))
        elif (known := own.tokens.get(revocation.token_id)) is not None:
            moments.append(known + REPEAT_SECONDS)
        return any(moment is not None and revocation.at <= moment for moment in moments)

    def admits(self, revocation: Revocation, now: float) -> bool:
        """Whether there is room for a revocation; no revocation in force is dropped to make room.

        There is always room for one that adds no entry, and for one of a whole tenant. The bound of
        the tenant comes before the bound of all: a tenant with fewer than `SHARE` entries has room
        however many entries the other tenants have.
        """
        name = revocation.tenant
        whole = revocation.token_id is None and revocation.user is None
        if whole or self._of(name).holds(revocation) or self.covers(revocation):
            return True
        if len(self._of(name)) >= MAX_REVOCATIONS or len(self) >= MAX_TOTAL:
            self._drop(now - self._keep_seconds, list(self._tenants))
        own = len(self._of(name))
        return own < MAX_REVOCATIONS and (len(self) < MAX_TOTAL or own < SHARE)

    def add(self, revocation: Revocation) -> bool:
        """Add a revocation; idempotent, in any order. Return whether it revokes anything new."""
        if self.covers(revocation):
            return False
        if revocation.token_id is None and revocation.user is None:
            name = revocation.tenant
            self._drop(revocation.at, list(self._tenants) if name == EVERYBODY else [name])
        own = self._tenants.setdefault(revocation.tenant, _Tenant())
        self._count += not own.holds(revocation)
        own.put(revocation)
        return True

    def revoked(self, principal: Principal) -> bool:
        """Whether the credential of this principal is revoked."""
        own, issued = self._of(principal.tenant), principal.issued_at
        if principal.token_id is not None and principal.token_id in own.tokens:
            return True
        moments = (*self._whole(principal.tenant), own.moments.get(principal.user))
        return any(
            moment is not None and (issued is None or issued <= moment + LEEWAY)
            for moment in moments
        )

    def _of(self, tenant: str) -> _Tenant:
        return self._tenants.get(tenant, _NOTHING)

    def _whole(self, tenant: str) -> list[float | None]:
        """Return the times of the revocations that concern all users of a tenant."""
        return [self._of(name).moments.get(None) for name in (tenant, EVERYBODY)]

    def _drop(self, upto: float, tenants: list[str]) -> None:
        """Drop the entries of these tenants of this time and older ones."""
        for name in tenants:
            own = self._of(name)
            self._count -= len(own)
            own.drop(upto)
            self._count += len(own)
            if not own:
                self._tenants.pop(name, None)
