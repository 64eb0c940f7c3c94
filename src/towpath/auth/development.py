"""The development issuer: a key of our own in a data directory, and tokens signed with it."""

import contextlib
import json
import os
import secrets
import uuid
from collections.abc import Iterable
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, OctKey

from towpath.auth.keys import weakness
from towpath.auth.tokens import Issuer
from towpath.errors import ConfigurationError

DEVELOPMENT_ISSUER = "towpath-dev"
"""The `iss` of tokens signed with a development key."""


def development_key(data: Path) -> OctKey:
    """Return a data directory's development key; create it on first use, readable by its owner.

    Raises:
        ConfigurationError: the key can be neither read nor created.
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
    if key is None or weakness(key) is not None:
        raise ConfigurationError(f"{path} is not a usable key: remove the file to create a new key")
    return key


def _write_once(path: Path, text: str) -> None:
    """Create a file that only its owner can read; a file that exists already is kept."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def development_issuer() -> Issuer:
    """Return the issuer whose tokens `sign` makes."""
    return Issuer(
        issuer=DEVELOPMENT_ISSUER,
        audience=None,
        algorithms=frozenset({"HS256"}),
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
