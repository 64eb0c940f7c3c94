"""What was taken back: one token, all of a person's, or all of a tenant's.

A revocation of a token concerns that token. One of a person or tenant concerns what was issued up
to its moment, so that whoever logs in again afterwards is let in: after `LEEWAY`, since the
issuer's clock may be ahead of ours by that much; a token that does not say when it was issued
counts as older. Where revocations may be missing from the log, one of `EVERYBODY` stands for them
all. Revocations are publications in the control channel: every node hears of them in the log's
order, and finds them there when it starts.

A revocation takes the place of older ones that it covers: one of a user that of the same user, one
of a tenant all of the tenant, one of `EVERYBODY` all. It covers those of tokens too: a token that
was revoked at its moment or before was issued `LEEWAY` after that at most, since a token that was
issued later is refused (`towpath.auth.tokens`).

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
"""How long a revocation is kept at least: longer than credentials should live."""
REPEAT_SECONDS = 24 * 3600.0
"""For how long it changes nothing to revoke a token once more."""
MAX_REVOCATIONS = 50_000
"""How many are kept of one tenant."""
MAX_TOTAL = 250_000
"""How many are kept of all tenants together."""
SHARE = 100
"""How many of each tenant are kept, however many of the others there are."""


class Revocation(Struct, frozen=True, kw_only=True, tag_field="type", tag="revocation"):
    """One thing taken back: a token, a user's, or with neither given all of a tenant's."""

    tenant: str
    at: float
    """Unix seconds."""
    token_id: str | None = None
    """The `jti` of one token."""
    user: str | None = None

    @property
    def what(self) -> str:
        """In a word, what is taken back."""
        if self.token_id is not None:
            return "token"
        if self.user is not None:
            return "user"
        return "tenant" if self.tenant != EVERYBODY else "everybody"

    def names(self, principal: Principal) -> bool:
        """Whether it is about this principal: what was there when it came ends with it."""
        if self.tenant not in (principal.tenant, EVERYBODY):
            return False
        if self.token_id is not None:
            return principal.token_id == self.token_id
        return self.user in (None, principal.user)


class Compacted(Struct, frozen=True, kw_only=True, tag_field="type", tag="compacted"):
    """A part of all revocations that count; nothing counts that was said before part 0."""

    part: int
    revocations: tuple[Revocation, ...]


def control_item(said: Revocation | Compacted) -> Item:
    """Return what the control channel holds for a revocation, or for a part of all that count."""
    return Item(msgspec.json.encode(said), {})


def announce(revocation: Revocation) -> Append:
    """Return the append by which every node learns of a revocation."""
    return Append(CONTROL, (control_item(revocation),))


def revoke_everybody(at: float) -> Item:
    """Return what revokes everything issued before `at`: for a log that has lost revocations."""
    return control_item(Revocation(tenant=EVERYBODY, at=at))


@dataclass(slots=True)
class _Tenant:
    """What was taken back in one tenant, each with its moment."""

    tokens: dict[str, float] = field(default_factory=dict)
    moments: dict[str | None, float] = field(default_factory=dict)
    """By user; None is the whole tenant."""
    oldest: float = float("inf")
    """No moment is older than this one."""

    def __len__(self) -> int:
        return len(self.tokens) + len(self.moments)

    def holds(self, revocation: Revocation) -> bool:
        """Whether there is an entry whose place this revocation would take."""
        if revocation.token_id is not None:
            return revocation.token_id in self.tokens
        return revocation.user in self.moments

    def put(self, revocation: Revocation) -> None:
        """Keep a revocation, in place of an older one of the same."""
        if revocation.token_id is not None:
            self.tokens[revocation.token_id] = revocation.at
        else:
            self.moments[revocation.user] = revocation.at
        self.oldest = min(self.oldest, revocation.at)

    def drop(self, upto: float) -> None:
        """Drop what is as old as this moment, or older."""
        if self.oldest <= upto:
            self.tokens = {token: at for token, at in self.tokens.items() if at > upto}
            self.moments = {user: at for user, at in self.moments.items() if at > upto}
            self.oldest = min((*self.tokens.values(), *self.moments.values()), default=float("inf"))


_NOTHING = _Tenant()


class Revocations:
    """The revocations this node has heard of."""

    def __init__(self, keep_seconds: float) -> None:
        """Have heard of none.

        Args:
            keep_seconds: how long each counts: longer than any credential lives.
        """
        self._keep_seconds = keep_seconds
        self._tenants: dict[str, _Tenant] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Revocation]:
        """Yield all that count; those that others cover are not among them."""
        for name, tenant in self._tenants.items():
            for token, at in tenant.tokens.items():
                yield Revocation(tenant=name, at=at, token_id=token)
            for user, at in tenant.moments.items():
                yield Revocation(tenant=name, at=at, user=user)

    def covers(self, revocation: Revocation) -> bool:
        """Whether all that this revocation takes back is taken back already."""
        own, moments = self._of(revocation.tenant), self._whole(revocation.tenant)
        if revocation.token_id is None:
            moments.append(own.moments.get(revocation.user))
        elif (known := own.tokens.get(revocation.token_id)) is not None:
            moments.append(known + REPEAT_SECONDS)
        return any(moment is not None and revocation.at <= moment for moment in moments)

    def admits(self, revocation: Revocation, now: float) -> bool:
        """Whether there is room for a revocation; what still counts is never dropped to make some.

        One that adds no entry has room always, and so has one of a whole tenant. The bound of
        the tenant comes before the bound of all: a tenant that keeps little has room however much
        the others keep.
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
        """Take note of one; idempotent, in any order. Return whether it takes back anything new."""
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
        """Whether a credential that says this is taken back."""
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
        """Return the moments that concern everybody in a tenant."""
        return [self._of(name).moments.get(None) for name in (tenant, EVERYBODY)]

    def _drop(self, upto: float, tenants: list[str]) -> None:
        """Drop what is as old as this moment, or older, of these tenants."""
        for name in tenants:
            own = self._of(name)
            self._count -= len(own)
            own.drop(upto)
            self._count += len(own)
            if not own:
                self._tenants.pop(name, None)
