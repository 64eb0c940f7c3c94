"""Concurrent calls with one key share one task, which only the last cancelled waiter cancels."""

import asyncio
import contextlib

import pytest

from tests.auth.stage import virtual
from towpath.auth.single_flight import SingleFlight


class Work:
    """Work that a test completes, and that counts its starts and cancellations."""

    def __init__(self) -> None:
        self.began = 0
        self.cancelled = 0
        self.tidied = asyncio.Event()
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.began += 1
        try:
            return await asyncio.shield(self.result)
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0)
            self.tidied.set()
            raise


class Lost(list[Exception]):
    """Exceptions that were raised while nobody waited."""

    def __call__(self, error: Exception) -> None:
        self.append(error)


async def event_loop_turns(count: int = 5) -> None:
    """Let the event loop run a few turns."""
    for _ in range(count):
        await asyncio.sleep(0)


@virtual
async def test_r27_one_work_for_all_who_ask() -> None:
    """100 callers with one key: the work runs once, and all of them get its result."""
    async with SingleFlight[str, str](Lost()) as flights:
        work = Work()
        waiters = [asyncio.create_task(flights.share("a", work)) for _ in range(100)]
        await event_loop_turns()
        assert (len(flights), "a" in flights, "b" in flights) == (1, True, False)
        work.result.set_result("done")
        assert await asyncio.gather(*waiters) == ["done"] * 100
        assert (work.began, work.cancelled, len(flights)) == (1, 0, 0)


@virtual
async def test_r27_another_key_is_another_work() -> None:
    """Callers with different keys do not share a result."""
    async with SingleFlight[str, str](Lost()) as flights:
        works = {key: Work() for key in ("a", "b", "A", "")}
        waiters = {key: asyncio.create_task(flights.share(key, works[key])) for key in works}
        await event_loop_turns()
        for key, work in works.items():
            work.result.set_result(f"for {key!r}")
        assert {key: await waiter for key, waiter in waiters.items()} == {
            key: f"for {key!r}" for key in works
        }


@virtual
async def test_what_is_over_is_begun_anew() -> None:
    """A completed task is not cached: a later caller starts a new one."""
    async with SingleFlight[str, int](Lost()) as flights:
        count = 0

        async def work() -> int:
            nonlocal count
            count += 1
            return count

        assert [await flights.share("a", work) for _ in range(3)] == [1, 2, 3]


@virtual
async def test_a_leaver_does_not_disturb_the_others() -> None:
    """The caller that started the work may be cancelled too."""
    async with SingleFlight[str, str](Lost()) as flights:
        work = Work()
        waiters = [asyncio.create_task(flights.share("a", work)) for _ in range(3)]
        await event_loop_turns()
        waiters[0].cancel()
        waiters[1].cancel()
        await event_loop_turns()
        assert [waiter.cancelled() for waiter in waiters] == [True, True, False]
        work.result.set_result("done")
        assert await waiters[2] == "done"
        assert (work.began, work.cancelled) == (1, 0)


@virtual
async def test_the_last_leaver_cancels_the_work() -> None:
    """When the last waiter is cancelled, so is the work, and its key is free."""
    lost = Lost()
    async with SingleFlight[str, str](lost) as flights:
        work = Work()
        waiters = [asyncio.create_task(flights.share("a", work)) for _ in range(2)]
        await event_loop_turns()
        for waiter in waiters:
            waiter.cancel()
        await event_loop_turns()
        assert work.cancelled == 1
        assert work.tidied.is_set()
        assert len(flights) == 0
    assert lost == []


@virtual
async def test_a_deadline_of_one_is_no_deadline_of_another() -> None:
    """Each waiter has its own timeout."""
    async with SingleFlight[str, str](Lost()) as flights:
        work = Work()

        async def hasty() -> str:
            async with asyncio.timeout(1):
                return await flights.share("a", work)

        quick, slow = asyncio.create_task(hasty()), asyncio.create_task(flights.share("a", work))
        with pytest.raises(TimeoutError):
            await quick
        work.result.set_result("done")
        assert await slow == "done"


@virtual
async def test_a_newcomer_after_the_last_leaver_begins_a_new_one() -> None:
    """Even during the clean-up of the cancelled work: nobody joins a cancelled task."""
    async with SingleFlight[str, str](Lost()) as flights:
        old, new = Work(), Work()
        leaver = asyncio.create_task(flights.share("a", old))
        await event_loop_turns()
        leaver.cancel()
        await asyncio.sleep(0)
        newcomer = asyncio.create_task(flights.share("a", new))
        await event_loop_turns()
        assert old.tidied.is_set()
        assert "a" in flights, "the end of the old one forgot the new one"
        new.result.set_result("new")
        assert await newcomer == "new"
        assert (old.began, new.began, new.cancelled) == (1, 1, 0)


@virtual
async def test_who_leaves_at_once_leaves_nothing() -> None:
    """Work that is cancelled before its first turn never starts, and its key is free."""
    async with SingleFlight[str, str](Lost()) as flights:
        work = Work()
        for _ in range(3):
            waiter = asyncio.create_task(flights.share("a", work))
            await asyncio.sleep(0)
            waiter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiter
        assert len(flights) == 0
        work.result.set_result("done")
        assert await flights.share("a", work) == "done"


@virtual
async def test_r31_what_it_raises_reaches_every_rider() -> None:
    """Each waiter gets the exception, and it is not reported as lost."""
    lost = Lost()
    async with SingleFlight[str, str](lost) as flights:
        work = Work()
        waiters = [asyncio.create_task(flights.share("a", work)) for _ in range(5)]
        await event_loop_turns()
        error = ConnectionError("down")
        work.result.set_exception(error)
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert outcomes == [error] * 5
        assert "a" not in flights
    assert lost == []


@virtual
async def test_one_who_left_just_before_the_exception_loses_nothing() -> None:
    """A waiter cancelled in the turn of the exception does not cause a report."""
    lost = Lost()
    async with SingleFlight[str, str](lost) as flights:
        work = Work()
        leaver, stayer = (asyncio.create_task(flights.share("a", work)) for _ in range(2))
        await event_loop_turns()
        leaver.cancel()
        work.result.set_exception(ConnectionError("down"))
        with pytest.raises(ConnectionError):
            await stayer
    assert lost == []


# Work that nobody waits for.


@virtual
async def test_background_work_flies_on_alone() -> None:
    """A second `begin` starts nothing; a waiter may join and be cancelled, and the work goes on."""
    async with SingleFlight[str, str](Lost()) as flights:
        work = Work()
        flights.begin("a", work)
        flights.begin("a", work)
        waiter = asyncio.create_task(flights.share("a", work))
        await event_loop_turns()
        waiter.cancel()
        await event_loop_turns()
        assert (work.began, work.cancelled, "a" in flights) == (1, 0, True)
        joined = asyncio.create_task(flights.share("a", work))
        await event_loop_turns()
        work.result.set_result("done")
        assert await joined == "done"
        assert "a" not in flights


@virtual
async def test_background_work_reports_what_it_raises() -> None:
    """Without a waiter the exception is reported, and work with other keys goes on."""
    lost = Lost()
    async with SingleFlight[str, str](lost) as flights:
        failing, going_on = Work(), Work()
        flights.begin("a", failing)
        other = asyncio.create_task(flights.share("b", going_on))
        await event_loop_turns()
        error = ValueError("no")
        failing.result.set_exception(error)
        await event_loop_turns()
        assert lost == [error]
        going_on.result.set_result("done")
        assert await other == "done"


@virtual
async def test_background_work_with_a_rider_reports_to_the_rider_alone() -> None:
    """The waiter gets the exception, and it is not reported as well."""
    lost = Lost()
    async with SingleFlight[str, str](lost) as flights:
        work = Work()
        flights.begin("a", work)
        waiter = asyncio.create_task(flights.share("a", work))
        await event_loop_turns()
        work.result.set_exception(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await waiter
    assert lost == []


# The end.


@virtual
async def test_the_exit_cancels_what_is_under_way_and_waits_for_its_end() -> None:
    """No task is left, however long its clean-up takes."""
    lost = Lost()
    async with SingleFlight[str, str](lost) as flights:
        riding, alone = Work(), Work()
        waiter = asyncio.create_task(flights.share("a", riding))
        flights.begin("b", alone)
        await event_loop_turns()
    assert (riding.cancelled, alone.cancelled) == (1, 1)
    assert riding.tidied.is_set()
    assert alone.tidied.is_set()
    assert len(flights) == 0
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert lost == []


@virtual
async def test_r32_the_exit_strands_nobody_whose_work_had_not_begun() -> None:
    """Work cancelled before its first turn still ends the wait of its waiters."""
    async with SingleFlight[str, str](Lost()) as flights:
        work = Work()
        waiter = asyncio.create_task(flights.share("a", work))
        await asyncio.sleep(0)
        assert (len(flights), work.began) == (1, 0)
    assert len(flights) == 0
    done, _ = await asyncio.wait([waiter], timeout=1)
    assert done
    assert waiter.cancelled()


@virtual
async def test_the_exit_lets_an_exception_of_its_own_block_through() -> None:
    """An exception of the `async with` block is raised unchanged."""
    flights, work = SingleFlight[str, str](Lost()), Work()

    async def block() -> None:
        async with flights:
            flights.begin("a", work)
            await event_loop_turns()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()
    assert (work.cancelled, len(flights)) == (1, 0)


@virtual
async def test_background_work_that_somebody_shares_already_goes_on_without_them() -> None:
    """After a `begin`, cancelled waiters do not cancel the work."""
    async with SingleFlight[str, str](Lost()) as flights:
        work = Work()
        waiter = asyncio.create_task(flights.share("a", work))
        await event_loop_turns()
        flights.begin("a", work)
        waiter.cancel()
        await event_loop_turns()
        assert (work.began, work.cancelled, "a" in flights) == (1, 0, True)
