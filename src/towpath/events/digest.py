"""The digest of a text, with which a client checks that it shows the published text.

FNV-1a, 32 bit, over the UTF-8 bytes: it is ten lines in any language, and can be updated while text
streams. It detects mistakes, not attacks. A byte takes about 80 ns here, so the digest of a long
text is slow: `Growing` computes it with each delta.

Source: WIRE section 6; FNV-1a constants of the FNV reference (offset basis 0x811C9DC5, prime
0x01000193).
"""

OFFSET_BASIS = 0x811C9DC5
_PRIME = 0x01000193


def fnv1a(text: str, state: int = OFFSET_BASIS) -> int:
    """Return the hash of `text`, continuing from `state`."""
    for byte in text.encode():
        state = (state ^ byte) * _PRIME & 0xFFFFFFFF
    return state


def digest(text: str) -> str:
    """Return the digest of a whole text as on the wire: 8 hex digits."""
    return f"{fnv1a(text):08x}"


class Growing:
    """The digests of growing texts, updated with each delta."""

    def __init__(self) -> None:
        self._carried: dict[str, tuple[int, int]] = {}
        """By message, the number of characters hashed and the hash so far."""

    def grow(self, key: str, delta: str) -> None:
        """Add a delta to the hash of a message."""
        length, state = self._carried.get(key, (0, OFFSET_BASIS))
        self._carried[key] = (length + len(delta), fnv1a(delta, state))

    def forget(self) -> None:
        """Drop all hashes, because texts may have been replaced."""
        self._carried.clear()

    def of(self, key: str, text: str) -> str:
        """Return the digest of a message's whole text; recomputed if a part was not added."""
        length, state = self._carried.get(key, (0, OFFSET_BASIS))
        return f"{state:08x}" if length == len(text) else digest(text)
