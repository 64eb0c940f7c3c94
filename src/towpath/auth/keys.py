"""Keys: the algorithms of each key, the configured key of an issuer, and published key sets.

The algorithms of a key follow from the key itself (its type, its curve, its own `alg`), never from
a token. So no token can make the server use a public key as a shared secret.

Source: RFC 7517, RFC 7518; RFC 8725 sections 3.1 and 3.2.
"""

import json
from collections.abc import Iterable
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey, import_key

from towpath.errors import ConfigurationError

SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})
RSA = frozenset({"RS256", "RS384", "RS512", "PS256"})
CURVES = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "Ed25519": frozenset({"EdDSA", "Ed25519"}),
}
"""The algorithms of a key on each curve."""
ASYMMETRIC = RSA.union(*CURVES.values())
"""The algorithms of fetched keys: none with a shared secret."""
ALGORITHMS = SYMMETRIC | ASYMMETRIC
"""The algorithms of configured keys."""
MIN_SECRET_BYTES = 32
"""A shorter shared secret is refused."""
MIN_RSA_BITS = 2048
"""A shorter RSA key is refused (RFC 7518 section 3.3)."""
MAX_KEYS = 100
"""How many keys of a published set are read."""


class FixedKey:
    """The one configured key of an issuer; see `towpath.auth.tokens.Keys`."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._algorithms = algorithms_of(key)

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key, whatever key id the token names."""
        return self._key if algorithm in self._algorithms else None

    async def successor(self, key: Key, kid: str | None, algorithm: str) -> Key | None:
        """Return None: a configured key is never replaced."""
        return None


class KeyRing:
    """The keys of a published set, by id and algorithm."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_name: dict[tuple[str, str], Key] = {}
        self._by_algorithm: dict[str, list[Key]] = {}
        for key in keys:
            for algorithm in algorithms_of(key):
                self._by_algorithm.setdefault(algorithm, []).append(key)
                if key.kid is not None:
                    self._by_name.setdefault((key.kid, algorithm), key)

    def __len__(self) -> int:
        return len({id(key) for keys in self._by_algorithm.values() for key in keys})

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key of this id, or without an id the algorithm's only key; None if none."""
        if kid is not None:
            return self._by_name.get((kid, algorithm))
        candidates = self._by_algorithm.get(algorithm, [])
        return candidates[0] if len(candidates) == 1 else None


def read_key_set(document: Any) -> KeyRing:
    """Return the usable keys of a JWK Set: public keys for signatures, of sufficient strength.

    An unusable key is skipped, whatever the reason: a provider may also publish keys of kinds that
    we do not accept.

    Raises:
        ValueError: the document is not a key set, or holds no usable key.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a key set")
    ring = KeyRing(key for entry in entries[:MAX_KEYS] if (key := _read_key(entry)) is not None)
    if not len(ring):
        raise ValueError("a key set without a usable key")
    return ring


def _read_key(entry: Any) -> Key | None:
    """Return one published key; None if it is unusable for verifying signatures."""
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if entry.get("use", "sig") != "sig":
        return None
    members = ("kty", "kid", "alg", "n", "e", "crv", "x", "y")
    try:
        key = import_key({name: entry[name] for name in members if name in entry})
        usable = not weakness(key) and algorithms_of(key) and isinstance(key.kid, str | None)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if usable else None


def algorithms_of(key: Key) -> frozenset[str]:
    """Return the algorithms of a key; empty for a key that is not for signatures."""
    if isinstance(key, OctKey):
        possible = SYMMETRIC
    elif isinstance(key, RSAKey):
        possible = RSA
    else:
        possible = CURVES.get(key.curve_name, frozenset())
    own = key.get("alg")
    return possible if own is None else possible & {own}


def weakness(key: Key) -> str | None:
    """Return why a key is too weak to be used; None if it is strong enough."""
    if isinstance(key, OctKey) and len(key.raw_value) < MIN_SECRET_BYTES:
        return f"a shared secret needs at least {MIN_SECRET_BYTES} bytes"
    if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS:
        return f"an RSA key needs at least {MIN_RSA_BITS} bits"
    return None


def configured_key(text: str, algorithm: str) -> Key:
    """Return an issuer's key from configuration: a JWK, a PEM public key, or a shared secret.

    Raises:
        ConfigurationError: the algorithm is not supported, the text is not a key for it, or the
            key is too weak.
    """
    if algorithm not in ALGORITHMS:
        known = ", ".join(sorted(ALGORITHMS))
        raise ConfigurationError(f"algorithm {algorithm!r} is not supported: use one of {known}")
    try:
        is_jwk = text.lstrip().startswith("{")
        kind = OctKey if algorithm in SYMMETRIC else _pem_type(algorithm)
        key = import_key(json.loads(text)) if is_jwk else kind.import_key(text)
    except (JoseError, ValueError) as error:
        raise ConfigurationError(f"the key is invalid for {algorithm}: {error}") from None
    if algorithm not in algorithms_of(key):
        made_for = ", ".join(sorted(algorithms_of(key))) or "no supported algorithm"
        raise ConfigurationError(f"the key is invalid for {algorithm}: it is a key for {made_for}")
    if (reason := weakness(key)) is not None:
        raise ConfigurationError(reason)
    return key


def _pem_type(algorithm: str) -> type[RSAKey] | type[ECKey] | type[OKPKey]:
    if algorithm in CURVES["Ed25519"]:
        return OKPKey
    return ECKey if algorithm.startswith("ES") else RSAKey
