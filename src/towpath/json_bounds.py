"""How deep values may nest that become JSON, or were JSON."""

MAX_EVENT_DEPTH = 200
"""How deep an event may nest, and a state or an activity that events add up to.

Encoders, decoders and copies of such values recurse, here and in clients; the first of them gives
up at about 250 levels.
"""


def nests_deeper(value: object, limit: int) -> bool:
    """Whether mappings and lists in a value nest more than `limit` levels deep; a scalar is 0."""
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
