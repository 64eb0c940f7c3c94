"""A return that is not what it should be is a failure of the benchmark."""

from dataclasses import replace

import pytest

from benchmarks.resume import Returns, Taken, texts_of

RAW = Taken(size=50_000, frames=2, publications=[], seconds=0.5, texts={"m": "one two "})
FOLDED = replace(RAW, size=1_000, frames=1)


def test_a_good_return_is_no_failure() -> None:
    """The same text, in one frame, fifty times smaller."""
    returns = Returns()
    returns.add("text", folded=FOLDED, raw=RAW, text="one two ", plain=True)
    assert (returns.wrong, returns.several, returns.unfit, returns.bulky) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("folded", "text", "failures"),
    [
        (replace(FOLDED, texts={"m": "one  two "}), "one two ", (1, 0, 0, 0)),
        (FOLDED, "one two three ", (1, 0, 0, 0)),
        (replace(FOLDED, frames=2), "one two ", (0, 1, 0, 0)),
        (replace(FOLDED, recovered=False), "one two ", (0, 0, 1, 0)),
        (replace(FOLDED, size=1_001), "one two ", (0, 0, 0, 1)),
    ],
)
def test_each_fault_is_counted(
    folded: Taken, text: str, failures: tuple[int, int, int, int]
) -> None:
    """Other text, more frames, another answer, too many bytes."""
    returns = Returns()
    returns.add("text", folded=folded, raw=RAW, text=text, plain=True)
    assert (returns.wrong, returns.several, returns.unfit, returns.bulky) == failures


def test_a_prelude_and_the_events_it_folds_have_the_sametexts_of() -> None:
    """Settled messages and their calls stand in the snapshot, open ones are rebuilt."""
    deltas = [
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "one "},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": '{"a"'},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": ":1}"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "n", "delta": "two "},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "n", "delta": "three "},
    ]
    called = {"id": "c", "function": {"arguments": '{"a":1}'}}
    settled = [
        {"id": "u", "role": "user", "content": "say it"},
        {"id": "m", "role": "assistant", "content": "one "},
        {"id": "t", "role": "assistant", "toolCalls": [called]},
    ]
    snapshot = [
        {"type": "MESSAGES_SNAPSHOT", "messages": settled},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "n", "delta": "two three "},
    ]
    raw, folded = (texts_of([{"data": event} for event in events]) for events in (deltas, snapshot))
    assert raw == folded == {"m": "one ", "c": '{"a":1}', "n": "two three "}
