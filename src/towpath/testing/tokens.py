"""Signed tokens for tests: real ones, verified as every token is."""

import json
import time
from collections.abc import Callable, Iterable

from joserfc.jwk import OctKey
from pydantic import SecretStr

from towpath.auth.development import DEVELOPMENT_ISSUER, sign
from towpath.settings import Settings


class TokenSigner:
    """Signs tokens with a key of its own; only a gateway that was given the key accepts them."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        """Make a signer with a new random key.

        Args:
            now: returns Unix seconds; `VirtualClock.now` where the gateway uses that clock.
        """
        self.key = OctKey.generate_key(256)
        """The key; symmetric, for HS256."""
        self._now = now

    def token(
        self,
        user: str = "alice",
        *,
        tenant: str = "acme",
        roles: Iterable[str] = (),
        expires_in: float = 3600.0,
    ) -> str:
        """Return a signed token.

        Args:
            user: its `sub`.
            tenant: the tenant of the user.
            roles: what the user may do, such as `towpath:service`.
            expires_in: seconds until the token expires; negative for one that has expired.
        """
        now = self._now()
        return sign(self.key, user=user, tenant=tenant, roles=roles, now=now, ttl=expires_in)

    def configure(self, settings: Settings) -> Settings:
        """Return the same settings with this signer as the only issuer.

        Assign the result to `gateway.settings` before the lifespan of the gateway begins.
        """
        key = SecretStr(json.dumps(self.key.as_dict(private=True)))
        issuer = {"jwt_issuer": DEVELOPMENT_ISSUER, "jwt_key": key, "tenant_claim": "tenant"}
        unset = dict.fromkeys(("jwt_audience", "jwt_algorithm", "jwks_url", "tenant"))
        return settings.model_copy(
            update={**unset, **issuer, "roles_claim": "roles", "issuers": ()}
        )
