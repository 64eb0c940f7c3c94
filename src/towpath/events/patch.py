"""JSON Patch (RFC 6902), with bounds on the patched document.

Each event of a run can be encoded, but the document that patches produce may not be: patches can
nest, and copies can double it. So the result of a patch is checked when its event is made. Readers
of events apply them unchecked.
"""

import copy
from typing import Any

import jsonpatch
import jsonpointer
import msgspec

from towpath.events.types import IllegalEvent
from towpath.json_bounds import MAX_EVENT_DEPTH, nests_deeper

MAX_BYTES = 64 * 1024 * 1024
"""The maximum size of a patched document as JSON; equal to the default for all events of a run."""


def patched(
    event_type: str, document: Any, operations: list[dict[str, Any]], *, bound: bool
) -> Any:
    """Return a copy of the document with the operations applied.

    Args:
        event_type: the type of the event with the patch.
        document: the document; it is not changed.
        operations: the patch.
        bound: whether the depth and the size of the result are checked.

    Raises:
        IllegalEvent: the patch does not apply, or its result is too deep or too large.
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
    """Apply a patch with copies, and check the result after each copy, which may double its size.

    Returns:
        The result; None for a patch without copies.
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
