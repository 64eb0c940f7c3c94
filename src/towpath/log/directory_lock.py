"""The lock on a data directory: one process at a time, and in which life of the machine."""

import contextlib
import fcntl
from pathlib import Path
from typing import IO

from towpath.errors import ConfigurationError


def lock(path: Path) -> IO[str]:
    """Keep other processes off the data directory while this one has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = path.with_suffix(".lock").open("a+", errors="replace")
    except OSError as error:
        raise ConfigurationError(
            f"the data directory {path.parent} cannot be written: {error.strerror}"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise ConfigurationError(
            f"the data directory {path.parent} is in use by another process, and one process owns "
            "a data directory: run one worker, stop the other process, or choose another directory"
        ) from None
    return handle


def read_mark(lock: IO[str]) -> str:
    """Return in which life of the machine a log was opened here last; empty where none was."""
    lock.seek(0)
    return lock.read()


def mark(lock: IO[str], life: str) -> None:
    """Note in the lock file that a log was opened here, and in which life of the machine."""
    with contextlib.suppress(OSError):  # On a full disk the old mark stays, or none is there.
        lock.truncate(0)
        lock.write(life or "unknown")
        lock.flush()


def kernel_boot_id() -> str:
    """Return which life of the machine this is; empty where nobody can say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
