"""Real providers are real: what they serve verifies what they sign."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError
from joserfc.jwk import KeySet, KeySetSerialization
from joserfc.jws import extract_compact

from tests.providers import OAuth2MockServer, OidcProviderMock
from towpath.testing.faults import FaultProxy
from towpath.testing.oidc_provider import DISCOVERY

pytestmark = pytest.mark.servers

Provider = OidcProviderMock | OAuth2MockServer


@pytest.fixture(scope="module")
def python() -> Iterator[OidcProviderMock]:
    """The provider in Python."""
    with OidcProviderMock(ttl=600) as provider:
        yield provider


@pytest.fixture(scope="module")
def node() -> Iterator[OAuth2MockServer]:
    """The provider in Node."""
    with OAuth2MockServer() as provider:
        yield provider


@pytest.fixture(params=["python", pytest.param("node", marks=pytest.mark.sdk_js)])
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """Each of them in turn, called by its own address again afterwards."""
    chosen: Provider = request.getfixturevalue(request.param)
    yield chosen
    chosen.issuer = chosen.http


async def discover(base: str) -> tuple[dict[str, Any], KeySetSerialization]:
    """Return the discovery document of a base URL and the keys it points to."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        document = (await client.get(f"{base}{DISCOVERY}")).json()
        keys: KeySetSerialization = (await client.get(document["jwks_uri"])).json()
    return document, keys


def verify(token: str, keys: KeySetSerialization, algorithm: str = "RS256") -> dict[str, Any]:
    return jwt.decode(token, KeySet.import_key_set(keys), algorithms=[algorithm]).claims


def header(token: str) -> dict[str, Any]:
    return extract_compact(token.encode()).headers()


async def test_served_keys_verify_real_tokens(provider: Provider) -> None:
    """Discovery, key set and token of each fit together, and the token says who it is about."""
    document, keys = await discover(provider.issuer)
    claims = verify(await provider.token("mia", "globex", roles=["service"]), keys)
    assert document["issuer"] == claims["iss"] == provider.issuer
    assert claims["aud"] in ("towpath", ["towpath"])
    assert (claims["sub"], claims["tenant"], claims["roles"]) == ("mia", "globex", ["service"])
    assert claims["exp"] > claims["iat"]


async def test_users_are_opaque(provider: Provider) -> None:
    """Ids as real providers have them go in and come out unchanged."""
    _, keys = await discover(provider.issuer)
    for user in ("auth0|65f1", "test_engineer@example.com", "42", "Łukasz ?&%"):
        assert verify(await provider.token(user), keys)["sub"] == user


async def test_reached_by_way_of_a_proxy(provider: Provider) -> None:
    """With the proxy's address as its name, all that clients see is the proxy's address."""
    async with FaultProxy("127.0.0.1", provider.port) as proxy:
        provider.issuer = proxy.http
        document, keys = await discover(proxy.http)
        assert document["issuer"] == proxy.http
        assert document["jwks_uri"] == f"{proxy.http}/jwks"
        assert verify(await provider.token(), keys)["iss"] == proxy.http
        assert proxy.connections == 1


async def test_python_says_little_about_its_key(python: OidcProviderMock) -> None:
    """Its key does not say what it is for, nor need a token say which it is; the time is kept."""
    _, keys = await discover(python.http)
    token = await python.token()
    [key] = keys["keys"]
    assert key.keys() == {"kty", "kid", "n", "e"}
    assert header(token)["alg"] == "RS256"
    assert header(token).get("kid", key["kid"]) == key["kid"]
    claims = verify(token, keys)
    assert claims["aud"] == ["towpath"]
    assert claims["exp"] - claims["iat"] == 600


async def test_python_rotates_by_starting_anew(python: OidcProviderMock) -> None:
    """It comes back on the same port with another key, which does not verify what was before."""
    before = await python.token()
    port = python.port
    python.rotate()
    _, keys = await discover(python.http)
    assert python.port == port
    with pytest.raises((BadSignatureError, InvalidKeyIdError)):
        verify(before, keys)
    assert verify(await python.token(), keys)["sub"] == "alice"


@pytest.mark.sdk_js
async def test_node_tokens_name_their_key(node: OAuth2MockServer) -> None:
    """The header names the key that is served, which says what it is for; ttl and claims hold."""
    _, keys = await discover(node.http)
    token = await node.token(ttl=-100, aud=["x", "towpath"])
    [kid] = node.kids
    assert header(token) == {"typ": "JWT", "kid": kid, "alg": "RS256"}
    assert [(key["kid"], key["alg"]) for key in keys["keys"]] == [(kid, "RS256")]
    claims = verify(token, keys)
    assert claims["aud"] == ["x", "towpath"]
    assert -101 <= claims["exp"] - claims["iat"] <= -100


@pytest.mark.sdk_js
async def test_node_rotates_while_it_runs() -> None:
    """A new key signs at once; the old one is served until it is dropped, and not after."""
    with OAuth2MockServer(algorithm="ES256", audience="chat", tenant_claim="org") as node:
        old = await node.token()
        kid = node.rotate("Ed25519", keep_old=True)
        _, keys = await discover(node.http)
        new = await node.token()
        assert header(new)["kid"] == kid == node.kids[-1]
        claims = verify(old, keys, "ES256")
        assert (claims["aud"], claims["org"]) == ("chat", "acme")
        assert verify(new, keys, "Ed25519")["sub"] == "alice"
        node.rotate("PS256")
        _, keys = await discover(node.http)
        assert [key["kid"] for key in keys["keys"]] == node.kids
        assert len(node.kids) == 1
        with pytest.raises(InvalidKeyIdError):
            verify(new, keys, "Ed25519")
        assert verify(await node.token(), keys, "PS256")["sub"] == "alice"


@pytest.mark.sdk_js
async def test_node_starts_again_where_it_was() -> None:
    """After a stop nobody listens; after a start it has its port and its name, and another key."""
    with OAuth2MockServer() as node:
        port, kids = node.port, node.kids
        node.issuer = "http://127.0.0.1:1"
        node.stop()
        with pytest.raises(httpx2.ConnectError):
            await discover(node.http)
        node.start()
        async with httpx2.AsyncClient(trust_env=False) as client:
            document = (await client.get(f"{node.http}{DISCOVERY}")).json()
        assert document["issuer"] == "http://127.0.0.1:1"
        assert node.port == port
        assert node.kids != kids
