"""Settings mean what their docstrings say, and contradict each other in no way."""

import ast
import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from towpath import settings as room
from towpath.auth.breaker import CircuitBreaker
from towpath.auth.connection_auth import Grace
from towpath.auth.jwks import Freshness
from towpath.auth.service import Retry
from towpath.connections.session import SessionLimits
from towpath.rate_limits import Rate
from towpath.settings import IssuerSettings, Settings, platform_port

PAIRS = [
    ("pong_timeout", "ping_interval"),
    ("keys_timeout", "auth_timeout"),
    ("early_message_bytes", "message_bytes"),
    ("run_message_bytes", "message_bytes"),
    ("message_bytes", "outbox_bytes"),
    ("run_message_bytes", "event_bytes"),
    ("event_bytes", "run_bytes"),
    ("cleanup_timeout", "drain_timeout"),
    ("cleanup_timeout", "run_deadline"),
]

WIRE_BOUNDS = {
    "early_message_bytes": 64 * 1024,
    "message_bytes": 1024 * 1024,
    "waiting_bytes": 64 * 1024,
    "waiting_commands": 256,
    "subscriptions": 128,
    "user_connections": 20,
    "errors": 100,
    "run_message_bytes": 256 * 1024,
    "snapshot_max_bytes": 1024 * 1024,
    "connect_timeout": 5.0,
    "close_timeout": 2.0,
    "ping_interval": 25.0,
    "pong_timeout": 10.0,
    "expiry_grace": 25.0,
}
"""WIRE sections 1, 3, 4 and 9."""


AUTH_BOUNDS = {
    "expiry_grace": 25.0,
    "outage_grace": 900.0,
    "auth_timeout": 2.5,
    "auth_attempts": 3,
    "keys_timeout": 1.0,
    "keys_fresh": 300.0,
    "keys_stale": 3600.0,
    "keys_cooldown": 10.0,
    "breaker_failures": 3,
    "breaker_reset": 15.0,
    "verdict_seconds": 300.0,
    "commands_burst": 512,
    "commands_per_second": 50.0,
    "failures_burst": 200,
    "failures_per_second": 10.0,
    "repeats_burst": 20,
    "repeats_per_second": 0.5,
    "tenant_connections": 10_000,
}
"""What the documentation says of authentication, and what each room takes by itself."""


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TOWPATH_{name.upper()}", raising=False)


@pytest.mark.parametrize(("smaller", "larger"), PAIRS)
def test_r58_a_contradiction_names_both_settings_and_both_values(smaller: str, larger: str) -> None:
    """What must not exceed another is refused one step past it, and taken when equal."""
    value = Settings.model_fields[larger].default
    # Whatever else the two are compared with gives way.
    room_for: dict[str, Any] = dict.fromkeys({name for pair in PAIRS for name in pair}, 10**9)
    room_for |= {"auth_timeout": 3, "keys_timeout": 1}
    room_for |= {"message_bytes": 2 * 1024 * 1024, "event_bytes": 2 * 1024 * 1024}
    room_for |= {larger: value, "pong_timeout": 1, "cleanup_timeout": 1}
    room_for |= {"early_message_bytes": 1, "run_message_bytes": 1}
    Settings(**{**room_for, smaller: value})
    with pytest.raises(ValidationError) as refused:
        Settings(**{**room_for, smaller: value + 1})
    assert f"{smaller} ({value + 1}) must not exceed {larger} ({value})" in str(refused.value)


def test_r58_what_the_defaults_say_does_not_contradict_itself() -> None:
    """A server with nothing configured has settings."""
    Settings()


@pytest.mark.parametrize(("name", "value"), WIRE_BOUNDS.items())
def test_r67_the_defaults_are_those_of_the_wire(name: str, value: float) -> None:
    """Each documented bound is one setting with the documented value."""
    assert getattr(Settings(), name) == value


def test_every_setting_says_what_it_means() -> None:
    """The reference page is printed from the strings below the fields, so each has one."""
    bodies = [
        node.body
        for group in room.GROUPS
        for node in ast.parse(inspect.getsource(group)).body
        if isinstance(node, ast.ClassDef)
    ]
    fields = {
        node.target.id: following
        for body in bodies
        for node, following in zip(body, [*body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert fields.keys() == Settings.model_fields.keys()
    for name, following in fields.items():
        assert isinstance(following, ast.Expr), f"{name} has no docstring"
        assert isinstance(following.value, ast.Constant)
        meaning = following.value.value
        assert isinstance(meaning, str)
        assert len(meaning.split()) >= 2, f"{name} says too little"
        assert meaning.strip().endswith((".", "?")), f"{name} is no sentence"


def test_each_setting_stands_in_one_group() -> None:
    """And the ten that come first are settings."""
    names = [name for group in room.GROUPS for name in group.model_fields]
    assert sorted(names) == sorted(Settings.model_fields)
    assert set(room.GROUPS) < set(Settings.__mro__)
    assert len(room.FIRST) == 10
    assert set(room.FIRST) <= Settings.model_fields.keys()


VARIABLES = {
    **{name: f"TOWPATH_{name.upper()}" for name in Settings.model_fields},
    "openai_base_url": "OPENAI_BASE_URL",
    "openai_api_key": "OPENAI_API_KEY",
}

OTHER = {
    "synchronous": "FULL",
    "issuers": '[{"issuer": "a", "tenant": "acme"}]',
    "allowed_origins": '["https://app.example"]',
    "trusted_proxies": '["10.0.0.0/8"]',
    "server_subscriptions": '["user"]',
    "keep_raw": "true",
    "model_tokens": "7",
}
"""Values that are no default, where a number or a word is none."""


def another(name: str, default: object) -> str:
    """Return a value for a setting that is not its default, as the environment has it."""
    if name in OTHER:
        return OTHER[name]
    if isinstance(default, int):
        return str(default - 1)
    return str(default * 0.99) if isinstance(default, float) else "word"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_one_variable_and_one_keyword(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its group is, its name stands alone, and the keyword wins over the environment."""
    monkeypatch.delenv(VARIABLES[name], raising=False)
    default = getattr(Settings(), name)
    monkeypatch.setenv(VARIABLES[name], another(name, default))
    assert getattr(Settings(), name) != default
    given: dict[str, Any] = {name: default}
    assert getattr(Settings(**given), name) == default


def test_nothing_else_reads_settings_in_the_environment() -> None:
    """A setting that is read elsewhere is neither checked nor documented."""
    package = Path(room.__file__).parent
    readers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"os\.environ|getenv", path.read_text())
    }
    # The last two hand the environment on to a process that they start.
    assert readers == {
        "settings.py",
        "agents/assistant/local_model.py",
        "testing/server.py",
    }


def number_settings() -> list[str]:
    return [
        name for name, field in Settings.model_fields.items() if field.annotation in (int, float)
    ]


@pytest.mark.parametrize("name", number_settings())
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf, "much", None])
def test_r58_a_number_that_is_no_bound_is_refused(name: str, value: Any) -> None:
    """Nothing may be negative, endless or no number: every queue and wait has a bound."""
    with pytest.raises(ValidationError):
        Settings(**{name: value})


@pytest.mark.parametrize(
    "name",
    sorted(
        set(number_settings())
        - {"expiry_grace", "outage_grace", "keys_stale", "limited_delay", "reserve_bytes"}
    ),
)
def test_r58_nothing_is_switched_off_by_zero(name: str) -> None:
    """A bound of zero would be no server; only a reserve and what comes after an end may."""
    zero: dict[str, Any] = {name: 0}
    with pytest.raises(ValidationError):
        Settings(**zero)


def test_the_environment_sets_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """`TOWPATH_` and the name in capitals, and nothing without the prefix."""
    monkeypatch.setenv("TOWPATH_SUBSCRIPTIONS", "7")
    monkeypatch.setenv("TOWPATH_ALLOWED_ORIGINS", '["https://app.example"]')
    monkeypatch.setenv("ERRORS", "1")
    monkeypatch.setenv("DATA", "/elsewhere")
    made = Settings()
    assert made.subscriptions == 7
    assert made.allowed_origins == {"https://app.example"}
    assert (made.errors, str(made.data)) == (100, ".towpath")


def test_r58_the_environment_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contradiction is one wherever its halves come from."""
    monkeypatch.setenv("TOWPATH_PONG_TIMEOUT", "26")
    with pytest.raises(ValidationError, match=r"pong_timeout \(26.0\).*ping_interval \(25.0\)"):
        Settings()


@pytest.mark.parametrize("name", ["dev", "debug", "test", "testing", "insecure", "no_auth"])
def test_r11_no_setting_widens_access(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no such field, and saying it in the environment changes nothing."""
    before = Settings()
    for prefix in ("", "TOWPATH_"):
        monkeypatch.setenv(f"{prefix}{name.upper()}", "1")
    assert name not in Settings.model_fields
    assert Settings() == before


def test_r21_no_secret_has_a_default() -> None:
    """Without configuration there is no key, no issuer and no tenant."""
    made = Settings()
    assert (made.jwt_key, made.jwt_issuer, made.tenant, made.tenant_claim) == (None,) * 4


def test_r17_a_key_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are printed or dumped hide the key."""
    monkeypatch.setenv("TOWPATH_JWT_KEY", "hunter2" * 6)
    made = Settings()
    assert "hunter2" not in f"{made!r} {made} {made.model_dump()} {made.model_dump_json()}"


def test_settings_cannot_be_changed() -> None:
    """What was checked at start stays as it was."""
    made: Any = Settings()
    with pytest.raises(ValidationError):
        made.errors = 5


@pytest.mark.parametrize(("name", "value"), AUTH_BOUNDS.items())
def test_r32_the_defaults_of_authentication_are_the_documented_ones(
    name: str, value: float
) -> None:
    """Each is one setting with one default."""
    assert getattr(Settings(), name) == value


def test_r31_the_rooms_defaults_are_the_settings() -> None:
    """Whoever builds a room by hand gets what a server gets."""
    made = Settings()
    assert Retry() == Retry(attempts=made.auth_attempts, deadline=made.auth_timeout)
    assert Grace() == Grace(expiry=made.expiry_grace, outage=made.outage_grace)
    assert Freshness() == Freshness(
        fresh=made.keys_fresh, stale=made.keys_stale, cooldown=made.keys_cooldown
    )
    breaker = CircuitBreaker("keys")
    assert breaker.failure_threshold == made.breaker_failures
    assert breaker.reset_timeout == made.breaker_reset
    commands = Rate(per_second=made.commands_per_second, burst=made.commands_burst)
    assert SessionLimits().commands == commands


@pytest.mark.parametrize("value", [3.001, 10, 60])
def test_r32_nobody_waits_longer_than_three_seconds_for_a_verdict(value: float) -> None:
    """It cannot even be configured."""
    assert Settings(auth_timeout=3).auth_timeout == 3
    with pytest.raises(ValidationError, match="auth_timeout"):
        Settings(auth_timeout=value)


@pytest.mark.parametrize("network", ["proxy", "10.0.0.0/33", "10.0.0.1/8", "", "*", "10.0.0"])
def test_r23_a_trusted_proxy_is_a_network_or_the_server_does_not_start(network: str) -> None:
    """The sentence names the setting and the text; a slip never trusts everybody."""
    with pytest.raises(ValidationError) as refused:
        Settings(trusted_proxies=frozenset({"127.0.0.1", network}))
    assert f"trusted_proxies: {network!r} is no network" in str(refused.value)


def test_r23_trusted_proxies_come_as_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses and networks of both families; nobody is trusted by default."""
    assert Settings().trusted_proxies == frozenset()
    monkeypatch.setenv("TOWPATH_TRUSTED_PROXIES", '["127.0.0.1", "10.0.0.0/8", "fd00::/8"]')
    assert Settings().trusted_proxies == {"127.0.0.1", "10.0.0.0/8", "fd00::/8"}


def test_r17_the_keys_of_several_issuers_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed, dumped or complained about hides each of them."""
    entry = '{"issuer": "a", "tenant": "acme", "key": "hunter2hunter2"}'
    monkeypatch.setenv("TOWPATH_ISSUERS", f"[{entry}]")
    made = Settings()
    assert "hunter2" not in f"{made!r} {made} {made.model_dump()} {made.model_dump_json()}"
    [issuer] = made.issuers
    assert issuer.key is not None
    assert issuer.key.get_secret_value() == "hunter2hunter2"


def test_every_field_of_an_issuer_says_what_it_means() -> None:
    """The reference page lists them too."""
    lines = [line.strip() for line in inspect.getsource(IssuerSettings).splitlines()]
    for name in IssuerSettings.model_fields:
        [at] = [number for number, line in enumerate(lines) if line.startswith(f"{name}:")]
        assert lines[at + 1].startswith('"""'), f"{name} has no docstring"
        assert lines[at + 1].endswith('."""'), f"{name} is no sentence"


@pytest.mark.parametrize("subscriptions", [(), ("user",), ("tenant", "user")])
def test_server_subscriptions_are_some_of_user_and_tenant(subscriptions: tuple[str, ...]) -> None:
    """They may be empty."""
    assert Settings(server_subscriptions=subscriptions).server_subscriptions == subscriptions


@pytest.mark.parametrize("name", ["thread:t1", "users", ""])
def test_r58_another_server_subscription_is_refused_by_name(name: str) -> None:
    """The sentence says which one cannot be."""
    with pytest.raises(ValidationError, match=f"user and tenant, not {name}"):
        Settings(server_subscriptions=("user", name))


@pytest.mark.parametrize("value", ["OFF", "normal", "EXTRA", ""])
def test_p4_durability_is_one_of_two_words(value: str) -> None:
    """The log is never switched to a mode that loses what was seen."""
    with pytest.raises(ValidationError):
        Settings(synchronous=value)


@pytest.mark.parametrize(
    ("port", "asked"),
    [("8080", 8080), ("", None), ("http", None), ("-1", None), ("8 0", None), ("²", None)],
)
def test_the_platform_may_ask_for_a_port(
    port: str, asked: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`$PORT` counts where it is a number."""
    monkeypatch.setenv("PORT", port)
    assert platform_port() == asked


def test_no_platform_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `$PORT` the default holds."""
    monkeypatch.delenv("PORT", raising=False)
    assert platform_port() is None
    assert (room.DEFAULT_HOST, room.DEFAULT_PORT) == ("127.0.0.1", 8000)
