"""A gateway, its settings and its place in another application, as a user writes them."""

from collections.abc import Awaitable
from pathlib import Path
from typing import assert_type

from pydantic import SecretStr
from starlette.applications import Starlette

from towpath import Gateway, Settings, __version__
from towpath.settings import IssuerSettings

settings = Settings(
    data="/var/lib/towpath",
    jwt_key="a secret of thirty-two bytes or more",
    tenant="acme",
    issuers=(IssuerSettings(issuer="https://id.example", audience="towpath", tenant="acme"),),
    run_deadline=60,
    server_subscriptions=("user",),
)
gateway = Gateway(settings)
app = Starlette(lifespan=gateway.lifespan)
gateway.mount(app, "/towpath")


def values_have_their_types() -> None:
    """What is given as text is read as the type of the field."""
    assert_type(settings.data, Path)
    assert_type(settings.jwt_key, SecretStr | None)
    assert_type(settings.run_deadline, float)
    assert_type(settings.tenant, str | None)
    assert_type(gateway.settings, Settings)
    phase: str = gateway.phase.value
    assert phase == "stopped"
    assert_type(__version__, str)


async def drain() -> None:
    """The methods of a gateway that wait are awaited."""
    await gateway.drain()
    async with gateway.lifespan():
        pass
    done: Awaitable[None] = gateway.drain()
    await done


def mistakes() -> None:
    """A type checker finds each of these before the program runs."""
    Gateway("settings")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Settings(jwt_key=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Settings(no_such=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    gateway.mount(app)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    gateway.drained()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
