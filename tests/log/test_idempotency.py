"""A request id takes effect once and is answered the same, over the log that stores the results."""

from pathlib import Path

import pytest

from tests.log.brokers import (
    NOTICES,
)
from tests.runs.stage import ALICE, staged
from towpath.channels import user_channel
from towpath.errors import Conflict, StorageError
from towpath.log.broker import (
    Append,
    IdempotencyKey,
    Item,
    Position,
    Span,
    Write,
    Written,
)
from towpath.log.idempotency import last_position, stored_result, write_once
from towpath.methods.threads import ThreadRename
from towpath.runs.requests import Accepted, Decided

CHANNEL = user_channel("acme", "alice")
CHANGE = Write((Append(CHANNEL, (Item(b"{}", {}),)),))


def key_of(method: str, title: str = "one") -> IdempotencyKey:
    """Return the key of Alice's request `q` to rename a thread."""
    rename = ThreadRename(request_id="q", thread_id="t", title=title)
    return IdempotencyKey.of(ALICE, method, rename.request_id, rename)


async def test_p8_a_repetition_changes_nothing_and_gets_the_first_result(tmp_path: Path) -> None:
    """The second write under a key is not made, and its result is not returned."""
    key = key_of("thread.rename")
    async with staged("memory", tmp_path) as stage:
        assert await stored_result(stage.broker, key, Accepted) is None
        for status in ("first", "second"):
            made = await write_once(stage.broker, key, Accepted(status=status), CHANGE)
            assert made == Accepted(status="first")
        assert await stored_result(stage.broker, key, Accepted) == Accepted(status="first")
        assert (await stage.broker.read(CHANNEL, 0)).top == 1


async def test_p8_a_request_id_stands_for_one_request(tmp_path: Path) -> None:
    """The same id with other parameters is a conflict; for another method or person it is new."""
    async with staged("memory", tmp_path) as stage:
        await write_once(stage.broker, key_of("m"), Accepted(status="a"))
        other = key_of("m", "two")
        with pytest.raises(Conflict):
            await write_once(stage.broker, other, Accepted(status="b"), CHANGE)
        with pytest.raises(Conflict):
            await stored_result(stage.broker, other, Accepted)
        again = key_of("another")
        assert await stored_result(stage.broker, again, Accepted) is None
        assert (await stage.broker.read(CHANNEL, 0)).top == 0


async def test_p8_what_was_not_written_is_not_stored(tmp_path: Path) -> None:
    """After a write that failed, the same request is new."""
    key = key_of("m")
    async with staged("memory", tmp_path) as stage:
        stage.broker.refuse_next = 1
        with pytest.raises(StorageError):
            await write_once(stage.broker, key, Accepted(status="a"), CHANGE)
        assert await stored_result(stage.broker, key, Accepted) is None
        assert await write_once(stage.broker, key, Accepted(status="b")) == Accepted(status="b")


async def test_a_stored_result_keeps_what_it_left_out(tmp_path: Path) -> None:
    """A result with optional fields is returned as it was stored, without new nulls."""
    key = key_of("m")
    async with staged("memory", tmp_path) as stage:
        await write_once(stage.broker, key, Decided(status="accepted"))
        stored = await stage.broker.stored_result(key)
        assert stored is not None
        assert stored.result == b'{"status":"accepted"}'
        assert await stored_result(stage.broker, key, Decided) == Decided(status="accepted")


@pytest.mark.parametrize(
    "written",
    [
        Written((Span(NOTICES, "e", 3, 4),), b"", repeated=True),
        Written((), b'{"epoch":"e","offset":4}', repeated=True),
    ],
    ids=["spans", "an earlier version"],
)
def test_p8_the_position_of_a_repetition_is_that_of_the_first_write(written: Written) -> None:
    """It comes from the stored spans, or from the result that an earlier version stored."""
    assert last_position(written) == Position("e", 4)
