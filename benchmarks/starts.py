"""Starts of `towpath serve` over a log: how long until it is ready, and its peak memory."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import Measure, Sample
from benchmarks.large_log import LargeLog, kill_with_wal
from benchmarks.machine import ROOT, cpu_seconds, on_server_core, peak_kib
from towpath.testing.server import ServerProcess

RENEWED = Measure("starts with a new epoch", "starts", zero=True)
"""A kill keeps the epoch; a start that renews it would have measured something else."""


class _Start(NamedTuple):
    seconds: float
    cpu: float
    """CPU time of the server until it was ready, in seconds."""
    peak: float
    """In MB."""
    renewed: bool


def starts(large: LargeLog, empty: LargeLog, *, times: int, wal: int) -> Sample:
    """Start a server over copies of a log, after a stop and after kills.

    Args:
        large: the log that is measured.
        empty: what it is compared with: in turn with each start, one of this log after a stop.
        times: how often each start is made; a figure is the median.
        wal: bytes of the write-ahead log that the larger kill leaves.
    """
    kinds = {
        "clean stop": None,
        "kill -9": 1,
        f"kill -9, {wal / 1e6:.0f} MB of write-ahead log": wal,
    }
    sample: Sample = {RENEWED: 0}
    for kind, size in kinds.items():
        made: dict[str, list[_Start]] = {"empty": [], "large": []}
        for _ in range(times):
            made["empty"].append(_start(empty, None))
            made["large"].append(_start(large, size))
        for title, unit, values in (
            ("", "s", lambda one: one.seconds),
            (": CPU", "s", lambda one: one.cpu),
            (": peak memory", "MB", lambda one: one.peak),
        ):
            empties, larges = (statistics.median(map(values, of)) for of in made.values())
            sample[Measure(f"start after {kind}{title}", unit)] = larges
            sample[Measure(f"start after {kind}{title}, ratio", "÷ empty log")] = larges / empties
        sample[RENEWED] += sum(one.renewed for of in made.values() for one in of)
    return sample


def _start(log: LargeLog, wal: int | None) -> _Start:
    """Start a server over a copy; before, a process is killed if `wal` is a size."""
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
        database = log.copy(Path(folder, "data"))
        if wal is not None:
            kill_with_wal(database, wal)
        os.sync()  # What the copy left to write would be waited for by the start's first fsync.
        server = ServerProcess(database.parent, "--app", "benchmarks.agents", cwd=ROOT)
        with on_server_core():
            began = time.perf_counter()
            server.start()
            seconds = time.perf_counter() - began
        assert server.process is not None, "it was started"
        pid = server.process.pid
        try:
            cpu, peak = cpu_seconds(pid), peak_kib(pid) * 1024 / 1e6
        finally:
            server.stop()
        return _Start(seconds, cpu, peak, "log_epoch_renewed" in server.log.read_text())
