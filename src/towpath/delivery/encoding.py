"""How publications are encoded for one kind of reader.

The hub encodes a publication once per encoding, from its bytes: the payload is copied as it is and
never decoded.
"""

from collections.abc import Callable, Sequence
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


def _encode_push(channel: Channel, publication: Publication) -> bytes:
    return codec.encode_publication(channel.visible, *publication)


JSON = Encoding(_encode_push, codec.SEPARATOR, codec.encode_unsubscribe)
"""The Centrifuge protocol's JSON."""


class Batch:
    """Consecutive publications of one channel, encoded once per encoding when first needed."""

    __slots__ = ("_encoded", "channel", "publications")

    def __init__(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """Take publications in the order of their offsets."""
        self.channel = channel
        self.publications = publications
        self._encoded: dict[Encoding, tuple[list[bytes], bytes]] = {}

    def frames(self, encoding: Encoding) -> list[bytes]:
        """Return each publication encoded, in order."""
        return (self._encoded.get(encoding) or self._encode(encoding))[0]

    def joined(self, encoding: Encoding) -> bytes:
        """Return all publications encoded as one piece: the same object for every reader."""
        return (self._encoded.get(encoding) or self._encode(encoding))[1]

    def _encode(self, encoding: Encoding) -> tuple[list[bytes], bytes]:
        frames = [encoding.encode(self.channel, one) for one in self.publications]
        encoded = self._encoded[encoding] = frames, encoding.separator.join(frames)
        return encoded
