"""Questions as plain values: where they stand, when they expire, what their answers say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.errors import BadRequest, Conflict
from towpath.events.digest import digest as crc32_digest
from towpath.events.interrupts import check_interrupts, expiry
from towpath.events.types import IllegalEvent
from towpath.runs.interrupts import (
    DECISIONS,
    LATE,
    TRANSITIONS,
    Interrupt,
    InterruptStatus,
    Transition,
    check_shown,
    resume_entries,
    shown_digest,
)
from towpath.runs.model import RunKey

KEY = RunKey(tenant="acme", user="alice", thread="t1", run="r1", agent="agent")
ARGUMENTS = '{"what": "a barge"}'
CALL = {"id": "c1", "type": "function", "function": {"name": "buy", "arguments": ARGUMENTS}}
MESSAGES: list[dict[str, Any]] = [
    {"id": "u1", "role": "user", "content": "buy a barge"},
    {"id": "a1", "role": "assistant", "toolCalls": [CALL]},
]


def question(
    answer: InterruptStatus = InterruptStatus.OPEN, payload: Any = None, **fields: Any
) -> Interrupt:
    """Return a question that expires at 100."""
    given = {"id": "q1", "reason": "tool_call", **fields}
    return Interrupt(
        key=KEY, interrupt=given, status=answer, payload=payload, expires=100.0, decided=None
    )


def test_r95_r96_only_an_open_question_moves() -> None:
    """Each move leads from open to a state of its own, and no move leads on from there."""
    assert {before for before, _ in TRANSITIONS} == {InterruptStatus.OPEN}
    assert {move for _, move in TRANSITIONS} == set(Transition)
    ends = list(TRANSITIONS.values())
    assert sorted(ends, key=str) == sorted(set(InterruptStatus) - {InterruptStatus.OPEN}, key=str)


def test_r95_whoever_is_late_is_told_what_happened() -> None:
    """Expired, left behind and decided are three different replies; open is none of them."""
    assert set(LATE) == set(InterruptStatus) - {InterruptStatus.OPEN}
    assert LATE[InterruptStatus.EXPIRED] not in (
        LATE[InterruptStatus.REFUSED],
        LATE[InterruptStatus.GONE],
    )
    assert {TRANSITIONS[InterruptStatus.OPEN, move] for move in DECISIONS.values()} == {
        InterruptStatus.APPROVED,
        InterruptStatus.REFUSED,
    }


@given(st.sampled_from(InterruptStatus), st.floats(0, 200))
def test_r95_time_moves_an_open_question_only(answer: InterruptStatus, at: float) -> None:
    """From its moment on an open question counts as expired; a decided one stays what it is."""
    expired = answer is InterruptStatus.OPEN and at >= 100.0
    assert question(answer).now(at) is (InterruptStatus.EXPIRED if expired else answer)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([None], 7.0),
        ([None, None], 7.0),
        (["1970-01-01T00:01:40Z"], 100.0),
        (["1970-01-01T00:01:40"], 100.0),
        (["1970-01-01T01:01:40+01:00"], 100.0),
        (["1970-01-01T00:01:40.500Z"], 100.5),
        (["2026-01-01T00:00:00Z", None, "1970-01-01T00:01:40Z"], 100.0),
        (["in an hour"], 7.0),
        ([1700000000], 7.0),
        (["in an hour", "1970-01-01T00:01:40Z"], 100.0),
    ],
)
def test_r95_the_first_named_moment_counts(named: list[Any], expected: float) -> None:
    """Questions of a run expire when the first of them says; text that is no time says nothing."""
    interrupts = [{"id": str(n), "expiresAt": moment} for n, moment in enumerate(named)]
    assert expiry({"interrupts": interrupts}, 7.0) == expected


def test_what_was_shown_is_what_was_asked() -> None:
    """The call's arguments or their SHA-256 pass; others, their CRC-32, or none do not."""
    one = question(toolCallId="c1")
    right, other = shown_digest(ARGUMENTS), '{"what": "two barges"}'
    for digest, arguments in ((right, None), (None, ARGUMENTS), (right, ARGUMENTS)):
        check_shown(one, MESSAGES, digest=digest, arguments=arguments)
    with pytest.raises(BadRequest):
        check_shown(one, MESSAGES, digest=None, arguments=None)
    for digest in (shown_digest(other), right.upper(), crc32_digest(ARGUMENTS), ""):
        for text in (None, ARGUMENTS):
            with pytest.raises(Conflict):
                check_shown(one, MESSAGES, digest=digest, arguments=text)
    for arguments in (other, f"{ARGUMENTS} ", ""):
        for digest in (None, right):
            with pytest.raises(Conflict):
                check_shown(one, MESSAGES, digest=digest, arguments=arguments)


def test_the_digest_of_a_decision_is_sha_256() -> None:
    """A client computes it with any SHA-256: the vectors of FIPS 180-4."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (shown_digest(""), shown_digest("abc")) == (empty, abc)


def test_a_question_about_no_call_needs_no_digest() -> None:
    """Without a tool call nothing was shown; a digest all the same is of something else."""
    check_shown(question(), MESSAGES, digest=None, arguments=None)
    with pytest.raises(Conflict):
        check_shown(question(), MESSAGES, digest=shown_digest(ARGUMENTS), arguments=None)


def test_a_call_that_is_gone_cannot_have_been_shown() -> None:
    """Where the conversation does not hold the call any more, no digest fits."""
    with pytest.raises(Conflict):
        check_shown(question(toolCallId="c1"), MESSAGES[:1], digest=None, arguments=ARGUMENTS)


payloads = st.none() | st.booleans() | st.text() | st.dictionaries(st.text(), st.integers())
payloads |= st.builds(
    lambda approved: {"approved": approved}, st.booleans() | st.none() | st.text()
)


@given(
    st.lists(
        st.tuples(st.sampled_from([InterruptStatus.APPROVED, InterruptStatus.REFUSED]), payloads)
    )
)
def test_r95_an_agent_can_tell_yes_from_no(answers: list[tuple[InterruptStatus, Any]]) -> None:
    """Each question is answered once, in order; words beside a decision never turn it round."""
    interrupts = [
        question(answer, payload, id=f"q{n}") for n, (answer, payload) in enumerate(answers)
    ]
    entries = resume_entries(interrupts)
    assert [one["interruptId"] for one in entries] == [one.id for one in interrupts]
    assert {one["status"] for one in entries} <= {"resolved"}
    for one, entry in zip(interrupts, entries, strict=True):
        passed = entry["payload"]
        if one.status is InterruptStatus.REFUSED:
            assert passed["approved"] is False
        elif isinstance(passed, dict):
            assert passed["approved"] is True
        else:
            assert passed == one.payload
        if isinstance(one.payload, dict):
            assert {**passed, "approved": 0} == {**one.payload, "approved": 0}


@pytest.mark.parametrize(
    "interrupts",
    [
        [{"id": ""}],
        [{"id": "x" * 129}],
        [{"id": "a\nb"}],
        [{"id": " "}],
        [{"id": "q1"}, {"id": "q1"}],
        [{"id": "q1", "toolCallId": "c2"}],
    ],
)
def test_r95_what_nobody_could_answer_is_not_asked(interrupts: list[dict[str, Any]]) -> None:
    """An id no decision can name, two questions of one id, a call nobody was shown: refused."""
    with pytest.raises(IllegalEvent):
        check_interrupts({"interrupts": interrupts}, MESSAGES)
    check_interrupts({"interrupts": [{"id": "q1", "toolCallId": "c1"}, {"id": "q2"}]}, MESSAGES)
