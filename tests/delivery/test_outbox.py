"""What one connection still has to be sent: bounded, in order, in as few messages as may be."""

from hypothesis import given
from hypothesis import strategies as st

from towpath.delivery.outbox import MESSAGE_BYTES, Outbox
from towpath.protocol.codec_json import SEPARATOR


class Alarm:
    """Counts how often the outbox woke its writer."""

    def __init__(self) -> None:
        self.rung = 0

    def __call__(self) -> None:
        self.rung += 1


def outbox(max_bytes: int = 1000, alarm: Alarm | None = None) -> Outbox:
    return Outbox(alarm or Alarm(), max_bytes=max_bytes)


def drained(box: Outbox) -> list[bytes]:
    """Return the messages that leave until nothing waits."""
    messages = []
    while message := box.take():
        messages.append(message)
    return messages


def test_r67_the_last_byte_passes_and_the_next_does_not() -> None:
    """The bound is exact; what did not fit leaves no trace."""
    box = outbox(10)
    assert box.put(b"12345")
    assert box.put(b"67890")
    assert not box.put(b"x")
    assert box.level == 10
    assert box.take() == b"12345\n67890"


def test_r97_an_answer_may_be_larger_than_the_bound() -> None:
    """It is taken where next to nothing waits before it, and only then; a push never is."""
    for waits, fits in ((b"", True), (b"x" * 250, True), (b"x" * 251, False)):
        box = outbox(1000)
        if waits:
            assert box.put(waits)
        assert not box.put(b"y" * 5000)
        assert box.put(b"y" * 5000, answer=True) is fits
        assert box.level == len(waits) + 5000 * fits
        assert not box.put(b"z" * 1000)
        box.close()
        assert not box.put(b"a", answer=True)


def test_r97_taking_makes_room() -> None:
    """A reader that catches up may be sent to again."""
    box = outbox(5)
    assert box.put(b"12345")
    box.take()
    assert box.put(b"67890")


def test_many_frames_leave_in_one_message() -> None:
    """Whatever gathered leaves together, in order."""
    box = outbox()
    for frame in (b"a", b"b", b"c"):
        box.put(frame)
    assert box.take() == b"a\nb\nc"
    assert box.take() == b""


def test_r67_a_message_is_filled_up_to_its_bound() -> None:
    """Frames that together with their separator fill 64 KiB leave in one; a byte more in two."""
    half = MESSAGE_BYTES // 2
    for second, messages in ((half - 1, 1), (half, 2)):
        box = outbox(MESSAGE_BYTES * 2)
        box.put(b"x" * half)
        box.put(b"y" * second)
        sent = drained(box)
        assert len(sent) == messages
        assert all(len(message) <= MESSAGE_BYTES for message in sent)


def test_r97_the_level_is_what_still_waits() -> None:
    """After each message that leaves, the level is that of the frames left behind."""
    box = outbox(MESSAGE_BYTES * 3)
    for size in (MESSAGE_BYTES, 10, 20, MESSAGE_BYTES):
        box.put(b"x" * size)
    levels = [box.level]
    while box.take():
        levels.append(box.level)
    assert levels == [2 * MESSAGE_BYTES + 30, MESSAGE_BYTES + 30, MESSAGE_BYTES, 0]


def test_a_frame_over_the_message_size_leaves_whole() -> None:
    """A frame is never cut, and goes alone."""
    box = outbox(MESSAGE_BYTES * 3)
    big = b"x" * (MESSAGE_BYTES + 1)
    box.put(b"a")
    box.put(big)
    box.put(b"b")
    assert drained(box) == [b"a", big, b"b"]


def test_the_writer_is_woken_once_until_it_has_been_there() -> None:
    """One wake for many frames, and another one after the outbox was empty."""
    alarm = Alarm()
    box = outbox(alarm=alarm)
    box.put(b"a")
    box.put(b"b")
    assert alarm.rung == 1
    box.take()
    box.put(b"c")
    assert alarm.rung == 2


def test_a_refused_frame_wakes_nobody() -> None:
    """There is nothing to send."""
    alarm = Alarm()
    box = outbox(1, alarm)
    assert not box.put(b"ab")
    assert alarm.rung == 0


def test_r06_a_closed_outbox_refuses_and_can_still_be_emptied() -> None:
    """What was due before the close leaves; nothing is added after it."""
    box = outbox()
    box.put(b"a")
    box.close()
    box.close()
    assert not box.put(b"b")
    assert drained(box) == [b"a"]


def test_r97_clearing_forgets_everything() -> None:
    """The writer finds nothing, the level is zero, and nothing more is taken in."""
    box = outbox()
    box.put(b"a")
    box.clear()
    assert (box.take(), box.level) == (b"", 0)
    assert not box.put(b"b")


@given(
    st.lists(st.binary(min_size=1, max_size=50) | st.none(), max_size=60),
    st.integers(0, 200),
)
def test_nothing_is_lost_doubled_or_reordered(steps: list[bytes | None], max_bytes: int) -> None:
    """At any interleaving of puts and takes: what was accepted leaves once, in order, and the
    level is what waits and never over the bound.
    """
    box = outbox(max_bytes)
    accepted: list[bytes] = []
    messages: list[bytes] = []
    for step in steps:
        if step is None:
            messages.append(box.take())
        elif box.put(step):
            accepted.append(step)
        else:
            assert box.level + len(step) > max_bytes
        assert 0 <= box.level <= max_bytes
    messages += drained(box)
    sent = SEPARATOR.join(message for message in messages if message)
    assert sent == SEPARATOR.join(accepted)
    assert box.level == 0
