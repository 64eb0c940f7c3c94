"""Runs blocking work in a thread of its own, never in the event loop's default executor.

Agents may hold all threads of the default executor (`asyncio.to_thread`); the log must open and
close nevertheless.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(name: str, work: Callable[[], T]) -> T:
    """Run `work` in a new thread, and return what it returns.

    If the caller is cancelled, the work goes on to its end.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type] # It is what `work` returned.

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # Passed on to the caller.
            error = raised
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits.
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
