"""What was taken back: one token, all of a person's, or all of a tenant's.

A revocation of a token concerns that token. One of a person or tenant concerns what was issued up
to its moment, so that whoever logs in again afterwards is let in: after `LEEWAY`, since the
issuer's clock may be ahead of ours by that much; a token that does not say when it was issued
counts as older. Where damage to the log may have taken revocations with it, one of `EVERYBODY`
stands for them all. Revocations are publications in the control channel: every node hears of them
in the log's order, and finds them there when it starts.

Source: DESIGN section 7.
"""

from msgspec import Struct

from towpath.auth.tokens import LEEWAY
from towpath.context import Principal

EVERYBODY = ""
"""The tenant of a revocation that concerns all tenants; no principal can have it."""
KEEP_SECONDS = 30 * 24 * 3600.0
"""How long a revocation is kept at least: longer than credentials should live."""
MAX_REVOCATIONS = 50_000
"""How many are kept at once; half of what the control channel keeps."""


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


class Revocations:
    """The revocations this node has heard of."""

    def __init__(self, keep_seconds: float) -> None:
        """Have heard of none.

        Args:
            keep_seconds: how long each counts: longer than any credential lives.
        """
        self._keep_seconds = keep_seconds
        self._tokens: dict[tuple[str, str | None], float] = {}
        self._moments: dict[tuple[str, str | None], float] = {}

    def __len__(self) -> int:
        return len(self._tokens) + len(self._moments)

    def full(self, now: float) -> bool:
        """Whether there is no room for more; what still counts is never forgotten to make some."""
        if len(self) >= MAX_REVOCATIONS:
            for kept in (self._tokens, self._moments):
                for key in [key for key, at in kept.items() if at < now - self._keep_seconds]:
                    del kept[key]
        return len(self) >= MAX_REVOCATIONS

    def add(self, revocation: Revocation) -> None:
        """Take note of one; idempotent, in any order."""
        key: tuple[str, str | None]
        if revocation.token_id is not None:
            kept, key = self._tokens, (revocation.tenant, revocation.token_id)
        else:
            kept, key = self._moments, (revocation.tenant, revocation.user)
        kept[key] = max(revocation.at, kept.get(key, revocation.at))

    def revoked(self, principal: Principal) -> bool:
        """Whether a credential that says this is taken back."""
        tenant, issued = principal.tenant, principal.issued_at
        if principal.token_id is not None and (tenant, principal.token_id) in self._tokens:
            return True
        keys = ((tenant, principal.user), (tenant, None), (EVERYBODY, None))
        moments = map(self._moments.get, keys)
        return any(
            moment is not None and (issued is None or issued <= moment + LEEWAY)
            for moment in moments
        )
