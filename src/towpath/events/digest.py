"""The digest of a text, by which a client proves that it shows what was said.

FNV-1a, 32 bit, over the UTF-8 bytes: small enough to be ten lines in any language, and it can be
carried along while text streams. It detects mistakes, not attacks. A byte costs some 80 ns here,
so whoever waits for the digest of a long text waits long: `Growing` has it ready.

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
    """Return the digest of a whole text as it stands on the wire: 8 hex digits."""
    return f"{fnv1a(text):08x}"


class Growing:
    """The digests of texts that grow, carried along with each delta."""

    def __init__(self) -> None:
        self._carried: dict[str, tuple[int, int]] = {}
        """By message, how many characters were carried along, and the hash so far."""

    def grow(self, key: str, delta: str) -> None:
        """Carry a delta along."""
        length, state = self._carried.get(key, (0, OFFSET_BASIS))
        self._carried[key] = (length + len(delta), fnv1a(delta, state))

    def forget(self) -> None:
        """Forget all: texts may have become others."""
        self._carried.clear()

    def of(self, key: str, text: str) -> str:
        """Return the digest of a message's whole text; made anew where part was not carried."""
        length, state = self._carried.get(key, (0, OFFSET_BASIS))
        return f"{state:08x}" if length == len(text) else digest(text)
