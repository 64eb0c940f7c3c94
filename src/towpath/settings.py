"""Every setting, its default and its unit; the only reader of settings in the environment.

The environment variable of a setting is `TOWPATH_` and its name in capitals; two that other
programs use too are called `OPENAI_…`. Values that conflict are found before anything is opened,
and the message names both.

The settings are in groups, one class each. `Settings` holds them all, so that a keyword, an
attribute and a variable have one short name. `FIRST` are the ten that most deployments need.
"""

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from towpath.errors import ConfigurationError

if TYPE_CHECKING:
    Given = TypeVar("Given")
    Kept = TypeVar("Kept")

    class _Converted(Generic[Given, Kept]):
        """A field that is given as one type and read as another.

        pydantic converts a text to the type of the field. A type checker knows of that by a
        descriptor only: it takes the parameter of `__init__` from `__set__`.
        """

        def __get__(self, instance: object, owner: object = None) -> Kept: ...
        def __set__(self, instance: object, value: Given) -> None: ...

    Directory = _Converted[Path | str, Path]
    OptionalSecret = _Converted[SecretStr | str | None, SecretStr | None]
else:
    Directory = Path
    OptionalSecret = SecretStr | None

NOT_SET = cast("OptionalSecret", None)
"""The default of a secret; a cast, because to a type checker the field is a descriptor."""
DEFAULT_DATA = cast("Directory", Path(".towpath"))
"""The default data directory; a cast for the same reason."""
DEFAULT_HOST = "127.0.0.1"
RING_BYTES = 1024 * 1024
"""How many bytes of a channel with readers are kept for them, by default."""
ALL_RINGS_BYTES = 64 * 1024 * 1024
"""How many bytes are kept of all channels together, by default."""
DEFAULT_PORT = 8000


class IssuerSettings(BaseModel):
    """One issuer whose tokens are accepted: an entry of `issuers`, or the `jwt_…` settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str | None = None
    """The exact `iss`; without `key`, the keys that its discovery document names are fetched."""
    audience: str | None = None
    """What `aud` must be or contain; required if keys are fetched."""
    key: OptionalSecret = NOT_SET
    """A JWK, a PEM public key, or a shared secret; if not set, the published keys are fetched."""
    algorithm: str | None = None
    """The only algorithm accepted; HS256 with `key`, otherwise those of the fetched keys."""
    jwks_url: str | None = None
    """The URL of the keys; if not set, the discovery document names it."""
    tenant_claim: str | None = None
    """The claim that holds the tenant, a name or a JSON pointer; or else set `tenant`."""
    tenant: str | None = None
    """The one tenant of its users; or else set `tenant_claim`."""
    roles_claim: str = "roles"
    """The claim that lists the roles, a name or a JSON pointer."""
    required: bool = True
    """Whether the server is ready only once the keys of this issuer are loaded."""


class StorageSettings(BaseModel):
    """Storage: where the log is, and how durable it is."""

    data: Directory = DEFAULT_DATA
    """The directory of the log, the projection and the development key."""
    synchronous: str = Field(default="NORMAL", pattern="^(NORMAL|FULL)$")
    """NORMAL survives a kill of the process, FULL a power cut too, at a tenth of the speed."""
    reserve_bytes: int = Field(default=16 * 1024 * 1024, ge=0)
    """Disk space reserved in the data directory for the endings of runs; 0 reserves none."""


class AuthSettings(BaseModel):
    """Authentication: whose tokens are accepted, and how they are verified."""

    jwt_issuer: str | None = None
    """The exact `iss`; without `jwt_key`, the issuer's published keys are fetched."""
    jwt_audience: str | None = None
    """What `aud` must be or contain; required if keys are fetched."""
    jwt_key: OptionalSecret = NOT_SET
    """The key that verifies tokens: a JWK, a PEM public key, or a shared secret."""
    jwt_algorithm: str | None = None
    """The only algorithm accepted; HS256 with `jwt_key`, otherwise those of the fetched keys."""
    jwks_url: str | None = None
    """The URL of the keys; if not set, the issuer's discovery document names it."""
    tenant_claim: str | None = None
    """The claim that holds the tenant, a name or a JSON pointer; or else set `tenant`."""
    tenant: str | None = None
    """The one tenant of every user; or else set `tenant_claim`."""
    roles_claim: str = "roles"
    """The claim that lists the roles, a name or a JSON pointer."""
    issuers: tuple[IssuerSettings, ...] = ()
    """More issuers, as a JSON list of objects."""
    ca_file: Path | None = None
    """Certificate authorities for fetching keys, in PEM; not set uses the system's."""
    allowed_origins: frozenset[str] = frozenset()
    """Origins of pages on other hosts that may connect, as a JSON list."""
    trusted_proxies: frozenset[str] = frozenset()
    """Networks of proxies whose `X-Forwarded-For` and `-Proto` are trusted, as a JSON list."""
    auth_timeout: float = Field(default=2.5, gt=0, le=3)
    """How long the verification of a credential may take; error 100 after it."""
    auth_attempts: int = Field(default=3, gt=0)
    """How often a verification is tried if its result is unknown."""
    keys_timeout: float = Field(default=1.0, gt=0)
    """How long one call to an issuer's key server may take."""
    keys_fresh: float = Field(default=300.0, gt=0)
    """How long fetched keys are used without revalidation."""
    keys_stale: float = Field(default=3600.0, ge=0)
    """How long keys are used after that, while new ones are fetched."""
    keys_cooldown: float = Field(default=10.0, gt=0)
    """Minimum time between refetches for an unknown `kid`."""
    breaker_failures: int = Field(default=3, gt=0)
    """Consecutive failed calls that open the circuit breaker of an issuer."""
    breaker_reset: float = Field(default=15.0, gt=0)
    """How long the circuit breaker stays open before one call may probe."""
    verdict_seconds: float = Field(default=300.0, gt=0)
    """How long a valid verdict is cached at most."""
    expiry_grace: float = Field(default=25.0, ge=0)
    """Time after a credential's end until 3005: SDKs refresh at the end, not before it."""
    outage_grace: float = Field(default=900.0, ge=0)
    """The same while the issuer does not respond, and no new token can be had; 0 disables it."""


class RunSettings(BaseModel):
    """Runs: how long a run may take, and how much it may produce."""

    run_deadline: float = Field(default=600.0, gt=0)
    """Time until a run is ended with `run.deadline`, unless its agent has a deadline of its own."""
    interrupt_timeout: float = Field(default=24 * 3600.0, gt=0)
    """How long an interrupt waits for an answer, unless the agent says otherwise."""
    cleanup_timeout: float = Field(default=5.0, gt=0)
    """How long a cancelled agent may clean up."""
    run_message_bytes: int = Field(default=256 * 1024, gt=0)
    """Size of the input of one run; error 413 past it."""
    event_bytes: int = Field(default=1024 * 1024, ge=4096)
    """Size of one event of an agent; `run.too_large` past it. Long text is split instead."""
    run_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """Size of all events of one run; `run.too_large` past it."""
    runs_burst: int = Field(default=60, gt=0)
    """Runs that a user starts at once; error 111 past it."""
    runs_per_second: float = Field(default=1.0, gt=0)
    """Runs that a user starts per second in the long run."""
    keep_raw: bool = False
    """Whether RAW events and `rawEvent` fields of agents are kept."""


class ModelSettings(BaseModel):
    """Model: the model of the agent `assistant`."""

    model: str | None = None
    """The model of the agent `assistant`: the name that a service gives it, `local`, or `none`."""
    model_tokens: int | None = Field(default=None, gt=0)
    """Tokens of a conversation that the model gets; not set: 1,500 if local, 32,000 otherwise."""
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    """The URL of the model's service, up to `/v1`; not set is OpenAI's own."""
    openai_api_key: OptionalSecret = Field(default=NOT_SET, validation_alias="OPENAI_API_KEY")
    """The key of the model's service; used only if `model` is set too."""


class LimitSettings(BaseModel):
    """Limits: how much a connection, a user or an address may use."""

    user_connections: int = Field(default=20, gt=0)
    """Connections of one user; 3504 past it."""
    tenant_connections: int = Field(default=10_000, gt=0)
    """Connections of all users of a tenant; error 111 past it."""
    subscriptions: int = Field(default=128, gt=0)
    """Channels that one connection reads; error 106 past it."""
    server_subscriptions: tuple[str, ...] = ("user", "tenant")
    """Channels that every connection reads from its connect reply on."""
    early_message_bytes: int = Field(default=64 * 1024, gt=0)
    """Size of a message before the connect reply; 1009 past it."""
    message_bytes: int = Field(default=1024 * 1024, gt=0)
    """Size of a message after the connect reply; 1009 past it."""
    waiting_bytes: int = Field(default=64 * 1024, gt=0)
    """Commands, in bytes, that may wait for the connect reply; 3501 past it."""
    waiting_commands: int = Field(default=256, gt=0)
    """Commands that may wait for the connect reply; 3501 past it."""
    commands_burst: int = Field(default=512, gt=0)
    """Commands of one connection at once; error 111 past it."""
    commands_per_second: float = Field(default=50.0, gt=0)
    """Commands of one connection per second in the long run."""
    errors: int = Field(default=100, gt=0)
    """Error replies on one connection; 3013 past it."""
    failures_burst: int = Field(default=200, gt=0)
    """Refused credentials of one source address at once; past it, only credentials with a
    remembered valid verdict are accepted.
    """
    failures_per_second: float = Field(default=10.0, gt=0)
    """Refused credentials of one source address per second in the long run."""
    repeats_burst: int = Field(default=20, gt=0)
    """Attempts with the same refused credential at once; error 111 past it."""
    repeats_per_second: float = Field(default=0.5, gt=0)
    """Attempts with the same refused credential per second in the long run."""
    limited_delay: float = Field(default=1.0, ge=0, le=2)
    """How long an answer past the last two limits is delayed, to slow down a flood."""
    outbox_bytes: int = Field(default=4 * 1024 * 1024, gt=0)
    """Bytes that may wait to be sent to one connection; 3008 past it. One answer may be larger."""
    answer_bytes: int = Field(default=1024 * 1024, gt=0)
    """Bytes of publications in one answer to `history`; one larger publication comes alone."""
    ring_bytes: int = Field(default=RING_BYTES, gt=0)
    """Bytes of a channel's last publications that are kept in memory for its readers."""
    all_rings_bytes: int = Field(default=ALL_RINGS_BYTES, gt=0)
    """Bytes of last publications that are kept in memory, over all channels."""
    snapshot_max_bytes: int = Field(default=1024 * 1024, gt=0)
    """Text of the messages in a snapshot; older ones are read by `thread.get`."""


class TimeoutSettings(BaseModel):
    """Timeouts: how long a connection, and a shutdown, may take."""

    connect_timeout: float = Field(default=5.0, gt=0)
    """Time until the connect command must arrive; 3502 after it."""
    ping_interval: float = Field(default=25.0, gt=0)
    """Time between pings."""
    pong_timeout: float = Field(default=10.0, gt=0)
    """Time until a ping must be answered; 3012 after it."""
    slow_timeout: float = Field(default=30.0, gt=0)
    """How long a connection may take to read one message; 3008 after it."""
    close_timeout: float = Field(default=2.0, gt=0)
    """How long a close frame may take."""
    drain_timeout: float = Field(default=8.0, gt=0)
    """How long a graceful shutdown may take: runs, connections, agents, and closing the log."""
    ready_timeout: float = Field(default=2.0, gt=0)
    """How long the check of `/health/ready` may take."""


GROUPS: tuple[type[BaseModel], ...] = (
    StorageSettings,
    AuthSettings,
    RunSettings,
    ModelSettings,
    LimitSettings,
    TimeoutSettings,
)
"""The groups in the order of the reference page."""

FIRST = (
    "data",
    "jwt_issuer",
    "jwt_audience",
    "jwt_key",
    "tenant_claim",
    "tenant",
    "allowed_origins",
    "trusted_proxies",
    "model",
    "run_deadline",
)
"""The settings that most deployments need; the reference page begins with them."""

NOT_ABOVE = (
    ("pong_timeout", "ping_interval"),
    ("keys_timeout", "auth_timeout"),
    ("early_message_bytes", "message_bytes"),
    ("run_message_bytes", "message_bytes"),
    ("message_bytes", "outbox_bytes"),
    ("run_message_bytes", "event_bytes"),
    ("event_bytes", "run_bytes"),
    ("cleanup_timeout", "drain_timeout"),
    ("cleanup_timeout", "run_deadline"),
)
"""Pairs of settings of which the first must not exceed the second."""


class Settings(
    TimeoutSettings,
    LimitSettings,
    ModelSettings,
    RunSettings,
    AuthSettings,
    StorageSettings,
    BaseSettings,
):
    """What an operator may choose. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="TOWPATH_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        validate_by_name=True,
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for smaller, larger in NOT_ABOVE:
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(
                    f"{smaller} ({getattr(self, smaller)}) must not exceed "
                    f"{larger} ({getattr(self, larger)})"
                )
        return self

    @model_validator(mode="after")
    def _check_server_subscriptions(self) -> Self:
        unknown = set(self.server_subscriptions) - {"user", "tenant"}
        if unknown:
            raise ValueError(f"server_subscriptions may hold user and tenant, not {unknown.pop()}")
        return self

    @model_validator(mode="after")
    def _check_trusted_proxies(self) -> Self:
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(f"trusted_proxies: {network!r} is no network") from None
        return self


def platform_port() -> int | None:
    """Return the port that the platform sets (`$PORT`); None if it sets none."""
    port = os.environ.get("PORT", "")
    return int(port) if port.isdecimal() else None


def settings_from_environment(data: Path | None = None) -> Settings:
    """Return the settings of the environment, with another data directory where one is given.

    Raises:
        ConfigurationError: a setting is invalid; the message names it.
    """
    try:
        return Settings() if data is None else Settings(data=data)
    except SettingsError as error:
        raise ConfigurationError(f"the environment (TOWPATH_…): {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise ConfigurationError("; ".join(map(_reason, found))) from None


def _reason(error: Any) -> str:
    """Return what is wrong with a setting, by its name."""
    name = "_".join(str(part) for part in error["loc"]).upper()
    where = f"TOWPATH_{name}" if name else "the settings"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"
