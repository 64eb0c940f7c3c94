"""One commit of the embedded log: the CPU time of the thread that writes, for each row."""

import tempfile
import time
from contextlib import closing
from pathlib import Path

import msgspec

from benchmarks.figures import Measure, Sample
from towpath.channels import thread_channel
from towpath.log.broker import Append, Item, Write, retention_of
from towpath.log.sqlite.continuity import Continuity
from towpath.log.sqlite.file_schema import DATABASE_NAME
from towpath.log.sqlite.log_file import LogFile
from towpath.runs.tables.sqlite.projection import ThreadProjection

BATCHES = (1, 64)
"""Rows in one commit, each of another channel."""
COMMITS = 20
"""Commits in one repetition."""
REPETITIONS = 25
"""The figure is their minimum, which other work on the machine disturbs least."""


def commits() -> Sample:
    """Commit rows, in batches of each size."""
    lowest = dict.fromkeys(BATCHES, float("inf"))
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as folder:
        path = Path(folder, DATABASE_NAME)
        file = LogFile(
            path,
            ThreadProjection(),
            retention=retention_of,
            synchronous="NORMAL",
            now=time.time,
            continuity=Continuity(path, boot_id="bench"),
        )
        with closing(file):
            for _ in range(REPETITIONS):
                for size in BATCHES:
                    lowest[size] = min(lowest[size], _seconds(file, size))
    return {
        Measure(f"commit of {size} rows", "µs CPU per row"): seconds / size * 1e6
        for size, seconds in lowest.items()
    }


def _seconds(file: LogFile, size: int) -> float:
    """Return the CPU seconds of one commit."""
    began = time.thread_time()
    for _ in range(COMMITS):
        file.commit([_row(at) for at in range(size)])
    return (time.thread_time() - began) / COMMITS


def _row(at: int) -> Write:
    tags = {"thread": f"t{at}", "run": "0" * 32, "agent": "tools", "seq": "1"}
    event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "0" * 32, "delta": "token "}
    channel = thread_channel("acme", f"u{at}", f"t{at}")
    return Write((Append(channel, (Item(msgspec.json.encode(event), tags),)),))
