"""What is asked for is what is items."""

from collections import Counter

from benchmarks.workload import Speech


async def _items(workload: Speech) -> list[object]:
    return [items async for items in Speech.request(workload.message).items()]


async def test_the_words_make_the_text_and_are_of_one_size() -> None:
    """Asked in a message, it is items word by word, each of so many bytes, no two the same."""
    workload = Speech(words=20_000)
    items = [word for word in await _items(workload) if isinstance(word, str)]
    assert "".join(items) == workload.text
    assert {len(word) for word in items} == {workload.size}
    assert len(set(items)) == 20_000


async def test_tools_are_called_between_the_words() -> None:
    """So many calls are made, none before the first word or after the last."""
    items = await _items(Speech(words=10, calls=2))
    kinds = Counter(one["type"] for one in items if isinstance(one, dict))
    assert kinds == dict.fromkeys(
        ("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"), 2
    )
    assert isinstance(items[0], str)
    assert isinstance(items[-1], str)
