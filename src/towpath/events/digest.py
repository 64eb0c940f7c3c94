"""The digest of a text, with which a client checks that it shows the published text.

CRC-32 (IEEE) over the UTF-8 bytes: every language has it or needs ten lines for it, and it can be
updated while text streams. It detects mistakes, not attacks: it binds nobody to a text. `Growing`
computes it with each delta, so that the end of a message does not read the whole text again.

Source: WIRE section 6; the CRC-32 of zlib.
"""

from zlib import crc32 as _crc32


def crc32(text: str, state: int = 0) -> int:
    """Return the CRC-32 of `text`, continuing from `state`."""
    return _crc32(text.encode(), state)


def digest(text: str) -> str:
    """Return the digest of a whole text as on the wire: 8 hex digits."""
    return f"{crc32(text):08x}"


class Growing:
    """The digests of growing texts, updated with each delta."""

    def __init__(self) -> None:
        self._carried: dict[str, tuple[int, int]] = {}
        """By message, the number of characters hashed and the hash so far."""

    def grow(self, key: str, delta: str) -> None:
        """Add a delta to the hash of a message."""
        length, state = self._carried.get(key, (0, 0))
        self._carried[key] = (length + len(delta), crc32(delta, state))

    def forget(self) -> None:
        """Drop all hashes, because texts may have been replaced."""
        self._carried.clear()

    def of(self, key: str, text: str) -> str:
        """Return the digest of a message's whole text; recomputed if a part was not added."""
        length, state = self._carried.get(key, (0, 0))
        return f"{state:08x}" if length == len(text) else digest(text)
