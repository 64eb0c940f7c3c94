"""The development issuer: one key in a data directory, and real tokens signed with it."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from tests.auth.stage import Verifying
from towpath.auth.development import development_issuer, development_key, sign
from towpath.auth.verdicts import Invalid, Valid
from towpath.errors import ConfigurationError


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
    """The first one wins, and no temporary file is left."""
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
    """An invalid file is never replaced automatically: the operator decides."""
    (tmp_path / "dev-key.json").write_text(text)
    with pytest.raises(ConfigurationError, match="remove the file to create a new key"):
        development_key(tmp_path)
    assert (tmp_path / "dev-key.json").read_text() == text


def test_a_data_directory_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    """A file in place of the directory is left for the operator to remove."""
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigurationError, match="cannot use"):
        development_key(tmp_path / "data")


def test_r12_a_demo_user_holds_a_real_token(tmp_path: Path) -> None:
    """A token of `sign` is verified and expires like any other."""
    key = development_key(tmp_path)
    made = sign(key, user="mia", tenant="demo", roles=["ops"], now=1000.7, ttl=60)
    verifier = Verifying(development_issuer(), key)
    verdict = verifier.verify(made, 1000.7)
    assert isinstance(verdict, Valid)
    assert (verdict.principal.tenant, verdict.principal.user) == ("demo", "mia")
    assert verdict.principal.roles == {"ops"}
    assert verifier.verify(made, 1090) == Invalid("expired", expired=True)


def test_r12_another_development_key_opens_nothing(tmp_path: Path) -> None:
    """Two data directories are two issuers."""
    made = sign(development_key(tmp_path / "a"), user="mia", tenant="demo", now=1000, ttl=60)
    verifier = Verifying(development_issuer(), development_key(tmp_path / "b"))
    assert isinstance(verifier.verify(made, 1000), Invalid)


def test_two_tokens_of_one_person_are_two(tmp_path: Path) -> None:
    """Each token has its own id, by which it can be revoked."""
    key = development_key(tmp_path)
    made = {sign(key, user="mia", tenant="demo", now=1000, ttl=60) for _ in range(10)}
    assert len(made) == 10


def test_r12_a_demo_token_names_its_issuer_its_moment_and_itself(tmp_path: Path) -> None:
    """`iss`, `iat` and `jti`, as revocations and several issuers need; parents are created."""
    key = development_key(tmp_path / "deep" / "data")
    made = sign(key, user="mia", tenant="demo", now=1000.7, ttl=60)
    claims = jwt.decode(made, key).claims
    assert (claims["iss"], claims["iat"], claims["exp"]) == ("towpath-dev", 1000, 1060)
    assert len(claims["jti"]) == 32
