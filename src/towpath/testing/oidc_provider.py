"""An identity provider in this process, with the failures of real ones.

It serves OpenID Connect discovery and a key set over plain HTTP on loopback, and signs tokens. A
test may change its answers at any time:

    async with OidcProvider() as provider, FaultProxy("127.0.0.1", provider.port) as proxy:
        provider.issuer = proxy.http          # only if clients use a proxy
        token = provider.token("mia", "acme")
        provider.answer(Status(503))          # every path, until healed
        provider.answer(Html(), path=JWKS)    # one path
        provider.metadata["jwks_uri"] = "http://127.0.0.1:1/jwks"
        provider.rotate()
        provider.heal()

The proxy makes the faults of the network (hanging, slow, cut).
"""

import asyncio
import contextlib
import json
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from types import EllipsisType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from towpath.testing.listener import Listener

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/jwks"
OVERSIZE_BYTES = 100 * 1024 * 1024
_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Status:
    """A status and a short JSON body."""

    status: int
    retry_after: int | None = None
    """Seconds of the Retry-After header; None for no header."""


@dataclass(frozen=True, slots=True)
class Html:
    """A page in place of JSON, as captive portals and crashed gateways send it."""

    status: int = 200


@dataclass(frozen=True, slots=True)
class Json:
    """Any JSON document."""

    document: object
    status: int = 200


@dataclass(frozen=True, slots=True)
class Raw:
    """Any body under any content type."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect."""

    location: str
    status: int = 302


@dataclass(frozen=True, slots=True)
class Oversize:
    """The correct document with padding that makes it huge, generated while it is sent."""

    size: int = OVERSIZE_BYTES
    """Bytes of the whole document."""
    framing: Literal["length", "chunked", "gzip"] = "length"
    """With Content-Length, without it, or compressed."""


Answer = Status | Html | Json | Raw | Redirect | Oversize


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signer:
    key: Key
    kid: str
    algorithm: str


class OidcProvider(Listener):
    """One issuer; it listens on a free loopback port while its context is open."""

    def __init__(
        self,
        *,
        issuer: str | None = None,
        audience: str = "towpath",
        tenant_claim: str = "tenant",
        algorithm: str = "RS256",
    ) -> None:
        """Describe a provider with one key, `key-1`; it does not listen yet.

        Args:
            issuer: its name, and the base of the URLs in its documents; None uses its own address.
            audience: the `aud` of its tokens.
            tenant_claim: the claim of its tokens that holds the tenant.
            algorithm: of its first key: one of RS*, PS*, ES*, Ed25519 and EdDSA.
        """
        super().__init__()
        self.issuer = issuer or ""
        """Its name; behind a proxy, set it to the proxy's base URL."""
        self.audience = audience
        self.tenant_claim = tenant_claim
        self.metadata: dict[str, object] = {}
        """Fields of the discovery document that replace the correct ones; `...` omits a field."""
        self.requests: Counter[str] = Counter()
        """The number of requests, by path below the issuer's path, without the query."""
        self.bytes_sent = 0
        """Bytes of answers written so far; bytes that a client did not wait for are not counted."""
        self._answers: dict[str | None, Answer] = {}
        self._signers: dict[str, _Signer] = {}
        self._published: list[str] = []
        self.add_key(algorithm)

    @property
    def kids(self) -> list[str]:
        """The ids of the keys in the key set, oldest first; the last one signs."""
        return list(self._published)

    def add_key(
        self, algorithm: str = "RS256", *, kid: str | None = None, key: Key | None = None
    ) -> str:
        """Publish another key, which signs from now on; return its id.

        Args:
            algorithm: its signing algorithm.
            kid: its id; None numbers it, so that two providers have keys with the same ids.
            key: the private key; None generates one.
        """
        kid = kid or f"key-{len(self._signers) + 1}"
        key = _generate(algorithm) if key is None else key
        self._signers[kid] = _Signer(key=key, kid=kid, algorithm=algorithm)
        self._published.append(kid)
        return kid

    def drop_key(self, kid: str) -> None:
        """Remove a key from the key set; it can still sign, like a stolen key."""
        self._published.remove(kid)

    def rotate(self, algorithm: str = "RS256") -> str:
        """Publish a new key instead of all others; return its id."""
        self._published.clear()
        return self.add_key(algorithm)

    def key(self, kid: str | None = None) -> Key:
        """Return a private key, published or not; None for the current signing key."""
        return self._signer(kid).key

    def answer(self, answer: Answer, *, path: str | None = None) -> None:
        """Set the answer on one path, or on all paths without an own answer."""
        self._answers[path] = answer

    def heal(self) -> None:
        """Answer correctly again, on every path."""
        self._answers.clear()
        self.metadata.clear()

    def token(
        self,
        user: str = "alice",
        tenant: str = "acme",
        *,
        ttl: float = 3600.0,
        now: float | None = None,
        kid: str | EllipsisType | None = None,
        **claims: object,
    ) -> str:
        """Return a signed token.

        Args:
            user: its `sub`.
            tenant: its tenant claim.
            ttl: seconds from `now` until it expires; a negative ttl makes an expired token.
            now: Unix time in seconds; None for now.
            kid: the id of the signing key, in the key set or dropped from it. With an unknown id,
                the header has that id and the current key signs. `...` omits the id.
            claims: claims that are added or replaced; `...` omits a claim.
        """
        start = time.time() if now is None else now
        signer = self._signer(None if kid is ... else kid)
        payload: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user,
            self.tenant_claim: tenant,
            "iat": int(start),
            "exp": int(start + ttl),
            **claims,
        }
        header: dict[str, object] = {
            "alg": signer.algorithm,
            "kid": signer.kid if kid is None else kid,
        }
        return jwt.encode(_kept(header), _kept(payload), signer.key, algorithms=[signer.algorithm])

    def document(self) -> dict[str, object]:
        """Return the discovery document as it is served now."""
        base = self.issuer.rstrip("/")
        true: dict[str, object] = {
            "issuer": self.issuer,
            "jwks_uri": f"{base}{JWKS}",
            "authorization_endpoint": f"{base}/authorize",
            "token_endpoint": f"{base}/token",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted(
                {self._signers[kid].algorithm for kid in self._published}
            ),
        }
        return _kept({**true, **self.metadata})

    def key_set(self) -> dict[str, object]:
        """Return the public keys as they are served now."""
        return {"keys": [_public(self._signers[kid]) for kid in self._published]}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.issuer = self.issuer or self.http
        return self

    def _signer(self, kid: str | None) -> _Signer:
        current = self._published[-1] if self._published else next(reversed(self._signers))
        return self._signers[kid if kid in self._signers else current]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until its end or invalid HTTP."""
        with contextlib.suppress(asyncio.LimitOverrunError, ValueError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
                path = self._below_issuer(target.partition("?")[0])
                self.requests[path] += 1
                answer = self._choose(path) if method == "GET" else Status(405)
                for block in _blocks(answer, self._true(path)):
                    writer.write(block)
                    self.bytes_sent += len(block)
                    await writer.drain()
                    await asyncio.sleep(0)  # Other tasks run between two blocks.
                if method != "GET":  # The body is not read, so the next bytes are not a request.
                    break

    def _below_issuer(self, path: str) -> str:
        return path.removeprefix(urlsplit(self.issuer).path.rstrip("/"))

    def _choose(self, path: str) -> Answer:
        answer = self._answers.get(path) or self._answers.get(None)
        if answer is not None:
            return answer
        return Json(self._true(path)) if path in (DISCOVERY, JWKS) else Status(404)

    def _true(self, path: str) -> dict[str, object]:
        return self.document() if path == DISCOVERY else self.key_set()


def _generate(algorithm: str) -> Key:
    if algorithm in ("EdDSA", "Ed25519"):
        return OKPKey.generate_key("Ed25519")
    if algorithm.startswith("ES"):
        return ECKey.generate_key(f"P-{'521' if algorithm == 'ES512' else algorithm[2:]}")
    return RSAKey.generate_key(2048)


def _public(signer: _Signer) -> dict[str, object]:
    return {
        **signer.key.as_dict(private=False),
        "kid": signer.kid,
        "alg": signer.algorithm,
        "use": "sig",
    }


def _kept(members: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not ...}


def _blocks(answer: Answer, true: dict[str, object]) -> Iterator[bytes]:
    """Yield the bytes of an answer, block by block."""
    match answer:
        case Status(status=status, retry_after=retry_after):
            more = {} if retry_after is None else {"Retry-After": str(retry_after)}
            yield _whole(status, b'{"error": "as you wished"}', **more)
        case Html(status=status):
            page = b"<!doctype html><html><title>Sign in</title><h1>Sign in</h1></html>"
            yield _whole(status, page, content_type="text/html; charset=utf-8")
        case Json(document=document, status=status):
            yield _whole(status, json.dumps(document).encode())
        case Raw(body=body, content_type=content_type, status=status):
            yield _whole(status, body, content_type=content_type)
        case Redirect(location=location, status=status):
            yield _whole(status, b"", Location=location)
        case Oversize(size=size, framing="length"):
            yield _head(200, **{"Content-Length": str(size)})
            yield from _padded(true, size)
        case Oversize(size=size, framing="chunked"):
            yield _head(200, **{"Transfer-Encoding": "chunked"})
            yield from _chunked(_padded(true, size))
        case Oversize(size=size):
            yield _head(200, **{"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"})
            yield from _chunked(_packed(_padded(true, size)))


def _whole(
    status: int, body: bytes, *, content_type: str = "application/json", **headers: str
) -> bytes:
    headers["Content-Length"] = str(len(body))
    return _head(status, content_type=content_type, **headers) + body


def _head(status: int, *, content_type: str = "application/json", **headers: str) -> bytes:
    headers["Content-Type"] = content_type
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{fields}\r\n".encode("latin-1")


def _padded(document: dict[str, object], size: int) -> Iterator[bytes]:
    start, end = json.dumps(document).encode()[:-1] + b', "padding": "', b'"}'
    yield start
    padding = size - len(start) - len(end)
    for sent in range(0, padding, _BLOCK_BYTES):
        yield b"x" * min(_BLOCK_BYTES, padding - sent)
    yield end


def _chunked(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        yield b"%x\r\n%b\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


def _packed(blocks: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for block in blocks:
        yield packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()
