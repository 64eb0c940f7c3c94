"""A key is used only with the algorithm it was made for."""

import contextlib
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from tests.auth.stage import answered
from towpath.auth.keys import (
    ALGORITHMS,
    ASYMMETRIC,
    CURVES,
    MAX_KEYS,
    SYMMETRIC,
    FixedKey,
    KeyRing,
    algorithms_of,
    configured_key,
    read_key_set,
)
from towpath.errors import ConfigurationError

RSA = RSAKey.generate_key(2048).as_pem(private=False).decode()
EC = ECKey.generate_key("P-256").as_pem(private=False).decode()
ED = OKPKey.generate_key("Ed25519").as_pem(private=False).decode()
SECRET = "s" * 32
OCT = json.dumps({"kty": "oct", "k": "c" * 43})


@pytest.mark.parametrize(
    ("text", "algorithm", "kind"),
    [
        (SECRET, "HS256", OctKey),
        (RSA, "RS256", RSAKey),
        (RSA, "PS256", RSAKey),
        (EC, "ES256", ECKey),
        (ED, "EdDSA", OKPKey),
        (OCT, "HS256", OctKey),
        (json.dumps(RSAKey.generate_key(2048).as_dict(private=False)), "RS256", RSAKey),
        ("\n " + json.dumps(ECKey.generate_key("P-256").as_dict(private=False)), "ES256", ECKey),
    ],
)
def test_r21_a_configured_key_is_a_jwk_a_pem_or_a_secret(
    text: str, algorithm: str, kind: type
) -> None:
    """Each form yields a key of the kind its algorithm needs."""
    assert isinstance(configured_key(text, algorithm), kind)


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize("secret", ["", "short", "s" * 31])
def test_r21_a_short_secret_is_refused(secret: str) -> None:
    """31 bytes are too few, whatever the algorithm."""
    with pytest.raises(ConfigurationError):
        configured_key(secret, "HS512")


def test_r21_a_secret_is_counted_in_bytes() -> None:
    """16 characters of two bytes are enough, and the bound is exact."""
    assert isinstance(configured_key("é" * 16, "HS256"), OctKey)
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        configured_key("é" * 15, "HS256")


@pytest.mark.filterwarnings("ignore:Key size")
def test_r21_a_short_secret_is_refused_in_a_jwk_too() -> None:
    """The format of a key does not make it stronger."""
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        configured_key('{"kty":"oct","k":"c2hvcnQ"}', "HS256")


@pytest.mark.parametrize("algorithm", ["none", "None", "", "hs256", "HS256 ", "RSA-OAEP", "dir"])
def test_r13_an_algorithm_that_is_not_taken_is_refused(algorithm: str) -> None:
    """The error lists the supported algorithms."""
    with pytest.raises(ConfigurationError, match=r"EdDSA.*HS256.*RS256"):
        configured_key(SECRET, algorithm)


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (RSA, "HS256"),
        (EC, "HS256"),
        (RSA, "ES256"),
        (RSA, "EdDSA"),
        (EC, "RS256"),
        (ED, "PS256"),
        (SECRET, "RS256"),
        ("", "ES256"),
        (OCT, "RS256"),
        (json.dumps(RSAKey.generate_key(2048).as_dict(private=False)), "HS256"),
        (json.dumps(ECKey.generate_key("P-256").as_dict(private=False)), "EdDSA"),
        ("{", "HS256"),
        ("{}", "HS256"),
        ('{"kty":"oct"}', "HS256"),
        ('{"kty":5}', "RS256"),
        ('{"keys":[]}', "RS256"),
    ],
)
def test_r21_a_key_that_does_not_fit_its_algorithm_is_refused_at_start(
    text: str, algorithm: str
) -> None:
    """No key is ever used with an algorithm of another kind: no algorithm confusion."""
    with pytest.raises(ConfigurationError, match=rf"the key is invalid for {algorithm}"):
        configured_key(text, algorithm)


def test_r17_a_refused_key_is_not_quoted() -> None:
    """The error, which is logged, contains no secret."""
    for text, algorithm in (("hunter2hunter2", "HS256"), ('{"kty":"hunter2"', "HS256")):
        with pytest.raises(ConfigurationError) as refused:
            configured_key(text, algorithm)
        assert "hunter2" not in str(refused.value)


def test_every_algorithm_taken_has_a_strength() -> None:
    """No unsigned tokens, and no SHA-1."""
    assert {name[:2] for name in ALGORITHMS} == {"HS", "RS", "PS", "ES", "Ed"}
    assert "none" not in ALGORITHMS


def test_r13_no_published_key_is_a_shared_secret() -> None:
    """A published key is public, so it is never a symmetric key."""
    assert ASYMMETRIC.isdisjoint(SYMMETRIC)
    assert ASYMMETRIC | SYMMETRIC == ALGORITHMS


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (OctKey.import_key("s" * 32), SYMMETRIC),
        (RSAKey.import_key(RSA), {"RS256", "RS384", "RS512", "PS256"}),
        (ECKey.import_key(EC), {"ES256"}),
        (ECKey.generate_key("P-384"), {"ES384"}),
        (ECKey.generate_key("P-521"), set()),
        (ECKey.generate_key("secp256k1"), set()),
        (OKPKey.import_key(ED), {"EdDSA", "Ed25519"}),
        (OKPKey.generate_key("X25519"), set()),
        (OKPKey.generate_key("Ed448"), set()),
        (RSAKey.import_key(RSA, {"alg": "PS256"}), {"PS256"}),
        (RSAKey.import_key(RSA, {"alg": "ES256"}), set()),
        (RSAKey.import_key(RSA, {"alg": "RSA-OAEP"}), set()),
        (ECKey.import_key(EC, {"alg": "ES384"}), set()),
    ],
)
async def test_r13_a_key_is_used_with_what_it_is_made_for(key: Any, algorithms: set[str]) -> None:
    """Type, curve and its own `alg` decide; a fixed key is found for these only."""
    assert algorithms_of(key) == algorithms
    found = {name for name in ALGORITHMS if await FixedKey(key).find("any kid", name) is key}
    assert found == algorithms
    assert await FixedKey(key).find(None, "none") is None


# Published keys.


def published(key: Any, kid: Any = None, **members: Any) -> dict[str, Any]:
    """Return a key as a key set publishes it; a member that is `...` is left out."""
    entry = {**key.as_dict(private=False), **({"kid": kid} if kid else {}), **members}
    entry = {name: value for name, value in entry.items() if value is not ...}
    if kid is None:
        entry.pop("kid", None)
    return entry


RSA_KEY, OTHER_RSA = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
EC_KEY, ED_KEY = ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")
GOOD = published(EC_KEY, "good")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # The library warns of keys as short as these.
    SHORT, ALMOST = RSAKey.generate_key(1024), RSAKey.generate_key(2040)


def ring(*entries: Any) -> KeyRing:
    return read_key_set({"keys": list(entries)})


def names(keys: KeyRing) -> set[str]:
    """Return the algorithms for which the one key under test is found by its name."""
    return {name for name in ALGORITHMS if keys.find("k", name) is not None}


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize(
    ("entry", "algorithms"),
    [
        (published(RSA_KEY, "k"), {"RS256", "RS384", "RS512", "PS256"}),
        (published(RSA_KEY, "k", alg="RS256"), {"RS256"}),
        (published(RSA_KEY, "k", alg="PS512"), set()),
        (published(RSA_KEY, "k", alg="RS1"), set()),
        (published(RSA_KEY, "k", alg="HS256"), set()),
        (published(RSA_KEY, "k", alg="none"), set()),
        (published(RSA_KEY, "k", alg=5), set()),
        (published(RSA_KEY, "k", alg=["RS256"]), set()),
        (published(EC_KEY, "k"), {"ES256"}),
        (published(EC_KEY, "k", alg="ES384"), set()),
        (published(ECKey.generate_key("P-384"), "k"), {"ES384"}),
        (published(ECKey.generate_key("P-521"), "k"), set()),
        (published(ECKey.generate_key("secp256k1"), "k"), set()),
        (published(EC_KEY, "k", crv="P-257"), set()),
        (published(EC_KEY, "k", crv=5), set()),
        (published(EC_KEY, "k", crv="P-384"), set()),
        (published(ED_KEY, "k"), {"EdDSA", "Ed25519"}),
        (published(ED_KEY, "k", alg="EdDSA"), {"EdDSA"}),
        (published(OKPKey.generate_key("X25519"), "k"), set()),
        (published(OKPKey.generate_key("Ed448"), "k"), set()),
        (published(RSA_KEY, "k", use="sig"), {"RS256", "RS384", "RS512", "PS256"}),
        (published(EC_KEY, "k", use="enc"), set()),
        (published(EC_KEY, "k", use="SIG"), set()),
        (published(EC_KEY, "k", use=None), set()),
        (published(EC_KEY, "k", key_ops=["verify"]), {"ES256"}),
        (published(EC_KEY, "k", key_ops=["verify", "encrypt"]), {"ES256"}),
        (published(EC_KEY, "k", key_ops=["sign"]), set()),
        (published(EC_KEY, "k", key_ops=[]), set()),
        (published(EC_KEY, "k", key_ops="verify"), set()),
        (published(EC_KEY, "k", key_ops=None), set()),
        (published(EC_KEY, "k", key_ops=5), set()),
        (published(SHORT, "k"), set()),
        (published(ALMOST, "k"), set()),
        (published(RSA_KEY, "k", n="AQAB"), set()),
        (published(RSA_KEY, "k", n=5), set()),
        (published(RSA_KEY, "k", n=...), set()),
        (published(RSA_KEY, "k", e="!"), set()),
        (published(RSA_KEY, "k", e=""), set()),
        (published(EC_KEY, "k", y=...), set()),
        (published(EC_KEY, "k", x="AAAA"), set()),
        ({"kty": "oct", "kid": "k", "k": "c" * 43}, set()),
        ({"kty": "oct", "kid": "k", "alg": "HS256", "k": "c" * 43}, set()),
        ({"kty": "RSA", "kid": "k"}, set()),
        ({"kty": "rsa", "kid": "k"}, set()),
        ({"kty": ["RSA"], "kid": "k"}, set()),
        ({"kty": {}, "kid": "k"}, set()),
        ({"kid": "k"}, set()),
        ({}, set()),
        ([], set()),
        (None, set()),
        ("RSA", set()),
        (5, set()),
    ],
)
def test_r13_a_published_key_that_is_not_for_our_use_is_left_out(
    entry: Any, algorithms: set[str]
) -> None:
    """An unusable key does not affect the others of its set."""
    keys = ring(entry, GOOD)
    assert names(keys) == algorithms
    assert keys.find("good", "ES256") is not None
    assert len(keys) == 1 + bool(algorithms)


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize("kid", [5, ["k"], {"k": 1}, True])
def test_a_key_whose_name_is_no_text_is_left_out(kid: Any) -> None:
    """No token could name it."""
    assert len(ring(published(RSA_KEY, kid), GOOD)) == 1


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY, ED_KEY])
def test_r13_private_members_of_a_published_key_are_not_read(key: Any) -> None:
    """The private part of a published private key is ignored."""
    keys = ring({**key.as_dict(private=True), "kid": "k"})
    [algorithm, *_] = sorted(algorithms_of(key))
    found: Any = keys.find("k", algorithm)
    assert found is not None
    assert not found.is_private


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "keys",
        5,
        {},
        {"keys": None},
        {"keys": {}},
        {"keys": "RSA"},
        {"keys": []},
        {"keys": [None]},
        {"keys": [{"kty": "oct", "k": "c" * 43}]},
        {"keys": [published(EC_KEY, "k", use="enc")]},
        {"Keys": [GOOD]},
        [GOOD],
        GOOD,
    ],
)
def test_r29_a_document_without_a_usable_key_is_no_key_set(document: Any) -> None:
    """It must not replace known keys: it is a failure of the provider."""
    with pytest.raises(ValueError, match="key set"):
        read_key_set(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["keys", "kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x"])
            | st.text(max_size=3),
            inner | st.sampled_from(["RSA", "EC", "OKP", "P-256", "AQAB", "sig"]),
            max_size=6,
        )
    ),
    max_leaves=12,
)


@pytest.mark.filterwarnings("ignore:Key size")
@given(JSON, st.lists(JSON, max_size=4))
def test_r29_any_document_is_a_key_set_or_none(document: Any, entries: list[Any]) -> None:
    """No other exception is raised, whatever a provider publishes."""
    for one in (document, {"keys": entries}):
        with contextlib.suppress(ValueError):
            assert len(read_key_set(one))
    assert len(ring(*entries, GOOD)) >= 1


# Finding a key.


def test_a_key_without_an_id_is_found_where_it_is_the_only_one() -> None:
    """A token without a key id is verified only if exactly one key fits."""
    alone = ring(published(RSA_KEY), published(EC_KEY, "ec"))
    assert alone.find(None, "RS256") is not None
    assert alone.find(None, "ES256") is not None
    assert alone.find(None, "EdDSA") is None
    two = ring(published(RSA_KEY, "a"), published(OTHER_RSA, "b"))
    assert two.find(None, "RS256") is None
    bound = ring(published(RSA_KEY, "a", alg="RS256"), published(OTHER_RSA, "b", alg="PS256"))
    assert bound.find(None, "RS256") is bound.find("a", "RS256") is not None
    assert bound.find(None, "PS256") is bound.find("b", "PS256") is not None


def test_r13_a_key_is_found_under_its_own_name_and_algorithm_alone() -> None:
    """A token with a key id gets that key or none, never the only other one."""
    keys = ring(published(RSA_KEY, "a", alg="RS256"), published(EC_KEY))
    for kid, algorithm in (
        ("b", "RS256"),
        ("A", "RS256"),
        ("a ", "RS256"),
        ("", "RS256"),
        ("a", "PS256"),
        ("a", "ES256"),
        ("", "ES256"),
        ("None", "ES256"),
    ):
        assert keys.find(kid, algorithm) is None
    assert keys.find("a", "RS256") is not None


@pytest.mark.parametrize("swap", [False, True])
def test_r13_of_two_keys_of_one_name_the_first_counts(swap: bool) -> None:
    """The first key of an id in the document is used; keys of other types do not clash."""
    entries = [published(RSA_KEY, "k"), published(OTHER_RSA, "k")]
    first, second = (ring(one).find("k", "RS256") for one in entries[:: -1 if swap else 1])
    assert first is not None
    assert second is not None
    keys = ring(*entries[:: -1 if swap else 1], published(EC_KEY, "k"))
    found = keys.find("k", "RS256")
    assert found is not None
    assert found.thumbprint() == first.thumbprint() != second.thumbprint()
    assert keys.find("k", "ES256") is not None
    assert keys.find(None, "RS256") is None
    assert len(keys) == 3


def test_a_set_is_read_up_to_its_bound() -> None:
    """A hundred keys are read; the one beyond is not, usable or not."""
    assert MAX_KEYS == 100
    many = [published(EC_KEY, f"k{number}") for number in range(MAX_KEYS + 20)]
    keys = ring(*many)
    assert len(keys) == MAX_KEYS
    assert keys.find(f"k{MAX_KEYS - 1}", "ES256") is not None
    assert keys.find(f"k{MAX_KEYS}", "ES256") is None


@pytest.mark.parametrize("make", [lambda: KeyRing([]), lambda: KeyRing(iter(()))])
def test_an_empty_ring_holds_no_key(make: Callable[[], KeyRing]) -> None:
    """No key is found, with an id or without."""
    assert len(make()) == 0
    assert make().find("k", "RS256") is None
    assert make().find(None, "RS256") is None


@pytest.mark.parametrize(("curve", "algorithms"), CURVES.items())
def test_the_table_of_curves_names_real_ones(curve: str, algorithms: frozenset[str]) -> None:
    """Each curve makes keys, and they are used with what the table says."""
    kind = OKPKey if curve.startswith("Ed") else ECKey
    key = kind.generate_key(curve)  # type: ignore[arg-type]
    assert algorithms_of(key) == algorithms
    for algorithm in algorithms:
        assert answered(FixedKey(key).find(None, algorithm)) is key


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_shared_secret_may_be_used_with_each_of_its_algorithms(algorithm: str) -> None:
    """And with nothing else."""
    assert algorithms_of(configured_key("s" * 64, algorithm)) == {"HS256", "HS384", "HS512"}
