"""Issuers are made as configured, or the server does not start and says what to set."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey
from pydantic import ValidationError

from tests.auth.stage import Clock
from towpath.auth.breaker import State
from towpath.auth.development import sign
from towpath.auth.keys import ASYMMETRIC
from towpath.auth.single_flight import SingleFlight
from towpath.auth.verdicts import Invalid, Valid
from towpath.errors import ConfigurationError
from towpath.node.issuers import (
    AuthDeps,
    configured_issuers,
    make_client,
    make_development_issuer,
    make_issuer,
    problems,
)
from towpath.settings import IssuerSettings, Settings
from towpath.telemetry import BreakerMoved, Telemetry, TelemetryEvent

SECRET = "s" * 32
RSA = RSAKey.generate_key(2048).as_pem(private=False).decode()
FETCHED: dict[str, Any] = {
    "jwt_issuer": "https://id.example/",
    "jwt_audience": "towpath",
    "tenant_claim": "org",
}
FIXED: dict[str, Any] = {"jwt_key": SECRET, "tenant": "acme"}
ENTRY: dict[str, Any] = {"issuer": "https://id.example/", "audience": "towpath", "tenant": "acme"}
KEYED: dict[str, Any] = {"issuer": "ours", "key": SECRET, "tenant": "acme"}


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TOWPATH_{name.upper()}", raising=False)


def found(**fields: Any) -> list[str]:
    """Return why a server with these settings would not start."""
    return list(problems(Settings(**fields)))


def entries(*issuers: Any) -> Any:
    """Return issuers as an operator writes them, in JSON."""
    return list(issuers)


# What refuses to start.


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, ["TOWPATH_JWT_ISSUER", "TOWPATH_JWT_AUDIENCE", "TOWPATH_JWT_KEY", "--dev"]),
        ({"jwt_audience": "towpath"}, ["TOWPATH_JWT_ISSUER", "TOWPATH_JWT_KEY", "--dev"]),
        ({"tenant": "acme", "jwt_algorithm": "RS256"}, ["TOWPATH_JWT_ISSUER"]),
        ({**FIXED, "tenant": None}, ["TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT)"]),
        ({**FIXED, "tenant": ""}, ["TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT)"]),
        ({**FIXED, "tenant": None, "tenant_claim": ""}, ["TOWPATH_TENANT_CLAIM"]),
        ({**FIXED, "tenant_claim": "org"}, ["TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT)"]),
        ({**FETCHED, "tenant_claim": None}, ["TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT)"]),
        ({**FETCHED, "tenant": "acme"}, ["TOWPATH_TENANT_CLAIM", "TOWPATH_TENANT)"]),
        ({**FETCHED, "jwt_audience": None}, ["TOWPATH_JWT_AUDIENCE", "https://id.example/"]),
        (
            {"jwks_url": "https://id.example/keys", "tenant": "acme"},
            ["TOWPATH_JWT_ISSUER", "the issuer of the fetched keys"],
        ),
        (
            {**FETCHED, "jwt_key": SECRET, "jwks_url": "https://id.example/keys"},
            ["TOWPATH_JWT_KEY", "TOWPATH_JWKS_URL"],
        ),
        ({**FETCHED, "jwt_algorithm": "HS256"}, ["HS256", "RS256"]),
        ({**FETCHED, "jwt_algorithm": "none"}, ["none", "RS256"]),
        ({**FIXED, "jwt_algorithm": "none"}, ["none", "HS256"]),
        ({**FIXED, "jwt_algorithm": "RS256"}, ["RS256"]),
        ({**FIXED, "jwt_key": RSA}, ["HS256"]),
        ({**FIXED, "jwt_key": "short"}, ["32 bytes"]),
        ({**FIXED, "jwt_key": ""}, []),
        ({**FETCHED, "ca_file": "/nowhere/ca.pem"}, ["TOWPATH_CA_FILE", "/nowhere/ca.pem"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Key size")
def test_r21_a_contradiction_refuses_to_start_and_says_what_to_set(
    fields: dict[str, Any], named: list[str]
) -> None:
    """One sentence for one fault, with the names of the variables, and without the key."""
    [sentence] = found(**fields)
    assert all(name in sentence for name in named), sentence
    assert SECRET not in sentence


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example/",
        "http://10.0.0.1/",
        "http://localhost.example/",
        "http://127.0.0.1.example/",
        "ftp://id.example/",
        "file:///etc/passwd",
        "id.example",
        "//id.example/",
        "https://",
        "https:///path",
        "https://user:hunter2@id.example/",
        "https://user@id.example/",
        "https://id.example/?a=1",
        "https://id.example/#a",
        "https://id.example:port/",
        "https://[::1/",
        " ",
    ],
)
@pytest.mark.parametrize("setting", ["jwt_issuer", "jwks_url"])
def test_r29_keys_are_fetched_over_https_or_from_this_machine(setting: str, address: str) -> None:
    """From an address without a user or a query; the sentence says so."""
    [sentence] = found(**{**FETCHED, setting: address})
    assert "https" in sentence
    assert "loopback" in sentence


@pytest.mark.parametrize(
    "address",
    [
        "https://id.example/",
        "https://id.example:8443/realms/acme",
        "http://127.0.0.1:9000/",
        "http://localhost:9000",
        "http://[::1]:9000/",
    ],
)
@pytest.mark.parametrize("setting", ["jwt_issuer", "jwks_url"])
def test_r29_loopback_may_do_without_https(setting: str, address: str) -> None:
    """Nobody listens in between."""
    assert found(**{**FETCHED, setting: address}) == []


def test_r21_a_file_of_authorities_that_is_none_refuses_to_start(tmp_path: Path) -> None:
    """Empty or nonsense: nothing is fetched without anybody being trusted."""
    for text in ("", "no certificate"):
        (tmp_path / "ca.pem").write_text(text)
        sentences = found(**FETCHED, ca_file=str(tmp_path / "ca.pem"))
        assert len(sentences) == 1
        assert "TOWPATH_CA_FILE" in sentences[0]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({**FIXED, "issuers": [ENTRY]}, "issuer"),
        ({"issuers": [ENTRY, {**KEYED, "issuer": None}]}, "issuer"),
        ({**FETCHED, "issuers": [ENTRY]}, "unique"),
        ({"issuers": [ENTRY, KEYED, ENTRY]}, "unique"),
    ],
)
def test_r13_several_issuers_are_told_apart_by_their_names(
    fields: dict[str, Any], named: str
) -> None:
    """Or a token of one could be judged by another."""
    [sentence] = found(**fields)
    assert named in sentence


def test_r21_every_issuer_at_fault_is_told_of_at_once() -> None:
    """An operator repairs everything in one go."""
    broken = [
        {**ENTRY, "audience": None},
        {**KEYED, "key": "short", "issuer": "second"},
        KEYED,
        {**ENTRY, "issuer": "https://third.example/", "tenant": None},
    ]
    with pytest.warns(Warning, match="Key size"):
        sentences = found(issuers=broken, ca_file="/nowhere/ca.pem")
    assert len(sentences) == 4
    for part in ("TOWPATH_CA_FILE", "AUDIENCE", "32 bytes", "TENANT_CLAIM"):
        assert any(part in sentence for sentence in sentences)


@pytest.mark.parametrize("entry", [{**ENTRY, "keys": "x"}, {**ENTRY, "verify": False}, "x", 5])
def test_r11_an_issuer_has_the_documented_fields_and_no_other(entry: Any) -> None:
    """A misspelt field is an error and not an issuer with less asked of it."""
    with pytest.raises(ValidationError):
        Settings(issuers=entries(entry))


def test_r21_what_is_found_beforehand_is_what_starting_raises() -> None:
    """`problems` and making the issuers never differ."""
    for fields in ({}, {**FIXED, "tenant": None}, {**FETCHED, "jwt_audience": None}):
        settings = Settings(**fields)

        def start(settings: Settings = settings) -> None:
            for one in configured_issuers(settings):
                make_issuer(one, around(settings), None)

        with pytest.raises(ConfigurationError) as refused:
            start()
        assert [str(refused.value)] == list(problems(settings))


# What is made.


def around(
    settings: Settings, emitted: list[TelemetryEvent] | None = None, clock: Clock | None = None
) -> AuthDeps:
    return AuthDeps(
        settings=settings,
        telemetry=Telemetry([emitted.append] if emitted is not None else []),
        fetches=SingleFlight(lambda _: None),
        monotonic=clock or Clock(),
        random=lambda: 0.5,
    )


def test_the_short_form_comes_first_and_has_every_setting() -> None:
    """The `jwt_…` settings are one issuer, before those of the list."""
    settings = Settings(
        **FETCHED,
        jwt_algorithm="ES256",
        jwks_url="https://id.example/keys",
        roles_claim="/realm_access/roles",
        issuers=entries(KEYED),
    )
    short, listed = configured_issuers(settings)
    assert short == IssuerSettings(
        issuer="https://id.example/",
        audience="towpath",
        algorithm="ES256",
        jwks_url="https://id.example/keys",
        tenant_claim="org",
        roles_claim="/realm_access/roles",
    )
    assert short.required
    assert listed == IssuerSettings(**KEYED)


def test_r30_an_issuer_may_be_one_that_readiness_does_not_wait_for() -> None:
    """Unless it says so, it is waited for."""
    settings = Settings(issuers=entries(KEYED, {**KEYED, "issuer": "other", "required": False}))
    made = [make_issuer(one, around(settings), None) for one in configured_issuers(settings)]
    assert [one.required for one in made] == [True, False]


def test_issuers_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a JSON list of objects."""
    monkeypatch.setenv("TOWPATH_ISSUERS", json.dumps([ENTRY, {**KEYED, "required": False}]))
    one, other = configured_issuers(Settings())
    assert (one.issuer, one.required) == ("https://id.example/", True)
    assert (other.issuer, other.required) == ("ours", False)
    assert SECRET not in repr(other)


async def test_r13_a_fixed_key_verifies_with_its_one_algorithm() -> None:
    """HS256 unless another is named; the issuer has a name where it has one."""
    settings = Settings(**FIXED)
    [one] = configured_issuers(settings)
    made = make_issuer(one, around(settings), None)
    assert (made.issuer, made.name, made.keys, made.warm) == (None, "configured key", None, True)
    assert made.required
    key = OctKey.import_key(SECRET)
    token = sign(key, user="mia", tenant="other", now=1000, ttl=60)
    verdict = await made.verifier.verify(token, 1000)
    assert isinstance(verdict, Valid)
    assert verdict.principal.tenant == "acme"
    settings = Settings(**FIXED, jwt_algorithm="HS512")
    [one] = configured_issuers(settings)
    other = make_issuer(one, around(settings), None)
    assert isinstance(await other.verifier.verify(token, 1000), Invalid)


@pytest.mark.parametrize(
    ("algorithm", "taken"), [(None, ASYMMETRIC), ("ES256", {"ES256"}), ("EdDSA", {"EdDSA"})]
)
async def test_r13_fetched_keys_are_used_with_asymmetric_algorithms(
    algorithm: str | None, taken: set[str]
) -> None:
    """All of them, or the one that is named; never a shared secret."""
    settings = Settings(**FETCHED, jwt_algorithm=algorithm)
    [one] = configured_issuers(settings)
    async with make_client(settings) as client:
        made = make_issuer(one, around(settings), client)
    assert made.keys is not None
    assert made.keys.issuer == made.name == "https://id.example/"
    assert not made.warm
    verifier: Any = made.verifier
    assert verifier._issuer.algorithms == taken


async def test_the_settings_of_keys_reach_them() -> None:
    """Freshness, time of a call, and the breaker's threshold and pause."""
    settings = Settings(
        **FETCHED,
        keys_fresh=11,
        keys_stale=22,
        keys_cooldown=3,
        keys_timeout=0.5,
        breaker_failures=2,
        breaker_reset=7,
    )
    [one] = configured_issuers(settings)
    async with make_client(settings) as client:
        made = make_issuer(one, around(settings), client)
    keys: Any = made.keys
    assert (keys._freshness.fresh, keys._freshness.stale, keys._freshness.cooldown) == (11, 22, 3)
    assert keys._source._timeout == 0.5
    assert keys._source.breaker is made.breaker
    assert (made.breaker.failure_threshold, made.breaker.reset_timeout) == (2, 7)


def test_r25_each_breakers_moves_are_told_with_its_issuer() -> None:
    """By hook, so that log and metrics show them; one breaker per issuer."""
    settings = Settings(issuers=entries(KEYED, {**KEYED, "issuer": "theirs"}), breaker_failures=1)
    emitted: list[TelemetryEvent] = []
    clock = Clock()
    ours, theirs = (
        make_issuer(one, around(settings, emitted, clock), None)
        for one in configured_issuers(settings)
    )
    theirs.breaker.record_failure()
    clock.now += 15
    with theirs.breaker.admit():
        pass
    assert ours.breaker.state is State.CLOSED
    assert emitted == [
        BreakerMoved(dependency="theirs", before=before, after=after)
        for before, after in (
            ("closed", "open"),
            ("open", "half-open"),
            ("half-open", "closed"),
        )
    ]


async def test_r29_keys_are_fetched_without_redirects_proxies_or_netrc() -> None:
    """Whatever the environment says."""
    async with make_client(Settings()) as client:
        assert client.follow_redirects is False
        assert client.trust_env is False


async def test_r12_the_development_issuer_takes_its_own_tokens_alone() -> None:
    """It is an issuer like any other, with a breaker that nothing moves."""
    key = OctKey.generate_key(256)
    made = make_development_issuer(key, around(Settings()))
    assert (made.name, made.warm, made.required) == ("towpath-dev", True, True)
    token = sign(key, user="mia", tenant="demo", now=1000, ttl=60)
    assert isinstance(await made.verifier.verify(token, 1000), Valid)
    other = sign(OctKey.generate_key(256), user="mia", tenant="demo", now=1000, ttl=60)
    assert isinstance(await made.verifier.verify(other, 1000), Invalid)


def test_checking_settings_opens_nothing() -> None:
    """Neither a loop nor a network is needed for it."""
    assert found(**FETCHED) == []
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
