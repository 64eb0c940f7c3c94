"""Bounds on the nesting depth of JSON texts from peers, and of values that become JSON.

Encoders, decoders and copies of nested values recurse, here and in clients. The first of them fails
at about 250 levels.
"""

MAX_DEPTH = 64
"""How many levels of arrays and objects a JSON text from a peer may have."""
MAX_EVENT_DEPTH = 200
"""How many levels an event may have, and a state or an activity made by patches."""


def too_deep(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Return whether arrays and objects in a JSON text nest more than `limit` levels deep.

    Brackets inside strings do not count. A text with `limit` opening brackets or fewer is not
    scanned.
    """
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    depth = 0
    in_string = escaped = False
    for byte in text:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"{[":
            depth += 1
            if depth > limit:
                return True
        elif byte in b"}]":
            depth -= 1
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
