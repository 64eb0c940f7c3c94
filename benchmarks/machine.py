"""The machine: which core does what, what a process has used, and how to describe it all."""

import contextlib
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Measure, Sample

ROOT = Path(__file__).resolve().parents[1]
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = (CORES[0], CORES[1]) if len(CORES) > 1 else (CORES[0], CORES[0])

SERVER_CPU = Measure("server CPU", "% of a core")
CLIENT_CPU = Measure("client CPU", "% of a core")


def pin_client() -> None:
    """Keep this process, the load client, on its core."""
    os.sched_setaffinity(0, {CLIENT_CORE})


@contextlib.contextmanager
def on_server_core() -> Iterator[None]:
    """Let everything started inside, processes and threads, live on the server's core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> None:
    """Allow this process and its children as many files as the system lets them have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def resident_kib(pid: int) -> int:
    """Return the resident set of a process."""
    return _memory_kib(pid, "VmRSS:")


def peak_kib(pid: int) -> int:
    """Return the largest resident set that a process has had."""
    return _memory_kib(pid, "VmHWM:")


def _memory_kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, all its threads, in steps of a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time of server and client up to a moment."""

    at: float
    server: float
    client: float

    @classmethod
    def now(cls, server: int) -> "Usage":
        """Return what both have used so far."""
        return cls(time.monotonic(), cpu_seconds(server), time.process_time())

    def since(self, earlier: "Usage") -> Sample:
        """Return how busy both were since an earlier moment."""
        elapsed = self.at - earlier.at
        return {
            SERVER_CPU: 100 * (self.server - earlier.server) / elapsed,
            CLIENT_CPU: 100 * (self.client - earlier.client) / elapsed,
        }


def description(data: Path) -> str:
    """Return what the figures were taken on: machine, interpreter, file system, commit."""
    pinned = (
        f"server on core {SERVER_CORE}, client on core {CLIENT_CORE}"
        if SERVER_CORE != CLIENT_CORE
        else "server and client share the one core there is"
    )
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"data on {_file_system(data)}; {pinned}; commit {_commit()}"
    )


def load_average() -> float:
    """Return how many tasks wanted a core during the last minute."""
    return os.getloadavg()[0]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found = line.split()[:3]
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py", "requirements")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with uncommitted changes" if changed else commit


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.strip()
