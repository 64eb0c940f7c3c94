"""Agents that do not let go, and a log that opens when a file says so, for `--app`.

`TOWPATH_TEST_OPENING` names a file: the log waits in a thread until the file is there. If the file
names an error of `FAILURES`, the opening raises that error.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from towpath.agents import demo
from towpath.agents.agent import AgentInput
from towpath.errors import ConfigurationError, LogCorrupted, LogFenced
from towpath.gateway import Gateway
from towpath.log.sqlite.broker import SqliteBroker
from towpath.node import build

VARIABLE = "TOWPATH_TEST_OPENING"
FAILURES = {
    one.__name__: one("the reason") for one in (ConfigurationError, LogCorrupted, LogFenced)
}
HOLDS = 600.0
"""How long an agent holds on, in seconds: longer than any test."""

gateway = Gateway()
gateway.agent("tools")(demo.tools)


@gateway.agent("deaf")
async def deaf(request: AgentInput) -> AsyncGenerator[str, None]:
    """Swallow each cancellation, like a library with `except BaseException` in a loop."""
    yield "working"
    until = time.monotonic() + HOLDS
    while time.monotonic() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)


@gateway.agent("blocking")
async def blocking(request: AgentInput) -> AsyncGenerator[str, None]:
    """Work in a thread that takes its time."""
    yield "working"
    await asyncio.to_thread(time.sleep, HOLDS)


@gateway.agent("threading")
async def own_thread(request: AgentInput) -> AsyncGenerator[str, None]:
    """Leave a thread of its own behind, which is no daemon."""
    threading.Thread(target=time.sleep, args=(HOLDS,)).start()
    yield "working"


class WaitingBroker(SqliteBroker):
    """A log that takes as long to open as a test says."""

    async def start(self) -> None:
        await asyncio.to_thread(_wait_for, Path(os.environ[VARIABLE]))
        await super().start()


def _wait_for(permission: Path) -> None:
    while not permission.exists():
        time.sleep(0.01)
    failure = FAILURES.get(permission.read_text())
    if failure is not None:
        raise failure


if VARIABLE in os.environ:
    vars(build)["SqliteBroker"] = WaitingBroker
