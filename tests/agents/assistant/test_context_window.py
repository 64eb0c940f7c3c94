"""What of a conversation a model is given: the newest of it, whole turns, never too little."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from towpath.agents.assistant.context_window import TOKENS_PER_MESSAGE, recent

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def message(role: str, text: str = "") -> dict[str, Any]:
    """Return a message of a conversation."""
    return {"id": "m", "role": role, "content": text}


def turn(number: int, size: int = 30) -> list[dict[str, Any]]:
    """Return a question and its answer, each of this many characters."""
    return [message("user", f"q{number}".ljust(size)), message("assistant", "a".ljust(size))]


COST = 2 * (TOKENS_PER_MESSAGE + 10)
"""What such a turn costs."""


def test_the_oldest_turns_are_left_out() -> None:
    """Of three turns the two newest fit, to the token; one token less leaves one."""
    turns = [turn(n) for n in range(3)]
    whole = [*turns[0], *turns[1], *turns[2]]
    assert recent(whole, 3 * COST) == whole
    assert recent(whole, 3 * COST - 1) == turns[1] + turns[2]
    assert recent(whole, 2 * COST) == turns[1] + turns[2]
    assert recent(whole, 2 * COST - 1) == turns[2]


def test_the_newest_question_is_never_left_out() -> None:
    """A question over the bound is asked all the same, alone."""
    huge = message("user", "x" * 10_000)
    assert recent([*turn(1), huge], 100) == [huge]


def test_a_question_that_was_too_long_is_forgotten_by_the_next() -> None:
    """After one that no model could read, and none answered, a short one is answered again."""
    huge, short = message("user", "x" * 10_000), message("user", "and now?")
    assert recent([huge, short], 100) == [short]


def test_a_result_is_never_without_its_call() -> None:
    """A turn with a tool call is kept whole or left out whole."""
    called = {**message("assistant"), "toolCalls": [CALL]}
    result = {**message("tool", "x" * 300), "toolCallId": "c"}
    first = [message("user", "one"), called, result, message("assistant", "done")]
    assert recent([*first, *turn(2)], 150) == turn(2)
    assert recent([*first, *turn(2)], 250) == [*first, *turn(2)]


def test_other_writing_costs_more() -> None:
    """The same number of letters fills the bound sooner where a model spends more on them."""
    plain = [message("user", "a" * 300), message("user", "q")]
    other = [message("user", "я" * 300), message("user", "q")]
    assert len(recent(plain, 200)) == 2
    assert len(recent(other, 200)) == 1


def test_arguments_and_pictures_cost_too() -> None:
    """What is no plain text counts as well."""
    many = {**CALL, "function": {"name": "f", "arguments": "x" * 600}}
    called = {**message("assistant"), "content": None, "toolCalls": [many]}
    assert recent([message("user", "one"), called, message("user", "q")], 150) == [
        message("user", "q")
    ]
    picture = {"id": "m", "role": "user", "content": [{"type": "image", "source": "x" * 600}]}
    assert recent([picture, message("user", "q")], 150) == [message("user", "q")]


MESSAGES = st.builds(
    message, st.sampled_from(["user", "assistant", "tool", "system"]), st.text(max_size=60)
)


@given(st.lists(MESSAGES, max_size=12), st.integers(1, 300))
def test_what_is_left_is_the_end_of_the_conversation(
    messages: list[dict[str, Any]], tokens: int
) -> None:
    """Nothing is changed, moved or left out of the middle; it begins at a turn."""
    kept = recent(messages, tokens)
    assert kept == messages[len(messages) - len(kept) :]
    assert bool(kept) == bool(messages)
    assert len(kept) == len(messages) or kept[0]["role"] == "user"
