"""How publications are encoded for one kind of reader.

A publication is encoded from its bytes: the payload is copied as it is and never decoded.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from towpath.channels import Channel
from towpath.log.broker import Publication
from towpath.protocol import codec_json as codec


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """How publications are encoded for one kind of reader; compared by identity."""

    encode: Callable[[Channel, Publication], bytes]
    separator: bytes
    """The separator of two encoded publications."""
    encode_unsubscribe: Callable[[str, int, str], bytes] | None
    """Encodes the request to subscribe anew; None where a reader can only reconnect."""

    def join(self, channel: Channel, publications: Iterable[Publication]) -> bytes:
        """Return publications encoded as one piece."""
        return self.separator.join([self.encode(channel, one) for one in publications])


def _encode_push(channel: Channel, publication: Publication) -> bytes:
    return codec.encode_publication(channel.visible, *publication)


JSON = Encoding(_encode_push, codec.SEPARATOR, codec.encode_unsubscribe)
"""The Centrifuge protocol's JSON."""
