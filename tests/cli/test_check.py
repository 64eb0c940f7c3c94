"""`towpath config check`: every setting, every reason, no secret."""

import json

import pytest

from tests.cli.command import Command, Ended, assert_refused
from towpath.settings import Settings
from towpath.testing.server import free_port


def checked(towpath: Command, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Ended:
    """Run `towpath config check` with these settings in the environment."""
    for name, value in settings.items():
        monkeypatch.setenv(f"TOWPATH_{name.upper()}", value)
    return towpath("config", "check")


def test_config_check_shows_every_setting_and_no_secret(
    towpath: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting with its value and origin, keys as asterisks, and that it would start."""
    others = [
        {"issuer": "https://b.example", "key": "s3cret-" * 6, "tenant": "globex"},
        {"issuer": "https://c.example", "audience": "towpath", "tenant": "initech"},
    ]
    done = checked(
        towpath,
        monkeypatch,
        jwt_key="s3cret-" * 6,
        jwt_issuer="https://a.example",
        tenant="acme",
        issuers=json.dumps(others),
        ping_interval="20",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "towpath serve would start with this" in done.stdout
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:-1]}
    assert set(rows) == set(Settings.model_fields)
    assert rows["jwt_key"] == ["**********", "environment"]
    assert rows["ping_interval"] == ["20.0", "environment"]
    assert rows["pong_timeout"] == ["10.0", "default"]
    assert rows["ca_file"] == ["not", "set", "default"]
    for word in ("https://b.example", "https://c.example", "globex", "initech", "**********"):
        assert word in " ".join(rows["issuers"])
    assert "s3cret" not in done.stdout


def test_config_check_says_every_reason(towpath: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 2 and a line for each thing that is wrong, below settings that are all shown."""
    issuers = [
        {"issuer": "https://a.example", "tenant": "acme"},
        {"issuer": "https://b.example", "key": "s3cret-too-short", "tenant": "acme"},
        {"issuer": "https://c.example", "audience": "towpath"},
        {"issuer": "http://d.example", "audience": "towpath", "tenant": "acme"},
        {"issuer": "https://e.example", "audience": "x", "algorithm": "HS256", "tenant": "acme"},
        {"issuer": "https://good.example", "audience": "towpath", "tenant": "acme"},
    ]
    done = checked(towpath, monkeypatch, issuers=json.dumps(issuers), ca_file="/no/such/file")
    assert done.returncode == 2
    assert "would start" not in done.stdout
    assert "ping_interval" in done.stdout
    reasons = done.stderr.splitlines()
    assert all(line.startswith("towpath: would refuse to start: ") for line in reasons)
    expected = [
        "TOWPATH_CA_FILE /no/such/file",
        "TOWPATH_JWT_AUDIENCE",
        "at least 32 bytes",
        "TOWPATH_TENANT",
        "http://d.example",
        "HS256",
    ]
    assert len(reasons) == len(expected)
    for word, line in zip(expected, reasons, strict=True):
        assert word in line
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ("no issuer", "TOWPATH_JWT_KEY", "--dev")),
        ({"jwks_url": "https://a.example/jwks", "tenant": "x"}, ("TOWPATH_JWT_ISSUER",)),
        (
            {"jwt_key": "k" * 40, "jwks_url": "https://a.example/jwks", "tenant": "x"},
            ("TOWPATH_JWT_KEY", "TOWPATH_JWKS_URL"),
        ),
        ({"jwt_key": "k" * 40}, ("TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT")),
        (
            {"jwt_key": "k" * 40, "tenant": "x", "tenant_claim": "y"},
            ("TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT"),
        ),
        ({"jwt_key": "k" * 40, "tenant": "x", "jwt_algorithm": "none"}, ("none",)),
        (
            {"jwt_key": "k" * 40, "tenant": "x", "issuers": '[{"key": "l", "tenant": "y"}]'},
            ("name",),
        ),
    ],
)
def test_config_check_and_serve_refuse_the_same(
    towpath: Command,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    words: tuple[str, ...],
) -> None:
    """What `config check` calls a reason is what `serve` says when it refuses."""
    done = checked(towpath, monkeypatch, **settings)
    assert done.returncode == 2
    (reason,) = done.stderr.splitlines()
    for word in words:
        assert word in reason
    served = towpath("serve", "--port", str(free_port()))
    assert_refused(served)
    said = served.stderr.strip().removeprefix("towpath: ")
    assert reason == f"towpath: would refuse to start: {said}"


def test_config_check_names_every_setting_that_is_none(
    towpath: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that cannot be read are all named at once, and no value of theirs is repeated."""
    done = checked(
        towpath, monkeypatch, ping_interval="s3cret", user_connections="0", jwt_key="s3cret"
    )
    assert_refused(done, "TOWPATH_PING_INTERVAL", "TOWPATH_USER_CONNECTIONS")
    assert "s3cret" not in done.stderr
    for broken in ('[{"key": "s3cret"', '[{"key": "s3cret", "s3cret": 1}]', '"s3cret"'):
        done = checked(towpath, monkeypatch, issuers=broken, ping_interval="20")
        assert done.returncode == 2
        assert "s3cret" not in done.stdout + done.stderr.replace("S3CRET", "")


def test_config_check_says_that_a_model_cannot_be_asked(
    towpath: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a choice of a model would refuse to start; the key in it is masked."""
    monkeypatch.setenv("TOWPATH_JWT_KEY", "k" * 40)
    monkeypatch.setenv("TOWPATH_TENANT", "acme")
    monkeypatch.delenv("TOWPATH_MODEL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    done = towpath("config", "check")
    assert done.returncode == 2
    assert "would refuse to start: OPENAI_BASE_URL is set: name its model" in done.stderr
    assert "sk-secret" not in done.stdout + done.stderr
    monkeypatch.setenv("TOWPATH_MODEL", "clever")
    assert towpath("config", "check").returncode == 0
