"""A server that kills itself at each named point, while users work with it.

Every test is repeated exactly by its seed, except for what threads and clocks make of it.
"""

import asyncio
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.kit.crashes import MOMENTS, POINTS, VARIABLE, crash_message
from tests.sdk.python_client import open_python
from tests.servers.conversation import ask, from_the_start, seen_in, text_of, until_over
from tests.servers.killing import Killing, at
from towpath.log.sqlite.file_schema import CHANNELS, LOG
from towpath.testing.server import ServerProcess
from towpath.testing.wire_client import wire_client

pytestmark = pytest.mark.servers

SEED = 20261125
AT_A_TIME = 3
THREADS = "name LIKE 'thread:%'"
"""The channels of threads, in the tables of the log."""
GROUPS = [POINTS[first : first + AT_A_TIME] for first in range(0, len(POINTS), AT_A_TIME)]


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killing]:
    """One server and one data directory for all of them."""
    killing = Killing(tmp_path_factory.mktemp("killing") / "data")
    yield killing
    killing.close()


@pytest.mark.parametrize("points", GROUPS, ids=lambda points: f"{points[0]}..{points[-1]}")
async def test_r42_r47_r92_a_kill_at_any_point_breaks_no_promise(
    killing: Killing, points: tuple[str, ...]
) -> None:
    """At each point the process dies by its own hand; nothing is lost, doubled or left open."""
    chance = random.Random(f"{SEED} {points[0]}")
    kills = [at(point, chance) for point in points]
    before = killing.kills
    found = await killing.stretch(
        kills, seed=f"{SEED} {points}", clients=[open_python], devices=[open_python]
    )
    assert list(map(str, found)) == [], f"seed {SEED}: {', '.join(map(str, kills))}"
    assert killing.kills == before + len(points)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_r77_r80_a_kill_in_the_sweep_leaves_a_thread_whole(
    tmp_path: Path, moment: str
) -> None:
    """What retention drops is all there or all gone; the thread is whole either way."""
    server = ServerProcess(tmp_path / "data", "--app", "tests.kit.crashes:gateway")
    file = server.data / "towpath.db"
    try:
        await asyncio.to_thread(server.start)
        token = server.token("historian")
        async with wire_client(server.ws, token) as client:
            started = await ask(client, "tell 30", agent="reject")
            await until_over(client, started)
            text = text_of(client.events(started.channel))
            last = client.publications(started.channel)[-1]["offset"]
        await asyncio.to_thread(server.kill)
        rows = _age(file)
        await asyncio.to_thread(_die, server, f"sweep.{moment}")
        left = _rows(file)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(20):
            while _rows(file):  # noqa: ASYNC110 - what another process does.
                await asyncio.sleep(0.02)
        async with wire_client(server.ws, token) as client:
            whole = (await from_the_start(client, started.thread))["subscribe"]
            await client.command("unsubscribe", channel=started.channel)
            position = {"recover": True, "offset": last - 1, "epoch": whole["epoch"]}
            back = await client.command("subscribe", channel=started.channel, **position)
    finally:
        server.kill()
    assert rows > 0
    assert left == (0 if moment == "after" else rows)
    assert text_of(seen_in({"subscribe": whole})) == text_of(seen_in(back)) == text
    assert whole["offset"] == back["subscribe"]["offset"] == last
    assert back["subscribe"]["recovered"] is False


def _die(server: ServerProcess, point: str) -> None:
    """Let a server live until it has killed itself at a point."""
    server.environment[VARIABLE] = point
    server.launch()
    del server.environment[VARIABLE]
    assert server.process is not None, "it was launched"
    while server.process.poll() is None:
        server.ready()  # Its probes are writes, and the sweep comes after the first.
        time.sleep(0.02)
    assert server.process.returncode == -signal.SIGKILL
    assert crash_message(point) in server.log.read_text()


def _age(file: Path) -> int:
    """Make all that threads hold too old to be kept; return how many rows that is."""
    with closing(sqlite3.connect(file)) as db, db:
        for channel in list(CHANNELS.rows(db, f"WHERE {THREADS}")):
            CHANNELS.update(db, channel._replace(updated=0.0, due=0.0))
            for row in list(LOG.rows(db, "WHERE channel=?", (channel.id,))):
                LOG.update(db, row._replace(at=0.0))
    return _rows(file)


def _rows(file: Path) -> int:
    """Return how many rows of threads the log has."""
    with closing(sqlite3.connect(file)) as db:
        found = db.execute(
            f"SELECT COUNT(*) FROM log WHERE channel IN (SELECT id FROM channels WHERE {THREADS})"
        ).fetchone()
    return int(found[0])
