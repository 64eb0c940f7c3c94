"""One-use tickets, for clients that can send neither a header nor a token of their own.

A ticket authenticates the principal who requested it, once, within a minute. Only the digest of the
ticket is stored. A used ticket and one that was never issued get the same verdict, expired: the
client can request a new ticket.

Source: DESIGN section 7.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from towpath.auth.cache import Digest, digest
from towpath.auth.verdicts import Invalid, Valid, Verdict
from towpath.errors import TooManyRequests
from towpath.identity import Principal

PREFIX: Final = "tkt_"
"""The prefix of every ticket."""
TICKET_SECONDS: Final = 60.0
"""How long an unused ticket is valid."""
TICKET_BYTES: Final = 32
"""The random bytes of a ticket: 256 bits."""
_FORM = re.compile(r"tkt_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class _Issued:
    principal: Principal
    origin: str | None


class Tickets:
    """The tickets that were issued and not yet used."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        new_secret: Callable[[], str] = lambda: secrets.token_urlsafe(TICKET_BYTES),
        max_tickets: int = 10_000,
    ) -> None:
        """Start without tickets.

        Args:
            monotonic: seconds of a monotonic clock.
            new_secret: returns 43 characters of base64url.
            max_tickets: how many unused tickets there may be; a further one is refused, and no
                ticket is evicted.
        """
        self._new_secret = new_secret
        self._max_tickets = max_tickets
        self._waiting: TTLCache[Digest, _Issued] = TTLCache(
            max_tickets + 1, TICKET_SECONDS, timer=monotonic
        )

    def __len__(self) -> int:
        return len(self._waiting)

    def issue(self, principal: Principal, origin: str | None) -> str:
        """Return a new ticket for this principal.

        Args:
            principal: the verified principal who requested the ticket.
            origin: the origin of the page that will use it; None binds it to no origin.

        Raises:
            TooManyRequests: there are too many unused tickets.
        """
        self._waiting.expire()
        if len(self._waiting) >= self._max_tickets:
            raise TooManyRequests("too many tickets wait to be used")
        ticket = PREFIX + self._new_secret()
        self._waiting[digest(ticket)] = _Issued(principal, origin)
        return ticket

    def redeem(self, ticket: str, origin: str | None, now: float) -> Verdict:
        """Consume a ticket and return the verdict about it; a ticket is valid once.

        Args:
            ticket: as it was presented.
            origin: the origin of the page that presents it; None if the page names none.
            now: Unix time in seconds.
        """
        if not _FORM.fullmatch(ticket):
            return Invalid("not a ticket")
        issued: _Issued | None = self._waiting.pop(digest(ticket), None)
        if issued is None:
            return Invalid("a ticket that is used up or over", expired=True)
        if issued.origin is not None and issued.origin != origin:
            return Invalid("a ticket of another origin")
        ends = issued.principal.expires_at
        if ends is not None and now >= ends:
            return Invalid("a ticket whose credential is over", expired=True)
        return Valid(issued.principal)


def is_ticket(credential: str) -> bool:
    """Whether a credential has the prefix of a ticket."""
    return credential.startswith(PREFIX)
