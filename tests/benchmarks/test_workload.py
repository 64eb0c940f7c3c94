"""What is asked for is what is said."""

from collections import Counter

from benchmarks.workload import Speech


async def _said(workload: Speech) -> list[object]:
    return [said async for said in Speech.request(workload.message).said()]


async def test_the_words_make_the_text_and_are_of_one_size() -> None:
    """Asked in a message, it is said word by word, each of so many bytes, no two the same."""
    workload = Speech(words=20_000)
    said = [word for word in await _said(workload) if isinstance(word, str)]
    assert "".join(said) == workload.text
    assert {len(word) for word in said} == {workload.size}
    assert len(set(said)) == 20_000


async def test_tools_are_called_between_the_words() -> None:
    """So many calls are made, none before the first word or after the last."""
    said = await _said(Speech(words=10, calls=2))
    kinds = Counter(one["type"] for one in said if isinstance(one, dict))
    assert kinds == dict.fromkeys(
        ("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"), 2
    )
    assert isinstance(said[0], str)
    assert isinstance(said[-1], str)
