"""Verifying JSON Web Tokens: one issuer, one key, one algorithm, and no exceptions.

A verdict is one of three. `Valid` carries the principal. `Invalid` says why, for our logs and in
one word for the client; it is final. `Unknown` means that nobody can tell now, and is never an
answer about the credential.

Source: RFC 7519, RFC 8725 (best current practices); DESIGN section 7.
"""

import json
from dataclasses import dataclass
from typing import Any, TypeGuard

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key

from towpath.context import Principal
from towpath.errors import ConfigurationError
from towpath.protocol.codec_json import too_deep

LEEWAY = 30.0
"""Seconds by which clocks may differ."""
MAX_TOKEN_BYTES = 16 * 1024
"""A longer credential is refused unread."""
MAX_SUBJECT_BYTES = 255
"""Longest tenant and user, in UTF-8."""
MAX_TIME = 253_402_300_799
"""The last second a calendar date can name (year 9999); a later time is no time."""


@dataclass(frozen=True, slots=True)
class Valid:
    """The credential is good; this is who."""

    principal: Principal


@dataclass(frozen=True, slots=True)
class Invalid:
    """The credential is not good, and will not be."""

    reason: str
    """For our own eyes; never holds a piece of the credential."""
    expired: bool = False
    """True where it was good once: the client gets 109 instead of 3500."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell now."""

    retry_after: float
    """Seconds."""


Verdict = Valid | Invalid | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Whose tokens are taken, and how they are read."""

    issuer: str | None
    """The exact `iss`; None where the key alone says who signed."""
    audience: str | None
    """What `aud` must be or contain; None where none is asked for."""
    key: Key
    algorithm: str
    """The one algorithm this key is used with."""
    tenant_claim: str | None
    """The claim that is the tenant."""
    tenant: str | None
    """The one tenant of this issuer, where no claim tells."""
    roles_claim: str = "roles"
    """The claim that lists roles; none by default."""

    def __post_init__(self) -> None:
        if (self.tenant_claim is None) == (self.tenant is None):
            raise ConfigurationError(
                "an issuer needs to say whose its users are: name the claim that is the tenant "
                "(TOWPATH_TENANT_CLAIM), or one fixed tenant (TOWPATH_TENANT)"
            )


class TokenVerifier:
    """Verifies the tokens of one issuer. Needs no network, so it never answers Unknown."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    def verify(self, token: str, now: float) -> Verdict:
        """Return the verdict about a token.

        Args:
            token: as it was presented.
            now: Unix time in seconds.
        """
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            return Invalid("too long or not ASCII")
        try:
            decoded = jwt.decode(
                token,
                self._issuer.key,
                algorithms=[self._issuer.algorithm],
                decoder_cls=_ClaimsDecoder,
            )
            claims: object = decoded.claims
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            return Invalid(f"not a token of ours: {type(error).__name__}")
        if not isinstance(claims, dict):
            return Invalid("claims are no object")
        return self._judge(claims, now)

    def _judge(self, claims: dict[str, Any], now: float) -> Verdict:
        issuer = self._issuer
        if issuer.issuer is not None and claims.get("iss") != issuer.issuer:
            return Invalid("another issuer")
        if issuer.audience is not None and not _contains(claims.get("aud"), issuer.audience):
            return Invalid("another audience")
        expires, starts, issued = claims.get("exp"), claims.get("nbf", 0), claims.get("iat", 0)
        if not _is_time(expires) or not _is_time(starts) or not _is_time(issued):
            return Invalid("exp is missing, or a time is no number")
        if now < max(starts, issued) - LEEWAY:
            return Invalid("not valid yet")
        user = claims.get("sub")
        tenant = claims.get(issuer.tenant_claim) if issuer.tenant_claim else issuer.tenant
        if not _is_name(user) or not _is_name(tenant):
            return Invalid("sub or tenant is missing")
        if now >= expires + LEEWAY:
            return Invalid("expired", expired=True)
        token_id = claims.get("jti")
        return Valid(
            Principal(
                tenant=tenant,
                user=user,
                roles=_roles(claims.get(issuer.roles_claim)),
                expires_at=float(expires),
                token_id=token_id if isinstance(token_id, str) else None,
            )
        )


class _ClaimsDecoder(json.JSONDecoder):
    """Refuses an object that names a member twice (RFC 7519 section 4), and deep nesting.

    How deep an interpreter gets by itself differs from one to the next; a verdict may not.
    """

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_unique)

    def decode(self, text: str, *args: Any) -> Any:
        if too_deep(text.encode()):
            raise ValueError("nested too deep")
        return super().decode(text, *args)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is named twice")
    return members


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_TIME


def _is_name(value: object) -> TypeGuard[str]:
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        return len(value.encode()) <= MAX_SUBJECT_BYTES
    except UnicodeEncodeError:
        return False


def _contains(audience: object, wanted: str) -> bool:
    return audience == wanted or (isinstance(audience, list) and wanted in audience)


def _roles(value: object) -> frozenset[str]:
    return frozenset(filter(_is_name, value)) if isinstance(value, list) else frozenset()
