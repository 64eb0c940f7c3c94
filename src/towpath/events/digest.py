"""The digest of a text, by which a client proves that it shows what was said.

FNV-1a, 32 bit, over the UTF-8 bytes: small enough to be ten lines in any language, and it can be
carried along while text streams. It detects mistakes, not attacks.

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
