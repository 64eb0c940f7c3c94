"""Run the benchmarks: `make bench ARGS="latency --record"`; README.md says how to read them."""

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
# A script finds its own folder first; the rooms of this package are found from the root.
sys.path[0] = str(ROOT)

from benchmarks import (  # noqa: E402
    attack,
    broker,
    connects,
    cuts,
    fanout,
    idle,
    latency,
    machine,
    manager,
    resume,
    scale,
    slow,
    verification,
)
from benchmarks.figures import Figures, Sample, record  # noqa: E402

README = ROOT / "benchmarks" / "README.md"
QUIET_LOAD = 0.5
"""More than this wanting a core before we begin is not a quiet machine."""


class Benchmark(Protocol):
    """Measures something in a server, or a log, of its own each time."""

    @property
    def name(self) -> str:
        """What it is called on the command line and in README.md."""

    @property
    def setting(self) -> str:
        """What is done, in a sentence."""

    def sample(self) -> Sample:
        """Measure once."""


BENCHMARKS: dict[str, tuple[Benchmark, Benchmark]] = {
    full.name: (full, quick)
    for full, quick in (
        (latency.FULL, latency.QUICK),
        (idle.FULL, idle.QUICK),
        (fanout.FULL, fanout.QUICK),
        (broker.FULL, broker.QUICK),
        (verification.FULL, verification.QUICK),
        (manager.FULL, manager.QUICK),
        (connects.FULL, connects.QUICK),
        (attack.FULL, attack.QUICK),
        (resume.FULL, resume.QUICK),
        (cuts.FULL, cuts.QUICK),
        (slow.FULL, slow.QUICK),
        (scale.FULL, scale.QUICK),
    )
}
"""Each benchmark as it counts, and small, to see that it works."""


def main() -> int:
    """Run what was asked for; 1 where something was lost that must not be."""
    request = _arguments()
    _leave_the_environment()
    machine.raise_file_limit()
    machine.pin_client()
    description = machine.description(Path(tempfile.gettempdir()))
    print(f"On {description}.")
    if machine.load_average() > QUIET_LOAD:
        print(f"The machine is not quiet: load average {machine.load_average():.1f}.")
    failures: list[str] = []
    for name in request.names or BENCHMARKS:
        figures = _measure(_chosen(name, request), request.runs or (2 if request.quick else 5))
        failures += figures.failures()
        if request.record:
            record(README, figures, description)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure Towpath.")
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"{', '.join(BENCHMARKS)}; default all"
    )
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--runs", type=int, help="how often each is run; default 5, quick 2")
    parser.add_argument("--threads", type=int, help="threads of the log that `scale` fills")
    parser.add_argument("--keep", type=Path, help="where `scale` keeps the logs that it fills")
    parser.add_argument("--record", action="store_true", help="write the figures into README.md")
    request = parser.parse_args()
    if unknown := set(request.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {unknown.pop()!r}: choose from {', '.join(BENCHMARKS)}")
    if request.runs is not None and request.runs < 1:
        parser.error("--runs must be at least 1")
    if request.threads is not None and request.threads < 1:
        parser.error("--threads must be at least 1")
    if request.quick and request.record:
        parser.error("figures of --quick mean nothing and are not recorded")
    return request


def _chosen(name: str, request: argparse.Namespace) -> Benchmark:
    chosen = BENCHMARKS[name][request.quick]
    if isinstance(chosen, scale.Scale):
        threads = request.threads or chosen.threads
        return dataclasses.replace(chosen, threads=threads, keep=request.keep)
    return chosen


def _leave_the_environment() -> None:
    """Measure the defaults, whatever this shell is set up for."""
    for name in [name for name in os.environ if name.startswith("TOWPATH_")]:
        del os.environ[name]


def _measure(benchmark: Benchmark, runs: int) -> Figures:
    print(f"\n{benchmark.name}: {benchmark.setting}; {runs} runs", flush=True)
    samples = []
    for number in range(1, runs + 1):
        samples.append(benchmark.sample())
        print(f"  run {number} done", flush=True)
    figures = Figures(benchmark.name, benchmark.setting, samples)
    print(f"\n{figures.table()}", flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main())
