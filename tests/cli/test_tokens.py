"""`towpath token` and `towpath revoke`: what they print, and how they refuse."""

import asyncio
import stat
from pathlib import Path

import pytest

from tests.cli.command import Command, assert_refused
from towpath.auth.development import development_issuer, development_key
from towpath.auth.keys import FixedKey
from towpath.auth.tokens import TokenVerifier
from towpath.auth.verdicts import Valid
from towpath.testing.server import ServerProcess


def test_token_is_one_line_and_good(towpath: Command, tmp_path: Path) -> None:
    """`token` prints one good token; the key it made is readable by its owner alone."""
    done = towpath(
        "token", "--user", "alice", "--tenant", "acme", "--role", "operator", "--data", "d",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    key_file = tmp_path / "d" / "dev-key.json"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    keys = FixedKey(development_key(tmp_path / "d"))
    verifier = TokenVerifier(development_issuer(), keys)
    verdict = asyncio.run(verifier.verify(done.stdout.strip(), key_file.stat().st_mtime))
    assert isinstance(verdict, Valid)
    assert (verdict.principal.user, verdict.principal.tenant) == ("alice", "acme")
    assert verdict.principal.roles == {"operator"}


def test_a_token_needs_a_user_and_a_tenant(towpath: Command) -> None:
    """A blank name is refused."""
    done = towpath("token", "--user", " ", "--tenant", "acme", "--data", "d")
    assert_refused(done, "a user and a tenant")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), ("--user", "--jti", "--everybody")),
        (("--user", "a", "--jti", "b"), ("--user", "--jti", "--everybody")),
        (("--user", "a", "--everybody", "--tenant", "t"), ("one of",)),
        (("--user", "a"), ("--tenant",)),
        (("--everybody", "--token", "x"), ("--tenant",)),
        (
            ("--user", "a", "--tenant", "t", "--url", "http://127.0.0.1:1"),
            ("127.0.0.1:1", "answer"),
        ),
        (("--user", "a", "--tenant", "t", "--url", "nowhere"), ("nowhere",)),
    ],
)
def test_revoke_says_what_it_needs(
    towpath: Command, given: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Nothing or too much to take back, no tenant, no server: one line and status 2."""
    assert_refused(towpath("revoke", *given, "--data", "d"), *words)


@pytest.mark.servers
def test_revoke_says_why_the_server_said_no(
    towpath: Command, monkeypatch: pytest.MonkeyPatch, own_server: ServerProcess
) -> None:
    """Another key's, a weak or an expired token is refused with the server's reason, unrepeated."""
    weak, over = own_server.token(), own_server.token(role="towpath:revoke", ttl=-60)
    url = ("--url", own_server.http)
    for token, words in ((weak, ("(403)",)), (over, ("(401)",))):
        done = towpath("revoke", "--user", "a", "--token", token, *url)
        assert_refused(done, own_server.http, *words)
        assert token not in done.stderr
    # The key of another data directory is not this server's.
    assert_refused(towpath("revoke", "--user", "a", "--tenant", "t", "--data", "d", *url), "(401)")
    elsewhere = f"{own_server.http}/somewhere/else"
    done = towpath("revoke", "--user", "a", "--token", weak, "--url", elsewhere)
    assert_refused(done, "(404)", "not the answer of a gateway")
    monkeypatch.setenv("TOWPATH_TOKEN", own_server.token(role="towpath:revoke"))
    done = towpath("revoke", "--user", "a", *url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "revoked\n", "")
