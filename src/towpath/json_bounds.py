"""Bounds on the nesting depth of JSON texts from peers, and of values that become JSON.

Encoders, decoders and copies of nested values recurse, here and in clients. The first of them fails
at about 250 levels.
"""

import re
from itertools import accumulate
from typing import Final

MAX_DEPTH = 64
"""How many levels of arrays and objects a JSON text from a peer may have."""
MAX_EVENT_DEPTH = 200
"""How many levels an event may have, and a state or an activity made by patches."""

_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""A string, or the rest of a text that ends within one: no part is looked at twice."""
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""A bracket as a step of the depth: 1 or, as a signed byte, -1."""
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_SLICE: Final = 16 * 1024
"""How many brackets are counted at once, until one is too deep."""


def too_deep(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Return whether arrays and objects in a JSON text nest more than `limit` levels deep.

    Brackets inside strings do not count. A text with `limit` opening brackets or fewer is not
    scanned. Nothing is done byte by byte in Python: a long text must not hold up the loop.
    """
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    steps = _STRING.sub(b"", text).translate(_STEPS, _NO_BRACKETS)
    depths = [0]
    for start in range(0, len(steps), _SLICE):
        part = memoryview(steps)[start : start + _SLICE].cast("b")
        depths = list(accumulate(part, initial=depths[-1]))
        if max(depths) > limit:
            return True
    return False


def nests_deeper(value: object, limit: int) -> bool:
    """Return whether mappings and lists in a value nest more than `limit` levels deep.

    A scalar has no level.
    """
    level = [value] if isinstance(value, dict | list | tuple) else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list | tuple)
        ]
    return bool(level)
