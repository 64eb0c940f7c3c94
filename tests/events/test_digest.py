"""The digest of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.events.digest import Growing, crc32, digest


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("", "00000000"),
        ("a", "e8b7be43"),
        ("123456789", "cbf43926"),
        ("The quick brown fox jumps over the lazy dog", "414fa339"),
        ("Grüße 🚣", "64b17b4d"),
    ],
)
def test_known_vectors(text: str, known: str) -> None:
    """The digest is the CRC-32 (IEEE) of the UTF-8 text: 8 lowercase hex digits, zeros included."""
    assert digest(text) == known


@given(st.lists(st.text(), max_size=6))
def test_it_does_not_depend_on_chunking(pieces: list[str]) -> None:
    """However a text was cut into deltas, its digest is the same."""
    state = crc32("")
    for piece in pieces:
        state = crc32(piece, state)
    assert f"{state:08x}" == digest("".join(pieces))
    assert len(digest("".join(pieces))) == 8


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text()), max_size=8))
def test_a_carried_digest_is_that_of_the_whole_text(deltas: list[tuple[str, str]]) -> None:
    """Texts that grow side by side have the digests they would have whole, asked twice too."""
    growing, texts = Growing(), {"a": "", "b": ""}
    for key, delta in deltas:
        growing.grow(key, delta)
        texts[key] += delta
        assert growing.of(key, texts[key]) == digest(texts[key])
    assert [growing.of(*one) for one in texts.items()] == [digest(one) for one in texts.values()]


def test_a_text_that_was_not_carried_whole_is_digested_anew() -> None:
    """A message may have begun before, and a snapshot may put another text of its length there."""
    growing = Growing()
    growing.grow("m", "later")
    assert growing.of("m", "before, later") == digest("before, later")
    growing.grow("m", "!")
    assert growing.of("m", "before, later!") == digest("before, later!")
    growing.forget()
    assert growing.of("m", "BEFORE, later!") == digest("BEFORE, later!")
