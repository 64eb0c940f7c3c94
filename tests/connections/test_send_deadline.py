"""The deadline of sends: a late send ends, and no other one."""

import asyncio

import pytest

from towpath.connections.send_deadline import SendDeadline

LIMIT = 0.05
"""Seconds; every wait here is for an event, and this is how long a late send lasts."""


async def in_time() -> None:
    """Send at once, as a socket with room does."""


async def test_p7_a_send_that_takes_too_long_times_out() -> None:
    """A send that blocks raises TimeoutError after the limit, and was cancelled."""
    cancelled = asyncio.Event()

    async def blocked() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    deadline, began = SendDeadline(LIMIT), asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await deadline.limit(blocked())
    assert asyncio.get_running_loop().time() - began >= LIMIT
    assert cancelled.is_set()
    assert not deadline.is_sending


async def test_the_time_of_earlier_sends_does_not_count() -> None:
    """The timer that an earlier send armed does not end a later send before its own deadline."""
    deadline, loop = SendDeadline(LIMIT), asyncio.get_running_loop()
    await deadline.limit(in_time())
    await asyncio.sleep(LIMIT * 0.8)
    began = loop.time()
    with pytest.raises(TimeoutError):
        await deadline.limit(asyncio.Event().wait())  # type: ignore[arg-type]
    assert loop.time() - began >= LIMIT


async def test_sends_are_limited_again_after_the_timer_found_nothing() -> None:
    """A timer that elapses between two sends is armed by the next one."""
    deadline = SendDeadline(LIMIT)
    await deadline.limit(in_time())
    await asyncio.sleep(LIMIT * 2)
    assert not deadline.is_sending
    with pytest.raises(TimeoutError):
        await deadline.limit(asyncio.Event().wait())  # type: ignore[arg-type]


async def test_a_cancelled_connection_is_not_a_late_send() -> None:
    """If the task is cancelled, the send raises CancelledError, whatever the deadline says."""
    deadline, sending = SendDeadline(LIMIT), asyncio.Event()

    async def blocked() -> None:
        sending.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(deadline.limit(blocked()))
    await sending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_send_that_is_late_and_cancelled_is_cancelled() -> None:
    """If both happen in one turn of the loop, the cancellation is not lost."""
    deadline = SendDeadline(0.0)
    task = asyncio.ensure_future(deadline.limit(asyncio.Event().wait()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    deadline._elapse()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_closed_deadline_cancels_nothing() -> None:
    """Once the connection is over, no timer is left that could cancel its task."""
    deadline = SendDeadline(LIMIT)
    await deadline.limit(in_time())
    deadline.close()
    await asyncio.sleep(LIMIT * 2)
    assert asyncio.current_task() is not None
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]
