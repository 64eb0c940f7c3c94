"""What can be said of a credential: good, not good, or nobody can tell now.

The third one is what everything in this package is about. An outage of whoever could tell is never
an answer about the credential: it is "try again", it is neither remembered nor held against
anybody, and it lets nobody in.

Source: DESIGN section 7; WIRE section 3.
"""

from dataclasses import dataclass

from towpath.identity import Principal


@dataclass(frozen=True, slots=True)
class Valid:
    """The credential is good; this is who."""

    principal: Principal


@dataclass(frozen=True, slots=True)
class Invalid:
    """The credential is not good."""

    reason: str
    """For our own eyes; never holds a piece of the credential."""
    expired: bool = False
    """True where it was good once: the client gets 109 instead of 3500."""
    revoked: bool = False
    """True where it would be good had nobody taken it back: the client gets 3507."""
    passing: bool = False
    """True where time alone may change it, so that it must not be remembered."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell now."""

    reason: str
    """For our own eyes."""
    retry_after: float = 0.0
    """Seconds until asking again may help; 0 where it may help at once."""
    suspect: bool = False
    """True where the credential is the likelier cause than an outage: its source pays for it."""


Verdict = Valid | Invalid | Unknown
