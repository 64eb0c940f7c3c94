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
    user: Annotated[str, typer.Option(help="Whose token.")],
    tenant: Annotated[str, typer.Option(help="Of which tenant.")],
    role: Annotated[list[str] | None, typer.Option(help="A role; may be given again.")] = None,
    ttl: Annotated[float, typer.Option(help="Seconds it is good for.")] = 3600.0,
    data: Data = None,
) -> None:
    """Print a token signed with the development key of a data directory."""
    key = development_key(settings_from_environment(data).data)
    if not user.strip() or not tenant.strip():
        raise ConfigurationError("a token needs a user and a tenant")
    print(sign(key, user=user, tenant=tenant, roles=role or (), now=time.time(), ttl=ttl))


def revoke(
    user: Annotated[str | None, typer.Option(help="Take back all of this user's.")] = None,
    jti: Annotated[str | None, typer.Option(help="Take back one token, by its id.")] = None,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Take back all of the tenant's.")
    ] = False,
    tenant: Annotated[str | None, typer.Option(help="Of which tenant.")] = None,
    url: Annotated[str, typer.Option(help="Where the server is.")] = (
        f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    ),
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TOWPATH_TOKEN",
            help="A token with the role towpath:revoke; default: one of the development key.",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Take credentials back on a running server, and end the connections they opened."""
    if (user is not None) + (jti is not None) + everybody != 1:
        raise ConfigurationError("say what to take back: one of --user, --jti and --everybody")
    if tenant is None and (everybody or token is None):
        raise ConfigurationError("say of which tenant: --tenant")
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
            reason = "no answer of a gateway"
        raise ConfigurationError(f"{url} says no ({answer.status_code}): {reason}")
