"""The issuers of a node, made from the settings."""

import random
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2
from joserfc.jwk import OctKey

from towpath.auth.breaker import CircuitBreaker, State
from towpath.auth.development import development_issuer
from towpath.auth.jwks import Freshness, RemoteKeys
from towpath.auth.keys import ASYMMETRIC, FixedKey, configured_key
from towpath.auth.provider import IdentityProvider
from towpath.auth.service import UNNAMED, TrustedIssuer
from towpath.auth.single_flight import SingleFlight
from towpath.auth.tokens import Issuer, TokenVerifier
from towpath.errors import ConfigurationError
from towpath.settings import IssuerSettings, Settings
from towpath.telemetry import BreakerMoved, Telemetry

NO_ISSUER = (
    "no issuer is configured, so no client could connect: set TOWPATH_JWT_ISSUER and "
    "TOWPATH_JWT_AUDIENCE to fetch its keys, or TOWPATH_JWT_KEY (and TOWPATH_TENANT_CLAIM or "
    "TOWPATH_TENANT), or try it out with `towpath serve --dev`"
)


def configured_issuers(settings: Settings) -> list[IssuerSettings]:
    """Return the issuers that the settings name; `make_issuer` validates each.

    Raises:
        ConfigurationError: no issuer is configured, or two have the same name.
    """
    issuers = [*_short_form(settings), *settings.issuers]
    if not issuers:
        raise ConfigurationError(NO_ISSUER)
    names = [one.issuer for one in issuers]
    if len(issuers) > 1 and None in names:
        raise ConfigurationError("several issuers need a name each: set the `issuer` of every one")
    if len(set(names)) < len(names):
        raise ConfigurationError("two issuers have the same name: `issuer` has to be unique")
    return issuers


def _short_form(settings: Settings) -> Iterator[IssuerSettings]:
    """Yield the issuer of the `jwt_…` settings, if they name one."""
    if settings.jwt_key is None and settings.jwt_issuer is None and settings.jwks_url is None:
        return
    yield IssuerSettings(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        key=settings.jwt_key,
        algorithm=settings.jwt_algorithm,
        jwks_url=settings.jwks_url,
        tenant_claim=settings.tenant_claim,
        tenant=settings.tenant,
        roles_claim=settings.roles_claim,
    )


def _check(one: IssuerSettings) -> None:
    if one.key is not None:
        if one.jwks_url is not None:
            raise ConfigurationError(
                "an issuer has either a key of its own or fetched ones: leave out TOWPATH_JWT_KEY "
                "or TOWPATH_JWKS_URL"
            )
        return
    if one.issuer is None:
        raise ConfigurationError(
            "the issuer of the fetched keys is not named: set TOWPATH_JWT_ISSUER"
        )
    if one.audience is None:
        raise ConfigurationError(
            f"{one.issuer} signs tokens for others too: set TOWPATH_JWT_AUDIENCE to ours"
        )
    if one.algorithm is not None and one.algorithm not in ASYMMETRIC:
        raise ConfigurationError(
            f"fetched keys are not used with {one.algorithm}: "
            f"use one of {', '.join(sorted(ASYMMETRIC))}"
        )


def problems(settings: Settings) -> Iterator[str]:
    """Yield every error in the issuers of these settings that would prevent startup."""
    deps = AuthDeps(
        settings=settings,
        telemetry=Telemetry(),
        fetches=SingleFlight(lambda _: None),
        monotonic=time.monotonic,
        random=random.random,
    )
    try:
        client = make_client(settings)
    except ConfigurationError as error:
        yield str(error)
        client = httpx2.AsyncClient(trust_env=False)  # Nothing is fetched with it.
    try:
        configured = configured_issuers(settings)
    except ConfigurationError as error:
        yield str(error)
        return
    for one in configured:
        try:
            make_issuer(one, deps, client)
        except ConfigurationError as error:
            yield str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthDeps:
    """The dependencies of issuers."""

    settings: Settings
    telemetry: Telemetry
    fetches: SingleFlight[str, None]
    monotonic: Callable[[], float]
    random: Callable[[], float]


def make_client(settings: Settings) -> httpx2.AsyncClient:
    """Return the client that fetches keys: no redirects, no proxies or netrc of the environment.

    Raises:
        ConfigurationError: the file of certificate authorities is invalid.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"TOWPATH_CA_FILE {settings.ca_file}: {error}") from None
    return httpx2.AsyncClient(
        verify=context,
        trust_env=False,
        follow_redirects=False,
        timeout=settings.keys_timeout,
        limits=httpx2.Limits(max_connections=10, max_keepalive_connections=2),
    )


def make_issuer(
    one: IssuerSettings, deps: AuthDeps, client: httpx2.AsyncClient | None
) -> TrustedIssuer:
    """Return an issuer, ready to verify once its keys are fetched.

    Raises:
        ConfigurationError: a setting of the issuer is missing, or its key or an address is invalid.
    """
    _check(one)
    if one.key is not None:
        return _with_fixed_key(one, one.key.get_secret_value(), deps)
    assert client is not None, "there is a client where an issuer needs one"
    return _with_fetched_keys(one, deps, client)


def _with_fixed_key(one: IssuerSettings, text: str, deps: AuthDeps) -> TrustedIssuer:
    breaker = _breaker(one.issuer or UNNAMED, deps)
    algorithm = one.algorithm or "HS256"
    key = FixedKey(configured_key(text, algorithm))
    verifier = TokenVerifier(_issuer(one, frozenset({algorithm})), key)
    return TrustedIssuer(
        issuer=one.issuer, verifier=verifier, breaker=breaker, required=one.required
    )


def _with_fetched_keys(
    one: IssuerSettings, deps: AuthDeps, client: httpx2.AsyncClient
) -> TrustedIssuer:
    assert one.issuer is not None, "the settings were checked"
    breaker = _breaker(one.issuer, deps)
    keys = _remote_keys(one, one.issuer, breaker, deps, client)
    algorithms = ASYMMETRIC if one.algorithm is None else frozenset({one.algorithm})
    return TrustedIssuer(
        issuer=one.issuer,
        verifier=TokenVerifier(_issuer(one, algorithms), keys),
        breaker=breaker,
        keys=keys,
        required=one.required,
    )


def _remote_keys(
    one: IssuerSettings,
    name: str,
    breaker: CircuitBreaker,
    deps: AuthDeps,
    client: httpx2.AsyncClient,
) -> RemoteKeys:
    settings = deps.settings
    provider = IdentityProvider(
        name,
        client,
        breaker,
        telemetry=deps.telemetry,
        jwks_url=one.jwks_url,
        timeout=settings.keys_timeout,
        monotonic=deps.monotonic,
    )
    return RemoteKeys(
        provider,
        deps.fetches,
        monotonic=deps.monotonic,
        random=deps.random,
        freshness=Freshness(
            fresh=settings.keys_fresh, stale=settings.keys_stale, cooldown=settings.keys_cooldown
        ),
    )


def make_development_issuer(key: OctKey, deps: AuthDeps) -> TrustedIssuer:
    """Return the issuer of a development key."""
    issuer = development_issuer()
    assert issuer.issuer is not None, "the development issuer has a name"
    return TrustedIssuer(
        issuer=issuer.issuer,
        verifier=TokenVerifier(issuer, FixedKey(key)),
        breaker=_breaker(issuer.issuer, deps),
    )


def _breaker(name: str, deps: AuthDeps) -> CircuitBreaker:
    def watch(name: str, before: State, after: State) -> None:
        deps.telemetry.emit(BreakerMoved(dependency=name, before=before.value, after=after.value))

    return CircuitBreaker(
        name,
        failure_threshold=deps.settings.breaker_failures,
        reset_timeout=deps.settings.breaker_reset,
        clock=deps.monotonic,
        watch=watch,
    )


def _issuer(one: IssuerSettings, algorithms: frozenset[str]) -> Issuer:
    return Issuer(
        issuer=one.issuer,
        audience=one.audience,
        algorithms=algorithms,
        tenant_claim=one.tenant_claim,
        tenant=one.tenant,
        roles_claim=one.roles_claim,
    )
