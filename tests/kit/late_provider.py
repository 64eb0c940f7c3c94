"""An identity provider without a network, which answers when the explorer likes, or does not.

It stands where the HTTP client sends its requests. Each call takes as long as the explorer says,
before and after the answer is made, and ends in one of `outcomes`. Its keys and tokens are real.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum

import detangle
import httpx2
import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

ISSUER = "https://id.example"
AUDIENCE = "towpath"
EPOCH = 1_700_000_000.0
"""The Unix time at which every exploration begins."""
MOMENTS = (0.0, 0.1, 0.2, 0.3)
"""How long things take, in virtual seconds."""


class Outcome(Enum):
    """How a call to the provider ends."""

    KEYS = "its present keys"
    BUSY = "status 503"
    PAGE = "a page where JSON belongs"
    CUT = "the connection breaks"
    SILENCE = "nothing, for ever"


WELL = (Outcome.KEYS,)
"""The provider answers."""
DOWN = (Outcome.BUSY, Outcome.PAGE, Outcome.CUT, Outcome.SILENCE)
"""The provider does not answer, in whatever way."""
FLAPPING = (*4 * (Outcome.KEYS,), *DOWN)
"""Sometimes it does."""


class LateProvider(httpx2.AsyncBaseTransport):
    """One issuer; what it publishes and how it fares may be changed at any time."""

    def __init__(self, arrived: Callable[[], None] = lambda: None) -> None:
        """Publish one key, `key-1`.

        Args:
            arrived: called as each call arrives.
        """
        self.published: list[str] = ["key-1"]
        self.outcomes: Sequence[Outcome] = WELL
        """What the explorer may choose from."""
        self.calls = 0
        """How many arrived."""
        self._arrived = arrived

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.calls += 1
        self._arrived()
        await asyncio.sleep(detangle.choice(MOMENTS))
        body = msgspec.json.encode({"keys": [public_key(name) for name in self.published]})
        outcome = detangle.choice(self.outcomes)
        await asyncio.sleep(detangle.choice(MOMENTS))
        match outcome:
            case Outcome.KEYS:
                return httpx2.Response(200, stream=_Body(body))
            case Outcome.BUSY:
                return httpx2.Response(503, stream=_Body(b""))
            case Outcome.PAGE:
                return httpx2.Response(200, stream=_Body(b"<!doctype html>"))
            case Outcome.CUT:
                raise httpx2.ReadError("cut by the explorer")
            case Outcome.SILENCE:
                await asyncio.get_running_loop().create_future()
        raise AssertionError("silence does not end")


class _Body(httpx2.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


@functools.cache
def _key(name: str) -> ECKey:
    return ECKey.generate_key("P-256", auto_kid=False)


def public_key(name: str) -> dict[str, object]:
    """Return a key as the issuer publishes it."""
    return {**_key(name).as_dict(private=False), "kid": name, "use": "sig"}


@functools.cache
def token(
    user: str,
    *,
    tenant: str = "acme",
    signed_with: str = "key-1",
    kid: str | None = None,
    issued: float = 0.0,
    expires: float = 3600.0,
    jti: str = "",
) -> str:
    """Return a token of the issuer, or one that only claims to be.

    Args:
        user: its `sub`.
        tenant: its tenant.
        signed_with: the name of the key, published or not.
        kid: the key it names; None for the one it is signed with.
        issued: seconds after `EPOCH`.
        expires: seconds after `EPOCH`.
        jti: its id; empty for none.
    """
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": user,
        "tenant": tenant,
        "iat": EPOCH + issued,
        "exp": EPOCH + expires,
        **({"jti": jti} if jti else {}),
    }
    return jwt.encode({"alg": "ES256", "kid": kid or signed_with}, claims, _key(signed_with))
