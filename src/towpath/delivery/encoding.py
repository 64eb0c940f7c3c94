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
    """What stands between two encoded publications."""
    encode_unsubscribe: Callable[[str, int, str], bytes] | None
    """Encodes the request to subscribe anew; None where a reader can only reconnect."""


def _encode_push(channel: Channel, publication: Publication) -> bytes:
    return codec.encode_publication(channel.visible, *publication)


JSON = Encoding(_encode_push, codec.SEPARATOR, codec.encode_unsubscribe)
"""The Centrifuge protocol's JSON."""


class Batch:
    """Consecutive publications of one channel, encoded once per encoding when first needed."""

    __slots__ = ("_frames", "_joined", "channel", "first", "last", "publications")

    def __init__(self, channel: Channel, publications: Sequence[Publication]) -> None:
        """Take publications in the order of their offsets; there is at least one."""
        self.channel = channel
        self.publications = publications
        self.first = publications[0].offset
        self.last = publications[-1].offset
        self._frames: dict[Encoding, list[bytes]] = {}
        self._joined: dict[Encoding, bytes] = {}

    def frames(self, encoding: Encoding) -> list[bytes]:
        """Return each publication encoded, in order."""
        if (frames := self._frames.get(encoding)) is None:
            frames = [encoding.encode(self.channel, one) for one in self.publications]
            self._frames[encoding] = frames
        return frames

    def joined(self, encoding: Encoding) -> bytes:
        """Return all publications encoded as one piece: the same object for every reader."""
        if (joined := self._joined.get(encoding)) is None:
            joined = self._joined[encoding] = encoding.separator.join(self.frames(encoding))
        return joined
