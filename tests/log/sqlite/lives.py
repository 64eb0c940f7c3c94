"""Lives of a process that uses a log: each is forked, writes, and ends or is killed.

Run as `python -m tests.log.sqlite.lives DATABASE LIFE…`. A life is `WRITES` or `WRITES@POINT`. A
point is a step of opening or closing at which the process kills itself; a life without a point
is killed after its writes, and `WRITES@end` closes the log. Each acknowledged write is one line:
the epoch of its channel, its offset and its text. With `SIZE` in the environment, a text has so
many characters; after write number `COPY_AFTER` of a life, its files are copied to `older`.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.log.brokers import Deliveries, Notes, text_write
from towpath.log.sqlite import companion
from towpath.log.sqlite.broker import SqliteBroker
from towpath.log.sqlite.commit_counter import CommitCounter

POINTS = {
    "before pending": ("write", 1, "before"),
    "during pending": ("replace", 1, "before"),
    "after pending": ("write", 1, "after"),
    "before counter": ("counter", 1, "before"),
    "after counter": ("counter", 1, "after"),
    "before current": ("write", 2, "before"),
    "during current": ("replace", 2, "before"),
    "after current": ("write", 2, "after"),
    "before clean": ("write", 3, "before"),
    "during clean": ("replace", 3, "before"),
    "after clean": ("write", 3, "after"),
}
"""By name: the step, which time it is done, and whether the process dies before or after it."""
OWNERS: dict[str, tuple[Any, str]] = {
    "write": (companion, "write"),
    "replace": (os, "replace"),
    "counter": (CommitCounter, "__init__"),
}


def die(*_: object) -> None:
    """Kill this process, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def copy(path: Path, to: Path) -> None:
    """Copy the files of the database, while it is open, into a directory."""
    to.mkdir(exist_ok=True)
    for part in path.parent.glob(f"{path.name}*"):
        if part.suffix not in (".companion", ".commits", ".lock"):
            shutil.copy(part, to / part.name)


def arm(point: str) -> None:
    """Let this process die at a point."""
    step, nth, moment = POINTS[point]
    owner, name = OWNERS[step]
    real: Callable[..., Any] = getattr(owner, name)
    done = 0

    def passing(*given: Any, **named: Any) -> Any:
        nonlocal done
        done += 1
        if done == nth and moment == "before":
            die()
        result = real(*given, **named)
        if done == nth:
            die()
        return result

    setattr(owner, name, passing)


async def live(path: Path, writes: int, *, size: int, close: bool) -> None:
    """Open the log, write, and close it or die."""
    broker = SqliteBroker(path, Deliveries(), Notes(), boot_id="life")
    await broker.start()
    copy_after = int(os.environ.get("COPY_AFTER", "-1"))
    for number in range(1, writes + 1):
        text = os.urandom(size // 2).hex()
        written = await broker.submit(text_write(text))
        span = written.spans[0]
        sys.stdout.write(f"{span.epoch} {span.last} {text}\n")
        sys.stdout.flush()
        if number == copy_after:
            copy(path, path.parent / "older")
    if not close:
        die()
    await broker.stop()


def main(path: Path, lives: list[str]) -> None:
    """Fork each life in turn, and wait for its end."""
    for life in lives:
        writes, _, point = life.partition("@")
        if pid := os.fork():
            os.waitpid(pid, 0)
            continue
        if point not in ("", "end"):
            arm(point)
        size = int(os.environ.get("SIZE", "16"))
        asyncio.run(live(path, int(writes), size=size, close=point != ""))
        os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
