"""Authentication: a verifier of one's own, verdicts, the breaker, and what a gateway asks."""

from typing import Any, assert_type

from towpath import (
    CircuitBreaker,
    Gateway,
    Principal,
    UnifiedAuthenticationService,
    UnifiedWebSocketAuth,
)
from towpath.auth.breaker import BreakerOpen
from towpath.auth.service import TrustedIssuer, Verifier
from towpath.auth.verdicts import Invalid, Unknown, Valid


class Introspection:
    """A verifier of another kind of credential than JWTs."""

    def takes(self, credential: str) -> bool:
        """Whether the credential is one of ours."""
        return credential.startswith("opaque-")

    async def verify(self, credential: str, now: float) -> Valid | Invalid | Unknown:
        """Return the verdict."""
        if credential == "opaque-":
            return Invalid("it is empty")
        return Valid(Principal(tenant="acme", user=credential, expires_at=now + 60))


breaker = CircuitBreaker("introspection", failure_threshold=2, reset_timeout=5)
verifier: Verifier = Introspection()
issuer = TrustedIssuer(issuer="https://id.example", verifier=verifier, breaker=breaker)


async def judge(service: UnifiedAuthenticationService, credential: str) -> str:
    """Handle each verdict; a type checker knows that there are three."""
    judged = await service.authenticate(credential)
    assert_type(judged.age, float)
    verdict = judged.verdict
    if isinstance(verdict, Valid):
        assert_type(verdict.principal, Principal)
        return verdict.principal.user
    if isinstance(verdict, Invalid):
        return verdict.reason
    unknown: Unknown = verdict
    return f"later, in {unknown.retry_after} s"


def look(gateway: Gateway, connections: UnifiedWebSocketAuth) -> None:
    """Ask what authenticates connections for its state."""
    assert_type(connections.auth_state(), dict[str, Any])
    assert_type(gateway.auth, UnifiedWebSocketAuth)
    assert_type(gateway.auth.service, UnifiedAuthenticationService)


def guarded() -> float | None:
    """Call a dependency through a breaker."""
    try:
        with breaker.admit() as permit:
            permit.failed()
            return 1.0
    except BreakerOpen as refused:
        assert_type(refused.retry_after, float)
    return None


class Forgetful:
    """A verifier that forgot to be asynchronous."""

    def takes(self, credential: str) -> bool:
        """Take everything."""
        return bool(credential)

    def verify(self, credential: str, now: float) -> Valid:
        """Return the verdict at once."""
        return Valid(Principal(tenant="acme", user=credential))


async def mistakes(service: UnifiedAuthenticationService) -> None:
    """A type checker finds each of these before the program runs."""
    wrong: Verifier = Forgetful()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await service.authenticate(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CircuitBreaker(failure_threshold=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TrustedIssuer(issuer=None, verifier=wrong)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
