"""A key is the right one for its algorithm, or the server does not start."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from towpath.auth.keys import (
    ALGORITHMS,
    configured_key,
    development_issuer,
    development_key,
    sign,
)
from towpath.auth.tokens import Invalid, TokenVerifier, Valid
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
    """The form in which a key is written does not make it stronger."""
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        configured_key('{"kty":"oct","k":"c2hvcnQ"}', "HS256")


@pytest.mark.parametrize("algorithm", ["none", "None", "", "hs256", "HS256 ", "RSA-OAEP", "dir"])
def test_r13_an_algorithm_that_is_not_taken_is_refused(algorithm: str) -> None:
    """The sentence lists those that are."""
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
    """No key is ever used with an algorithm of another kind: no confusion, no late surprise."""
    with pytest.raises(ConfigurationError, match=rf"the key is none for {algorithm}"):
        configured_key(text, algorithm)


def test_r17_a_refused_key_is_not_quoted() -> None:
    """The sentence an operator reads, and logs, holds no secret."""
    for text, algorithm in (("hunter2hunter2", "HS256"), ('{"kty":"hunter2"', "HS256")):
        with pytest.raises(ConfigurationError) as refused:
            configured_key(text, algorithm)
        assert "hunter2" not in str(refused.value)


def test_every_algorithm_taken_has_a_strength() -> None:
    """Nothing without a signature, and nothing of SHA-1, is in the list."""
    assert {name[:2] for name in ALGORITHMS} == {"HS", "RS", "PS", "ES", "Ed"}
    assert "none" not in ALGORITHMS


# The development key.


def test_r12_a_development_key_is_made_once_and_only_we_can_read_it(tmp_path: Path) -> None:
    """The second call finds what the first one made; the file's mode is 0600."""
    data = tmp_path / "data"
    made = development_key(data)
    found = development_key(data)
    assert found.raw_value == made.raw_value
    assert len(made.raw_value) == 32
    assert stat.S_IMODE((data / "dev-key.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert [file.name for file in data.iterdir()] == ["dev-key.json"]


def test_r21_eight_who_make_it_at_once_agree_on_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is first wins, and nothing temporary stays behind."""
    all_found_none = Barrier(8)
    generate = OctKey.generate_key

    def generate_together(size: int) -> OctKey:
        all_found_none.wait(10)
        return generate(size)

    monkeypatch.setattr(OctKey, "generate_key", generate_together)
    for attempt in range(5):
        data = tmp_path / str(attempt)
        with ThreadPoolExecutor(8) as pool:
            keys = {key.raw_value for key in pool.map(development_key, [data] * 8)}
        assert len(keys) == 1
        assert [file.name for file in data.iterdir()] == ["dev-key.json"]


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", '{"kty":"RSA"}', '{"kty":"oct"}'])
def test_r21_a_file_that_is_no_key_says_what_to_do(tmp_path: Path, text: str) -> None:
    """A broken file is never replaced by itself: whoever put it there decides."""
    (tmp_path / "dev-key.json").write_text(text)
    with pytest.raises(ConfigurationError, match="remove it to have a new one made"):
        development_key(tmp_path)
    assert (tmp_path / "dev-key.json").read_text() == text


def test_a_data_directory_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    """A file in the place of the directory is the operator's to clear away."""
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigurationError, match="cannot use"):
        development_key(tmp_path / "data")


def test_r12_a_demo_user_holds_a_real_token(tmp_path: Path) -> None:
    """What `sign` makes is verified like any other token, and ends like one."""
    key = development_key(tmp_path)
    made = sign(key, user="mia", tenant="demo", roles=["ops"], now=1000.7, ttl=60)
    verifier = TokenVerifier(development_issuer(key))
    verdict = verifier.verify(made, 1000.7)
    assert isinstance(verdict, Valid)
    assert (verdict.principal.tenant, verdict.principal.user) == ("demo", "mia")
    assert verdict.principal.roles == {"ops"}
    assert verifier.verify(made, 1090) == Invalid("expired", expired=True)


def test_r12_another_development_key_opens_nothing(tmp_path: Path) -> None:
    """Two data directories are two issuers."""
    made = sign(development_key(tmp_path / "a"), user="mia", tenant="demo", now=1000, ttl=60)
    verifier = TokenVerifier(development_issuer(development_key(tmp_path / "b")))
    assert isinstance(verifier.verify(made, 1000), Invalid)


def test_two_tokens_of_one_person_are_two(tmp_path: Path) -> None:
    """Each token has an id of its own, by which it alone can be revoked."""
    key = development_key(tmp_path)
    made = {sign(key, user="mia", tenant="demo", now=1000, ttl=60) for _ in range(10)}
    assert len(made) == 10
