"""Every setting, its default and its unit; the only reader of the environment.

Each is `TOWPATH_` and its name in capitals. Contradictions are found before anything is opened,
and the sentence names both values.
"""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


class Settings(BaseSettings):
    """What an operator may choose. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="TOWPATH_", extra="ignore", frozen=True, allow_inf_nan=False
    )

    data: Path = Path(".towpath")
    """Where the log, the projection and the development key live."""
    synchronous: str = Field(default="NORMAL", pattern="^(NORMAL|FULL)$")
    """NORMAL survives a kill of the process, FULL a power cut too, at a tenth of the speed."""

    jwt_key: SecretStr | None = None
    """The key tokens are verified with: a JWK, a PEM public key, or a shared secret."""
    jwt_algorithm: str = "HS256"
    """The one algorithm that key is used with."""
    jwt_issuer: str | None = None
    """The exact `iss` of tokens."""
    jwt_audience: str | None = None
    """What `aud` must be or contain."""
    tenant_claim: str | None = None
    """The claim that is the tenant; or else `tenant`."""
    tenant: str | None = None
    """The one tenant of every user; or else `tenant_claim`."""
    roles_claim: str = "roles"
    """The claim that lists roles."""
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
    errors: int = Field(default=100, gt=0)
    """Error replies of one connection; 3013 past it."""
    outbox_bytes: int = Field(default=4 * 1024 * 1024, gt=0)
    """What may wait to be sent to one connection; 3008 past it."""
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
    close_timeout: float = Field(default=2.0, gt=0)
    """How long a close frame may take."""
    expiry_grace: float = Field(default=25.0, ge=0)
    """After a credential's end, until 3005: SDKs refresh at the end, not before it."""
    run_deadline: float = Field(default=600.0, gt=0)
    """Until a run is ended with `run.deadline`, unless its agent was registered with another."""
    cleanup_timeout: float = Field(default=5.0, gt=0)
    """How long a stopped agent may tidy up."""
    drain_timeout: float = Field(default=8.0, gt=0)
    """How long a stop of the server may take before it is hurried."""
    ready_timeout: float = Field(default=2.0, gt=0)
    """How long the round trip of `/health/ready` may take."""

    server_subscriptions: tuple[str, ...] = ("user", "tenant")
    """Channels every connection reads from its connect reply on."""
    keep_raw: bool = False
    """Whether RAW events and `rawEvent` fields of agents are kept."""

    @model_validator(mode="after")
    def _check_for_contradictions(self) -> Self:
        pairs = (
            ("pong_timeout", "ping_interval"),
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
        return self


def platform_port() -> int | None:
    """Return the port the platform asks for (`$PORT`), if it does."""
    port = os.environ.get("PORT", "")
    return int(port) if port.isdecimal() else None
