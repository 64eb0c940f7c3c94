"""When the credential of an open connection ends, and what follows.

A credential lapses at its own end. The connection goes on for a grace, in which the client may
bring a new credential. While the identity provider cannot be reached, nobody can bring one, so the
grace is extended.

Source: WIRE section 3 (refresh, 3005); DESIGN section 7 (expiry mid-connection).
"""

import asyncio
from collections.abc import Callable

from msgspec import UNSET, UnsetType

from towpath.connections.keepalive import KeepAlive
from towpath.connections.parts import Parts
from towpath.identity import Principal

MIN_HOLD_SECONDS = 5.0
"""During an outage an expired connection is looked at again no sooner than after this."""


class Expiry:
    """The lifetime of one open connection's credential."""

    def __init__(
        self,
        parts: Parts,
        principal: Principal,
        keepalive: KeepAlive,
        *,
        renewable: bool,
        reschedule: Callable[[], None],
    ) -> None:
        """Describe a credential; `watch` begins to watch it.

        Args:
            parts: what connections work with.
            principal: who was verified by it.
            keepalive: holds the connection's deadlines.
            renewable: whether the SDK can bring a new credential over the live connection.
            reschedule: called when `keepalive` has another next deadline.
        """
        self._parts = parts
        self._principal = principal
        self._keepalive = keepalive
        self._renewable = renewable
        self._reschedule = reschedule
        self._loop = asyncio.get_running_loop()

    def lifetime(self) -> tuple[bool | UnsetType, int | UnsetType]:
        """Return `expires` and `ttl`; unset unless the SDK itself can renew the credential."""
        expires_at = self._principal.expires_at
        if expires_at is None or not self._renewable:
            return UNSET, UNSET
        return True, max(1, int(expires_at - self._parts.now()))

    def watch(self) -> None:
        """Set the deadlines at which the credential ends and its grace ends."""
        lapse, end = (
            self._principal.expires_at,
            self._parts.connection_auth.expires_at(self._principal),
        )
        self._keepalive.expire_at(self._moment(end), lapse=self._moment(lapse))
        self._reschedule()

    def renew(self, principal: Principal) -> None:
        """Go on with the principal of a new credential."""
        self._principal = principal
        self.watch()

    def lapsed(self) -> None:
        """Note that the credential ended and no new one was brought."""
        self._parts.connection_auth.lapsed(self._principal)

    def is_over(self) -> bool:
        """Whether the grace is over; during an outage it is extended instead."""
        until = self._parts.connection_auth.held_until(self._principal)
        if until is None:
            return True
        # After another grace, every client that can bring a new credential will have done so.
        left = until - self._parts.now()
        pause = min(left, max(self._parts.settings.expiry_grace, MIN_HOLD_SECONDS))
        self._keepalive.expire_at(self._loop.time() + pause)
        self._parts.connection_auth.lapsed(self._principal)
        return False

    def _moment(self, unix: float | None) -> float | None:
        """Return a Unix time as a time of the loop."""
        if unix is None:
            return None
        return self._loop.time() + unix - self._parts.now()
