"""The lock on a data directory: admits one process at a time and holds the last boot id."""

import contextlib
import fcntl
from pathlib import Path
from typing import IO

from towpath.errors import ConfigurationError


def lock(path: Path) -> IO[str]:
    """Lock the data directory for this process; return the open lock file.

    Raises:
        ConfigurationError: the directory cannot be written, or another process has the lock.
    """
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
    """Return the boot id under which a log was opened here last; empty if none was opened."""
    lock.seek(0)
    return lock.read()


def mark(lock: IO[str], life: str) -> None:
    """Write into the lock file that a log was opened here, and under which boot id."""
    with contextlib.suppress(OSError):  # On a full disk the old mark stays, or there is no mark.
        lock.truncate(0)
        lock.write(life or "unknown")
        lock.flush()


def kernel_boot_id() -> str:
    """Return the kernel's boot id, which is new after each boot; empty if it cannot be read."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
