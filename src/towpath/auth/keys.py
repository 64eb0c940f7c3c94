"""Keys: the configured one of an issuer, and the development key of a data directory."""

import contextlib
import json
import os
import secrets
import uuid
from collections.abc import Iterable
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey, import_key

from towpath.auth.tokens import Issuer
from towpath.errors import ConfigurationError

DEVELOPMENT_ISSUER = "towpath-dev"
"""The `iss` of tokens signed with a development key."""
SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})
ALGORITHMS = SYMMETRIC | {"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"}
"""What a configured key may be used with."""
MIN_SECRET_BYTES = 32
"""A shorter shared secret is refused."""


def configured_key(text: str, algorithm: str) -> Key:
    """Return an issuer's key from configuration: a JWK, a PEM public key, or a shared secret.

    Raises:
        ConfigurationError: the algorithm is not taken, or the text is no key for it.
    """
    if algorithm not in ALGORITHMS:
        known = ", ".join(sorted(ALGORITHMS))
        raise ConfigurationError(f"algorithm {algorithm!r} is not taken: use one of {known}")
    key_type = _key_type(algorithm)
    try:
        is_jwk = text.lstrip().startswith("{")
        key = import_key(json.loads(text)) if is_jwk else key_type.import_key(text)
    except (JoseError, ValueError) as error:
        raise ConfigurationError(f"the key is none for {algorithm}: {error}") from None
    if not isinstance(key, key_type):
        raise ConfigurationError(f"the key is none for {algorithm}: it is of type {key.key_type}")
    if isinstance(key, OctKey) and len(key.raw_value) < MIN_SECRET_BYTES:
        raise ConfigurationError(f"a shared secret needs at least {MIN_SECRET_BYTES} bytes")
    return key


def _key_type(algorithm: str) -> type[OctKey] | type[RSAKey] | type[ECKey] | type[OKPKey]:
    if algorithm in SYMMETRIC:
        return OctKey
    if algorithm == "EdDSA":
        return OKPKey
    return ECKey if algorithm.startswith("ES") else RSAKey


def development_key(data: Path) -> OctKey:
    """Return the development key of a data directory, making it on first use, readable by us alone.

    Raises:
        ConfigurationError: it can neither be read nor made.
    """
    path = data / "dev-key.json"
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write_once(path, json.dumps(OctKey.generate_key(256).as_dict(private=True)))
        key = OctKey.import_key(json.loads(path.read_text()))
    except OSError as error:
        raise ConfigurationError(f"cannot use {path}: {error.strerror}") from None
    except (JoseError, ValueError, TypeError):
        key = None
    if key is None or len(key.raw_value) < MIN_SECRET_BYTES:
        raise ConfigurationError(f"{path} is no key: remove it to have a new one made")
    return key


def _write_once(path: Path, text: str) -> None:
    """Make a file only we can read; whoever made it first wins."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def development_issuer(key: Key) -> Issuer:
    """Return the issuer whose tokens `sign` makes."""
    return Issuer(
        issuer=DEVELOPMENT_ISSUER,
        audience=None,
        key=key,
        algorithm="HS256",
        tenant_claim="tenant",
        tenant=None,
    )


def sign(
    key: Key, *, user: str, tenant: str, roles: Iterable[str] = (), now: float, ttl: float
) -> str:
    """Return a token of the development issuer, valid for `ttl` seconds from `now`."""
    claims = {
        "iss": DEVELOPMENT_ISSUER,
        "sub": user,
        "tenant": tenant,
        "roles": list(roles),
        "iat": int(now),
        "exp": int(now + ttl),
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode({"alg": "HS256"}, claims, key)
