"""Settings mean what their docstrings say, and contradict each other in no way."""

import ast
import inspect
import math
from typing import Any

import pytest
from pydantic import ValidationError

from towpath.server import settings as room
from towpath.server.settings import Settings, platform_port

PAIRS = [
    ("pong_timeout", "ping_interval"),
    ("early_message_bytes", "message_bytes"),
    ("run_message_bytes", "message_bytes"),
    ("message_bytes", "outbox_bytes"),
    ("run_message_bytes", "run_bytes"),
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
    tree = ast.parse(inspect.getsource(Settings))
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    fields = {
        node.target.id: following
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


@pytest.mark.parametrize("name", sorted(set(number_settings()) - {"expiry_grace"}))
def test_r58_nothing_is_switched_off_by_zero(name: str) -> None:
    """A bound of zero would be no server; only a grace may be zero."""
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
