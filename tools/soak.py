"""Flip 5,000 bytes of a log, then kill a server 1,000 times while people use it.

`python -m tools.soak [--flips N] [--kills N] [--seed N] [--stretch N]`. Flips: `tools/flips.py`.
The kills come in stretches of ten, each with people of its own and a seed made of `--seed` and its
number, over one data directory. Some of the people use the JavaScript SDK where there is Node. At
the first violation it prints the seed, the stretch, its kills and what is wrong. After a violation
the files are kept, and the status is 1.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.sdk.node_client import open_node
from tests.sdk.python_client import open_python
from tests.servers.killing import Kill, Killing, anyhow
from tools.flips import Flip, flips, planned, states

AT_A_TIME = 10
"""Kills in a stretch: enough to meet what the one before left behind, few enough to read."""


def plan(seed: int, stretch: int) -> list[Kill]:
    """Return the kills of a stretch, the same ones each time."""
    chance = random.Random(f"{seed}/{stretch}")
    return [anyhow(chance) for _ in range(AT_A_TIME)]


async def soak(data: Path, *, kills: int, seed: int, first: int) -> bool:
    """Kill that often; return whether every promise was kept."""
    clients = [open_python, open_node] if shutil.which("node") else [open_python]
    killing = Killing(data)
    with _progress() as progress:
        task = progress.add_task("kills", total=kills)

        def show(kill: Kill) -> None:
            progress.update(task, advance=1, description=f"{kill!s:24}")

        killing.on_kill = show
        try:
            for stretch in range(first, first + -(-kills // AT_A_TIME)):
                planned = plan(seed, stretch)[: kills - killing.kills]
                try:
                    found = await killing.stretch(
                        planned,
                        seed=f"{seed}/{stretch}",
                        clients=clients,
                        devices=[open_python, clients[-1]],
                    )
                except (ExceptionGroup, AssertionError, TimeoutError) as error:
                    trouble = "".join(traceback.format_exception(error))
                else:
                    trouble = "\n".join(map(str, found))
                if trouble:
                    progress.stop()
                    print(f"after {killing.kills} kills, seed {seed}, stretch {stretch}")
                    print(f"again: make soak ARGS='--flips 0 --seed {seed} --stretch {stretch}'")
                    print(f"kills: {', '.join(map(str, planned))}")
                    print(f"data:  {data}\n{trouble}")
                    return False
        finally:
            killing.close()
    print(f"{killing.kills} kills, seed {seed}: nothing lost, nothing twice, one ending each")
    return True


def flip_bytes(directory: Path, *, count: int, seed: int) -> bool:
    """Flip so many bytes, each in a copy of a log; return whether no answer was wrong."""
    left = states(directory)
    copies = directory / "copies"
    copies.mkdir()
    with _progress() as progress:
        task = progress.add_task("flips", total=count)

        def show(flip: Flip) -> None:
            progress.update(task, advance=1, description=f"{flip.file:12}")

        costs, wrong = flips(copies, left, planned(left, count, str(seed)), on_flip=show)
    for one in wrong:
        print(f"wrong after a flip: {one}")
    counted = ", ".join(f"{cost} {number:,}" for cost, number in sorted(costs.items()))
    print(f"{costs.total() + len(wrong):,} flips, seed {seed}: {len(wrong)} wrong; {counted}")
    return not wrong


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn())


def main() -> int:
    """Soak as the command line says."""
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--flips", type=int, default=5000, help="how many bytes; default 5000")
    parser.add_argument("--kills", type=int, default=1000, help="how many; default 1000")
    parser.add_argument("--seed", type=int, default=None, help="repeat another soak's kills")
    parser.add_argument("--stretch", type=int, default=0, help="begin with this stretch of kills")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    directory = Path(tempfile.mkdtemp(prefix="towpath-soak-"))
    print(f"seed {seed}")
    well = not given.flips or flip_bytes(directory, count=given.flips, seed=seed)
    if given.kills:
        work = soak(directory / "data", kills=given.kills, seed=seed, first=given.stretch)
        well = asyncio.run(work) and well
    if well:
        shutil.rmtree(directory)
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
