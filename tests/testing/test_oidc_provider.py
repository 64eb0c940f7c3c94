"""The provider in this process tells the truth until it is asked not to."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError
from joserfc.jwk import ECKey, KeySet

from towpath.testing.faults import Drop, FaultProxy
from towpath.testing.oidc_provider import (
    DISCOVERY,
    JWKS,
    OVERSIZE_BYTES,
    Html,
    Json,
    OidcProvider,
    Oversize,
    Raw,
    Redirect,
    Status,
)

PATHS = [DISCOVERY, JWKS]


@asynccontextmanager
async def browse(base: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=10) as client:
        yield client


@asynccontextmanager
async def provided(**options: Any) -> AsyncIterator[tuple[OidcProvider, httpx2.AsyncClient]]:
    async with OidcProvider(**options) as provider, browse(provider.http) as client:
        yield provider, client


async def get(client: httpx2.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


async def verify(client: httpx2.AsyncClient, token: str, algorithm: str = "RS256") -> Any:
    """Return the claims of a token, verified with the keys that are served."""
    keys = KeySet.import_key_set(await get(client, JWKS))
    return jwt.decode(token, keys, algorithms=[algorithm]).claims


async def test_discovery_leads_to_keys_that_verify_its_tokens() -> None:
    """A client that knows the issuer alone can verify a token of its."""
    before = int(time.time())
    async with provided(audience="chat", tenant_claim="org") as (provider, client):
        document = await get(client, DISCOVERY)
        assert document["issuer"] == provider.issuer == provider.http
        token = provider.token("mia", "acme", ttl=60, roles=["service"])
        keys = KeySet.import_key_set((await client.get(document["jwks_uri"])).json())
        decoded = jwt.decode(token, keys, algorithms=["RS256"])
    claims = decoded.claims
    assert decoded.header == {"alg": "RS256", "kid": "key-1", "typ": "JWT"}
    assert before <= claims.pop("iat") == claims.pop("exp") - 60
    assert claims == {
        "iss": provider.issuer,
        "aud": "chat",
        "sub": "mia",
        "org": "acme",
        "roles": ["service"],
    }


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "Ed25519"])
async def test_each_algorithm(algorithm: str) -> None:
    """A key says what it is for, is public where it is served, and signs that way."""
    async with provided(algorithm=algorithm) as (provider, client):
        [key] = (await get(client, JWKS))["keys"]
        assert (key["kid"], key["alg"], key["use"]) == ("key-1", algorithm, "sig")
        assert not {"d", "p", "q", "k"} & key.keys()
        assert (await verify(client, provider.token(), algorithm))["sub"] == "alice"


async def test_claims_may_be_changed_and_left_out() -> None:
    """Time, audience and all else are the caller's; three dots leave a claim or a key id out."""
    async with provided() as (provider, _):
        token = provider.token(now=1000.0, ttl=-5, aud=["a", "b"], sub=..., kid=...)
        decoded = jwt.decode(token, provider.key(), algorithms=["RS256"])
    assert decoded.header == {"alg": "RS256", "typ": "JWT"}
    claims = decoded.claims
    assert (claims["iat"], claims["exp"], claims["aud"]) == (1000, 995, ["a", "b"])
    assert "sub" not in claims


async def test_rotation_replaces_the_keys() -> None:
    """The new key signs and is served alone; the old one still signs when asked, in vain."""
    async with provided() as (provider, client):
        old = provider.token()
        assert provider.rotate("ES256") == "key-2"
        assert [key["kid"] for key in (await get(client, JWKS))["keys"]] == ["key-2"]
        assert (await verify(client, provider.token(), "ES256"))["sub"] == "alice"
        for withdrawn in (old, provider.token(kid="key-1")):
            with pytest.raises(InvalidKeyIdError):
                await verify(client, withdrawn)
        document = await get(client, DISCOVERY)
        assert document["id_token_signing_alg_values_supported"] == ["ES256"]


async def test_keys_may_overlap() -> None:
    """A key may be added before another one is dropped, as careful providers do."""
    async with provided() as (provider, client):
        first, key = provider.token(), ECKey.generate_key("P-256")
        assert provider.add_key("ES256", kid="mine", key=key) == "mine"
        assert (provider.kids, provider.key(), provider.key("key-1")) == (
            ["key-1", "mine"],
            key,
            provider.key("key-1"),
        )
        assert (await verify(client, first))["sub"] == "alice"
        assert (await verify(client, provider.token(), "ES256"))["sub"] == "alice"
        assert (await verify(client, provider.token(kid="key-1")))["sub"] == "alice"
        provider.drop_key("key-1")
        with pytest.raises(InvalidKeyIdError):
            await verify(client, first)


async def test_an_unheard_of_key_id_is_only_written_down() -> None:
    """A flood of unknown key ids is made of otherwise good tokens."""
    async with provided() as (provider, client):
        token = provider.token(kid="../../etc/passwd")
        with pytest.raises(InvalidKeyIdError):
            await verify(client, token)
        assert jwt.decode(token, provider.key()).header["kid"] == "../../etc/passwd"


async def test_two_providers_share_key_ids_and_no_key() -> None:
    """The same id with another key behind it is the rule, to catch who forgets whose it is."""
    async with provided() as (one, client), provided() as (other, _):
        assert one.kids == other.kids
        with pytest.raises(BadSignatureError):
            await verify(client, other.token())


@pytest.mark.parametrize("status", [401, 403, 429, 503])
async def test_statuses(status: int) -> None:
    """Every path answers with the status, and with Retry-After where one was given."""
    async with provided() as (provider, client):
        provider.answer(Status(status, retry_after=7))
        for path in PATHS:
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
        provider.answer(Status(status))
        assert "retry-after" not in (await client.get(JWKS)).headers
        provider.heal()
        assert (await get(client, DISCOVERY))["issuer"] == provider.issuer


async def test_one_path_may_fail_alone() -> None:
    """An answer for one path goes before one for all; the other path tells the truth."""
    async with provided() as (provider, client):
        provider.answer(Html(status=502), path=JWKS)
        answer = await client.get(JWKS)
        assert (answer.status_code, answer.headers["content-type"]) == (
            502,
            "text/html; charset=utf-8",
        )
        assert answer.text.startswith("<!doctype html>")
        assert (await get(client, DISCOVERY))["issuer"] == provider.issuer
        provider.answer(Status(503))
        assert (await client.get(JWKS)).status_code == 502
        assert (await client.get(DISCOVERY)).status_code == 503


async def test_any_document_and_any_body() -> None:
    """What is JSON, and what only says so, is the caller's."""
    async with provided() as (provider, client):
        provider.answer(Json([1, {"keys": 5}]))
        assert await get(client, JWKS) == [1, {"keys": 5}]
        provider.answer(Raw(b"\xff{", content_type="application/json", status=201))
        answer = await client.get(JWKS)
        assert (answer.status_code, answer.content) == (201, b"\xff{")


async def test_redirects() -> None:
    """An answer that is elsewhere says where, and that is all it says."""
    async with provided() as (provider, client):
        provider.answer(Redirect(f"{provider.http}{JWKS}", status=307), path=DISCOVERY)
        answer = await client.get(DISCOVERY)
        assert (answer.status_code, answer.headers["location"]) == (307, f"{provider.http}{JWKS}")
        assert answer.content == b""


async def test_the_discovery_document_may_lie() -> None:
    """A field may say something else or be missing; healing brings the truth back."""
    async with provided() as (provider, client):
        truth = provider.document()
        provider.metadata["issuer"] = "https://other.example"
        provider.metadata["jwks_uri"] = "https://other.example/keys"
        provider.metadata["token_endpoint"] = ...
        lie = await get(client, DISCOVERY)
        assert (lie["issuer"], lie["jwks_uri"]) == (
            "https://other.example",
            "https://other.example/keys",
        )
        assert "token_endpoint" not in lie
        provider.heal()
        assert await get(client, DISCOVERY) == truth


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("framing", ["length", "chunked", "gzip"])
async def test_oversize_documents_are_true_but_for_their_size(path: str, framing: Any) -> None:
    """Only a bound on the size has a reason to refuse them."""
    size = 1 << 20
    async with provided() as (provider, client):
        truth = provider.document() if path == DISCOVERY else provider.key_set()
        provider.answer(Oversize(size, framing))
        answer = await client.get(path)
    assert len(answer.content) == size
    assert ("content-length" in answer.headers) == (framing == "length")
    document = answer.json()
    assert set(document.pop("padding")) == {"x"}
    assert document == truth
    assert (provider.bytes_sent < size / 100) == (framing == "gzip")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_oversize_is_made_while_it_is_read(framing: Any) -> None:
    """A client that stops reading stops the making: 100 MiB are neither held nor sent."""
    async with provided() as (provider, client):
        provider.answer(Oversize(framing=framing))
        async with client.stream("GET", JWKS):
            await asyncio.sleep(0.5)  # time in which all of it could be made
    assert 0 < provider.bytes_sent < OVERSIZE_BYTES / 4


async def test_a_bomb_is_small_on_the_wire() -> None:
    """A document of 100 MiB travels in a few hundred KiB, and is what it says."""
    async with provided() as (provider, client):
        provider.answer(Oversize(framing="gzip"))
        async with client.stream("GET", JWKS) as answer:
            unpacker, size = zlib.decompressobj(16 + zlib.MAX_WBITS), 0
            async for block in answer.aiter_raw():
                size += len(unpacker.decompress(block))
    assert unpacker.eof
    assert size == OVERSIZE_BYTES
    assert provider.bytes_sent < 300_000


async def test_requests_are_counted_by_path() -> None:
    """Each request counts, answered truly or not, queries aside; connections are kept."""
    async with OidcProvider() as provider, FaultProxy("127.0.0.1", provider.port) as proxy:
        async with browse(proxy.http) as client:
            for path in (JWKS, f"{JWKS}?a=b", DISCOVERY, "/elsewhere"):
                await client.get(path)
            provider.answer(Status(503))
            await client.get(JWKS)
            assert proxy.connections == 1
        assert provider.requests == {JWKS: 3, DISCOVERY: 1, "/elsewhere": 1}


async def test_what_it_does_not_do() -> None:
    """Unknown paths are 404, other methods end the connection, and nonsense is dropped."""
    async with provided() as (provider, client):
        assert (await client.get("/token")).status_code == 404
        assert (await client.post(JWKS, content=b"GET /a HTTP/1.1\r\n\r\n")).status_code == 405
        for nonsense in (b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", b"x" * 40_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
            writer.write(nonsense)
            assert await reader.read() == b""
            writer.close()
        assert "/a" not in provider.requests
        assert (await get(client, JWKS))["keys"]


@pytest.mark.parametrize("below", ["/", "/realms/acme", "/realms/acme/"])
async def test_issuers_with_a_path(below: str) -> None:
    """Discovery is found below the issuer's path, as it is with providers of many realms."""
    async with provided() as (provider, client):
        provider.issuer = f"{provider.http}{below}"
        base = below.rstrip("/")
        document = await get(client, f"{base}{DISCOVERY}")
        assert document["issuer"] == provider.issuer
        assert document["jwks_uri"] == f"{provider.http}{base}{JWKS}"
        assert (await client.get(document["jwks_uri"])).json() == provider.key_set()
        assert provider.requests == {DISCOVERY: 1, JWKS: 1}


async def test_behind_a_proxy() -> None:
    """It speaks of itself by the proxy's address, and fails as the proxy does."""
    async with OidcProvider() as provider, FaultProxy("127.0.0.1", provider.port) as proxy:
        provider.issuer = proxy.http
        async with browse(proxy.http) as client:
            document = await get(client, DISCOVERY)
            assert (document["issuer"], document["jwks_uri"]) == (
                proxy.http,
                f"{proxy.http}{JWKS}",
            )
            assert (await verify(client, provider.token()))["iss"] == proxy.http
            proxy.fault = Drop()
            with pytest.raises(httpx2.ReadTimeout):
                await client.get(JWKS, timeout=0.2)


@pytest.mark.filterwarnings("error::ResourceWarning")
async def test_nothing_is_left_behind() -> None:
    """Idle connections, silent ones and endless answers end with the context, and no task stays."""
    tasks = asyncio.all_tasks()
    async with OidcProvider() as provider:
        provider.answer(Oversize())
        idle = await asyncio.open_connection("127.0.0.1", provider.port)
        reading = await asyncio.open_connection("127.0.0.1", provider.port)
        reading[1].write(f"GET {JWKS} HTTP/1.1\r\n\r\n".encode())
        await reading[0].readexactly(1000)
    assert asyncio.all_tasks() == tasks
    assert len(await reading[0].read()) < OVERSIZE_BYTES / 2
    assert await idle[0].read() == b""
    for _, writer in (idle, reading):
        writer.close()
