"""The digest of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.events.digest import digest, fnv1a


@pytest.mark.parametrize(
    ("text", "known"), [("", "811c9dc5"), ("a", "e40c292c"), ("foobar", "bf9cf968")]
)
def test_known_vectors(text: str, known: str) -> None:
    """The hash is FNV-1a, 32 bit, 8 hex digits."""
    assert digest(text) == known


@given(st.lists(st.text(), max_size=6))
def test_it_does_not_depend_on_chunking(pieces: list[str]) -> None:
    """However a text was cut into deltas, its digest is the same."""
    state = fnv1a("")
    for piece in pieces:
        state = fnv1a(piece, state)
    assert f"{state:08x}" == digest("".join(pieces))
    assert len(digest("".join(pieces))) == 8
