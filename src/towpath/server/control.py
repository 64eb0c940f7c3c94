"""What nodes tell each other, heard: today that credentials were taken back.

It comes the way every publication comes, out of the log and in its order, on the node that said it
too; so a revocation is durable before it has an effect, and a node that starts finds those before
it.
"""

from collections.abc import Sequence

import msgspec

from towpath import codes
from towpath.auth.revocations import EVERYBODY, Revocation
from towpath.auth.service import UnifiedAuthenticationService
from towpath.channels import CONTROL
from towpath.hooks import Fault, Hooks, SessionsRevoked
from towpath.hub.hub import Hub
from towpath.streams.broker import Append, Broker, Item, Publication


def announce(revocation: Revocation) -> Append:
    """Return what tells every node of a revocation."""
    return Append(CONTROL, (Item(msgspec.json.encode(revocation), {}),))


def lost(at: float) -> Item:
    """Return what takes back everything issued before, since what was taken back is not known."""
    return Item(msgspec.json.encode(Revocation(tenant=EVERYBODY, at=at)), {})


class Control:
    """Carries out on this node what the control channel says."""

    def __init__(self, service: UnifiedAuthenticationService, hub: Hub, hooks: Hooks) -> None:
        self._service = service
        self._hub = hub
        self._hooks = hooks

    async def catch_up(self, broker: Broker) -> None:
        """Hear of everything that was said before this node started.

        Raises:
            StorageError: the log cannot be read.
        """
        replay = await broker.read(CONTROL, 0)
        self.hear(replay.publications)

    def hear(self, publications: Sequence[Publication]) -> None:
        """Carry out what was published; one that cannot be read is a fault and stops no other."""
        for publication in publications:
            try:
                revocation = msgspec.json.decode(publication.data, type=Revocation)
            except msgspec.DecodeError as error:
                self._hooks.tell(Fault(where="control", error=error))
            else:
                self._revoke(revocation)

    def _revoke(self, revocation: Revocation) -> None:
        self._service.hear(revocation)
        closed = self._hub.end(revocation.names, codes.NOT_ALLOWED)
        self._hooks.tell(
            SessionsRevoked(tenant=revocation.tenant, what=revocation.what, closed=closed)
        )
