"""Every setting, its default and its unit; the only reader of the environment.

Each is `TOWPATH_` and its name in capitals, but for two that everybody calls `OPENAI_…`.
Contradictions are found before anything is opened, and the sentence names both values.
"""

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
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

NOT_SET: Any = None
"""The default of a secret. Any, because to a type checker the field has the type above."""
DEFAULT_DATA: Any = Path(".towpath")
"""The default data directory; Any for the same reason."""
DEFAULT_HOST = "127.0.0.1"
BACKLOG_BYTES = 1024 * 1024
"""How many bytes may wait beside the subscriptions of one connection, by default."""
DEFAULT_PORT = 8000


class IssuerSettings(BaseModel):
    """One issuer whose tokens are taken: an entry of `issuers`, or the `jwt_…` settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str | None = None
    """The exact `iss`; its keys are fetched from its discovery document where `key` is not set."""
    audience: str | None = None
    """What `aud` must be or contain; required where keys are fetched."""
    key: OptionalSecret = NOT_SET
    """A JWK, a PEM public key, or a shared secret; not set fetches the published keys."""
    algorithm: str | None = None
    """The one algorithm; HS256 with `key`, otherwise whatever the fetched keys are made for."""
    jwks_url: str | None = None
    """Where the keys are; not set looks into the discovery document."""
    tenant_claim: str | None = None
    """The claim that is the tenant: a name, or a JSON pointer; or else `tenant`."""
    tenant: str | None = None
    """The one tenant of its users; or else `tenant_claim`."""
    roles_claim: str = "roles"
    """The claim that lists roles: a name, or a JSON pointer."""
    required: bool = True
    """Whether the server is ready only once its keys are there."""


class Settings(BaseSettings):
    """What an operator may choose. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="TOWPATH_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        validate_by_name=True,
    )

    data: Directory = DEFAULT_DATA
    """Where the log, the projection and the development key live."""
    synchronous: str = Field(default="NORMAL", pattern="^(NORMAL|FULL)$")
    """NORMAL survives a kill of the process, FULL a power cut too, at a tenth of the speed."""
    reserve_bytes: int = Field(default=16 * 1024 * 1024, ge=0)
    """Room on the data directory's disk that is kept for the endings of runs; 0 keeps none."""

    jwt_key: OptionalSecret = NOT_SET
    """The key tokens are verified with: a JWK, a PEM public key, or a shared secret."""
    jwt_algorithm: str | None = None
    """The one algorithm; HS256 with `jwt_key`, otherwise whatever the fetched keys are made for."""
    jwt_issuer: str | None = None
    """The exact `iss`; without `jwt_key` its published keys are fetched."""
    jwt_audience: str | None = None
    """What `aud` must be or contain; required where keys are fetched."""
    jwks_url: str | None = None
    """Where the keys are; not set looks into the issuer's discovery document."""
    tenant_claim: str | None = None
    """The claim that is the tenant, a name or a JSON pointer; or else `tenant`."""
    tenant: str | None = None
    """The one tenant of every user; or else `tenant_claim`."""
    roles_claim: str = "roles"
    """The claim that lists roles, a name or a JSON pointer."""
    issuers: tuple[IssuerSettings, ...] = ()
    """More issuers, as a JSON list of objects."""
    ca_file: Path | None = None
    """Certificate authorities for fetching keys, in PEM; not set takes the system's."""
    trusted_proxies: frozenset[str] = frozenset()
    """Networks of proxies whose `X-Forwarded-For` and `-Proto` are believed, as a JSON list."""
    allowed_origins: frozenset[str] = frozenset()
    """Origins of pages on other hosts that may connect, as a JSON list."""

    early_message_bytes: int = Field(default=64 * 1024, gt=0)
    """A message before the verdict; 1009 past it."""
    message_bytes: int = Field(default=1024 * 1024, gt=0)
    """A message after the verdict; 1009 past it."""
    waiting_bytes: int = Field(default=64 * 1024, gt=0)
    """What may wait for the verdict; 3501 past it."""
    waiting_commands: int = Field(default=256, gt=0)
    """How many commands may wait for the verdict; 3501 past it."""
    subscriptions: int = Field(default=128, gt=0)
    """Channels one connection reads; error 106 past it."""
    user_connections: int = Field(default=20, gt=0)
    """Connections of one user; 3504 past it."""
    tenant_connections: int = Field(default=10_000, gt=0)
    """Connections of all users of a tenant; error 111 past it."""
    errors: int = Field(default=100, gt=0)
    """Error replies of one connection; 3013 past it."""
    commands_burst: int = Field(default=512, gt=0)
    """Commands of one connection at once; error 111 past it."""
    commands_per_second: float = Field(default=50.0, gt=0)
    """Commands of one connection in the long run."""
    runs_burst: int = Field(default=60, gt=0)
    """Runs a user starts at once; error 111 past it."""
    runs_per_second: float = Field(default=1.0, gt=0)
    """Runs a user starts in the long run."""
    failures_burst: int = Field(default=200, gt=0)
    """Credentials of one source address refused at once; then only known ones are looked at."""
    failures_per_second: float = Field(default=10.0, gt=0)
    """Credentials of one source address refused in the long run."""
    repeats_burst: int = Field(default=20, gt=0)
    """How often one refused credential is looked at again at once; error 111 past it."""
    repeats_per_second: float = Field(default=0.5, gt=0)
    """How often one refused credential is looked at again in the long run."""
    limited_delay: float = Field(default=1.0, ge=0, le=2)
    """How long the answer past one of these two limits is held back, so that floods slow down."""
    outbox_bytes: int = Field(default=4 * 1024 * 1024, gt=0)
    """What may wait to be sent to one connection; 3008 past it. One answer may be larger."""
    backlog_bytes: int = Field(default=BACKLOG_BYTES, gt=0)
    """What may wait beside a connection that fell behind, until it is answered from the log."""
    snapshot_max_bytes: int = Field(default=1024 * 1024, gt=0)
    """Text of the messages in a prelude; older ones by `thread.get`."""
    run_message_bytes: int = Field(default=256 * 1024, gt=0)
    """The input of one run; error 413 past it."""
    run_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """All events of one run; `run.too_large` past it."""

    connect_timeout: float = Field(default=5.0, gt=0)
    """Until the connect command must be there; 3502 after it."""
    ping_interval: float = Field(default=25.0, gt=0)
    """Between pings."""
    pong_timeout: float = Field(default=10.0, gt=0)
    """Until a ping must be answered; 3012 after it."""
    slow_timeout: float = Field(default=30.0, gt=0)
    """How long a connection may take for one message that is sent to it; 3008 after it."""
    close_timeout: float = Field(default=2.0, gt=0)
    """How long a close frame may take."""
    expiry_grace: float = Field(default=25.0, ge=0)
    """After a credential's end, until 3005: SDKs refresh at the end, not before it."""
    outage_grace: float = Field(default=900.0, ge=0)
    """The same while the issuer does not answer, and nobody can bring a new one; 0 for never."""
    auth_timeout: float = Field(default=2.5, gt=0, le=3)
    """How long finding out what a credential is worth may take; error 100 after it."""
    auth_attempts: int = Field(default=3, gt=0)
    """How often that is tried where nobody can tell."""
    keys_timeout: float = Field(default=1.0, gt=0)
    """How long one call to an issuer's key server may take."""
    keys_fresh: float = Field(default=300.0, gt=0)
    """How long fetched keys are used without a thought."""
    keys_stale: float = Field(default=3600.0, ge=0)
    """How long beyond that, while new ones are fetched."""
    keys_cooldown: float = Field(default=10.0, gt=0)
    """Between fetches because of a key nobody has seen."""
    breaker_failures: int = Field(default=3, gt=0)
    """Failed calls in a row that open the breaker of an issuer."""
    breaker_reset: float = Field(default=15.0, gt=0)
    """How long it stays open before one call may probe."""
    verdict_seconds: float = Field(default=300.0, gt=0)
    """How long a good verdict is remembered at most."""
    run_deadline: float = Field(default=600.0, gt=0)
    """Until a run is ended with `run.deadline`, unless its agent was registered with another."""
    run_lease: float = Field(default=15.0, ge=1)
    """How long after its process fell silent a run is ended with `run.lost`, at the latest."""
    interrupt_timeout: float = Field(default=24 * 3600.0, gt=0)
    """How long a run's question waits for a person, where the agent does not say."""
    cleanup_timeout: float = Field(default=5.0, gt=0)
    """How long a stopped agent may tidy up."""
    drain_timeout: float = Field(default=8.0, gt=0)
    """How long a stop of the server may take before it is hurried."""
    ready_timeout: float = Field(default=2.0, gt=0)
    """How long the round trip of `/health/ready` may take."""

    model: str | None = None
    """The model of the agent `assistant`: a service's name of it, `local`, or `none`."""
    model_tokens: int | None = Field(default=None, gt=0)
    """Of a conversation, for the model; not set is 1,500 for the local one, 32,000 for others."""
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    """Where the model's service is, up to `/v1`; not set is OpenAI's own."""
    openai_api_key: OptionalSecret = Field(default=NOT_SET, validation_alias="OPENAI_API_KEY")
    """The key the model's service asks for."""

    server_subscriptions: tuple[str, ...] = ("user", "tenant")
    """Channels every connection reads from its connect reply on."""
    keep_raw: bool = False
    """Whether RAW events and `rawEvent` fields of agents are kept."""

    @model_validator(mode="after")
    def _check_for_contradictions(self) -> Self:
        pairs = (
            ("pong_timeout", "ping_interval"),
            ("keys_timeout", "auth_timeout"),
            ("early_message_bytes", "message_bytes"),
            ("run_message_bytes", "message_bytes"),
            ("message_bytes", "outbox_bytes"),
            ("run_message_bytes", "run_bytes"),
            ("cleanup_timeout", "drain_timeout"),
            ("cleanup_timeout", "run_deadline"),
        )
        for smaller, larger in pairs:
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(
                    f"{smaller} ({getattr(self, smaller)}) must not exceed "
                    f"{larger} ({getattr(self, larger)})"
                )
        unknown = set(self.server_subscriptions) - {"user", "tenant"}
        if unknown:
            raise ValueError(f"server_subscriptions may hold user and tenant, not {unknown.pop()}")
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(f"trusted_proxies: {network!r} is no network") from None
        return self


def platform_port() -> int | None:
    """Return the port the platform asks for (`$PORT`), if it does."""
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
