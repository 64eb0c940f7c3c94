"""The verdict about a credential: valid, invalid, or unknown because it cannot be verified now.

An outage of the issuer does not make a credential invalid, so the verdict is `Unknown`. The client
should try again and is not admitted. The verdict is not cached, and it is not counted as a
failure of the client unless the credential is the likelier cause.

Source: DESIGN section 7; WIRE section 3.
"""

from dataclasses import dataclass

from towpath.identity import Principal


@dataclass(frozen=True, slots=True)
class Valid:
    """The credential is valid, and this is its principal."""

    principal: Principal


@dataclass(frozen=True, slots=True)
class Invalid:
    """The credential is invalid."""

    reason: str
    """For operators, never for the client; contains no part of the credential."""
    expired: bool = False
    """True if it was valid before: the client gets 109 instead of 3500."""
    revoked: bool = False
    """True if it is invalid only because it was revoked: the client gets 3507."""
    passing: bool = False
    """True if time alone may change it: the verdict must not be cached."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The credential cannot be verified now."""

    reason: str
    """For operators, never for the client."""
    retry_after: float = 0.0
    """Seconds until a retry may help; 0 if a retry may help at once."""
    suspect: bool = False
    """True if the credential is a likelier cause than an outage: a failure of its address."""


Verdict = Valid | Invalid | Unknown
