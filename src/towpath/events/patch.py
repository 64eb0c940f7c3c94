"""JSON Patch (RFC 6902), and what a patched document may grow to.

Each event of a run can be encoded; what they add up to need not be: patches that nest, and copies
that double. So whoever makes events checks what a patch makes before the event happens. Whoever
reads events takes them as they are.
"""

import copy
from typing import Any

import jsonpatch
import jsonpointer
import msgspec

from towpath.events.types import IllegalEvent
from towpath.json_bounds import MAX_EVENT_DEPTH, nests_deeper

MAX_BYTES = 64 * 1024 * 1024
"""How large a patched document may be as JSON: as large as all events of a run by default."""


def patched(
    event_type: str, document: Any, operations: list[dict[str, Any]], *, bound: bool
) -> Any:
    """Return a copy of the document with the operations applied.

    Args:
        event_type: the type of the event that brings the patch.
        document: what is patched; it stays as it is.
        operations: the patch.
        bound: whether the result has to be encodable, and no larger than it may.

    Raises:
        IllegalEvent: the patch does not apply, or makes what may not be.
    """
    try:
        made = _in_steps(event_type, document, operations) if bound else None
        if made is None:
            made = jsonpatch.apply_patch(document, operations)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise IllegalEvent(event_type, f"the patch does not apply: {error}") from None
    if bound:
        _check(event_type, made)
    return made


def _in_steps(event_type: str, document: Any, operations: list[dict[str, Any]]) -> Any:
    """Apply a patch that copies one operation at a time: each copy may double the document.

    Returns:
        None for a patch that copies nothing.
    """
    if all(operation.get("op") != "copy" for operation in operations):
        return None
    made = copy.deepcopy(document)
    for operation in operations:
        made = jsonpatch.apply_patch(made, [operation], in_place=True)
        if operation.get("op") == "copy":
            _check(event_type, made)
    return made


def _check(event_type: str, document: Any) -> None:
    if nests_deeper(document, MAX_EVENT_DEPTH):
        raise IllegalEvent(event_type, f"the result nests deeper than {MAX_EVENT_DEPTH} levels")
    if len(msgspec.json.encode(document)) > MAX_BYTES:
        raise IllegalEvent(event_type, f"the result is larger than {MAX_BYTES} bytes")
