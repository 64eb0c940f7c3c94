"""The expiry of the credential of an open connection, and the grace period after it.

A credential lapses at its own end. The connection stays open for a grace period, in which the
client may send a new credential. While the identity provider cannot be reached, no client can get
one, so the grace period is extended.

Source: WIRE section 3 (refresh, 3005); DESIGN section 7 (expiry mid-connection).
"""

from collections.abc import Callable

from msgspec import UNSET, UnsetType

from towpath.connections.keepalive import KeepAlive
from towpath.connections.parts import Parts
from towpath.identity import Principal

MIN_HOLD_SECONDS = 5.0
"""The shortest pause between two checks of an expired connection during an outage, in seconds."""


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
        """Describe a credential; `watch` sets its deadlines.

        Args:
            parts: the shared parts of the node.
            principal: the verified principal of the credential.
            keepalive: holds the connection's deadlines.
            renewable: whether the SDK can send a new credential over the live connection.
            reschedule: called when the next deadline of `keepalive` has changed.
        """
        self._parts = parts
        self._principal = principal
        self._keepalive = keepalive
        self._renewable = renewable
        self._reschedule = reschedule

    def lifetime(self) -> tuple[bool | UnsetType, int | UnsetType]:
        """Return `expires` and `ttl` in seconds; unset unless the SDK can renew the credential."""
        expires_at = self._principal.expires_at
        if expires_at is None or not self._renewable:
            return UNSET, UNSET
        return True, max(1, int(expires_at - self._parts.now()))

    def watch(self) -> None:
        """Set the deadlines for the end of the credential and the end of its grace."""
        end = self._parts.connection_auth.expires_at(self._principal)
        self._keepalive.expire_at(end, lapse=self._principal.expires_at)
        self._reschedule()

    def renew(self, principal: Principal) -> None:
        """Replace the principal with that of a new credential."""
        self._principal = principal
        self.watch()

    def lapsed(self) -> None:
        """Report that the credential ended without a new one."""
        self._parts.connection_auth.lapsed(self._principal)

    def is_over(self) -> bool:
        """Whether the grace is over; during an outage it is extended instead."""
        until = self._parts.connection_auth.held_until(self._principal)
        if until is None:
            return True
        # One more grace period is enough for every client that can send a new credential.
        pause = max(self._parts.settings.expiry_grace, MIN_HOLD_SECONDS)
        self._keepalive.expire_at(min(until, self._parts.now() + pause))
        self._parts.connection_auth.lapsed(self._principal)
        return False
