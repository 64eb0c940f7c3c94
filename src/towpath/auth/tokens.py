"""Verification of JSON Web Tokens, by a configured issuer, its keys and their algorithms.

The content of a token only selects from our own configuration: its `kid` and `alg` select one of
the issuer's keys, and a key is used only with the algorithms it was made for. Keys in a token, and
addresses of keys in a token, are ignored.

Source: RFC 7515, RFC 7519, RFC 8725 (best current practices); DESIGN section 7.
"""

import binascii
import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import Key

from towpath.auth.verdicts import Invalid, Unknown, Valid, Verdict
from towpath.errors import ConfigurationError, TowpathError
from towpath.identity import Principal
from towpath.json_bounds import too_deep

LEEWAY = 30.0
"""Seconds by which clocks may differ."""
MAX_TOKEN_BYTES = 16 * 1024
"""A longer credential is refused unread."""
MAX_SUBJECT_BYTES = 255
"""The longest tenant and user, in UTF-8."""
MAX_KID_CHARACTERS = 256
"""A longer key id is invalid."""
MAX_TIME = 253_402_300_799
"""The last second a calendar date can name (year 9999); a later time is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer whose tokens are accepted, and how its tokens are read."""

    issuer: str | None
    """The exact `iss`; None if only the key identifies the signer."""
    audience: str | None
    """What `aud` must be or contain; None if no audience is required."""
    algorithms: frozenset[str]
    """The algorithms of its tokens; each key is used only with those it is made for."""
    tenant_claim: str | None
    """The claim that holds the tenant: a name, or a JSON pointer (`/realm/tenant`)."""
    tenant: str | None
    """The one tenant of this issuer, if no claim holds it."""
    roles_claim: str = "roles"
    """The claim that lists roles: a name, or a JSON pointer. Without the claim there are none."""

    def __post_init__(self) -> None:
        if bool(self.tenant_claim) == bool(self.tenant):
            raise ConfigurationError(
                "an issuer needs a tenant: name the claim that holds the tenant "
                "(TOWPATH_TENANT_CLAIM), or one fixed tenant (TOWPATH_TENANT)"
            )


class KeysUnavailable(TowpathError):
    """The key that a token names cannot be fetched now; this is no verdict on the token."""

    def __init__(self, reason: str, retry_after: float = 0.0, *, suspect: bool = False) -> None:
        super().__init__(reason, retry_after)
        self.reason = reason
        self.retry_after = retry_after
        """Seconds until a retry may help."""
        self.suspect = suspect
        """True if the token is a likelier cause than an outage."""

    def __str__(self) -> str:
        return self.reason


class Keys(Protocol):
    """The keys of an issuer."""

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key for this id and algorithm; None if the issuer has none.

        Raises:
            KeysUnavailable: the key cannot be looked up now.
        """

    async def successor(self, key: Key, kid: str | None, algorithm: str) -> Key | None:
        """Return the key that has replaced a key; None if none has.

        Raises:
            KeysUnavailable: the key cannot be looked up now.
        """


class TokenVerifier:
    """Verifies the tokens of one issuer; see `towpath.auth.service.Verifier`."""

    def __init__(self, issuer: Issuer, keys: Keys) -> None:
        self._issuer = issuer
        self._keys = keys

    def takes(self, credential: str) -> bool:
        """Whether a token claims this issuer."""
        return self._issuer.issuer is None or claimed_issuer(credential) == self._issuer.issuer

    async def verify(self, credential: str, now: float) -> Verdict:
        """Return the verdict about a token.

        Args:
            credential: as it was presented.
            now: Unix time in seconds.
        """
        if len(credential) > MAX_TOKEN_BYTES or not credential.isascii():
            return Invalid("too long or not ASCII")
        header = _read_part(credential, 0)
        if header is None:
            return Invalid("not a token")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._issuer.algorithms:
            return Invalid("not an algorithm of this issuer")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= MAX_KID_CHARACTERS):
            return Invalid("the key id is invalid")
        try:
            return await self._verify(credential, kid, algorithm, now)
        except KeysUnavailable as outage:
            return Unknown(outage.reason, outage.retry_after, suspect=outage.suspect)

    async def _verify(
        self, credential: str, kid: str | None, algorithm: str, now: float
    ) -> Verdict:
        """Find the key and read the token with it.

        Raises:
            KeysUnavailable: the key cannot be looked up now.
        """
        key = await self._keys.find(kid, algorithm)
        if key is None:
            return Invalid("not a key of this issuer")
        try:
            return self._read(credential, key, algorithm, now)
        except BadSignatureError:
            # Without a key id, only a bad signature shows that the key may have been replaced.
            newer = await self._keys.successor(key, kid, algorithm) if kid is None else None
        if newer is None:
            return Invalid("not signed with a key of this issuer")
        try:
            return self._read(credential, newer, algorithm, now)
        except BadSignatureError:
            return Invalid("not signed with a key of this issuer")

    def _read(self, credential: str, key: Key, algorithm: str, now: float) -> Verdict:
        """Return the verdict about a token, verified with one key.

        Raises:
            BadSignatureError: the token is not signed with this key.
        """
        try:
            decoded = jwt.decode(
                credential, key, algorithms=[algorithm], decoder_cls=_StrictDecoder
            )
            claims: object = decoded.claims
        except BadSignatureError:
            raise
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
        user = claims.get("sub")
        tenant = _claim(claims, issuer.tenant_claim) if issuer.tenant_claim else issuer.tenant
        if not _is_name(user) or not _is_name(tenant):
            return Invalid("sub or tenant is missing")
        if now < max(starts, issued) - LEEWAY:
            return Invalid("not valid yet", passing=True)
        if now >= expires + LEEWAY:
            return Invalid("expired", expired=True)
        token_id = claims.get("jti")
        return Valid(
            Principal(
                tenant=tenant,
                user=user,
                roles=_roles(_claim(claims, issuer.roles_claim)),
                expires_at=float(expires),
                token_id=token_id if isinstance(token_id, str) else None,
                issued_at=float(issued) if "iat" in claims else None,
                issuer=issuer.issuer,
            )
        )


def claimed_issuer(token: str) -> str | None:
    """Return the unverified `iss` of a token; it only selects the verifier of the token."""
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        return None
    claims = _read_part(token, 1)
    issuer = claims.get("iss") if claims is not None else None
    return issuer if isinstance(issuer, str) else None


class _StrictDecoder(json.JSONDecoder):
    """Refuses an object that names a member twice (RFC 7519 section 4), and deep nesting.

    The depth that an interpreter can read differs between interpreters; the verdict must not.
    """

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_unique)

    def decode(self, text: str, *args: Any) -> Any:
        if too_deep(text.encode()):
            raise ValueError("nested too deep")
        return super().decode(text, *args)


def _read_part(token: str, part: int) -> dict[str, Any] | None:
    """Return the header (0) or the claims (1) of a compact token; None if it is invalid."""
    segments = token.split(".")
    if len(segments) != 3:
        return None
    try:
        text = urlsafe_b64decode(segments[part] + "=" * (-len(segments[part]) % 4)).decode()
        value = _StrictDecoder().decode(text)
    except (ValueError, binascii.Error, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is named twice")
    return members


def _claim(claims: dict[str, Any], name: str) -> object:
    """Return a claim by name, or by JSON pointer (RFC 6901) if the name begins with a slash."""
    if not name.startswith("/"):
        return claims.get(name)
    value: object = claims
    for step in name[1:].split("/"):
        member = step.replace("~1", "/").replace("~0", "~")
        value = value.get(member) if isinstance(value, dict) else None
    return value


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
