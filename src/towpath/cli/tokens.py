"""`towpath token` and `towpath revoke`: issue tokens of the development key, revoke credentials."""

import time
import uuid
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from towpath.auth.development import development_key, sign
from towpath.auth.policy import Action
from towpath.cli.options import Data
from towpath.errors import ConfigurationError
from towpath.settings import DEFAULT_HOST, DEFAULT_PORT, settings_from_environment


def token(
    user: Annotated[str, typer.Option(help="User of the token.")],
    tenant: Annotated[str, typer.Option(help="Tenant of the token.")],
    role: Annotated[
        list[str] | None, typer.Option(help="A role; repeat the option for more roles.")
    ] = None,
    ttl: Annotated[float, typer.Option(help="Seconds until the token expires.")] = 3600.0,
    data: Data = None,
) -> None:
    """Print a token signed with the development key of a data directory."""
    key = development_key(settings_from_environment(data).data)
    if not user.strip() or not tenant.strip():
        raise ConfigurationError("a token needs a user and a tenant")
    print(sign(key, user=user, tenant=tenant, roles=role or (), now=time.time(), ttl=ttl))


def revoke(
    user: Annotated[str | None, typer.Option(help="Revoke all credentials of this user.")] = None,
    jti: Annotated[str | None, typer.Option(help="Revoke the token with this id.")] = None,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Revoke all credentials of the tenant.")
    ] = False,
    tenant: Annotated[str | None, typer.Option(help="Tenant of the credentials.")] = None,
    url: Annotated[str, typer.Option(help="URL of the server.")] = (
        f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    ),
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TOWPATH_TOKEN",
            help="Token with the role towpath:revoke; default: signed with the development key.",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Revoke credentials on a running server, and close the connections that they opened."""
    if (user is not None) + (jti is not None) + everybody != 1:
        raise ConfigurationError("name what to revoke: one of --user, --jti and --everybody")
    if tenant is None and (everybody or token is None):
        raise ConfigurationError("name the tenant: --tenant")
    bearer = token or _operator_token(tenant or "", data)
    what = {"user": user, "jti": jti, "tenant": tenant if everybody else None}
    given = {name: value for name, value in what.items() if value is not None}
    _delete_sessions(url, bearer, {"request_id": uuid.uuid4().hex, **given})
    print("revoked")


def _operator_token(tenant: str, data: Path | None) -> str:
    """Return a token of the development key that may revoke in this tenant."""
    key = development_key(settings_from_environment(data).data)
    roles = (f"towpath:{Action.REVOKE.value}",)
    return sign(key, user="operator", tenant=tenant, roles=roles, now=time.time(), ttl=60)


def _delete_sessions(url: str, token: str, given: dict[str, str]) -> None:
    """Call a server to revoke.

    Raises:
        ConfigurationError: the server cannot be reached, or refuses.
    """
    headers = {"authorization": f"Bearer {token}"}
    try:
        answer = httpx2.delete(
            f"{url.rstrip('/')}/api/v1/sessions", params=given, headers=headers, trust_env=False
        )
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConfigurationError(f"{url} does not answer: {type(error).__name__}") from None
    if answer.status_code != 200:
        try:
            reason = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            reason = "this is not the answer of a gateway"
        raise ConfigurationError(f"{url} refuses ({answer.status_code}): {reason}")
